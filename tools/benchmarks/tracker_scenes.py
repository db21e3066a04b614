"""Scenes for measuring trackers: detections of synthetic drives, made as hard as one likes, and plain crowds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.synthetic_street.config import StreetConfig
from datasets.synthetic_street.drive import drive_truth
from perception.formats.kitti import ObjectRows, TrackingRows
from perception.types import Detections

TRUTH_FPS = 30.0
DIFFICULTIES: dict[str, tuple[float, ...]] = {
    "miss": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    "noise": (0.0, 0.02, 0.04, 0.06, 0.08, 0.1),
    "blackout_s": (0.0, 0.2, 0.4, 0.8, 1.2, 1.6),
    "fps": (30.0, 15.0, 10.0, 6.0, 5.0, 3.0),
    "drop": (0.0, 0.1, 0.2, 0.3, 0.5),
    "clutter": (0.0, 0.5, 1.0, 2.0, 4.0),
}
LABELS = {
    "miss": "share of objects missed",
    "noise": "noise of boxes, share of their size",
    "blackout_s": "occlusions last longer by, s",
    "fps": "frames a second",
    "drop": "share of frames dropped",
    "clutter": "false detections a frame",
}


def drives(seeds: tuple[int, ...], frames: int) -> list[TrackingRows]:
    """Return the ground truth of synthetic drives at `TRUTH_FPS`, without images."""
    return [drive_truth(StreetConfig(seed=seed, frames=frames, fps=TRUTH_FPS, people=1.5)) for seed in seeds]


def detect(
    truth: TrackingRows,
    seed: int,
    *,
    miss: float = 0.05,
    noise: float = 0.02,
    blackout_s: float = 0.0,
    fps: float = 10.0,
    drop: float = 0.0,
    clutter: float = 0.2,
) -> tuple[TrackingRows, list[tuple[int, Detections]], int, float]:
    """Simulate a detector on a drive.

    Args:
        truth: ground truth at `TRUTH_FPS`.
        seed: random seed.
        miss: probability that a visible object is missed; 0.3 plus twice that for a largely occluded one.
        noise: standard deviation of each box coordinate relative to the box size; half its variance is correlated
            over a second.
        blackout_s: time for which an object stays undetected after it was largely occluded, seconds.
        fps: frame rate of the camera, a divisor of `TRUTH_FPS`.
        drop: probability that a frame is dropped.
        clutter: mean number of false detections per frame, of low score.

    Returns:
        Labels, frames, number of frames and frame rate, renumbered to the camera's frame rate.
    """
    rng = np.random.default_rng(seed)
    every = round(TRUTH_FPS / fps)
    names = np.array(truth.objects.names)
    kept = truth.frame_ids % every == 0
    labels = truth[kept]
    labels = TrackingRows(labels.frame_ids // every, labels.track_ids, _whole_truncation(labels))
    n_frames = int(truth.frame_ids.max()) // every + 1
    class_ids = np.select([names == "Car", names == "Pedestrian"], [0, 1], -1)
    seen_again = _after_hiding(truth, blackout_s)
    lasting: dict[int, np.ndarray] = {}
    frames = []
    for i in range(n_frames):
        rows = np.flatnonzero((truth.frame_ids == i * every) & (class_ids >= 0) & seen_again)
        hidden = truth.objects.occlusion[rows] >= 2
        found = rows[rng.random(len(rows)) >= np.where(hidden, min(1, 2 * miss + 0.3), miss)]
        boxes = _with_noise(truth[found], noise, np.exp(-1 / fps), lasting, rng)
        scores = np.clip(rng.normal(0.9, 0.08, len(found)) - 0.3 * (truth.objects.occlusion[found] >= 1), 0.2, 1)
        false = rng.poisson(clutter)
        corner = rng.uniform([0, 150], [1200, 220], (false, 2))
        false_boxes = np.concatenate([corner, corner + rng.uniform(15, 90, (false, 2))], axis=1)
        detections = Detections(
            np.concatenate([boxes, false_boxes]).astype(np.float32),
            np.concatenate([scores, rng.uniform(0.1, 0.7, false)]).astype(np.float32),
            np.concatenate([class_ids[found], rng.integers(0, 2, false)]),
        )
        if rng.random() >= drop or i == 0:
            frames.append((i, detections))
    return labels, frames, n_frames, fps


def _with_noise(
    truth: TrackingRows, noise: float, keep: float, lasting: dict[int, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Return the boxes (N, 4) with noise, of which half the variance is correlated over time.

    Args:
        truth: rows of one frame.
        noise: standard deviation relative to the box size.
        keep: correlation of the lasting part from frame to frame.
        lasting: lasting part (4,) by track id, updated.
        rng: random generator.
    """
    boxes, track_ids = truth.objects.boxes_xyxy, truth.track_ids.tolist()
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    for track_id in track_ids:
        old = lasting.get(track_id, rng.normal(0, 1, 4))
        lasting[track_id] = keep * old + np.sqrt(1 - keep**2) * rng.normal(0, 1, 4)
    slow = np.array([lasting[t] for t in track_ids]).reshape(-1, 4)
    return boxes + noise * size * np.sqrt(0.5) * (slow + rng.normal(0, 1, slow.shape))


def _whole_truncation(rows: TrackingRows) -> ObjectRows:
    """Convert truncation to the levels 0, 1, 2 of KITTI's tracking labels."""
    cut = rows.objects.truncation
    return replace(rows.objects, truncation=np.where(cut > 0.5, 2.0, np.where(cut > 0.02, 1.0, np.minimum(cut, 0))))


def _after_hiding(truth: TrackingRows, blackout_s: float) -> np.ndarray:
    """Return False for rows of objects that were largely occluded less than `blackout_s` ago (N,)."""
    seen = np.ones(len(truth), bool)
    if blackout_s <= 0:
        return seen
    for track_id in np.unique(truth.track_ids[truth.track_ids >= 0]):
        rows = np.flatnonzero(truth.track_ids == track_id)
        frames, hidden = truth.frame_ids[rows], truth.objects.occlusion[rows] >= 2
        last = np.maximum.accumulate(np.where(hidden, frames, -(10**9)))
        seen[rows] = frames - last > blackout_s * TRUTH_FPS
    return seen


def crowd(count: int, frames: int, seed: int = 0) -> list[Detections]:
    """Return `count` boxes of two classes that move across the frame, with occasional misses."""
    rng = np.random.default_rng(seed)
    centre, velocity = rng.uniform([0, 150], [1242, 250], (count, 2)), rng.normal(0, 4, (count, 2))
    height = rng.uniform(20, 80, count)
    half = np.stack([height * rng.uniform(0.4, 2, count), height], axis=1) / 2
    found = []
    for i in range(frames):
        place = centre + velocity * i + rng.normal(0, 0.5, (count, 2))
        place[:, 0] %= 1242
        seen = rng.random(count) >= 0.03
        found.append(
            Detections(
                np.concatenate([place - half, place + half], axis=1)[seen].astype(np.float32),
                rng.uniform(0.4, 1, int(seen.sum())).astype(np.float32),
                (np.arange(count) % 2)[seen],
            )
        )
    return found


def scored(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Detections], Detections]:
    """Return a function that changes the scores of detections."""
    return lambda found: replace(found, scores=change(found.scores).astype(np.float32))


HABITS: dict[str, Callable[[Detections], Detections]] = {
    "s, as they are": lambda found: found,
    "all 1": scored(np.ones_like),
    "all 1, from 0.5 on": lambda found: scored(np.ones_like)(found[found.scores > 0.5]),
    "all 0.5": scored(lambda s: np.full_like(s, 0.5)),
    "0.3 + 0.3 s": scored(lambda s: 0.3 + 0.3 * s),
    "s / 2": scored(lambda s: s / 2),
    "s cubed": scored(lambda s: s**3),
    "cube root of s": scored(np.cbrt),
    "100 s": scored(lambda s: 100 * s),
}
"""Score distributions of other detectors, for the same boxes."""


def draw_curves(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Plot one panel per difficulty."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained", sharey=True)
    for axis, (knob, by_tracker) in zip(axes.flat, curves.items(), strict=True):
        values = DIFFICULTIES[knob]
        for name, hota in by_tracker.items():
            ours = name.endswith("drivetrack")
            axis.plot(values, hota, marker="o", markersize=4, linewidth=2.4 if ours else 1.3, label=name)
        axis.set_xlabel(LABELS[knob])
        axis.grid(alpha=0.3)
        if knob == "fps":
            axis.set_xscale("log")
            axis.set_xticks(values, [f"{v:g}" for v in values])
            axis.minorticks_off()
            axis.invert_xaxis()
    for axis in axes[:, 0]:
        axis.set_ylabel("HOTA, mean of Car and Pedestrian")
    axes[0, 0].legend(fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
