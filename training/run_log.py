"""A run's log: progress for the eye, `metrics.jsonl` and TensorBoard for later."""

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
"""Steps whose mean makes one record."""

ShowImage = Callable[[str, np.ndarray], None]
"""Takes the name of a frame and the frame with truth and prediction drawn in, (H, W, 3) BGR."""


class RunLog:
    """Written by the first process alone.

    Args:
        run: the run folder.
        config: of the run.
        first_step: where this start goes on; later records of an earlier start are taken back.
    """

    def __init__(self, run: Path, config: TrainConfig, first_step: int) -> None:
        self.config, self.first_step = config, first_step
        _take_back(run / "metrics.jsonl", first_step)
        self.file = open(run / "metrics.jsonl", "a")  # noqa: SIM115 - open for the length of the run
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)  # it purges from there on
        self.mark = time.monotonic()
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.done = 0
        self.seconds = self.waited = 0.0
        self.scoring = 0.0

    def batch_arrived(self) -> float:
        """Seconds that the network waited for a batch that is just there."""
        return time.monotonic() - self.mark

    def step(self, progress: Progress, losses: dict[str, float], norm: float, rate: float, waited: float) -> Progress:
        """Note one step; write the mean of every fifty. Returns the progress with the time it took."""
        for name, value in {**losses, "gradient": norm}.items():
            if math.isfinite(value):  # fp16's scale is found by overflows: one would be the mean, and no JSON
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1
        self.done += 1
        now = time.monotonic()
        spent, self.mark = now - self.mark, now
        self.seconds += spent
        self.waited += waited
        progress = replace(progress, seconds=progress.seconds + spent, waited=progress.waited + waited)
        if progress.step % EVERY == 0 or progress.step == self.config.schedule.steps:
            self._record(progress, rate)
        return progress

    def _record(self, progress: Progress, rate: float) -> None:
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        record: dict[str, Any] = {
            "step": progress.step,
            **{name: round(value, 4) for name, value in means.items()},
            "rate": rate,
            "pictures_per_s": round(self.done * self.config.schedule.batch / self.seconds, 2),
            "waiting_share": round(self.waited / self.seconds, 3),
        }
        if progress.broken or progress.skipped:
            record |= {"broken_samples": progress.broken, "skipped_batches": progress.skipped}
        self._write(record)
        for name, value in record.items():
            self.board.add_scalar(f"train/{name}", value, progress.step)
        steps_left = self.config.schedule.steps - progress.step
        # scoring takes its time too, once every so many steps
        left = self.seconds / self.done * steps_left + self.scoring * (
            steps_left // self.config.checkpoints.evaluate_every
        )
        text = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(
            f"step {progress.step}/{self.config.schedule.steps}  {text}  {record['pictures_per_s']} pictures/s  "
            f"waiting {record['waiting_share']:.0%}  left {_duration(left)}",
            file=sys.stderr,
            flush=True,
        )
        self.sums, self.counts = {}, {}

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Note the scores on the held-out frames."""
        self._write({"step": step, **{name: round(value, 3) for name, value in scores.items()}})
        for name, value in scores.items():
            self.board.add_scalar(f"held_out/{name}", value, step)
        text = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
        text = text or "there are none, so nothing is scored, and best.pt is the newest"
        print(f"step {step}: held-out frames: {text}", file=sys.stderr, flush=True)
        now = time.monotonic()
        self.scoring, self.mark = now - self.mark, now

    def go_on(self) -> None:
        """What was done since the last step, as writing a checkpoint, is no waiting."""
        self.mark = time.monotonic()

    def image_writer(self, step: int) -> ShowImage:
        """A function that puts images of this step on the board."""

        def show(name: str, image_bgr: np.ndarray) -> None:
            self.board.add_image(name, np.ascontiguousarray(image_bgr[..., ::-1]), step, dataformats="HWC")

        return show

    def _write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Flush everything."""
        self.file.close()
        self.board.close()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _take_back(path: Path, step: int) -> None:
    """Drop the records after a step, and a last line that a kill cut short."""
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
