"""`perception export doubt`: measure a model's doubt on labelled frames and write it into the model file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from datasets.splits import read_drives
from perception.cli.options import CommandOptions, parse_options
from perception.doubt import Doubt
from perception.errors import UserError
from perception.progress import Progress
from perception.trust.doubt import Check


@dataclass(frozen=True)
class DoubtOptions(CommandOptions):
    """Turn scores into probabilities and boxes into boxes that hold the true one, measured on held-out frames.

    Prints the calibration error before and after, and the coverage on frames that were not used. 27 frames take ten
    seconds on two cores; some hundred of the camera that will be used give margins that can be relied on.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """Model file, or the bare name of a shipped one."""
    data: Path | None = None
    """KITTI's object root, or a folder of labels beside its images."""
    split: Path | None = None
    """Frames: a file with names, or a name in ImageSets, such as val. Take frames that were not trained on."""
    coverage: float = 0.9
    """Share of true boxes that the widened boxes shall hold."""
    out: Path | None = None
    """Model file to write, with the calibration inside. Default: print only."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """What runs the network."""
    threads: int = 0
    """CPU threads for the network, 0 for one a core."""
    json: bool = False
    """Print everything as JSON."""


def main(argv: list[str]) -> int:
    """Measure, print, and write the file if asked for."""
    options = parse_options(DoubtOptions, argv, "perception export doubt")
    if options.data is None:
        raise UserError("no --data", "labelled frames that were not trained on", "--data KITTI --split val")
    if not 0.5 <= options.coverage <= 0.99:
        raise UserError(f"--coverage {options.coverage:g}", "from 0.5 to 0.99", "--coverage 0.9")
    if options.out is not None and options.out.suffix != ".onnx":
        raise UserError(
            f"--out {options.out}", "a name that ends in .onnx", f"--out {options.out.with_suffix('.onnx')}"
        )
    doubt, check, names = measure(options, options.data)
    if options.json:
        print(json.dumps({"doubt": asdict(doubt), "check": asdict(check)}, indent=1))
    else:
        print(as_text(doubt, check, names))
    if options.out is not None:
        from export.graph import load_onnx, read_spec, write_spec
        from export.onnx import write_model

        model = load_onnx(options.model)
        write_spec(model, replace(read_spec(model, options.model), doubt=doubt))
        write_model(model, options.out)
        print(f"done: {options.out}\nnext: perception run VIDEO --model {options.out} --set video.margins=True")
    return 0


def measure(options: DoubtOptions, data: Path) -> tuple[Doubt, Check, tuple[str, ...]]:
    """Run the model over the frames; returns its doubt, the check on unused drives, and the classes.

    Raises:
        UserError: nothing to measure on.
    """
    from perception.backends import load_model
    from perception.detector import Detector
    from perception.evaluation.folders import find_images, find_labels, find_split, read_names, stems
    from perception.evaluation.predictions import find_all_images
    from perception.formats.images import read_image
    from perception.formats.kitti import read_objects
    from perception.trust.doubt import LEAST_SCORE, fit, judge, pool

    labels = find_labels(data, "object")
    names = stems(labels, ".txt") if options.split is None else read_names(find_split(options.split, data, labels))
    images = find_images(data, "object")
    if images is None:
        raise UserError(f"{data}: no images", "training/image_2 beside the labels", "--data ROOT")
    detector = Detector(load_model(options.model, options.device, options.threads), LEAST_SCORE)
    drives = read_drives(data)
    groups = {drive: i for i, drive in enumerate(sorted({drives.get(name, name) for name in names}))}
    parts = []
    with Progress("detecting") as progress:
        for i, (name, path) in enumerate(find_all_images(images, names)):
            detections, _ = detector(read_image(path))
            rows = read_objects(labels / f"{name}.txt", classes=None)
            parts.append(judge(detections, rows, detector.spec.class_names, groups[drives.get(name, name)]))
            progress.update(i + 1, len(names))
    seen = pool(parts)
    if len(groups) < 2 or not seen.is_true.any() or seen.is_true.all():
        raise UserError(
            f"{data}: {len(names)} frames, {int(seen.is_true.sum())} true and {int((~seen.is_true).sum())} false "
            "detections",
            "frames of two drives or more, with true and false detections",
            "--data with more frames",
        )
    return *fit(seen, detector.spec.class_names, options.coverage, len(names)), detector.spec.class_names


def as_text(doubt: Doubt, check: Check, names: tuple[str, ...]) -> str:
    """The tables for a terminal."""
    lines = [f"{doubt.frames} frames, checked on drives that were not used", ""]
    lines.append(f"{'':<12}{'slope':>8}{'offset':>8}{'ECE before':>12}{'after':>8}{'inside':>10}{'of':>6}{'%':>7}")
    for i, name in [*enumerate(names), (-1, "all")]:
        pair = [f"{value:>8.2f}" for value in doubt.scaling[i]] if i >= 0 else [" " * 8] * 2
        inside, total = check.covered[name]
        share = f"{100 * inside / total:>7.0f}" if total else f"{'–':>7}"
        errors = f"{_number(check.ece_before, name):>12}{_number(check.ece_after, name):>8}"
        lines.append(f"{name:<12}{''.join(pair)}{errors}{inside:>10}{total:>6}{share}")
    lines += ["", f"margin of each side for {doubt.coverage:.0%}, per cent of the box, by height in pixels"]
    lines.append(" " * 12 + "".join(f"{f'from {edge:g}':>10}" for edge in doubt.heights_px))
    for name, row in zip(names, doubt.margins, strict=True):
        cells = ("too few" if margin is None else f"{100 * margin:.1f}" for margin in row)
        lines.append(f"{name:<12}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def _number(values: Mapping[str, float], name: str) -> str:
    value = values[name]
    return "–" if math.isnan(value) else f"{value:.3f}"
