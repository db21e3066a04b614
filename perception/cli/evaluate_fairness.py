"""`perception evaluate fairness`: whom does a network miss more often?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli.evaluate_inputs import check_inputs, out_folder
from perception.cli.evaluate_options import ObjectOptions
from perception.cli.options import parse_options
from perception.errors import UserError
from perception.progress import Progress

if TYPE_CHECKING:
    from perception.reports.report import Value
    from perception.trust.fairness import Person


@dataclass(frozen=True)
class FairnessOptions(ObjectOptions):
    """Miss rates of people by height, distance, occlusion, truncation, light, contrast, pose, and your attributes.

    Strata are compared at the same height and occlusion, with intervals over drives. Takes seconds for results of a
    hundred frames; --resamples 10000 for a publication takes a minute.
    """

    attributes: Path | None = None
    """CSV with the columns frame, object, attribute, value; object is the row of the label file, from 0."""
    groups: Path | None = None
    """JSON file with the drive of each frame. Default: drives.json of the data, else each frame by itself."""
    resamples: int = 2000
    """Draws of the bootstrap."""
    seed: int = 0
    """Random seed of the draws."""


def main(argv: list[str]) -> int:
    """Print the strata and gaps."""
    options = parse_options(FairnessOptions, argv, "perception evaluate fairness")
    from perception.trust.fairness import compare_strata, read_attributes, with_attributes

    if not 100 <= options.resamples <= 1_000_000:
        raise UserError(f"--resamples {options.resamples}", "100 to 1,000,000", "--resamples 2000")
    threshold = 0.3 if options.score_threshold is None else options.score_threshold
    if not 0 <= threshold <= 1:
        raise UserError(f"--score-threshold {threshold:g}", "from 0 to 1", "--score-threshold 0.3")
    gt, results = check_inputs(options)
    attributes = {} if options.attributes is None else read_attributes(options.attributes)
    drives = _drives(options, gt)
    if options.model is not None:
        from perception.cli.evaluate_model import run_objects

        results = run_objects(options, gt, out_folder(options, "fairness"))
    assert results is not None
    people, notes = _people(options, gt, results, threshold)
    people, unused = with_attributes(people, attributes)
    if unused:
        notes.append(f"{unused} entries of {options.attributes} belong to no person of 25 pixels or more")
    if not people:
        raise UserError(f"{gt}: nobody of 25 pixels or more is labelled", "labels of people", "--gt DIR, or --split")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    with Progress("comparing") as progress:
        found = compare_strata(people, drives, options.resamples, options.seed, progress.update)
    from perception.reports.fairness import fairness_report, fairness_text
    from perception.reports.write import render_json, write_report

    facts: dict[str, Value] = {"score_threshold": threshold, "gt": str(gt), "results": str(results)}
    report = fairness_report(found, tuple(notes), facts)
    if options.report is not None:
        print(f"report: {write_report(report, options.report)}", file=sys.stderr)
    print(render_json(report) if options.json else fairness_text(found))
    return 0


def _drives(options: FairnessOptions, gt: Path) -> dict[str, str]:
    from perception.reports.compare import read_groups

    if options.groups is not None:
        return read_groups(options.groups)
    near = [root / "drives.json" for root in (gt, gt / "object", *list(gt.parents)[:2])]
    return next((read_groups(path) for path in near if path.is_file()), {})


def _people(options: FairnessOptions, gt: Path, results: Path, threshold: float) -> tuple[list[Person], list[str]]:
    """Read labels, results and images of the frames that are evaluated."""
    from perception.evaluation.folders import (
        ALLOW_MISSING,
        find_folder,
        find_images,
        find_labels,
        find_split,
        read_names,
        require,
        stems,
    )
    from perception.formats.images import find_image, read_image_or_none
    from perception.formats.kitti import parse_objects, read_objects
    from perception.trust.fairness import people_of_frame

    labels = find_labels(gt, "object")
    found = find_folder(results, ("data",), ".txt", "result files, one for each frame", "--results DIR")
    names = stems(labels, ".txt") if options.split is None else read_names(find_split(options.split, gt, labels))
    missing = [name for name in names if not (found / f"{name}.txt").is_file()]
    if not options.allow_missing:
        require(missing, f"result file(s) of {len(names)} in {found}", f"--split FILE, or {ALLOW_MISSING}")
    folder = options.images or find_images(gt, "object")
    people: list[Person] = []
    without_image = 0
    with Progress("reading") as progress:
        for i, name in enumerate(names):
            path = None if folder is None else find_image(folder, name)
            image = None if path is None else read_image_or_none(path)
            without_image += image is None
            empty = name in missing
            rows = parse_objects("", scores=True) if empty else read_objects(found / f"{name}.txt", scores=True)
            people += people_of_frame(name, read_objects(labels / f"{name}.txt"), rows, threshold, image)
            progress.update(i + 1, len(names))
    notes = [f"{len(missing)} frames had no result file and count as empty"] if missing else []
    if without_image:
        notes.append(f"{without_image} of {len(names)} frames have no image: their light and contrast are unknown")
    return people, notes
