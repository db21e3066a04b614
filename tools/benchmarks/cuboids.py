"""How far a network's 3-D boxes are off on labelled frames, by distance, and whether it knows.

    python -m tools.benchmarks.cuboids MODEL --root KITTI_OBJECT --split val

Objects are those that the network finds in the image (KITTI's 2-D match, level hard). With a checkpoint (.pt) instead
of a model file, the network is given the labelled 2-D boxes. Besides the errors of a report it prints the share of
errors within two reported standard deviations, which result files do not carry.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from datasets.kitti_object import KittiObject
from datasets.sample import Sample
from perception.arrays import F32, F64
from perception.backends import load_model
from perception.cameras.cuboids import REVERSED, SIZE_STD, heading_variance
from perception.errors import UserError
from perception.evaluation.box_errors import BoxErrors, box_errors, heading_error_deg, summarise
from perception.evaluation.object import ObjectEvaluator, match_objects
from perception.evaluation.object3d import has_box
from perception.evaluation.predictions import object_rows
from perception.evaluation.results import ObjectEvaluation
from perception.formats.kitti import read_objects
from perception.formats.kitti_table import ObjectTable
from perception.types import Detections

BINS_M = ((0.0, 10.0), (10.0, 20.0), (20.0, 30.0), (30.0, 40.0), (40.0, 50.0), (50.0, np.inf), (0.0, np.inf))
LEVEL = "hard"
VISIBLE_TO_M = 40.0
SHOWN = ("depth", "lateral", "heading", "length", "width", "height")


@dataclass(frozen=True)
class Options:
    """Measure the 3-D boxes of a model."""

    model: Annotated[Path, tyro.conf.Positional]
    """Model file with the outputs `distances` and `cuboids`; or a checkpoint (.pt), for true 2-D boxes."""
    root: Path = Path("../shared/data/kitti/object")
    """KITTI's object folder."""
    split: str = "val"
    """Name of a file in ImageSets."""
    minimum_score: float = 0.1
    """Lowest score of a detection."""
    threads: int = 1
    """CPU threads of the network."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a network found in labelled frames, with the reported standard deviations of each result row."""

    evaluation: ObjectEvaluation
    stds: F64
    """(D, 3) relative of depth, relative of size, of the angle in radians, for each result row."""
    left_out: tuple[str, ...]
    """Frames without a calibration."""


def find(detect: Callable[[Sample], Detections], class_names: Sequence[str], source: KittiObject) -> Found:
    """Run a network over labelled frames.

    Args:
        detect: what it finds in a frame.
        class_names: of its result rows.
        source: the frames.

    Raises:
        UserError: the network has no 3-D boxes.
    """
    evaluator, stds, left_out = ObjectEvaluator(), [np.zeros((0, 3))], []
    for i, name in enumerate(source.names):
        sample = source[i]
        if sample.camera is None:
            left_out.append(name)
            continue
        detections = detect(sample)
        if detections.cuboids is None or detections.depths is None:
            raise UserError(
                "the model has no outputs 'distances' and 'cuboids'",
                "a network trained with --model.detection.distance --model.detection.cuboid",
            )
        labels = read_objects(source.folder / "label_2" / f"{name}.txt", scores=False)
        evaluator.process(name, labels, object_rows(detections, class_names, sample.camera))
        stds.append(_stds(detections.depths, detections.cuboids))
    return Found(evaluator.evaluate(), np.concatenate(stds), tuple(left_out))


def _stds(depths: F32, cuboids: F32) -> F64:
    """Return relative of depth, relative of size, of the heading in radians with the doubt about front and rear."""
    found = np.concatenate([depths[:, 1:], cuboids[:, SIZE_STD:]], axis=1).astype(np.float64)
    reversed_share = found[:, 3] if cuboids.shape[1] > REVERSED else np.zeros(len(found))
    heading_std = np.sqrt(heading_variance(np.square(found[:, 2]), reversed_share))
    return np.concatenate([found[:, :2], heading_std[:, None]], axis=1)


def within_two_sigma(found: Found, class_name: str, low_m: float, high_m: float) -> dict[str, float]:
    """Return the share of errors of depth, size and heading within two reported standard deviations, by name."""
    gt, results = found.evaluation.gt, found.evaluation.detections
    rows, matched = _pairs(gt, results, class_name)
    inside = (gt.location_cam2[rows, 2] >= low_m) & (gt.location_cam2[rows, 2] < high_m)
    rows, matched = rows[inside], matched[inside]
    if not len(rows):
        return dict.fromkeys(("depth", "size", "heading"), np.nan)
    depth_std, size_std, angle_std = found.stds[matched].T
    depth = np.abs(results.location_cam2[matched, 2] - gt.location_cam2[rows, 2])
    size = np.abs(np.log(results.dimensions_hwl[matched] / gt.dimensions_hwl[rows]))  # (N, 3)
    heading = np.radians(heading_error_deg(results.alpha[matched], gt.alpha[rows]))
    return {
        "depth": float((depth <= 2 * depth_std * results.location_cam2[matched, 2]).mean()),
        "size": float((size <= 2 * size_std[:, None]).mean()),
        "heading": float((heading <= 2 * angle_std).mean()),
    }


def visible_headings(found: Found, class_name: str = "Car") -> tuple[int, float]:
    """Return the number of unoccluded objects up to `VISIBLE_TO_M`, and the share with a heading within 15°."""
    gt, results = found.evaluation.gt, found.evaluation.detections
    rows, matched = _pairs(gt, results, class_name)
    plain = (gt.occlusion[rows] == 0) & (gt.truncation[rows] <= 0.15) & (gt.location_cam2[rows, 2] <= VISIBLE_TO_M)
    error = heading_error_deg(results.rotation_y[matched[plain]], gt.rotation_y[rows[plain]])
    return len(error), float((error <= 15).mean()) if len(error) else np.nan


def _pairs(gt: ObjectTable, results: ObjectTable, class_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of labels and of their results that match in 2D and carry whole 3-D boxes."""
    matches = match_objects(gt, results, class_name, LEVEL)
    rows, matched = matches.gt_rows[matches.is_tp], matches.gt_det_rows[matches.is_tp]
    whole = has_box(gt, "3D")[rows] & has_box(results, "3D")[matched]
    return rows[whole], matched[whole]


def table(found: Found) -> list[dict[str, object]]:
    """Return one row for each class and stretch of distance."""
    rows: list[dict[str, object]] = []
    for class_name in ("Car", "Pedestrian"):
        errors = box_errors(found.evaluation.gt, found.evaluation.detections, class_name, LEVEL)
        for low, high in BINS_M:
            inside: BoxErrors = errors[(errors.distance_m >= low) & (errors.distance_m < high)]
            if len(inside):
                sigma = {f"{name}_2s": v for name, v in within_two_sigma(found, class_name, low, high).items()}
                rows.append(
                    {"class": class_name, "from_m": low, "to_m": high, "n": len(inside), **summarise(inside), **sigma}
                )
    return rows


def scores(found: Found) -> dict[str, dict[str, float]]:
    """Return the AP of cars at the looser overlaps, and how many labels count."""
    return {
        f"{metric} {level}": {"ap_r40": score.ap_r40, "ap_r11": score.ap_r11, "objects": score.n_gt}
        for (metric, class_name, level), score in found.evaluation.scores_3d.items()
        if class_name == "Car"
    }


def _print(rows: Sequence[Mapping[str, object]]) -> None:
    print("class       metres    n  " + "  ".join(f"{name:>14}" for name in SHOWN) + "   2σ depth size heading")
    for row in rows:
        numbers = "  ".join(f"{row[f'{name}_median']:6.2f} /{row[f'{name}_p90']:6.2f}" for name in SHOWN)
        sigma = "  ".join(f"{100 * float(str(row[f'{name}_2s'])):4.0f}" for name in ("depth", "size", "heading"))
        print(f"{row['class']:<10} {row['from_m']:>3.0f}–{row['to_m']:<4.0f} {row['n']:>4}  {numbers}   {sigma}")


def _network(options: Options) -> tuple[Callable[[Sample], Detections], tuple[str, ...]]:
    """Return what finds objects, and the class names of result rows."""
    if options.model.suffix == ".pt":
        import torch

        from tools.benchmarks.true_boxes import TrueBoxes

        torch.set_num_threads(options.threads)
        given = TrueBoxes.load(options.model)
        return given, given.network.config.class_names
    from perception.detector import Detector

    detector = Detector(load_model(options.model, "cpu", options.threads), options.minimum_score)
    return lambda sample: detector(sample.image_bgr)[0], detector.spec.result_names


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.benchmarks.cuboids", description=__doc__)
    logging.basicConfig(level=logging.WARNING)
    try:
        found = find(*_network(options), KittiObject(options.root, options.split))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    count, share = visible_headings(found)
    if options.json:
        everything = {"errors": table(found), "scores": scores(found), "heading_within_15": [count, share]}
        print(json.dumps({**everything, "left_out": found.left_out}, indent=1))
        return 0
    print(f"median / 90 % of the absolute errors, metres and degrees; left out: {len(found.left_out)} frames")
    _print(table(found))
    for name, values in scores(found).items():
        print(
            f"Car {name}: AP R40 {values['ap_r40']:.1f}, R11 {values['ap_r11']:.1f}, {values['objects']:.0f} labels"
        )
    print(f"heading within 15° of unoccluded cars up to {VISIBLE_TO_M:.0f} m: {100 * share:.0f} % of {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
