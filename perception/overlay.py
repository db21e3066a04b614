"""Draw results into a frame: road, tracks as boxes or cuboids with trails and captions, time, rate and drops."""

from __future__ import annotations

import colorsys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType

import cv2
import numpy as np

from perception.arrays import U8
from perception.cameras.letterbox import resize
from perception.model import ModelSpec
from perception.types import Frame, Result, RoadMask, Track
from perception.wireframe import UNDECIDED_RAD, cuboids_in_camera, draw_cuboid

ROAD_BGR = (190, 160, 30)
ROAD_OPACITY = 0.35
"""At full confidence."""
TRAIL_S = 2.0
URGENT_S = 3.0
"""Time to collision below which a caption turns red, seconds."""
STRIP_PIXELS = 500_000
"""Pixels of the strips in which the road is tinted: intermediate results stay in the cache, also at 8K."""
OWN_CLOCK_NS = 60 * 10**9
"""Timestamps this close to the capture on this machine's clock are taken as that clock's, nanoseconds."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PALETTE = [
    tuple(int(255 * c) for c in reversed(colorsys.hsv_to_rgb(i * 0.618034 % 1.0, 0.72 if i % 2 else 0.5, 1.0)))
    for i in range(48)
]
"""Neighbouring ids lie far apart on the colour circle."""
_RED = (60, 60, 235)
_ALARM = (120, 120, 255)
_INK, _PAPER = (255, 255, 255), (24, 24, 24)


class Overlay:
    """Draws the results of one source; keeps recent track positions for the trails."""

    def __init__(self, spec: ModelSpec, margins: bool = False) -> None:
        """Args:
        spec: class names, the road threshold, and the margins of boxes.
        margins: draw round each box the one that holds the true box with the model's stated probability.
        """
        self.spec = spec
        self._colours = class_colours(spec)
        self._doubt = spec.doubt if margins else None
        alpha = np.arange(256, dtype=np.float64)
        alpha[: spec.road_threshold] = 0
        self._opacity = (alpha * ROAD_OPACITY).round().astype(np.uint8)  # by confidence
        self._road_paint = np.empty((0, 0, 3), np.uint8)
        self._trails: dict[int, deque[tuple[int, int, int]]] = {}

    def draw(self, result: Result, rate_hz: float | None = None) -> U8:
        """Draw everything into a copy of the frame, (H, W, 3) uint8.

        Args:
            result: of one frame.
            rate_hz: measured rate of the run, shown after the time; None shows none.
        """
        image = result.frame.image_bgr.copy()
        if result.road is not None:
            self._tint(image, result.road)
        unit = max(0.7, min(image.shape[0] / 375, image.shape[1] / 620))  # 1.0 at KITTI's size
        shown = [t for t in result.tracks if t.state == "confirmed" and np.isfinite(t.box_xyxy).all()]
        self._remember(shown, result.frame.timestamp_ns)
        for track in shown:
            self._draw_trail(image, track, unit, result.frame.timestamp_ns)
        by_distance = sorted(shown, key=lambda t: float(t.box_xyxy[3]))
        cuboids = cuboids_in_camera(result.tracks, result.frame.camera)
        for track in by_distance:  # near boxes over far ones
            self._draw_doubt(image, track)
            if (corners := cuboids.get(track.track_id)) is not None and result.frame.camera is not None:
                faces = (track.heading_std_rad or 0.0) < UNDECIDED_RAD
                thickness = _thickness(track, 0.8 * unit)
                colour = track_colour(track, self._colours)
                draw_cuboid(image, corners, result.frame.camera, colour, thickness, show_front=faces)
            else:
                self._draw_box(image, track, unit)
        taken: list[tuple[int, int, int, int]] = []
        for track in reversed(by_distance):  # near tracks place their captions first
            self._draw_label(image, track, unit, taken)
        self._draw_status(image, result, unit, rate_hz)
        return image

    # ------------------------------------------------------------ road

    def _tint(self, image: U8, road: RoadMask) -> None:
        """Blend the road's colour in by confidence, on the rows that have any."""
        opacity = _to_frame(cv2.LUT(road.confidence, self._opacity), road)
        rows = np.flatnonzero(opacity.max(axis=1))
        if not len(rows):
            return
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        width = image.shape[1]
        height = max(1, STRIP_PIXELS // width)
        if self._road_paint.shape[1] != width:
            self._road_paint = np.full((height, width, 3), ROAD_BGR, np.uint8)
        for start in range(top, bottom, height):
            region = image[start : min(start + height, bottom)]
            opacity_3 = cv2.merge([opacity[start : start + len(region)]] * 3)
            kept = cv2.multiply(region, 255 - opacity_3, scale=1 / 255)
            colour = cv2.multiply(self._road_paint[: len(region)], opacity_3, scale=1 / 255)
            cv2.add(kept, colour, dst=region)

    # ------------------------------------------------------------ tracks

    def _remember(self, tracks: Sequence[Track], timestamp_ns: int) -> None:
        for track in tracks:
            left, _, right, bottom = track.box_xyxy
            trail = self._trails.setdefault(track.track_id, deque(maxlen=64))
            trail.append((timestamp_ns, round(float(left + right) * 8), round(float(bottom) * 16)))
        oldest = timestamp_ns - int(TRAIL_S * 1e9)
        for track_id, trail in list(self._trails.items()):
            while trail and not oldest <= trail[0][0] <= timestamp_ns:
                trail.popleft()
            if not trail:
                del self._trails[track_id]

    def _draw_trail(self, image: U8, track: Track, unit: float, now_ns: int) -> None:
        """Draw the path of the box's bottom centre over the last seconds, thinner and darker with age."""
        points = list(self._trails.get(track.track_id, ()))
        colour = self._colours.get(track.class_id) or _colour(track.track_id)
        for (then_ns, *start), (_, *end) in pairwise(points):
            freshness = 1 - (now_ns - then_ns) / (TRAIL_S * 1e9)
            faded = tuple(int(c * (0.35 + 0.65 * freshness)) for c in colour)
            cv2.line(image, start, end, faded, max(1, round(2 * unit * freshness)), cv2.LINE_AA, shift=4)

    def _draw_box(self, image: U8, track: Track, unit: float) -> None:
        """Draw the box, thin where it is only predicted."""
        left, top, right, bottom = (round(float(v)) for v in track.box_xyxy)
        colour = track_colour(track, self._colours)
        cv2.rectangle(image, (left, top), (right, bottom), colour, _thickness(track, unit), cv2.LINE_AA)

    def _draw_doubt(self, image: U8, track: Track) -> None:
        """Draw the outer box of an object that was seen, where the model knows how far its boxes err."""
        if self._doubt is not None and track.frames_since_seen == 0:
            outer = self._doubt.outer_boxes(track.box_xyxy[None], np.array([track.class_id]))[0]
            if np.isfinite(outer).all():
                corners = [round(float(v)) for v in outer]
                cv2.rectangle(image, corners[:2], corners[2:], track_colour(track, self._colours), 1, cv2.LINE_AA)

    def caption(self, track: Track) -> str:
        """Compose `Car 12  23 m  -3 m/s`: class and id, then distance and radial speed where known."""
        known = 0 <= track.class_id < len(self.spec.class_names)
        parts = [f"{self.spec.class_names[track.class_id] if known else '?'} {track.track_id}"]
        if track.distance_m is not None:
            parts.append(f"{track.distance_m:.0f} m" if track.distance_m >= 10 else f"{track.distance_m:.1f} m")
        if (speed := radial_speed_mps(track)) is not None:
            parts.append(f"{speed:+.0f} m/s" if abs(speed) >= 0.5 else "0 m/s")
        if _urgent(track):
            parts.append(f"{track.ttc_s:.1f} s!")
        return "  ".join(parts)

    def _draw_label(self, image: U8, track: Track, unit: float, taken: list[tuple[int, int, int, int]]) -> None:
        """Draw the caption on a plate of the track's colour, above the box or where no other caption is."""
        left, top, _, bottom = (round(float(v)) for v in track.box_xyxy)
        if bottom - top < 12 * unit:  # the smallest boxes have no room for a caption
            return
        text, colour = self.caption(track), track_colour(track, self._colours)
        scale, stroke = 0.36 * unit, max(1, round(0.9 * unit))
        (width, height), _ = cv2.getTextSize(text, _FONT, scale, stroke)
        pad = max(2, round(2.5 * unit))
        width, height = width + 2 * pad, height + 2 * pad
        left = max(0, min(left, image.shape[1] - width))
        places = [(left, y, left + width, y + height) for y in (top - height, top, bottom, top - 2 * height)]
        inside = [place for place in places if place[1] >= 0 and place[3] <= image.shape[0]] or places[1:2]
        free = [place for place in inside if not any(_overlap(place, other) for other in taken)]
        place = (free or inside)[0]
        taken.append(place)
        _plate(image, place[0], place[1], width, height, colour, 0.85)
        ink = _PAPER if sum(colour) > 330 else _INK
        cv2.putText(image, text, (place[0] + pad, place[3] - pad), _FONT, scale, ink, stroke, cv2.LINE_AA)

    # ------------------------------------------------------------ status

    def _draw_status(self, image: U8, result: Result, unit: float, rate_hz: float | None) -> None:
        parts = [time_shown(result.frame)]
        if result.frame.source:
            name = result.frame.source
            parts.insert(0, name if len(name) <= 32 else f"{name[:30]}..")
        if rate_hz:
            parts.append(f"{rate_hz:.0f} fps")
        if result.age_ms is not None:
            parts.append(f"age {result.age_ms:.0f} ms")
        if result.frame.dropped_before:
            parts.append(f"{result.frame.dropped_before} dropped")
        scale, stroke, pad = 0.4 * unit, max(1, round(0.9 * unit)), round(5 * unit)
        text = "   ".join(parts)
        (width, height), _ = cv2.getTextSize(text, _FONT, scale, stroke)
        _plate(image, pad, pad, width + 2 * pad, height + 2 * pad, _PAPER, 0.55)
        ink = _ALARM if result.frame.dropped_before else _INK
        cv2.putText(image, text, (2 * pad, 2 * pad + height), _FONT, scale, ink, stroke, cv2.LINE_AA)


def _thickness(track: Track, unit: float) -> int:
    """Of a track's lines: thin where it is only predicted."""
    return max(1, round((2.2 if _urgent(track) else 1.6) * unit)) if track.frames_since_seen == 0 else 1


def time_shown(frame: Frame) -> str:
    """Format the time of a frame: minutes and seconds of a file, the time of day of a live camera."""
    if frame.captured_ns is not None and abs(frame.captured_ns - frame.timestamp_ns) < OWN_CLOCK_NS:
        taken_s = time.time() - (time.monotonic_ns() - frame.captured_ns) / 1e9
        return datetime.fromtimestamp(taken_s).strftime("%H:%M:%S.%f")[:-4]
    seconds = frame.timestamp_ns / 1e9
    return f"{int(seconds // 60):02d}:{seconds % 60:05.2f}"


def radial_speed_mps(track: Track) -> float | None:
    """Speed along the line of sight in metres per second, negative where the object approaches; None if unknown."""
    if track.velocity_mps is None or track.position_m is None or not track.distance_m:
        return None
    (x, z), (vx, vz) = track.position_m, track.velocity_mps
    return (x * vx + z * vz) / track.distance_m


def _urgent(track: Track) -> bool:
    return track.ttc_s is not None and track.ttc_s < URGENT_S


def class_colours(spec: ModelSpec) -> dict[int, tuple[int, int, int]]:
    """Return the colours (blue, green, red) of the classes that have one, by class id."""
    return {i: colour for i, info in enumerate(spec.class_infos) if (colour := info.colour_bgr)}


def track_colour(
    track: Track, colours: Mapping[int, tuple[int, int, int]] = MappingProxyType({})
) -> tuple[int, int, int]:
    """Colour of a track as (blue, green, red): red where a collision is near, else its class's, else its own."""
    return _RED if _urgent(track) else colours.get(track.class_id) or _colour(track.track_id)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _colour(track_id: int) -> tuple[int, int, int]:
    blue, green, red = _PALETTE[track_id % len(_PALETTE)]
    return blue, green, red


def _plate(image: U8, left: int, top: int, width: int, height: int, colour: tuple, opacity: float) -> None:
    """Draw a translucent rectangle, clipped to the image."""
    region = image[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
    if region.size:
        plate = np.full((1, 1, 3), colour, np.uint8)
        plate = cv2.resize(plate, (region.shape[1], region.shape[0]), interpolation=cv2.INTER_NEAREST)
        cv2.addWeighted(region, 1 - opacity, plate, opacity, 0, dst=region)


def _to_frame(mask: U8, road: RoadMask) -> U8:
    """As `Letterbox.mask_to_frame`, to whole pixels, and six times as fast."""
    placed = road.letterbox
    (net_height, net_width), (height, width) = placed.network_hw, placed.source_hw
    whole = cv2.resize(
        mask, (max(1, round(net_width / placed.scale_xy[0])), max(1, round(net_height / placed.scale_xy[1])))
    )
    left, top = round(placed.offset_xy[0] / placed.scale_xy[0]), round(placed.offset_xy[1] / placed.scale_xy[1])
    cut = whole[top : top + height, left : left + width]
    if cut.shape != (height, width):  # rounding may leave it a pixel short
        cut = cv2.copyMakeBorder(cut, 0, height - cut.shape[0], 0, width - cut.shape[1], cv2.BORDER_REPLICATE)
    return np.asarray(cut, np.uint8)


def shrunk(result: Result, longest_edge: int) -> Result:
    """Scale a result down to a longest edge in pixels; a smaller one is returned unchanged.

    Drawing after scaling keeps an 8K frame cheap and its captions readable.
    """
    height, width = result.frame.size_hw
    scale = longest_edge / max(height, width)
    if scale >= 1:
        return result
    size_hw = (max(1, round(height * scale)), max(1, round(width * scale)))
    scale_x, scale_y = size_hw[1] / width, size_hw[0] / height
    box_scale = np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
    road = result.road
    if road is not None:
        to_network = (road.letterbox.scale_xy[0] / scale_x, road.letterbox.scale_xy[1] / scale_y)
        road = RoadMask(road.confidence, replace(road.letterbox, source_hw=size_hw, scale_xy=to_network))
    camera = result.frame.camera
    return replace(
        result,
        frame=replace(
            result.frame,
            image_bgr=resize(result.frame.image_bgr, size_hw),
            camera=None if camera is None else camera.scaled(scale_x, scale_y),
        ),
        tracks=replace(result.tracks, boxes_xyxy=result.tracks.boxes_xyxy * box_scale),
        road=road,
    )
