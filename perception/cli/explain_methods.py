"""The two ways in which `perception explain` makes maps: masks for a model file, gradients for a checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from perception.arrays import F32, U8
from perception.detector import Detector
from perception.errors import MissingDependencyError

if TYPE_CHECKING:
    from perception.cli.explain import ExplainOptions
    from perception.trust.explain import Target

Tell = Callable[[int, int], None]
GRADIENTS = "training.layercam"
"""Named, not imported: a room above is reached as the front door reaches it, and torch is needed for it alone."""


class Method(Protocol):
    """Makes maps with one network."""

    name: str
    detector: Detector
    units: int
    """Of progress for each image."""

    def maps(self, image_bgr: U8, targets: Sequence[Target], tell: Tell) -> list[F32]:
        """Map each target."""

    def shuffled_maps(self, image_bgr: U8, targets: Sequence[Target]) -> list[F32] | None:
        """Map each target with shuffled weights; None where that cannot be done."""


class Masks:
    """D-RISE on a model file."""

    name = "D-RISE"

    def __init__(self, options: ExplainOptions, path: Path) -> None:
        """Load the model file, and its shuffled copy where it is wanted."""
        from perception.backends import load_model
        from perception.trust.explain import require_xaitk
        from perception.trust.shuffled import shuffled_model

        require_xaitk()
        self.options, self.units = options, options.masks
        self.detector = Detector(load_model(path, options.device, options.threads), 0.01, batch=4)
        shuffled = shuffled_model(path, options.seed, options.threads) if options.shuffle else None
        self._other = None if shuffled is None else Detector(shuffled, 0.001, batch=4)

    def _masks(self, image_bgr: U8) -> F32:
        from perception.trust.explain import make_masks

        options = self.options
        return make_masks(image_bgr.shape[:2], options.masks, options.cell_px, options.seed)

    def maps(self, image_bgr: U8, targets: Sequence[Target], tell: Tell) -> list[F32]:
        """Map each target."""
        from perception.trust.explain import saliency

        return saliency(self.detector, image_bgr, targets, self._masks(image_bgr), tell)

    def shuffled_maps(self, image_bgr: U8, targets: Sequence[Target]) -> list[F32] | None:
        """Map each target with shuffled weights and half of the masks."""
        from perception.trust.explain import saliency

        if self._other is None:
            return None
        return saliency(self._other, image_bgr, targets, self._masks(image_bgr)[: self.options.masks // 2])


class Gradients:
    """LayerCAM on a checkpoint, which needs torch."""

    name = "LayerCAM"
    units = 1

    def __init__(self, options: ExplainOptions, path: Path, size_hw: tuple[int, int]) -> None:
        """Read the checkpoint.

        Raises:
            MissingDependencyError: the extra `train` is not installed.
        """
        try:
            module: Any = importlib.import_module(GRADIENTS)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(error.name or "torch", "train", "maps of a checkpoint") from None
        self._explainer = module.open_explainer(path, size_hw)
        self._other = self._explainer.shuffled(options.seed) if options.shuffle else None
        self.detector: Detector = self._explainer.detector

    def maps(self, image_bgr: U8, targets: Sequence[Target], tell: Tell) -> list[F32]:
        """Map each target."""
        found: list[F32] = self._explainer.saliency(image_bgr, targets)
        tell(1, 1)
        return found

    def shuffled_maps(self, image_bgr: U8, targets: Sequence[Target]) -> list[F32] | None:
        """Map each target with shuffled weights."""
        return None if self._other is None else self._other.saliency(image_bgr, targets)


def open_method(options: ExplainOptions, image_hw: tuple[int, int]) -> tuple[Method, Path]:
    """Open the model: gradients for a checkpoint (`.pt`), masks for anything else; returns it and its path."""
    from perception.backends import load_model
    from perception.model import default_model

    path = options.model or default_model(image_hw)
    if path.suffix != ".pt":
        return Masks(options, path), path
    size_hw = load_model(default_model(image_hw), "cpu", 1).spec.size_hw
    return Gradients(options, path, size_hw), path
