"""What each process of tests/parity/test_ddp.py runs: ddp_worker.py DATA RUN."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_runs import tiny

from perception.cameras.letterbox import plan_letterbox
from perception.classes import classes_named
from perception.types import Detections, RoadMask
from training import loop
from training.config import TrainConfig
from training.distributed import process_group, rank, total
from training.evaluate import Detect, object_scores, road_scores
from training.sets import TrainingSets, find_sets

STEPS, STOP = 6, 3


def config(root: Path) -> TrainConfig:
    """Six steps, scored on held-out frames whose number two does not divide."""
    return tiny(root, steps=STEPS, batch=4, evaluate_every=3, checkpoint_every=STOP)


@contextmanager
def double_precision() -> Iterator[None]:
    """Compute in float64, so that what differs by more than rounding shows.

    In float32 it would drown: Adam divides a gradient by its own size, so where the true gradient is zero, rounding
    decides in which direction a weight moves.
    """
    single = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = single  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float32)


def losses_of_run(
    settings: TrainConfig, run: Path, stop: int = STEPS, resume: bool = False
) -> list[dict[str, float]]:
    """Train, and give the losses of each step; `stop` is the step before which it breaks off."""
    seen: list[dict[str, float]] = []
    whole = loop.train_step

    def step(*arguments: Any) -> tuple[dict[str, float], float]:
        if len(seen) == stop:
            raise KeyboardInterrupt
        losses, norm = whole(*arguments)
        seen.append({**losses, "gradient": norm})
        return losses, norm

    loop.train_step = step
    try:
        loop.train(settings, run, resume=resume)
    except KeyboardInterrupt:
        pass
    finally:
        loop.train_step = whole
    return seen


def guess(sets: TrainingSets) -> Detect:
    """A made-up network: the truth of a frame, moved a little by numbers that the frame's own pixels decide."""
    samples = [s.source[i] for s in (sets.objects, sets.road) if s is not None for i in s.indices]
    known = {sample.image_bgr.tobytes(): sample for sample in samples}

    def detect(image_bgr: np.ndarray) -> tuple[Detections, RoadMask]:
        sample = known[image_bgr.tobytes()]
        rng = np.random.default_rng(int(image_bgr.sum()))
        boxes = np.zeros((0, 4), np.float32) if sample.boxes_xyxy is None else sample.boxes_xyxy
        class_ids = np.zeros(0, np.int64) if sample.class_ids is None else sample.class_ids
        moved = (boxes + rng.normal(0, 1.5, boxes.shape)).astype(np.float32)
        found = Detections(moved, rng.random(len(boxes)).astype(np.float32), class_ids)
        road = rng.integers(0, 256, (16, 48)).astype(np.uint8)
        road[8:] |= 128
        return found, RoadMask(road, plan_letterbox(image_bgr.shape[:2], (64, 192)))  # type: ignore[arg-type]

    return detect


def sharded_scores(settings: TrainConfig) -> dict[str, float]:
    """Scores of that network, whatever the number of processes."""
    sets = find_sets(settings.data)
    assert sets.objects is not None and sets.road is not None
    classes = classes_named(("Car", "Pedestrian", "Cyclist"))
    return {
        **object_scores(guess(sets), sets.objects, classes, readers=2),
        **road_scores(guess(sets), sets.road, readers=1),
    }


def main(root: Path, run: Path) -> None:
    loop.draw_curves = lambda run: run
    settings = config(root)
    with double_precision(), process_group(torch.device("cpu")):
        report = {
            "losses": losses_of_run(settings, run / "whole"),
            "scores": sharded_scores(settings),
            "total": total(10 * rank() + 1, torch.device("cpu")),
        }
        losses_of_run(settings, run / "resumed", stop=STOP + 1)
        report["resumed"] = losses_of_run(settings, run / "resumed", resume=True)
        (run / f"report-{rank()}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
