"""Blur people and vehicles, so that recordings can be shown."""

from __future__ import annotations

import cv2
import numpy as np

from perception.types import U8, Detections, Tracks

MARGIN = 0.1
"""Share of the box by which it grows on each side: boxes sit tight, faces and plates sit at their edges."""
BLOCKS = 6
"""A blurred box keeps this many blocks along its shorter side."""


def anonymized(image_bgr: U8, detections: Detections, tracks: Tracks) -> U8:
    """A copy of the picture in which every detection and every track, seen or predicted, is unrecognisable.

    Args:
        image_bgr: (H, W, 3) uint8; not changed.
        detections: of this frame, down to the lowest score that reached the tracker.
        tracks: of this frame: they cover the frames in which the network missed an object.
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
        # averaging into a few blocks loses the detail for good; a Gaussian could be undone
        scale = min(1.0, BLOCKS / min(patch.shape[:2]))
        few = (max(1, round(patch.shape[1] * scale)), max(1, round(patch.shape[0] * scale)))
        blocks = cv2.resize(patch, few, interpolation=cv2.INTER_AREA)
        image[top:bottom, left:right] = cv2.resize(blocks, (patch.shape[1], patch.shape[0]))
    return image
