"""Decimal numbers from text, a million at once, to the bit as `float` reads them.

A token of up to eight digits before the point and eight after, fifteen in all, is a whole number below 2^53 divided
by a power of ten: both are exact in double precision, so the one division rounds correctly, as `float` does. The
eight digits are turned into a number by three multiplications on a 64-bit word (a well-known trick, described by
D. Lemire, "Number parsing at a gigabyte per second", 2021). Whatever looks different goes to `float` itself.
"""

from __future__ import annotations

import numpy as np

from perception.arrays import F64, I64, U8

MARGIN = 8
"""Bytes that must stand before the first token."""
_CHUNK = 1 << 15
_ZEROS = np.uint64(0x3030303030303030)
_BEYOND_NINE = np.uint64(0x7676767676767676)
_HIGH_BITS = np.uint64(0x8080808080808080)
_FOLDS = tuple(
    (np.uint64(factor), np.uint64(distance), np.uint64(mask))
    for factor, distance, mask in (
        (10, 8, 0x00FF00FF00FF00FF),
        (100, 16, 0x0000FFFF0000FFFF),
        (10000, 32, 0x00000000FFFFFFFF),
    )
)
_POWERS = 10.0 ** np.arange(16)


def parse_decimals(text: bytes, starts: I64, ends: I64) -> F64 | None:
    """The numbers written at `text[start:end]`, (N,); None where one is not a finite decimal number.

    Args:
        text: ASCII, with at least `MARGIN` bytes before the first token.
        starts, ends: (N,) of each token, in order, none empty.
    """
    buffer = np.frombuffer(text, np.uint8)
    dots = np.flatnonzero(buffer == ord("."))
    out = np.empty(len(starts))
    for begin in range(0, len(starts), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        values, odd = _plain(text, buffer, dots, starts[part], ends[part])
        left = np.flatnonzero(odd)
        tokens = [text[i:j] for i, j in zip(starts[part][left].tolist(), ends[part][left].tolist(), strict=True)]
        try:
            values[left] = list(map(float, tokens))
        except ValueError:
            return None
        if any(b"_" in token for token in tokens):  # which `float` allows between digits
            return None
        out[part] = values
    return out if np.isfinite(out).all() else None


def _plain(text: bytes, buffer: U8, dots: I64, starts: I64, ends: I64) -> tuple[F64, np.ndarray]:
    """(N,) values, and (N,) bool where the token is not a plain short decimal and its value means nothing."""
    words = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))  # the eight bytes from each place on
    first = buffer[starts]
    negative = first == ord("-")
    digits_start = starts + (negative | (first == ord("+")))
    within = dots[np.searchsorted(dots, starts[0]) : np.searchsorted(dots, ends[-1])]
    owner = np.searchsorted(starts, within, side="right") - 1
    point = ends.copy()
    inside = within < ends[owner]
    point[owner[inside]] = within[inside]
    whole_length = point - digits_start
    part_length = np.maximum(ends - point - 1, 0)
    odd = (whole_length > 8) | (part_length > 8) | (whole_length + part_length > 15)
    odd |= whole_length + part_length < 1
    whole, whole_odd = _eight_digits(words[point - 8], whole_length)
    part, part_odd = _eight_digits(words[ends - 8], part_length)
    scale = _POWERS[np.minimum(part_length, 15)]
    values = (whole * scale + part) / scale
    return np.where(negative, -values, values), odd | whole_odd | part_odd


def _eight_digits(words: np.ndarray, length: I64) -> tuple[F64, np.ndarray]:
    """The number that the last `length` (at most 8) characters of each word spell; and where one is no digit."""
    shift = ((8 - np.clip(length, 0, 8)) * 8).astype(np.uint64)  # of the characters before; 64 leaves 0
    digits = words ^ _ZEROS
    digits >>= shift
    digits <<= shift
    odd = (digits + _BEYOND_NINE) | digits
    odd &= _HIGH_BITS
    for factor, distance, mask in _FOLDS:  # digits to pairs, pairs to fours, fours to one number
        higher = digits * factor
        digits >>= distance
        digits += higher
        digits &= mask
    return digits.astype(np.float64), odd != 0
