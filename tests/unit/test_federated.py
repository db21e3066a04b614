"""Federated training: pooled statistics, privacy, what a client takes from a server and a server from a client."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from training_runs import tiny  # noqa: E402

from perception.errors import UserError  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.federated.config import FederatedConfig, read_task, settings  # noqa: E402
from training.federated.privacy import epsilon, private_mean  # noqa: E402
from training.federated.weights import arrays_of, difference, load_arrays  # noqa: E402


def norm(mean: float, variance: float) -> nn.Module:
    network = nn.Sequential(nn.BatchNorm1d(1))
    network[0].running_mean.fill_(mean)
    network[0].running_var.fill_(variance)
    return network


def test_batch_norm_statistics_are_those_of_all_images_together() -> None:
    # x in {-1, 1} at one client, {3, 5} at the other: all four have mean 2 and variance 5, not 1
    clients = [arrays_of(norm(0, 1)), arrays_of(norm(4, 1))]
    network = norm(0, 1)
    load_arrays(network, [((a + b) / 2).astype(a.dtype) for a, b in zip(*clients, strict=True)])
    assert network[0].running_mean.item() == pytest.approx(2)
    assert network[0].running_var.item() == pytest.approx(5)


def test_without_statistics_they_stay_as_they_are() -> None:
    network = norm(3, 7)
    arrays = arrays_of(norm(0, 1), statistics=False)
    assert len(arrays) == 2  # scale and shift
    load_arrays(network, arrays, statistics=False)
    assert (network[0].running_mean.item(), network[0].running_var.item()) == (3, 7)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a: a[:-1], "3 arrays, expected 4"),
        (lambda a: [a[0].reshape(1, 1), *a[1:]], r"array 0 is float32 \(1, 1\)"),
        (lambda a: [a[0].astype("<U4"), *a[1:]], "array 0 is <U4"),
        (lambda a: [a[0], a[1] * np.float32(np.nan), *a[2:]], "array 1 has values that are not finite"),
    ],
)
def test_arrays_of_another_network_are_refused(change: Any, text: str) -> None:
    arrays = arrays_of(norm(0, 1))
    with pytest.raises(ValueError, match=text):
        load_arrays(norm(0, 1), change(arrays))
    assert difference(arrays, arrays) == ""


def test_epsilon_of_the_gaussian_mechanism() -> None:
    assert epsilon(3.730632, 1, 1e-5) == pytest.approx(1.0, abs=1e-4)  # diffprivlib's and Balle and Wang's figure
    assert epsilon(2.0, 4, 1e-5) == pytest.approx(epsilon(1.0, 1, 1e-5))  # four rounds: twice the noise for the same
    assert epsilon(1.0, 0, 1e-5) == 0
    assert epsilon(1.0, 10, 1e-5) > epsilon(1.0, 9, 1e-5)
    assert epsilon(1e-9, 1, 1e-5) > 1e15 and math.isfinite(epsilon(1e-9, 1, 1e-5))
    assert epsilon(1e6, 1, 0.4) == 0  # δ alone suffices


def test_each_clients_change_is_clipped() -> None:
    before = [np.zeros(2, np.float32)]
    clients = [[np.array([3, 4], np.float32)], [np.array([0, 0.5], np.float32)]]  # norms 5 and 0.5
    mean = private_mean(before, clients, clip_norm=1.0, noise=0.0, rng=np.random.default_rng(0))
    assert mean[0] == pytest.approx([0.3, 0.65])  # ((0.6, 0.8) + (0, 0.5)) / 2


def test_noise_is_that_of_the_clients_that_answered() -> None:
    before = [np.zeros(40_000, np.float32)]
    mean = private_mean(before, [before, before], clip_norm=3.0, noise=2.0, rng=np.random.default_rng(0))
    assert mean[0].std() == pytest.approx(3.0, rel=0.02)  # 2 × 3 / 2 clients


def sent(training: TrainConfig) -> dict[str, Any]:
    return {"settings": settings(training, FederatedConfig()), "round": 1, "proximal_mu": 0.0}


def test_a_server_sends_no_paths_and_a_client_takes_none(tmp_path: Path) -> None:
    theirs = replace(tiny(tmp_path / "theirs"), model=replace(tiny(tmp_path).model, backbone_weights=tmp_path / "w"))
    message = sent(theirs)
    assert str(tmp_path) not in message["settings"]
    table = json.loads(message["settings"])
    table["model"] |= {"pretrained": True, "backbone_weights": "/etc/passwd"}
    own = tiny(tmp_path / "own")
    task = read_task(own, {**message, "settings": json.dumps({**table, "data": {"cache": "/tmp/filled"}})})
    assert task.config.data.root == own.data.root and task.config.data.cache is None
    assert task.config.distill == own.distill and task.config.teachers == own.teachers
    assert not task.config.model.pretrained and task.config.model.backbone_weights is None


@pytest.mark.parametrize(
    "change",
    [
        {"settings": "no JSON"},
        {"settings": "[" * 100_000},
        {"settings": json.dumps({})},
        {"round": 11},
        {"round": 0},
        {"proximal_mu": math.nan},
        {"proximal_mu": -1.0},
    ],
)
def test_a_clients_refusal_is_a_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="server"):
        read_task(tiny(tmp_path), {**sent(tiny(tmp_path)), **change})


def test_a_client_refuses_a_batch_that_fills_its_memory(tmp_path: Path) -> None:
    message = sent(tiny(tmp_path))
    table = json.loads(message["settings"])
    table["schedule"]["batch"] = 10**9
    with pytest.raises(UserError, match="pixels a batch"):
        read_task(tiny(tmp_path), {**message, "settings": json.dumps(table)})


# ---------------------------------------------------------------- with Flower


@dataclass
class Answer:
    """What the strategy reads of a client's answer."""

    parameters: Any
    num_examples: int
    metrics: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def strategy(tmp_path: Path) -> Any:
    pytest.importorskip("flwr", reason="needs the extra 'federated'")
    from training.federated.server import Strategy, open_rounds

    return Strategy(open_rounds(tiny(tmp_path), FederatedConfig(), tmp_path, False, None), 10)


def answers(strategy: Any, *shifts: tuple[float, int]) -> list[Any]:
    from training.federated.flower import ndarrays_to_parameters

    arrays = strategy.rounds.arrays
    moved = [([a + np.asarray(shift, a.dtype) for a in arrays], frames) for shift, frames in shifts]
    return [(None, Answer(ndarrays_to_parameters(a), frames, {"loss": 2.0})) for a, frames in moved]


def test_the_average_is_weighted_by_frames_and_stored(strategy: Any, tmp_path: Path) -> None:
    from training.federated.server import open_rounds

    before = strategy.rounds.arrays
    strategy.aggregate_fit(1, answers(strategy, (0.0, 30), (0.1, 10)), [RuntimeError()])
    after = strategy.rounds.arrays
    assert after[0] == pytest.approx(before[0] + 0.025, abs=1e-6)
    record = json.loads((tmp_path / "rounds.jsonl").read_text())
    assert (record["clients"], record["failed"], record["frames"], record["loss"]) == (2, 1, [30, 10], 2.0)
    again = open_rounds(strategy.rounds.training, strategy.rounds.federated, tmp_path, True, None)
    assert again.done == 1
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(again.arrays, after, strict=True))


def test_unusable_answers_change_nothing_and_run_no_code(
    strategy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "executed",)

    pickled = io.BytesIO()
    np.save(pickled, np.array([Evil()], dtype=object), allow_pickle=True)
    results = answers(strategy, (float("nan"), 5), (0.1, -5), (0.1, 5))
    results[2][1].parameters.tensors[0] = pickled.getvalue()
    before = strategy.rounds.arrays
    assert strategy.aggregate_fit(1, results, []) == (None, {})
    assert not (tmp_path / "executed").exists()
    assert strategy.rounds.done == 0
    assert all((a == b).all() for a, b in zip(strategy.rounds.arrays, before, strict=True))
    told = capsys.readouterr().err
    assert "not finite" in told and "-5 frames" in told and "cannot be read" in told


def test_a_private_run_counts_clients_alike_and_states_epsilon(tmp_path: Path) -> None:
    pytest.importorskip("flwr", reason="needs the extra 'federated'")
    from training.federated.server import Strategy, open_rounds

    federated = FederatedConfig(noise=1e-6, clip_change=1e9)
    strategy = Strategy(open_rounds(tiny(tmp_path), federated, tmp_path, False, None), 10)
    assert strategy.fraction_evaluate == 0  # scores are not noisy
    before = strategy.rounds.arrays
    results = answers(strategy, (0.0, 30), (0.1, 10))
    strategy.rounds.federated = replace(federated, clip_change=1e3)
    strategy.aggregate_fit(1, results, [])
    assert strategy.rounds.arrays[0] == pytest.approx(before[0] + 0.05, abs=0.02)
    record = strategy.rounds.records[0]
    assert record["epsilon"] == pytest.approx(epsilon(1e-6, 1, 1e-5)) and record["frames"] == []


def test_fedprox_pulls_with_its_gradient() -> None:
    pytest.importorskip("flwr", reason="needs the extra 'federated'")
    from training.federated.client import pull_to_start

    layer = nn.Linear(1, 1, bias=False)
    optimiser = torch.optim.SGD(layer.parameters(), lr=1.0)
    nn.init.constant_(layer.weight, 1.0)
    pull_to_start(layer, optimiser, mu=0.1)
    nn.init.constant_(layer.weight, 3.0)
    layer.weight.grad = torch.tensor([[0.5]])
    optimiser.step()
    assert layer.weight.item() == pytest.approx(3.0 - (0.5 + 0.1 * 2.0))


def test_frozen_statistics_normalise_and_do_not_change() -> None:
    pytest.importorskip("flwr", reason="needs the extra 'federated'")
    from training.federated.client import freeze_statistics

    network = norm(4.0, 1.0)
    freeze_statistics(network)
    network.train()
    assert network(torch.tensor([[4.0], [6.0]])).flatten().tolist() == pytest.approx([0.0, 2.0], abs=1e-4)
    assert network[0].running_mean.item() == 4.0
