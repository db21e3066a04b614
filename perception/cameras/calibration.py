"""Where a camera looks, from what can be seen in its images: lane lines, the horizon, or how tracks move.

Lines that are parallel to the road meet in one point of the image, the vanishing point; so do the trails of all
feet while the car drives straight (the focus of expansion). It lies on the horizon, straight ahead of the car, and
so gives pitch and yaw.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from perception.arrays import F64, U8
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError

RINGS_M = (10, 20, 30, 50)
"""Distances that the check image shows."""
MIN_TRAILS = 8
"""Trails that must agree on where the car drives."""
_INK, _HALO = (40, 220, 255), (30, 30, 30)


def focal_from_fov(width: int, fov_deg: float) -> float:
    """Focal length in pixels of a camera that sees `fov_deg` from the left border to the right.

    Raises:
        UserError: no such angle.
    """
    if not 5 <= fov_deg <= 170:
        raise UserError(f"--fov-deg {fov_deg:g}", "the horizontal field of view, 5 to 170 degrees", "--fov-deg 90")
    return width / 2 / float(np.tan(np.radians(fov_deg) / 2))


def meeting_point(lines_xyxy: F64, weights: F64 | None = None) -> tuple[float, float]:
    """The point with the least sum of squared distances to lines through two points each.

    Args:
        lines_xyxy: (N, 4), N ≥ 2.
        weights: (N,) of the squares.

    Raises:
        UserError: the lines are parallel in the image, or a line's two points are one.
    """
    along = lines_xyxy[:, 2:] - lines_xyxy[:, :2]
    lengths = np.hypot(along[:, 0], along[:, 1])
    if (lengths < 1).any():
        x, y = lines_xyxy[int(np.argmin(lengths)), :2]
        raise UserError(
            f"a line from ({x:g}, {y:g}) to the same point",
            "two points far apart on one lane line",
            "--frame IMAGE --page to click them",
        )
    normals = np.stack([-along[:, 1], along[:, 0]], axis=1) / lengths[:, None]
    offsets = (normals * lines_xyxy[:, :2]).sum(axis=1)
    root = np.sqrt(np.ones(len(normals)) if weights is None else weights)
    spread = np.linalg.svd(normals * root[:, None], compute_uv=False)
    if len(normals) < 2 or spread[-1] < 0.02 * spread[0]:
        raise UserError(
            "the lines do not meet",
            "two or more lines that run side by side along the road",
            "--frame IMAGE --page to click them",
        )
    point = np.linalg.lstsq(normals * root[:, None], offsets * root, rcond=None)[0]
    return float(point[0]), float(point[1])


def pitch_yaw_deg(
    vanishing_point: tuple[float, float], focal_px: float, centre: tuple[float, float]
) -> tuple[float, float]:
    """Pitch (positive down) and yaw (positive right), degrees, of a camera that sees straight ahead at that point."""
    right, down = (vanishing_point[0] - centre[0]) / focal_px, (vanishing_point[1] - centre[1]) / focal_px
    pitch = np.arctan(-down)
    yaw = np.arctan(-right * np.cos(pitch))
    return float(np.degrees(pitch)) + 0.0, float(np.degrees(yaw)) + 0.0  # + 0.0: no minus zero


# ---------------------------------------------------------------- from tracked motion


@dataclass(frozen=True)
class Expansion:
    """Where the trails of all feet come from."""

    point: tuple[float, float]
    trails: int
    """Trails that were long and straight enough."""
    agreeing: int
    """Of these, how many point at it."""
    error_px: float
    """Median distance of the agreeing trails' lines from it."""


def foot_trails(lines: Iterable[str], path: Path | str = "<text>") -> list[F64]:
    """The path of each track's foot (middle of the lower edge), (n, 2) pixels, from the lines of `tracks.jsonl`.

    Boxes that the border cuts are left out: their foot is not where it seems.

    Raises:
        UserError: a line that is not a record; a last line that was cut short is let pass, but not an only one.
    """
    trails: dict[tuple[str, int], list[tuple[float, float]]] = {}
    broken: int | None = None
    records = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if broken is not None:
            break
        try:
            record = json.loads(line)
            if record.get("type", "frame") != "frame":
                records += 1
                continue
            height, width = record["size_hw"]
            for track in record["tracks"]:
                left, _, right, bottom = map(float, track["box_xyxy"])
                inside = left > 3 and right < width - 3 and bottom < height - 3
                if inside and track.get("frames_since_seen", 0) == 0:
                    key = (str(record.get("source", "")), int(track["track_id"]))
                    trails.setdefault(key, []).append(((left + right) / 2, bottom))
            records += 1
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            broken = number
    else:
        broken = broken if not records else None
    if broken is not None:
        raise UserError(f"{path}:{broken}: not a record of tracks", "tracks.jsonl of a run", "perception run VIDEO")
    return [np.array(points) for points in trails.values()]


def focus_of_expansion(trails: Sequence[F64], size_hw: tuple[int, int], tolerance_px: float = 6.0) -> Expansion:
    """The point that most trails point at, by trying every pair of them (RANSAC without the dice).

    A trail counts that is at least 8 frames and 25 pixels long and straight to within a tenth of that. Things that
    cross the road, and curves of our own, point elsewhere and are outvoted. Parts where the car stood still or
    turned make it refuse, and so do two points that many agree on. Of KITTI's 21 sequences it takes the 6 straight
    ones, and finds their pitch to 0.8° and their yaw to 1.9° of what KITTI's calibration says.

    Raises:
        UserError: fewer than 8 such trails, or no point on which at least 8 and half of them agree, or two.
    """
    lines = np.array([line for trail in trails if (line := _straight_line(trail)) is not None]).reshape(-1, 4)
    found = f"{len(lines)} long, straight trails of {len(trails)}"
    wanted = "a stretch of straight driving past parked or slower objects, at least 8 trails that agree"
    if len(lines) < MIN_TRAILS:
        raise UserError(found, wanted, "a longer run, or --lane-line")
    lengths = np.hypot(lines[:, 2] - lines[:, 0], lines[:, 3] - lines[:, 1])
    lines = lines[np.argsort(-lengths)[:120]]
    lengths = np.sort(lengths)[::-1][:120]
    point, agree, rival = _most_agreed(lines, size_hw, tolerance_px)
    if agree.sum() < max(MIN_TRAILS, len(lines) / 2):
        raise UserError(f"{found}; at most {agree.sum()} agree on a point", wanted, "a straight part, or --lane-line")
    if rival > 0.8 * agree.sum():
        text = f"{found}; {agree.sum()} agree on one point, {rival} on another"
        raise UserError(text, wanted, "a straight part, or --lane-line")
    for _ in range(3):
        point = meeting_point(lines[agree], lengths[agree])
        agree = _distances(lines, np.array([point]))[0] < tolerance_px
    error = float(np.median(_distances(lines[agree], np.array([point]))[0]))
    return Expansion(point, len(lines), int(agree.sum()), error)


def _straight_line(trail: F64) -> F64 | None:
    """(4,) the best line through a trail from end to end, None for one that is short or bent."""
    if len(trail) < 8:
        return None
    centre = trail.mean(axis=0)
    _, scales, axes = np.linalg.svd(trail - centre, full_matrices=False)
    along = (trail - centre) @ axes[0]
    length = float(along.max() - along.min())
    if length < 25 or scales[1] / np.sqrt(len(trail)) > 0.03 * length:
        return None
    return np.concatenate([centre + along.min() * axes[0], centre + along.max() * axes[0]])


def _distances(lines_xyxy: F64, points: F64) -> F64:
    """Distance of each point from each line, (P, N)."""
    along = lines_xyxy[:, 2:] - lines_xyxy[:, :2]
    normals = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.hypot(along[:, 0], along[:, 1])[:, None]
    return np.abs(points @ normals.T - (normals * lines_xyxy[:, :2]).sum(axis=1))


def _most_agreed(
    lines: F64, size_hw: tuple[int, int], tolerance_px: float
) -> tuple[tuple[float, float], np.ndarray, int]:
    """The crossing of two lines that most lines pass, which those are (N,), and how many pass one far from it."""
    first, second = np.triu_indices(len(lines), 1)
    normals = np.stack([lines[:, 1] - lines[:, 3], lines[:, 2] - lines[:, 0]], axis=1)
    offsets = (normals * lines[:, :2]).sum(axis=1)
    cross = normals[first, 0] * normals[second, 1] - normals[first, 1] * normals[second, 0]
    usable = np.abs(cross) > 1e-6
    first, second, cross = first[usable], second[usable], cross[usable]
    x = (offsets[first] * normals[second, 1] - offsets[second] * normals[first, 1]) / cross
    y = (normals[first, 0] * offsets[second] - normals[second, 0] * offsets[first]) / cross
    # the way ahead is in the middle half of the image, or this camera does not look ahead
    near = (np.abs(x / size_hw[1] - 0.5) < 0.25) & (np.abs(y / size_hw[0] - 0.5) < 0.5)
    points = np.stack([x[near], y[near]], axis=1)
    if not len(points):
        return (0.0, 0.0), np.zeros(len(lines), bool), 0
    agree = _distances(lines, points) < tolerance_px  # (P, N)
    counts = agree.sum(axis=1)
    best = int(np.argmax(counts))
    away = np.hypot(*(points - points[best]).T) > 0.04 * size_hw[1]
    return (float(points[best, 0]), float(points[best, 1])), agree[best], int(counts[away].max(initial=0))


# ---------------------------------------------------------------- looking at it


def ground_to_pixel(camera: PinholeCamera, points_m: F64) -> F64:
    """Points on the road (right, ahead) in metres, (N, 2) → pixels (N, 2); NaN behind the camera."""
    cos, sin = np.cos(camera.pitch_rad), np.sin(camera.pitch_rad)
    down = np.full(len(points_m), camera.height_m)
    right, ahead = points_m.T
    in_camera = np.stack([right, cos * down - sin * ahead, sin * down + cos * ahead], axis=1)
    pixels = camera.project(in_camera)
    pixels[in_camera[:, 2] < 0.1] = np.nan
    return pixels


def draw_check(image_bgr: U8, camera: PinholeCamera) -> U8:
    """A copy of the image with the horizon and rings of equal distance on the road."""
    image = image_bgr.copy()
    scale = max(image.shape[0] / 720, 0.5)
    thick = max(1, round(2 * scale))
    angles = np.radians(np.linspace(-80, 80, 321))
    bearings = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    horizon = ground_to_pixel(camera, bearings * 1e6)
    _curve(image, horizon, thick, dashed=True)
    _label(image, "horizon", horizon, 0.06, scale)
    for i, distance_m in enumerate(RINGS_M):
        ring = ground_to_pixel(camera, bearings * distance_m)
        _curve(image, ring, thick)
        _label(image, f"{distance_m} m", ring, 0.6 + 0.1 * i, scale)
    ahead = ground_to_pixel(camera, np.stack([np.zeros(200), 1 / np.linspace(0.5, 0.01, 200)], axis=1))
    _curve(image, ahead, max(1, thick // 2), dashed=True)
    return image


def _curve(image: U8, pixels: F64, thick: int, dashed: bool = False) -> None:
    """A polyline with a dark edge, so that it shows on snow and at night."""
    far = 8 * max(image.shape)
    keep = np.isfinite(pixels).all(axis=1) & (np.abs(pixels) < far).all(axis=1)
    points = np.round(pixels[keep] * 8).astype(np.int32)
    for colour, width in ((_HALO, thick + 2), (_INK, thick)):
        if not dashed:
            cv2.polylines(image, [points], False, colour, width, cv2.LINE_AA, shift=3)
            continue
        for start in range(0, len(points) - 4, 8):
            cv2.polylines(image, [points[start : start + 5]], False, colour, width, cv2.LINE_AA, shift=3)


def _label(image: U8, text: str, pixels: F64, share: float, scale: float) -> None:
    """Text on the curve, at this share of the image's width."""
    height, width = image.shape[:2]
    gaps = np.abs(np.where(np.isfinite(pixels[:, 0]), pixels[:, 0], 1e9) - share * width)
    x, y = pixels[int(np.argmin(gaps))]
    if not (np.isfinite([x, y]).all() and 0 <= y < height and 0 <= x < width):
        return
    font, size = cv2.FONT_HERSHEY_SIMPLEX, max(0.45, 0.6 * scale)
    (text_width, text_height), _ = cv2.getTextSize(text, font, size, 1)
    x, y = int(x), int(np.clip(y, text_height, height - text_height))
    corner, opposite = (x - 4, y - text_height // 2 - 3), (x + text_width + 4, y + text_height // 2 + 3)
    cv2.rectangle(image, corner, opposite, _HALO, cv2.FILLED)
    cv2.putText(image, text, (x, y + text_height // 2), font, size, _INK, 1, cv2.LINE_AA)
