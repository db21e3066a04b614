"""The values that travel through the pipeline: frozen, shape-checked once, numpy inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np

from perception.arrays import F32, F64, I64, U8

if TYPE_CHECKING:
    from perception.cameras.letterbox import Letterbox
    from perception.cameras.pinhole import PinholeCamera


CLASS_NAMES: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")
"""What the networks of this project find, in the order of `class_ids`. A model file carries its own list."""


def _require_shape(name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    if array.ndim != len(shape) or any(
        want is not None and got != want for got, want in zip(array.shape, shape, strict=True)
    ):
        wanted = "(" + ", ".join("N" if want is None else str(want) for want in shape) + ")"
        raise ValueError(f"{name}: found shape {array.shape}, expected {wanted}")


@dataclass(frozen=True, eq=False)
class Frame:
    """One image and when it was taken."""

    image_bgr: U8
    """(H, W, 3) uint8, blue first."""
    timestamp_ns: int
    """Moment of capture on the source's one monotonic clock, nanoseconds."""
    frame_id: int
    """Number the source gave it, from 0; gaps show frames that were lost or skipped."""
    source: str = ""
    """Name of the source, for runs with several."""
    camera: PinholeCamera | None = None
    """Calibration where it is known; without it nothing metric is reported."""
    dropped_before: int = 0
    """Frames lost between the previous frame that was delivered and this one."""
    captured_ns: int | None = None
    """Live sources only: the moment of capture on `time.monotonic_ns()`, from which age counts."""

    def __post_init__(self) -> None:
        _require_shape("Frame.image_bgr", self.image_bgr, (None, None, 3))
        if self.image_bgr.dtype != np.uint8:
            raise ValueError(f"Frame.image_bgr: found {self.image_bgr.dtype}, expected uint8")

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image_bgr.shape[0], self.image_bgr.shape[1]


@dataclass(frozen=True, eq=False)
class Detections:
    """What the network found in one frame, in pixels of the original image."""

    boxes_xyxy: F32
    """(N, 4) float32: left, top, right, bottom."""
    scores: F32
    """(N,) float32 in 0..1."""
    class_ids: I64
    """(N,) int64, index into the model's class names."""
    depths: F32 | None = None
    """(N, 2) float32: metres ahead over the focal length in pixels of the original image, and the relative standard
    deviation; None where the network gives none. Metres are those to the centre of the object's 3-D box."""
    cuboids: F32 | None = None
    """(N, 9) float32: u and v of the centre of the 3-D box in pixels of the original image, which may lie outside it;
    length, width and height in metres; KITTI's observation angle in radians, -pi..pi; the relative standard deviation
    of the size, the standard deviation of the angle's axis in radians, and the probability that front and rear are
    confused. Model files of earlier versions lack the last, (N, 8). None where the network gives none. With `depths`
    and a calibration, `perception.cameras.cuboids` places them in space."""

    def __post_init__(self) -> None:
        _require_shape("Detections.boxes_xyxy", self.boxes_xyxy, (None, 4))
        _require_shape("Detections.scores", self.scores, (len(self.boxes_xyxy),))
        _require_shape("Detections.class_ids", self.class_ids, (len(self.boxes_xyxy),))
        if self.depths is not None:
            _require_shape("Detections.depths", self.depths, (len(self.boxes_xyxy), 2))
        if self.cuboids is not None:
            columns = 8 if self.cuboids.shape[1:] == (8,) else 9
            _require_shape("Detections.cuboids", self.cuboids, (len(self.boxes_xyxy), columns))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray | slice) -> Detections:
        """A subset by boolean mask, integer array or slice."""
        depths = None if self.depths is None else self.depths[index]
        cuboids = None if self.cuboids is None else self.cuboids[index]
        return Detections(self.boxes_xyxy[index], self.scores[index], self.class_ids[index], depths, cuboids)

    @staticmethod
    def empty() -> Detections:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class RoadMask:
    """Road confidence as the network gave it, with the way back to the original image."""

    confidence: U8
    """(h, w) uint8 at the network's output resolution; 255 = certainly road."""
    letterbox: Letterbox
    """How the frame lies in the network's input."""

    def at_frame_size(self) -> U8:
        """Confidence at the size of the original frame, (H, W) uint8."""
        return self.letterbox.mask_to_frame(self.confidence)


TrackState = Literal["tentative", "confirmed", "lost"]
TRACK_STATES: tuple[TrackState, ...] = ("tentative", "confirmed", "lost")
TENTATIVE, CONFIRMED, LOST = range(3)
"""`Tracks.states` as numbers: the index into `TRACK_STATES`."""


class Track(NamedTuple):
    """One row of `Tracks`: an object followed over time, as of one frame.

    Metric fields are None without a calibration, and where they are not known.
    """

    track_id: int
    """From 1, unique to the tracker instance, never reused."""
    class_id: int
    box_xyxy: F32
    """(4,) float32, pixels of the original image."""
    score: float
    """Score of the latest detection that matched."""
    state: TrackState = "confirmed"
    age_frames: int = 1
    """Frames since the track started, this one included."""
    frames_since_seen: int = 0
    """0 where a detection matched in this frame."""
    position_m: tuple[float, float] | None = None
    """(x right, z ahead) in metres, camera coordinates on the road plane."""
    position_std_m: tuple[float, float] | None = None
    """One standard deviation of each of `position_m`."""
    distance_m: float | None = None
    """Length of `position_m`."""
    velocity_mps: tuple[float, float] | None = None
    """(x, z) relative to the camera, metres per second."""
    ttc_s: float | None = None
    """Seconds until it reaches the camera at the present closing speed; None where it does not approach."""
    bottom_m: float | None = None
    """How far its underside lies below the camera, metres along gravity."""
    size_m: tuple[float, float, float] | None = None
    """(length, width, height) in metres; None where the network gives no 3-D boxes."""
    size_std_m: tuple[float, float, float] | None = None
    """One standard deviation of each of `size_m`."""
    heading_rad: float | None = None
    """KITTI's `rotation_y`, -π to π: 0 faces to the right, -π/2 away from the camera, π/2 towards it."""
    heading_std_rad: float | None = None
    """One standard deviation of `heading_rad`; above 1 where front and rear are not told apart."""


_PAIRS = ("position_m", "position_std_m", "velocity_mps")
_TRIPLES = ("size_m", "size_std_m")
_NUMBERS = ("distance_m", "ttc_s", "bottom_m", "heading_rad", "heading_std_rad")
"""Metric fields of a track by their number of values."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """All objects that a tracker reports for one frame, in columns. Iterating yields `Track` rows.

    Metric columns are None without a calibration; NaN marks a row without that value.
    """

    track_ids: I64
    """(N,) from 1, unique to the tracker instance, never reused."""
    class_ids: I64
    """(N,) index into the model's class names."""
    boxes_xyxy: F32
    """(N, 4) float32, pixels of the original image."""
    scores: F64
    """(N,) score of the latest detection that matched."""
    states: I64
    """(N,) TENTATIVE, CONFIRMED or LOST."""
    ages: I64
    """(N,) frames since the track started, this one included."""
    frames_since_seen: I64
    """(N,) 0 where a detection matched in this frame."""
    position_m: F64 | None = None
    """(N, 2) x right, z ahead, metres, camera coordinates on the road plane."""
    position_std_m: F64 | None = None
    """(N, 2) one standard deviation of each of `position_m`."""
    distance_m: F64 | None = None
    """(N,) length of `position_m`."""
    velocity_mps: F64 | None = None
    """(N, 2) x, z relative to the camera, metres per second."""
    ttc_s: F64 | None = None
    """(N,) seconds until it reaches the camera at the present closing speed; NaN where it does not approach."""
    bottom_m: F64 | None = None
    """(N,) how far the underside lies below the camera, metres along gravity."""
    size_m: F64 | None = None
    """(N, 3) length, width, height in metres; None where the network gives no 3-D boxes."""
    size_std_m: F64 | None = None
    """(N, 3) one standard deviation of each of `size_m`."""
    heading_rad: F64 | None = None
    """(N,) KITTI's `rotation_y`, -π to π: 0 faces to the right, -π/2 away from the camera, π/2 towards it."""
    heading_std_rad: F64 | None = None
    """(N,) one standard deviation of `heading_rad`; above 1 where front and rear are not told apart."""

    def __post_init__(self) -> None:
        count = len(self.track_ids)
        lengths = len(self.class_ids), len(self.scores), len(self.states), len(self.ages), len(self.frames_since_seen)
        if self.boxes_xyxy.shape == (count, 4) and lengths == (count,) * 5:
            return
        _require_shape("Tracks.boxes_xyxy", self.boxes_xyxy, (count, 4))
        for name in ("class_ids", "scores", "states", "ages", "frames_since_seen"):
            _require_shape(f"Tracks.{name}", getattr(self, name), (count,))

    def __len__(self) -> int:
        return len(self.track_ids)

    @overload
    def __getitem__(self, index: int) -> Track: ...
    @overload
    def __getitem__(self, index: np.ndarray | slice) -> Tracks: ...
    def __getitem__(self, index: int | np.ndarray | slice) -> Track | Tracks:
        """One row by number; a subset by boolean mask, integer array or slice."""
        if isinstance(index, (int, np.integer)):
            row = range(len(self))[index]
            return next(iter(self[row : row + 1]))
        columns = {name: column for name, column in vars(self).items() if column is not None}
        return Tracks(**{name: column[index] for name, column in columns.items()})

    def __iter__(self) -> Iterator[Track]:
        return map(
            Track,
            self.track_ids.tolist(),
            self.class_ids.tolist(),
            self.boxes_xyxy,
            self.scores.tolist(),
            map(TRACK_STATES.__getitem__, self.states.tolist()),
            self.ages.tolist(),
            self.frames_since_seen.tolist(),
            _tuples_or_none(self.position_m, len(self)),
            _tuples_or_none(self.position_std_m, len(self)),
            _values_or_none(self.distance_m, len(self)),
            _tuples_or_none(self.velocity_mps, len(self)),
            _values_or_none(self.ttc_s, len(self)),
            _values_or_none(self.bottom_m, len(self)),
            _tuples_or_none(self.size_m, len(self)),
            _tuples_or_none(self.size_std_m, len(self)),
            _values_or_none(self.heading_rad, len(self)),
            _values_or_none(self.heading_std_rad, len(self)),
        )

    @staticmethod
    def empty() -> Tracks:
        return Tracks.from_rows(())

    @staticmethod
    def from_rows(rows: Iterable[Track]) -> Tracks:
        """Columns from single tracks."""
        rows = list(rows)
        whole = np.array(
            [(t.track_id, t.class_id, TRACK_STATES.index(t.state), t.age_frames, t.frames_since_seen) for t in rows],
            np.int64,
        ).reshape(-1, 5)
        metric: dict[str, F64] = {}
        nan = math.nan
        for names, unknown in ((_PAIRS, (nan, nan)), (_TRIPLES, (nan, nan, nan)), (_NUMBERS, nan)):
            for name in names:
                values = [getattr(t, name) for t in rows]
                if any(value is not None for value in values):
                    metric[name] = np.array([unknown if value is None else value for value in values], np.float64)
        return Tracks(
            track_ids=whole[:, 0],
            class_ids=whole[:, 1],
            boxes_xyxy=np.array([t.box_xyxy for t in rows], np.float32).reshape(-1, 4),
            scores=np.array([t.score for t in rows], np.float64),
            states=whole[:, 2],
            ages=whole[:, 3],
            frames_since_seen=whole[:, 4],
            **metric,
        )


def _tuples_or_none(column: F64 | None, count: int) -> Iterable[tuple[float, ...] | None]:
    """Rows of an optional column (N, M); NaN becomes None."""
    if column is None:
        return repeat(None, count)
    return [None if row[0] != row[0] else tuple(row) for row in column.tolist()]


def _values_or_none(column: F64 | None, count: int) -> Iterable[float | None]:
    """Values of an optional column (N,); NaN becomes None."""
    if column is None:
        return repeat(None, count)
    return [None if value != value else value for value in column.tolist()]


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Where two networks differ in one frame: sure detections of one that the other has nothing at."""

    only_first: Detections
    only_second: Detections


@dataclass(frozen=True, eq=False)
class Result:
    """All that the pipeline reports for one frame."""

    frame: Frame
    detections: Detections
    tracks: Tracks
    road: RoadMask | None
    timings_ms: dict[str, float] = field(default_factory=dict)
    """Duration of each stage in milliseconds."""
    age_ms: float | None = None
    """Live sources only: how old the frame was when the result left the pipeline."""
    disagreement: Disagreement | None = None
    """Where a second network or camera differs, with `perception run --second` or `--second-camera`."""


MOMENTARY = frozenset({"corrupt", "size-changed", "ended"})
"""These happen; they don't last, and no event ends them."""
HealthKind = Literal[
    "lost",
    "stalled",
    "frozen",
    "black",
    "overexposed",
    "blurred",
    "disagreement",
    "unpaired",
    "unfamiliar",
    "size-changed",
    "corrupt",
    "sink-failed",
    "failed",
    "ended",
]


@dataclass(frozen=True)
class HealthEvent:
    """Something went wrong, or is well again."""

    kind: HealthKind
    source: str
    """Name of the source, or of the sink for `sink-failed`."""
    active: bool
    """True when it begins (or happened once), False when it is over."""
    timestamp_ns: int | None = None
    """Of the frame that showed it, on the source's clock; None where no frame did."""
    detail: str = ""
    """For people. Holds no password."""


EventListener = Callable[[HealthEvent], None]
