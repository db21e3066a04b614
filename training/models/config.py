"""Architecture of the network: its options and those of every head."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perception.classes import ClassInfo, class_problems, classes_named, is_class_name
from perception.errors import FieldError, UserError
from perception.types import CLASS_NAMES
from training.models.head import HeadConfig
from training.models.heads import head_modules
from training.ranges import check_ranges

if TYPE_CHECKING:
    from training.models.heads.detection import DetectionConfig
    from training.models.heads.segmentation import SegmentationConfig

HEADS = head_modules()
"""Modules of the available heads, by name."""
SIZE_MULTIPLE = 32
"""Input height and width are multiples of the coarsest stride."""


@dataclass(frozen=True)
class _NetworkConfig:
    """Architecture of the network."""

    backbone: str = "mobilenet_v3_small"
    """Name of the backbone in torchvision."""
    pretrained: bool = False
    """Initialise the backbone with torchvision's ImageNet weights."""
    backbone_weights: Path | None = None
    """Initialise the backbone with this state dict of the same torchvision network, complete or features only."""
    channels: int = 80
    """Channels of the neck and the detection head."""
    widths: tuple[int, ...] = ()
    """Input and output channels of each convolution of a pruned network; empty: the architecture's own. `--init`
    takes them from a pruned checkpoint."""
    channel_attention: bool = False
    """Weigh the channels of each map of the neck by their means (squeeze and excitation)."""
    encoder_layer: bool = False
    """Apply a transformer encoder layer to the neck's map at stride 32."""
    class_names: tuple[str, ...] = CLASS_NAMES
    """Detected classes in the order of class ids."""
    classes: tuple[ClassInfo, ...] = ()
    """Classes that are more than a name, as `--classes FILE` defines them. The others follow KITTI's rules."""
    heads: tuple[str, ...] = ("detection", "segmentation")
    """Heads to train and deploy."""
    one_to_one: bool = False
    """Also train a one-to-one detection head, and deploy it: one box per object, without NMS."""
    dropout: float = 0.0
    """Dropout probability of the neck's channels."""
    task_weights: Literal["fixed", "uncertainty"] = "fixed"
    """Loss weights. "fixed": those of the heads. "uncertainty": times a trained factor per task (Kendall et al.
    2018)."""

    def __post_init__(self) -> None:
        check_ranges(self, dropout=(0, 0.99), channels=(1, float("inf")))
        if self.widths and self.encoder_layer:
            raise UserError(
                "a pruned network with an encoder layer",
                "one of the two: pruning changes the widths of convolutions alone",
                "--model.no-encoder-layer",
            )
        if self.task_weights not in ("fixed", "uncertainty"):
            raise FieldError(self, "task_weights", "fixed or uncertainty")
        if unknown := [name for name in self.heads if name not in HEADS]:
            raise UserError(
                f"unknown head '{unknown[0]}'", f"some of {' '.join(HEADS)}", "--model.heads detection segmentation"
            )
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise UserError(
                f"heads {' '.join(self.heads)}", "at least one, each once", "--model.heads detection segmentation"
            )
        names = self.class_names
        if not names or len(set(names)) < len(names) or not all(map(is_class_name, names)):
            raise FieldError(self, "class_names", "names without spaces, each once")
        if strangers := [info.name for info in self.classes if info.name not in names]:
            raise UserError(f"class {strangers[0]} is described", f"one of {' '.join(names)}", "--classes FILE alone")
        for found, expected in class_problems(self.class_infos):
            raise UserError(found, expected)
        for config in self._head_configs():
            config.check(self)  # type: ignore[arg-type]

    @property
    def class_infos(self) -> tuple[ClassInfo, ...]:
        """Return what is known of each class, in the order of `class_names`."""
        return classes_named(self.class_names, self.classes)

    @property
    def trained_heads(self) -> tuple[str, ...]:
        """Return the names of all heads in the network, in alphabetical order."""
        return tuple(sorted({*self.heads, *(("one_to_one",) if self.one_to_one else ())}))

    def check_size(self, size_hw: tuple[int, int]) -> None:
        """Check that the network supports an input of this height and width.

        Raises:
            UserError: the strides do not divide the size, or a head does not support it.
        """
        check_size(size_hw)
        for config in self._head_configs():
            config.check_size(self, size_hw)  # type: ignore[arg-type]

    def _head_configs(self) -> list[HeadConfig]:
        values = (getattr(self, field.name) for field in fields(self) if field.name in self.heads)
        return [value for value in values if isinstance(value, HeadConfig)]


if TYPE_CHECKING:

    @dataclass(frozen=True)
    class ModelConfig(_NetworkConfig):
        """What a type checker sees of the class below: the heads that other rooms name."""

        detection: DetectionConfig = field(default_factory=DetectionConfig)
        segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)
else:
    _CONFIGS = {name: module.Config for name, module in HEADS.items() if hasattr(module, "Config")}
    ModelConfig = make_dataclass(
        "ModelConfig",
        [(name, config, field(default_factory=config)) for name, config in _CONFIGS.items()],
        bases=(_NetworkConfig,),
        frozen=True,
        namespace={"__doc__": _NetworkConfig.__doc__, "__module__": __name__},
    )


def check_size(size_hw: tuple[int, int]) -> None:
    """Raise `UserError` where the network's strides do not divide a size."""
    if any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in size_hw):
        near = tuple(max(1, round(side / SIZE_MULTIPLE)) * SIZE_MULTIPLE for side in size_hw)
        raise UserError(
            f"network size {size_hw[0]}x{size_hw[1]}",
            f"height and width that are multiples of {SIZE_MULTIPLE}",
            f"{near[0]}x{near[1]}",
        )
