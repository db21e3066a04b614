"""`perception export familiar`: describe usual frames inside a model file, so that strange ones are noticed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from perception.arrays import F64
from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.progress import Progress

if TYPE_CHECKING:
    from perception.detector import Detector

FEWEST = 50
"""Frames that a fit needs."""


@dataclass(frozen=True)
class FamiliarOptions(CommandOptions):
    """Measure what usual frames look like to a model, and write it into the model file.

    `perception run` then reports frames that are unlike them as the health event 'unfamiliar'. The default reads at
    most 400 frames of each folder or video, half a minute on two cores; --frames 0 reads all.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """Model file, or the bare name of a shipped one."""
    usual: tuple[Path, ...] = ()
    """Folders of images, or videos, of the training set."""
    held_out: tuple[Path, ...] = ()
    """The same of other familiar frames: how often would they be reported?"""
    other: tuple[Path, ...] = ()
    """The same of unfamiliar frames, such as fog or night: how well are they told apart?"""
    frames: int = 400
    """Most frames of each folder or video, evenly spread; 0 takes all."""
    out: Path | None = None
    """Model file to write. Default: print only."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """What runs the network."""
    threads: int = 0
    """CPU threads for the network, 0 for one a core."""
    json: bool = False
    """Print everything as JSON."""


def main(argv: list[str]) -> int:
    """Fit, print how familiar each place is, and write the file if asked for."""
    options = parse_options(FamiliarOptions, argv, "perception export familiar")
    if not options.usual:
        raise UserError("no --usual", "folders of training images, or videos", "--usual KITTI/training/image_2")
    if options.frames < 0:
        raise UserError(f"--frames {options.frames}", "0 for all, or a number of frames", "--frames 400")
    if options.out is not None and options.out.suffix != ".onnx":
        named = options.out.with_suffix(".onnx")
        raise UserError(f"--out {options.out}", "a name that ends in .onnx", f"--out {named}")
    from perception.backends import load_model
    from perception.detector import Detector
    from perception.trust.familiarity import auroc, fit_familiarity

    model = load_model(options.model, options.device, options.threads)
    detector = Detector(model, 0.1)
    usual = np.concatenate([describe(detector, place, options.frames) for place in options.usual])
    if len(usual) < FEWEST:
        raise UserError(f"{len(usual)} usual frames", f"at least {FEWEST}", "--usual with more folders")
    familiar = fit_familiarity(usual)

    def distances(features: F64) -> F64:
        return np.array([familiar.distance(row) for row in features])

    rows: list[dict[str, Any]] = []
    reference = [distances(describe(detector, place, options.frames)) for place in options.held_out]
    known = np.concatenate(reference) if reference else distances(usual)
    places = [("held out", place, found) for place, found in zip(options.held_out, reference, strict=True)]
    places += [("other", place, distances(describe(detector, place, options.frames))) for place in options.other]
    for kind, place, found in places:
        rows.append(
            {
                "kind": kind,
                "place": str(place),
                "frames": len(found),
                "median_distance": round(float(np.median(found)), 2),
                "reported": round(float((found > familiar.threshold).mean()), 3),
                "auroc": round(auroc(known, found), 3) if kind == "other" else None,
            }
        )
    if options.json:
        print(json.dumps({"frames": familiar.frames, "threshold": familiar.threshold, "places": rows}, indent=1))
    else:
        print(f"{familiar.frames} usual frames; unfamiliar from {familiar.threshold:.2f} times the usual distance")
        for row in rows:
            score = "" if row["auroc"] is None else f"  AUROC {row['auroc']:.3f}"
            print(
                f"{row['kind']:<9} {row['frames']:>5} frames  distance {row['median_distance']:>6.2f}  "
                f"reported {100 * row['reported']:>5.1f} %{score}  {row['place']}"
            )
    if options.out is not None:
        _write(options.model, options.out, familiar)
    return 0


def _write(source: Path, out: Path, familiar: Any) -> None:
    from export.graph import load_onnx, read_spec, write_spec
    from export.onnx import write_model

    model = load_onnx(source)
    write_spec(model, replace(read_spec(model, source), familiar=familiar))
    write_model(model, out)
    print(f"done: {out}\nnext: perception run VIDEO --model {out}")


def describe(detector: Detector, place: Path, most: int) -> F64:
    """Describe the frames of a folder or video, (N, D).

    Raises:
        UserError: no frames there.
    """
    from perception.familiarity import FEATURES, frame_features
    from perception.source_options import SourceOptions
    from perception.sources import open_source

    if not place.exists():
        raise UserError(f"{place}: no such file or folder", "a folder of images, or a video", "check the path")
    source = open_source(place, SourceOptions())
    step = max(1, (source.frame_count or 0) // most) if most else 1
    rows = []
    with Progress(f"{place.name}") as progress:
        for i, frame in enumerate(source):
            if i % step == 0:
                detections, road = detector(frame.image_bgr)
                rows.append(frame_features(frame.image_bgr, detections, road, detector.spec.score_threshold))
            progress.update(i + 1, source.frame_count or 0)
            if most and len(rows) >= most:
                break
    source.close()
    return np.array(rows, np.float64).reshape(-1, len(FEATURES))
