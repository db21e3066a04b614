"""`perception label` and `perception select`: labels by machine, and which frames a person should label next.

The commands stand here because networks of other projects open as teachers do. They need no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from perception.cli.options import FLAT, CommandOptions, parse_options
from perception.labelling.verdict import VerdictConfig

LABEL_EVERYDAY = (
    "sources", "out", "to", "models", "teacher-classes", "rate-hz", "keep-s", "sure", "doubtful", "flip", "scales",
    "truth", "images", "json",
)  # fmt: skip


@dataclass(frozen=True)
class PoolOptions(CommandOptions):
    """What looks at which frames."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FRAMES_OR_VIDEO")] = ()
    """Folders of images, in which every folder is a recording; videos; bags."""
    out: Path = Path("labelled")
    """Folder for what is found and made. The same command goes on where it was interrupted."""
    models: tuple[Path, ...] = (Path("nano"),)
    """Networks: shipped names, files of perception export, or .onnx and OpenVINO .xml files of other projects
    (docs/guides/own-data.md)."""
    teacher_classes: tuple[str, ...] = ()
    """Classes of other projects' networks, and what they are called here: bus=Bus truck=Truck person=Pedestrian.
    Only these are used; default: those that are cars, pedestrians and cyclists."""
    rate_hz: float | None = None
    """Frames a second of folders of images. With it their images are a recording, and are tracked; without, single
    shots."""
    every: int = 1
    """Look at every n-th frame of videos only."""
    keep_s: float = 1.0
    """Interval of the frames that are kept of recordings, seconds; the others help to track. 0 keeps all."""
    flip: bool = False
    """Show each network the mirrored image, too."""
    scales: tuple[float, ...] = ()
    """Show each network the image at these scales, too; above 1 in overlapping tiles."""
    teacher_hw: tuple[int, int] | None = None
    """Height and width of the input of networks of other projects, pixels; default: near the first image's."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """What runs the networks of this project."""
    threads: int = 0
    """CPU threads, 0 for one a core."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class LabelOptions(PoolOptions):
    """Label frames by machine: several networks, mirrored images and tiles are fused, and tracked through recordings.

    Sure boxes become labels, doubtful ones regions to ignore. OUT/FORMAT holds the set.
    """

    scales: tuple[float, ...] = (1.5,)
    """Show each network the image at these scales, too; above 1 in overlapping tiles. `--scales` alone: none."""
    to: str = "coco"
    """Format to write: one that perception data convert writes."""
    verdict: Annotated[VerdictConfig, FLAT] = field(default_factory=VerdictConfig)
    images: Literal["copy", "link"] = "copy"
    """Copy the images into the set, or make hard links, which take no space on the same disk."""
    truth: Path | None = None
    """Labels of the same frames by people, in any format: prints how good the labels are."""


def label(argv: list[str]) -> int:
    """Label frames, write the set, and return 0."""
    from datasets.formats import format_named
    from datasets.formats.annotations import Problems
    from datasets.labelling.writing import Reference, as_set, label_all, measure, write_set
    from perception.errors import UserError
    from perception.files import write_atomically
    from perception.provenance import record

    options = parse_options(LabelOptions, argv, "perception label", everyday=LABEL_EVERYDAY)
    form = format_named(options.to)
    if form.write is None:
        raise UserError(f"--to {options.to}: this format is only read", "one that can be written", "--to coco")
    if (options.out / options.to).exists():
        raise UserError(f"{options.out / options.to}: labels are there already", "another --out", "or remove them")
    look, committee = _look(options)
    problems = Problems()
    reference = Reference(options.truth, committee.classes, problems) if options.truth is not None else None
    labels = label_all(look.seen, committee, options.verdict)
    kept = [i for i, one in enumerate(look.seen) if one.frame.is_kept]
    seen, labels = [look.seen[i] for i in kept], [labels[i] for i in kept]
    found = as_set(seen, labels, committee.class_names, options.out)
    missing = write_set(found, options.out / options.to, options.to, options.images)
    result = {
        "out": str(options.out / options.to),
        "frames": len(look.seen),
        "labelled": len(seen),
        "looked_at_before": look.before,
        "unreadable": look.unreadable,
        "labels": dict(Counter(box.label for image in found.images for box in image.boxes if not box.ignore)),
        "ignore_regions": sum(box.ignore for image in found.images for box in image.boxes),
        "not_carried": dict(missing),
    }
    if reference is not None:
        result["truth_problems"] = dict(problems.counts)
        result["truth_frames"], result["quality"] = _quality(*measure(seen, labels, reference), committee.class_names)
    made = record("perception label", options, models=_hashes(options.models), result=result)
    write_atomically(options.out / "label.json", json.dumps(made, indent=1, default=str))
    print(json.dumps(result, indent=1) if options.json else "\n".join(_label_lines(result, options)))
    return 0


def _quality(total: Sequence[Any], frames: int, names: Sequence[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the frames that were compared, and the numbers of each class and of all together."""
    whole = total[0]
    for one in total[1:]:
        whole = whole + one
    named = {name: one for name, one in zip(names, total, strict=True) if one.objects or one.wrong}
    return frames, {
        name: {**asdict(one), **{key: _rounded(getattr(one, key)) for key in ("precision", "recall", "saved")}}
        for name, one in {**named, "all": whole}.items()
    }


def _rounded(value: float) -> float | None:
    return None if value != value else round(value, 4)


def _label_lines(result: dict[str, Any], options: LabelOptions) -> list[str]:
    counts = ", ".join(f"{name} {count}" for name, count in result["labels"].items()) or "none"
    lines = [
        f"{result['out']}: {result['labelled']} of {result['frames']} frames, labels: {counts}; "
        f"{result['ignore_regions']} doubtful boxes are regions to ignore"
    ]
    if result["unreadable"]:
        lines.append(f"  unreadable images, left out: {len(result['unreadable'])}: {result['unreadable'][0]} …")
    lines += [f"  {options.to} cannot hold {name}: {count}" for name, count in result["not_carried"].items()]
    if "ignore regions" in result["not_carried"]:
        lines.append("    these places will be taught as background: use another format, or look at them first")
    if "quality" in result:
        lines.append(f"  against {options.truth}, {result['truth_frames']} frames:")
        lines += [f"    {kind}: {count}" for kind, count in result["truth_problems"].items()]
        head = ("objects", "precision", "recall", "add", "move", "rename", "delete", "saved")
        lines.append("    " + f"{'':<12}" + "".join(f"{name:>10}" for name in head))
        if not result["truth_frames"]:
            lines.append("    no frame has labels by people of the same name and image size")
        for name, one in result["quality"].items():
            lines.append("    " + f"{name:<12}" + "".join(f"{_cell(one[key]):>10}" for key in head))
    is_trained_from = options.to in ("coco", "kitti", "yolo")
    then = f"perception data check {result['out']}" if is_trained_from else f"correct the labels in {result['out']}"
    lines.append(f"next: {then}")
    return lines


def _cell(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- networks


def _look(options: PoolOptions) -> tuple[Any, Any]:
    """Look at every frame; returns what was seen, and the committee."""
    from datasets.labelling.looking import look_through
    from datasets.labelling.pool import Pool
    from perception.errors import UserError
    from perception.files import make_folder
    from perception.labelling.committee import Committee
    from perception.lock import alone_in
    from perception.trust.ensemble import make_views

    if not options.models:
        raise UserError("no model", "one network or more", "--models nano")
    pool = Pool(options.sources, options.out / "frames", options.rate_hz, options.every, options.keep_s)
    views = make_views(options.flip, options.scales)
    size_hw = pool.size_hw()
    names = _names(options.teacher_classes)
    committee = Committee([_member(path, options, size_hw, views, names) for path in options.models])
    settings = {
        "models": _hashes([member.path for member in committee.members]),
        "flip": options.flip,
        "scales": options.scales,
        "teacher_hw": options.teacher_hw,
        "teacher_classes": options.teacher_classes,
    }
    made = make_folder(options.out)
    with alone_in(options.out, "labelling", made):
        return look_through(pool, committee, settings, options.out), committee


def _names(pairs: Sequence[str]) -> dict[str, str]:
    """Return the classes of other projects' networks with their names here."""
    from perception.classes import is_class_name
    from perception.errors import UserError
    from training.teachers import NAMES

    found = {}
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not (theirs and equals and is_class_name(ours)):
            raise UserError(
                f"--teacher-classes {pair}",
                "THEIRS=OURS, ours without spaces",
                "--teacher-classes bus=Bus",
            )
        found[theirs.lower()] = ours
    return found or dict(NAMES)


def _member(
    path: Path, options: PoolOptions, size_hw: tuple[int, int], views: Sequence[Any], names: Mapping[str, str]
) -> Any:
    """Open a network of this project, or of another as a teacher."""
    from perception.backends import load_model
    from perception.backends.onnxruntime import OnnxRuntimeBackend
    from perception.detector import Detector
    from perception.labelling.committee import LOWEST_SCORE, Member
    from perception.model import METADATA_KEY, shipped_or
    from perception.trust.ensemble import Ensemble
    from training.teachers import load_teacher

    path = shipped_or(path, size_hw)
    is_foreign = path.suffix == ".xml" or (
        path.suffix == ".onnx" and METADATA_KEY not in OnnxRuntimeBackend(path, "cpu", 1).metadata
    )
    if is_foreign:
        detector = load_teacher(path, options.teacher_hw or _near(size_hw), options.threads, names).finder
        detector.minimum_score = LOWEST_SCORE
    else:
        detector = Detector(load_model(path, options.device, options.threads), LOWEST_SCORE)
    return Member(path, Ensemble([detector], views), detector.spec.class_names)


def _near(size_hw: tuple[int, int], step: int = 32, longest: int = 1280) -> tuple[int, int]:
    """Return a network's input near a size: multiples of `step`, not longer than `longest`."""
    scale = min(1.0, longest / max(size_hw))
    height, width = (max(step, round(side * scale / step) * step) for side in size_hw)
    return height, width


def _hashes(paths: Sequence[Path]) -> dict[str, str]:
    """Return a hash of each model file, by name."""
    found = {}
    for path in paths:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""
        weights, description = path.with_suffix(".bin"), path.with_suffix(".toml")
        for beside, is_used in ((weights, path.suffix == ".xml"), (description, path.suffix in (".onnx", ".xml"))):
            if is_used and beside.is_file():
                digest += hashlib.sha256(beside.read_bytes()).hexdigest()[:16]
        found[path.name] = digest
    return found


# ---------------------------------------------------------------- select


SELECT_EVERYDAY = ("sources", "count", "out", "models", "teacher-classes", "rate-hz", "keep-s", "to", "truth", "json")


@dataclass(frozen=True)
class SelectOptions(PoolOptions):
    """Choose the frames that a person should label next.

    What speaks for a frame: doubtful boxes, networks that disagree, tracker and detector that disagree, an unusual
    scene, rare classes. Chosen frames are far from each other, come from all recordings, and are no near-copies.
    """

    out: Path = Path("selected")
    """Folder for the list, the page and what is found. The same command goes on where it was interrupted."""
    count: int = 100
    """Frames to choose."""
    to: str = ""
    """Also write the chosen frames, with labels by machine to correct, in this format to OUT/FORMAT."""
    verdict: Annotated[VerdictConfig, FLAT] = field(default_factory=VerdictConfig)
    images: Literal["copy", "link"] = "copy"
    """With --to: copy the images into the set, or make hard links, which take no space on the same disk."""
    page: bool = True
    """Write a page with the chosen frames; needs the extra report."""
    truth: Path | None = None
    """Labels of the pool by people: prints what the choice shows, against choices by chance."""
    seed: int = 0
    """Of the choices by chance."""


def select(argv: list[str]) -> int:
    """Choose frames, write the list and the page, and return 0."""
    from datasets.formats import format_named
    from datasets.labelling.selecting import choose
    from datasets.labelling.selection_page import write_list, write_page
    from datasets.labelling.signals import signals_of
    from datasets.labelling.writing import as_set, label_all, write_set
    from perception.errors import UserError
    from perception.reports.write import require_page_packages

    options = parse_options(SelectOptions, argv, "perception select", everyday=SELECT_EVERYDAY)
    if options.count < 1:
        raise UserError(f"--count {options.count}", "a whole number from 1", "--count 100")
    if options.to and format_named(options.to).write is None:
        raise UserError(f"--to {options.to}: this format is only read", "one that can be written", "--to coco")
    if options.page:
        require_page_packages()
    look, committee = _look(options)
    found = signals_of(look.seen, committee)
    kept = [i for i, one in enumerate(look.seen) if one.frame.is_kept]
    pool = [look.seen[i] for i in kept]
    found = found.of(kept)
    chosen = choose(found, [one.hash for one in pool], [one.frame.drive for one in pool], options.count)
    picked = [pool[one.index] for one in chosen.choices]
    write_list(options.out, pool, chosen, found)
    result: dict[str, Any] = {
        "out": str(options.out / "selected.txt"),
        "pool": len(pool),
        "unreadable": look.unreadable,
        "chosen": len(picked),
        "near_copies_left_out": chosen.near_copies,
        "drives": dict(Counter(one.frame.drive for one in picked)),
    }
    if options.page:
        result["page"] = str(write_page(options.out, pool, chosen, committee, options.count))
    if options.to:
        labels = label_all(look.seen, committee, options.verdict)
        wanted = [labels[kept[one.index]] for one in chosen.choices]
        whole = as_set(picked, wanted, committee.class_names, options.out)
        result["not_carried"] = dict(write_set(whole, options.out / options.to, options.to, options.images))
    if options.truth is not None:
        from datasets.formats.annotations import Problems
        from datasets.labelling.selection_value import against_chance
        from datasets.labelling.writing import Reference

        reference = Reference(options.truth, committee.classes, Problems())
        result["against_chance"] = against_chance(
            pool, [one.index for one in chosen.choices], reference, options.seed
        )
    print(json.dumps(result, indent=1) if options.json else "\n".join(_select_lines(result, options)))
    return 0


def _select_lines(result: dict[str, Any], options: SelectOptions) -> list[str]:
    lines = [f"{result['out']}: {result['chosen']} of {result['pool']} frames; recordings: {len(result['drives'])}"]
    if result["chosen"] < min(options.count, result["pool"]):
        lines.append(f"  fewer than --count {options.count}: the others are near-copies of chosen frames")
    lines.append(f"  near-copies of chosen frames, left out: {result['near_copies_left_out']}")
    if result["unreadable"]:
        lines.append(f"  unreadable images, left out: {len(result['unreadable'])}: {result['unreadable'][0]} …")
    if "page" in result:
        lines.append(f"  page: {result['page']}")
    lines += [f"  {options.to} cannot hold {name}: {n}" for name, n in result.get("not_carried", {}).items()]
    if "against_chance" in result:
        lines.append(f"  against {options.truth}:{'':<20}chosen   by chance (mean, standard deviation)")
        for name, (chosen, mean, deviation) in result["against_chance"].items():
            lines.append(f"    {name:<36}{chosen:>10.1f}{mean:>10.1f} ± {deviation:.1f}")
    if options.to:
        lines.append(f"next: correct the labels in {options.out / options.to}")
    return lines
