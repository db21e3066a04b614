"""A labelled frame → a training picture: crop near native scale, mirror, light and weather."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from datasets.sample import Sample
from perception.camera import Fit, fit_frame
from perception.types import F32, I64, U8
from training.config import AugmentConfig
from training.models.heads.segmentation import IGNORE, STRIDE

SMALLEST_HEIGHT = 7.0
"""Network pixels; a lower box is neither taught nor punished."""
SMALLEST_VISIBLE = 0.3
"""Share of a box left by the crop under which it is neither taught nor punished."""


@dataclass(frozen=True, eq=False)
class TrainingPicture:
    """What one picture brings into a batch."""

    image_bgr: U8
    """(h, w, 3) uint8, network size."""
    boxes_xyxy: F32
    """(G, 4) network pixels."""
    class_ids: I64
    """(G,)."""
    ignore_xyxy: F32
    """(M, 4)."""
    ignore_class_ids: I64
    """(M,) class, or -1 for all."""
    labelled: tuple[bool, ...]
    """For each class: does this picture's set label it."""
    masks: U8
    """(3, h/4, w/4) road, vehicle, person: 1 yes, 0 no, 255 not judged."""


def training_picture(
    sample: Sample, size_hw: tuple[int, int], rng: np.random.Generator, config: AugmentConfig
) -> TrainingPicture:
    """Crop, mirror and vary one sample."""
    window = _choose_window(sample, size_hw, rng, config)
    crop = _cut(sample, window)
    picture = place(crop, size_hw)
    if rng.random() < config.flip:
        picture = _mirror(picture)
    return replace(picture, image_bgr=_vary(picture.image_bgr, rng, config))


def _choose_window(
    sample: Sample, size_hw: tuple[int, int], rng: np.random.Generator, config: AugmentConfig
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the crop in the frame."""
    height, width = sample.image_bgr.shape[:2]
    scale = config.native_width / width * np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max)))
    window_h, window_w = min(height, round(size_hw[0] / scale)), min(width, round(size_hw[1] / scale))
    boxes = sample.boxes_xyxy
    if boxes is not None and len(boxes) and rng.random() < config.centre_on_object:
        assert sample.class_ids is not None
        # a class first, then one of its objects: KITTI has eighteen cars for one cyclist
        class_id = rng.choice(np.unique(sample.class_ids))
        box = boxes[rng.choice(np.flatnonzero(sample.class_ids == class_id))]
        centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.35, 0.35, 2) * (window_w, window_h)
        left, top = centre - (window_w / 2, window_h / 2)
    else:
        left, top = rng.uniform(0, (width - window_w + 1, height - window_h + 1))
    left = int(np.clip(left, 0, width - window_w))
    top = int(np.clip(top, 0, height - window_h))
    return left, top, left + window_w, top + window_h


def _cut(sample: Sample, window: tuple[int, int, int, int]) -> Sample:
    """The sample inside a window. What the cut leaves little of becomes an ignore region."""
    left, top, right, bottom = window
    offset = np.array([left, top, left, top], np.float32)
    limit = np.array([right - left, bottom - top] * 2, np.float32)

    def cut(mask: U8 | None) -> U8 | None:
        return None if mask is None else mask[top:bottom, left:right]

    boxes = sample.boxes_xyxy if sample.boxes_xyxy is not None else np.zeros((0, 4), np.float32)
    class_ids = sample.class_ids if sample.class_ids is not None else np.zeros(0, np.int64)
    ignore = sample.ignore_boxes_xyxy if sample.ignore_boxes_xyxy is not None else np.zeros((0, 4), np.float32)
    ignore_ids = sample.ignore_class_ids if sample.ignore_class_ids is not None else np.zeros(0, np.int64)
    clipped = np.clip(boxes - offset, 0, limit)
    size, full = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    share = size.prod(1) / np.maximum(full.prod(1), 1e-6)
    keep, seen = share >= SMALLEST_VISIBLE, share > 0
    ignore = np.clip(ignore - offset, 0, limit)
    present = ((ignore[:, 2:] - ignore[:, :2]) > 0).all(1)
    return replace(
        sample,
        image_bgr=sample.image_bgr[top:bottom, left:right],
        boxes_xyxy=clipped[keep],
        class_ids=class_ids[keep],
        ignore_boxes_xyxy=np.concatenate([ignore[present], clipped[seen & ~keep]]).astype(np.float32),
        ignore_class_ids=np.concatenate([ignore_ids[present], class_ids[seen & ~keep]]),
        labelled_classes=sample.labelled_classes if sample.boxes_xyxy is not None else (False,) * 3,
        road=cut(sample.road),
        semantic=cut(sample.semantic),
        distances_m=None,
        camera=None,
    )


def place(sample: Sample, size_hw: tuple[int, int]) -> TrainingPicture:
    """Fit a sample to the network's size with the runtime's own `fit_frame`, labels with it."""
    assert sample.boxes_xyxy is not None and sample.class_ids is not None
    assert sample.ignore_boxes_xyxy is not None and sample.ignore_class_ids is not None
    image, fit = fit_frame(sample.image_bgr, size_hw)
    boxes = fit.boxes_to_network(sample.boxes_xyxy)
    tiny = boxes[:, 3] - boxes[:, 1] < SMALLEST_HEIGHT
    ignore = fit.boxes_to_network(sample.ignore_boxes_xyxy)
    masks = np.full((3, size_hw[0] // STRIDE, size_hw[1] // STRIDE), IGNORE, np.uint8)
    if sample.road is not None:
        masks[0] = _mask_to_stride(sample.road, fit)
    if sample.semantic is not None:
        semantic = _mask_to_stride(sample.semantic, fit)
        for channel, members in ((1, (1,)), (2, (2, 3))):
            masks[channel] = np.where(semantic == IGNORE, IGNORE, np.isin(semantic, members))
    return TrainingPicture(
        image_bgr=image,
        boxes_xyxy=boxes[~tiny],
        class_ids=sample.class_ids[~tiny],
        ignore_xyxy=np.concatenate([ignore, boxes[tiny]]),
        ignore_class_ids=np.concatenate([sample.ignore_class_ids, sample.class_ids[tiny]]),
        labelled=sample.labelled_classes,
        masks=masks,
    )


def _mask_to_stride(mask: U8, fit: Fit) -> U8:
    """Frame mask → the road head's grid, nearest label, the border not judged."""
    step_x, step_y = STRIDE / fit.scale_xy[0], STRIDE / fit.scale_xy[1]
    left, top = fit.offset_xy[0] / fit.scale_xy[0], fit.offset_xy[1] / fit.scale_xy[1]
    to_frame = np.array([[step_x, 0, 0.5 * step_x - left - 0.5], [0, step_y, 0.5 * step_y - top - 0.5]], np.float64)
    height, width = fit.network_hw
    return cv2.warpAffine(
        mask,
        to_frame,
        (width // STRIDE, height // STRIDE),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(float(IGNORE),),
    )


def _mirror(picture: TrainingPicture) -> TrainingPicture:
    width = picture.image_bgr.shape[1]

    def boxes(boxes_xyxy: F32) -> F32:
        return np.stack(
            [width - boxes_xyxy[:, 2], boxes_xyxy[:, 1], width - boxes_xyxy[:, 0], boxes_xyxy[:, 3]], 1
        ).astype(np.float32)

    return replace(
        picture,
        image_bgr=np.ascontiguousarray(picture.image_bgr[:, ::-1]),
        boxes_xyxy=boxes(picture.boxes_xyxy),
        ignore_xyxy=boxes(picture.ignore_xyxy),
        masks=np.ascontiguousarray(picture.masks[:, :, ::-1]),
    )


def _vary(image: U8, rng: np.random.Generator, config: AugmentConfig) -> U8:
    """Light, colour and weather, at uint8 speed: one lookup table, one matrix."""
    if rng.random() < config.colour:
        gain, offset, gamma = rng.uniform(0.7, 1.3), rng.uniform(-15, 15), rng.uniform(0.75, 1.3)
        values = np.linspace(0, 1, 256) ** gamma * 255
        tint = rng.uniform(0.92, 1.08, 3)
        tables = np.clip((values[:, None] - 128) * gain + 128 + offset, 0, 255) * tint  # (256, 3)
        image = cv2.LUT(image, np.clip(tables, 0, 255).astype(np.uint8)[None])
        saturation = rng.uniform(0.4, 1.5) if rng.random() < 0.9 else 0.0
        grey = np.array([0.114, 0.587, 0.299])
        mix = saturation * np.eye(3) + (1 - saturation) * np.tile(grey, (3, 1))
        image = cv2.transform(image, mix)
    if rng.random() < config.haze:
        share, grey_level = rng.uniform(0.15, 0.6), rng.uniform(140, 230)
        image = cv2.addWeighted(image, 1 - share, np.full_like(image, grey_level), share, 0)
    if rng.random() < config.blur:
        if rng.random() < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5))
        else:
            factor = rng.uniform(1.2, 2.2)
            size = image.shape[1], image.shape[0]
            low = cv2.resize(image, (round(size[0] / factor), round(size[1] / factor)), interpolation=cv2.INTER_AREA)
            image = cv2.resize(low, size)
    if rng.random() < config.noise:
        noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(2, 10)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return np.asarray(image, np.uint8)
