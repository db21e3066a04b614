"""Configuration of a training run. A preset is a function that returns a config."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from datasets.splits import HoldoutOptions
from perception.cli.options import FLAT
from perception.errors import FieldError, UserError
from perception.types import CLASS_NAMES
from training.adversarial import AdversarialConfig
from training.distill import DistillConfig
from training.models.config import SIZE_MULTIPLE, ModelConfig, check_size
from training.ranges import check_ranges
from training.teachers import TeacherConfig

SHARE = (0.0, 1.0)
MANY = float("inf")
PICO_WIDTHS = (
    3, 16, 16, 16, 16, 16, 16, 32, 32, 32, 32, 24, 24, 48, 48, 48, 48, 24, 24, 96, 96, 96, 96, 32,
    32, 96, 96, 96, 96, 32, 32, 112, 112, 112, 112, 32, 32, 128, 128, 128, 128, 64, 64, 160, 160, 160, 160, 64,
    64, 144, 144, 144, 144, 64, 64, 112, 112, 112, 112, 64, 64, 176, 176, 176, 176, 64, 64, 112, 112, 112, 112, 64,
    64, 96, 96, 96, 96, 64, 64, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16,
    16, 16, 16, 16, 16, 96, 32, 64, 64, 64, 96, 64, 64, 64, 64, 64, 64, 64, 64, 48, 48, 48, 48, 64,
    48, 48, 48, 64, 64, 64, 64, 48, 64, 64, 64, 48, 48, 48, 48, 32, 32, 32, 32, 32, 32, 32, 32, 32,
    32, 3, 32, 64, 32, 2, 24, 16, 48, 16, 48, 16, 48, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 3,
)  # fmt: skip
"""Channels that `tools/recipes/pico.toml` leaves of `small`."""


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to a training image."""

    native_width: int = 1150
    """Width of a whole frame at scale 1, pixels; close to KITTI's 1242."""
    scale_min: float = 0.55
    """Smallest random scale."""
    scale_max: float = 1.4
    """Largest random scale."""
    centre_on_object: float = 0.6
    """Fraction of crops placed around a labelled object."""
    balance_classes: bool = True
    """Choose that object's class first, so that rare classes appear as often as common ones."""
    flip: float = 0.5
    """Fraction of images mirrored left to right."""
    colour: float = 0.8
    """Fraction of images with changed brightness, contrast, gamma and saturation."""
    exposure: float = 0.5
    """Fraction of images with changed exposure and white balance. Brightens dark images and darkens pale ones."""
    blur: float = 0.15
    """Fraction of images blurred."""
    noise: float = 0.2
    """Fraction of images with added noise."""
    haze: float = 0.1
    """Fraction of images blended with grey, which simulates fog and spray."""
    rain: float = 0.05
    """Fraction of images with rain streaks."""
    night: float = 0.05
    """Fraction of images darkened."""
    mix: float = 0.0
    """Fraction of images mixed with changed versions of themselves, as AugMix does."""
    rotation: float = 0.2
    """Fraction of images rotated."""
    rotation_max_deg: float = 4.0
    """Largest rotation in either direction, degrees."""
    copy_paste: float = 0.4
    """Fraction of images with a known horizon that get one to three objects pasted from other frames."""
    mosaic: float = 0.15
    """Fraction of real images that are mosaics of four frames."""
    off_for_last: float = 0.1
    """Last fraction of the run, trained with crop, mirror and half the colour and exposure changes only."""

    def __post_init__(self) -> None:
        light = ("colour", "exposure", "blur", "noise", "haze", "rain", "night", "mix")
        shape = ("centre_on_object", "flip", "rotation", "copy_paste", "mosaic", "off_for_last")
        check_ranges(self, **dict.fromkeys((*light, *shape), SHARE))
        check_ranges(self, native_width=(32, MANY), rotation_max_deg=(0, 45))
        check_ranges(self, scale_min=(0.01, 100), scale_max=(self.scale_min, 100))


@dataclass(frozen=True)
class DataConfig:
    """Training and validation sets."""

    root: Path = Path("../shared/data")
    """Dataset root: a folder of data sets as `perception data check` lists them, or KITTI's object folder."""
    crop_hw: tuple[int, int] = (256, 512)
    """Height and width of a training crop, pixels. Crops are near native scale, so that far objects keep detail."""
    validation_hw: tuple[int, int] = (384, 1248)
    """Height and width of the network input for validation frames, pixels."""
    synthetic_share: float = 0.25
    """Fraction of images rendered by the synthetic street; 0: real images only."""
    streets: int = 0
    """Number of distinct synthetic streets, 1.5 MB of memory each; 0: a new one per image, which takes more CPU."""
    road_share: float = 0.0
    """Fraction of KITTI road frames among the real images; 0: in proportion to the sizes of the data sets."""
    weights: tuple[str, ...] = ()
    """Sampling weights of data sets among the real images, for example citypersons_sample=0.2; 0 excludes a set."""
    mask_boxes: bool = True
    """Add boxes derived from CamVid's and IDD-Lite's masks."""
    hand_labels: bool = True
    """Add this project's hand-drawn labels. Disable for published object scores: these frames may share drives with
    the validation split."""
    teacher_labels: Path | None = None
    """Folder or zip of labels by pretrained detectors, with a subfolder for each data set. Confident boxes become
    soft targets, uncertain ones ignore regions. Required for data sets without boxes of their own."""
    soft_labels: bool = True
    """Weigh the labels of teachers by their confidence; otherwise every one counts fully."""
    label_share: float = 1.0
    """Fraction of every data set's training frames that are used, evenly spread. Measures what more labels bring."""
    unlabelled: Path | None = None
    """Folder of frames without labels; --teacher labels them. Labels already in `teacher_labels`, under the folder's
    name, are kept."""
    unlabelled_share: float = 0.2
    """Fraction of these frames among the real images."""
    self_labels: Path | None = None
    """Output folder of `python -m tools.recipes.self_labels`: detections in CamVid that its masks confirm."""
    real: bool = True
    """Train on real images; otherwise on the synthetic street alone."""
    fold: str = ""
    """Hold out one fold of a cross-validation, for example 0/5 (the first of five), for drives and road frames alike.
    Default: `ImageSets/` or every fifth drive, and every fifth road frame."""
    workers: int = 1
    """Data loader processes per training process."""
    cache: Path | None = None
    """Folder for decoded copies of the images, safe to delete. Use it for data that does not fit in memory."""
    cache_gb: float = 20.0
    """Size limit of the cache folder, GB; the KITTI training split needs 6."""

    def __post_init__(self) -> None:
        for size_hw in (self.crop_hw, self.validation_hw):
            check_size(size_hw)
        check_ranges(self, workers=(0, MANY), cache_gb=(0, MANY), streets=(0, 2**31), synthetic_share=SHARE)
        if not 0 <= self.road_share < 1:
            raise FieldError(self, "road_share", "from 0 to below 1")
        check_ranges(self, unlabelled_share=(0.001, 0.999), label_share=(0.001, 1))
        read_fold(self.fold)

    @property
    def holdout(self) -> HoldoutOptions:
        """Return which part of the data is held out."""
        return read_fold(self.fold)


def read_fold(text: str) -> HoldoutOptions:
    """Parse a fold `I/N`, part I (from 0) of N. An empty text means no cross-validation.

    Raises:
        UserError: the text has another form.
    """
    if not text:
        return HoldoutOptions()
    part, slash, parts = text.partition("/")
    if not (
        slash and part.isdecimal() and parts.isdecimal() and 2 <= int(parts) <= 10_000 and int(part) < int(parts)
    ):
        raise UserError(
            f"--data.fold {text}", "INDEX/COUNT with an index from 0 and at least 2 folds", "--data.fold 0/5"
        )
    return HoldoutOptions(int(part), int(parts))


@dataclass(frozen=True)
class ScheduleConfig:
    """Length of the run, batch size and seed."""

    steps: int = 6000
    """Optimiser steps."""
    batch: int = 16
    """Global batch size (images per optimiser step over all processes)."""
    accumulate: int = 1
    """Gradient accumulation: parts per step and process, to save memory. Losses and batch norm apply to each part."""
    warmup_steps: int = 200
    """Steps of the learning rate's linear warm-up."""
    seed: int = 1
    """Random seed for weights, sampling and augmentation."""

    def __post_init__(self) -> None:
        check_ranges(self, warmup_steps=(0, MANY), seed=(0, 2**32 - 1))
        check_ranges(self, steps=(1, MANY), batch=(1, MANY), accumulate=(1, MANY))
        if self.batch % self.accumulate:
            raise UserError(f"--batch {self.batch} in {self.accumulate} parts", "equal parts", "--accumulate 1")


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW and the moving average of the weights."""

    learning_rate: float = 2e-3
    """Peak learning rate, reached after warm-up and followed by cosine decay to a hundredth of it."""
    backbone_learning_rate: float = 1.0
    """Learning rate factor of the backbone. Use less than 1 to fine-tune a pretrained backbone."""
    frozen_stages: int = 0
    """Backbone stages that are not trained, counted from the finest of four (strides 4, 8, 16, 32)."""
    frozen_norm: bool = False
    """Freeze the backbone's batch norm statistics. Useful for pretrained backbones and small batches."""
    train_only: str = ""
    """Train only this part of the network, for example detection.cuboid; all else keeps its weights and statistics to
    the bit. Empty: the whole network."""
    weight_decay: float = 0.03
    """Weight decay of convolution weights; biases and batch norm have none."""
    clip_norm: float = 10.0
    """Gradient norm above which gradients are clipped."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights, which is validated and exported."""
    skip_nonfinite: int = 0
    """Batches with a non-finite loss that a run may skip before it stops."""

    def __post_init__(self) -> None:
        check_ranges(self, learning_rate=(0, 10), weight_decay=(0, MANY), clip_norm=(1e-9, MANY), ema_decay=SHARE)
        check_ranges(self, skip_nonfinite=(0, MANY), backbone_learning_rate=(0, 100), frozen_stages=(0, 4))


@dataclass(frozen=True)
class HardwareConfig:
    """Device, threads and precision of the network."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the network; auto: CUDA if available."""
    threads: int = 0
    """CPU threads of the network; 0: torch's default."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the convolutions. fp16 needs CUDA and scales the loss. auto: fp32 on a CPU; on CUDA bf16 where the
    GPU supports it, else fp16."""
    compile: bool = False
    """Compile the network with torch.compile. Speeds up some CPUs, takes one to two minutes at the start, and needs a
    C++ compiler."""

    def __post_init__(self) -> None:
        check_ranges(self, threads=(0, MANY))


@dataclass(frozen=True)
class CheckpointConfig:
    """Intervals of evaluations and checkpoints, and early stopping."""

    evaluate_every: int = 1000
    """Steps between evaluations on the validation set."""
    patience: int = 0
    """Early stopping: evaluations without a new best score after which the run ends; 0: never."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        check_ranges(self, evaluate_every=(1, MANY), checkpoint_every=(1, MANY), patience=(0, MANY))


@dataclass(frozen=True)
class TrainConfig:
    """Configuration of a training run."""

    preset: str = "nano"
    """Preset that sets the defaults of all other options: nano, pico, small, medium or large."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    teachers: Annotated[TeacherConfig, FLAT] = field(default_factory=TeacherConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    schedule: Annotated[ScheduleConfig, FLAT] = field(default_factory=ScheduleConfig)
    optimiser: Annotated[OptimiserConfig, FLAT] = field(default_factory=OptimiserConfig)
    hardware: Annotated[HardwareConfig, FLAT] = field(default_factory=HardwareConfig)
    checkpoints: Annotated[CheckpointConfig, FLAT] = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        height, width = (side // SIZE_MULTIPLE for side in self.data.crop_hw)
        if self.schedule.batch // self.schedule.accumulate * height * width < 2:
            raise UserError("a batch of one 32x32 image", "at least two feature cells for batch norm", "--batch 2")
        if self.teachers.teacher and self.data.unlabelled is None:
            raise UserError("--teacher without frames to label", "a folder of frames", "--data.unlabelled FOLDER")
        if not self.data.real and set(self.model.class_names) - set(CLASS_NAMES):
            raise FieldError(self.model, "class_names", f"the synthetic street's classes: {' '.join(CLASS_NAMES)}")
        self.model.check_size(self.data.validation_hw)


def nano() -> TrainConfig:
    """Return the config of a network of about 2 GFLOPs at 1248×384: real time on two CPU cores."""
    return TrainConfig(preset="nano", model=_model("mobilenet_v3_small", 80))


def pico() -> TrainConfig:
    """Return the config of `small` with two thirds of its work removed. It needs weights: `--init pico.pt`."""
    plain = ModelConfig(backbone="mobilenet_v2", channels=96)
    model = replace(plain, widths=PICO_WIDTHS, detection=replace(plain.detection, distance=True))
    return TrainConfig(preset="pico", model=model, optimiser=OptimiserConfig(learning_rate=1.5e-3))


def small() -> TrainConfig:
    """Return the config of a network of about 6.6 GFLOPs."""
    return TrainConfig(
        preset="small", model=_model("mobilenet_v2", 96), optimiser=OptimiserConfig(learning_rate=1.5e-3)
    )


def medium() -> TrainConfig:
    """Return the config of a network of about 19 GFLOPs."""
    return TrainConfig(
        preset="medium", model=_model("regnet_y_800mf", 128), optimiser=OptimiserConfig(learning_rate=1e-3)
    )


def large() -> TrainConfig:
    """Return the config of a network of about 90 GFLOPs."""
    return TrainConfig(
        preset="large", model=_model("convnext_tiny", 192), optimiser=OptimiserConfig(learning_rate=5e-4)
    )


def _model(backbone: str, channels: int) -> ModelConfig:
    return ModelConfig(backbone=backbone, pretrained=True, channels=channels)


PRESETS = {"nano": nano, "pico": pico, "small": small, "medium": medium, "large": large}
