"""The training loop: read it in one sitting."""

from __future__ import annotations

import copy
import json
import math
import random
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from perception.errors import UserError
from training.checkpoint import load_checkpoint, model_config_to_json, resolved_config, save_checkpoint
from training.config import TrainConfig
from training.curves import draw_curves
from training.data import Batch, TrainingSets, batches, find_sets
from training.evaluate import evaluate
from training.models.network import Network


def train(config: TrainConfig, run: Path, resume: bool = False, init: Path | None = None) -> Path:
    """Train a network and leave everything about it in a run folder.

    Args:
        config: the run; ignored fields of a resumed run must equal the first start's.
        run: folder for config, metrics, curves and checkpoints.
        resume: go on from `run/last.pt`.
        init: start from another run's averaged weights where names and shapes agree.

    Returns:
        The best checkpoint.

    Raises:
        UserError: nothing to train on, a damaged checkpoint, a full disk, a loss that is no number.
    """
    run.mkdir(parents=True, exist_ok=True)
    _seed(config)
    device = choose_device(config.device)
    sets = find_sets(config.data.root, config.data.road_fold) if config.data.real else None
    network = Network(config.model).to(device, memory_format=torch.channels_last)
    if init is not None:
        _start_from(network, init)
    average = copy.deepcopy(network).eval()
    optimiser = torch.optim.AdamW(_parameter_groups(network, config), lr=config.learning_rate)
    step, best = 0, -math.inf
    if resume:
        state = load_checkpoint(run / "last.pt")
        network.load_state_dict(state["network"])
        average.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["torch_rng"])
        step, best = state["step"], state["best"]
    _write_json(run / "config.json", _description(config, sets))
    log = RunLog(run, config, step)
    scaler_device = "cuda" if device.type == "cuda" else "cpu"
    for batch in batches(sets, config, step):
        waited = log.batch_arrived()
        rate = learning_rate(step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate
        losses, norm = train_step(network, batch.to(device), optimiser, config, scaler_device)
        update_average(average, network, config.ema_decay, step)
        step += 1
        log.step(step, losses, norm, rate, waited)
        if not all(math.isfinite(value) for value in losses.values()):
            raise UserError(
                f"step {step}: a loss is not a number ({losses})",
                "finite losses",
                f"start again from {run}/last.pt with --init and --learning-rate {config.learning_rate / 2:g}",
            )
        last = step == config.steps
        snapshot = partial(_state, config, sets, network, average, optimiser, step)
        if last or step % config.evaluate_every == 0:
            scores = evaluate(average, sets, config, device)
            log.scores(step, scores)
            if scores.get("score", 0.0) >= best:
                best = scores.get("score", 0.0)
                save_checkpoint(run / "best.pt", snapshot(best, scores))
        if last or step % config.checkpoint_every == 0:
            save_checkpoint(run / "last.pt", snapshot(best, {}))
    log.close()
    draw_curves(run)
    return run / "best.pt"


def train_step(
    network: Network, batch: Batch, optimiser: torch.optim.Optimizer, config: TrainConfig, device_type: str
) -> tuple[dict[str, float], float]:
    """One optimiser step: losses by name, and the length of the gradient before it was cut."""
    network.train()
    size_hw = (batch.images.shape[1], batch.images.shape[2])
    # bf16 pays on a GPU; on a CPU its depthwise backward pass was measured slower than fp32
    with torch.autocast(device_type, torch.bfloat16, enabled=device_type == "cuda"):
        outputs = network(batch.images)
    losses = network.loss(outputs, batch.targets, batch.masks, size_hw)
    optimiser.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
    if torch.isfinite(norm):
        optimiser.step()
    return {name: float(value.detach()) for name, value in losses.items()}, float(norm)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then cosine decay to a hundredth."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def update_average(average: Network, network: Network, decay: float, step: int) -> None:
    """Exponential average of weights; young averages forget faster, so that they follow the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def choose_device(name: str) -> torch.device:
    """ "auto" takes CUDA where it works.

    Raises:
        UserError: CUDA was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device", "a working NVIDIA driver", "perception doctor")
    return torch.device(name)


def _seed(config: TrainConfig) -> None:
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002 - torchvision and libraries below us still draw from it
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)


def _parameter_groups(network: Network, config: TrainConfig) -> list[dict[str, Any]]:
    """Weight decay on what multiplies, none on biases and batch norm."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]


def _start_from(network: Network, path: Path) -> None:
    """Take over every weight whose name and shape agree; say how many did."""
    theirs, ours = load_checkpoint(path)["ema"], network.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in ours and ours[name].shape == value.shape}
    if not fitting:
        raise UserError(f"{path}: no weight fits this network", "a checkpoint of the same backbone", "--preset")
    network.load_state_dict(fitting, strict=False)
    print(f"init: {len(fitting)} of {len(ours)} tensors from {path}", file=sys.stderr)


def _state(
    config: TrainConfig,
    sets: TrainingSets | None,
    network: Network,
    average: Network,
    optimiser: torch.optim.Optimizer,
    step: int,
    best: float,
    scores: dict[str, float],
) -> dict[str, Any]:
    return {
        "network": network.state_dict(),
        "ema": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "step": step,
        "best": best,
        "scores": scores,
        "model_config": model_config_to_json(replace(config.model, pretrained=False)),
        "description": json.dumps(_description(config, sets)),
    }


def _description(config: TrainConfig, sets: TrainingSets | None) -> dict[str, Any]:
    """Config, commit and data of a run, for its folder and its checkpoints."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()
    pictures = {subset.name: len(subset.indices) for subset in sets.train} if sets else {}
    return {
        "config": resolved_config(config),
        "commit": commit or "unknown",
        "data_hash": sets.data_hash() if sets else "synthetic",
        "pictures": pictures,
        "torch": torch.__version__,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(value, indent=1) + "\n")
    beside.replace(path)


class RunLog:
    """Progress for the eye, `metrics.jsonl` and TensorBoard for later."""

    def __init__(self, run: Path, config: TrainConfig, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.run, self.config, self.first_step = run, config, first_step
        self.file = open(run / "metrics.jsonl", "a")  # noqa: SIM115 - open for the length of the run
        self.board = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)
        self.started = self.mark = time.monotonic()
        self.sums: dict[str, float] = {}
        self.count, self.waited = 0, 0.0

    def batch_arrived(self) -> float:
        """Seconds that the network waited for this batch."""
        return time.monotonic() - self.mark

    def step(self, step: int, losses: dict[str, float], norm: float, rate: float, waited: float) -> None:
        """Note one step; write the mean of every fifty."""
        for name, value in {**losses, "gradient": norm}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        self.waited += waited
        self.mark = time.monotonic()
        if step % 50 and step != self.config.steps:
            return
        elapsed = self.mark - self.started
        done = step - self.first_step
        left = elapsed / done * (self.config.steps - step)
        means = {name: total / self.count for name, total in self.sums.items()}
        record = {
            "step": step,
            **{name: round(value, 4) for name, value in means.items()},
            "rate": rate,
            "pictures_per_s": round(done * self.config.batch / elapsed, 2),
            "waiting_share": round(self.waited / elapsed, 3),
        }
        self._write(record)
        for name, value in record.items():
            self.board.add_scalar(f"train/{name}", value, step)
        text = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(
            f"step {step}/{self.config.steps}  {text}  {record['pictures_per_s']} pictures/s  "
            f"waiting {record['waiting_share']:.0%}  left {left / 60:.0f} min",
            file=sys.stderr,
            flush=True,
        )
        self.sums, self.count = {}, 0

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Note the scores on the held-out frames."""
        self._write({"step": step, **{name: round(value, 3) for name, value in scores.items()}})
        for name, value in scores.items():
            self.board.add_scalar(f"held_out/{name}", value, step)
        text = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
        print(f"step {step}: held-out frames: {text}", file=sys.stderr, flush=True)
        self.mark = time.monotonic()

    def _write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Flush everything."""
        self.file.close()
        self.board.close()
