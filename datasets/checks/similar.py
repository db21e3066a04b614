"""Images that are copies or near-copies of each other, by a perceptual hash.

The hash (dHash, N. Krawetz 2013) has one bit for each pair of neighbours in a 17 x 16 grey thumbnail: whether it
grows brighter to the right. It survives scaling, compression and light, and changes with the scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.arrays import U8
from perception.formats.images import read_image

if TYPE_CHECKING:
    from datasets.checks.findings import SetReport

BITS = 256
NEAR_BITS = 20
"""Bits in which near-copies differ at most. On KITTI's frames, copies in another size, light or compression differ in
up to 7 bits, frames of different recordings in 33 and more, neighbouring frames of a moving car in 37 (median)."""
_SIDE = 16
_PAIRS = 2_000_000
"""Pairs that are compared at once, 64 MB."""

Hash = NDArray[np.uint64]
"""(4,) the 256 bits."""


def image_hash(image_bgr: U8) -> Hash:
    """Return the hash of an image (H, W, 3)."""
    grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = small[:, 1:] > small[:, :-1]
    return np.packbits(bits.reshape(-1)).view(np.uint64).copy()


def hash_of_file(path: Path) -> Hash:
    """Return the hash of an image file.

    Raises:
        UserError: it cannot be read.
    """
    return image_hash(read_image(path))


def distance(a: Hash, b: Hash) -> int:
    """Return the number of bits in which two hashes differ."""
    return int(np.bitwise_count(a ^ b).sum())


def near_pairs(
    a: Sequence[Hash], b: Sequence[Hash] | None = None, most: int = NEAR_BITS
) -> list[tuple[int, int, int]]:
    """Return the pairs of near-copies as (index in `a`, index in `b`, bits), the nearest first.

    Args:
        a: hashes.
        b: others; None: pairs within `a`, each once.
        most: bits in which a pair may differ.
    """
    others = np.stack(a if b is None else b) if len(a if b is None else b) else np.zeros((0, BITS // 64), np.uint64)
    found: list[tuple[int, int, int]] = []
    step = max(1, _PAIRS // max(1, len(others)))
    for start in range(0, len(a), step):
        block = np.stack(a[start : start + step])
        bits = np.bitwise_count(block[:, None] ^ others[None]).sum(-1, dtype=np.int32)  # (chunk, M)
        rows, columns = np.nonzero(bits <= most)
        for i, k in zip((rows + start).tolist(), columns.tolist(), strict=True):
            if b is not None or i < k:
                found.append((i, k, int(bits[i - start, k])))
    return sorted(found, key=lambda pair: pair[2])


def groups(count: int, pairs: Iterable[tuple[int, int, int]]) -> list[list[int]]:
    """Return the indices that pairs connect, as groups of at least two."""
    root = list(range(count))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, k, _ in pairs:
        root[find(i)] = find(k)
    members: dict[int, list[int]] = {}
    for i in range(count):
        members.setdefault(find(i), []).append(i)
    return [group for group in members.values() if len(group) > 1]


def check_leaks(report: SetReport, train: Sequence[tuple[str, Hash]], val: Sequence[tuple[str, Hash]]) -> None:
    """Note near-copies on both sides of a split, given the names and hashes of each side's images."""
    for i, k, bits in near_pairs([value for _, value in train], [value for _, value in val]):
        report.add(
            "error",
            "near-copies on both sides of the split: move the recording to one side, or drop one of them",
            f"{train[i][0]} (training) and {val[k][0]} (held out)",
            f"{bits} of 256 bits differ",
        )
