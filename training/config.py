"""What a training run is made of. Presets are functions that return a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from datasets.splits import HoldoutOptions
from perception.cli.options import FLAT
from perception.errors import FieldError, UserError
from perception.types import CLASS_NAMES
from training.distill import DistillConfig
from training.models.config import SIZE_MULTIPLE, ModelConfig, check_size
from training.ranges import check_ranges
from training.teachers import TeacherConfig

SHARE = (0.0, 1.0)
MANY = float("inf")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to a training image."""

    native_width: int = 1150
    """Width of a whole frame at scale 1, pixels; about KITTI's own."""
    scale_min: float = 0.55
    """Smallest random scale."""
    scale_max: float = 1.4
    """Largest random scale."""
    centre_on_object: float = 0.6
    """Share of crops placed around a labelled object."""
    balance_classes: bool = True
    """Choose that object's class first, so that rare classes appear as often as common ones."""
    flip: float = 0.5
    """Share mirrored left to right."""
    colour: float = 0.8
    """Share with changed brightness, contrast, gamma and saturation."""
    exposure: float = 0.5
    """Share with a new exposure and white balance: dark images up to daylight, pale ones down to clear air."""
    blur: float = 0.15
    """Share blurred."""
    noise: float = 0.2
    """Share with added noise."""
    haze: float = 0.1
    """Share faded towards grey, as by fog or spray."""
    rain: float = 0.05
    """Share with streaks of rain."""
    night: float = 0.05
    """Share darkened."""
    rotation: float = 0.2
    """Share rotated."""
    rotation_max_deg: float = 4.0
    """Largest rotation either way, degrees."""
    copy_paste: float = 0.4
    """Share of images with a known horizon that receive one to three objects of other frames."""
    mosaic: float = 0.15
    """Share of real images that are made of four."""
    off_for_last: float = 0.1
    """Share of the run, at its end, with geometry, mirror and half the colour and exposure changes only."""

    def __post_init__(self) -> None:
        light = ("colour", "exposure", "blur", "noise", "haze", "rain", "night")
        shape = ("centre_on_object", "flip", "rotation", "copy_paste", "mosaic", "off_for_last")
        check_ranges(self, **dict.fromkeys((*light, *shape), SHARE))
        check_ranges(self, native_width=(32, MANY), rotation_max_deg=(0, 45))
        check_ranges(self, scale_min=(0.01, 100), scale_max=(self.scale_min, 100))


@dataclass(frozen=True)
class DataConfig:
    """Training and validation sets."""

    root: Path = Path("../shared/data")
    """Folder of data sets as `perception data check` lists them, or KITTI's own object folder."""
    crop_hw: tuple[int, int] = (256, 512)
    """Size of a training crop, pixels. Crops are near native scale, so that far objects keep their pixels."""
    validation_hw: tuple[int, int] = (384, 1248)
    """Network input size for validation frames, pixels."""
    synthetic_share: float = 0.25
    """Share of images from the synthetic street; 0: real images only."""
    streets: int = 0
    """Number of different streets, 1.5 MB of memory each; 0: a new one for each image, which costs more CPU time."""
    road_share: float = 0.0
    """Share of KITTI road frames among the real images; 0: by the sizes of the data sets."""
    weights: tuple[str, ...] = ()
    """Other weights of data sets among the real images, as citypersons_sample=0.2; 0 leaves a set out."""
    mask_boxes: bool = True
    """Train also on boxes derived from CamVid's and IDD-Lite's masks."""
    hand_labels: bool = True
    """Train also on this project's hand-drawn labels. Disable for published object scores: these frames may share
    drives with the validation split."""
    teacher_labels: Path | None = None
    """Folder or zip of labels by pretrained detectors, with a folder for each data set. Sure boxes become soft
    targets, doubtful ones ignore regions. Data sets without boxes of their own are used only with it."""
    unlabelled: Path | None = None
    """Folder of frames without labels, which --teacher labels. Rows that are in `teacher_labels` under the folder's
    name are used as they are."""
    unlabelled_share: float = 0.2
    """Share of these frames among the real images."""
    self_labels: Path | None = None
    """Folder of `python -m tools.recipes.self_labels`: detections in CamVid that its masks confirm."""
    real: bool = True
    """Train on real images; without them on the synthetic street alone."""
    fold: str = ""
    """Hold out one part of a cross-validation, as 0/5 (the first of five), of drives and road frames alike. Default:
    `ImageSets/` or every fifth drive, and every fifth road frame."""
    workers: int = 1
    """Loader processes of each training process."""
    cache: Path | None = None
    """Folder for decoded copies of the images, safe to delete. For data that does not fit in memory."""
    cache_gb: float = 20.0
    """Largest size of that folder, GB; KITTI's training half needs 6."""

    def __post_init__(self) -> None:
        for size_hw in (self.crop_hw, self.validation_hw):
            check_size(size_hw)
        check_ranges(self, workers=(0, MANY), cache_gb=(0, MANY), streets=(0, 2**31), synthetic_share=SHARE)
        if not 0 <= self.road_share < 1:
            raise FieldError(self, "road_share", "from 0 to below 1")
        check_ranges(self, unlabelled_share=(0.001, 0.999))
        read_fold(self.fold)

    @property
    def holdout(self) -> HoldoutOptions:
        """Which part of the data is held out."""
        return read_fold(self.fold)


def read_fold(text: str) -> HoldoutOptions:
    """Read `I/N`, part I (from 0) of N; empty is no cross-validation.

    Raises:
        UserError: not that.
    """
    if not text:
        return HoldoutOptions()
    part, slash, parts = text.partition("/")
    if not (
        slash and part.isdecimal() and parts.isdecimal() and 2 <= int(parts) <= 10_000 and int(part) < int(parts)
    ):
        raise UserError(f"--data.fold {text}", "a part from 0 and how many there are, at least 2", "--data.fold 0/5")
    return HoldoutOptions(int(part), int(parts))


@dataclass(frozen=True)
class ScheduleConfig:
    """Length of the run and size of its steps."""

    steps: int = 6000
    """Optimiser steps."""
    batch: int = 16
    """Global batch size (images per optimiser step over all processes)."""
    accumulate: int = 1
    """Parts in which each process takes its images, to save memory. Losses and batch norm are those of a part."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises."""
    seed: int = 1
    """Random seed for weights, sampling and augmentation."""

    def __post_init__(self) -> None:
        check_ranges(self, warmup_steps=(0, MANY), seed=(0, 2**32 - 1))
        check_ranges(self, steps=(1, MANY), batch=(1, MANY), accumulate=(1, MANY))
        if self.batch % self.accumulate:
            raise UserError(f"--batch {self.batch} in {self.accumulate} parts", "equal parts", "--accumulate 1")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, and the average of the weights."""

    learning_rate: float = 2e-3
    """Highest learning rate, after warm-up; cosine decay to a hundredth of it."""
    backbone_learning_rate: float = 1.0
    """Factor on the learning rate of the backbone. Below 1 for a pretrained one, which needs small steps."""
    frozen_stages: int = 0
    """Stages of the backbone, from the finest of four (strides 4, 8, 16, 32), that keep their weights."""
    frozen_norm: bool = False
    """Keep the batch norm statistics of the backbone, for a pretrained one and small batches."""
    weight_decay: float = 0.03
    """Of convolution weights; biases and batch norm have none."""
    clip_norm: float = 10.0
    """Largest gradient norm."""
    ema_decay: float = 0.999
    """Decay of the averaged weights, which are validated and exported."""
    skip_nonfinite: int = 0
    """Batches with a non-finite loss that a run may skip before it stops."""

    def __post_init__(self) -> None:
        check_ranges(self, learning_rate=(0, 10), weight_decay=(0, MANY), clip_norm=(1e-9, MANY), ema_decay=SHARE)
        check_ranges(self, skip_nonfinite=(0, MANY), backbone_learning_rate=(0, 100), frozen_stages=(0, 4))


@dataclass(frozen=True)
class HardwareConfig:
    """Where the network runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the network; auto: CUDA where it works."""
    threads: int = 0
    """CPU threads of the network; 0: torch's choice."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """fp16 (CUDA only) scales gradients. auto: fp32 on a CPU; on CUDA bf16 where the GPU has it, else fp16."""
    compile: bool = False
    """Compile the network with torch: 1.4 times faster on one CPU, not on another. Takes a minute or two at the start
    and needs a C++ compiler."""

    def __post_init__(self) -> None:
        check_ranges(self, threads=(0, MANY))


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run evaluates, saves and ends early."""

    evaluate_every: int = 1000
    """Steps between evaluations of the validation frames."""
    patience: int = 0
    """Evaluations without a new best after which the run ends; 0: never."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        check_ranges(self, evaluate_every=(1, MANY), checkpoint_every=(1, MANY), patience=(0, MANY))


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    preset: str = "nano"
    """Defaults of all other options: nano, small, medium or large."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    teachers: Annotated[TeacherConfig, FLAT] = field(default_factory=TeacherConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    schedule: Annotated[ScheduleConfig, FLAT] = field(default_factory=ScheduleConfig)
    optimiser: Annotated[OptimiserConfig, FLAT] = field(default_factory=OptimiserConfig)
    hardware: Annotated[HardwareConfig, FLAT] = field(default_factory=HardwareConfig)
    checkpoints: Annotated[CheckpointConfig, FLAT] = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        height, width = (side // SIZE_MULTIPLE for side in self.data.crop_hw)
        if self.schedule.batch // self.schedule.accumulate * height * width < 2:
            raise UserError("one image of 32x32 at a time", "more for batch norm to count", "--batch 2")
        if self.teachers.teacher and self.data.unlabelled is None:
            raise UserError("--teacher without frames to label", "a folder of frames", "--data.unlabelled FOLDER")
        names = self.model.class_names
        if not names or len(set(names)) < len(names) or set(names) - set(CLASS_NAMES):
            raise FieldError(
                self.model,
                "class_names",
                f"some of the classes that the data sets label, each once: {' '.join(CLASS_NAMES)}",
            )
        self.model.check_size(self.data.validation_hw)


def nano() -> TrainConfig:
    """About 2 GFLOPs at 1248×384: real time on two CPU cores."""
    return TrainConfig(preset="nano", model=_model("mobilenet_v3_small", 80))


def small() -> TrainConfig:
    """About 6.6 GFLOPs."""
    return TrainConfig(
        preset="small", model=_model("mobilenet_v2", 96), optimiser=OptimiserConfig(learning_rate=1.5e-3)
    )


def medium() -> TrainConfig:
    """About 19 GFLOPs."""
    return TrainConfig(
        preset="medium", model=_model("regnet_y_800mf", 128), optimiser=OptimiserConfig(learning_rate=1e-3)
    )


def large() -> TrainConfig:
    """About 90 GFLOPs."""
    return TrainConfig(
        preset="large", model=_model("convnext_tiny", 192), optimiser=OptimiserConfig(learning_rate=5e-4)
    )


def _model(backbone: str, channels: int) -> ModelConfig:
    return ModelConfig(backbone=backbone, pretrained=True, channels=channels)


PRESETS = {"nano": nano, "small": small, "medium": medium, "large": large}
