"""Boxes of the same frame, paired and overlapped, for all frames at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.arrays import F64, I64

CHUNK = 2_000_000
"""Pairs handled at once, which bounds the memory."""


def same_frame_pairs(frames_a: I64, frames_b: I64) -> list[tuple[I64, I64]]:
    """All index pairs of entries of the same frame, sorted by the first index, in chunks; both inputs are sorted."""
    first = np.searchsorted(frames_b, frames_a)
    count = np.searchsorted(frames_b, frames_a, side="right") - first  # (A,)
    total = np.cumsum(count)
    chunks, start = [], 0
    while start < len(frames_a):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + CHUNK)))
        part = count[start:stop]
        index_a = np.repeat(np.arange(start, min(stop, len(frames_a))), part)
        index_b = np.arange(len(index_a)) + np.repeat(first[start:stop] - (np.cumsum(part) - part), part)
        chunks.append((index_a, index_b))
        start = stop
    return chunks


def intersections(a: F64, b: F64) -> F64:
    """Shared area of row i of a with row i of b, (N,); boxes that only touch, or are inverted, share nothing."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    return np.where((width > 0) & (height > 0), width * height, 0.0)


def signed_areas(boxes: F64) -> F64:
    """(N,) width times height as written; the official tools do not make inverted boxes empty."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def concatenate(parts: Sequence[tuple[np.ndarray, ...]], like: tuple[type, ...]) -> tuple[np.ndarray, ...]:
    """Chunks of several arrays joined, of the given dtypes even where there is no chunk."""
    return tuple(np.concatenate([np.zeros(0, dtype), *(part[i] for part in parts)]) for i, dtype in enumerate(like))


def components(a: I64, b: I64) -> I64:
    """Return the lowest a of each pair's connected component, (P,); pairs that share an a or a b are connected.

    Args:
        a, b: (P,) of each pair, from 0.
    """
    if not len(a):
        return a
    label, none = np.arange(a.max() + 1), np.iinfo(np.int64).max
    while True:
        by_b = np.full(b.max() + 1, none)
        np.minimum.at(by_b, b, label[a])
        found = label.copy()
        np.minimum.at(found, a, by_b[b])
        found = found[found]  # pointer jumping: long chains close in few rounds
        if (found == label).all():
            return label[a]
        label = found


def class_indices(class_names: Sequence[str], wanted: Sequence[str | None]) -> I64:
    """(len(class_names),) index into `wanted` by name, without regard to case; -1 where it is none of them."""
    lower = [None if name is None else name.lower() for name in wanted]
    known = {name: lower.index(name.lower()) if name.lower() in lower else -1 for name in set(class_names)}
    return np.fromiter(map(known.__getitem__, class_names), np.int64, len(class_names))
