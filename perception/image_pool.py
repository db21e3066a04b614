"""Decoded video pictures as BGR arrays, in memory that is used again.

A new array of a picture's size costs more than filling it: the system clears every page of it first, 0.2 to 0.5 ms
for 1242×375. So arrays come back to a small pool as soon as nobody refers to them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np

from perception.types import U8

if TYPE_CHECKING:
    import av

_BT601, _UNSPECIFIED, _FULL_RANGE = (5, 6), (2,), 2


class PicturePool:
    """Arrays of one shape. One that is taken is handed out again only when all other references to it are gone.

    A view of an array refers to it too, so whoever keeps a picture, or a part of one, keeps it unchanged.
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


class PictureConverter:
    """Pictures of one decoder as (H, W, 3) uint8 BGR."""

    def __init__(self) -> None:
        self._pool = PicturePool()
        self._planes: U8 = np.empty((0, 0), np.uint8)

    def to_bgr(self, picture: av.VideoFrame) -> U8:
        """Convert one picture.

        The common case goes through OpenCV, whose rounding is exact to half a grey level; swscale's fast path is off
        by one on average. OpenCV knows BT.601 with limited range and even sizes only, so everything else goes
        through FFmpeg.
        """
        plain = picture.format.name == "yuv420p" and picture.width % 2 == 0 and picture.height % 2 == 0
        if plain and picture.color_range != _FULL_RANGE and picture.colorspace in _BT601 + _UNSPECIFIED:
            image = self._pool.take((picture.height, picture.width, 3))
            return np.asarray(cv2.cvtColor(self._i420(picture), cv2.COLOR_YUV2BGR_I420, dst=image), np.uint8)
        return picture.to_ndarray(format="bgr24")

    def _i420(self, picture: av.VideoFrame) -> U8:
        """The three planes without the padding of their rows, one after the other: (3/2 H, W) uint8."""
        height, width = picture.height, picture.width
        if self._planes.shape != (height * 3 // 2, width):
            self._planes = np.empty((height * 3 // 2, width), np.uint8)
        chroma = self._planes[height:].reshape(2, height // 2, width // 2)
        for plane, to in zip(picture.planes, (self._planes[:height], *chroma), strict=True):
            padded = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            np.copyto(to, padded[: to.shape[0], : to.shape[1]])
        return self._planes
