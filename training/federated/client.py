"""A client: trains on its own drives whenever the server asks, and keeps no state between rounds."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from perception.errors import UserError
from training.config import TrainConfig
from training.data import batches
from training.evaluate import evaluate
from training.federated import flower
from training.federated.config import Task, read_task
from training.federated.weights import arrays_of, load_arrays, norms_of
from training.loop import Learner, build_learner, choose_device, learning_rate, train_step
from training.sets import TrainingSets, find_sets

LONGEST_PAUSE_S = 10.0
"""Longest pause before another attempt to reach the server."""
CONNECTED_S = 60.0
"""An attempt that lasts longer than this had reached the server."""


class Client(flower.NumPyClient):
    """Trains and evaluates the server's weights on the data of one owner.

    Args:
        own: the owner's data and hardware; everything else comes with the weights.
    """

    def __init__(self, own: TrainConfig) -> None:
        self.own = own
        self.device = choose_device(own.hardware.device)
        if own.hardware.threads:
            torch.set_num_threads(own.hardware.threads)
        self.asked = 0
        """Requests of the server, to train or to evaluate."""
        self._sets: TrainingSets | None = None

    def fit(
        self, parameters: list[np.ndarray], config: dict[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """Train for a round. With differential privacy, only the weights are returned: no losses, no numbers."""
        task = self._task(config)
        sets, learner = self._open(task), self._learner(task, parameters)
        loss = train_round(learner, task, sets, self.device)
        arrays = arrays_of(learner.network, not task.private)
        if not all(np.isfinite(array).all() for array in arrays) or not math.isfinite(loss):
            raise UserError(
                f"round {task.round}: weights or losses are not finite", "finite losses", "a lower --learning-rate"
            )
        print(f"round {task.round}: {task.local_steps} steps, loss {loss:.3f}", file=sys.stderr, flush=True)
        if task.private:
            return arrays, 1, {}
        return arrays, sum(len(subset.indices) for subset in sets.train), {"loss": loss}

    def evaluate(self, parameters: list[np.ndarray], config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Evaluate the weights on the client's held-out frames."""
        task = self._task(config)
        network = self._learner(task, parameters).network.eval()
        sets = self._open(task)
        frames = sum(len(subset.indices) for subset in (sets.objects, sets.road) if subset is not None)
        scores = evaluate(network, sets, task.config, self.device)
        return 100.0 - scores.get("score", 0.0), frames, dict(scores)

    def _learner(self, task: Task, parameters: Sequence[np.ndarray]) -> Learner:
        learner = build_learner(task.config, self.device, None, goes_on=True)  # the weights come from the server
        try:
            load_arrays(learner.network, parameters, not task.private)
        except ValueError as error:
            raise UserError(
                f"the server's weights do not fit its network ({error})", "perception federate server of this version"
            ) from None
        return learner

    def _task(self, config: dict[str, Any]) -> Task:
        self.asked += 1
        return read_task(self.own, config)

    def _open(self, task: Task) -> TrainingSets:
        """Return the data sets, opened at the first request, which names the classes."""
        if self._sets is None:
            config = task.config
            sets = find_sets(config.data, classes=config.model.class_infos)
            print(sets, file=sys.stderr, flush=True)
            if config.data.cache is not None:
                sets = sets.cached(config.data.cache, config.augment.native_width, int(config.data.cache_gb * 1e9))
            self._sets = sets
        return self._sets


def train_round(learner: Learner, task: Task, sets: TrainingSets, device: torch.device) -> float:
    """Train for the steps of a round and return the mean loss.

    Round r takes the images and learning rates of steps (r - 1)·n to r·n of the whole run.
    """
    config = task.config
    if task.private:
        freeze_statistics(learner.network)
    if task.proximal_mu:
        pull_to_start(learner.network, learner.optimiser, task.proximal_mu)
    first, total = (task.round - 1) * task.local_steps, 0.0
    with closing(batches(sets, config, first)) as stream:  # type: ignore[type-var]
        for step, batch in enumerate(islice(stream, task.local_steps), first):
            torch.manual_seed(int(np.random.SeedSequence((config.schedule.seed, step)).generate_state(1)[0]))
            rate = learning_rate(step, config)
            for group in learner.optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            losses, _ = train_step(learner.model, batch.to(device), learner.optimiser, config, learner.scaler)
            total += sum(losses.values())
    return total / task.local_steps


def freeze_statistics(network: nn.Module) -> None:
    """Make every later forward pass normalise with the running statistics, which then do not change.

    A change of statistics would tell about images, and noise on them can make a variance negative.
    """
    norms = list(norms_of(network))

    def freeze(*_: Any) -> None:
        for norm in norms:
            norm.eval()

    network.register_forward_pre_hook(freeze)


def pull_to_start(network: nn.Module, optimiser: torch.optim.Optimizer, mu: float) -> None:
    """Add the gradient of FedProx's term μ/2·‖w - w_global‖², μ·(w - w_global), before each step (Li et al. 2020)."""
    start = [(p, p.detach().clone()) for p in network.parameters() if p.requires_grad]

    def pull(*_: Any) -> None:
        for p, begin in start:
            if p.grad is not None:
                p.grad.add_(p.detach() - begin, alpha=mu)

    optimiser.register_step_pre_hook(pull)


def run_client(
    own: TrainConfig,
    server: str,
    authority: bytes | None,
    patience_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Take part in a run until the server ends it. A server that is away is asked again with growing pauses.

    Args:
        own: the owner's data and hardware.
        server: HOST:PORT.
        authority: certificates that the server's is checked against; None: without TLS.
        patience_s: time without a server after which the client gives up.

    Raises:
        UserError: no server for `patience_s`, or the data or the server's message cannot be used.
    """
    client, pause, last = Client(own), 1.0, time.monotonic()
    while True:
        asked, begin = client.asked, time.monotonic()
        try:
            flower.start_client(
                server_address=server,
                client=client.to_client(),
                root_certificates=authority,
                insecure=authority is None,
            )
            print("the server has ended the run", file=sys.stderr)
            return
        except (flower.grpc.RpcError, StopIteration) as error:
            reason = getattr(error, "details", lambda: "")() or "the connection has ended"
        now = time.monotonic()
        if client.asked > asked or now - begin > CONNECTED_S:
            pause, last = 1.0, now
        if now - last > patience_s:
            raise UserError(
                f"{server}: no server for {now - last:.0f} s ({reason})",
                "perception federate server at this address",
                "check the address and, with TLS, --authority",
            )
        print(f"{server}: {reason}; trying again in {pause:.0f} s", file=sys.stderr, flush=True)
        sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
