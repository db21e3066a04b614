"""Open what FFmpeg reads, with limits, and say in a sentence why it cannot be opened."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from perception.errors import UserError, lfs_pointer
from perception.formats.images import check_pixels
from perception.redact import redact
from perception.video.certificates import authorities, certificate_fault, check_playlist, is_encrypted
from perception.video.hardware import device_for

if TYPE_CHECKING:
    from av.container import InputContainer

    from perception.source_options import SourceOptions

_URL = re.compile(r"(?:rtsps?|rtmps?|https?|srt|udp|tcp|tls|rtp)://.+", re.IGNORECASE | re.DOTALL)
PLAYLISTS = ("hls", "dash")
"""Formats whose files name other files."""
_ATTACHED_PIC = 0x0400
"""AV_DISPOSITION_ATTACHED_PIC of libavformat/avformat.h: cover art."""
_TS_DISCONTINUOUS, _NO_TIMESTAMPS = 0x0200, 0x0080
"""AVFMT_TS_DISCONT and AVFMT_NOTIMESTAMPS of libavformat/avformat.h."""


def is_remote(location: str) -> bool:
    """Whether a location is the URL of a streaming protocol."""
    return bool(_URL.fullmatch(location))


def stamps_may_jump(container: InputContainer) -> bool:
    """Whether stamps of this container format may begin again (MPEG-TS, MPEG-PS, HLS)."""
    return bool(int(container.format.flags) & _TS_DISCONTINUOUS)


def has_no_clock(container: InputContainer) -> bool:
    """Whether the format carries no time, so that FFmpeg makes it up: raw streams, images one after another."""
    name = container.format.name
    return bool(int(container.format.flags) & _NO_TIMESTAMPS) or name.endswith("_pipe") or name in ("mjpeg", "mpjpeg")


def open_container(location: str, options: SourceOptions) -> InputContainer:
    """Open a path, a URL or `-`. Every network wait is bounded, and so are those of a playlist.

    Raises:
        av.error.FFmpegError, OSError: see `refusal`.
        UserError: an encrypted stream whose certificates cannot be verified on this machine.
    """
    import av

    limits = {"max_pixels": str(int(options.max_megapixels * 1e6))}
    # titles in Latin-1 and the like are not worth a run
    common: dict[str, Any] = {"mode": "r", "metadata_errors": "replace"}
    if kind := device_for(options.decoder):
        from av.codec.hwaccel import HWAccel

        common["hwaccel"] = HWAccel(kind, allow_software_fallback=True)
    if location == "-":
        return av.open(sys.stdin.buffer, options=limits, **common)
    patience = (options.timeout_s, options.timeout_s)
    if not is_remote(location):
        # with `file:` before it, no part of a name is taken as a protocol
        waits = {"timeout": patience} if _is_playlist(location) else {}
        return av.open("file:" + location, options=limits, **common, **waits)
    # the usual five seconds of looking at the stream would be five seconds without an image
    given = limits | {"analyzeduration": "500000", "fpsprobesize": "0"}
    if not location.lower().startswith("http"):  # there may be a stored file behind HTTP: keep all of it
        given |= {"fflags": "nobuffer", "flags": "low_delay"}
    if location.lower().startswith("rtsp"):
        given |= {"rtsp_transport": options.rtsp_transport, "allowed_media_types": "video"}
    if is_encrypted(location):
        given |= {"tls_verify": "1", "ca_file": authorities()} if options.verify_tls else {"tls_verify": "0"}
    container = av.open(location, options=given, timeout=patience, **common)
    if options.verify_tls and location.lower().startswith("https:") and container.format.name in PLAYLISTS:
        container.close()  # FFmpeg does not verify what a playlist names
        check_playlist(location, options.timeout_s)
        container = av.open(location, options=given, timeout=patience, **common)
    return container


def _is_playlist(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(1024).lstrip(b"\xef\xbb\xbf \r\n\t")
    except OSError:
        return False
    return head.startswith(b"#EXTM3U") or b"<MPD" in head


def choose_stream(container: InputContainer, shown: str, options: SourceOptions) -> tuple[Any, str]:
    """The video stream to read, and a note where there was a choice.

    The largest one that can be decoded is taken; cover art and other attached images are none.

    Raises:
        UserError: none that can be decoded, or one with more pixels than allowed.
    """
    videos = [stream for stream in container.streams.video if not stream.disposition.value & _ATTACHED_PIC]
    if not videos:
        found = "holds no video, only cover art" if container.streams.video else "holds no image"
        raise UserError(f"{shown}: {found}", "a file or stream with a video track", "perception run VIDEO")
    readable = [stream for stream in videos if stream.codec_context is not None]
    if not readable:
        tag = _codec_tag(container, videos[0])
        raise UserError(
            f"{shown}: there is no decoder for its codec" + (f" ({tag})" if tag else ""),
            "a codec that FFmpeg decodes, such as H.264, H.265, AV1 or MJPEG",
            "ffprobe FILE   (says which codec it is)",
        )
    best = max(readable, key=lambda s: (s.codec_context.width * s.codec_context.height, -s.index))
    context = best.codec_context
    check_pixels((context.height, context.width), options.max_megapixels, shown)
    if len(videos) == 1:
        return best, ""
    others = ", ".join(_stream_text(stream) for stream in videos if stream is not best)
    return best, f"{len(videos)} video streams: {_stream_text(best)} is read, not {others}"


def _codec_tag(container: InputContainer, stream: Any) -> str:
    """The four letters that name a codec without decoder."""
    match = re.search(r"Video: [^(]*\(([^/)]{1,16})", _listing(container, stream))
    return match[1].strip() if match else ""


def cropping(container: InputContainer, stream: Any) -> tuple[int, int, int, int]:
    """Rows and columns that the container wants to be cut off (MP4's clean aperture, Matroska's pixel crop)."""
    if not container.format.name.startswith(("mov", "matroska")):
        return (0, 0, 0, 0)
    match = re.search(r"Frame Cropping: (\d{1,6})/(\d{1,6})/(\d{1,6})/(\d{1,6})", _listing(container, stream))
    if match is None:
        return (0, 0, 0, 0)
    left, right, top, bottom = map(int, match.groups())
    return (top, bottom, left, right)


def _listing(container: InputContainer, stream: Any) -> str:
    """FFmpeg's own listing of a stream; some of it PyAV has nowhere else."""
    import av

    level = av.logging.get_level()
    try:
        av.logging.set_level(av.logging.INFO)
        listing = container.dumps_format()  # type: ignore[attr-defined]
    finally:
        av.logging.set_level(level)
    parts = re.split(r"(?m)^  Stream #0:(\d+)", listing)
    return "".join(text for number, text in zip(parts[1::2], parts[2::2], strict=True) if int(number) == stream.index)


def _stream_text(stream: Any) -> str:
    context = stream.codec_context
    if context is None:
        return f"#{stream.index} (no decoder)"
    return f"#{stream.index} ({context.name} {context.width}x{context.height})"


# ---------------------------------------------------------------- refusals


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


def silence(location: str, timeout_s: float) -> UserError:
    """Nothing came in time."""
    if not is_remote(location):
        return UserError(
            f"{redact(location)}: gives no image within {timeout_s:g} s",
            "a playlist whose files are there",
            "a longer --timeout, if it is still being written",
        )
    return UserError(
        f"{redact(location)}: no answer within {timeout_s:g} s",
        "a stream that is running",
        f"ping {_host(location) or 'HOST'}   (is the address right, and the camera on?)",
    )


def refusal(location: str, error: Exception, options: SourceOptions) -> UserError:
    """What FFmpeg's error means to the user. Its own text holds the URL with the password, so it is not shown."""
    shown = redact(location)
    reason: str = getattr(error, "strerror", None) or type(error).__name__
    kind = type(error).__name__
    if kind == "FileNotFoundError" or isinstance(error, FileNotFoundError):
        return UserError(f"{shown}: no such file or stream", "a video", "check the path")
    if "Unauthorized" in kind or "Forbidden" in kind:
        return UserError(
            f"{shown}: refused ({reason})",
            "the right user and password",
            f"perception run {location.split('://')[0]}://USER:PASSWORD@HOST/PATH",
        )
    if kind in ("ExitError", "TimeoutError") or "timed out" in reason.lower():
        return silence(location, options.timeout_s)
    if options.verify_tls and (fault := certificate_fault(location, options.timeout_s)):
        return fault
    if is_remote(location):
        host = _host(location)
        unknown = bool(host) and not _is_known(host)
        return UserError(
            f"{shown}: {f'no such host as {host}' if unknown else reason}",
            "a stream that is running",
            f"ping {host or 'HOST'}   (is the address right, and the camera on?)",
        )
    if location == "-":
        return UserError(f"standard input: {reason}", "a video that FFmpeg can read", "cat VIDEO | perception run -")
    path = Path(location)
    if pointer := lfs_pointer(path):
        return pointer
    if path.is_file() and path.stat().st_size == 0:
        return UserError(f"{shown}: the file is empty", "a video", "copy or record it again")
    if _is_playlist(location):
        return UserError(
            f"{shown}: a playlist whose parts cannot be read ({reason})",
            "a playlist whose parts are files beside it",
            f"cat {shown}   (are they there? parts behind http need the playlist's own http URL)",
        )
    return UserError(
        f"{shown}: {reason}", "a video that FFmpeg can read", f"file {shown}   (is it a video, and whole?)"
    )
