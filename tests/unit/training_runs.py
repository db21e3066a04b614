"""Small runs and small data for the tests of training: pictures of 128×64, a few steps, seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.cli.options import overlay
from training.config import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    HardwareConfig,
    ScheduleConfig,
    TrainConfig,
)

SIZE_HW = (64, 208)
CLASSES = ("Car", "Pedestrian", "Cyclist")


def street(seed: int, size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    """A smooth picture with noise, (H, W, 3) uint8: it has detail and still compresses."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 8, 3)).astype(np.uint8)
    image = cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def write_picture(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def kitti(root: Path, frames: int = 12, held_out: int = 5, road: int = 0, size_hw: tuple[int, int] = SIZE_HW) -> Path:
    """Object frames with a bright box each, the last of them held out; road frames with a road in the lower half."""
    base = root / "kitti/object"
    rng = np.random.default_rng(0)
    names = [f"{i:06d}" for i in range(frames)]
    height, width = size_hw
    for i, name in enumerate(names):
        image = street(i, size_hw)
        w, h = rng.integers(width // 8, width // 3), rng.integers(height // 2, 3 * height // 4)
        x, y = rng.integers(2, width - w - 2), rng.integers(2, height - h - 2)
        image[y : y + h, x : x + w] = (40, 40, 230) if i % 3 == 0 else (230, 120, 30)
        write_picture(base / f"training/image_2/{name}.png", image)
        row = f"{CLASSES[i % 3]} 0.00 0 0.00 {x}.00 {y}.00 {x + w}.00 {y + h}.00 1.5 1.6 3.9 1.0 1.6 {10 + i}.0 0.0\n"
        label = base / f"training/label_2/{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(row)
    (base / "ImageSets").mkdir(exist_ok=True)
    (base / "ImageSets/train.txt").write_text("\n".join(names[: frames - held_out]) + "\n")
    (base / "ImageSets/val.txt").write_text("\n".join(names[frames - held_out :]) + "\n")
    for i in range(road):
        for category in ("um", "umm", "uu"):
            image, truth = street(100 + i, size_hw), np.zeros((*size_hw, 3), np.uint8)
            truth[..., 2] = 255
            truth[height // 2 :, :, 0] = 255
            image[height // 2 :] //= 2
            write_picture(root / f"kitti/road/training/image_2/{category}_{i:06d}.png", image)
            write_picture(root / f"kitti/road/training/gt_image_2/{category}_road_{i:06d}.png", truth)
    return root


def tiny(root: Path | None = None, **changes: Any) -> TrainConfig:
    """A run of four steps on the CPU; on the synthetic street where no data is given."""
    data = DataConfig(
        real=root is not None,
        root=root or Path("."),
        synthetic_share=0.0 if root else 1.0,
        crop_hw=(64, 128),
        validation_hw=(64, 192),
        workers=0,
    )
    config = TrainConfig(
        data=data,
        augment=AugmentConfig(native_width=208, copy_paste=0.0),
        schedule=ScheduleConfig(steps=4, batch=4, warmup_steps=2),
        hardware=HardwareConfig(threads=1, device="cpu"),
        checkpoints=CheckpointConfig(evaluate_every=4, checkpoint_every=2),
    )
    return changed(config, **changes)


def changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    """A config with other fields, those of its slices (`steps=2`) among them."""
    own = {
        name: value
        for name, value in changes.items()
        if name in ("model", "data", "augment", "preset", "distill", "teachers")
    }
    of_slices = {name: value for name, value in changes.items() if name not in own}
    return overlay(replace(config, **own), of_slices, "test")
