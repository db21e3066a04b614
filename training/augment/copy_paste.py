"""Copy-paste augmentation of rare classes: people and cyclists of one frame are pasted into another.

Sources: Dwibedi et al. 2017, who find that soft edges matter more than a matching scene; Ghiasi et al. 2021. The
outline of an object is its mask where there is one. Otherwise GrabCut (Rother et al. 2004) finds it inside the box,
starting from the average mask of the class; where GrabCut fails, the average mask is used. Labelled people are few,
so their clothes and light are changed at random.

The position follows from a flat road: under a camera at 1.65 m, an object of H metres whose foot is at row y is
(y − horizon) · H / 1.65 pixels tall. A random size therefore determines the row of the foot.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from datasets.labels import PEDESTRIAN
from datasets.sample import ROAD_IGNORE, Sample
from perception.arrays import F32, F64, U8
from perception.boxes import area, intersection, intersection_over_area
from perception.cameras.letterbox import resize
from training.augment.weather import expose
from training.example import SMALLEST_VISIBLE

HEIGHT_M = np.array([1.6, 2.0, 1.9])
"""Height of each of `CLASS_NAMES`, the classes that are pasted, that its pixels imply on a flat road: medians over
16,789 complete, visible objects of KITTI's tracking labels. They exceed the true heights, because kerbs and slopes
raise the feet."""
HEIGHT_SPREAD = (0.85, 1.25)
"""Range of factors on it. 10th to 90th percentile in KITTI: 0.82 to 1.42 (cars), 0.86 to 1.34 (pedestrians)."""
CAMERA_HEIGHT_M = 1.65
"""Camera height of frames without a camera."""
WANTED = (100, 500, 200)
"""Number of cut-outs of each class."""
FRAMES_READ = 2400
"""Largest number of frames that are searched for cut-outs."""
SMALLEST_SOURCE = 36.0
SMALLEST_MASKED = 24.0
"""Frame pixels; lower objects are not cut out, those with a mask from the second on."""
CLASS_SHARES = np.array([0.15, 0.5, 0.35])
"""Probability of each class among pasted objects."""
ASIDE_M = (7.0, 9.0, 7.0)
"""Largest lateral offset of each class from straight ahead, metres."""
ASPECT = ((0.6, 3.5), (0.15, 0.7), (0.2, 1.6))
"""Range of width over height of a complete object of each class."""
MOST_OF_A_DRIVE = 60
"""Largest number of cut-outs of a class from one recording, where they may all show the same person."""
LEAST_CONTRAST = 28.0
"""Smallest standard deviation of grey in a box, which excludes objects in fog or darkness."""
_MARGIN = 0.25
_OUTLINE_HEIGHT = 72
"""Height of a cut-out in the search for its outline, pixels."""
_SOLID = (0.25, 0.93)
"""Plausible range of an outline's share of its box."""
_LIKE_OTHERS = 0.68
"""Smallest Dice overlap of a plausible outline with the average one."""
_ENOUGH_MASKS = 12
"""Smallest number of masks for an average."""
_AVERAGE_HW = (64, 32)
ANOTHER_LIGHT = 0.7
"""Fraction of pasted objects with another exposure."""
OTHER_CLOTHES = 0.6
"""Fraction of pasted people's garments with another colour."""
BARE_LEGS = 0.25
"""Fraction of pedestrians with bare legs, because nearly all images of people were taken in cold weather."""
GARMENTS = ((), ((0.17, 0.5), (0.5, 0.92)), ((0.15, 0.5),))
"""Vertical range of each garment in the box, as a fraction of its height, by class."""
LEGS = (0.7, 0.93)
"""Vertical range of a pedestrian's bare legs."""
LARGER_THAN_CUT = 2.0
"""Largest scale factor of a cut-out, because near people are rare."""
OTHER_BUILD = (0.9, 1.12)
"""Range of factors on the width of pasted people."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """One object with a margin around it."""

    image_bgr: U8
    box_xyxy: F32
    """(4,) in that image."""
    class_id: int
    mask: U8 | None = None
    """(h, w) 1 on the object, where its set has masks."""

    def alpha(self, average: F32 | None = None) -> F32:
        """Return the opacity (h, w) 0..1 with soft edges: the mask, a plausible GrabCut outline, or the average.

        Args:
            average: average opacity of the class in a box of `_AVERAGE_HW`; None: an ellipse.
        """
        if self.mask is not None:
            return cv2.GaussianBlur(self.mask.astype(np.float32), (0, 0), 0.7)
        height, width = self.image_bgr.shape[:2]
        factor = max(1.0, float(self.box_xyxy[3] - self.box_xyxy[1]) / _OUTLINE_HEIGHT)
        small = resize(self.image_bgr, (round(height / factor), round(width / factor)))
        x0, y0, x1, y1 = (round(float(v) / factor) for v in self.box_xyxy)
        expected = np.zeros(small.shape[:2], np.float32)
        expected[y0:y1, x0:x1] = cv2.resize(_ellipse() if average is None else average, (x1 - x0, y1 - y0))
        shape = _largest_part(_outline(small, (x0, y0, x1, y1), expected))
        inside, likely = shape[y0:y1, x0:x1], expected[y0:y1, x0:x1] > 0.5
        rows = np.flatnonzero(inside.any(1))
        dice = 2 * (inside * likely).sum() / max(1, int(inside.sum()) + int(likely.sum()))
        believable = _SOLID[0] < inside.mean() < _SOLID[1] and len(rows) > 0.85 * (y1 - y0) and dice > _LIKE_OTHERS
        alpha = shape.astype(np.float32) if believable else np.clip((expected - 0.2) / 0.4, 0, 1)
        return np.asarray(cv2.resize(cv2.GaussianBlur(alpha, (0, 0), 0.7), (width, height)), np.float32)

    def mask_in_box(self) -> F32:
        """Return the mask in the box, resized to `_AVERAGE_HW`."""
        assert self.mask is not None
        x0, y0, x1, y1 = (round(float(v)) for v in self.box_xyxy)
        part = self.mask[y0:y1, x0:x1].astype(np.float32)
        return np.asarray(cv2.resize(part, _AVERAGE_HW[::-1], interpolation=cv2.INTER_AREA), np.float32)


def _outline(image: U8, box: tuple[int, int, int, int], expected: F32) -> U8:
    """Run GrabCut on an image (h, w, 3), with background outside the box and the core of `expected` as foreground."""
    mask = np.full(image.shape[:2], cv2.GC_BGD, np.uint8)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = cv2.GC_PR_BGD
    mask[expected > 0.5] = cv2.GC_PR_FGD
    mask[expected > 0.9] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # GrabCut initialises its clusters from a generator that the thread shares
    try:
        cv2.grabCut(image, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # no background around the object, or a single colour
        mask[:] = cv2.GC_BGD
    return np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)


def _ellipse() -> F32:
    """Return an elliptic opacity of size `_AVERAGE_HW` that falls from the centre of a box to its sides."""
    y, x = ((np.arange(side) + 0.5) / side * 2 - 1 for side in _AVERAGE_HW)
    radius = np.hypot(x[None] / 0.85, y[:, None] / 0.98)  # 1 on the ellipse
    return np.clip(1 - 0.5 * radius**3, 0, 1).astype(np.float32)


def _largest_part(shape: U8) -> U8:
    """Return the largest connected component of a mask (h, w)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(shape)
    if count < 2:
        return shape
    return (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)


class CutoutBank:
    """Objects to paste, by class. Outlines are computed at first use.

    Args:
        frames: samples to search, in an order that the seed determines. They are read until enough objects are found.
    """

    def __init__(self, frames: Iterator[Sample]) -> None:
        self.cutouts: tuple[list[Cutout], ...] = tuple([] for _ in HEIGHT_M)
        self._alphas: dict[int, F32] = {}
        self._averages: dict[int, F32 | None] = {}
        taken: Counter[tuple[str, int]] = Counter()
        for sample in frames:
            if all(len(found) >= wanted for found, wanted in zip(self.cutouts, WANTED, strict=True)):
                break
            for cutout in cut_out(sample):
                found, key = self.cutouts[cutout.class_id], (sample.drive, cutout.class_id)
                if len(found) < WANTED[cutout.class_id] and taken[key] < MOST_OF_A_DRIVE:
                    found.append(cutout)
                    taken[key] += 1

    def choose(self, rng: np.random.Generator, allowed: Sequence[bool]) -> tuple[Cutout, F32] | None:
        """Draw a cut-out of an allowed class with its opacity; None where there is none."""
        known = allowed[: len(self.cutouts)]
        shares = CLASS_SHARES * [bool(a) and bool(c) for a, c in zip(known, self.cutouts, strict=True)]
        if not shares.any():
            return None
        class_id = int(rng.choice(len(shares), p=shares / shares.sum()))
        cutout = self.cutouts[class_id][int(rng.integers(len(self.cutouts[class_id])))]
        if id(cutout) not in self._alphas:
            self._alphas[id(cutout)] = cutout.alpha(self._average(class_id))
        return cutout, self._alphas[id(cutout)]

    def _average(self, class_id: int) -> F32 | None:
        """Return the average mask of a class; None where too few objects have a mask."""
        if class_id not in self._averages:
            masks = [cutout.mask_in_box() for cutout in self.cutouts[class_id] if cutout.mask is not None]
            enough = len(masks) >= _ENOUGH_MASKS
            self._averages[class_id] = np.mean(masks, axis=0).astype(np.float32) if enough else None
        return self._averages[class_id]


def frames_in_turn(
    sizes: Sequence[int], read: Callable[[int, int], Sample], seed: int, limit: int = FRAMES_READ
) -> Iterator[Sample]:
    """Iterate over the frames of several sets, one of each in turn, shuffled by the seed.

    Args:
        sizes: number of frames of each set.
        read: returns the sample of a set and a frame.
    """
    rng = np.random.default_rng((seed, 77))
    orders = [rng.permutation(size) for size in sizes]
    turns = [(k, s, int(order[k])) for s, order in enumerate(orders) for k in range(len(order))]
    for _, s, i in sorted(turns)[:limit]:
        yield read(s, i)


def cut_out(sample: Sample) -> Iterator[Cutout]:
    """Iterate over the objects of a frame that are large, complete, not occluded, and of a plausible shape."""
    if sample.boxes_xyxy is None or sample.class_ids is None or not len(sample.boxes_xyxy):
        return
    height, width = sample.image_bgr.shape[:2]
    boxes = sample.boxes_xyxy.astype(np.float64)
    others = boxes if sample.ignore_boxes_xyxy is None else np.concatenate([boxes, sample.ignore_boxes_xyxy])
    covered = intersection_over_area(boxes, others)  # (N, M)
    covered[np.arange(len(boxes)), np.arange(len(boxes))] = 0
    sides = boxes[:, 2:] - boxes[:, :2]
    known = sample.class_ids < len(ASPECT)
    limits = np.array(ASPECT)[np.where(known, sample.class_ids, 0)]  # (N, 2)
    aspect = sides[:, 0] / np.maximum(sides[:, 1], 1e-6)
    good = (
        known
        & (sides[:, 1] >= (SMALLEST_SOURCE if sample.semantic is None else SMALLEST_MASKED))
        & (sides[:, 1] < 0.8 * height)
        & (covered.max(1) < 0.08)
        & (aspect > limits[:, 0])
        & (aspect < limits[:, 1])
        & (boxes[:, :2] > 2).all(1)
        & (boxes[:, 2:] < (width - 2, height - 2)).all(1)
    )
    for i in np.flatnonzero(good):
        margin = np.ceil(_MARGIN * sides[i])
        low = np.maximum(np.floor(boxes[i, :2] - margin), 0).astype(int)
        high = np.minimum(np.ceil(boxes[i, 2:] + margin), (width, height)).astype(int)
        crop = np.ascontiguousarray(sample.image_bgr[low[1] : high[1], low[0] : high[0]])
        x0, y0, x1, y1 = (round(v) for v in boxes[i] - np.tile(low, 2))
        if cv2.cvtColor(crop[y0:y1, x0:x1], cv2.COLOR_BGR2GRAY).std() < LEAST_CONTRAST:
            continue
        class_id, mask = int(sample.class_ids[i]), None
        if sample.semantic is not None:
            inside = np.zeros(crop.shape[:2], np.uint8)
            inside[y0:y1, x0:x1] = sample.semantic[low[1] : high[1], low[0] : high[0]][y0:y1, x0:x1] == class_id + 1
            mask = _largest_part(inside)
        yield Cutout(crop, (boxes[i] - np.tile(low, 2)).astype(np.float32), class_id, mask)


def horizon_of(sample: Sample) -> float | None:
    """Return the row of the horizon: from the camera, else from the objects where at least three agree."""
    if sample.camera is not None:
        return sample.camera.horizon_y
    if sample.boxes_xyxy is None or sample.class_ids is None or len(sample.boxes_xyxy) < 3:
        return None
    known = sample.class_ids < len(HEIGHT_M)
    boxes = sample.boxes_xyxy[known]
    if len(boxes) < 3:
        return None
    heights = boxes[:, 3] - boxes[:, 1]
    rows = boxes[:, 3] - heights * CAMERA_HEIGHT_M / HEIGHT_M[sample.class_ids[known]]
    middle = float(np.median(rows))
    return middle if np.median(np.abs(rows - middle)) < 0.03 * sample.image_bgr.shape[0] else None


def paste(
    sample: Sample, bank: CutoutBank, horizon_y: float, ahead_x: float, network_scale: float, rng: np.random.Generator
) -> Sample:
    """Paste one to three objects on or beside the road of a frame, or of a part of a frame.

    Pasted objects may occlude farther ones, but not nearer ones. The box of an occluded object is kept, as KITTI's
    boxes enclose the whole object, until little of it is visible; then it becomes an ignore region.

    Args:
        sample: sample with boxes; not changed.
        bank: objects to paste; only those of classes that the sample labels are used.
        horizon_y: row of the horizon in the image.
        ahead_x: column straight ahead in the image.
        network_scale: network pixels per image pixel, which limits how small an object may be.
        rng: random generator.
    """
    for _ in range(int(rng.integers(1, 4))):
        chosen = bank.choose(rng, sample.labelled_classes)
        if chosen is None:
            return sample
        for _ in range(6):
            box = _place(chosen[0], sample, horizon_y, ahead_x, network_scale, rng)
            if box is not None and (pasted := _blend(sample, *chosen, box, rng)) is not None:
                sample = pasted
                break
    return sample


def _place(
    cutout: Cutout, sample: Sample, horizon_y: float, ahead_x: float, network_scale: float, rng: np.random.Generator
) -> F64 | None:
    """Draw the box (4,) of a pasted object; None where it is not inside the image."""
    height, width = sample.image_bgr.shape[:2]
    source = cutout.box_xyxy[2:] - cutout.box_xyxy[:2]
    smallest = max(14 / network_scale, 0.3 * source[1])
    largest = min(LARGER_THAN_CUT * source[1], 0.75 * height)
    if smallest >= largest:
        return None
    tall = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
    camera_m = sample.camera.height_m if sample.camera is not None else CAMERA_HEIGHT_M
    below_horizon = tall * camera_m / (HEIGHT_M[cutout.class_id] * rng.uniform(*HEIGHT_SPREAD))
    foot = horizon_y + below_horizon
    aside = rng.uniform(-1, 1) * ASIDE_M[cutout.class_id] * below_horizon / camera_m
    wide = tall * source[0] / source[1] * rng.uniform(*OTHER_BUILD)
    box = np.array([ahead_x + aside - wide / 2, foot - tall, ahead_x + aside + wide / 2, foot])
    whole = box[0] >= 1 and box[1] >= 1 and box[2] <= width - 1 and box[3] <= height - 1
    return box if whole else None


def _blend(sample: Sample, cutout: Cutout, alpha: F32, box: F64, rng: np.random.Generator) -> Sample | None:
    """Return the sample with the cut-out pasted at `box`; None where it would cover a nearer object."""
    assert sample.boxes_xyxy is not None and sample.class_ids is not None
    assert sample.ignore_boxes_xyxy is not None and sample.ignore_class_ids is not None
    solid_ignore = sample.ignore_boxes_xyxy[sample.ignore_class_ids >= 0]
    others = np.concatenate([sample.boxes_xyxy, solid_ignore]).astype(np.float64)
    shared = intersection(others, box[None])[:, 0]
    nearer = others[:, 3] > box[3]
    if (shared[nearer] > 0.05 * area(box[None])[0]).any():
        return None
    window, colour, opacity = _dressed(cutout, alpha, box, sample.image_bgr.shape[:2], rng)
    image = sample.image_bgr.copy()
    behind = image[window].astype(np.float32)
    # adapt the brightness halfway to the surroundings
    gain = float(np.clip((behind.mean() + 20) / (colour.mean() + 20), 0.5, 1.6)) ** 0.5
    mixed = behind + opacity[..., None] * (np.minimum(colour * gain, 255) - behind)
    image[window] = mixed.astype(np.uint8)

    def masked(mask: U8 | None, number: int) -> U8 | None:
        if mask is None:
            return None
        mask = mask.copy()
        part = mask[window]
        part[opacity > 0.1] = ROAD_IGNORE
        part[opacity > 0.5] = number
        return mask

    gone = shared[: len(sample.boxes_xyxy)] > (1 - SMALLEST_VISIBLE) * area(sample.boxes_xyxy)
    boxes, ids = sample.boxes_xyxy, sample.class_ids
    distances = sample.distances_m if sample.distances_m is not None else np.full(len(boxes), np.nan, np.float32)
    confidences = sample.confidences if sample.confidences is not None else np.ones(len(boxes), np.float32)
    boxes_3d = sample.boxes_xyzlhwr if sample.boxes_xyzlhwr is not None else np.full((len(boxes), 7), np.nan)
    return replace(
        sample,
        image_bgr=image,
        boxes_xyxy=np.concatenate([boxes[~gone], box[None]]).astype(np.float32),
        class_ids=np.append(ids[~gone], cutout.class_id),
        distances_m=np.append(distances[~gone], np.float32(np.nan)),
        confidences=np.append(confidences[~gone], np.float32(1)),
        boxes_xyzlhwr=np.concatenate([boxes_3d[~gone], np.full((1, 7), np.nan)]).astype(np.float32),
        ignore_boxes_xyxy=np.concatenate([sample.ignore_boxes_xyxy, boxes[gone]]),
        ignore_class_ids=np.concatenate([sample.ignore_class_ids, ids[gone]]),
        road=masked(sample.road, 0),
        semantic=masked(sample.semantic, cutout.class_id + 1),
    )


def _dressed(
    cutout: Cutout, alpha: F32, box: F64, size_hw: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[slice, slice], F32, F32]:
    """Mirror, relight, resize and re-colour a cut-out at random.

    Args:
        cutout: object to paste.
        alpha: opacity of the cut-out (h, w).
        box: box of the object in the target image (4,).
        size_hw: height and width of the target image.
        rng: random generator.

    Returns:
        The window in the target image, the pixels (h, w, 3) for it, and their opacity (h, w).
    """
    height, width = size_hw
    source, patch = cutout.box_xyxy.astype(np.float64), cutout.image_bgr
    if rng.random() < 0.5:
        patch, alpha = np.ascontiguousarray(patch[:, ::-1]), np.ascontiguousarray(alpha[:, ::-1])
        source = source[[2, 1, 0, 3]] * (-1, 1, -1, 1) + (patch.shape[1], 0, patch.shape[1], 0)
    if rng.random() < ANOTHER_LIGHT:
        patch = expose(patch, rng)
    scale = (box[2:] - box[:2]) / (source[2:] - source[:2])  # (2,) across, down
    size_wh = [max(1, round(side * float(f))) for side, f in zip(patch.shape[1::-1], scale, strict=True)]
    left, top = (round(v) for v in box[:2] - source[:2] * scale)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size_wh[0], width), min(top + size_wh[1], height)
    inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    opacity = cv2.resize(alpha, size_wh, interpolation=cv2.INTER_AREA)[inside]
    colour = resize(patch, (size_wh[1], size_wh[0]))[inside].astype(np.float32)
    down = ((np.arange(y0, y1) + 0.5 - box[1]) / (box[3] - box[1])).astype(np.float32)
    for garment in GARMENTS[cutout.class_id]:
        if rng.random() < OTHER_CLOTHES:
            colour = _dyed(colour, opacity, _within(down, garment), _cloth(rng), rng)
    if cutout.class_id == PEDESTRIAN and rng.random() < BARE_LEGS:
        skin = np.array([110, 140, 195], np.float32) * rng.uniform(0.45, 1.2)
        colour = _dyed(colour, opacity, _within(down, LEGS), skin, rng)
    return np.s_[y0:y1, x0:x1], colour, opacity


def _within(down: F32, limits: tuple[float, float]) -> F32:
    """Return 1 between two limits and 0 elsewhere, with soft ends."""
    outside = np.maximum(np.maximum(limits[0] - down, down - limits[1]), 0)
    return np.clip(1 - outside / 0.04, 0, 1)


def _cloth(rng: np.random.Generator) -> F32:
    """Draw a colour of clothes (3,) BGR: half of them dark, few saturated."""
    value = rng.uniform(12, 75) if rng.random() < 0.5 else rng.uniform(75, 235)
    return np.array(colorsys.hsv_to_rgb(rng.random(), 0.8 * rng.random() ** 1.5, value), np.float32)


def _dyed(colour: F32, opacity: F32, share: F32, dye: F32, rng: np.random.Generator) -> F32:
    """Return an image (h, w, 3) with another colour (3,) in the rows (h,) of a garment, whose shading is kept."""
    weight = opacity * share[:, None]
    grey = colour.mean(2)
    middle = float((grey * weight).sum() / max(float(weight.sum()), 1e-6))
    folds = np.clip((grey + 12) / (middle + 12), 0.4, 2.0)[..., None]
    mix = np.float32(rng.uniform(0.5, 1.0)) * share[:, None, None]
    return np.asarray(colour + mix * (np.minimum(folds * dye, 255) - colour), np.float32)
