"""Hardware decoders that FFmpeg can open on this machine. Frames come back to main memory, so all else stays."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, Literal

from perception.errors import UserError
from perception.source_options import Decoder

_PREFERRED: dict[str, tuple[Decoder, ...]] = {
    "darwin": ("videotoolbox",),
    "win32": ("cuda", "d3d11va", "qsv"),
}
"""By platform, best first: what `auto` tries."""
_ELSEWHERE: tuple[Decoder, ...] = ("cuda", "vaapi", "qsv")


def device_for(decoder: Decoder) -> Decoder | Literal[""]:
    """The kind of device that decodes; empty for software, as where `auto` finds no device.

    Raises:
        UserError: a device that was asked for by name cannot be opened.
    """
    if decoder == "software":
        return ""
    tried = _PREFERRED.get(sys.platform, _ELSEWHERE) if decoder == "auto" else (decoder,)
    working = next((kind for kind in tried if not why_not(kind)), "")
    if not working and decoder != "auto":
        raise UserError(
            f"--decoder {decoder}: {why_not(decoder)}",
            "a device and its driver, in a build of FFmpeg that knows it",
            "--decoder auto   (software where no device works)",
        )
    return working  # type: ignore[return-value]


@cache
def why_not(kind: Decoder) -> str:
    """Why a kind of device cannot decode here, in one line; empty where it can. H.264 is tried."""
    from av.codec import Codec
    from av.codec.hwaccel import HWAccel, hwdevices_available

    if kind not in hwdevices_available():
        return "this build of FFmpeg lacks it (perception uses the one of the package av)"
    try:
        HWAccel(kind).create(Codec("h264", "r"))
    except NotImplementedError:
        return "FFmpeg has no H.264 decoder for it"
    except OSError as error:  # all of FFmpeg's errors
        return f"it cannot be opened ({error.strerror or error})"
    return ""


def said(decoder: Decoder, kind: str, context: Any) -> str:
    """What the end summary says about decoding; empty for software that nobody wanted otherwise.

    Args:
        decoder: as asked for.
        kind: the device that was opened; empty for none.
        context: the stream's decoder.

    Raises:
        UserError: the device lacks the codec, and was asked for by name.
    """
    if decoder == "software":
        return ""
    if not kind:
        return "decoded in software: no hardware decoder works here"
    if context.is_hwaccel:
        return f"decoded in hardware ({kind})"
    if decoder != "auto":
        raise UserError(
            f"--decoder {decoder}: it does not decode {context.name}", "a codec of the device", "--decoder auto"
        )
    return f"decoded in software: {kind} does not decode {context.name}"
