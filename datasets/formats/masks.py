"""Run-length masks as COCO, nuImages, Scalabel, CVAT and Label Studio write them.

The decoders are written here, without pycocotools, because its C code trusts the counts that it is given. A mask that
cannot be read becomes `BROKEN`, which fits no image, so that `clean` counts it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perception.arrays import U8
from perception.errors import UserError
from perception.files import MAX_MEGAPIXELS
from perception.formats.images import check_pixels

MOST_RUNS = 1 << 24
"""Most runs of one mask."""
LONGEST_SIDE = 1 << 20
"""Of an image, pixels."""


@dataclass(frozen=True, slots=True)
class Mask:
    """Pixels of an image, run-length coded."""

    size_hw: tuple[int, int]
    """Of the image."""
    runs: bytes
    """Lengths of runs as little-endian uint32, outside and inside in turn, down each column, columns left to right:
    COCO's order."""

    @property
    def counts(self) -> list[int]:
        """The lengths of the runs."""
        return np.frombuffer(self.runs, "<u4").tolist()

    @property
    def area(self) -> int:
        """Number of pixels inside."""
        return sum(self.counts[1::2])

    def pixels(self) -> np.ndarray:
        """Return the mask as (H, W) bool."""
        height, width = self.size_hw
        counts = np.frombuffer(self.runs, "<u4")
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return np.asarray(inside.reshape(width, height).T)

    def box(self) -> tuple[float, float, float, float] | None:
        """Return the box around the pixels; None without any."""
        pixels = self.pixels()
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        if not len(rows):
            return None
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


BROKEN = Mask((0, 0), b"")
"""Stands for a mask that cannot be read."""


def from_pixels(pixels: np.ndarray) -> Mask:
    """Code a mask (H, W)."""
    flat = pixels.astype(bool).T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges, [len(flat)]])
    counts = np.diff(starts)
    if len(flat) and flat[0]:  # the first run lies outside, and may be empty
        counts = np.concatenate([[0], counts])
    height, width = pixels.shape
    return Mask((height, width), counts.astype("<u4").tobytes())


def of_coco(value: Any) -> Mask:
    """Read COCO's `segmentation`: `size` [height, width] and `counts`, a list or its compressed text.

    nuImages packs the compressed text in base64, see `of_nuimages`.
    """
    if not isinstance(value, dict):
        return BROKEN
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return BROKEN
    lengths = _unpacked(counts) if isinstance(counts, str) else counts
    return _checked((size[0], size[1]), lengths)


def of_nuimages(value: Any) -> Mask:
    """Read nuImages' `mask`: COCO's, with the compressed text once more in base64."""
    try:
        text = base64.b64decode(value["counts"], validate=True).decode("ascii")
    except (TypeError, KeyError, ValueError, binascii.Error):
        return BROKEN
    return of_coco({**value, "counts": text})


def as_coco(mask: Mask) -> dict[str, Any]:
    """Return a mask as COCO's `segmentation` with compressed counts."""
    counts, text = mask.counts, []
    for i, count in enumerate(counts):
        rest = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            part, rest = rest & 31, rest >> 5
            more = rest != (-1 if part & 16 else 0)
            text.append(chr(48 + part + 32 * more))
    return {"size": list(mask.size_hw), "counts": "".join(text)}


def of_cvat(rle: str, corner: Sequence[float] | None, size_hw: tuple[int, int]) -> Mask:
    """Read CVAT's `<mask>`: runs along the rows of a window, whose corner and size are left, top, width, height."""
    try:
        lengths = [int(one) for one in rle.split(",")]
        left, top, width, height = (int(one) for one in corner or ())
    except (ValueError, OverflowError):
        return BROKEN
    is_inside = min(left, top) >= 0 and left + width <= size_hw[1] and top + height <= size_hw[0]
    if not is_inside or min(width, height) < 1 or not _fits(size_hw):
        return BROKEN
    if min(lengths) < 0 or sum(lengths) != width * height:
        return BROKEN
    pixels = np.zeros(size_hw, bool)
    window = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    pixels[top : top + height, left : left + width] = window.reshape(height, width)
    return from_pixels(pixels)


def of_brush(value: Any, size_hw: tuple[int, int]) -> Mask:
    """Read Label Studio's brush: RGBA rows in the coding of `@thi.ng/rle-pack`; what is painted has alpha.

    32 bits: number of values. 5 bits: width of a value, less one. Four times 4 bits: widths of a length, less one. A
    block then has one bit (1: one value repeated), two bits (which width its length has), the length less one, and
    its value or values.
    """
    height, width = size_hw
    if not isinstance(value, list) or not value or not _fits(size_hw):
        return BROKEN
    if not all(type(one) is int and 0 <= one < 256 for one in value):
        return BROKEN
    bits = np.unpackbits(np.array(value, np.uint8))
    try:
        rgba = _unpacked_brush(bits, 4 * height * width)
    except ValueError:
        return BROKEN
    return from_pixels(rgba.reshape(height, width, 4)[..., 3] > 0)


def _unpacked_brush(bits: U8, expected: int) -> U8:
    """Return the values of a brush.

    Raises:
        ValueError: the bits end early, or hold another number of values.
    """
    at = 0

    def read(count: int) -> int:
        nonlocal at
        if at + count > len(bits):
            raise ValueError
        number = int("".join(map(str, bits[at : at + count].tolist())), 2)
        at += count
        return number

    if read(32) != expected:
        raise ValueError
    word = read(5) + 1
    widths = [read(4) + 1 for _ in range(4)]
    powers = 1 << np.arange(word - 1, -1, -1)
    out = np.zeros(expected, np.uint8)
    done = 0
    while done < expected:
        is_run, length = read(1), read(widths[read(2)]) + 1
        length = min(length, expected - done)  # as Label Studio's own reader does
        if is_run:
            out[done : done + length] = read(word) & 255
        else:
            if at + length * word > len(bits):
                raise ValueError
            words = bits[at : at + length * word].reshape(length, word)
            out[done : done + length] = (words @ powers) & 255
            at += length * word
        done += length
    return out


def _unpacked(text: str) -> list[int]:
    """Return the counts of COCO's compressed text: groups of 5 bits from 48, the lowest first; 32 marks that more
    follow. From the fourth count on, what differs from the one but last is stored.
    """
    counts: list[int] = []
    number = shift = 0
    for letter in text[:MOST_RUNS]:
        part = ord(letter) - 48
        if not 0 <= part < 64 or shift > 60:
            return []
        number |= (part & 31) << shift
        shift += 5
        if part & 32:
            continue
        if part & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    return [] if shift else counts


def _checked(size_hw: tuple[int, int], counts: Any) -> Mask:
    if not isinstance(counts, list) or len(counts) > MOST_RUNS or not _fits(size_hw):
        return BROKEN
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != size_hw[0] * size_hw[1]:
        return BROKEN
    return Mask(size_hw, np.array(counts, "<u4").tobytes())


def _fits(size_hw: tuple[int, int]) -> bool:
    """Whether an image may be so large."""
    if min(size_hw) < 1 or max(size_hw) > LONGEST_SIDE:
        return False
    try:
        check_pixels(size_hw, MAX_MEGAPIXELS, "mask")
    except UserError:
        return False
    return True
