"""Memory for decoded images that is used again.

A new array of an image's size costs more than filling it: the system clears every page of it first, 0.2 to 0.5 ms
for 1242×375. So arrays come back to a small pool as soon as nobody refers to them.
"""

from __future__ import annotations

import sys

import numpy as np

from perception.arrays import U8


class ImagePool:
    """Arrays of one shape. One that is taken is handed out again only when all other references to it are gone.

    A view of an array refers to it too, so whoever keeps an image, or a part of one, keeps it unchanged.
    """

    MOST = 24
    """As many as a frame's way through the pipeline and its sinks can hold at once."""
    MOST_BYTES = 128 << 20

    def __init__(self) -> None:
        self._held: list[U8] = [np.empty(0, np.uint8)]
        self._alone = self._references(0)  # what Python counts for an array that only this list refers to
        self._held = []

    def _references(self, index: int) -> int:
        return sys.getrefcount(self._held[index])

    def take(self, shape: tuple[int, ...]) -> U8:
        """An array of this shape with anything in it. For one thread; references may be dropped in any."""
        if self._held and self._held[0].shape != shape:
            self._held = []
        for index in range(len(self._held)):
            if self._references(index) == self._alone:
                return self._held[index]
        array: U8 = np.empty(shape, np.uint8)
        if len(self._held) < self.MOST and (len(self._held) + 1) * array.nbytes <= self.MOST_BYTES:
            self._held.append(array)
        return array
