"""What a network says of 3-D boxes where the 2-D boxes are the labels': errors without those of detection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from datasets.sample import Sample
from perception.arrays import F32
from perception.cameras.cuboids import COLUMNS
from perception.cameras.letterbox import letterbox
from perception.detector import read_outputs
from perception.errors import UserError
from perception.types import Detections
from training.checkpoint import load_network
from training.models.heads.detection import (
    DetectionTargets,
    grid_points,
    reported,
    task_aligned_assign,
)
from training.models.network import Network


@dataclass(frozen=True)
class TrueBoxes:
    """A network with 3-D boxes that is given the labelled 2-D boxes instead of finding them."""

    network: Network
    size_hw: tuple[int, int]

    @classmethod
    def load(cls, checkpoint: Path, size_hw: tuple[int, int] = (384, 1248)) -> TrueBoxes:
        """Read a checkpoint.

        Raises:
            UserError: it is none, or its network has no 3-D boxes.
        """
        network, _ = load_network(checkpoint)
        detection = network.config.detection
        if not (detection.cuboid and detection.distance):
            raise UserError(
                f"{checkpoint}: no 3-D boxes",
                "a network trained with --model.detection.distance --model.detection.cuboid",
            )
        return cls(network, size_hw)

    @torch.inference_mode()
    def __call__(self, sample: Sample) -> Detections:
        """Return one detection with score 1 for each labelled object that some point of the network can stand for.

        Depth and box features are those of the point that training would assign to the object; the 3-D branch looks
        at the labelled box.
        """
        assert sample.boxes_xyxy is not None and sample.class_ids is not None
        head, names = self.network.detection, self.network.config.class_names
        assert head.cuboid is not None
        known = [i for i, k in enumerate(sample.class_ids) if sample.class_names[k] in names]
        class_ids = torch.tensor([names.index(sample.class_names[sample.class_ids[i]]) for i in known]).long()
        if not known:
            none = np.zeros((0, 2), np.float32), np.zeros((0, len(COLUMNS)), np.float32)
            return replace(Detections.empty(), depths=none[0], cuboids=none[1])
        image, placed = letterbox(sample.image_bgr, self.size_hw)
        boxes = torch.from_numpy(placed.boxes_to_network(np.asarray(sample.boxes_xyxy[known], np.float32)))
        raw = self.network(torch.from_numpy(image[None]))["detection"]
        points, strides = grid_points(self.size_hw, torch.device("cpu"))
        found = head.boxes(raw.bin_logits, points, strides)
        assigned, quality = task_aligned_assign(
            raw.class_logits.sigmoid(), found, points, strides, _targets(boxes, class_ids, names), head.config
        )
        mine = assigned[0] == torch.arange(len(known))[:, None]  # (G, A)
        best = torch.where(mine, quality[0], -1.0).argmax(dim=1)
        seen = mine.any(dim=1)
        best, boxes, class_ids = best[seen], boxes[seen], class_ids[seen]
        middle, spread = head.depths(raw.depth_logits[0, best], strides[best])
        level = raw.level
        assert level is not None
        cuboids, distances = head.cuboids(level, raw.box_features[:, best], boxes[None], class_ids[None])
        if distances is None:
            distances = reported(middle, spread)[None]
        outputs: dict[str, F32] = {
            "boxes_xyxy": boxes[None].numpy(),
            "scores": np.ones((1, len(best)), np.float32),
            "class_ids": class_ids[None].numpy(),
            "distances": distances.numpy(),
            "cuboids": cuboids.numpy(),
        }
        return read_outputs(outputs, 0, placed)[0]


def _targets(boxes: torch.Tensor, class_ids: torch.Tensor, names: tuple[str, ...]) -> DetectionTargets:
    """Return the targets of one image with these objects."""
    count = len(boxes)
    return DetectionTargets(
        boxes_xyxy=boxes[None],
        class_ids=class_ids[None],
        ignore_xyxy=torch.zeros(1, 0, 4),
        ignore_class_ids=torch.zeros(1, 0, dtype=torch.long),
        confidences=torch.ones(1, count),
        labelled=torch.ones(1, len(names), dtype=torch.bool),
        depths=torch.full((1, count), float("nan")),
        cuboids=torch.full((1, count, 6), float("nan")),
    )
