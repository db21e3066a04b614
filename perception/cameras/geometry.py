"""How stored pixels become an upright image with square pixels: the one place for rotation, mirroring and aspect.

Phones store their videos as the sensor sees them and say in a display matrix how to turn them; photographs say it in
EXIF's orientation; old and broadcast video has pixels that are not square. Every source applies this, so that boxes,
calibrations and records all refer to the image as a viewer shows it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from perception.arrays import U8

_TURNS = (None, cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)
# EXIF orientation (tag 274) → (mirrored left to right, quarter turns clockwise after that)
_EXIF = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 3),
    6: (False, 1),
    7: (True, 1),
    8: (False, 3),
}


@dataclass(frozen=True)
class ImageGeometry:
    """What to do with stored pixels: crop, then mirror, then turn, then stretch."""

    crop: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Rows and columns to cut off: top, bottom, left, right."""
    mirrored: bool = False
    """Left and right are exchanged."""
    quarter_turns: int = 0
    """Clockwise, 0 to 3, after mirroring."""
    pixel_aspect: float = 1.0
    """Width of a stored pixel over its height."""

    @staticmethod
    def from_exif(orientation: int) -> ImageGeometry:
        """The geometry of EXIF's orientation, 1 to 8; anything else counts as 1."""
        mirrored, turns = _EXIF.get(orientation, (False, 0))
        return ImageGeometry(mirrored=mirrored, quarter_turns=turns)

    @staticmethod
    def from_display_matrix(
        matrix: bytes | None, pixel_aspect: float = 1.0, crop: tuple[int, int, int, int] = (0, 0, 0, 0)
    ) -> ImageGeometry:
        """The geometry of FFmpeg's display matrix (nine int32) and sample aspect ratio.

        A matrix may turn by any angle; the nearest quarter turn is taken. Source: libavutil/display.h.
        """
        if matrix is None or len(matrix) < 36:
            return ImageGeometry(crop, pixel_aspect=pixel_aspect)
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix[:36])
        # a stored point (x, y) is shown at (a x + c y, b x + d y), y downwards
        mirrored = a * d - b * c < 0
        if mirrored:
            a, b = -a, -b
        return ImageGeometry(crop, mirrored, round(np.degrees(np.arctan2(b, a)) / 90) % 4, pixel_aspect)

    @cached_property
    def is_identity(self) -> bool:
        return self == ImageGeometry()

    def shown_size_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Size of the upright image with square pixels. The short side of a pixel is stretched."""
        top, bottom, left, right = self.crop
        height, width = size_hw[0] - top - bottom, size_hw[1] - left - right
        if self.pixel_aspect >= 1:
            width = max(1, round(width * self.pixel_aspect))
        else:
            height = max(1, round(height / self.pixel_aspect))
        return (width, height) if self.quarter_turns % 2 else (height, width)

    def apply(self, image_bgr: U8) -> U8:
        """The upright image with square pixels; the array itself where nothing is to be done."""
        if self.is_identity:
            return image_bgr
        size_hw = image_bgr.shape[0], image_bgr.shape[1]
        if any(self.crop):
            top, bottom, left, right = self.crop
            image_bgr = np.ascontiguousarray(image_bgr[top : size_hw[0] - bottom, left : size_hw[1] - right])
        if self.mirrored:
            image_bgr = np.asarray(cv2.flip(image_bgr, 1), np.uint8)
        if (turn := _TURNS[self.quarter_turns]) is not None:
            image_bgr = np.asarray(cv2.rotate(image_bgr, turn), np.uint8)
        height, width = self.shown_size_hw(size_hw)
        if image_bgr.shape[:2] != (height, width):
            image_bgr = np.asarray(cv2.resize(image_bgr, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
        return image_bgr

    def says(self) -> str:
        """What is done, for people; empty where nothing is."""
        parts = []
        if any(self.crop):
            parts.append(
                "cropped by {} rows at the top and {} at the bottom, {} columns left and {} right".format(*self.crop)
            )
        if self.mirrored:
            parts.append("mirrored")
        if self.quarter_turns:
            parts.append(f"turned by {90 * self.quarter_turns}° clockwise")
        if self.pixel_aspect != 1:
            parts.append(f"stretched to square pixels (pixel aspect {self.pixel_aspect:g})")
        return ", ".join(parts)
