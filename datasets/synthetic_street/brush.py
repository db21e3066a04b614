"""Polygons into image and id plane, faded by distance: what everything that stands is drawn with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic_street.geometry import View
from datasets.synthetic_street.light import Light
from perception.arrays import F64, U8

SHIFT = 4
"""Fractional bits of OpenCV's fixed point coordinates."""
SHADE = 0.12
"""Share of direct sun that still reaches what stands in shadow."""


def fixed(points: np.ndarray) -> np.ndarray:
    """Pixels to OpenCV's fixed point coordinates, kept in its range."""
    return np.rint(np.minimum(np.maximum(points, -9000.0), 9000.0) * (1 << SHIFT)).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Brush:
    """Where to draw, through which camera, in which light."""

    image: U8
    ids: U8
    """(H, W) who covers each pixel."""
    view: View
    light: Light

    def fill(self, outline: np.ndarray, colour: Sequence[float], number: int, smooth: bool = True) -> None:
        """A convex polygon in fixed point; `number` 0 leaves the id plane as it is."""
        cv2.fillConvexPoly(self.image, outline, colour, cv2.LINE_AA if smooth else cv2.LINE_8, SHIFT)
        if number:
            cv2.fillConvexPoly(self.ids, outline, number, cv2.LINE_8, SHIFT)

    def hazed(self, colours: F64, distance_m: float | F64) -> F64:
        """Colours (…, 3) as seen from a distance."""
        keep = self.light.fade(distance_m)
        return np.minimum(colours * keep + self.light.haze * (1 - keep), 255.0)

    def one_colour(self, albedo: Sequence[float], gain: Sequence[float], distance_m: float) -> list[float]:
        """`hazed` for a single face, in plain numbers."""
        keep = math.exp(-max(distance_m, 0.0) / self.light.haze_m)
        haze = self.light.haze_list
        return [min(a * g * keep + h * (1 - keep), 255.0) for a, g, h in zip(albedo, gain, haze, strict=True)]

    def pixel(self, X: float, up: float, Z: float) -> tuple[float, float]:
        """Camera X, height above the road and Z → pixel, for one point."""
        (fx, _, cx, tx), (_, fy, cy, ty), (_, _, _, tz) = self.view.P_rows
        w = Z + tz
        return (fx * X + cx * Z + tx) / w, (fy * (self.view.camera.height_m - up) + cy * Z + ty) / w
