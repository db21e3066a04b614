"""The log of a run: progress on stderr, records in `metrics.jsonl` and in TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from perception.files import write_atomically
from training.config import TrainConfig
from training.results import Progress

EVERY = 50
"""Steps that one record averages."""

ShowImage = Callable[[str, np.ndarray], None]
"""Takes a frame's name and the frame with ground truth and predictions drawn in, (H, W, 3) BGR."""


class RunLog:
    """Writes the log of a run. Only the process of rank 0 has one.

    Args:
        run: run directory.
        config: config of the run.
        first_step: step from which the run starts or resumes. Records of later steps are deleted.
    """

    def __init__(self, run: Path, config: TrainConfig, first_step: int) -> None:
        self.config, self.first_step = config, first_step
        _delete_after(run / "metrics.jsonl", first_step)
        self.file = open(run / "metrics.jsonl", "a")  # noqa: SIM115 - open for the length of the run
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)  # inclusive
        self.mark = time.monotonic()
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.done = 0
        self.seconds = self.waited = 0.0
        self.evaluation_s = 0.0

    def batch_arrived(self) -> float:
        """Return the seconds that the network has waited for the batch that just arrived."""
        return time.monotonic() - self.mark

    def step(
        self, progress: Progress, losses: dict[str, float], norm: float, learning_rate: float, waited: float
    ) -> Progress:
        """Add one step to the log, and write a record every `EVERY` steps.

        Args:
            progress: progress after the step.
            losses: losses of the step by name.
            norm: gradient norm of the step.
            learning_rate: learning rate of the step.
            waited: seconds that the network waited for the batch.

        Returns:
            The progress with the step's duration added.
        """
        for name, value in {**losses, "gradient": norm}.items():
            # fp16 loss scaling overflows by design; one infinity would spoil the mean, and JSON has none
            if math.isfinite(value):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1
        self.done += 1
        now = time.monotonic()
        spent, self.mark = now - self.mark, now
        self.seconds += spent
        self.waited += waited
        progress = replace(progress, seconds=progress.seconds + spent, waited=progress.waited + waited)
        if progress.step % EVERY == 0 or progress.step == self.config.schedule.steps:
            self._record(progress, learning_rate)
        return progress

    def _record(self, progress: Progress, learning_rate: float) -> None:
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        record: dict[str, Any] = {
            "step": progress.step,
            **{name: round(value, 4) for name, value in means.items()},
            "learning_rate": learning_rate,
            "images_per_s": round(self.done * self.config.schedule.batch / self.seconds, 2),
            "waiting_share": round(self.waited / self.seconds, 3),
        }
        if progress.broken or progress.skipped:
            record |= {"broken_samples": progress.broken, "skipped_batches": progress.skipped}
        self._write(record)
        for name, value in record.items():
            self.board.add_scalar(f"train/{name}", value, progress.step)
        steps_left = self.config.schedule.steps - progress.step
        evaluations_left = steps_left // self.config.checkpoints.evaluate_every
        left = self.seconds / self.done * steps_left + self.evaluation_s * evaluations_left
        text = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(
            f"step {progress.step}/{self.config.schedule.steps}  {text}  {record['images_per_s']} images/s  "
            f"waiting {record['waiting_share']:.0%}  left {_duration(left)}",
            file=sys.stderr,
            flush=True,
        )
        self.sums, self.counts = {}, {}

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Write the scores of an evaluation."""
        self._write({"step": step, **{name: round(value, 3) for name, value in scores.items()}})
        for name, value in scores.items():
            self.board.add_scalar(f"validation/{name}", value, step)
        text = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
        text = text or "no validation frames; best.pt is the newest checkpoint"
        print(f"step {step}: validation: {text}", file=sys.stderr, flush=True)
        now = time.monotonic()
        self.evaluation_s, self.mark = now - self.mark, now

    def restart_clock(self) -> None:
        """Exclude the time since the last step, such as writing a checkpoint, from the waiting time."""
        self.mark = time.monotonic()

    def image_writer(self, step: int) -> ShowImage:
        """Return a function that adds images of this step to TensorBoard."""

        def show(name: str, image_bgr: np.ndarray) -> None:
            self.board.add_image(name, np.ascontiguousarray(image_bgr[..., ::-1]), step, dataformats="HWC")

        return show

    def _write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the files of the log."""
        self.file.close()
        self.board.close()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _delete_after(path: Path, step: int) -> None:
    """Delete the records after a step, and an incomplete last line of a killed run."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    write_atomically(path, "".join(kept))
