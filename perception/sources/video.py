"""Video through FFmpeg: files, RTSP, HTTP and standard input, with the stream's own time stamps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.arrays import U8
from perception.clocks import Backoff, StreamClock
from perception.errors import UserError
from perception.redact import redact
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.types import Frame
from perception.video.frames import Deinterlacer, FrameConverter
from perception.video.hardware import device_for, said
from perception.video.opening import (
    PLAYLISTS,
    choose_stream,
    cropping,
    has_no_clock,
    is_remote,
    open_container,
    refusal,
    silence,
    stamps_may_jump,
)
from perception.video.scanning import scan

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

DECODE_AHEAD = 5
"""FFmpeg works on at least so many frames of a stored file at once. A key frame takes ten to twenty times as long
as others; with FFmpeg's own choice, one more than cores, all the rest waits for it on a machine with few cores."""
GUESSED_RATE_HZ = 25.0
"""What FFmpeg takes for raw streams that name no frame rate."""
_MANY_ERRORS = 200
"""Unreadable packets in a row after which a file counts as ended."""
_FURTHEST_NS = {True: 10 * 10**9, False: 30 * 3600 * 10**9}
"""How far a stored file's stamps may go ahead at once, where they may jump and where they may not. These are
FFmpeg's own limits, `-dts_delta_threshold` and `-dts_error_threshold`."""


def claim(location: str) -> float:
    """3 for a URL of a streaming protocol or `-`, 1 for any file."""
    if location == "-" or is_remote(location):
        return 3.0
    path = Path(location)
    return 1.0 if path.is_file() or path.is_fifo() else 0.0


def open_source(location: str, name: str, options: SourceOptions) -> Source:
    return Video(location, name, options)


class Video(Source):
    """Anything FFmpeg reads. Stored files end; live streams are opened again until the run is stopped."""

    kind = "video"

    def __init__(self, location: str, name: str, options: SourceOptions) -> None:
        super().__init__(location, name, options)
        self._remote = is_remote(location)
        self._clock = StreamClock()
        import av

        begin = time.monotonic()
        try:
            self._container = self._open()
        except (av.error.FFmpegError, OSError) as error:
            # FFmpeg gives several names to its patience running out
            if self._remote and time.monotonic() - begin >= 0.9 * options.timeout_s:
                raise silence(location, options.timeout_s) from None
            raise refusal(location, error, options) from None
        stream, note = self._stream(self._container)
        if note:
            self.notes.append(note)
        # a stored file has a length, also behind HTTP; what has none goes on for ever
        endless = self._remote or self._container.format.name in PLAYLISTS
        self.live = endless and not self._container.duration
        self._has_clock = not has_no_clock(self._container)
        self.rate_hz, self._rate_is_a_guess = self._rate(stream)
        self.frame_count = _promised_frames(stream, self.rate_hz)
        self._counted = bool(stream.frames)  # else it is an estimate from the duration
        context = stream.codec_context
        self.size_hw = (context.height, context.width) if context.width and context.height else None
        self._first: tuple[av.VideoFrame, int] | None = None
        self._converter = FrameConverter(options.max_megapixels, cropping(self._container, stream))
        if not self.live:
            self._look_at_first(stream)

    # ------------------------------------------------------------ opening

    def _open(self) -> InputContainer:
        return open_container(self.location, self.options)

    def _stream(self, container: InputContainer) -> tuple[Any, str]:
        """The stream to decode, and a note where there was a choice."""
        try:
            stream, note = choose_stream(container, redact(self.location), self.options)
        except UserError:
            container.close()
            raise
        if text := said(self.options.decoder, device_for(self.options.decoder), stream.codec_context):
            self.note(text)
        # frame threads halve the decoding time of a file, and add a delay that a live stream cannot have
        stream.thread_type = "SLICE" if self._remote else "AUTO"
        if not self._remote and not stream.codec_context.is_hwaccel:
            stream.codec_context.thread_count = max(DECODE_AHEAD, min(16, (os.cpu_count() or 1) + 1))
        stream.codec_context.options = {"max_pixels": str(int(self.options.max_megapixels * 1e6))}
        self._tick: Fraction | None = stream.time_base
        self._tick_ns = 10**9 * (self._tick or Fraction(0)).numerator
        self._begin = stream.start_time or 0
        self._aspect: Fraction | None = stream.sample_aspect_ratio
        self._aspect_hw = (stream.codec_context.height, stream.codec_context.width)
        return stream, note

    def _rate(self, stream: Any) -> tuple[float | None, bool]:
        """Frames a second, and whether that is a guess; None where arrival decides."""
        asked, announced = self.options.rate_hz, stream.average_rate or stream.guessed_rate
        if self._has_clock:
            if asked:
                self.notes.append(f"--rate {asked:g} is not used: this source has time stamps of its own")
            return (float(announced) if announced else None), False
        if self.live:
            return None, False
        if asked:
            return asked, False
        own = stream.codec_context.framerate
        if own:
            return float(own), False
        self.notes.append(
            f"neither time stamps nor a frame rate in this stream: {GUESSED_RATE_HZ:g} Hz is a guess (--rate sets it)"
        )
        return GUESSED_RATE_HZ, True

    def _look_at_first(self, stream: Any) -> None:
        """Decode the first frame: only it says how the images are to be turned."""
        self._frames = self._decoded(self._container.demux(stream), stream)
        self._first = next(self._frames, None)
        if self._first is None:
            self._container.close()
            if self.location == "-":
                raise UserError(
                    "standard input: nothing can be decoded",
                    "a video that can be read from front to end; an MP4 with its index at the end cannot",
                    "perception run FILE   (or ffmpeg -i FILE -c copy -movflags +faststart OUT.mp4)",
                )
            raise UserError(
                f"{redact(self.location)}: not one frame can be decoded",
                "a video that is whole",
                f"ffplay {redact(self.location)}   (does it show anything?)",
            )
        first = self._first[0]
        self._note_aspect(first, stream)
        try:
            image = self._converter.to_bgr(first, self._aspect)  # what cannot be converted is refused here
        except UserError as error:
            self._container.close()
            raise UserError(f"{redact(self.location)}: {error.found}", error.expected, error.do) from None
        self.size_hw = (image.shape[0], image.shape[1])
        self.geometry = self._converter.geometry

    def _note_aspect(self, frame: av.VideoFrame, stream: Any) -> None:
        """Take over the pixel aspect where a stream changes its size."""
        if (frame.height, frame.width) != self._aspect_hw:
            self._aspect_hw = (frame.height, frame.width)
            self._aspect = stream.codec_context.sample_aspect_ratio

    def _image(self, frame: av.VideoFrame, stream: Any) -> U8:
        """The upright image; adds its cost to `decode_ms`."""
        start = time.perf_counter()
        self._note_aspect(frame, stream)
        image = self._converter.to_bgr(frame, self._aspect)
        self.geometry = self._converter.geometry
        self.decode_ms += (time.perf_counter() - start) * 1e3
        return image

    def read(self) -> Iterator[Frame]:
        import av

        try:
            yield from self._read_live() if self.live else self._read_stored()
        except (av.error.FFmpegError, OSError) as error:  # the disk or the server went away
            if self.live:
                raise
            raise refusal(self.location, error, self.options) from None
        finally:
            self.notes += self._converter.notes.values()
            self._converter.notes = {}

    # ------------------------------------------------------------ stored

    def _read_stored(self) -> Iterator[Frame]:
        delivered = 0
        step_ns = round(1e9 / (self.rate_hz or GUESSED_RATE_HZ))
        stream, frames, clock, frame_id = self._from_start(step_ns)
        for decoded, corrupt in frames:
            timestamp_ns = clock.next_ns(self._stamp_ns(decoded, stream))
            if not delivered and self.options.start_s <= 0 and timestamp_ns > 1.5 * step_ns:
                self.notes.append(
                    f"the first {timestamp_ns / 1e9:.2f} s cannot be decoded: the video begins between two key frames"
                )
            if not delivered and frame_id is None:
                frame_id = round(timestamp_ns / step_ns)  # from the beginning, as far as the rate is steady
            assert frame_id is not None
            frame_id += corrupt  # what could not be decoded leaves a gap
            yield Frame(self._image(decoded, stream), timestamp_ns, frame_id, self.name, None, corrupt)
            delivered, frame_id = delivered + 1, frame_id + 1
        if clock.segments:
            self.notes.append(f"time stamps jumped {clock.segments} times; the clock went on by one frame each time")
        if clock.stood_still:
            self.notes.append(f"{clock.stood_still} time stamps stood still; spaced by the frame rate")
        if clock.out_of_order:
            self.notes.append(f"{clock.out_of_order} time stamps were out of order; spaced by the frame rate")
        if self._counted and self.frame_count and (frame_id or 0) < self.frame_count and not self.stopped.is_set():
            self.notes.append(f"the header promises {self.frame_count} frames, the file holds {frame_id or 0}")

    def _stamp_ns(self, frame: av.VideoFrame, stream: Any) -> int | None:
        """A frame's stamp, nanoseconds from the first one of the stream; None where it has none."""
        if not self._has_clock or frame.pts is None:
            return None
        time_base = frame.time_base
        if time_base == self._tick:  # in whole numbers: ten times as fast as with fractions
            whole, rest = divmod((frame.pts - self._begin) * self._tick_ns, time_base.denominator)
            return whole + (2 * rest > time_base.denominator or (2 * rest == time_base.denominator and whole & 1))
        time_base = time_base or stream.time_base
        return None if time_base is None else round((frame.pts * time_base - _begin_s(stream)) * 10**9)

    def _from_start(self, step_ns: int) -> tuple[Any, Iterator[tuple[av.VideoFrame, int]], StreamClock, int | None]:
        """Stream, frames, clock and number of the first frame, from `--start` or a little before it.

        The number is None where only its time is known.
        """
        jumps = stamps_may_jump(self._container)
        furthest_ns = _FURTHEST_NS[jumps]
        stream = self._stream_of(self._container)
        begin_ns = 0 if self._has_clock and stream.start_time is not None else None
        wanted_ns = int(self.options.start_s * 1e9)
        assert self._first is not None
        from_first = chain([self._first], self._frames)
        self._first = None
        if wanted_ns <= 0 or self.location == "-":
            return stream, from_first, StreamClock(step_ns, begin_ns, furthest_ns), 0
        exact = self._has_clock and not (jumps and not self._remote)
        if exact and (sought := self._seek(stream, wanted_ns)) is not None:
            return stream, sought, StreamClock(step_ns, begin_ns, furthest_ns), None
        self._container.close()
        self._container = self._open()
        stream, _ = self._stream(self._container)
        found = scan(
            self._container.demux(stream),
            StreamClock(step_ns, begin_ns, furthest_ns),
            wanted_ns,
            _begin_s(stream),
            self._has_clock,
        )
        clock = StreamClock(step_ns, None, furthest_ns, found.last_ns)
        clock.offset_ns = found.offset_ns
        return stream, self._decoded(found.packets, stream), clock, found.index

    def _stream_of(self, container: InputContainer) -> Any:
        return choose_stream(container, redact(self.location), self.options)[0]

    def _seek(self, stream: Any, wanted_ns: int) -> Iterator[tuple[av.VideoFrame, int]] | None:
        """Frames from the last key frame before the moment on; None where seeking does not lead there."""
        import av

        try:
            target = (stream.start_time or 0) + int(wanted_ns / 1e9 / stream.time_base)
            self._container.seek(target, stream=stream, backward=True)
            frames = self._decoded(self._container.demux(stream), stream)
            first = next(frames, None)
        except (av.error.FFmpegError, OSError):
            return None
        if first is None or (self._stamp_ns(first[0], stream) or 0) > wanted_ns:
            return None
        return chain([first], frames)

    def _decoded(self, packets: Iterator[Any], stream: Any) -> Iterator[tuple[av.VideoFrame, int]]:
        """Decoded frames, each with the number of unreadable packets just before it; sets `decode_ms`.

        A broken packet costs itself, not the run.
        """
        import av

        deinterlacer = Deinterlacer() if self.options.deinterlace else None
        broken, in_a_row, spent = 0, 0, 0.0
        ended = False
        while not self.stopped.is_set() and not ended:
            start = time.perf_counter()
            waited = 0.0
            try:
                packet = next(packets, None)
                waited = time.perf_counter() - start if self._remote else 0.0
            except (av.error.ExitError, OSError):
                raise  # the stream is silent, the disk or the network is gone
            except av.error.FFmpegError as error:
                reason = error.strerror
            else:
                reason = ""
            frames: list[av.VideoFrame] = []
            if not reason:
                try:
                    if packet is None:
                        ended = True
                    else:
                        frames = packet.decode()
                except av.error.EOFError:
                    ended = True
                except av.error.FFmpegError as error:
                    reason = error.strerror or "an error in the decoder"
            if reason:
                broken, in_a_row = broken + 1, in_a_row + 1
                self.emit_corrupt(f"a packet cannot be decoded ({reason}); skipped")
                if in_a_row >= _MANY_ERRORS:
                    self.notes.append(f"given up after {_MANY_ERRORS} unreadable packets in a row")
                    return
                continue
            if deinterlacer is not None:
                frames = [done for frame in frames for done in deinterlacer(frame, stream.time_base)]
                if ended:
                    frames += deinterlacer.flush()
                if deinterlacer.used:
                    self._converter.notes["interlaced"] = "interlaced: deinterlaced (--no-deinterlace leaves it)"
            elif any(frame.interlaced_frame for frame in frames):
                self._converter.notes["interlaced"] = "interlaced, and left so: two moments are in each image"
            spent += time.perf_counter() - start - waited
            for frame in frames:
                self.decode_ms, spent = spent * 1e3, 0.0
                if frame.is_corrupt:
                    self.emit_corrupt("a frame with errors in it")
                yield frame, broken
                broken, in_a_row = 0, 0

    # ------------------------------------------------------------ live

    def _read_live(self) -> Iterator[Frame]:
        """Frames for as long as anyone wants them, over any number of reconnects."""
        import av

        backoff = Backoff(self.options.retry_s, self.options.reconnects)
        container: InputContainer | None = self._container
        stream = self._stream_of(self._container)
        frame_id, lost = 0, False
        while not self.stopped.is_set():
            reason = "the stream ended"
            try:
                if container is None:
                    container = self._container = self._open()
                    stream, _ = self._stream(container)
                    self._clock.restart()
                    self.reconnects += 1
                for decoded, corrupt in self._decoded(container.demux(stream), stream):
                    arrival_ns = time.monotonic_ns()
                    pts_ns = self._stamp_ns(decoded, stream)
                    timestamp_ns, captured_ns = self._clock.stamp(pts_ns, arrival_ns)
                    if lost:
                        self.emit("lost", False, f"{redact(self.location)} is back")
                        lost = False
                    backoff.reset()
                    image = self._image(decoded, stream)
                    frame_id += corrupt
                    yield Frame(image, timestamp_ns, frame_id, self.name, None, corrupt, captured_ns)
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
            if not self._remote:  # opened again, it would begin with its last parts once more
                self.note(f"the playlist was not continued ({reason})")
                return
            if not lost:
                self.emit("lost", True, f"{redact(self.location)}: {reason}; trying again")
                lost = True
            if not backoff.wait(self.stopped):
                self.notes.append("given up: the stream did not come back")
                return

    def close(self) -> None:
        self._container.close()
        self._converter = FrameConverter()  # lets the old one's memory go


def _begin_s(stream: Any) -> Fraction:
    """The first stamp of a stream, seconds."""
    return (stream.start_time or 0) * (stream.time_base or Fraction(0))


def _promised_frames(stream: Any, rate_hz: float | None) -> int | None:
    """How many frames the header announces. An MP4's edit list may hide some of those that the file holds."""
    by_duration = None
    if stream.duration and rate_hz and stream.time_base:
        by_duration = float(stream.duration * stream.time_base) * rate_hz
    if not stream.frames:
        return None if by_duration is None else round(by_duration)
    hidden = by_duration is not None and stream.frames - by_duration > 1
    return int(by_duration) if hidden and by_duration is not None else stream.frames
