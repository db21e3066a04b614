"""Parse and write KITTI's text files: object labels and results, tracking rows, and calibration.

A wrong row is an error with file, line, column and what was expected. An empty file is legal and means no objects.
Reading and writing is an exact round trip: official label files come back to the letter, and any finite number to the
bit.

Boxes: KITTI gives left, top, right, bottom as 0-based pixel coordinates, and its own tools measure width as
`right - left`. The numbers are used unchanged, as continuous coordinates, everywhere.

Source of the columns: the readme files of the object and tracking development kits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.arrays import F64, I64
from perception.errors import UserError
from perception.files import read_text

OBJECT_CLASSES = (
    "Car",
    "Van",
    "Truck",
    "Pedestrian",
    "Person_sitting",
    "Cyclist",
    "Tram",
    "Misc",
    "DontCare",
)
TRACKING_CLASSES = (*OBJECT_CLASSES, "Person")
"""Tracking labels use `Person` for the objects' `Person_sitting`; both are accepted."""

OBJECT_COLUMNS = [
    "type",
    "truncated",
    "occluded",
    "alpha",
    "left",
    "top",
    "right",
    "bottom",
    "height",
    "width",
    "length",
    "x",
    "y",
    "z",
    "rotation_y",
    "score",
]
TRACKING_COLUMNS = ["frame", "track_id", *OBJECT_COLUMNS]

MAX_WHOLE = 2**31 - 1
"""Frame numbers, track ids and occlusion levels beyond it are refused, as they would overflow."""
UNKNOWN_ALPHA = -10.0
UNKNOWN_DIMENSION = -1.0
UNKNOWN_LOCATION = -1000.0


@dataclass(frozen=True, eq=False)
class ObjectRows:
    """The rows of one object file, column by column; N rows in file order."""

    names: tuple[str, ...]
    """Class names as written."""
    truncation: F64
    """(N,) 0..1, -1 unknown. Tracking files hold 0, 1 or 2 here."""
    occlusion: I64
    """(N,) 0 visible, 1 partly, 2 largely, 3 unknown; -1 not given."""
    alpha: F64
    """(N,) observation angle, radians; -10 unknown."""
    boxes_xyxy: F64
    """(N, 4) pixels."""
    dimensions_hwl: F64
    """(N, 3) height, width, length in metres; -1 unknown."""
    location_cam2: F64
    """(N, 3) bottom centre in camera coordinates, metres; -1000 unknown."""
    rotation_y: F64
    """(N,) radians; -10 unknown."""
    scores: F64 | None = None
    """(N,) for results, None for labels."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: np.ndarray) -> ObjectRows:
        """A subset by boolean mask or integer array."""
        chosen = np.arange(len(self))[index]
        return ObjectRows(
            names=tuple(self.names[i] for i in chosen),
            truncation=self.truncation[chosen],
            occlusion=self.occlusion[chosen],
            alpha=self.alpha[chosen],
            boxes_xyxy=self.boxes_xyxy[chosen],
            dimensions_hwl=self.dimensions_hwl[chosen],
            location_cam2=self.location_cam2[chosen],
            rotation_y=self.rotation_y[chosen],
            scores=None if self.scores is None else self.scores[chosen],
        )

    @staticmethod
    def from_boxes(
        names: Sequence[str],
        boxes_xyxy: np.ndarray,
        scores: np.ndarray | None = None,
        **columns: np.ndarray,
    ) -> ObjectRows:
        """Make rows from boxes; columns that are not given get KITTI's marks for unknown."""
        count = len(names)
        values: dict[str, np.ndarray] = {
            "truncation": np.full(count, -1.0),
            "occlusion": np.full(count, -1, np.int64),
            "alpha": np.full(count, UNKNOWN_ALPHA),
            "boxes_xyxy": np.asarray(boxes_xyxy, np.float64).reshape(count, 4),
            "dimensions_hwl": np.full((count, 3), UNKNOWN_DIMENSION),
            "location_cam2": np.full((count, 3), UNKNOWN_LOCATION),
            "rotation_y": np.full(count, UNKNOWN_ALPHA),
        }
        values.update(columns)
        return ObjectRows(tuple(names), **values, scores=None if scores is None else np.asarray(scores, np.float64))


@dataclass(frozen=True, eq=False)
class TrackingRows:
    """The rows of one tracking sequence, in file order."""

    frame_ids: I64
    """(N,) frame of each row."""
    track_ids: I64
    """(N,) -1 for DontCare."""
    objects: ObjectRows

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __getitem__(self, index: np.ndarray) -> TrackingRows:
        """A subset by boolean mask or integer array."""
        return TrackingRows(self.frame_ids[index], self.track_ids[index], self.objects[index])


# ---------------------------------------------------------------- reading


def _bad(path: Path | str, line: int, column: str, found: str, expected: str) -> UserError:
    return UserError(f"{path}:{line}: column '{column}': found {found!r}", expected)


def _diagnose(rows: list[tuple[int, list[str]]], columns: list[str], path: Path | str) -> None:
    """Name the first token that its column does not allow; called only when the fast path failed."""
    integers = {"frame", "track_id", "occluded"}
    for line, tokens in rows:
        for column, token in zip(columns, tokens, strict=False):
            if column == "type":
                continue
            try:
                value = float(token)
            except ValueError:
                raise _bad(path, line, column, token, "a number") from None
            if not math.isfinite(value):
                raise _bad(path, line, column, token, "a finite number")
            if column in integers and (value != int(value) or abs(value) > MAX_WHOLE):
                raise _bad(path, line, column, token, f"a whole number of at most {MAX_WHOLE}")


def _split(
    text: str, path: Path | str, counts: tuple[int, ...], columns: list[str]
) -> tuple[list[tuple[int, list[str]]], int]:
    """Rows as tokens with their line numbers, all of one legal width."""
    rows = [(i, t) for i, line in enumerate(text.split("\n"), 1) if (t := line.split())]
    width = len(rows[0][1]) if rows else counts[0]
    for line, tokens in rows:
        if len(tokens) not in counts or len(tokens) != width:
            allowed = (width,) if width in counts else counts
            if len(tokens) < min(allowed):
                where = f"column '{columns[len(tokens)]}' is missing"
            else:
                where = f"there is more after column '{columns[max(allowed) - 1]}'"
            raise UserError(
                f"{path}:{line}: found {len(tokens)} columns; {where}",
                f"{' or '.join(map(str, allowed))} columns: {' '.join(columns[: max(allowed)])}",
            )
    return rows, width


def _object_rows(
    rows: list[tuple[int, list[str]]],
    first: int,
    columns: list[str],
    with_scores: bool,
    path: Path | str,
    classes: Iterable[str] | None,
    allow_inverted: bool,
) -> tuple[F64, ObjectRows]:
    """Return the numbers before the class name, (N, first), and the object columns after it."""
    names = tuple(tokens[first] for _, tokens in rows)
    if classes is not None:
        allowed = {name.lower() for name in classes}
        if not {name.lower() for name in set(names)} <= allowed:
            line, name = next((i, t[first]) for i, t in rows if t[first].lower() not in allowed)
            raise _bad(path, line, "type", name, "one of " + ", ".join(classes))
    try:
        numbers = np.array([t[:first] + t[first + 1 :] for _, t in rows], dtype=np.float64)
    except ValueError:
        _diagnose(rows, columns, path)
        raise
    numbers = numbers.reshape(len(rows), len(columns) - 1 - (not with_scores))
    head, body = numbers[:, :first], numbers[:, first:]
    whole = np.concatenate([head, body[:, 1:2]], axis=1)
    if not np.isfinite(numbers).all() or (whole != np.floor(whole)).any() or (np.abs(whole) > MAX_WHOLE).any():
        _diagnose(rows, columns, path)
    boxes = body[:, 3:7]
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if inverted.any() and not allow_inverted:
        i = int(np.argmax(inverted))
        side, low = ("right", "left") if boxes[i, 2] < boxes[i, 0] else ("bottom", "top")
        value, limit = boxes[i, 2 if side == "right" else 3], boxes[i, 0 if side == "right" else 1]
        raise _bad(path, rows[i][0], side, f"{value:g}", f"not less than '{low}', which is {limit:g}")
    return head, ObjectRows(
        names=names,
        truncation=body[:, 0],
        occlusion=body[:, 1].astype(np.int64),
        alpha=body[:, 2],
        boxes_xyxy=boxes,
        dimensions_hwl=body[:, 7:10],
        location_cam2=body[:, 10:13],
        rotation_y=body[:, 13],
        scores=body[:, 14] if with_scores else None,
    )


def parse_objects(
    text: str,
    path: Path | str = "<text>",
    *,
    scores: bool | None = None,
    classes: Iterable[str] | None = OBJECT_CLASSES,
    allow_inverted: bool = False,
) -> ObjectRows:
    """Parse an object label (15 columns) or result (16 columns) file.

    Args:
        text: the file's content.
        path: named in errors.
        scores: True for results, False for labels, None for either.
        classes: legal names, compared without case; None allows any.
        allow_inverted: accept boxes whose right is less than their left, as the official evaluators do.

    Raises:
        UserError: a bad row, with file, line, column and what was expected.
    """
    counts = {True: (16,), False: (15,), None: (15, 16)}[scores]
    rows, width = _split(text, path, counts, OBJECT_COLUMNS)
    with_scores = scores if scores is not None else width == 16
    return _object_rows(rows, 0, OBJECT_COLUMNS, with_scores, path, classes, allow_inverted)[1]


def parse_tracking(
    text: str,
    path: Path | str = "<text>",
    *,
    scores: bool | None = None,
    classes: Iterable[str] | None = TRACKING_CLASSES,
    allow_inverted: bool = False,
) -> TrackingRows:
    """Parse a tracking file: labels have 17 columns, results 17 or 18.

    Raises:
        UserError: a bad row, with file, line, column and what was expected.
    """
    counts = {True: (18,), False: (17,), None: (17, 18)}[scores]
    rows, width = _split(text, path, counts, TRACKING_COLUMNS)
    with_scores = scores if scores is not None else width == 18
    head, objects = _object_rows(rows, 2, TRACKING_COLUMNS, with_scores, path, classes, allow_inverted)
    if (head[:, 0] < 0).any():
        i = int(np.argmax(head[:, 0] < 0))
        raise _bad(path, rows[i][0], "frame", f"{head[i, 0]:g}", "a frame number from 0")
    return TrackingRows(head[:, 0].astype(np.int64), head[:, 1].astype(np.int64), objects)


def read_objects(
    path: Path, *, scores: bool | None = None, classes: Iterable[str] | None = OBJECT_CLASSES
) -> ObjectRows:
    """`parse_objects` on a file."""
    return parse_objects(read_text(path), path, scores=scores, classes=classes)


def read_tracking(
    path: Path, *, scores: bool | None = None, classes: Iterable[str] | None = TRACKING_CLASSES
) -> TrackingRows:
    """`parse_tracking` on a file."""
    return parse_tracking(read_text(path), path, scores=scores, classes=classes)


# ---------------------------------------------------------------- writing


def _number(value: float, decimals: int) -> str:
    """Format with at least `decimals` places, and as many as an exact round trip needs."""
    text = f"{value:.{decimals}f}"
    return text if float(text) == value else repr(float(value))


def _object_text(rows: ObjectRows, i: int, decimals: int, bare_unknowns: bool) -> str:
    """Format one row from the class name on; `bare_unknowns` writes -1, -10 and -1000 without decimals."""

    def number(value: float, unknown: float) -> str:
        return f"{unknown:.0f}" if bare_unknowns and value == unknown else _number(value, decimals)

    truncation = rows.truncation[i]
    tracking_style = truncation == int(truncation) and not bare_unknowns
    parts = [
        rows.names[i],
        str(int(truncation)) if tracking_style else number(truncation, -1.0),
        str(rows.occlusion[i]),
        number(rows.alpha[i], UNKNOWN_ALPHA),
        *(_number(v, decimals) for v in rows.boxes_xyxy[i]),
        *(number(v, UNKNOWN_DIMENSION) for v in rows.dimensions_hwl[i]),
        *(number(v, UNKNOWN_LOCATION) for v in rows.location_cam2[i]),
        number(rows.rotation_y[i], UNKNOWN_ALPHA),
    ]
    if rows.scores is not None:
        parts.append(_number(rows.scores[i], decimals))
    return " ".join(parts)


def format_objects(rows: ObjectRows, decimals: int = 2) -> str:
    """Format rows as an object label or result file."""
    return "".join(_object_text(rows, i, decimals, True) + "\n" for i in range(len(rows)))


def format_tracking(rows: TrackingRows, decimals: int = 6) -> str:
    """Format rows as a tracking label or result file."""
    return "".join(
        f"{rows.frame_ids[i]} {rows.track_ids[i]} {_object_text(rows.objects, i, decimals, False)}\n"
        for i in range(len(rows))
    )


# ---------------------------------------------------------------- calibration

_CALIBRATION_SHAPES = {
    "P0": (3, 4),
    "P1": (3, 4),
    "P2": (3, 4),
    "P3": (3, 4),
    "R0_rect": (3, 3),
    "Tr_velo_to_cam": (3, 4),
    "Tr_imu_to_velo": (3, 4),
    "Tr_cam_to_road": (3, 4),
    # width and height of the rectified images, in the raw recordings' files only
    "S_rect_00": (2,),
    "S_rect_01": (2,),
    "S_rect_02": (2,),
    "S_rect_03": (2,),
}
# the names of the tracking kit, the odometry kit and the raw recordings for the same matrices
_CALIBRATION_ALIASES = {
    "R_rect": "R0_rect",
    "Tr_velo_cam": "Tr_velo_to_cam",
    "Tr": "Tr_velo_to_cam",
    "Tr_imu_velo": "Tr_imu_to_velo",
    "R_rect_00": "R0_rect",
    **{f"P_rect_0{n}": f"P{n}" for n in range(4)},
}


def parse_calibration(text: str, path: Path | str = "<text>", needed: Iterable[str] = ("P2",)) -> dict[str, F64]:
    """Matrices of a calibration file by KITTI's object-kit names.

    Strict where a matrix is needed: lines of other names, and unusable lines of matrices that nobody needs, are
    passed over. Converters write P4, `Tr_velo_to_cam_0` or an empty `Tr_imu_to_velo`. Where a matrix stands under two
    names, the object kit's counts.

    Args:
        text: the file's text.
        path: the file, for messages.
        needed: names that must be there, in full.

    Raises:
        UserError: a needed matrix is missing, comes twice with different numbers, or is not the finite numbers of
            its shape.
    """
    wanted = set(needed)
    matrices: dict[str, F64] = {}
    written_as: dict[str, str] = {}
    for line, content in enumerate(text.lstrip("\ufeff").split("\n"), 1):
        tokens = content.split()
        if not tokens:
            continue
        label, *numbers = tokens
        label = label.rstrip(":")
        name = _CALIBRATION_ALIASES.get(label, label)
        if name not in _CALIBRATION_SHAPES:
            continue
        try:
            matrix = _matrix(name, numbers, f"{path}:{line}")
        except UserError:
            if name in wanted:
                raise
            continue
        if name not in matrices or (label == name and written_as[name] != name):
            matrices[name], written_as[name] = matrix, label
        elif name in wanted and written_as[name] == label and not np.array_equal(matrices[name], matrix):
            raise UserError(f"{path}:{line}: {name} for the second time", "every matrix once")
    for name in needed:
        if name not in matrices:
            camera = f"camera {name[1:]}" if name.startswith("P") else "this kind of file"
            count = math.prod(_CALIBRATION_SHAPES[name])
            raise UserError(f"{path}: has no {name}", f"a line '{name}: ' with the {count} numbers of {camera}")
    return matrices


def _matrix(name: str, numbers: list[str], where: str) -> F64:
    """The matrix of one line.

    Raises:
        UserError: not the finite numbers of its shape.
    """
    shape = _CALIBRATION_SHAPES[name]
    if len(numbers) != math.prod(shape):
        raise UserError(f"{where}: {name} has {len(numbers)} numbers", f"{math.prod(shape)} numbers")
    try:
        matrix = np.array(numbers, np.float64).reshape(shape)
    except ValueError:
        raise UserError(f"{where}: {name} holds something that is not a number", "numbers") from None
    if not np.isfinite(matrix).all():
        raise UserError(f"{where}: {name} holds NaN or infinity", "finite numbers")
    return matrix


def read_calibration(path: Path, needed: Iterable[str] = ("P2",)) -> dict[str, F64]:
    """`parse_calibration` on a file."""
    return parse_calibration(read_text(path), path, needed)


def format_calibration(matrices: dict[str, F64]) -> str:
    """Matrices as the text of a calibration file, to the bit."""

    def number(value: float) -> str:
        text = f"{value:.12e}"
        return text if float(text) == value else f"{value:.17e}"

    return "".join(f"{name}: {' '.join(number(v) for v in m.ravel())}\n" for name, m in matrices.items())
