"""Make a training image of a labelled frame: crop near native scale, copy-paste, rotation, mirror, light, weather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from datasets.sample import Sample
from perception.arrays import F32, U8
from perception.cameras.cuboids import boxes_to_image
from perception.cameras.letterbox import Letterbox, letterbox
from training.augment.copy_paste import CutoutBank, horizon_of, paste
from training.augment.geometry import crop_sample, mirror, rotate
from training.augment.mixing import augmix
from training.augment.mosaic import mosaic
from training.augment.weather import expose, haze, night, rain, recolour, sensor_noise, soften
from training.config import AugmentConfig
from training.example import SMALLEST_HEIGHT, TrainingImage, unknown_cuboids
from training.models.heads.segmentation import IGNORE, STRIDE

_TURN_MARGIN = 8
"""Multiple of the margin around an image before a rotation, pixels, so that masks keep their grid."""


def training_image(
    sample: Sample,
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    config: AugmentConfig,
    bank: CutoutBank | None = None,
) -> TrainingImage:
    """Make a training image of one sample."""
    example = _shape(sample, size_hw, rng=rng, config=config, bank=bank)
    return replace(example, image_bgr=vary(example.image_bgr, rng, config))


def mosaic_image(
    samples: Sequence[Sample],
    size_hw: tuple[int, int],
    rng: np.random.Generator,
    config: AugmentConfig,
    bank: CutoutBank | None = None,
) -> TrainingImage:
    """Make a training image that is a mosaic of four samples."""
    example = mosaic(samples, size_hw, rng, partial(_shape, rng=rng, config=config, bank=bank))
    return replace(example, image_bgr=vary(example.image_bgr, rng, config))


def without_strong(config: AugmentConfig) -> AugmentConfig:
    """Return the config for the end of a run: crop, mirror and half the changes of colour and exposure."""
    return replace(
        config,
        copy_paste=0.0,
        mosaic=0.0,
        rotation=0.0,
        blur=0.0,
        noise=0.0,
        haze=0.0,
        rain=0.0,
        night=0.0,
        exposure=config.exposure / 2,
        colour=config.colour / 2,
    )


def _shape(
    sample: Sample,
    size_hw: tuple[int, int],
    *,
    rng: np.random.Generator,
    config: AugmentConfig,
    bank: CutoutBank | None,
) -> TrainingImage:
    """Apply the changes of geometry."""
    degrees = 0.0
    if rng.random() < config.rotation:
        degrees = float(rng.uniform(-config.rotation_max_deg, config.rotation_max_deg))
    big_hw = _with_margin(size_hw, degrees)
    window = _choose_window(sample, big_hw, rng, config)
    crop = crop_sample(sample, window)
    if bank is not None and rng.random() < config.copy_paste and (horizon := horizon_of(sample)) is not None:
        network_scale = min(big_hw[0] / (window[3] - window[1]), big_hw[1] / (window[2] - window[0]))
        ahead_x = sample.camera.P_cam2[0, 2] if sample.camera is not None else sample.image_bgr.shape[1] / 2
        crop = paste(crop, bank, horizon - window[1], float(ahead_x) - window[0], network_scale, rng)
    example = place(crop, big_hw)
    if degrees:
        example = rotate(example, degrees, size_hw)
    return mirror(example) if rng.random() < config.flip else example


def _with_margin(size_hw: tuple[int, int], degrees: float) -> tuple[int, int]:
    """Return the size of an image from which a crop after the rotation has no empty corners."""
    if not degrees:
        return size_hw
    sine = abs(np.sin(np.radians(degrees)))
    height, width = (
        side + int(np.ceil(other * sine / (2 * _TURN_MARGIN))) * 2 * _TURN_MARGIN
        for side, other in (size_hw, size_hw[::-1])
    )
    return height, width


def _choose_window(
    sample: Sample, size_hw: tuple[int, int], rng: np.random.Generator, config: AugmentConfig
) -> tuple[int, int, int, int]:
    """Draw the crop (left, top, right, bottom) in the frame."""
    height, width = sample.image_bgr.shape[:2]
    scale = config.native_width / width * np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max)))
    window_h, window_w = min(height, round(size_hw[0] / scale)), min(width, round(size_hw[1] / scale))
    boxes = sample.boxes_xyxy
    if boxes is not None and len(boxes) and rng.random() < config.centre_on_object:
        assert sample.class_ids is not None
        chosen = np.arange(len(boxes))
        if config.balance_classes:
            # choose the class first, because KITTI has eighteen cars per cyclist
            chosen = np.flatnonzero(sample.class_ids == rng.choice(np.unique(sample.class_ids)))
        box = boxes[rng.choice(chosen)]
        centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.35, 0.35, 2) * (window_w, window_h)
        left, top = centre - (window_w / 2, window_h / 2)
    else:
        left, top = rng.uniform(0, (width - window_w + 1, height - window_h + 1))
    left = int(np.clip(left, 0, width - window_w))
    top = int(np.clip(top, 0, height - window_h))
    return left, top, left + window_w, top + window_h


def place(sample: Sample, size_hw: tuple[int, int]) -> TrainingImage:
    """Resize a sample and its labels to the network's size with the runtime's `letterbox`."""
    assert sample.boxes_xyxy is not None and sample.class_ids is not None
    assert sample.ignore_boxes_xyxy is not None and sample.ignore_class_ids is not None
    image, placed = letterbox(sample.image_bgr, size_hw)
    boxes = placed.boxes_to_network(sample.boxes_xyxy)
    tiny = boxes[:, 3] - boxes[:, 1] < SMALLEST_HEIGHT
    ignore = placed.boxes_to_network(sample.ignore_boxes_xyxy)
    masks = np.full((3, size_hw[0] // STRIDE, size_hw[1] // STRIDE), IGNORE, np.uint8)
    if sample.road is not None:
        masks[0] = _mask_to_stride(sample.road, placed)
    if sample.semantic is not None:
        semantic = _mask_to_stride(sample.semantic, placed)
        for channel, members in ((1, (1,)), (2, (2, 3))):
            masks[channel] = np.where(semantic == IGNORE, IGNORE, np.isin(semantic, members))
    return TrainingImage(
        image_bgr=image,
        boxes_xyxy=boxes[~tiny],
        class_ids=sample.class_ids[~tiny],
        ignore_xyxy=np.concatenate([ignore, boxes[tiny]]),
        ignore_class_ids=np.concatenate([sample.ignore_class_ids, sample.class_ids[tiny]]),
        labelled=sample.labelled_classes,
        masks=masks,
        depths=_depths(sample, placed)[~tiny],
        confidences=(np.ones(len(boxes), np.float32) if sample.confidences is None else sample.confidences)[~tiny],
        cuboids=_cuboids(sample, placed)[~tiny],
    )


def _depths(sample: Sample, placed: Letterbox) -> F32:
    """Return distance over focal length in network pixels (N,), NaN where unknown."""
    assert sample.boxes_xyxy is not None
    if sample.camera is None or sample.distances_m is None:
        return np.full(len(sample.boxes_xyxy), np.nan, np.float32)
    return (sample.distances_m / (sample.camera.P_cam2[1, 1] * placed.scale_xy[1])).astype(np.float32)


def _cuboids(sample: Sample, placed: Letterbox) -> F32:
    """Return the 3-D boxes as the network sees them (N, 6), see `TrainingImage.cuboids`."""
    assert sample.boxes_xyxy is not None
    if sample.camera is None or sample.boxes_xyzlhwr is None:
        return unknown_cuboids(len(sample.boxes_xyxy))
    centres, alpha = boxes_to_image(sample.boxes_xyzlhwr.astype(np.float64), sample.camera)
    lengths_lhw = sample.boxes_xyzlhwr[:, 3:6]
    seen = np.concatenate([centres, lengths_lhw[:, (0, 2, 1)], alpha[:, None]], axis=1)
    seen[:, :2] = seen[:, :2] * placed.scale_xy + placed.offset_xy
    return seen.astype(np.float32)


def _mask_to_stride(mask: U8, placed: Letterbox) -> U8:
    """Resample a frame's mask to the road head's grid by nearest label. The border is ignored."""
    step_x, step_y = STRIDE / placed.scale_xy[0], STRIDE / placed.scale_xy[1]
    left, top = placed.offset_xy[0] / placed.scale_xy[0], placed.offset_xy[1] / placed.scale_xy[1]
    to_frame = np.array([[step_x, 0, 0.5 * step_x - left - 0.5], [0, step_y, 0.5 * step_y - top - 0.5]], np.float64)
    height, width = placed.network_hw
    return cv2.warpAffine(
        mask,
        to_frame,
        (width // STRIDE, height // STRIDE),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(float(IGNORE),),
    )


def vary(image: U8, rng: np.random.Generator, config: AugmentConfig) -> U8:
    """Apply the changes of light, colour and weather, and the mixing."""
    for share, change in (
        (config.exposure, expose),
        (config.colour, recolour),
        (config.haze, haze),
        (config.rain, rain),
        (config.night, night),
        (config.blur, soften),
        (config.noise, sensor_noise),
        (config.mix, augmix),  # the last: the numbers drawn for all others stay those of a run without it
    ):
        if rng.random() < share:
            image = change(image, rng)
    return image
