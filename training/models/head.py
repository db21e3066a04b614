"""What a head is: one file in `training/models/heads`, found by its name in `ModelConfig.heads`.

The file holds the head's module, targets, loss, decode and the names of its outputs. It offers

- `build(model, stride4_channels) -> Head`, and
- `Config`, a dataclass derived from `HeadConfig`, where the head has options: `--model.<name>.<field>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from training.data import Batch
    from training.models.config import ModelConfig

Raw = TypeVar("Raw")
"""What a head computes before decode."""
Targets = TypeVar("Targets")
"""What its loss compares that with."""
SizeHW = tuple[int, int]


@dataclass(frozen=True)
class Features:
    """What every head sees of a batch of B images."""

    stride4: Tensor
    """(B, C, H/4, W/4) of the backbone."""
    levels: list[Tensor]
    """Three maps (B, C, H/s, W/s) of the neck, s = 8, 16, 32."""

    def detach(self) -> Features:
        """Return the same values without a way back for gradients."""
        return Features(self.stride4.detach(), [level.detach() for level in self.levels])


@dataclass(frozen=True)
class HeadConfig:
    """Options of a head."""

    def check(self, model: ModelConfig) -> None:
        """Raise where the options do not suit the rest of the network.

        Raises:
            UserError: what does not fit.
        """

    def check_size(self, model: ModelConfig, size_hw: SizeHW) -> None:
        """Raise where the head cannot serve an input of this height and width.

        Raises:
            UserError: what does not fit.
        """


class Head(nn.Module, Generic[Raw, Targets]):
    """A part of the network with outputs of its own. `forward` takes `Features` and returns `Raw`."""

    tasks: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Names of losses; those of one task share a learnt weight (`ModelConfig.task_weights`)."""
    replaces: ClassVar[str] = ""
    """Name of a head whose outputs this one gives in its stead; only one of the two is deployed."""
    detached: ClassVar[bool] = False
    """Whether the head learns on features that it does not shape. Its gradient is then clipped by itself."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of what `decode` and `deploy` return, in their order."""
        raise NotImplementedError

    @property
    def described(self) -> dict[str, Any]:
        """Return the fields of `ModelSpec` that this head decides when it is deployed."""
        return {}

    def targets(self, batch: Batch) -> Targets:
        """Return what the head learns from a batch."""
        raise NotImplementedError

    def loss(self, raw: Raw, targets: Targets, size_hw: SizeHW) -> dict[str, Tensor]:
        """Return the losses by name, weighted; their sum is minimised.

        Args:
            raw: what `forward` returned.
            targets: what `targets` returned.
            size_hw: height and width of the network's input.
        """
        raise NotImplementedError

    def decode(self, raw: Raw, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return the outputs, from what `forward` computed everywhere. The reference for `deploy`."""
        raise NotImplementedError

    def deploy(self, features: Features, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return the same as `decode`, as the exported graph computes it: without what no output needs."""
        return self.decode(self(features), size_hw)

    def strip(self) -> None:
        """Remove in place what serves training alone, before the export of a copy."""
