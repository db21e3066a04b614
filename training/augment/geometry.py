"""Crop, mirror and rotation of an image with its labels, with torchvision's transforms (v2) of tv_tensors.

After a rotation a box encloses the rotated outline of a rounded box, which approximates the objects of a street. The
bounding box of the rotated rectangle would be too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transform

from datasets.sample import ROAD_IGNORE, Sample
from perception.arrays import F32, F64, U8
from perception.cameras.cuboids import ALPHA, U, V, wrap
from perception.cameras.letterbox import PAD_VALUE
from perception.cameras.pinhole import PinholeCamera
from training.example import SMALLEST_VISIBLE, TrainingImage

_OUTLINE_POWER = 4.0
"""Exponent of the superellipse that approximates an object: 2 is an ellipse, infinity the box."""
_ANGLES = np.linspace(0, 2 * np.pi, 32, endpoint=False)
_OUTLINE = np.stack(
    [np.sign(f(_ANGLES)) * np.abs(f(_ANGLES)) ** (2 / _OUTLINE_POWER) for f in (np.cos, np.sin)], -1
).astype(np.float32)
"""(32, 2) on the square -1..1."""


def crop_sample(sample: Sample, window: tuple[int, int, int, int]) -> Sample:
    """Crop a sample to a window (left, top, right, bottom). Mostly hidden objects become ignore regions."""
    left, top, right, bottom = window
    size = (bottom - top, right - left)
    frame_hw = (sample.image_bgr.shape[0], sample.image_bgr.shape[1])

    def cut(array: U8 | None) -> U8 | None:
        if array is None:
            return None
        mask = tv_tensors.Mask(torch.from_numpy(array))
        return np.asarray(transform.crop(mask, top, left, *size))  # a view

    def boxes(boxes_xyxy: F32) -> F32:
        return np.asarray(transform.crop(_as_boxes(boxes_xyxy, frame_hw), top, left, *size)).astype(np.float32)

    image = np.moveaxis(np.asarray(transform.crop(_as_image(sample.image_bgr), top, left, *size)), 0, -1)
    given = sample.boxes_xyxy if sample.boxes_xyxy is not None else np.zeros((0, 4), np.float32)
    class_ids = sample.class_ids if sample.class_ids is not None else np.zeros(0, np.int64)
    ignore = sample.ignore_boxes_xyxy if sample.ignore_boxes_xyxy is not None else np.zeros((0, 4), np.float32)
    ignore_ids = sample.ignore_class_ids if sample.ignore_class_ids is not None else np.zeros(0, np.int64)
    clipped, ignore = _both(boxes, given, ignore)
    share = _area(clipped) / np.maximum(_area(given), 1e-6)
    keep, seen, present = share >= SMALLEST_VISIBLE, share > 0, _area(ignore) > 0
    distances = sample.distances_m if sample.distances_m is not None else np.full(len(given), np.nan, np.float32)
    confidences = sample.confidences if sample.confidences is not None else np.ones(len(given), np.float32)
    boxes_3d = sample.boxes_xyzlhwr
    return replace(
        sample,
        image_bgr=image,
        boxes_xyxy=clipped[keep],
        class_ids=class_ids[keep],
        distances_m=distances[keep],
        confidences=confidences[keep],
        boxes_xyzlhwr=None if boxes_3d is None else boxes_3d[keep],
        ignore_boxes_xyxy=np.concatenate([ignore[present], clipped[seen & ~keep]]),
        ignore_class_ids=np.concatenate([ignore_ids[present], class_ids[seen & ~keep]]),
        labelled_classes=sample.labelled_classes
        if sample.boxes_xyxy is not None
        else (False,) * len(sample.class_names),
        road=cut(sample.road),
        semantic=cut(sample.semantic),
        camera=_moved(sample.camera, left, top),
    )


def _moved(camera: PinholeCamera | None, left: int, top: int) -> PinholeCamera | None:
    """Return the camera of an image without its first columns and rows."""
    if camera is None:
        return None
    move = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], np.float64)
    return replace(camera, P_cam2=move @ camera.P_cam2)


def mirror(example: TrainingImage) -> TrainingImage:
    """Mirror an image and its labels left to right."""
    size_hw = (example.image_bgr.shape[0], example.image_bgr.shape[1])

    def boxes(boxes_xyxy: F32) -> F32:
        return np.asarray(transform.horizontal_flip(_as_boxes(boxes_xyxy, size_hw)))

    flipped, ignore = _both(boxes, example.boxes_xyxy, example.ignore_xyxy)
    cuboids = example.cuboids.copy()
    cuboids[:, U] = size_hw[1] - cuboids[:, U]
    cuboids[:, ALPHA] = wrap(np.pi - cuboids[:, ALPHA].astype(np.float64))
    return replace(
        example,
        image_bgr=_from_image(transform.horizontal_flip(_as_image(example.image_bgr))),
        boxes_xyxy=flipped,
        ignore_xyxy=ignore,
        masks=np.asarray(transform.horizontal_flip(tv_tensors.Mask(torch.from_numpy(example.masks)))),
        cuboids=cuboids,
    )


def rotate(example: TrainingImage, degrees: float, size_hw: tuple[int, int]) -> TrainingImage:
    """Rotate an image about its centre, then crop it to `size_hw`. Empty corners are ignored.

    Objects that the crop mostly hides become ignore regions. The image is that of a camera that rolls about its axis:
    depths stay, the centres of 3-D boxes turn with the image, and the observation angle stays, because it lies in the
    ground plane, which rolls as well.
    """
    big_hw = (example.image_bgr.shape[0], example.image_bgr.shape[1])
    stride = big_hw[0] // example.masks.shape[1]

    def outlines(boxes_xyxy: F32) -> F32:
        centre, half = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2, (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) / 2
        outline = centre[:, None] + _OUTLINE * half[:, None]  # (N, 32, 2)
        points = tv_tensors.KeyPoints(torch.from_numpy(outline), canvas_size=big_hw)
        turned = np.asarray(transform.rotate(points, degrees))
        return np.concatenate([turned.min(1), turned.max(1)], 1).astype(np.float32)

    def cut(boxes_xyxy: F32) -> F32:
        """Return (N, 5) cropped boxes, and the fraction of each that is left."""
        if not len(boxes_xyxy):
            return np.zeros((0, 5), np.float32)
        turned = outlines(boxes_xyxy)
        top, left = (big_hw[0] - size_hw[0]) // 2, (big_hw[1] - size_hw[1]) // 2
        limit = np.array([size_hw[1], size_hw[0]] * 2, np.float32)
        inside = np.clip(turned - np.array([left, top] * 2, np.float32), 0, limit)
        share = (_area(inside) / np.maximum(_area(turned), 1e-6)).astype(np.float32)
        return np.concatenate([inside, share[:, None]], 1)

    masks = tv_tensors.Mask(torch.from_numpy(example.masks))
    if (example.masks != ROAD_IGNORE).any():  # masks that are ignored everywhere do not change
        masks = transform.rotate(masks, degrees, fill=[float(ROAD_IGNORE)])
    objects, ignored = _both(cut, example.boxes_xyxy, example.ignore_xyxy)
    boxes, share, ignore = objects[:, :4], objects[:, 4], ignored[:, :4]
    keep, seen, present = share >= SMALLEST_VISIBLE, share > 0, ignored[:, 4] > 0
    cuboids, turn = example.cuboids[keep], _rotation((big_hw[1] / 2, big_hw[0] / 2), degrees, big_hw, size_hw)
    cuboids[:, : V + 1] = cuboids[:, : V + 1] @ turn[:, :2].T.astype(np.float32) + turn[:, 2].astype(np.float32)
    return replace(
        example,
        image_bgr=_turned(example.image_bgr, degrees, size_hw),
        boxes_xyxy=boxes[keep],
        class_ids=example.class_ids[keep],
        ignore_xyxy=np.concatenate([ignore[present], boxes[seen & ~keep]]),
        ignore_class_ids=np.concatenate([example.ignore_class_ids[present], example.class_ids[seen & ~keep]]),
        depths=example.depths[keep],
        confidences=example.confidences[keep],
        cuboids=cuboids,
        masks=np.ascontiguousarray(transform.center_crop(masks, [side // stride for side in size_hw])),
    )


def _turned(image_bgr: U8, degrees: float, size_hw: tuple[int, int]) -> U8:
    """Return the result of torchvision's `rotate` and `center_crop`, up to rounding, in a quarter of the time."""
    (big_h, big_w), (height, width) = image_bgr.shape[:2], size_hw
    matrix = _rotation(((big_w - 1) / 2, (big_h - 1) / 2), degrees, (big_h, big_w), size_hw)  # of pixel centres
    turned = cv2.warpAffine(image_bgr, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(PAD_VALUE,) * 3)
    return np.asarray(turned, np.uint8)


def _rotation(
    centre_xy: tuple[float, float], degrees: float, big_hw: tuple[int, int], size_hw: tuple[int, int]
) -> F64:
    """Return the affine map (2, 3) of a rotation about a point and the crop after it."""
    matrix: F64 = cv2.getRotationMatrix2D(centre_xy, degrees, 1.0)
    matrix[:, 2] -= (big_hw[1] - size_hw[1]) // 2, (big_hw[0] - size_hw[0]) // 2
    return matrix


def _both(function: Callable[[F32], F32], first: F32, second: F32) -> tuple[F32, F32]:
    """Apply a function of rows to two arrays in one call, because each call of torchvision costs 0.1 ms."""
    found = function(np.concatenate([first, second]))
    return found[: len(first)], found[len(first) :]


def _as_image(image_bgr: U8) -> tv_tensors.Image:
    return tv_tensors.Image(torch.from_numpy(image_bgr).permute(2, 0, 1))


def _from_image(image: torch.Tensor) -> U8:
    return np.ascontiguousarray(np.moveaxis(np.asarray(image), 0, -1))


def _as_boxes(boxes_xyxy: F32, size_hw: tuple[int, int]) -> tv_tensors.BoundingBoxes:
    return tv_tensors.BoundingBoxes(
        torch.from_numpy(np.ascontiguousarray(boxes_xyxy, np.float32)), format="XYXY", canvas_size=size_hw
    )


def _area(boxes_xyxy: F32) -> F32:
    return np.asarray((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1), np.float32)
