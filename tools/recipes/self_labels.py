"""Label CamVid's images with detections of a trained network that CamVid's masks confirm.

    python -m tools.recipes.self_labels --checkpoint runs/nano/g/last.pt --out runs/nano/self

The network runs on five views of each image: whole, mirrored, and three bands of half the width at twice the size
(Radosavovic et al. 2018). An object that is detected in two views, once with a high score, and whose box its class
fills in the mask, becomes a row of `OUT/NAME.txt`. `perception train --data.self-labels OUT` trains on these rows. A
mask merges a row of parked cars; the detections separate them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.camvid import SHAPES, CamVid
from datasets.labels import CAR, CYCLIST, PEDESTRIAN
from perception.arrays import F32, I64, U8
from perception.boxes import clip, iou
from perception.detector import Detector
from perception.errors import UserError
from perception.formats.kitti import ObjectRows, format_objects
from perception.types import CLASS_NAMES, Detections

LOWEST_SCORE = 0.08
"""Lowest score of a detection that counts as a view of an object."""
SAME = 0.5
"""IoU from which detections of a class in two views are one object."""
DOUBLED = 0.6
"""IoU from which the weaker of two objects of different classes is dropped."""
EDGE = 5
"""Distance from the cut of a band, pixels, within which a detection may be a part of an object."""
VIEWS = 2
"""Smallest number of views of an object."""
MASK_LIKE = 0.4
"""IoU with a box derived from the masks from which no box is added."""
NUMBERS = {CAR: (8,), PEDESTRIAN: (9,), CYCLIST: (9, 10)}
"""Numbers of each class in CamVid's masks, where riders are often labelled as persons."""
FILLED = {CAR: 0.6} | {shape.class_id: shape.filled for shape in SHAPES.values()}
"""Smallest share of a box that its class fills in the mask."""

Detect = Callable[[U8], Detections]


@dataclass(frozen=True)
class Options:
    """Label CamVid's training images with a network and its masks."""

    checkpoint: Path
    """Checkpoint (.pt) of a run directory."""
    root: Path = Path("../shared/data")
    """Folder with `camvid/`."""
    out: Path = Path("runs/self_labels")
    """Output directory of the rows."""
    least_score: float = 0.3
    """Smallest score of an object in its best view."""
    size_hw: tuple[int, int] = (384, 1248)
    """Network input size; use that of the training."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Objects found in one image."""

    boxes_xyxy: F32
    """(N, 4) pixels, best first."""
    scores: F32
    """(N,) of the best view."""
    class_ids: I64
    """(N,)"""
    views: I64
    """(N,) in how many views."""

    def __getitem__(self, index: np.ndarray) -> Seen:
        """A subset by boolean mask or integer array."""
        return Seen(self.boxes_xyxy[index], self.scores[index], self.class_ids[index], self.views[index])


def main(argv: Sequence[str] | None = None) -> int:
    """Write the rows, and print counts as JSON."""
    import tyro

    options = tyro.cli(Options, args=argv, prog="python -m tools.recipes.self_labels", description=__doc__)
    try:
        if not 0 < options.least_score < 1:
            raise UserError(f"--least-score {options.least_score}", "a score between 0 and 1", "--least-score 0.3")
        counts = write_labels(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nrows already written stay in {options.out}; the same command begins again", file=sys.stderr)
        return 130
    except OSError as error:
        print(
            UserError(f"{options.out}: {error.strerror}", "a folder that can be written", "--out DIR"),
            file=sys.stderr,
        )
        return 2
    print(json.dumps(counts))
    return 0


def write_labels(options: Options) -> dict[str, int]:
    """Write a file for every image, and return the number of objects by class.

    Raises:
        UserError: the root has no CamVid, or the checkpoint is unreadable or has other classes.
    """

    from perception.files import write_atomically
    from perception.progress import Progress
    from training.backend import torch_model
    from training.checkpoint import load_network

    network, _ = load_network(options.checkpoint)
    if network.config.class_names != CLASS_NAMES:
        raise UserError(
            f"{options.checkpoint}: classes {', '.join(network.config.class_names)}", ", ".join(CLASS_NAMES)
        )
    detector = Detector(torch_model(network, options.size_hw))
    camvid = CamVid(options.root / "camvid", "train", boxes=True)
    options.out.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(CLASS_NAMES, 0)
    progress = Progress("images", len(camvid))
    for i, name in enumerate(camvid.names):
        sample = camvid[i]
        height, width = sample.image_bgr.shape[:2]
        seen = look(lambda image: detector(image)[0], sample.image_bgr, options.size_hw)
        seen = confirmed(seen, camvid.numbers(i, (height, width)), options.least_score)
        assert sample.boxes_xyxy is not None
        known = (iou(seen.boxes_xyxy, sample.boxes_xyxy) > MASK_LIKE).any(1)
        seen = seen[np.flatnonzero(~known)]
        rows = ObjectRows.from_boxes([CLASS_NAMES[c] for c in seen.class_ids], seen.boxes_xyxy, seen.scores)
        write_atomically(options.out / f"{name}.txt", format_objects(rows))
        for class_id in seen.class_ids:
            counts[CLASS_NAMES[class_id]] += 1
        progress.update(i + 1)
    progress.close()
    return counts


def look(detect: Detect, image_bgr: U8, shape_hw: tuple[int, int]) -> Seen:
    """Return the objects that a detector finds in the views of an image.

    Args:
        detect: returns the detections of an image (H, W, 3) uint8.
        image_bgr: (H, W, 3) uint8.
        shape_hw: shape of the detector's input.
    """
    height, width = image_bgr.shape[:2]
    found = [Detections.empty()]
    numbers = [np.zeros(0, np.int64)]
    for number, ((left, top, right, bottom), mirrored) in enumerate(views((height, width), shape_hw)):
        part = image_bgr[top:bottom, left:right]
        view = detect(np.ascontiguousarray(part[:, ::-1] if mirrored else part))
        boxes = view.boxes_xyxy
        if mirrored:
            boxes = np.stack([right - left - boxes[:, 2], boxes[:, 1], right - left - boxes[:, 0], boxes[:, 3]], 1)
        boxes = boxes + np.array([left, top, left, top], np.float32)
        inner = np.array([left > 0, top > 0, right < width, bottom < height])
        near = np.abs(boxes - np.array([left, top, right, bottom], np.float32)) < EDGE
        keep = (view.scores >= LOWEST_SCORE) & ~(near & inner).any(1)
        found.append(Detections(boxes[keep], view.scores[keep], view.class_ids[keep]))
        numbers.append(np.full(int(keep.sum()), number))
    return merged(
        np.concatenate([f.boxes_xyxy for f in found]),
        np.concatenate([f.scores for f in found]),
        np.concatenate([f.class_ids for f in found]),
        np.concatenate(numbers),
    )


def merged(boxes_xyxy: F32, scores: F32, class_ids: I64, from_view: I64) -> Seen:
    """Merge the detections (N) of several views around the best ones; a box is the mean of its group by score."""
    overlap = iou(boxes_xyxy, boxes_xyxy)
    left = np.ones(len(scores), bool)
    rows = []
    for i in np.argsort(-scores, kind="stable"):
        if not left[i]:
            continue
        group = left & (overlap[i] > SAME) & (class_ids == class_ids[i])
        box = np.average(boxes_xyxy[group], axis=0, weights=scores[group])
        rows.append((box, scores[i], class_ids[i], len(set(from_view[group].tolist()))))
        left &= ~group & (overlap[i] <= DOUBLED)
    return Seen(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.int64),
    )


def confirmed(seen: Seen, numbers: U8, least_score: float) -> Seen:
    """Return the objects with enough views and score whose class fills their box in the mask.

    Args:
        seen: objects in the image.
        numbers: (H, W) class number of each pixel.
        least_score: smallest score of the best view.
    """
    keep = (seen.scores >= least_score) & (seen.views >= VIEWS)
    for k in np.flatnonzero(keep):
        left, top, right, bottom = np.round(clip(seen.boxes_xyxy[k : k + 1], numbers.shape)[0]).astype(int)  # type: ignore[arg-type]
        inside = numbers[top:bottom, left:right]
        class_id = int(seen.class_ids[k])
        keep[k] = inside.size > 0 and np.isin(inside, NUMBERS[class_id]).mean() >= FILLED[class_id]
    return seen[keep]


def views(size_hw: tuple[int, int], shape_hw: tuple[int, int]) -> Iterator[tuple[tuple[int, int, int, int], bool]]:
    """Windows (left, top, right, bottom) of an image and whether to mirror them, for an input of some shape.

    The bands are of the input's shape, around the middle of the image where far things are.
    """
    height, width = size_hw
    yield (0, 0, width, height), False
    yield (0, 0, width, height), True
    high = int(width / 2 * shape_hw[0] / shape_hw[1]) + 1
    top = max(0, height // 2 - high // 2)
    for left in (0, width // 4, width // 2):
        yield (left, top, left + width // 2, min(height, top + high)), False


if __name__ == "__main__":
    sys.exit(main())
