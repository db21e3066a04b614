"""Load folders of tracking labels and results, and score them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from perception.arrays import F64, I64
from perception.errors import UserError
from perception.evaluation.folders import (
    ALLOW_MISSING,
    box_warnings,
    class_warnings,
    find_folder,
    find_labels,
    first_ten,
    missing_warning,
    refuse_unknown_classes,
    require,
    stems,
)
from perception.evaluation.results import TRACKING_CLASSES_SCORED, TrackingEvaluation
from perception.evaluation.tracking import TrackingEvaluator
from perception.files import read_text
from perception.formats.kitti import TRACKING_CLASSES, TrackingRows, parse_tracking
from perception.formats.kitti_table import read_tracking_fast


def score_tracking_folders(
    gt: Path,
    results: Path,
    *,
    seqmap: Path | None = None,
    allow_missing: bool = False,
    only_frames: Mapping[str, I64] | None = None,
) -> TrackingEvaluation:
    """Score tracking results.

    Args:
        gt: folder of label files, one a sequence, or KITTI's root.
        results: folder of result files, one a sequence, or one whose `data` folder holds them.
        seqmap: KITTI's sequence map (name, -, first frame, number of frames). By default the one beside the labels;
            without one, lengths come from labels and images.
        allow_missing: count a sequence without a result file as empty instead of refusing it.
        only_frames: frames to score, by sequence, where not all of them have images.

    Raises:
        UserError: the input cannot be scored.
    """
    labels = find_labels(gt, "tracking")
    found = find_folder(results, ("data",), ".txt", "result files, one for each sequence", "--results DIR")
    lengths, seqmap, warnings = _sequence_lengths(labels, gt, seqmap)
    basis = f"the sequence map {seqmap}" if seqmap else "the last label or image (there is no sequence map)"
    if only_frames is not None:
        lengths = {name: length for name, length in lengths.items() if name in only_frames}
    require(
        [name for name in lengths if not (labels / f"{name}.txt").is_file()],
        f"label file(s) of the sequence map in {labels}",
        "another --gt or --seqmap",
        "sequence",
    )
    missing = [name for name in lengths if not (found / f"{name}.txt").is_file()]
    if not allow_missing:
        do = f"--seqmap FILE, or {ALLOW_MISSING}"
        require(missing, f"result file(s) of {len(lengths)} in {found}", do, "sequence")
    warnings += missing_warning(missing, "sequences")
    if others := sorted(set(stems(found, ".txt")) - set(lengths)):
        warnings.append(f"{len(others)} result file(s) of other sequences are not scored: {first_ten(others)}")

    evaluator, seen = TrackingEvaluator(), _Seen()
    for name, length in lengths.items():
        label_path, result_path = labels / f"{name}.txt", found / f"{name}.txt"
        gt_rows, _ = read_tracking_fast(label_path, scores=False)
        rows, extra = parse_tracking("", scores=True), 0
        if name not in missing:
            rows, extra = read_tracking_fast(result_path, allow_inverted=True, allow_extra=True)
        if only_frames is not None and len(only_frames[name]) < length:
            warnings.append(f"{name}: {len(only_frames[name])} of {length} frames are scored, those with images")
            gt_rows = gt_rows[np.isin(gt_rows.frame_ids, only_frames[name])]
            length = int(only_frames[name].max(initial=-1)) + 1
        evaluator.process(name, gt_rows, rows, length, (str(label_path), str(result_path)), basis)
        seen.add(gt_rows, rows, extra)
    warnings += seen.warnings(found)
    return replace(evaluator.evaluate(), warnings=tuple(warnings), missing_sequences=tuple(missing))


@dataclass
class _Seen:
    """What the warnings need to know of all sequences."""

    classes: Counter[str] = field(default_factory=Counter)
    wide_files: int = 0
    """Result files with columns after the score."""
    negative_ids: int = 0
    """Result rows with a negative id, DontCare aside."""
    boxes: list[F64] = field(default_factory=lambda: [np.zeros((0, 4))])
    gt_boxes: list[F64] = field(default_factory=lambda: [np.zeros((0, 4))])

    def add(self, gt_rows: TrackingRows, rows: TrackingRows, extra_columns: int) -> None:
        """Add one sequence."""
        self.wide_files += extra_columns > 0
        dropped = np.flatnonzero(rows.track_ids < 0).tolist()
        self.negative_ids += sum(rows.objects.names[i].lower() != "dontcare" for i in dropped)
        self.boxes.append(rows.objects.boxes_xyxy)
        self.gt_boxes.append(gt_rows.objects.boxes_xyxy)
        self.classes.update(rows.objects.names)

    def warnings(self, found: Path) -> list[str]:
        """Name what is not read, not scored, or scored although it looks wrong."""
        warnings = []
        if self.wide_files:
            warnings.append(
                f"{self.wide_files} result file(s) have columns after the score (column 18): they are not read"
            )
        if self.negative_ids:
            warnings.append(f"{self.negative_ids} result row(s) with a negative id are not scored")
        names = tuple(self.classes)
        refuse_unknown_classes(names, TRACKING_CLASSES, found, 3)
        warnings += class_warnings(names, tuple(self.classes.values()), TRACKING_CLASSES, "result")
        warnings += box_warnings(np.concatenate(self.boxes), np.concatenate(self.gt_boxes))
        lower = {name.lower() for name in names}
        warnings += [
            f"no result row of class {name}: its scores are those of an empty result"
            for name in TRACKING_CLASSES_SCORED
            if name.lower() not in lower
        ]
        return warnings


def _sequence_lengths(labels: Path, gt: Path, seqmap: Path | None) -> tuple[dict[str, int], Path | None, list[str]]:
    """Frames of each sequence, in order; the sequence map that gives them, or a warning where there is none."""
    if seqmap is None:
        roots = dict.fromkeys((gt, labels, labels.parent, labels.parent.parent))
        found = [path for root in roots for path in sorted(root.glob("evaluate_tracking.seqmap*"))]
        seqmap = next((path for path in found if path.suffix == ".training"), found[0] if found else None)
    if seqmap is not None:
        return read_seqmap(seqmap), seqmap, []
    lengths = {}
    for name in stems(labels, ".txt"):
        frames = read_tracking_fast(labels / f"{name}.txt", scores=False)[0].frame_ids
        images = (path.stem for path in (labels.parent / "image_02" / name).glob("*"))
        last = max((int(stem) for stem in images if stem.isdecimal()), default=-1)
        lengths[name] = max(int(frames.max(initial=-1)), last) + 1
    return lengths, None, ["no sequence map: sequences are taken to end with their last label or image"]


def read_seqmap(path: Path) -> dict[str, int]:
    """Read KITTI's sequence map: frames of each sequence.

    Raises:
        UserError: a row that does not look like `0000 empty 000000 000154`.
    """
    lengths: dict[str, int] = {}
    for i, line in enumerate(read_text(path).split("\n"), 1):
        tokens = line.split()
        if not tokens:
            continue
        legal = len(tokens) == 4 and tokens[2].isdecimal() and tokens[3].isdecimal()
        if not legal or not re.fullmatch(r"[\w.-]+", tokens[0]):
            raise UserError(f"{path}:{i}: found {line.strip()!r}", "a row like '0000 empty 000000 000154'")
        if tokens[0] in lengths:
            raise UserError(f"{path}:{i}: sequence {tokens[0]} for the second time", "each sequence once")
        lengths[tokens[0]] = int(tokens[3])
    if not lengths:
        raise UserError(f"{path}: no sequences", "rows like '0000 empty 000000 000154'")
    return lengths
