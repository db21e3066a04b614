"""The server: sends the weights, averages what comes back, and writes a checkpoint after each round."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perception.errors import UserError
from perception.files import read_text, write_atomically
from training.checkpoint import load_checkpoint, model_config_to_json, save_checkpoint
from training.config import TrainConfig
from training.federated import flower
from training.federated.config import FederatedConfig, settings
from training.federated.privacy import epsilon, private_mean
from training.federated.weights import arrays_of, difference, load_arrays
from training.loop import build_learner
from training.models.network import Network

ATTEMPTS = 3
"""Times that a round without any usable answer is begun before the run ends with an error."""
MOST_FRAMES = 10**9
"""Number of training frames that a client may claim."""
ROUNDS = "rounds.jsonl"


@dataclass
class Rounds:
    """The global network and the record of the rounds, in a run directory."""

    training: TrainConfig
    federated: FederatedConfig
    run: Path
    network: Network
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> int:
        return len(self.records)

    @property
    def arrays(self) -> list[np.ndarray]:
        return arrays_of(self.network, not self.federated.private)

    def add(self, arrays: Sequence[np.ndarray], record: dict[str, Any]) -> None:
        """Store the weights after a round, then its record."""
        load_arrays(self.network, arrays, not self.federated.private)
        self.records.append(record)
        state = self.network.state_dict()
        save_checkpoint(
            self.run / "last.pt",
            {
                "network": state,
                "ema": state,
                "step": self.done * self.federated.local_steps,
                "scores": {},
                "model_config": model_config_to_json(self.training.model),
                "description": json.dumps({"config": json.loads(json.dumps(asdict(self.training), default=str))}),
                "rounds": json.dumps(self.records),
            },
        )
        self.write_records()

    def write_records(self) -> None:
        """Write the record of all rounds."""
        write_atomically(self.run / ROUNDS, "".join(json.dumps(record) + "\n" for record in self.records))


def open_rounds(
    training: TrainConfig, federated: FederatedConfig, run: Path, resume: bool, init: Path | None
) -> Rounds:
    """Build the global network, from a checkpoint where there is one, and read the rounds that are done.

    Raises:
        UserError: a checkpoint is damaged or belongs to another run.
    """
    torch.manual_seed(training.schedule.seed)
    last = run / "last.pt"
    goes_on = resume and last.exists()
    network = build_learner(training, torch.device("cpu"), init, goes_on=goes_on).network.eval()
    if not goes_on:
        return Rounds(training, federated, run, network)
    state = load_checkpoint(last)
    try:
        network.load_state_dict(state["network"])
        records = json.loads(state["rounds"])
        assert isinstance(records, list)
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"{last}: does not match this run ({str(error).splitlines()[0]})", "the checkpoint of a federated run"
        ) from None
    return Rounds(training, federated, run, network, records)


class Strategy(flower.FedProx):
    """FedAvg or FedProx over the clients that answer usably, with differential privacy where it is asked for."""

    def __init__(self, rounds: Rounds, evaluate_every: int) -> None:
        federated = rounds.federated
        super().__init__(
            min_fit_clients=federated.clients,
            min_evaluate_clients=federated.clients,
            min_available_clients=federated.clients,
            # with differential privacy nothing but noisy weights leaves the clients' side
            fraction_evaluate=0.0 if federated.private else 1.0,
            initial_parameters=flower.ndarrays_to_parameters(rounds.arrays),
            proximal_mu=federated.mu,
            on_fit_config_fn=self._config,
            on_evaluate_config_fn=self._evaluation_config,
        )
        self.rounds, self.evaluate_every = rounds, evaluate_every
        self._sent = settings(rounds.training, federated)
        self._asked, self._begin_s, self._bytes_sent = 0, 0.0, 0

    def _config(self, _: int) -> dict[str, flower.Scalar]:
        return {"settings": self._sent, "round": self.rounds.done + 1}

    def _evaluation_config(self, _: int) -> dict[str, flower.Scalar]:
        return {"settings": self._sent, "round": self.rounds.done, "proximal_mu": 0.0}

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """Ask every connected client to train, as soon as there are enough."""
        asked = super().configure_fit(server_round, parameters, client_manager)
        self._asked, self._begin_s = len(asked), time.monotonic()
        self._bytes_sent = len(asked) * _size(parameters)
        return asked

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Average the usable answers, and store the round. Without one, nothing changes."""
        rounds, federated = self.rounds, self.rounds.federated
        before = rounds.arrays
        usable: list[tuple[Any, Any]] = []
        refused: list[str] = []
        for client, result in results:
            if problem := _problem(result, before):
                refused.append(problem)
            else:
                usable.append((client, result))
        for problem in refused:
            print(f"round {rounds.done + 1}: refused an answer: {problem}", file=sys.stderr)
        if not usable:
            return None, {}
        if federated.private:
            clients = [flower.parameters_to_ndarrays(result.parameters) for _, result in usable]
            mean = private_mean(before, clients, federated.clip_change, federated.noise, np.random.default_rng())
            parameters = flower.ndarrays_to_parameters(mean)
        else:
            averaged, _ = super().aggregate_fit(server_round, usable, [])
            assert averaged is not None  # there are usable answers
            parameters, mean = averaged, flower.parameters_to_ndarrays(averaged)
        # frames and losses of a private run are not known
        frames = [] if federated.private else [result.num_examples for _, result in usable]
        record = {
            "round": rounds.done + 1,
            "clients": len(usable),
            "failed": len(failures),
            "refused": refused,
            "images": len(usable) * federated.local_steps * rounds.training.schedule.batch,
            "frames": frames,
            "loss": _mean([(result.num_examples, result.metrics.get("loss")) for _, result in usable]),
            "bytes_sent": self._bytes_sent,
            "bytes_received": sum(_size(result.parameters) for _, result in results),
            "seconds": round(time.monotonic() - self._begin_s, 1),
            "epsilon": epsilon(federated.noise, rounds.done + 1, federated.delta) if federated.private else None,
        }
        rounds.add(mean, record)
        _report(record, federated)
        return parameters, {}

    def configure_evaluate(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """Ask for scores after every `evaluate_every` rounds and after the last, of those that are connected."""
        done = self.rounds.done
        if self.fraction_evaluate == 0 or (done % self.evaluate_every and done != self.rounds.federated.rounds):
            return []
        self.min_available_clients, needed = 1, self.min_available_clients  # a missing client must not stop the end
        try:
            return super().configure_evaluate(server_round, parameters, client_manager)
        finally:
            self.min_available_clients = needed

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        """Add the mean scores to the round's record, each weighted by the clients' numbers of held-out frames."""
        names = sorted({name for _, result in results for name in result.metrics})
        scores = {
            name: _mean([(result.num_examples, result.metrics.get(name)) for _, result in results]) for name in names
        }
        scores = {name: value for name, value in scores.items() if value is not None}
        if self.rounds.records and scores:
            self.rounds.records[-1]["scores"] = scores
            self.rounds.write_records()
            print(f"round {self.rounds.done}: score {scores.get('score', 0.0):.1f}", file=sys.stderr, flush=True)
        return None, {}


class Server(flower.Server):
    """Flower's server, which begins a round anew where no client gave a usable answer."""

    def fit_round(self, server_round: int, timeout: float | None) -> Any:
        """Return the round's result.

        Raises:
            UserError: no usable answer in `ATTEMPTS` attempts.
        """
        for _ in range(ATTEMPTS):
            result = super().fit_round(server_round, timeout)
            if result is not None and result[0] is not None:
                return result
            print("no client gave a usable answer; the round begins anew", file=sys.stderr, flush=True)
        raise UserError(
            f"no client gave a usable answer in {ATTEMPTS} attempts", "clients that can train", "see their messages"
        )


def serve(rounds: Rounds, address: str, certificates: tuple[bytes, bytes, bytes] | None, evaluate_every: int) -> Path:
    """Run the rounds that are missing, and return the last checkpoint.

    Raises:
        UserError: the address cannot be bound, the disk is full, or no client trains.
    """
    federated = rounds.federated
    left = federated.rounds - rounds.done
    if left <= 0:
        return rounds.run / "last.pt"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    strategy = Strategy(rounds, evaluate_every)
    try:
        flower.start_server(
            server_address=address,
            server=Server(client_manager=flower.SimpleClientManager(), strategy=strategy),
            config=flower.ServerConfig(num_rounds=left, round_timeout=federated.round_timeout_s),
            certificates=certificates,
        )
    except (RuntimeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.code, str):
            raise
        raise UserError(f"{address}: {error}", "a free address of this machine", "--address 127.0.0.1:8090") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return rounds.run / "last.pt"


def read_records(run: Path) -> list[dict[str, Any]]:
    """Return the records of a run's rounds."""
    return [json.loads(line) for line in read_text(run / ROUNDS).splitlines()]


def _problem(result: Any, like: Sequence[np.ndarray]) -> str:
    """Describe why an answer cannot be used; empty where it can."""
    if not 0 < result.num_examples <= MOST_FRAMES:
        return f"trained on {result.num_examples} frames"
    try:
        return difference(flower.parameters_to_ndarrays(result.parameters), like)
    except (ValueError, EOFError, OSError, MemoryError) as error:  # numpy refuses pickles with ValueError
        return f"arrays cannot be read ({(str(error).splitlines() or [type(error).__name__])[0][:120]})"


def _size(parameters: Any) -> int:
    return sum(len(tensor) for tensor in parameters.tensors)


def _mean(values: Sequence[tuple[int, Any]]) -> float | None:
    """Return the weighted mean of the values that are finite numbers."""
    known = [(n, float(v)) for n, v in values if n > 0 and isinstance(v, int | float) and np.isfinite(v)]
    return sum(n * v for n, v in known) / sum(n for n, _ in known) if known else None


def _report(record: dict[str, Any], federated: FederatedConfig) -> None:
    loss = f", loss {record['loss']:.3f}" if record["loss"] is not None else ""
    spent = f", ε {record['epsilon']:.2f} at δ {federated.delta:g}" if federated.private else ""
    failed = record["failed"] + len(record["refused"])
    lost = f", {failed} failed" if failed else ""
    print(
        f"round {record['round']}/{federated.rounds}: {record['clients']} clients{lost}{loss}, "
        f"{(record['bytes_sent'] + record['bytes_received']) / 1e6:.1f} MB{spent}",
        file=sys.stderr,
        flush=True,
    )
