"""Settings of a federated run, and the part of them that the server sends to its clients."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from perception.cli.options import overlay
from perception.errors import FieldError, UserError
from training.checkpoint import model_config_from_json, model_config_to_json
from training.config import MANY, AugmentConfig, OptimiserConfig, ScheduleConfig, TrainConfig
from training.ranges import check_ranges

MOST_PIXELS = 2**27
"""Pixels of a batch that a client accepts from its server."""
MOST_STEPS = 100_000
"""Steps of a round that a client accepts from its server."""


@dataclass(frozen=True)
class FederatedConfig:
    """Rounds, strategy and privacy."""

    clients: int = 2
    """Clients that must be connected before a round starts. All connected clients take part."""
    rounds: int = 10
    """Rounds: the clients train, the server averages."""
    local_steps: int = 100
    """Optimiser steps of each client and round."""
    strategy: Literal["fedavg", "fedprox"] = "fedavg"
    """fedavg: average, weighted by the clients' numbers of training frames. fedprox: also pulls the clients towards
    the global weights, for unequal data."""
    proximal_mu: float = 0.1
    """Strength of that pull, for fedprox."""
    noise: float = 0.0
    """Differential privacy: noise on the sum of the clients' changes, as a multiple of --clip-change. 0: none."""
    clip_change: float = 1.0
    """Differential privacy: largest L2 norm of a client's change of the weights in a round."""
    delta: float = 1e-5
    """Differential privacy: δ for which ε is reported."""
    round_timeout_s: float = 3600.0
    """Time after which a round goes on without the clients that have not answered, seconds."""

    def __post_init__(self) -> None:
        check_ranges(self, clients=(1, MANY), rounds=(1, MANY), local_steps=(1, MOST_STEPS), noise=(0, MANY))
        check_ranges(self, proximal_mu=(0, MANY), clip_change=(1e-9, MANY), delta=(1e-300, 0.5))
        check_ranges(self, round_timeout_s=(1, MANY))
        if self.strategy not in ("fedavg", "fedprox"):
            raise FieldError(self, "strategy", "fedavg or fedprox")

    @property
    def private(self) -> bool:
        """Return whether the run is differentially private."""
        return self.noise > 0

    @property
    def mu(self) -> float:
        """Return the strength of the proximal term; 0 for fedavg."""
        return self.proximal_mu if self.strategy == "fedprox" else 0.0


@dataclass(frozen=True)
class Task:
    """What a client does in a round."""

    config: TrainConfig
    round: int
    """From 1."""
    local_steps: int
    proximal_mu: float
    private: bool


def settings(training: TrainConfig, federated: FederatedConfig) -> str:
    """Return what the server sends with the weights, as JSON: the network and how to train it, no paths."""
    schedule = replace(training.schedule, steps=federated.rounds * federated.local_steps)
    table = {
        "model": json.loads(model_config_to_json(training.model)),
        "schedule": asdict(schedule),
        "optimiser": asdict(training.optimiser),
        "augment": asdict(training.augment),
        "crop_hw": training.data.crop_hw,
        "validation_hw": training.data.validation_hw,
        "local_steps": federated.local_steps,
        "private": federated.private,
    }
    return json.dumps(table)


def read_task(own: TrainConfig, sent: dict[str, Any]) -> Task:
    """Return the task of a round from a server's message. Data, device and files remain the client's own.

    Raises:
        UserError: the message is not from a server of this version, or asks for more than a client accepts.
    """
    try:
        table = json.loads(sent["settings"])
        data = replace(own.data, crop_hw=_pair(table["crop_hw"]), validation_hw=_pair(table["validation_hw"]))
        config = replace(
            own,
            model=replace(
                model_config_from_json(json.dumps(table["model"])), pretrained=False, backbone_weights=None
            ),
            data=data,
            schedule=overlay(ScheduleConfig(), table["schedule"], "schedule"),
            optimiser=overlay(OptimiserConfig(), table["optimiser"], "optimiser"),
            augment=overlay(AugmentConfig(), table["augment"], "augment"),
        )
        task = Task(
            config, int(sent["round"]), int(table["local_steps"]), float(sent["proximal_mu"]), bool(table["private"])
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, UserError) as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the server's settings cannot be read ({text})", "perception federate server of this version"
        ) from None
    pixels = config.schedule.batch * config.data.crop_hw[0] * config.data.crop_hw[1]
    steps = task.round * task.local_steps
    if pixels > MOST_PIXELS or not 0 < task.local_steps <= MOST_STEPS or not 0 < steps <= config.schedule.steps:
        raise UserError(
            f"the server asks for {pixels:,} pixels a batch, {task.local_steps:,} steps, round {task.round}",
            f"up to {MOST_PIXELS:,} pixels and {MOST_STEPS:,} steps, rounds within the run",
        )
    if not 0 <= task.proximal_mu < MANY:
        raise UserError(f"the server asks for --proximal-mu {task.proximal_mu}", "0 or more")
    return task


def _pair(value: Any) -> tuple[int, int]:
    height, width = (int(side) for side in value)
    return height, width
