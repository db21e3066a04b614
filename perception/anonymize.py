"""Blur people and vehicles, so that recordings can be shared."""

from __future__ import annotations

import cv2
import numpy as np

from perception.arrays import U8
from perception.types import Detections, Tracks

MARGIN = 0.1
"""Share of its size by which a box grows on each side: boxes are tight, and faces and plates lie at their edges."""
BLOCKS = 6
"""Blocks along the shorter side of a blurred box."""


def anonymized(image_bgr: U8, detections: Detections, tracks: Tracks) -> U8:
    """Copy an image and make every detection and every track, matched or predicted, unrecognisable.

    Args:
        image_bgr: (H, W, 3) uint8; not changed.
        detections: of this frame, down to the lowest score that the tracker gets.
        tracks: of this frame; they cover frames in which the network misses an object.
    """
    image = image_bgr.copy()
    height, width = image.shape[:2]
    boxes = np.concatenate([detections.boxes_xyxy, tracks.boxes_xyxy])
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    grow = (boxes[:, 2:] - boxes[:, :2]) * MARGIN
    corners = np.concatenate([np.floor(boxes[:, :2] - grow), np.ceil(boxes[:, 2:] + grow)], axis=1)
    corners = np.clip(corners, 0, [width, height, width, height]).astype(int)
    for left, top, right, bottom in corners:
        if right - left < 1 or bottom - top < 1:
            continue
        patch = image[top:bottom, left:right]
        # averages over a few blocks lose the detail; a Gaussian blur can be undone
        scale = min(1.0, BLOCKS / min(patch.shape[:2]))
        few = (max(1, round(patch.shape[1] * scale)), max(1, round(patch.shape[0] * scale)))
        blocks = cv2.resize(patch, few, interpolation=cv2.INTER_AREA)
        image[top:bottom, left:right] = cv2.resize(blocks, (patch.shape[1], patch.shape[0]))
    return image
