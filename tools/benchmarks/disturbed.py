"""What checkpoints keep under disturbances and under attack, at a size of your choice: for comparing short trainings.

    python -m tools.benchmarks.disturbed runs/plain/last.pt runs/hardened/last.pt --root KITTI

AP at IoU 0.5 of KITTI's held-out object frames: with few frames it moves less by chance than the official AP, and
does not depend on it how exact a box of a network at half scale is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from datasets.kitti_object import KittiObject
from datasets.labels import CAR, PEDESTRIAN
from datasets.sample import Sample
from perception.arrays import U8
from perception.cli.options import CommandOptions, parse_options
from perception.detector import Detector
from perception.errors import UserError
from perception.evaluation.detection import average_precision, pool
from perception.trust.corruptions import CORRUPTIONS
from perception.types import Detections
from training.attack_cli import read_attacked
from training.attacks import AttackConfig
from training.backend import torch_model
from training.checkpoint import load_network
from training.operating_point import match_sample

KINDS: tuple[str, ...] = (
    "low_sun",
    "dead_rows",
    "torn_frame",
    "lost_packets",
    "gaussian_noise",
    "impulse_noise",
    "motion_blur",
    "zoom_blur",
    "contrast",
    "defocus_blur",
    "frost",
)
"""Those that cost the shipped network most."""
SEVERITY = 4
EPSILONS = (1, 2)
PGD = AttackConfig("pgd", steps=5)

Scores = dict[str, tuple[float, float]]
"""Condition → AP of cars and of pedestrians, per cent."""


@dataclass(frozen=True)
class Options(CommandOptions):
    """Score checkpoints under disturbances and under PGD."""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Checkpoints, or names of shipped ones."""
    root: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("../shared/data/kitti")
    """KITTI's root, or its object folder."""
    split: str = "val"
    """Name of the frames in ImageSets."""
    size_hw: tuple[int, int] = (192, 640)
    """Input height and width."""


def main(argv: Sequence[str] | None = None) -> int:
    """Score all checkpoints and print a table."""
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        options = parse_options(Options, words, "python -m tools.benchmarks.disturbed")
        if not options.checkpoints:
            raise UserError(
                "no checkpoint", "last.pt of a run", "python -m tools.benchmarks.disturbed runs/a/last.pt"
            )
        folder = options.root / "object" if (options.root / "object").is_dir() else options.root
        data = KittiObject(folder, options.split)
        print(f"{'AP of cars, pedestrians':<40}{'clean':>12}{'disturbed':>12}{'ε 1':>12}{'ε 2':>12}")
        for path in options.checkpoints:
            print(row(str(path)[-39:], scores_of(path, data, options.size_hw)), flush=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def scores_of(checkpoint: Path, data: KittiObject, size_hw: tuple[int, int]) -> Scores:
    """Score a checkpoint on clean, disturbed and attacked frames."""
    network = load_network(checkpoint)[0].eval().requires_grad_(False)
    detect = Detector(torch_model(network, size_hw), 0.01)
    samples = [data[i] for i in range(len(data))]

    def score(find: Callable[[Sample], Detections]) -> tuple[float, float]:
        pairs = [(sample, find(sample)) for sample in samples]
        cars, people = (
            100 * average_precision(pool(match_sample(*pair, class_id) for pair in pairs))
            for class_id in (CAR, PEDESTRIAN)
        )
        return cars, people

    found: Scores = {"clean": score(lambda sample: detect(sample.image_bgr)[0])}
    for kind in KINDS:
        found[kind] = score(lambda sample, kind=kind: detect(disturbed(data, sample.name, kind))[0])  # type: ignore[misc]
    for epsilon in EPSILONS:
        found[f"ε {epsilon}"] = score(
            lambda sample, epsilon=epsilon: read_attacked(  # type: ignore[misc]
                network, detect, sample.image_bgr, "disappear", epsilon, PGD
            )[0]
        )
    return found


@cache
def disturbed(data: KittiObject, name: str, kind: str) -> U8:
    """Return a disturbed frame, the same one for every checkpoint."""
    return CORRUPTIONS[kind](data[data.names.index(name)].image_bgr, SEVERITY, name)


def row(name: str, found: Scores) -> str:
    """One line of the table."""
    mean = np.mean([found[kind] for kind in KINDS], axis=0)
    cells = [found["clean"], tuple(mean), *(found[f"ε {epsilon}"] for epsilon in EPSILONS)]
    return f"{name:<40}" + "".join(f"{f'{cars:.1f}, {people:.1f}':>12}" for cars, people in cells)


if __name__ == "__main__":
    sys.exit(main())
