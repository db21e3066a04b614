"""The training loop."""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from datasets.splits import Holdout
from perception.errors import UserError
from perception.lock import alone_in
from training.adversarial import harden
from training.checkpoint import (
    backbone_of,
    holdout_since,
    load_checkpoint,
    load_network,
    model_config_to_json,
    save_checkpoint,
    with_widths_of,
)
from training.config import TrainConfig
from training.curves import draw_curves
from training.data import Batch, batches
from training.distill import Distiller
from training.distributed import from_first, local_rank, process_group, rank, synchronise_batch_norm, total, world
from training.evaluate import check_held_out, evaluate
from training.label_frames import with_teachers
from training.models.network import ModelConfig, Network
from training.results import (
    Progress,
    describe,
    has_ended,
    summary,
    warn_of_other_data,
    warn_of_trained_validation,
    write_json,
)
from training.run_log import RunLog
from training.sets import TrainingSets, find_sets

Make = Callable[[ModelConfig], Network]
"""Builds a network, as `Network` does."""
Score = Callable[..., dict[str, float]]
"""Evaluates a network, as `evaluate` does."""
Feed = Callable[[TrainingSets | None, TrainConfig, int], Iterable[Batch]]
"""Makes the batches of a run from a step on, as `batches` does."""
BAD_GRADIENTS = 20
"""Consecutive steps with a non-finite gradient after which a run ends with an error."""


@dataclass(frozen=True)
class Learner:
    """State that a step changes."""

    network: Network
    model: nn.Module
    """The network, or its DistributedDataParallel wrapper."""
    average: Network
    """Exponential moving average of the weights."""
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    distiller: Distiller | None = None


def train(
    config: TrainConfig,
    run: Path,
    resume: bool = False,
    init: Path | None = None,
    make: Make = Network,
    score: Score | None = None,
    feed: Feed = batches,
) -> Path:
    """Train a network and write its results to a run directory.

    Args:
        config: config of the run; for a resumed run, the config that it started with.
        run: directory for config, metrics, curves, results and checkpoints.
        resume: continue from `run/last.pt`, or from the start where there is no checkpoint yet.
        init: checkpoint whose averaged weights initialise the network where names and shapes agree.
        make: builds the network; `tools/baselines/yolo.py` passes another one for comparison.
        score: evaluates the network (default: `evaluate`).
        feed: makes the batches; a study whose runs see the same images passes one that keeps them.

    Returns:
        The path of the best checkpoint.

    Raises:
        UserError: there is nothing to train on, a checkpoint is damaged, the disk is full, or a loss is not finite.
    """
    device = choose_device(config.hardware.device)
    try:
        with writes_to(run), process_group(device):
            _check_parts(config)
            made = not run.exists()
            run.mkdir(parents=True, exist_ok=True)
            with alone_in(run, "training", made) if rank() == 0 else nullcontext():
                return _train(config, run, resume, init, device, make, score or evaluate, feed)
    except (RuntimeError, MemoryError) as error:
        text = str(error) or "no memory"
        # on a CPU, torch reports an allocation failure as a plain RuntimeError with this text
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in text:
            raise
        raise UserError(
            f"out of memory on {device} ({text.splitlines()[0]})",
            "memory for the images of a step",
            "--accumulate 4, a smaller --batch or --data.crop-hw; checkpoints already written are untouched",
        ) from None


@contextmanager
def writes_to(run: Path) -> Iterator[None]:
    """Turn a block's failures to write to a run directory into `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            do = f"free some, then perception train --resume {run}"
            raise UserError(f"{run}: {error.strerror}", "disk space for the run directory", do) from None
        if error.errno is None:
            raise
        raise UserError(
            f"{error.filename or run}: {error.strerror}",
            "a writable run directory and readable data",
            "--out FOLDER for another run directory",
        ) from None


def _check_parts(config: TrainConfig) -> None:
    """Raise `UserError` where a batch cannot be divided evenly."""
    batch, parts = config.schedule.batch, config.schedule.accumulate
    if batch % (world() * parts):
        raise UserError(
            f"batch {batch} over {world()} processes in {parts} parts",
            "equal parts",
            f"--batch {world() * parts * max(1, batch // world() // parts)}",
        )


def _train(
    config: TrainConfig,
    run: Path,
    resume: bool,
    init: Path | None,
    device: torch.device,
    make: Make,
    score: Score,
    feed: Feed,
) -> Path:
    if init is not None and not resume:
        config = with_widths_of(config, init)
    _seed(config)
    sets = find_sets(with_teachers(config, run), classes=config.model.class_infos) if config.data.real else None
    description = describe(config, sets, init)
    if sets is not None and config.data.cache is not None:
        sets = sets.cached(config.data.cache, config.augment.native_width, int(config.data.cache_gb * 1e9))
    # rank 0 decides, so that a node without the run directory cannot start from scratch
    goes_on = from_first(resume and (run / "last.pt").exists())
    learner = build_learner(config, device, init, make, goes_on)
    progress = _restore(learner, load_checkpoint(run / "last.pt"), run / "last.pt") if goes_on else Progress()
    ended = (
        progress.step >= config.schedule.steps or 0 < config.checkpoints.patience <= progress.evaluations_since_best
    )
    if ended and has_ended(run):  # keep the results with the commit and data of the finished run
        load_checkpoint(run / "best.pt")
        return run / "best.pt"
    holdout = holdout_since(sets.holdout if sets else Holdout(), run / "last.pt" if goes_on else init)
    if sets is not None:
        if rank() == 0:
            warn_of_trained_validation(sets, holdout)
            print(sets, file=sys.stderr, flush=True)
        check_held_out(sets, config.data.workers)
        total(0, device)  # a barrier: no process starts where another has found an unreadable frame
    if rank() == 0:
        warn_of_other_data(run, description)
        write_json(run / "config.json", description)
    log = RunLog(run, config, progress.step) if rank() == 0 else None
    loop = _Loop(config, run, device, sets, learner, description, holdout, score, log, progress, ended)
    for batch in feed(sets, config, progress.step) if not ended else ():
        loop.count_broken(batch)
        loop.step(batch)
        scores = loop.evaluate_if_due()
        loop.save_if_due(scores)
        if loop.ended:
            break
    return loop.finish()


@dataclass
class _Loop:
    """State and steps of a run. Only the process of rank 0 has a log and writes files."""

    config: TrainConfig
    run: Path
    device: torch.device
    sets: TrainingSets | None
    learner: Learner
    description: dict[str, Any]
    holdout: Holdout
    score: Score
    log: RunLog | None
    progress: Progress
    ended: bool
    bad_gradients: int = 0
    """Consecutive steps whose gradient was not finite."""

    def count_broken(self, batch: Batch) -> None:
        """Report unreadable samples, and count those of all processes."""
        for what in batch.broken:
            print(f"skipped: {what}", file=sys.stderr)
        self.progress = replace(self.progress, broken=self.progress.broken + total(len(batch.broken), self.device))

    def step(self, batch: Batch) -> None:
        """Take one optimiser step, update the averaged weights and write the log.

        Raises:
            UserError: more than `skip_nonfinite` losses, or `BAD_GRADIENTS` gradients in a row, were not finite.
        """
        config, learner, step = self.config, self.learner, self.progress.step
        waited = self.log.batch_arrived() if self.log else 0.0
        torch.manual_seed(_mix(config.schedule.seed, step, rank()))  # so that dropout depends on seed and step alone
        rate = learning_rate(step, config)
        for group in learner.optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        buffers = [b.clone() for b in learner.network.buffers()] if config.optimiser.skip_nonfinite else []
        losses, norm = train_step(
            learner.model, batch.to(self.device), learner.optimiser, config, learner.scaler, learner.distiller
        )
        if not all(math.isfinite(value) for value in losses.values()):
            self.progress = replace(self.progress, skipped=self.progress.skipped + 1)
            _check_skips(self.progress, config, losses, batch, self.run)
            with torch.no_grad():  # undo the batch's effect on the batch norm statistics
                for buffer, before in zip(learner.network.buffers(), buffers, strict=True):
                    buffer.copy_(before)
        self.bad_gradients = 0 if math.isfinite(norm) else self.bad_gradients + 1
        if self.bad_gradients > BAD_GRADIENTS:
            raise _not_finite(f"{self.bad_gradients} gradients in a row are", step + 1, config, batch, self.run)
        update_average(learner.average, learner.network, config.optimiser.ema_decay, step)
        self.progress = replace(self.progress, step=step + 1)
        if self.log:
            self.progress = self.log.step(self.progress, losses, norm, rate, waited)
        self.ended = self.progress.step == config.schedule.steps

    def evaluate_if_due(self) -> dict[str, float]:
        """Evaluate the averaged weights where an evaluation is due, and save the best checkpoint.

        Returns:
            The scores; empty where no evaluation is due.
        """
        config, log, step = self.config, self.log, self.progress.step
        if not self.ended and step % config.checkpoints.evaluate_every:
            return {}
        show = log.image_writer(step) if log else None
        scores = self.score(self.learner.average, self.sets, config, self.device, show)
        self.progress = _with_best(self.progress, scores)
        self.ended = self.ended or 0 < config.checkpoints.patience <= self.progress.evaluations_since_best
        if log:
            log.scores(step, scores)
            if self.progress.best_step == step:
                self._save("best.pt", scores)
                # the run has ended only once its last checkpoint is written
                self._write_results(scores, ended=False)
        return scores

    def save_if_due(self, scores: dict[str, float]) -> None:
        """Write the checkpoint to resume from, where one is due."""
        if self.log and (self.ended or self.progress.step % self.config.checkpoints.checkpoint_every == 0):
            self._save("last.pt", scores)
        if self.log:
            self.log.restart_clock()

    def finish(self) -> Path:
        """Write the results and curves, and return the path of the best checkpoint."""
        best = self.run / "best.pt"
        if self.log:
            self.log.close()
            self._write_results(load_checkpoint(best)["scores"], ended=True)
            draw_curves(self.run)
        return best

    def _save(self, name: str, scores: dict[str, float]) -> None:
        state = _state(self.learner, self.config, self.description, self.progress, scores, self.holdout)
        save_checkpoint(self.run / name, state)

    def _write_results(self, scores: dict[str, float], ended: bool) -> None:
        results = summary(self.description, self.progress, scores, self.config, ended)
        write_json(self.run / "results.json", results)


def build_learner(
    config: TrainConfig, device: torch.device, init: Path | None, make: Make = Network, goes_on: bool = False
) -> Learner:
    """Build the network, its average and its optimiser.

    Initial weights are not read where the run `goes_on`: `_restore` loads them, and their file may be gone.
    """
    # may raise, so it comes before any download
    scaled = choose_precision(config.hardware.precision, device) is torch.float16
    if goes_on:
        init = None
    same_backbone = init is not None and backbone_of(init) == config.model.backbone
    if same_backbone and config.model.backbone_weights is not None:
        raise UserError(
            f"--init {init} and --model.backbone-weights both set the weights of {config.model.backbone}",
            "one of the two options",
            "omit one",
        )
    if goes_on or same_backbone:  # a checkpoint holds every weight of the backbone
        config = replace(config, model=replace(config.model, pretrained=False, backbone_weights=None))
    network = _network(config, make).to(device, memory_format=torch.channels_last)
    if rank() == 0 and network.backbone.loaded:
        print(f"backbone: {network.backbone.loaded}", file=sys.stderr)
    if init is not None:
        _start_from(network, init)
    for stage in network.backbone.stages[: config.optimiser.frozen_stages]:
        stage.requires_grad_(False)
    if config.optimiser.train_only:
        part = part_of(network, config.optimiser.train_only)
        network.requires_grad_(False)
        part.requires_grad_(True)
    average = copy.deepcopy(network).eval()
    if config.hardware.compile:
        _check_compiler()
        network.compile(dynamic=False)
    synchronise_batch_norm(network, device)
    model: nn.Module = network
    if world() > 1:
        model = DistributedDataParallel(
            network, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False
        )
    optimiser = torch.optim.AdamW(_parameter_groups(network, config), lr=config.optimiser.learning_rate)
    distiller = None
    if config.distill.network is not None:
        distiller = Distiller(config.distill, load_network(config.distill.network)[0], network)
    scaler = torch.amp.GradScaler("cuda", enabled=scaled)
    return Learner(network, model, average, optimiser, scaler, distiller)


def part_of(network: nn.Module, name: str) -> nn.Module:
    """Return the part of a network that `OptimiserConfig.train_only` names.

    Raises:
        UserError: there is no such part, or it has no weights.
    """
    parts = dict(network.named_modules())
    if name not in parts or not any(True for _ in parts[name].parameters()):
        known = [part for part in parts if part and part.count(".") < 2 and not part.startswith("backbone.")]
        raise UserError(f"--train-only {name}: no such part", f"one of {', '.join(known)}", "--train-only detection")
    return parts[name]


def _check_compiler() -> None:
    if os.environ.get("CXX") is None and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise UserError(
            "--compile: no C++ compiler", "g++ or clang++ on the PATH", "apt install g++, or --no-compile"
        )


def _network(config: TrainConfig, make: Make) -> Network:
    """Build the network. Only rank 0 downloads pretrained weights; the other processes find them in torch's cache."""
    if world() == 1 or not config.model.pretrained:
        return make(config.model)
    first = make(config.model) if rank() == 0 else None
    from_first(None)  # wait for rank 0
    return first or make(config.model)


def train_step(
    model: nn.Module,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    config: TrainConfig,
    scaler: torch.amp.GradScaler | None = None,
    distiller: Distiller | None = None,
) -> tuple[dict[str, float], float]:
    """Take one optimiser step. A non-finite gradient changes no weight.

    Args:
        model: the network, or its DistributedDataParallel wrapper.
        batch: this process's part of the batch, on the network's device.
        optimiser: optimiser of the network's parameters.
        config: config of the run.
        scaler: gradient scaler for fp16; None for other precisions.
        distiller: adds the losses of a teacher network.

    Returns:
        Losses by name over the batch of all processes, and the gradient norm before clipping. The norm excludes
        detached heads, unless theirs is not finite.
    """
    network: Any = model.module if isinstance(model, DistributedDataParallel) else model
    model.train()
    if config.optimiser.frozen_norm:
        network.backbone.eval()
    if config.optimiser.train_only:
        model.eval()
        part_of(network, config.optimiser.train_only).train()
    scaler = scaler or torch.amp.GradScaler("cuda", enabled=False)
    precision = choose_precision(config.hardware.precision, batch.images.device)
    parts = batch.parts(config.schedule.accumulate)
    sums: dict[str, float] = {}
    optimiser.zero_grad(set_to_none=True)
    for part in parts:
        # labels and the teacher's outputs stay those of the clean images
        hardened = harden(network, part, config.adversarial, precision).images
        alone = isinstance(model, DistributedDataParallel) and part is not parts[-1]
        # no_sync must include the forward pass, which decides whether the backward pass communicates
        with model.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with torch.autocast(batch.images.device.type, precision, enabled=precision is not torch.float32):
                raw = model(hardened)
                wanted = distiller.outputs(part.images) if distiller is not None else None
            losses = network.loss(raw, part)
            if distiller is not None and wanted is not None:
                losses |= distiller.losses(raw, wanted)
            total = torch.stack(list(losses.values())).sum() / len(parts)
            scaler.scale(total).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(parts)
    scaler.unscale_(optimiser)
    # detached heads are clipped separately: the large gradient of an untrained one would scale all others down
    detached = [p for head in network.heads.values() if head.detached for p in head.parameters()]
    others = {id(p) for p in detached}
    norm = nn.utils.clip_grad_norm_(
        [p for p in network.parameters() if id(p) not in others], config.optimiser.clip_norm
    )
    norm_detached = nn.utils.clip_grad_norm_(detached, config.optimiser.clip_norm)
    if torch.isfinite(norm + norm_detached) or scaler.is_enabled():  # an enabled scaler checks gradients itself
        scaler.step(optimiser)
    scaler.update()
    return sums, float(norm if torch.isfinite(norm_detached) else norm_detached)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to a hundredth."""
    if step < config.schedule.warmup_steps:
        return config.optimiser.learning_rate * (step + 1) / config.schedule.warmup_steps
    done = (step - config.schedule.warmup_steps) / max(1, config.schedule.steps - config.schedule.warmup_steps)
    return config.optimiser.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def update_average(average: Network, network: Network, decay: float, step: int) -> None:
    """Update the exponential moving average of the weights, in place.

    The decay is lower in the first steps, so that the average follows them.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def choose_device(name: str) -> torch.device:
    """Return the device of the network. "auto" is CUDA where torch finds it, else the CPU.

    Under `torchrun` each process takes the GPU of its local rank.

    Raises:
        UserError: CUDA is requested and missing, the GPU cannot compute, or there are more processes than GPUs.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device", "a working NVIDIA driver", "perception doctor")
    if local_rank() >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(
            f"process {local_rank()} of this machine finds {count} GPUs", "one GPU each", f"--nproc-per-node {count}"
        )
    device = torch.device("cuda", local_rank())
    try:
        torch.cuda.set_device(device)
        torch.zeros(1, device=device).add_(1)
        torch.cuda.synchronize(device)
    except RuntimeError as error:  # no kernels for this GPU's generation, or another process uses it exclusively
        raise UserError(
            f"{device} cannot be used ({(str(error).splitlines() or ['no reason given'])[0]})",
            "a GPU that this torch has kernels for, with free memory",
            "nvidia-smi, a torch for this GPU, or --device cpu",
        ) from None
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the data type of convolutions.

    "auto" is fp32 on a CPU, because the backward pass of depthwise convolutions is slower there in bf16.

    Raises:
        UserError: fp16 is requested on a CPU.
    """
    if name == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if name == "fp16" and device.type != "cuda":
        raise UserError("--precision fp16 on a CPU", "a CUDA device", "--precision bf16")
    return {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def _seed(config: TrainConfig) -> None:
    random.seed(config.schedule.seed)
    np.random.seed(config.schedule.seed)  # noqa: NPY002 - torchvision and other libraries still draw from it
    torch.manual_seed(config.schedule.seed)
    if config.hardware.threads:
        torch.set_num_threads(config.hardware.threads)


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _parameter_groups(network: Network, config: TrainConfig) -> list[dict[str, Any]]:
    """Return parameter groups with and without weight decay, and with the backbone's learning rate factor.

    Weight decay applies to convolution and matrix weights. Biases, norms, channel scales (ConvNeXt's are (C, 1, 1))
    and task weights have none.
    """
    slow = config.optimiser.backbone_learning_rate
    backbone = {id(p) for p in network.backbone.parameters()} if slow != 1 else set()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for p in network.parameters():
        if p.requires_grad:
            decays = sum(side > 1 for side in p.shape) > 1
            groups.setdefault((id(p) not in backbone, decays), []).append(p)
    return [
        {
            "params": groups[key],
            "weight_decay": config.optimiser.weight_decay * key[1],
            "factor": 1.0 if key[0] else slow,
        }
        for key in sorted(groups, reverse=True)
    ]


def _start_from(network: Network, path: Path) -> None:
    """Copy every weight whose name and shape agree, and print how many did.

    Of the class layers, the rows of classes that both networks have are copied; new classes start at random.
    """
    state, ours = load_checkpoint(path), network.state_dict()
    theirs = state["ema"] if isinstance(state.get("ema"), dict) else {}
    theirs = _with_our_classes(theirs, ours, _class_names_of(state), network.config.class_names)
    fitting = {
        name: value
        for name, value in theirs.items()
        if name in ours and isinstance(value, torch.Tensor) and ours[name].shape == value.shape
    }
    if not fitting:
        raise UserError(f"{path}: no weight matches this network", "a checkpoint of the same backbone", "--preset")
    network.load_state_dict(fitting, strict=False)
    if rank() == 0:
        print(f"init: {len(fitting)} of {len(ours)} tensors from {path}", file=sys.stderr)


def _class_names_of(state: dict[str, Any]) -> tuple[str, ...]:
    try:
        return tuple(json.loads(state["model_config"])["class_names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def _with_our_classes(
    theirs: dict[str, Any], ours: dict[str, torch.Tensor], old: Sequence[str], new: Sequence[str]
) -> dict[str, Any]:
    """Return the weights of a checkpoint with its class layers renumbered by class name."""
    if not old or tuple(old) == tuple(new):
        return theirs
    shared = [(i, old.index(name)) for i, name in enumerate(new) if name in old]
    result = dict(theirs)
    for name, value in theirs.items():
        mine = ours.get(name)
        if mine is None or ".class_out." not in name or not isinstance(value, torch.Tensor):
            continue
        if value.shape[:1] != (len(old),) or mine.shape[:1] != (len(new),) or value.shape[1:] != mine.shape[1:]:
            continue
        result[name] = mine.clone()
        for i, k in shared:
            result[name][i] = value[k]
    if rank() == 0:
        fresh = [name for name in new if name not in old]
        print(f"init: new classes: {', '.join(fresh) or 'none'}", file=sys.stderr)
    return result


def _restore(learner: Learner, state: dict[str, Any], path: Path) -> Progress:
    try:
        learner.network.load_state_dict(state["network"])
        learner.average.load_state_dict(state["ema"])
        learner.optimiser.load_state_dict(state["optimiser"])
        if learner.scaler.is_enabled() and state.get("scaler"):
            learner.scaler.load_state_dict(state["scaler"])
        known = state.get("progress", {"step": state["step"], "best": state["best"]})
        return Progress(**known)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: does not match this run ({str(error).splitlines()[0]})",
            "the checkpoint that this run wrote, and the code version that started it",
            f"a new run: perception train --init {path} --out ANOTHER",
        ) from None


def _with_best(progress: Progress, scores: dict[str, float]) -> Progress:
    """Return the progress with the best score updated. A score equal to the best replaces it."""
    score = scores.get("score", 0.0)
    if score >= progress.best:
        return replace(progress, best=score, best_step=progress.step, evaluations_since_best=0)
    return replace(progress, evaluations_since_best=progress.evaluations_since_best + 1)


def _check_skips(progress: Progress, config: TrainConfig, losses: dict[str, float], batch: Batch, run: Path) -> None:
    if progress.skipped > config.optimiser.skip_nonfinite:
        raise _not_finite(f"a loss is ({losses})", progress.step + 1, config, batch, run)
    if rank() == 0:
        print(f"step {progress.step + 1}: skipped, {losses}, {', '.join(batch.names)}", file=sys.stderr)


def _not_finite(what: str, step: int, config: TrainConfig, batch: Batch, run: Path) -> UserError:
    images = ", ".join(batch.names[:8]) + (f" and {len(batch.names) - 8} more" if len(batch.names) > 8 else "")
    last = run / "last.pt"
    start = f"--init {last} --out ANOTHER " if last.exists() else ""
    return UserError(
        f"step {step}: {what} not finite; images: {images}",
        "finite losses; checkpoints already written are untouched",
        f"{start}--learning-rate {config.optimiser.learning_rate / 2:g}, or --skip-nonfinite 10 for a few bad images",
    )


def _state(
    learner: Learner,
    config: TrainConfig,
    description: dict[str, Any],
    progress: Progress,
    scores: dict[str, float],
    holdout: Holdout,
) -> dict[str, Any]:
    return {
        "network": learner.network.state_dict(),
        "ema": learner.average.state_dict(),
        "optimiser": learner.optimiser.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "progress": asdict(progress),
        "step": progress.step,
        "best": progress.best,
        "scores": scores,
        "model_config": model_config_to_json(config.model),
        "description": json.dumps(description),
        "holdout": holdout.to_json(),
    }
