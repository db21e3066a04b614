"""`perception explain`: maps of what a network looks at, and checks that the maps mean something."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.progress import Progress

if TYPE_CHECKING:
    from perception.arrays import F32
    from perception.cli.explain_methods import Method
    from perception.detector import Detector
    from perception.reports.explain import Explained
    from perception.reports.report import Value
    from perception.trust.explain_targets import Case

EVERYDAY = ("images", "data", "split", "model", "count", "masks", "road-at", "out", "json")


def _advance(progress: Progress, before: int, done: int, total: int) -> None:
    progress.update(before + done)


@dataclass(frozen=True)
class ExplainOptions(CommandOptions):
    """Show what a network looks at: for each box of an image, or for the worst mistakes of a labelled set.

    Works on any model file, without torch (D-RISE). A checkpoint (.pt) is explained by its gradients in seconds
    (LayerCAM). The default takes under two minutes on two cores; --masks 2000 takes about ten minutes an image.
    """

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE …")] = ()
    """Images whose boxes are explained. Without any, --data chooses."""
    data: Path | None = None
    """KITTI's object root: explain its worst misses and false alarms, and objects that were found."""
    split: Path | None = None
    """With --data: a file with frame names, or a name in ImageSets, such as val."""
    model: Path | None = None
    """Model file or checkpoint, or the bare name of a shipped one. Default: the shipped file that fits best."""
    count: int = 1
    """Maps of each kind: misses, false alarms, found objects of each class; boxes of each image."""
    masks: int = 120
    """Masked images for each image explained."""
    cell_px: float = 32.0
    """Side of the mask's cells, pixels of the image; about a third of the object is right."""
    road_at: tuple[int, ...] = ()
    """With images: also explain the road at this point, x and y in pixels."""
    shuffle: bool = True
    """Compare each map with the one of shuffled weights; a map that stays is marked as meaningless."""
    seed: int = 0
    """Random seed of the masks and of the shuffled weights."""
    out: Path = Path("runs/explain")
    """Folder for the page. Maps of the same call that are there already are kept."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """What runs the network."""
    threads: int = 0
    """CPU threads for the network, 0 for one a core."""
    json: bool = False
    """Print everything as JSON."""


def main(argv: list[str]) -> int:
    """Explain, check, and write the page."""
    options = parse_options(ExplainOptions, argv, "perception explain", everyday=EVERYDAY, names={"cell_px": "cell"})
    _check(options)
    from perception.cli.explain_methods import open_method
    from perception.formats.images import read_image
    from perception.reports.explain import explain_report, explain_text
    from perception.reports.write import render_json, write_report

    first = options.images[0] if options.images else _first_image(options)
    method, model_path = open_method(options, read_image(first).shape[:2])
    detector = method.detector
    cases = _cases(options, detector)
    if not cases:
        print("nothing was found, missed or falsely reported: nothing to explain", file=sys.stderr)
        return 1
    done = _explain(options, method, model_path, cases)
    facts: dict[str, Value] = {"model": str(model_path), "method": method.name}
    if method.units > 1:
        facts["masks"] = method.units
    report = explain_report(done, detector.spec.class_names, facts)
    print(f"report: {write_report(report, options.out)}", file=sys.stderr)
    print(render_json(report) if options.json else explain_text(done, detector.spec.class_names))
    return 0


def _check(options: ExplainOptions) -> None:
    """Refuse what cannot be meant."""
    from perception.reports.write import require_page_packages

    require_page_packages()
    if bool(options.images) == (options.data is not None):
        raise UserError(
            "both images and --data" if options.images else "neither images nor --data",
            "images, or a labelled set",
            "perception explain IMAGE, or perception explain --data KITTI --split val",
        )
    for name, value, least, most in (
        ("count", options.count, 1, 1000),
        ("masks", options.masks, 20, 100_000),
        ("seed", options.seed, 0, 2**32 - 1),
        ("cell", options.cell_px, 8, 1000),
    ):
        if not least <= value <= most:
            raise UserError(f"--{name} {value:g}", f"from {least} to {most}", f"leave out --{name}")
    if options.road_at and (len(options.road_at) != 2 or not options.images):
        found = " ".join(map(str, options.road_at))
        raise UserError(f"--road-at {found}", "x and y in pixels, with an image", "--road-at 620 330")


def _first_image(options: ExplainOptions) -> Path:
    return _labelled(options)[0][1]


def _labelled(options: ExplainOptions) -> list[tuple[str, Path, Path]]:
    from perception.trust.stress_frames import choose_frames

    assert options.data is not None
    frames, _ = choose_frames(options.data, options.split, None, "", 0)
    if not frames.objects:
        raise UserError(f"{options.data}: no object labels", "KITTI's object root", "--data KITTI/object")
    return list(frames.objects)


def _cases(options: ExplainOptions, detector: Detector) -> list[Case]:
    """What is explained."""
    import numpy as np

    from perception.formats.images import read_image
    from perception.formats.kitti import read_objects
    from perception.trust.explain import Target
    from perception.trust.explain_targets import Case, cases_of_frame, worst

    spec = detector.spec
    cases: list[Case] = []
    if options.images:
        for path in options.images:
            found, _ = detector(read_image(path))
            found = found[found.scores >= spec.score_threshold][: options.count]
            for box, score, class_id in zip(found.boxes_xyxy, found.scores, found.class_ids, strict=True):
                target = Target("found", int(class_id), box.astype(np.float64), float(score))
                cases.append(Case(path.stem, path, target, float(score)))
            if options.road_at:
                x, y = options.road_at
                cases.append(Case(path.stem, path, Target("road", -1, np.array([x, y, x, y], np.float64), 0.0), 1.0))
        return cases
    frames = _labelled(options)
    with Progress("detecting", len(frames)) as progress:
        for i, (name, image, label) in enumerate(frames):
            found, _ = detector(read_image(image))
            rows = read_objects(label, classes=None)
            cases += cases_of_frame(name, image, rows, found, spec.result_names, spec.score_threshold)
            progress.update(i + 1)
    return worst(cases, options.count)


def _explain(options: ExplainOptions, method: Method, model_path: Path, cases: Sequence[Case]) -> list[Explained]:
    """Map and check every case, image by image."""
    from perception.formats.images import read_image
    from perception.model import shipped_or
    from perception.provenance import data_hash
    from perception.reports.explain import Explained, load_explained, save_explained
    from perception.trust.explain import check

    images = list(dict.fromkeys(case.image for case in cases))
    key = f"{data_hash(shipped_or(model_path))}|{options.masks}|{options.cell_px}|{options.seed}|{options.shuffle}"
    done: list[Explained] = []
    with Progress("masked images" if method.units > 1 else "images", len(images) * method.units) as progress:
        for i, path in enumerate(images):
            own = [case for case in cases if case.image == path]
            kept = load_explained(options.out / "maps", key, own)
            if kept is None:
                image = read_image(path)
                targets = [case.target for case in own]
                maps = method.maps(image, targets, partial(_advance, progress, i * method.units))
                others: Sequence[F32 | None] = method.shuffled_maps(image, targets) or [None] * len(own)
                kept = [
                    Explained(case, found, check(method.detector, image, case.target, found, shuffled_map))
                    for case, found, shuffled_map in zip(own, maps, others, strict=True)
                ]
                save_explained(options.out / "maps", key, kept)
            done += kept
    return done
