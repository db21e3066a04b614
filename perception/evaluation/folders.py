"""From folders to scores: find the files, refuse what cannot be scored, count and report what looks wrong.

Nothing is left out in silence. What the official tool refuses is an error here; what it takes without a word (boxes
outside the picture, classes it does not know, results for other frames) is taken too, and counted in `warnings`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from perception.errors import UserError
from perception.evaluation.object import evaluate_objects
from perception.evaluation.results import (
    OBJECT_CLASSES_SCORED,
    TRACKING_CLASSES_SCORED,
    ObjectEvaluation,
    RoadEvaluation,
    TrackingEvaluation,
)
from perception.formats.kitti import OBJECT_CLASSES, TRACKING_CLASSES, UNKNOWN_ALPHA, TrackingRows, read_text
from perception.formats.kitti_table import find_object_files, read_object_table, read_tracking_fast
from perception.types import F64, I64

LAYOUT = {
    "object": ("label_2", ".txt", "label files", "image_2"),
    "road": ("gt_image_2", ".png", "ground truth pictures", "image_2"),
    "tracking": ("label_02", ".txt", "label files", "image_02"),
}
"""KITTI's folder of labels, their suffix, what they are, and the folder of pictures, by task."""
LARGEST_KITTI_WH = (1242, 376)
"""No picture of KITTI is larger."""
ALLOW_MISSING = "--allow-missing counts them as empty"
Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


# ---------------------------------------------------------------- shared by the three tasks


def first_ten(names: Iterable[object]) -> str:
    """'a, b, c' or the first ten 'and 17 more'."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return ", ".join(listed[:10]) + more


def find_folder(root: Path, inside: Sequence[str], suffix: str, what: str, do: str = "") -> Path:
    """`root`, or the first of the folders `inside` it, that holds files with `suffix`.

    Raises:
        UserError: there is none; it says what an official layout looks like.
    """
    for folder in (root, *(root / name for name in inside)):
        if folder.is_dir() and any(name.suffix == suffix for name in folder.iterdir()):
            return folder
    if not root.is_dir():
        problem = "is a file" if root.exists() else "no such folder"
    elif not any(root.iterdir()):
        problem = "the folder is empty"
    else:
        problem = f"holds no {suffix} files"
    places = f"{what}: *{suffix} in it" + (f" or in its {inside[0]}" if inside else "")
    raise UserError(f"{root}: {problem}", places, do)


def find_labels(root: Path, task: str) -> Path:
    """The folder of labels of a task: `root` itself, or where KITTI's layout has it.

    Raises:
        UserError: there is none.
    """
    name, suffix, what, _ = LAYOUT[task]
    return find_folder(root, (f"training/{name}", name, f"{task}/training/{name}"), suffix, what, "--gt DIR")


def find_pictures(root: Path, task: str) -> Path | None:
    """The folder of camera pictures that belongs to `root`, be that KITTI's or the folder of labels."""
    name = LAYOUT[task][3]
    folders = (root / "training" / name, root / name, root / task / "training" / name, root.parent / name)
    return next((folder for folder in folders if folder.is_dir()), None)


def read_names(path: Path) -> tuple[str, ...]:
    """Names of a split, one on a line.

    Raises:
        UserError: no names, one twice, or one that is no file name.
    """
    lines = [(i, name) for i, line in enumerate(read_text(path).split("\n"), 1) if (name := line.strip())]
    if not lines:
        raise UserError(
            f"{path}: no names", "one frame name on a line, such as 000042", "--split FILE, or --split val"
        )
    seen: dict[str, int] = {}
    for i, name in lines:
        if not re.fullmatch(r"[\w.-]+", name):
            raise UserError(
                f"{path}:{i}: found {name!r}",
                "one frame name on a line, such as 000042",
                "--split FILE, or --split val",
            )
        if name in seen:
            raise UserError(f"{path}:{i}: {name} for the second time, first in line {seen[name]}", "each frame once")
        seen[name] = i
    return tuple(seen)


def _stems(folder: Path, suffix: str) -> list[str]:
    return sorted(path.stem for path in folder.iterdir() if path.suffix == suffix)


def _require(missing: Sequence[str], what: str, do: str, each: str = "frame") -> None:
    if missing:
        raise UserError(f"{len(missing)} {what} missing: {first_ten(missing)}", f"one for each {each}", do)


def _missing_warning(missing: Sequence[str], kind: str) -> list[str]:
    return [f"{len(missing)} {kind} had no result file and count as empty: {first_ten(missing)}"] if missing else []


def _class_warnings(names: Sequence[str], counts: Sequence[int], known: Sequence[str], whose: str) -> list[str]:
    lower = {name.lower() for name in known}
    return [
        f"{count} {whose} row(s) of class '{name}', which KITTI does not know, are not scored"
        for name, count in zip(names, counts, strict=True)
        if name.lower() not in lower
    ]


def _refuse_unknown_classes(names: Sequence[str], known: Sequence[str], found: Path, column: int) -> None:
    """Results of which no row can be scored are a mistake, not a score; no row at all is an honest nothing."""
    names = [name for name in names if name.lower() != "dontcare"]
    if names and not {name.lower() for name in names} & {name.lower() for name in known}:
        raise UserError(
            f"{found}: no result row is of a class that KITTI knows, but of {first_ten(sorted(names))}",
            "one of " + ", ".join(known),
            f"write KITTI's names into column {column} of the result files",
        )


def _box_warnings(boxes: F64, gt_boxes: F64) -> list[str]:
    """Boxes that cannot be right, which the official tools score as they are."""
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    outside = (boxes[:, :2] < -1).any(axis=1)  # a pixel of slack for rounding
    limit = "left of or above the picture"
    if len(gt_boxes) and (gt_boxes[:, 2:].max(axis=0) <= LARGEST_KITTI_WH).all():
        outside |= (boxes[:, 2:] > np.array(LARGEST_KITTI_WH) + 1).any(axis=1)
        limit = f"outside the picture (none is larger than {LARGEST_KITTI_WH[0]}x{LARGEST_KITTI_WH[1]})"
    found = []
    if inverted.any():
        found.append(f"{int(inverted.sum())} result box(es) have right < left or bottom < top: they match nothing")
    if outside.any():
        found.append(f"{int(outside.sum())} result box(es) reach {limit}: they are scored as they are")
    return found


# ---------------------------------------------------------------- objects


def score_object_folders(
    gt: Path, results: Path, *, split: Path | None = None, allow_missing: bool = False
) -> ObjectEvaluation:
    """Score object results.

    Args:
        gt: folder of label files, or KITTI's root.
        results: folder of result files, or one whose `data` folder holds them, as the devkit wants it.
        split: file with frame names; without it all label files count.
        allow_missing: a frame without a result file counts as empty instead of being an error.

    Raises:
        UserError: anything that cannot be scored.
    """
    labels = find_labels(gt, "object")
    found = find_folder(results, ("data",), ".txt", "result files, one for each frame", "--results DIR")
    names = _stems(labels, ".txt") if split is None else list(read_names(find_split(split, gt, labels)))
    label_paths, result_paths = find_object_files(labels, names), find_object_files(found, names)
    _require(
        [name for name, path in zip(names, label_paths, strict=True) if path is None],
        f"label file(s) of the split in {labels}",
        "another --gt or --split",
    )
    missing = [name for name, path in zip(names, result_paths, strict=True) if path is None]
    if not allow_missing:
        do = ALLOW_MISSING if split else f"--split FILE with the frames that were evaluated, or {ALLOW_MISSING}"
        _require(missing, f"result file(s) of {len(names)} in {found}", do)
    gt_table = read_object_table(names, label_paths, scores=False)
    detections = read_object_table(names, result_paths, scores=True, allow_inverted=True)
    evaluation = evaluate_objects(gt_table, detections)

    others = sorted(set(_stems(found, ".txt")) - set(names))
    warnings = _missing_warning(missing, "frames")
    if others:
        warnings.append(f"{len(others)} result file(s) of other frames are not scored: {first_ten(others)}")
    for table, whose in ((gt_table, "label"), (detections, "result")):
        counts = np.bincount(table.class_ids, minlength=len(table.class_names)).tolist()
        warnings += _class_warnings(table.class_names, counts, OBJECT_CLASSES, whose)
        if whose == "result":
            named = [name for name, count in zip(table.class_names, counts, strict=True) if count]
            _refuse_unknown_classes(named, OBJECT_CLASSES, found, 1)
    warnings += _box_warnings(detections.boxes_xyxy, gt_table.boxes_xyxy)
    unscored = [name for name in OBJECT_CLASSES_SCORED if not detections.is_class(name).any()]
    if unscored:
        warnings.append(f"never detected, so not scored, as in the official tool: {', '.join(unscored)}")
    without_alpha = int((detections.alpha == UNKNOWN_ALPHA).sum())
    if without_alpha:
        warnings.append(f"{without_alpha} result row(s) have alpha -10: AOS is not scored, as in the official tool")
    return replace(evaluation, warnings=tuple(warnings), missing_frames=tuple(missing))


def find_split(split: Path, gt: Path, labels: Path) -> Path:
    """A file, or the name of one among KITTI's ImageSets, such as `val` or `val.txt`."""
    if split.is_file():
        return split
    for root in (gt, *list(labels.parents)[:3]):
        if (named := root / "ImageSets" / f"{split.name.removesuffix('.txt')}.txt").is_file():
            return named
    raise UserError(
        f"{split}: no such file",
        "a file with one frame name on a line, or the name of one in ImageSets/",
        "--split val",
    )


# ---------------------------------------------------------------- road


def score_road_folders(
    gt: Path,
    results: Path,
    *,
    calib: Path | None = None,
    space: str = "bev",
    split: Path | None = None,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> RoadEvaluation:
    """Score confidence maps.

    Args:
        gt: folder of ground truth PNGs, or KITTI's root.
        results: folder of result PNGs of the same names.
        calib: folder of calibration files; by default `calib` beside the ground truth.
        space: 'bev', as the server scores, or 'perspective'.
        split: file with names such as um_road_000012; without it all ground truths count.
        allow_missing: a picture without a result counts as "no road" instead of being an error.
        progress: called after every picture.

    Raises:
        UserError: anything that cannot be scored.
    """
    from perception.evaluation.road import (
        RoadEvaluator,
        category_of,
        read_confidence,
        read_ground_truth,
        read_road_calibration,
    )

    truths = find_labels(gt, "road")
    found = find_folder(results, ("data",), ".png", "confidence maps, one for each ground truth", "--results DIR")
    there = set(_stems(found, ".png"))
    names = _stems(truths, ".png") if split is None else list(read_names(split))
    _require(
        [name for name in names if not (truths / f"{name}.png").is_file()],
        f"ground truth(s) of the split in {truths}",
        "another --gt or --split",
    )
    warnings = []
    # the ego-lane is a benchmark of its own: whoever sends no lane at all does not take part in it
    lanes = [name for name in names if category_of(name).endswith("_lane")]
    if lanes and len(lanes) < len(names) and not there.intersection(lanes):
        names = [name for name in names if name not in set(lanes)]
        warnings.append(f"um_lane: {len(lanes)} ground truths and no result at all: not scored")
    missing = [name for name in names if name not in there]
    if not allow_missing:
        _require(missing, f"result(s) of {len(names)} in {found}", f"--split FILE, or {ALLOW_MISSING}")
    warnings += _missing_warning(missing, "pictures")
    if others := sorted(there - set(names)):
        warnings.append(f"{len(others)} result(s) without ground truth are not scored: {first_ten(others)}")

    paths = find_road_calibrations(truths, calib, names) if space == "bev" else {}
    evaluator = RoadEvaluator(space)
    absent = set(missing)
    for i, name in enumerate(names):
        judged, road = read_ground_truth(truths / f"{name}.png")
        result_path = None if name in absent else found / f"{name}.png"
        confidence = np.zeros_like(judged) if result_path is None else read_confidence(result_path)
        evaluator.process(
            name,
            judged,
            road,
            confidence,
            read_road_calibration(paths[name]) if name in paths else None,
            gt_path=truths / f"{name}.png",
            result_path=result_path,
            calibration_path=paths.get(name),
        )
        if progress:
            progress(i + 1, len(names))
    evaluation = evaluator.evaluate()
    for category, score in evaluation.scores.items():
        if score.tp + score.fn == 0:
            warnings.append(f"{category}: no road in the ground truth, so its numbers mean nothing")
    return replace(evaluation, warnings=tuple(warnings), missing_images=tuple(missing))


def find_road_calibrations(truths: Path, calib: Path | None, names: Sequence[str]) -> dict[str, Path]:
    """The calibration file of each ground truth, um_000012.txt for um_lane_000012.

    Raises:
        UserError: some are missing.
    """
    folder = calib if calib is not None else truths.parent / "calib"
    paths = {name: folder / f"{re.sub(r'_(lane|road)_', '_', name)}.txt" for name in names}
    _require(
        sorted({path.name for path in paths.values() if not path.is_file()}),
        f"calibration(s) of {len(names)} in {folder}",
        "--calib FOLDER, --split FILE with the pictures that have one, or --space perspective",
    )
    return paths


# ---------------------------------------------------------------- tracking


def score_tracking_folders(
    gt: Path,
    results: Path,
    *,
    seqmap: Path | None = None,
    allow_missing: bool = False,
    only_frames: dict[str, I64] | None = None,
) -> TrackingEvaluation:
    """Score tracking results.

    Args:
        gt: folder of label files, one a sequence, or KITTI's root.
        results: folder of result files, one a sequence, or one whose `data` folder holds them.
        seqmap: KITTI's sequence map (name, -, first frame, number of frames); by default the one that lies beside
            the labels, else lengths are taken from labels and pictures.
        allow_missing: a sequence without a result file counts as empty instead of being an error.
        only_frames: frames that are judged, by sequence, where not all of them have pictures.

    Raises:
        UserError: anything that cannot be scored.
    """
    from perception.evaluation.tracking import TrackingEvaluator

    labels = find_labels(gt, "tracking")
    found = find_folder(results, ("data",), ".txt", "result files, one for each sequence", "--results DIR")
    lengths, warnings = _sequence_lengths(labels, gt, seqmap)
    if only_frames is not None:
        lengths = {name: length for name, length in lengths.items() if name in only_frames}
    _require(
        [name for name in lengths if not (labels / f"{name}.txt").is_file()],
        f"label file(s) of the sequence map in {labels}",
        "another --gt or --seqmap",
        "sequence",
    )
    missing = [name for name in lengths if not (found / f"{name}.txt").is_file()]
    if not allow_missing:
        _require(
            missing, f"result file(s) of {len(lengths)} in {found}", f"--seqmap FILE, or {ALLOW_MISSING}", "sequence"
        )
    warnings += _missing_warning(missing, "sequences")
    if others := sorted(set(_stems(found, ".txt")) - set(lengths)):
        warnings.append(f"{len(others)} result file(s) of other sequences are not scored: {first_ten(others)}")

    evaluator = TrackingEvaluator()
    classes: Counter[str] = Counter()
    negative, wide, boxes, gt_boxes = 0, 0, [np.zeros((0, 4))], [np.zeros((0, 4))]
    for name, length in lengths.items():
        gt_rows, _ = read_tracking_fast(labels / f"{name}.txt", scores=False)
        path = found / f"{name}.txt"
        rows, extra = empty_tracking(), 0
        if name not in missing:
            rows, extra = read_tracking_fast(path, allow_inverted=True, allow_extra=True)
        if only_frames is not None and len(only_frames[name]) < length:
            warnings.append(f"{name}: {len(only_frames[name])} of {length} frames are judged, those with pictures")
            gt_rows = gt_rows[np.isin(gt_rows.frame_ids, only_frames[name])]
            length = int(only_frames[name].max(initial=-1)) + 1
        evaluator.process(name, gt_rows, rows, length, (str(labels / f"{name}.txt"), str(path)))
        wide += extra > 0
        dropped = np.flatnonzero(rows.track_ids < 0).tolist()
        negative += sum(rows.objects.names[i].lower() != "dontcare" for i in dropped)
        boxes.append(rows.objects.boxes_xyxy)
        gt_boxes.append(gt_rows.objects.boxes_xyxy)
        classes.update(rows.objects.names)
    if wide:
        warnings.append(f"{wide} result file(s) have columns after the score (column 18): they are not read")
    if negative:
        warnings.append(f"{negative} result row(s) with a negative id are not scored")
    _refuse_unknown_classes(tuple(classes), TRACKING_CLASSES, found, 3)
    warnings += _class_warnings(tuple(classes), tuple(classes.values()), TRACKING_CLASSES, "result")
    warnings += _box_warnings(np.concatenate(boxes), np.concatenate(gt_boxes))
    lower = {name.lower() for name in classes}
    for class_name in TRACKING_CLASSES_SCORED:
        if class_name.lower() not in lower:
            warnings.append(f"no result row of class {class_name}: its scores are those of an empty result")
    return replace(evaluator.evaluate(), warnings=tuple(warnings), missing_sequences=tuple(missing))


def empty_tracking() -> TrackingRows:
    """No rows."""
    from perception.formats.kitti import parse_tracking

    return parse_tracking("", scores=True)


def _sequence_lengths(labels: Path, gt: Path, seqmap: Path | None) -> tuple[dict[str, int], list[str]]:
    """Frames of each sequence, in order, and what to say about where they come from."""
    if seqmap is None:
        roots = dict.fromkeys((gt, labels, labels.parent, labels.parent.parent))
        found = [path for root in roots for path in sorted(root.glob("evaluate_tracking.seqmap*"))]
        seqmap = next((path for path in found if path.suffix == ".training"), found[0] if found else None)
    if seqmap is not None:
        return read_seqmap(seqmap), []
    lengths = {}
    for name in _stems(labels, ".txt"):
        frames = read_tracking_fast(labels / f"{name}.txt", scores=False)[0].frame_ids
        pictures = (path.stem for path in (labels.parent / "image_02" / name).glob("*"))
        last = max((int(stem) for stem in pictures if stem.isdecimal()), default=-1)
        lengths[name] = max(int(frames.max(initial=-1)), last) + 1
    return lengths, ["no sequence map: sequences are taken to end with their last label or picture"]


def read_seqmap(path: Path) -> dict[str, int]:
    """KITTI's sequence map → frames of each sequence.

    Raises:
        UserError: a row that is not `0000 empty 000000 000154`.
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
