"""H.264 with slices that can be lost: encode a short clip, leave out slices, decode with FFmpeg's concealment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import av
import av.error
import numpy as np

from perception.arrays import U8

SLICE_TYPES = (1, 5)
"""`nal_unit_type` of coded slices: of any picture, of an IDR picture (ITU-T H.264, table 7-1)."""


def encode_clip(frames_bgr: Sequence[U8], slices: int) -> list[bytes]:
    """Encode frames of one even size; returns one Annex B access unit a frame."""
    height, width = frames_bgr[0].shape[:2]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"  # type: ignore[attr-defined]
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    # rows of macroblocks in each slice; zerolatency alone would cut by threads
    encoder.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "crf": "26",
        "x264-params": f"slices={slices}:sliced-threads=0:annexb=1:repeat-headers=1:keyint=250",
    }
    packets = []
    for image in frames_bgr:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "bgr24")
        packets += encoder.encode(frame)  # type: ignore[attr-defined]
    packets += encoder.encode(None)  # type: ignore[attr-defined]
    return [bytes(packet) for packet in packets]


def nal_units(access_unit: bytes) -> Iterator[bytes]:
    """Split an Annex B byte stream at its start codes; the units come without them."""
    for part in access_unit.split(b"\x00\x00\x01")[1:]:
        yield part.rstrip(b"\x00")


def decode_last(access_units: Sequence[bytes], keep: Callable[[bool], bool]) -> U8 | None:
    """Decode what is left of a clip and return its last frame; None where none can be decoded.

    Args:
        access_units: from `encode_clip`.
        keep: called for each slice with whether it is the first of its frame; False loses it.
    """
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.options = {"flags": "+output_corrupt", "ec": "guess_mvs+deblock"}
    last = None
    for unit in [*access_units, None]:
        kept, first = [], True
        for nal in nal_units(unit) if unit is not None else ():
            is_slice = nal[0] & 31 in SLICE_TYPES
            if not is_slice or keep(first):
                kept.append(b"\x00\x00\x00\x01" + nal)
            first = first and not is_slice
        try:
            packet = av.Packet(b"".join(kept)) if unit is not None else None
            for frame in decoder.decode(packet):  # type: ignore[attr-defined]
                last = frame
        except av.error.FFmpegError:  # a unit that is too broken; the next one goes on
            continue
    return None if last is None else np.asarray(last.to_ndarray(format="bgr24"), np.uint8)
