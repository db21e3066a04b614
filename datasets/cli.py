"""`perception data`: check data sets, download KITTI's, or render the synthetic street."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError

if TYPE_CHECKING:
    from datasets.checks.findings import SetReport

SUBCOMMANDS = {
    "check": "count, plot label statistics, and list missing, unreadable or inconsistent files",
    "convert": "read labels of any known format and write them in another",
    "frames": "take frames from videos, to be labelled",
    "fetch": "download and unpack KITTI's public archives",
    "street": "render a synthetic drive with exact ground truth in KITTI's formats",
}


def main(argv: list[str]) -> int:
    """Run a subcommand; return 0 for success and 1 for errors in the data."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        width = max(map(len, SUBCOMMANDS))
        print("usage: perception data SUBCOMMAND [options]\n")
        print("\n".join(f"  {name:<{width}}  {text}" for name, text in SUBCOMMANDS.items()))
        print("\nOptions: perception data SUBCOMMAND --help")
        return 0
    name, rest = argv[0], argv[1:]
    if name == "check":
        return _check(rest)
    if name == "fetch":
        return _fetch(rest)
    if name == "frames":
        return int(importlib.import_module("datasets.readers.video_frames").main(rest))
    if name == "convert":
        return int(importlib.import_module("datasets.formats.cli").main(rest))
    if name == "street":
        return int(importlib.import_module("datasets.synthetic_street.cli").main(rest))
    import difflib

    near = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
    hint = f"perception data {near[0]}" if near else "perception data --help"
    raise UserError(f"unknown subcommand '{name}'", "one of " + ", ".join(SUBCOMMANDS), hint)


# ---------------------------------------------------------------- check


@dataclass(frozen=True)
class CheckOptions(CommandOptions):
    """Check every data set in a folder: KITTI object, road and tracking, CamVid, IDD-Lite, sets of boxes.

    Exits with 1 on errors that would break training or make scores wrong.
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder to search for data sets."""
    out: Path = Path("runs/data-check")
    """Output directory for label_statistics.png."""
    draw: bool = True
    """Plot label statistics; needs matplotlib."""
    model: Path | None = None
    """Model file that looks for label noise in COCO and YOLO sets; writes what it contradicts to OUT/label_noise."""
    all: bool = False
    """List all findings instead of the first five of each kind."""
    json: bool = False
    """Print the results as JSON."""


def _check(argv: list[str]) -> int:
    from datasets.checks.run import check, shared_drives

    options = parse_options(CheckOptions, argv, "perception data check")
    reports = check(options.root)
    plot = _draw(reports, options.out / "label_statistics.png") if options.draw else None
    shared = shared_drives(reports)
    noise = _label_noise(reports, options) if options.model is not None else ""
    errors = sum(len(report.of_level("error")) for report in reports)
    warnings = sum(len(report.of_level("warning")) for report in reports)
    if options.json:
        summary = {"errors": errors, "warnings": warnings, "shared_drives": shared, "plot": plot}
        print(json.dumps({"root": str(options.root), **summary, "sets": [_as_table(r) for r in reports]}, indent=1))
        return 1 if errors else 0
    for report in reports:
        print("\n".join(_as_lines(report, options.root, None if options.all else 5)))
    for a, b, drives in shared:
        print(f"note: {a} and {b} show the same recordings; do not train on one and evaluate on the other")
        print(f"    {', '.join(drives)}")
    if noise:
        print(noise)
    print(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}" + (f"; plot: {plot}" if plot else ""))
    return 1 if errors else 0


def _label_noise(reports: list[SetReport], options: CheckOptions) -> str:
    """Write pictures of the labels that a model contradicts; returns a line about them."""
    from datasets.checks.label_noise import suspicions, write_pictures
    from perception.backends import load_model
    from perception.detector import Detector

    assert options.model is not None
    images = [image for report in reports for image in report.labelled]
    if not images:
        raise UserError(
            "--model without a set in COCO's or YOLO's format", "labels that can be compared", "omit --model"
        )
    model = load_model(options.model)
    found = suspicions(Detector(model, 0.1), images)
    count = write_pictures(found, options.out / "label_noise")
    return f"label noise: {len(found)} places, the {count} strongest in {options.out / 'label_noise'}"


def _draw(reports: list[SetReport], path: Path) -> str | None:
    from datasets.checks.statistics import draw_statistics

    try:
        draw_statistics(reports, path)
    except UserError as error:  # matplotlib is missing, or the folder cannot be written
        print(f"note: no label statistics drawn: {error}", file=sys.stderr)
        return None
    return str(path)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _as_table(report: SetReport) -> dict[str, Any]:
    return {
        "layout": report.layout,
        "folder": str(report.root),
        "counts": report.counts,
        "boxes": dict(report.names.most_common()),
        "images_by_drive": dict(report.images_by_drive.most_common()),
        "findings": [asdict(finding) for finding in report.findings],
    }


def _as_lines(report: SetReport, root: Path, limit: int | None) -> list[str]:
    """Return a report as text, with up to `limit` findings of each kind."""
    lines = [f"{report.layout}: {report.root}"]
    lines.append("  " + ", ".join(f"{count} {name}" for name, count in report.counts.items()))
    if report.names:
        lines.append("  boxes: " + ", ".join(f"{name} {count}" for name, count in report.names.most_common()))
    order = {"error": 0, "warning": 1, "note": 2}
    findings = sorted(report.findings, key=lambda f: (order[f.level], f.kind))
    for (level, kind), group in groupby(findings, key=lambda f: (f.level, f.kind)):
        found = list(group)
        lines.append(f"  {level}: {kind} ({len(found)})")
        lines += [f"    {f.where}" + (f": {f.detail}" if f.detail else "") for f in found[:limit]]
        if limit is not None and len(found) > limit:
            lines.append(f"    … and {len(found) - limit} more (--all lists them)")
    return [*lines, ""]


# ---------------------------------------------------------------- fetch


@dataclass(frozen=True)
class FetchOptions(CommandOptions):
    """Download one of KITTI's benchmarks from its public storage. Run it again to resume an interrupted download."""

    name: Annotated[Literal["kitti-object", "kitti-road", "kitti-tracking"], tyro.conf.Positional]
    """Benchmark: object is 12.6 GB, tracking about 15 GB, road about 0.5 GB."""
    root: Path
    """Dataset root. The files go to object/, road/ or tracking/ in it."""
    base_url: str = ""
    """URL of a mirror's folder of archives. Default: KITTI's storage."""
    keep_archives: bool = False
    """Keep the zip files in ROOT/archives."""
    json: bool = False
    """Print the result as JSON."""


def _fetch(argv: list[str]) -> int:
    from datasets.fetching.fetch import BASE_URL, LICENCE, SETS, fetch

    options = parse_options(FetchOptions, argv, "perception data fetch")
    print(LICENCE, file=sys.stderr)
    base_url = options.base_url or BASE_URL
    done = fetch(options.name, options.root, base_url=base_url, keep_archives=options.keep_archives)
    folder = options.root / SETS[options.name].folder
    if options.json:
        print(json.dumps({"folder": str(folder), "archives": [asdict(one) for one in done]}))
        return 0
    for one in done:
        print(f"{one.archive}: {one.state}" + (f", {one.files} files" if one.files else ""))
    print(f"next: perception data check {folder}")
    return 0
