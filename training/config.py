"""What a training run is made of. Presets are functions that return a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from datasets.splits import ROAD_PARTS
from perception.errors import UserError
from perception.types import CLASS_NAMES
from training.models.heads.detection import DetectionConfig
from training.models.heads.segmentation import SegmentationConfig
from training.models.network import SIZE_MULTIPLE, ModelConfig, check_size, check_top_k
from training.ranges import check_ranges

SHARE = (0.0, 1.0)
MANY = float("inf")


@dataclass(frozen=True)
class AugmentConfig:
    """How a picture is varied before the network sees it."""

    native_width: int = 1150
    """Pixels across which a whole frame is shown at scale 1, about KITTI's own width."""
    scale_min: float = 0.55
    """Smallest random scale about it."""
    scale_max: float = 1.4
    """Largest random scale about it."""
    centre_on_object: float = 0.6
    """Share of crops that are placed around a labelled object."""
    balance_classes: bool = True
    """Choose the class of that object first, so that rare classes are shown as often as common ones."""
    flip: float = 0.5
    """Share mirrored left to right."""
    colour: float = 0.8
    """Share with changed brightness, contrast, gamma and saturation."""
    exposure: float = 0.5
    """Share exposed and white-balanced anew, as far as daylight for what is dark and clear air for what is pale."""
    blur: float = 0.15
    """Share blurred."""
    noise: float = 0.2
    """Share with added noise."""
    haze: float = 0.1
    """Share faded towards a grey, as by fog or spray."""
    rain: float = 0.05
    """Share with streaks of rain."""
    night: float = 0.05
    """Share made dark."""
    rotation: float = 0.2
    """Share turned a little."""
    rotation_max_deg: float = 4.0
    """Largest turn either way, degrees."""
    copy_paste: float = 0.4
    """Share of pictures with a known horizon into which one to three objects of other frames are pasted."""
    mosaic: float = 0.15
    """Share of the real pictures that are made of four."""
    off_for_last: float = 0.1
    """Share of the run, at its end, with geometry, mirror and half the changes of colour and exposure alone."""

    def __post_init__(self) -> None:
        light = ("colour", "exposure", "blur", "noise", "haze", "rain", "night")
        shape = ("centre_on_object", "flip", "rotation", "copy_paste", "mosaic", "off_for_last")
        check_ranges(self, **dict.fromkeys((*light, *shape), SHARE))
        check_ranges(self, native_width=(32, MANY), rotation_max_deg=(0, 45))
        check_ranges(self, scale_min=(0.01, 100), scale_max=(self.scale_min, 100))


@dataclass(frozen=True)
class DataConfig:
    """What to train on and what to hold out."""

    root: Path = Path("../shared/data")
    """Folder of data sets as `perception data check` lists them, or KITTI's own object folder."""
    crop_hw: tuple[int, int] = (256, 512)
    """Size of a training picture; a crop of the frame near native scale, so that far objects keep their pixels."""
    validation_hw: tuple[int, int] = (384, 1248)
    """Size at which the held-out frames are scored."""
    synthetic_share: float = 0.25
    """Share of pictures from the synthetic street; 0 trains on real pictures alone."""
    streets: int = 0
    """How many different streets are drawn; 0: a new one for each picture. Some hundred stay in memory (1.5 MB each),
    where a new one takes longer than the network's step for its crop on a CPU."""
    road_share: float = 0.0
    """Share of the real pictures that KITTI's road frames make; 0: as the sizes of the sets have it."""
    mask_boxes: bool = True
    """Teach also boxes of single people found in CamVid's and IDD-Lite's masks, and of CamVid's cyclists."""
    hand_labels: bool = True
    """Teach also what was drawn by hand for this project: boxes on 21 of KITTI's road frames, boxes and road on 18
    frames of three clips. Which drives those road frames are of is not known: off for object scores to publish."""
    self_labels: Path | None = None
    """Folder of `python -m tools.recipes.self_labels`: what an earlier network found in CamVid and its masks
    confirm, beside `mask_boxes`, which it includes."""
    real: bool = True
    """False trains on the synthetic street alone."""
    road_fold: int = 0
    """Which fifth of the KITTI road frames is held out; -1 none."""
    fold: int = -1
    """Which part of a cross-validation is held out, of object drives and road frames alike; -1: no cross-validation,
    but `ImageSets/` or every fifth drive, and `road_fold`."""
    folds: int = 5
    """Parts of the cross-validation."""
    workers: int = 1
    """Loader processes of each training process."""
    cache: Path | None = None
    """Folder for decoded copies of the pictures, about `augment.native_width` wide; safe to delete. Worth it where
    the pictures are too many to stay in memory. None: no copies."""
    cache_gb: float = 20.0
    """Size of that folder beyond which no more copies are written; KITTI's training half needs 6."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    preset: str = "nano"
    """What every other option starts from: nano, small, medium or large."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    steps: int = 6000
    """Optimiser steps."""
    batch: int = 16
    """Pictures a step, of all processes together."""
    accumulate: int = 1
    """Parts in which each process takes its pictures, one after the other, where they don't fit its memory together.
    Losses and batch norm are then those of a part."""
    learning_rate: float = 2e-3
    """Highest rate, after warm-up; cosine decay to a hundredth of it."""
    warmup_steps: int = 200
    """Steps over which the rate rises."""
    weight_decay: float = 0.03
    """On convolution weights; none on biases and batch norm."""
    clip_norm: float = 10.0
    """Longest gradient."""
    ema_decay: float = 0.999
    """Of the averaged weights, which are what is scored and exported."""
    seed: int = 1
    """Of everything random."""
    evaluate_every: int = 1000
    """Steps between scorings of the held-out frames."""
    patience: int = 0
    """Scorings in a row without a new best after which the run ends; 0 goes on to the last step."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    threads: int = 0
    """CPU threads of the network; 0 leaves it to torch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs; "auto" takes CUDA where it works."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """"fp32", "bf16" or, on CUDA, "fp16" with scaled gradients. "auto": fp32 on a CPU, on CUDA bf16 where the GPU has
    it and fp16 elsewhere."""
    compile: bool = False
    """Let torch compile the network: 1.4 times the steps a second on one CPU, no more on another, after a minute
    or two at the start. Needs a C++ compiler."""
    skip_nonfinite: int = 0
    """Batches whose loss is no number that a run may pass over; at the next one it stops."""

    def __post_init__(self) -> None:
        for size_hw in (self.data.crop_hw, self.data.validation_hw):
            check_size(size_hw)
        check_ranges(self, learning_rate=(0, 10), weight_decay=(0, MANY), clip_norm=(1e-9, MANY), ema_decay=SHARE)
        counts = ("warmup_steps", "patience", "threads", "skip_nonfinite")
        check_ranges(self, **dict.fromkeys(counts, (0, MANY)), seed=(0, 2**32 - 1))
        check_ranges(self, evaluate_every=(1, MANY), checkpoint_every=(1, MANY))
        check_ranges(
            self.data,
            workers=(0, MANY),
            cache_gb=(0, MANY),
            streets=(0, 2**31),
            fold=(-1, MANY),
            road_fold=(-1, ROAD_PARTS - 1),
        )
        if self.steps < 1 or self.batch < 1 or self.accumulate < 1:
            raise UserError(
                f"steps {self.steps}, batch {self.batch}, accumulate {self.accumulate}", "at least 1 of each"
            )
        if self.batch % self.accumulate:
            raise UserError(f"batch {self.batch} in {self.accumulate} parts", "equal parts", "another --accumulate")
        if not 0 <= self.data.synthetic_share <= 1:
            raise UserError(f"synthetic_share {self.data.synthetic_share}", "0..1")
        if not 0 <= self.data.road_share < 1:
            raise UserError(f"road_share {self.data.road_share}", "from 0 to below 1")
        cells = self.batch // self.accumulate * (self.data.crop_hw[0] // SIZE_MULTIPLE)
        if cells * (self.data.crop_hw[1] // SIZE_MULTIPLE) < 2:
            raise UserError("one picture of 32x32 at a time", "more for batch norm to count", "--batch 2")
        names = self.model.class_names
        if not names or len(set(names)) < len(names) or set(names) - set(CLASS_NAMES):
            raise UserError(
                f"class_names {' '.join(map(str, names))}",
                f"some of the classes that the data sets label, each once: {' '.join(CLASS_NAMES)}",
            )
        check_top_k(self.model, self.data.validation_hw)
        if self.data.fold >= self.data.folds or self.data.folds < 2:
            raise UserError(f"fold {self.data.fold} of {self.data.folds}", "a fold from 0, of at least 2")


def nano() -> TrainConfig:
    """About 2 GFLOPs at 1248×384: real time on two CPU cores."""
    return TrainConfig(preset="nano", model=_model("mobilenet_v3_small", 80))


def small() -> TrainConfig:
    """About 6 GFLOPs."""
    return TrainConfig(preset="small", model=_model("mobilenet_v3_large", 112), learning_rate=1.5e-3)


def medium() -> TrainConfig:
    """About 19 GFLOPs."""
    return TrainConfig(preset="medium", model=_model("regnet_y_800mf", 128), learning_rate=1e-3)


def large() -> TrainConfig:
    """About 90 GFLOPs."""
    return TrainConfig(preset="large", model=_model("convnext_tiny", 192), learning_rate=5e-4)


def _model(backbone: str, channels: int) -> ModelConfig:
    return ModelConfig(
        backbone=backbone,
        pretrained=True,
        channels=channels,
        detection=DetectionConfig(),
        segmentation=SegmentationConfig(),
    )


PRESETS = {"nano": nano, "small": small, "medium": medium, "large": large}
