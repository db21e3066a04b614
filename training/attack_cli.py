"""`perception attack`: how little change of the pixels breaks a network that the attacker knows."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from perception.arrays import U8
from perception.cli.options import CommandOptions, parse_options
from perception.detector import Detector, read_outputs
from perception.errors import UserError
from perception.evaluation.object import ObjectEvaluator
from perception.evaluation.predictions import detection_rows
from perception.evaluation.results import OBJECT_CLASSES_SCORED
from perception.evaluation.road import RoadEvaluator, read_ground_truth
from perception.files import make_folder, read_json, write_atomically
from perception.formats.images import read_image
from perception.formats.kitti import read_objects
from perception.lock import alone_in
from perception.progress import Progress
from perception.provenance import data_hash
from perception.trust.stress_frames import choose_frames
from perception.types import Detections, RoadMask
from training.attacks import GOALS, AttackConfig, Goal, Method, attack
from training.models.network import Network


@dataclass(frozen=True)
class AttackOptions(CommandOptions):
    """Attack a checkpoint with FGSM or PGD and score it by strength: objects gone, objects invented, road broken.

    The default takes under two minutes on two cores. --frames 0 --epsilons 1 2 4 8 16 --steps 40 is thorough: about
    an hour.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional] = Path("nano.pt")
    """best.pt of a run directory, or the name of a shipped checkpoint."""
    data: Path | None = None
    """KITTI's root, or a folder that holds object and road."""
    split: Path | None = None
    """Object frames: a file with names, or a name in ImageSets, such as val."""
    road_split: Path | None = None
    """File with road ground truths, one on a line."""
    frames: int = 4
    """Object frames, and half as many road frames; 0 takes all."""
    epsilons: tuple[int, ...] = (1, 2, 4)
    """Largest change of a value, grey levels of 255."""
    goals: tuple[Goal, ...] = GOALS
    """disappear: hide objects; invent: report objects that are not there; road: break the road."""
    methods: tuple[Method, ...] = ("noise", "fgsm", "pgd")
    """noise is the same amount of random change, for comparison."""
    steps: int = 10
    """Steps of PGD."""
    patch_m: float = 0.0
    """Width of a printable patch, metres: found on frames outside --split, evaluated inside. 0: the attacks above."""
    patch_class: str = "Car"
    """Class whose objects carry the patch."""
    patch_steps: int = 120
    """Steps of its search, two frames each; 1000 is thorough."""
    patch_frames: int = 12
    """Frames to search on, and to evaluate on; 0 takes all."""
    size_hw: tuple[int, int] = (384, 1248)
    """Input height and width."""
    seed: int = 0
    """Random seed of the noise and of PGD's start."""
    out: Path = Path("runs/attack")
    """Folder of finished cells. A folder with cells of the same call is continued."""
    page: bool = True
    """Write a page with curves and images (extra 'report')."""
    json: bool = False
    """Print everything as JSON."""


@dataclass(frozen=True)
class AttackCell:
    """The scores under one attack, per cent; NaN where nothing was scored."""

    goal: Goal
    method: Method
    epsilon: int
    car_ap: float
    pedestrian_ap: float
    objects: float
    """Reported above the score threshold, in each frame."""
    max_f: float

    @property
    def name(self) -> str:
        return f"{self.goal}-{self.method}-{self.epsilon}"


def main(argv: list[str]) -> int:
    """Run all cells and print the curves."""
    options = parse_options(AttackOptions, argv, "perception attack", names={"patch_m": "patch"})
    _check(options)
    if options.page and not options.patch_m:
        from perception.reports.write import require_page_packages

        require_page_packages()
    from training.backend import torch_model
    from training.checkpoint import load_network

    assert options.data is not None
    if options.patch_m:
        from training.patch_cli import run_patch

        return run_patch(options, load_network(options.checkpoint)[0].requires_grad_(False))
    frames, notes = choose_frames(options.data, options.split, options.road_split, "", options.frames)
    network, _ = load_network(options.checkpoint)
    network.requires_grad_(False)
    detector = Detector(torch_model(network, options.size_hw), 0.01)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    identity = json.dumps(
        {
            "checkpoint": data_hash(options.checkpoint) if options.checkpoint.exists() else str(options.checkpoint),
            "frames": [name for name, _, _ in (*frames.objects, *frames.roads)],
            **{name: getattr(options, name) for name in ("steps", "size_hw", "seed")},
        }
    )
    wanted: list[tuple[Goal, Method, int]] = [("disappear", "noise", 0)]
    for epsilon in options.epsilons:
        # noise has no goal, so it is run once
        wanted += [(g, m, epsilon) for m in options.methods for g in (options.goals if m != "noise" else GOALS[:1])]
    made = make_folder(options.out)
    cells: list[AttackCell] = []
    with alone_in(options.out, "writing", made), Progress("attacks", total=len(wanted)) as progress:
        for i, (goal, method, epsilon) in enumerate(wanted):
            path = options.out / f"{goal}-{method}-{epsilon}.json"
            cell = _stored(path, identity)
            if cell is None:
                config = AttackConfig(method, options.steps, options.seed)
                cell = run_cell(network, detector, frames.objects, frames.roads, goal, epsilon, config)
                values = {k: None if v != v else v for k, v in asdict(cell).items()}
                write_atomically(path, json.dumps({"identity": identity, "cell": values}, indent=1) + "\n")
            cells.append(cell)
            progress.update(i + 1, note=f", {cell.name}")
        if options.page:
            from perception.reports.write import write_report
            from training.attack_report import attack_report

            config = AttackConfig("pgd", options.steps, options.seed)
            report = attack_report(cells, network, detector, frames, config, tuple(notes))
            print(f"report: {write_report(report, options.out / 'report')}", file=sys.stderr)
    rows = [{k: None if v != v else v for k, v in asdict(cell).items()} for cell in cells]
    print(json.dumps({"cells": rows}, indent=1) if options.json else as_text(cells))
    return 0


def _check(options: AttackOptions) -> None:
    """Refuse what cannot be meant."""
    if options.data is None:
        raise UserError("no --data", "KITTI's root, with the images", "perception attack nano.pt --data KITTI")
    if not options.epsilons or not all(1 <= epsilon <= 255 for epsilon in options.epsilons):
        given = " ".join(map(str, options.epsilons))
        raise UserError(f"--epsilons {given}", "grey levels from 1 to 255", "--epsilons 1 2 4")
    if not (options.patch_m == 0 or 0.05 <= options.patch_m <= 5):
        raise UserError(f"--patch {options.patch_m:g}", "metres from 0.05 to 5, 0 for none", "--patch 0.5")
    for name, value, least, most in (
        ("steps", options.steps, 1, 10_000),
        ("patch-steps", options.patch_steps, 1, 100_000),
        ("patch-frames", options.patch_frames, 0, 100_000),
        ("seed", options.seed, 0, 2**31),
    ):
        if not least <= value <= most:
            raise UserError(f"--{name} {value}", f"from {least} to {most:,}", f"leave out --{name}")
    if not options.goals or not options.methods or options.frames < 0:
        raise UserError("no goals, no methods, or a negative number of frames", "some of each", "leave them out")


def _stored(path: Path, identity: str) -> AttackCell | None:
    """A finished cell of the same call; None where it has to be computed."""
    if not path.is_file():
        return None
    values = read_json(path, "a cell of perception attack", f"rm {path}")
    if not isinstance(values, dict) or values.get("identity") != identity:
        raise UserError(f"{path.parent}: holds cells of another call", "the same call", "--out ANOTHER")
    stored: dict[str, Any] = {k: math.nan if v is None else v for k, v in values["cell"].items()}
    return AttackCell(**stored)


def run_cell(
    network: Network,
    detector: Detector,
    objects: Sequence[tuple[str, Path, Path]],
    roads: Sequence[tuple[str, Path, Path]],
    goal: Goal,
    epsilon: int,
    config: AttackConfig,
) -> AttackCell:
    """Attack every frame and score what the network then finds."""
    evaluator, road_evaluator = ObjectEvaluator(), RoadEvaluator("perspective")
    reported = 0
    for name, image, label in objects:
        detections, _ = read_attacked(network, detector, read_image(image), goal, epsilon, config)
        reported += int((detections.scores >= detector.spec.score_threshold).sum())
        evaluator.process(name, read_objects(label), detection_rows(detections, detector.spec.class_names))
    for name, image, truth in roads:
        _, road = read_attacked(network, detector, read_image(image), goal, epsilon, config)
        if road is not None:
            road_evaluator.process(name, *read_ground_truth(truth), road.at_frame_size())
    ap = {}
    if objects:
        evaluation = evaluator.evaluate()
        labelled = [name for name in OBJECT_CLASSES_SCORED if evaluation.gt.is_class(name).any()]
        scores = evaluation.scores
        ap = {n: scores[n, "moderate"].ap_r40 if (n, "moderate") in scores else 0.0 for n in labelled}
    road_scores = road_evaluator.evaluate().scores if roads else {}
    best = road_scores.get("URBAN") or next(iter(road_scores.values()), None)
    return AttackCell(
        goal,
        config.method,
        epsilon,
        ap.get("Car", math.nan),
        ap.get("Pedestrian", math.nan),
        reported / len(objects) if objects else math.nan,
        math.nan if best is None else 100 * best.max_f,
    )


def read_attacked(
    network: Network, detector: Detector, image_bgr: U8, goal: Goal, epsilon: int, config: AttackConfig
) -> tuple[Detections, RoadMask | None]:
    """What the network finds in one attacked image, in pixels of the frame."""
    images = np.zeros((1, *detector.spec.size_hw, 3), np.uint8)
    placed = detector.letterbox(image_bgr, images[0])
    changed = attack(network, images, goal, epsilon, config)
    return read_outputs(detector.backend.run({"images": changed}), 0, placed, detector.minimum_score)


def as_text(cells: Sequence[AttackCell]) -> str:
    """The curves for a terminal."""
    lines = [f"{'':<24}{'ε':>4}{'Car AP':>9}{'Ped. AP':>9}{'reported':>10}{'road MaxF':>11}"]
    for cell in cells:
        name = f"{cell.goal}, {cell.method}" if cell.method != "noise" else "noise" if cell.epsilon else "clean"
        values = (cell.car_ap, cell.pedestrian_ap, cell.objects, cell.max_f)
        shown = ["–" if math.isnan(v) else f"{v:.1f}" for v in values]
        lines.append(f"{name:<24}{cell.epsilon:>4}{shown[0]:>9}{shown[1]:>9}{shown[2]:>10}{shown[3]:>11}")
    return "\n".join(lines)
