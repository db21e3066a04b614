"""A stand-in for a network that plays stored detections back, for tests and benchmarks of the pipeline."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perception.arrays import F32, U8
from perception.model import METADATA_KEY, ModelSpec
from perception.types import Detections

ROAD_STRIDE = 4


class ReplayBackend:
    """Answers the n-th image with the n-th detections, and starts over after the last."""

    provider = "Replay"
    max_batch: int | None = None

    def __init__(
        self,
        spec: ModelSpec,
        frames: Sequence[Detections] = (),
        road: U8 | None = None,
        delay_ms: float = 0.0,
        most: int = 100,
    ) -> None:
        """What to play.

        Args:
            spec: the model that this stands in for.
            frames: detections by image, in pixels of the network's input; depths and cuboids are played where the
                first of them has some.
            road: (H/4, W/4) uint8, the same for all images; None finds no road.
            delay_ms: how long one image takes, milliseconds.
            most: K, the length of the output lists.
        """
        height, width = spec.size_hw
        self.spec, self.frames, self.delay_ms, self.most = spec, list(frames), delay_ms, most
        self.road = np.zeros((height // ROAD_STRIDE, width // ROAD_STRIDE), np.uint8) if road is None else road
        self.metadata: Mapping[str, str] = {METADATA_KEY: spec.to_json()}
        self.inputs: Mapping[str, tuple[Any, ...]] = {"images": ("N", height, width, 3)}
        self.outputs: Mapping[str, tuple[Any, ...]] = {
            "boxes_xyxy": ("N", most, 4),
            "scores": ("N", most),
            "class_ids": ("N", most),
            "road": ("N", *self.road.shape),
        }
        self._optional: dict[str, int] = {}
        """Name of each optional output, and its numbers a box."""
        for name, values in _optional(self.frames[0] if self.frames else Detections.empty()).items():
            self._optional[name] = values.shape[1]
            self.outputs = {**self.outputs, name: ("N", most, values.shape[1])}
        self.played = 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answer one batch; the content of the images does not matter."""
        count = len(inputs["images"])
        boxes: F32 = np.zeros((count, self.most, 4), np.float32)
        scores = np.zeros((count, self.most), np.float32)
        class_ids = np.zeros((count, self.most), np.int64)
        more = {name: np.zeros((count, self.most, width), np.float32) for name, width in self._optional.items()}
        for slot in range(count):
            if self.frames:
                found = self.frames[self.played % len(self.frames)]
                order = np.argsort(-found.scores, kind="stable")[: self.most]
                boxes[slot, : len(order)] = found.boxes_xyxy[order]
                scores[slot, : len(order)] = found.scores[order]
                class_ids[slot, : len(order)] = found.class_ids[order]
                for name, values in _optional(found).items():
                    more[name][slot, : len(order)] = values[order]
            self.played += 1
        if self.delay_ms:
            time.sleep(self.delay_ms * count / 1e3)
        road = np.broadcast_to(self.road, (count, *self.road.shape))
        return {"boxes_xyxy": boxes, "scores": scores, "class_ids": class_ids, "road": road, **more}


def _optional(found: Detections) -> dict[str, F32]:
    named = {"distances": found.depths, "cuboids": found.cuboids}
    return {name: values for name, values in named.items() if values is not None}
