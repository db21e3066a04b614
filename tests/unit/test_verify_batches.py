"""An engine is verified alone and in full batches: some releases of TensorRT are wrong in batches alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from export.frames import TestFrame
from export.parity import Candidate, InBatches, compare
from perception.detector import Detector
from perception.model import ModelSpec

SPEC = ModelSpec(("Car",), (32, 64))


class Engine:
    """Finds one car, as far to the right as the image is bright; off in all places of a batch but the first."""

    provider, max_batch, min_batch = "TensorRT", 3, 1
    metadata: Mapping[str, str] = {}
    inputs: Mapping[str, tuple[Any, ...]] = {"images": ("N", 32, 64, 3)}

    def __init__(self, off_px: float) -> None:
        self.off_px, self.batches = off_px, list[int]()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = inputs["images"]
        self.batches.append(len(images))
        left = images.mean((1, 2, 3)) / 10 + self.off_px * (np.arange(len(images)) > 0)
        boxes = np.stack([left, 0 * left + 4, left + 20, 0 * left + 24], 1)[:, None].astype(np.float32)
        return {
            "boxes_xyxy": boxes,
            "scores": np.full((len(images), 1), 0.9, np.float32),
            "class_ids": np.zeros((len(images), 1), np.int64),
        }


def verdict(off_px: float) -> tuple[bool, list[int]]:
    engine = Engine(off_px)
    frames = [TestFrame(f"{i}", np.full((32, 64, 3), 20 * i, np.uint8)) for i in range(8)]
    a = Candidate("a", SPEC, Detector((Engine(0), SPEC)))  # type: ignore[arg-type]
    b = Candidate("b", SPEC, InBatches((engine, SPEC)))  # type: ignore[arg-type]
    return compare(a, b, frames, "fp32").passed, engine.batches


def test_an_engine_is_run_alone_and_in_its_largest_batch() -> None:
    assert verdict(0) == (True, [1, 3] * 4)


def test_an_engine_that_is_wrong_in_batches_alone_is_refused() -> None:
    assert not verdict(5)[0]
