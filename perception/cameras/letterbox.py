"""The one resize of training, calibration, evaluation and runtime, and its inverse for boxes, points and masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from perception.arrays import F32, U8

PAD_VALUE = 114
"""Grey level of the border where a frame does not fill the network's input."""


@dataclass(frozen=True)
class Letterbox:
    """Where a frame lies in the network's input: scaled about the origin, then moved. It also leads back.

    Coordinates are continuous: a pixel i covers [i, i+1), so scaling is a plain product.
    """

    source_hw: tuple[int, int]
    network_hw: tuple[int, int]
    scale_xy: tuple[float, float]
    """Network pixels per frame pixel; the two differ only by rounding to whole pixels."""
    offset_xy: tuple[int, int]
    """Of the frame's top left corner in the network's input, pixels."""
    placed_hw: tuple[int, int]
    """Size of the scaled frame inside the network's input."""

    @cached_property
    def _arrays(self) -> tuple[F32, F32, F32, F32, F32, F32]:
        """Offset and scale of points, the same of boxes, and the least and largest coordinates of a box."""
        height, width = self.source_hw
        offset, scale = np.array(self.offset_xy, np.float32), np.array(self.scale_xy, np.float32)
        limit = np.array([width, height, width, height], np.float32)
        return offset, scale, np.tile(offset, 2), np.tile(scale, 2), np.zeros(4, np.float32), limit

    def boxes_to_network(self, boxes_xyxy: F32) -> F32:
        """Convert boxes (N, 4) from frame pixels to network pixels."""
        scale, offset = np.array(self.scale_xy * 2, np.float32), np.array(self.offset_xy * 2, np.float32)
        return (boxes_xyxy * scale + offset).astype(np.float32)

    def boxes_to_frame(self, boxes_xyxy: F32) -> F32:
        """Convert boxes (N, 4) from network pixels to frame pixels, clipped to the frame."""
        _, _, offset, scale, zero, limit = self._arrays
        return np.minimum(np.maximum((boxes_xyxy - offset) / scale, zero), limit).astype(np.float32, copy=False)

    def points_to_frame(self, points_xy: F32) -> F32:
        """Convert points (N, 2) from network pixels to frame pixels."""
        offset, scale, *_ = self._arrays
        return ((points_xy - offset) / scale).astype(np.float32, copy=False)

    def mask_to_frame(self, mask: U8) -> U8:
        """Resize a mask (h, w) at the network's size, or a whole fraction of it, to the frame's (H, W); uint8."""
        stride = self.network_hw[0] / mask.shape[0]
        left, top = self.offset_xy[0] / stride, self.offset_xy[1] / stride
        step_x, step_y = self.scale_xy[0] / stride, self.scale_xy[1] / stride
        # frame pixel centre (u + ½) lies at mask coordinate (u + ½)·step + left, whose sample index is ½ less
        to_mask = np.array(
            [[step_x, 0, 0.5 * step_x + left - 0.5], [0, step_y, 0.5 * step_y + top - 0.5]], np.float64
        )
        height, width = self.source_hw
        return cv2.warpAffine(
            mask,
            to_mask,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )


@lru_cache(maxsize=64)
def plan_letterbox(source_hw: tuple[int, int], network_hw: tuple[int, int]) -> Letterbox:
    """Plan where `letterbox` places a frame: aspect kept, whole frame visible, centred across, at the top.

    A frame that would grow by less than 5 % is placed unscaled: sharper, and the copy costs nothing.
    """
    (height, width), (net_height, net_width) = source_hw, network_hw
    if min(source_hw) < 1:
        raise ValueError(f"frame of size {source_hw}: expected at least one pixel")
    scale = min(net_height / height, net_width / width)
    if 1.0 <= scale < 1.05:
        scale = 1.0
    placed_hw = (
        min(net_height, max(1, round(height * scale))),
        min(net_width, max(1, round(width * scale))),
    )
    return Letterbox(
        source_hw=(height, width),
        network_hw=(net_height, net_width),
        scale_xy=(placed_hw[1] / width, placed_hw[0] / height),
        offset_xy=((net_width - placed_hw[1]) // 2, 0),
        placed_hw=placed_hw,
    )


def letterbox(image_bgr: U8, size_hw: tuple[int, int], out: U8 | None = None) -> tuple[U8, Letterbox]:
    """Resize a frame into the network's input: the one resize of training, calibration, evaluation and runtime.

    Args:
        image_bgr: (H, W, 3) uint8.
        size_hw: the network's input.
        out: optional (h, w, 3) uint8 to write into.

    Returns:
        The network's input (h, w, 3) uint8, and the `Letterbox` that leads back to the frame.
    """
    placed = plan_letterbox((image_bgr.shape[0], image_bgr.shape[1]), size_hw)
    if out is None:
        out = np.empty((*size_hw, 3), np.uint8)
    left, (height, width) = placed.offset_xy[0], placed.placed_hw
    resize(image_bgr, placed.placed_hw, out[:height, left : left + width])
    out[:height, :left] = PAD_VALUE
    out[:height, left + width :] = PAD_VALUE
    out[height:] = PAD_VALUE
    return out, placed


def resize(image: U8, size_hw: tuple[int, int], out: U8 | None = None) -> U8:
    """Resize without aliasing, fast: whole halvings by area, the rest bilinear.

    Bilinear alone skips pixels below half size, and cv2's INTER_AREA at odd ratios takes several milliseconds.

    Args:
        image: (H, W) or (H, W, 3).
        size_hw: size of the result.
        out: optional array of that size to write into; it may be a part of a larger one.
    """
    height, width = size_hw
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        resized = cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
        if out is None or np.shares_memory(resized, out):  # cv2 takes no array whose rows have gaps within
            return np.asarray(resized, np.uint8)
        image = np.asarray(resized, np.uint8)
    if out is None:
        return image
    out[:] = image
    return out
