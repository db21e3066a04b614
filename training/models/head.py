"""The interface of a head, which is one file in `training/models/heads`, selected by `ModelConfig.heads`.

The file holds the head's module, targets, loss, decode and the names of its outputs. It defines

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
"""Output of a head before decode."""
Targets = TypeVar("Targets")
"""Targets of a head's loss."""
SizeHW = tuple[int, int]


@dataclass(frozen=True)
class Features:
    """Input of every head, for a batch of B images."""

    stride4: Tensor
    """(B, C, H/4, W/4) of the backbone."""
    levels: list[Tensor]
    """Three maps (B, C, H/s, W/s) of the neck, s = 8, 16, 32."""

    def detach(self) -> Features:
        """Return the features without gradient."""
        return Features(self.stride4.detach(), [level.detach() for level in self.levels])


@dataclass(frozen=True)
class HeadConfig:
    """Options of a head."""

    def check(self, model: ModelConfig) -> None:
        """Check the options against the rest of the network.

        Raises:
            UserError: an option does not match the network.
        """

    def check_size(self, model: ModelConfig, size_hw: SizeHW) -> None:
        """Check that the head supports an input of this height and width.

        Raises:
            UserError: the head does not support the size.
        """


class Head(nn.Module, Generic[Raw, Targets]):
    """A part of the network with its own outputs. `forward` takes `Features` and returns `Raw`."""

    tasks: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Names of losses by task. The losses of a task share a trained weight (`ModelConfig.task_weights`)."""
    replaces: ClassVar[str] = ""
    """Name of a head with the same outputs that this head replaces when it is deployed."""
    detached: ClassVar[bool] = False
    """Whether gradients stop at the head's input. Its gradient is then clipped separately."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs of `decode` and `deploy`, in order."""
        raise NotImplementedError

    @property
    def described(self) -> dict[str, Any]:
        """Return the fields of `ModelSpec` that this head sets when it is deployed."""
        return {}

    def targets(self, batch: Batch) -> Targets:
        """Return the targets of a batch."""
        raise NotImplementedError

    def loss(self, raw: Raw, targets: Targets, size_hw: SizeHW) -> dict[str, Tensor]:
        """Return the weighted losses by name; their sum is minimised.

        Args:
            raw: output of `forward`.
            targets: output of `targets`.
            size_hw: height and width of the network's input.
        """
        raise NotImplementedError

    def decode(self, raw: Raw, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return the outputs, computed from the output of `forward`. This is the reference for `deploy`."""
        raise NotImplementedError

    def deploy(self, features: Features, size_hw: SizeHW) -> tuple[Tensor, ...]:
        """Return the outputs as the exported graph computes them, without computations that no output needs."""
        return self.decode(self(features), size_hw)

    def fit_channels(self) -> None:
        """Build anew, in place, what depends on the channels of other layers. Called when pruned ones are set."""

    def strip(self) -> None:
        """Remove the parts for training in place. Export calls this on a copy."""
