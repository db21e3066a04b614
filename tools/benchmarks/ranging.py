"""How true the metres and seconds are, against KITTI's 3-D labels: `python -m tools.benchmarks.ranging`.

All 21 training sequences of the tracking set, Car and Pedestrian, every labelled object in every frame with nothing
left out: cut, hidden and distant ones count. Boxes are the labels' own (`truth`), RRC's detections that overlap a
label by 0.5 (`detections`), the labels' boxes ended where a nearer object hides the foot, as a detector of visible
parts would (`visible`), or what our own network finds where there are images (`network`, and once more with the
distances that it tells); ids come from the labels, so that the tracker's errors stay out of it. The distance of a
label is the length of (x, z) of its location, the
middle of the footprint. Frames are 0.1 s apart.

Parameters were chosen on even-numbered sequences; both halves are shown apart.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from perception.arrays import F64, I64
from perception.cameras.pinhole import PinholeCamera
from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.ranging.config import RangingConfig
from perception.ranging.filter import Drift
from perception.ranging.ranger import Ranger
from perception.ranging.size_priors import SIZE_PRIORS, UNKNOWN_SIZE
from perception.types import CLASS_NAMES, Track, Tracks
from tools.benchmarks.ranging_kitti import (
    MEASURED,
    STEP_NS,
    WITH_DISTANCES,
    Sequence3D,
    add_network_boxes,
    load_sequences,
    measured_sizes,
    true_closing,
)

BINS_M = ((0, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60), (0, 40), (0, 60))
SIMPLE = ("median_percent", "p90_percent", "off_by_half_percent")
USUAL = RangingConfig()


@dataclass(frozen=True)
class Options(CommandOptions):
    """Measure ranging against KITTI's 3-D labels."""

    data: Path = Path("../shared/data")
    """Folder with kitti/tracking, kitti/tracking_detections.zip and kitti/label_2_all.zip."""
    priors: bool = False
    """Only print the sizes of the classes, measured on the object set's training split."""
    ablation: bool = True
    """Also switch each ingredient off in turn, and try wrong calibrations."""
    network: bool = True
    """Also run the shipped network on the sequences that have images."""
    json: bool = False
    """Print JSON instead of Markdown."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """What a method said about every box it was given, NaN where it said nothing. Arrays (N,) or (N, 2)."""

    class_ids: I64
    even: np.ndarray
    truth: F64
    position: F64
    std: F64
    ttc_s: F64
    true_closing: F64
    """Metres a second towards us, NaN where the label's track is too short."""


# ---------------------------------------------------------------- methods

Method = Callable[[Sequence3D, str], tuple[F64, F64, F64]]
"""A sequence and which boxes → position (N, 2), standard deviation (N, 2), time to collision (N,)."""


def by_ranger(
    sequence: Sequence3D, boxes: str, config: RangingConfig = USUAL, memory: bool = True
) -> tuple[F64, F64, F64]:
    """`perception.ranging.ranger.Ranger`."""
    count = len(sequence.frame_ids)
    position, std, ttc = np.full((count, 2), np.nan), np.full((count, 2), np.nan), np.full(count, np.nan)
    ranger = Ranger(sequence.camera, CLASS_NAMES, config)
    depths = sequence.depths.get(boxes)
    for frame, (rows, tracks) in enumerate(sequence.frames(boxes)):
        if not memory:
            ranger.reset()
        told = None if depths is None else depths[rows].astype(np.float32)
        for row, track in zip(rows, ranger.update(tracks, frame * STEP_NS, sequence.size_hw, told), strict=True):
            if track.position_m is not None and track.position_std_m is not None:
                position[row], std[row] = track.position_m, track.position_std_m
                ttc[row] = np.nan if track.ttc_s is None else track.ttc_s
    return position, std, ttc


def by_plane(sequence: Sequence3D, boxes: str) -> tuple[F64, F64, F64]:
    """The simplest: where the view ray through the middle of the lower edge meets a flat road."""
    left, _, right, bottom = sequence.boxes[boxes].T
    position = sequence.camera.ground_position(np.stack([(left + right) / 2, bottom], axis=1))
    return position, np.full_like(position, np.nan), np.full(len(position), np.nan)


def by_height(sequence: Sequence3D, boxes: str) -> tuple[F64, F64, F64]:
    """The other simple one: as far as a usual object of its class would have to be."""
    left, top, right, bottom = sequence.boxes[boxes].T
    usual = np.array([SIZE_PRIORS.get(name, UNKNOWN_SIZE).height_m for name in CLASS_NAMES])[sequence.class_ids]
    ahead = sequence.camera.P_cam2[1, 1] * usual / np.maximum(bottom - top, 1)
    aside = ((left + right) / 2 - sequence.camera.P_cam2[0, 2]) / sequence.camera.P_cam2[0, 0] * ahead
    position = np.stack([aside, ahead], axis=1)
    return position, np.full_like(position, np.nan), np.full(len(position), np.nan)


def estimate(sequences: Sequence[Sequence3D], closing: Sequence[F64], boxes: str, method: Method) -> Estimates:
    """One method over all sequences, the rows it was given a box for."""
    parts = []
    for sequence, speed in zip(sequences, closing, strict=True):
        position, std, ttc = method(sequence, boxes)
        given = np.isfinite(sequence.boxes[boxes][:, 0])
        even = np.full(len(given), int(sequence.name) % 2 == 0)
        columns = (sequence.class_ids, even, sequence.location, position, std, ttc, speed)
        parts.append([column[given] for column in columns])
    return Estimates(*(np.concatenate(column) for column in zip(*parts, strict=True)))


# ---------------------------------------------------------------- measures


def only_cut(estimates: Estimates, sequences: Sequence[Sequence3D]) -> Estimates:
    """Of 'visible' boxes, those that something in front has cut."""
    cut = [s.cut_by_others[np.isfinite(s.boxes["visible"][:, 0])] for s in sequences]
    rows = np.flatnonzero(np.concatenate(cut))
    return Estimates(*(getattr(estimates, column.name)[rows] for column in fields(estimates)))


def measure(estimates: Estimates, class_name: str, even: bool, low: float, high: float) -> dict[str, Any] | None:
    """Errors of one class in one half and one range of true distance; None for fewer than 20 objects."""
    true_m = np.hypot(*estimates.truth.T)
    rows = (estimates.class_ids == CLASS_NAMES.index(class_name)) & (estimates.even == even)
    rows &= (true_m >= low) & (true_m < high)
    if rows.sum() < 20:
        return None
    position, truth = estimates.position[rows], estimates.truth[rows]
    relative = (np.hypot(*position.T) - true_m[rows]) / true_m[rows]
    answered = np.isfinite(relative)
    relative = np.where(answered, relative, np.inf)  # no answer, as above the horizon, is an endless error
    within = np.abs(position - truth) < 2 * estimates.std[rows]
    return {
        "count": int(rows.sum()),
        "median_percent": 100 * float(np.median(np.abs(relative))),
        "p90_percent": 100 * float(np.quantile(np.abs(relative), 0.9)),
        "bias_percent": 100 * float(np.median(relative)),
        "off_by_half_percent": 100 * float((np.abs(relative) > 0.5).mean()),
        "ahead_in_2_sigma_percent": 100 * float(within[:, 1].mean()),
        "aside_in_2_sigma_percent": 100 * float(within[:, 0].mean()),
    }


def measure_ttc(estimates: Estimates, even: bool) -> dict[str, Any]:
    """Time to collision of what truly comes in under 5 s, and how often it is told where nothing comes."""
    rows = (estimates.even == even) & np.isin(estimates.class_ids, [CLASS_NAMES.index(name) for name in MEASURED])
    closing = estimates.true_closing
    true_s = np.hypot(*estimates.truth.T) / np.where(closing > 0.5, closing, np.nan)
    soon = rows & (true_s < 5)
    told = soon & np.isfinite(estimates.ttc_s)
    error = np.abs(estimates.ttc_s - true_s)[told]
    alarms = rows & (estimates.ttc_s < 5) & np.isfinite(closing)
    return {
        "count": int(soon.sum()),
        "told_percent": 100 * float(told.sum() / max(soon.sum(), 1)),
        "median_s": float(np.median(error)),
        "median_percent": 100 * float(np.median(error / true_s[told])),
        "p90_s": float(np.quantile(error, 0.9)),
        "alarms_under_5_s": int(alarms.sum()),
        "of_these_receding": int((alarms & (closing < 0)).sum()),
        "of_these_truly_over_8_s": int((alarms & ~(true_s < 8)).sum()),
    }


def ablations() -> dict[str, Method]:
    """The ranger with one ingredient less at a time."""
    nothing = 1e-9
    plain = Drift()
    flat = replace(plain, pitch_std_rad=nothing, roll_std_rad=nothing)
    blind = {name: replace(size, height_spread=2.0) for name, size in SIZE_PRIORS.items()}
    thin = {n: replace(s, half_depth_m=1e-3, half_depth_side_m=0.0) for n, s in SIZE_PRIORS.items()}
    configs = {
        "all of it": RangingConfig(),
        "no roll shared by all objects": RangingConfig(drift=replace(plain, roll_std_rad=nothing)),
        "no pitch and no roll": RangingConfig(drift=flat),
        "no slope of its own under each object": RangingConfig(
            drift=replace(plain, slope_std_rad=nothing, ground_std_m=nothing)
        ),
        "no foot on the road (height alone)": RangingConfig(drift=replace(plain, slope_std_rad=3.0)),
        "no knowledge of heights (foot alone)": RangingConfig(sizes=blind),
        "no depth of the object's body": RangingConfig(sizes=thin),
        "hidden feet believed like others": RangingConfig(hidden_std_share=nothing),
        "no gate against surprises": RangingConfig(drift=replace(plain, gate_sigmas=1e6)),
    }
    methods: dict[str, Method] = {k: functools.partial(by_ranger, config=v) for k, v in configs.items()}
    methods["no memory (each frame by itself)"] = functools.partial(by_ranger, memory=False)
    return methods


def wrong_cameras() -> dict[str, Callable[[PinholeCamera], PinholeCamera]]:
    """What users get wrong."""

    def pitched(camera: PinholeCamera, degrees: float) -> PinholeCamera:
        return replace(camera, pitch_rad=float(np.radians(degrees)))

    def raised(camera: PinholeCamera, factor: float) -> PinholeCamera:
        return replace(camera, height_m=camera.height_m * factor)

    def zoomed(camera: PinholeCamera, factor: float) -> PinholeCamera:
        return replace(camera, P_cam2=camera.P_cam2 * np.array([[factor, 1, 1, 1], [1, factor, 1, 1], [1, 1, 1, 1]]))

    return {
        "nothing": lambda camera: camera,
        **{f"pitch by {d:+g}°": functools.partial(pitched, degrees=d) for d in (-2, -1, 1, 2)},
        **{f"height by {100 * f - 100:+.0f} %": functools.partial(raised, factor=f) for f in (0.9, 0.95, 1.05, 1.1)},
        **{f"focal length by {100 * f - 100:+.0f} %": functools.partial(zoomed, factor=f) for f in (0.95, 1.05)},
    }


def cost_us(objects: int, frames: int = 300) -> float:
    """Median microseconds of one update with this many cars that stand on a road."""
    rng = np.random.default_rng(objects)
    camera = PinholeCamera(np.array([[720.0, 0, 620, 0], [0, 720, 180, 0], [0, 0, 1, 0]]))
    ahead, middle = rng.uniform(6, 60, objects), rng.uniform(50, 1190, objects)
    ranger, spent = Ranger(camera, CLASS_NAMES), []
    for frame in range(frames):
        foot = 180 + 720 * 1.65 / ahead + rng.normal(0, 1, objects)
        height = 720 * 1.5 / ahead
        boxes = np.stack([middle - 0.6 * height, foot - height, middle + 0.6 * height, foot], axis=1)
        tracks = Tracks.from_rows(Track(i + 1, i % 3, box, 0.9) for i, box in enumerate(boxes.astype(np.float32)))
        begin = time.perf_counter()
        ranger.update(tracks, frame * STEP_NS, (375, 1242))
        spent.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(spent[10:]))


# ---------------------------------------------------------------- telling


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def _half(even: bool) -> str:
    return "even" if even else "odd"


def _number(value: object, digits: int = 1) -> str:
    if not isinstance(value, float):
        return str(value)
    return "∞" if np.isinf(value) else "" if np.isnan(value) else f"{value:.{digits}f}"


def accuracy(sequences: Sequence[Sequence3D], closing: Sequence[F64], kinds: Sequence[str]) -> list[dict[str, Any]]:
    """One record for each boxes × half × class × bin, with the simple methods beside ours."""
    methods: dict[str, Method] = {"ours": by_ranger, "plane": by_plane, "height": by_height}
    records: list[dict[str, Any]] = []
    for boxes in kinds:
        found = {name: estimate(sequences, closing, boxes, method) for name, method in methods.items()}
        if boxes == "visible":
            found = {name: only_cut(part, sequences) for name, part in found.items()}
        for class_name in MEASURED:
            for even in (True, False):
                for low, high in BINS_M[-1:] if boxes == "visible" else BINS_M:
                    ours = measure(found["ours"], class_name, even, low, high)
                    if ours is None:
                        continue
                    record: dict[str, Any] = {"boxes": boxes, "class": class_name, "half": _half(even)}
                    record |= {"low_m": low, "high_m": high, **ours}
                    for name in ("plane", "height"):
                        simple = measure(found[name], class_name, even, low, high) or {}
                        record |= {f"{name}_{key}": simple[key] for key in SIMPLE}
                    records.append(record)
        for even in (True, False) if boxes in ("truth", "detections") else ():
            ttc = measure_ttc(found["ours"], even)
            records.append({"boxes": boxes, "class": "ttc", "half": _half(even), **ttc})
    return records


def ablation(sequences: Sequence[Sequence3D], closing: Sequence[F64]) -> list[dict[str, Any]]:
    """Cars up to 40 m with each ingredient left out."""
    records = []
    for name, method in ablations().items():
        for boxes in ("truth", "detections"):
            found = estimate(sequences, closing, boxes, method)
            for even in (True, False):
                values = measure(found, "Car", even, 0, 40) or {}
                records.append({"without": name, "boxes": boxes, "half": _half(even), **values})
    return records


def miscalibration(sequences: Sequence[Sequence3D], closing: Sequence[F64]) -> list[dict[str, Any]]:
    """Cars up to 40 m, boxes of the labels, with a camera file that is wrong."""
    records = []
    for name, change in wrong_cameras().items():
        wrong = [replace(sequence, camera=change(sequence.camera)) for sequence in sequences]
        for label, method in (("ours", by_ranger), ("plane", by_plane)):
            found = estimate(wrong, closing, "truth", method)
            for even in (True, False):
                values = measure(found, "Car", even, 0, 40) or {}
                records.append({"wrong": name, "method": label, "half": _half(even), **values})
    return records


_COLUMNS = {
    "count": "objects",
    "median_percent": "median %",
    "p90_percent": "p90 %",
    "bias_percent": "bias %",
    "off_by_half_percent": "off by > 50 %",
    "ahead_in_2_sigma_percent": "ahead in 2σ %",
    "aside_in_2_sigma_percent": "aside in 2σ %",
    "plane_median_percent": "plane only: median %",
    "plane_p90_percent": "p90 %",
    "plane_off_by_half_percent": "off by > 50 %",
    "height_median_percent": "height only: median %",
    "height_p90_percent": "p90 %",
    "height_off_by_half_percent": "off by > 50 %",
}


def as_markdown(
    records: list[dict[str, Any]],
    switched: list[dict[str, Any]],
    wrong: list[dict[str, Any]],
    costs: dict[int, float],
) -> str:
    """Everything as tables."""
    parts = []
    for boxes in dict.fromkeys(r["boxes"] for r in records):
        for class_name in MEASURED:
            rows = [r for r in records if r["boxes"] == boxes and r["class"] == class_name]
            lines = [[r["half"], f"{r['low_m']}–{r['high_m']}", *(_number(r[key]) for key in _COLUMNS)] for r in rows]
            if not rows:
                continue
            header = ["half", "metres", *_COLUMNS.values()]
            parts.append(f"### {class_name}, boxes: {boxes}\n\n" + _table(header, lines))
    header = ["boxes", "half", "objects", "told %", "median error s", "median %", "p90 s", "alarms < 5 s"]
    header += ["of these receding", "of these truly > 8 s"]
    keys = ["count", "told_percent", "median_s", "median_percent", "p90_s", "alarms_under_5_s"]
    keys += ["of_these_receding", "of_these_truly_over_8_s"]
    rows = [r for r in records if r["class"] == "ttc"]
    digits = {"median_s": 2, "p90_s": 2}
    lines = [[r["boxes"], r["half"], *(_number(r[key], digits.get(key, 1)) for key in keys)] for r in rows]
    parts.append("### Time to collision, of what truly comes in under 5 s\n\n" + _table(header, lines))
    if switched:
        names = list(dict.fromkeys(r["without"] for r in switched))
        header = ["cars to 40 m", *(f"{b}, {h}: median / p90 / in 2σ %" for b, h in _cases())]
        lines = [[name, *(_triple(switched, name, *case) for case in _cases())] for name in names]
        parts.append("### What each ingredient brings\n\n" + _table(header, lines))
        rows = [r for r in wrong if r["method"] == "ours"]
        planes = {(r["wrong"], r["half"]): r["median_percent"] for r in wrong if r["method"] == "plane"}
        keys = ["median_percent", "p90_percent", "bias_percent", "ahead_in_2_sigma_percent"]
        lines = [
            [r["wrong"], r["half"], *(_number(r[k]) for k in keys), _number(planes[r["wrong"], r["half"]])]
            for r in rows
        ]
        header = ["camera file wrong in", "half", *(_COLUMNS[key] for key in keys), "plane only: median %"]
        parts.append("### What a wrong calibration costs: cars to 40 m, boxes: truth\n\n" + _table(header, lines))
    cost = _table(["objects", "median µs"], [[n, f"{us:.0f}"] for n, us in costs.items()])
    parts.append("### Cost of an update\n\n" + cost)
    return "\n\n".join(parts)


def _cases() -> list[tuple[str, str]]:
    return [(boxes, half) for boxes in ("truth", "detections") for half in ("even", "odd")]


def _triple(records: list[dict[str, Any]], name: str, boxes: str, half: str) -> str:
    (r,) = (r for r in records if (r["without"], r["boxes"], r["half"]) == (name, boxes, half))
    return " / ".join(_number(r[k]) for k in ("median_percent", "p90_percent", "ahead_in_2_sigma_percent"))


def main(argv: list[str]) -> int:
    """Measure and print."""
    options = parse_options(Options, argv, "python -m tools.benchmarks.ranging")
    if options.priors:
        sizes = measured_sizes(options.data / "kitti" / "label_2_all.zip")
        lines = [[_number(value, 3) for value in row.values()] for row in sizes]
        print(json.dumps(sizes) if options.json else _table(list(sizes[0]), lines))
        return 0
    sequences = load_sequences(options.data)
    closing = [true_closing(sequence) for sequence in sequences]
    print(f"{len(sequences)} sequences, {sum(len(s.frame_ids) for s in sequences)} objects", file=sys.stderr)
    records = accuracy(sequences, closing, ("truth", "detections", "visible"))
    if options.network:
        with_images = add_network_boxes(sequences, options.data)
        kinds = [kind for kind in ("network", WITH_DISTANCES) if all(kind in s.boxes for s in with_images)]
        records += accuracy(with_images, [true_closing(sequence) for sequence in with_images], kinds)
    switched = ablation(sequences, closing) if options.ablation else []
    wrong = miscalibration(sequences, closing) if options.ablation else []
    costs = {objects: cost_us(objects) for objects in (1, 10, 20, 100)}
    if options.json:
        print(json.dumps({"accuracy": records, "ablation": switched, "miscalibration": wrong, "cost_us": costs}))
    else:
        print(as_markdown(records, switched, wrong, costs))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
