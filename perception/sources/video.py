"""Video through FFmpeg: files, RTSP, HTTP and standard input, with the stream's own time stamps."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from perception.clocks import Backoff, StreamClock
from perception.errors import UserError
from perception.image_pool import PictureConverter
from perception.redact import redact
from perception.sources import Source, SourceOptions
from perception.types import Frame

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

_URL = re.compile(r"(?:rtsps?|rtmps?|https?|srt|udp|tcp|rtp)://.+", re.IGNORECASE | re.DOTALL)
DECODE_AHEAD = 5
"""FFmpeg works on at least so many pictures of a stored file at once. A key frame takes ten to twenty times as long
as others; with FFmpeg's own choice, one more than cores, all the rest waits for it on a machine with few cores."""
_MANY_ERRORS = 200
"""Unreadable packets in a row after which a file counts as ended."""


def claim(location: str) -> float:
    """3 for a URL of a streaming protocol or `-`, 1 for any file."""
    if location == "-" or _URL.fullmatch(location):
        return 3.0
    return 1.0 if Path(location).is_file() or Path(location).is_fifo() else 0.0


def open_source(location: str, name: str, options: SourceOptions) -> Source:
    return Video(location, name, options)


def _host(url: str) -> str:
    """The host of a URL, without user and password."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_known(host: str) -> bool:
    """Whether a name has an address. FFmpeg calls both "Input/output error"."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


class Video(Source):
    """Anything FFmpeg reads. Stored files end; live streams are opened again until the run is stopped."""

    kind = "video"

    def __init__(self, location: str, name: str, options: SourceOptions) -> None:
        super().__init__(location, name, options)
        self._remote = bool(_URL.fullmatch(location))
        self._clock = StreamClock()
        self._converter = PictureConverter()
        import av

        begin = time.monotonic()
        try:
            self._container = self._open()
        except (av.error.FFmpegError, OSError) as error:
            # FFmpeg gives several names to its patience running out
            silent = self._remote and time.monotonic() - begin >= 0.9 * options.timeout_s
            raise self._silence() if silent else self._refusal(error) from None
        stream = self._stream(self._container)
        # a stored file has a length, also behind HTTP; what has none goes on for ever
        self.live = self._remote and not self._container.duration
        context = stream.codec_context
        self.size_hw = (context.height, context.width) if context.width and context.height else None
        rate = stream.average_rate or stream.guessed_rate
        self.rate_hz = float(rate) if rate else None
        self.frame_count = stream.frames or None
        if self.frame_count is None and stream.duration and self.rate_hz and stream.time_base:
            self.frame_count = round(float(stream.duration * stream.time_base) * self.rate_hz)

    def _open(self) -> InputContainer:
        """Open the container; every network wait is bounded."""
        import av

        if self.location == "-":
            return av.open(sys.stdin.buffer, mode="r")
        if not self._remote:
            return av.open(self.location, mode="r")
        # the usual five seconds of looking at the stream would be five seconds without a picture
        options = {"analyzeduration": "500000", "fpsprobesize": "0"}
        if not self.location.lower().startswith("http"):  # there may be a stored file behind HTTP: keep all of it
            options |= {"fflags": "nobuffer", "flags": "low_delay"}
        if self.location.lower().startswith("rtsp"):
            options |= {"rtsp_transport": self.options.rtsp_transport, "allowed_media_types": "video"}
        patience = (self.options.timeout_s, self.options.timeout_s)
        return av.open(self.location, mode="r", options=options, timeout=patience)

    def _stream(self, container: InputContainer) -> Any:
        if not container.streams.video:
            container.close()
            shown = redact(self.location)
            raise UserError(
                f"{shown}: holds no picture", "a file or stream with a video track", "perception run VIDEO"
            )
        stream = container.streams.video[0]
        # frame threads halve the decoding time of a file, and add a delay that a live stream cannot have
        stream.thread_type = "SLICE" if self._remote else "AUTO"
        if not self._remote:
            stream.codec_context.thread_count = max(DECODE_AHEAD, min(16, (os.cpu_count() or 1) + 1))
        return stream

    def _refusal(self, error: Exception) -> UserError:
        """What FFmpeg's error means to the user. Its own text holds the URL with the password, so it is not shown."""
        shown = redact(self.location)
        reason: str = getattr(error, "strerror", None) or type(error).__name__
        kind = type(error).__name__
        if kind == "FileNotFoundError" or isinstance(error, FileNotFoundError):
            return UserError(f"{shown}: no such file or stream", "a video", "check the path")
        if "Unauthorized" in kind or "Forbidden" in kind:
            return UserError(
                f"{shown}: refused ({reason})",
                "the right user and password",
                f"perception run {self.location.split('://')[0]}://USER:PASSWORD@HOST/…",
            )
        if kind in ("ExitError", "TimeoutError") or "timed out" in reason.lower():
            return self._silence()
        if self._remote:
            host = _host(self.location)
            unknown = bool(host) and not _is_known(host)
            return UserError(
                f"{shown}: {f'no such host as {host}' if unknown else reason}",
                "a stream that is running",
                f"ping {host or 'HOST'}   (is the address right, and the camera on?)",
            )
        if self.location == "-":
            return UserError(
                f"standard input: {reason}", "a video that FFmpeg can read", "cat VIDEO | perception run -"
            )
        path = Path(self.location)
        if path.is_file() and path.stat().st_size == 0:
            return UserError(f"{shown}: the file is empty", "a video", "copy or record it again")
        return UserError(
            f"{shown}: {reason}", "a video that FFmpeg can read", f"file {shown}   (is it a video, and whole?)"
        )

    def _silence(self) -> UserError:
        return UserError(
            f"{redact(self.location)}: no answer within {self.options.timeout_s:g} s",
            "a stream that is running",
            f"ping {_host(self.location) or 'HOST'}   (is the address right, and the camera on?)",
        )

    def read(self) -> Iterator[Frame]:
        import av

        if self.live:
            yield from self._read_live()
            return
        try:
            yield from self._read_stored()
        except (av.error.FFmpegError, OSError) as error:  # the disk or the server went away
            raise self._refusal(error) from None

    # ------------------------------------------------------------ stored

    def _read_stored(self) -> Iterator[Frame]:
        container, delivered, frame_id = self._container, 0, 0
        stream = container.streams.video[0]
        begin = stream.start_time or 0
        step_ns = round(1e9 / (self.rate_hz or self.options.rate_hz))
        last_ns, gone_back = -1, 0
        seek_s = self.options.start_s
        if seek_s > 0 and stream.time_base and self.location != "-":
            container.seek(int(begin + seek_s / stream.time_base), stream=stream, backward=True)
        for picture, corrupt in self._pictures(container):
            time_base = picture.time_base or stream.time_base
            if picture.pts is None or time_base is None:
                timestamp_ns = last_ns + step_ns if last_ns >= 0 else 0
            else:
                timestamp_ns = round((picture.pts - begin) * time_base * 10**9)
            if timestamp_ns <= last_ns:
                gone_back += 1
                timestamp_ns = last_ns + 1
            if delivered == 0 and seek_s > 0:
                frame_id = round(timestamp_ns / step_ns)  # counted from the beginning, as far as the rate is steady
            last_ns = timestamp_ns
            frame_id += corrupt  # what could not be decoded leaves a gap
            start = time.perf_counter()
            image = self._converter.to_bgr(picture)
            self.decode_ms += (time.perf_counter() - start) * 1e3
            yield Frame(image, timestamp_ns, frame_id, self.name, self.camera, corrupt)
            delivered, frame_id = delivered + 1, frame_id + 1
        if self.location == "-" and not delivered and not self.stopped.is_set():
            raise UserError(
                "standard input: nothing can be decoded",
                "a video that can be read from front to end; an MP4 with its index at the end cannot",
                "perception run FILE   (or ffmpeg -i FILE -c copy -movflags +faststart OUT.mp4)",
            )
        if gone_back:
            self.notes.append(f"{gone_back} time stamps went back or stood still; mended")
        if self.frame_count and frame_id < self.frame_count and not self.stopped.is_set():
            self.notes.append(f"the header promises {self.frame_count} frames, the file holds {frame_id}")

    def _pictures(self, container: InputContainer) -> Iterator[tuple[av.VideoFrame, int]]:
        """Decoded pictures, each with the number of unreadable packets just before it; sets `decode_ms`.

        A broken packet costs itself, not the run.
        """
        import av

        stream = container.streams.video[0]
        packets = container.demux(stream)
        broken, in_a_row, spent = 0, 0, 0.0
        while not self.stopped.is_set():
            start = time.perf_counter()
            try:
                packet = next(packets)
                waited = time.perf_counter() - start if self._remote else 0.0
                pictures = packet.decode()
            except StopIteration:
                return
            except (av.error.InvalidDataError, av.error.BugError) as error:
                broken, in_a_row = broken + 1, in_a_row + 1
                self.emit_corrupt(f"a packet cannot be decoded ({error.strerror}); skipped")
                if in_a_row >= _MANY_ERRORS:
                    self.notes.append(f"given up after {_MANY_ERRORS} unreadable packets in a row")
                    return
                continue
            spent += time.perf_counter() - start - waited
            for picture in pictures:
                self.decode_ms, spent = spent * 1e3, 0.0
                if picture.is_corrupt:
                    self.emit_corrupt("a picture with errors in it")
                yield picture, broken
                broken, in_a_row = 0, 0

    # ------------------------------------------------------------ live

    def _read_live(self) -> Iterator[Frame]:
        """Frames for as long as anyone wants them, over any number of reconnects."""
        import av

        backoff = Backoff(self.options.retry_s, self.options.reconnects)
        container: InputContainer | None = self._container
        frame_id, lost = 0, False
        while not self.stopped.is_set():
            reason = "the stream ended"
            try:
                if container is None:
                    container = self._container = self._open()
                    self._stream(container)
                    self._clock.restart()
                    self.reconnects += 1
                for picture, corrupt in self._pictures(container):
                    arrival_ns = time.monotonic_ns()
                    time_base = picture.time_base
                    pts_ns = None if picture.pts is None or not time_base else round(picture.pts * time_base * 10**9)
                    timestamp_ns, captured_ns = self._clock.stamp(pts_ns, arrival_ns)
                    if lost:
                        self.emit("lost", False, f"{redact(self.location)} is back")
                        lost = False
                    backoff.reset()
                    start = time.perf_counter()
                    image = self._converter.to_bgr(picture)
                    self.decode_ms += (time.perf_counter() - start) * 1e3
                    frame_id += corrupt
                    yield Frame(image, timestamp_ns, frame_id, self.name, self.camera, corrupt, captured_ns)
                    frame_id += 1
            except av.error.ExitError:
                reason = f"silent for {self.options.timeout_s:g} s"
            except (av.error.FFmpegError, OSError, UserError) as error:
                reason = getattr(error, "strerror", None) or type(error).__name__
            if self.stopped.is_set():
                return
            if container is not None:
                container.close()
                container = None
            if not lost:
                self.emit("lost", True, f"{redact(self.location)}: {reason}; trying again")
                lost = True
            if not backoff.wait(self.stopped):
                self.notes.append("given up: the stream did not come back")
                return

    def close(self) -> None:
        self._container.close()
        self._converter = PictureConverter()  # lets the old one's memory go
