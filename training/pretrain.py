"""Self-supervised training of a backbone: VICRegL (Bardes, Ponce, LeCun, NeurIPS 2022), with `lightly`'s loss.

Two views of a frame should have equal features, as a whole and place by place, while the features of a batch stay
different (variance) and their channels independent (covariance). It needs neither negatives nor a second network, so
small batches and a CPU suffice. Local features are those of stride 16, where most objects of a street are; the paper
takes the last map. Global features are the mean of stride 32.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from perception.errors import MissingDependencyError, UserError
from perception.files import write_atomically
from perception.progress import Progress
from training.checkpoint import save_checkpoint
from training.loop import choose_device
from training.models.backbone import Backbone
from training.models.config import check_size
from training.models.network import MEAN_RGB, STD_RGB
from training.ranges import check_ranges
from training.tensor_file import read_tensor_file
from training.views import ViewBatch, Views, collate

WIDTH = 256
"""Channels of the projected features."""
RECORD_EVERY = 10
"""Steps between records of `metrics.jsonl`."""


@dataclass(frozen=True)
class PretrainConfig:
    """Self-supervised training."""

    backbone: str = "mobilenet_v2"
    """Name of the backbone in torchvision."""
    weights: Path | None = None
    """State dict with torchvision's names to start from; without it, random weights."""
    steps: int = 2000
    """Optimiser steps."""
    batch: int = 32
    """Frames per step; each gives two views."""
    crop_hw: tuple[int, int] = (128, 256)
    """Height and width of a view, pixels."""
    area: tuple[float, float] = (0.05, 0.5)
    """Least and largest share of the frame that a view shows."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW; 100 steps of warm-up, then cosine decay."""
    weight_decay: float = 1e-4
    """Weight decay of convolution and matrix weights."""
    global_share: float = 0.75
    """Share of the global loss; the rest is the local loss."""
    seed: int = 1
    """Random seed."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 0
    """CPU threads; 0: torch's default."""
    workers: int = 1
    """Data loader processes."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        many = math.inf
        check_size(self.crop_hw)
        check_ranges(self, steps=(1, many), batch=(2, many), learning_rate=(0, 10), weight_decay=(0, many))
        check_ranges(self, global_share=(0, 1), threads=(0, many), workers=(0, many), checkpoint_every=(1, many))
        check_ranges(self, seed=(0, 2**32 - 1))
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(
                f"--area {self.area[0]:g} {self.area[1]:g}", "two rising shares from 0 to 1", "--area 0.05 0.5"
            )


class Student(nn.Module):
    """The backbone with the projections that the loss sees; only the backbone is kept."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config.backbone, weights=config.weights)
        c4, c5 = self.backbone.channels[2:]
        self.whole = _projection(c5)
        self.local = _projection(c4)
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD_RGB).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return global (B, D) and local features (B, h/16, w/16, D) of images (B, h, w, 3) uint8 BGR."""
        x = (images.flip(3).permute(0, 3, 1, 2).float() - self.mean) / self.std
        maps = self.backbone(x.contiguous(memory_format=torch.channels_last))
        return self.whole(maps[3].mean((2, 3))), self.local(maps[2].permute(0, 2, 3, 1))


def _projection(channels: int) -> nn.Sequential:
    """Return three linear layers, as in the paper; layer norm instead of batch norm, for small batches."""
    hidden = (nn.Linear(channels, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def make_loss(config: PretrainConfig) -> Any:
    """Return lightly's VICRegL loss.

    Raises:
        MissingDependencyError: lightly is not installed.
    """
    try:
        from lightly.loss import VICRegLLoss
    except ModuleNotFoundError:
        raise MissingDependencyError("lightly", "pretrain", "perception pretrain") from None
    return VICRegLLoss(alpha=config.global_share)


def pretrain(config: PretrainConfig, frames: Sequence[Path], run: Path) -> Path:
    """Train, or continue from `run/last.pt`, and return the path of the backbone's weights.

    Args:
        config: config of the run.
        frames: image files.
        run: existing run directory.

    Raises:
        UserError: unreadable frames or checkpoint, a loss that is not finite, or lightly is missing.
    """
    criterion = make_loss(config)
    device = choose_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    student = Student(config).to(device)
    optimiser = torch.optim.AdamW(_groups(student, config.weight_decay), lr=config.learning_rate)
    records: list[dict[str, float]] = []
    first = _restore(run / "last.pt", student, optimiser, records)
    if student.backbone.loaded and not first:
        print(f"backbone: {student.backbone.loaded}", file=sys.stderr)
    told: set[str] = set()
    with Progress("pretrain", config.steps, done=first) as progress:
        for step, batch in enumerate(_batches(config, frames, first, device), first + 1):
            for text in [text for text in batch.broken if text not in told]:
                told.add(text)
                progress.print(f"skipped: {text}")
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step - 1, config)
            record = train_step(student, criterion, optimiser, batch, device)
            if not math.isfinite(record["loss"]):
                raise UserError(
                    f"step {step}: the loss is {record['loss']}",
                    "a finite loss; checkpoints already written are untouched",
                    f"a new run with --learning-rate {config.learning_rate / 2:g}",
                )
            if step % RECORD_EVERY == 0 or step in (1, config.steps):
                records.append({"step": step, **record, "learning_rate": learning_rate(step - 1, config)})
            if step % config.checkpoint_every == 0 or step == config.steps:
                _save(run, student, optimiser, step, records)
            progress.update(step, note=f", loss {record['loss']:.2f}, spread {record['spread']:.2f}")
    if told:
        print(f"{len(told)} unreadable frames were skipped", file=sys.stderr)
    draw_curve(run, records)
    return run / "backbone.pt"


def train_step(
    student: nn.Module, criterion: Any, optimiser: torch.optim.Optimizer, batch: ViewBatch, device: torch.device
) -> dict[str, float]:
    """Take one optimiser step and return `loss` and `spread`.

    The spread is the mean standard deviation of the global features over the batch: 1 is wanted, 0 is a collapse.
    """
    student.train()
    features = student(torch.cat(batch.images).to(device))  # both views at once share the batch norm statistics
    views = [tuple(part.chunk(2)[k] for part in features) for k in range(2)]
    loss = criterion(views, [places.to(device) for places in batch.places]).squeeze()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), 10.0)
    optimiser.step()
    return {"loss": float(loss.detach()), "spread": float(features[0].detach().chunk(2)[0].std(0).mean())}


def learning_rate(step: int, config: PretrainConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to 0."""
    warmup = min(100, config.steps // 10 + 1)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def _groups(student: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return parameter groups; biases and norms have no weight decay."""
    matrices = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _batches(config: PretrainConfig, frames: Sequence[Path], first: int, device: torch.device) -> Any:
    numbers = range(first * config.batch, config.steps * config.batch)
    views = Views(frames, config.crop_hw, config.area, config.seed)
    return DataLoader(
        views,
        config.batch,
        sampler=numbers,
        num_workers=config.workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
    )


def _save(
    run: Path, student: Student, optimiser: torch.optim.Optimizer, step: int, records: list[dict[str, float]]
) -> None:
    """Write `backbone.pt`, which `--model.backbone-weights` takes, the records, and `last.pt`, to continue from."""
    content = io.BytesIO()
    torch.save(student.backbone.torchvision_state(), content)
    write_atomically(run / "backbone.pt", content.getbuffer())
    write_atomically(run / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    state = {"student": student.state_dict(), "optimiser": optimiser.state_dict(), "step": step, "records": records}
    save_checkpoint(run / "last.pt", state)


def _restore(path: Path, student: Student, optimiser: torch.optim.Optimizer, records: list[dict[str, float]]) -> int:
    """Load a checkpoint where there is one, and return the number of steps that were done."""
    if not path.exists():
        return 0
    expected = "a checkpoint of this perception pretrain run"
    state = read_tensor_file(path, expected, "another --out")
    try:
        student.load_state_dict(state["student"])
        optimiser.load_state_dict(state["optimiser"])
        records += state["records"]
        return int(state["step"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: does not match ({str(error).splitlines()[0]})", expected, "another --out") from None


def draw_curve(run: Path, records: Sequence[dict[str, float]]) -> None:
    """Plot loss and spread into `curves.png`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, name, title in zip(
        panels, ("loss", "spread"), ("VICRegL loss", "spread of global features"), strict=True
    ):
        axes.plot([r["step"] for r in records], [r[name] for r in records])
        axes.set(xlabel="step", title=title, ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.savefig(run / "curves.png", dpi=110)
    plt.close(figure)
