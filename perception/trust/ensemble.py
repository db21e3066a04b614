"""Several networks, or several views of an image, as one: mirrored, smaller, or in overlapping crops."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from perception.arrays import U8
from perception.backends import Backend
from perception.cameras.letterbox import PAD_VALUE, Letterbox
from perception.detector import Detector
from perception.errors import UserError
from perception.model import ModelSpec
from perception.timing import timed
from perception.trust.fusion import Opinion, fuse
from perception.types import Detections, RoadMask

MOST_SCALE = 4.0
EDGE_PX = 4.0
"""A box this near to the inner edge of a crop is cut by it, and is left to the other crops."""


@dataclass(frozen=True)
class View:
    """A part of an image that a network is shown, in shares of the image; beyond it is padding."""

    left: float = 0.0
    top: float = 0.0
    scale: float = 1.0
    """How many times larger the scene is than in the whole image."""
    mirrored: bool = False

    def window_xyxy(self, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
        """The part of an image, in whole pixels."""
        height, width = size_hw
        left, top = round(self.left * width), round(self.top * height)
        return left, top, left + round(width / self.scale), top + round(height / self.scale)

    def cut(self, image_bgr: U8) -> U8:
        """What the network is shown."""
        height, width = image_bgr.shape[:2]
        left, top, right, bottom = self.window_xyxy((height, width))
        part = image_bgr[max(0, top) : bottom, max(0, left) : right]
        borders = max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)
        if any(borders):
            part = cv2.copyMakeBorder(part, *borders, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3)
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)

    def opinion(self, found: Detections, size_hw: tuple[int, int]) -> Opinion:
        """Bring what was found in the view to pixels of the whole image."""
        height, width = size_hw
        left, top, right, bottom = self.window_xyxy(size_hw)
        boxes = found.boxes_xyxy.copy()
        if self.mirrored:
            boxes[:, [0, 2]] = (right - left) - boxes[:, [2, 0]]
        boxes += np.array([left, top, left, top], np.float32)
        inner = np.array([left > 0, top > 0, right < width, bottom < height])
        near = np.abs(boxes - np.array([left, top, right, bottom])) <= EDGE_PX  # (N, 4)
        keep = ~(near & inner).any(axis=1)
        limits = np.array([width, height, width, height], np.float32)
        depths = None if found.depths is None else found.depths[keep]
        whole = Detections(np.clip(boxes[keep], 0, limits), found.scores[keep], found.class_ids[keep], depths)
        window = np.clip(np.array([left, top, right, bottom], np.float32), 0, limits)
        return Opinion(whole, window.astype(np.float32))


def make_views(flip: bool = False, scales: Sequence[float] = ()) -> list[View]:
    """List the views: the whole image, and at each scale a smaller whole or crops that cover it, each also mirrored.

    Raises:
        UserError: a scale that cannot be meant.
    """
    views = [View()]
    for scale in scales:
        if not 1 / MOST_SCALE <= scale <= MOST_SCALE:
            raise UserError(f"--scales {scale:g}", f"from {1 / MOST_SCALE:g} to {MOST_SCALE:g}", "--scales 1.5")
        share = 1 / scale
        if scale < 1:
            views.append(View((1 - share) / 2, (1 - share) / 2, scale))
        elif scale > 1:
            # crops overlap by a quarter or more, so that objects on a seam are whole in one of them
            count = max(2, int(np.ceil((1 - 0.25 * share) / (0.75 * share) - 1e-9)))
            starts = np.linspace(0, 1 - share, count).tolist()
            views += [View(left, top, scale) for top, left in itertools.product(starts, starts)]
    return views + [replace(view, mirrored=True) for view in views] if flip else views


class Ensemble:
    """Detectors and views as one detector. All networks name the same classes.

    >>> both = Ensemble([Detector(load_model(path)) for path in paths], make_views(flip=True))  # doctest: +SKIP
    """

    batch = 1

    def __init__(
        self, detectors: Sequence[Detector], views: Sequence[View] = (View(),), minimum_score: float = 0.0
    ) -> None:
        """Check that the networks belong together.

        Args:
            detectors: the networks.
            views: what each of them is shown.
            minimum_score: fused detections below it are left out.

        Raises:
            UserError: no network, or they name other classes.
        """
        if not detectors:
            raise UserError("no model", "at least one model file", "--model M.onnx")
        names = [detector.spec.class_names for detector in detectors]
        if other := next((one for one in names if set(one) != set(names[0])), None):
            raise UserError(
                f"one model names the classes {', '.join(names[0])}, another {', '.join(other)}",
                "models that name the same classes",
                "--ensemble with another model",
            )
        self.detectors, self.views, self.minimum_score = list(detectors), list(views), minimum_score
        # class ids of each network → those of the first
        self._ids = [np.array([names[0].index(name) for name in one], np.int64) for one in names]

    @property
    def spec(self) -> ModelSpec:
        """The first network's description, without what was measured on its own scores and boxes."""
        spec = self.detectors[0].spec
        return spec if len(self.detectors) * len(self.views) == 1 else replace(spec, doubt=None, familiar=None)

    @property
    def backend(self) -> Backend:
        """What runs the first network."""
        return self.detectors[0].backend

    @property
    def provider(self) -> str:
        return self.detectors[0].provider

    def __call__(self, image_bgr: U8) -> tuple[Detections, RoadMask | None]:
        """Detect in one image (H, W, 3) uint8; the results are in its pixels."""
        size_hw = image_bgr.shape[:2]
        opinions: list[Opinion] = []
        roads: list[tuple[View, RoadMask]] = []
        for view in self.views:
            shown = view.cut(image_bgr)
            for detector, ids in zip(self.detectors, self._ids, strict=True):
                found, road = detector(shown)
                found = replace(found, class_ids=ids[found.class_ids])
                opinions.append(view.opinion(found, size_hw))
                if road is not None:
                    roads.append((view, road))
        fused = fuse(opinions)
        return fused[fused.scores >= self.minimum_score], _mean_road(roads, size_hw)

    def run(
        self, images_bgr: Sequence[U8], timings_ms: Sequence[dict[str, float]] | None = None
    ) -> list[tuple[Detections, RoadMask | None]]:
        """Detect in several images, one after another; all networks and views count as the stage 'network'."""
        found = []
        for image_bgr, own_ms in zip(images_bgr, timings_ms or [{} for _ in images_bgr], strict=True):
            with timed(own_ms, "network"):
                found.append(self(image_bgr))
        return found


def _mean_road(roads: Sequence[tuple[View, RoadMask]], size_hw: tuple[int, int]) -> RoadMask | None:
    """Mean confidence at the image's size, each pixel over the views that see it; None without any."""
    if not roads:
        return None
    height, width = size_hw
    total, count = np.zeros(size_hw, np.float32), np.zeros(size_hw, np.float32)
    for view, road in roads:
        mask = road.at_frame_size()
        mask = mask[:, ::-1] if view.mirrored else mask
        left, top, right, bottom = view.window_xyxy(size_hw)
        inside = np.s_[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
        total[inside] += mask[max(0, -top) : min(height, bottom) - top, max(0, -left) : min(width, right) - left]
        count[inside] += 1
    confidence = np.rint(total / np.maximum(count, 1)).astype(np.uint8)
    return RoadMask(confidence, Letterbox(size_hw, size_hw, (1.0, 1.0), (0, 0), size_hw))
