"""What learning together is worth: three unequal fleets alone, federated, and with their images in one place.

    python -m tools.benchmarks.federated --data ../shared/data --out federated

Every way sees the same number of images, starts from the same weights and begins a new optimiser each round. Clients
and server are those of `perception federate`, called in one process: all but the network between them. Each result is
written at once, and a second start does what is missing.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro

from perception.detector import Detector
from perception.errors import UserError
from perception.evaluation.detection import average_precision, pool
from training.backend import torch_model
from training.checkpoint import load_network
from training.config import AugmentConfig, DataConfig, OptimiserConfig, ScheduleConfig, TrainConfig, nano
from training.evaluate import my_samples
from training.federated import flower
from training.federated.client import Client
from training.federated.config import FederatedConfig
from training.federated.server import Rounds, Strategy
from training.models.network import Network
from training.operating_point import match_sample
from training.sets import Subset, TrainingSets, find_sets

FLEETS = {"KITTI": "kitti/object", "CityPersons": "citypersons_sample", "DAWN": "dawn_fog"}
"""Fleet → data set: streets by day, people in cities, fog."""
TESTS = (("KITTI", "Car"), ("KITTI", "Pedestrian"), ("CityPersons", "Pedestrian"), ("DAWN", "Car"))
"""AP at IoU 0.5 of these is averaged."""
WAYS = (
    "KITTI alone",
    "CityPersons alone",
    "DAWN alone",
    "FedAvg",
    "FedProx",
    "central",
    "FedAvg clipped",
    "FedAvg ε",
)


@dataclass(frozen=True)
class Options:
    """Compare ways of training."""

    data: Path = Path("../shared/data")
    """Sample data."""
    out: Path = Path("federated")
    """Folder of results, one file for each way and seed."""
    seeds: int = 3
    """Number of seeds."""
    rounds: int = 4
    """Rounds."""
    steps: int = 8
    """Steps of a client and round; ways with one client take three times as many."""
    minutes: float = 1e9
    """Begin no further way after this time."""


class Fleet(NamedTuple):
    """One owner's data."""

    train: Subset
    test: Subset


def fleets(data: Path) -> dict[str, Fleet]:
    """Return the fleets. KITTI's test part are other drives; of the others it is every fifth frame."""
    sets = find_sets(DataConfig(root=data, hand_labels=False))
    by_name = {subset.name: subset for subset in sets.train}
    assert sets.objects is not None
    parts = {}
    for fleet, name in FLEETS.items():
        subset = replace(by_name[name], weight=1.0)
        tested = sets.objects if fleet == "KITTI" else replace(subset, indices=subset.indices[::5])
        left = tuple(i for i in subset.indices if i not in set(tested.indices))
        parts[fleet] = Fleet(replace(subset, indices=left), tested)
    return parts


def training(seed: int, steps: int) -> TrainConfig:
    """Return the config of a tiny nano: its backbone frozen, without road."""
    config = nano()
    return replace(
        config,
        model=replace(config.model, pretrained=False, heads=("detection",)),
        data=DataConfig(crop_hw=(128, 256), validation_hw=(192, 640), synthetic_share=0.0, workers=0),
        augment=AugmentConfig(native_width=640, mosaic=0.0, copy_paste=0.0),
        schedule=ScheduleConfig(steps=steps, batch=8, warmup_steps=5, seed=seed),
        optimiser=OptimiserConfig(frozen_stages=4, frozen_norm=True),
    )


def start(config: TrainConfig) -> Network:
    """Return the weights that every way starts from: the shipped nano's, with class and box layers drawn by the seed.

    The nano has seen these fleets' images, so the table compares ways and says nothing about the network.
    """
    torch.manual_seed(config.schedule.seed)
    network = Network(config.model)
    shipped = load_network(Path("nano.pt"))[0].state_dict()
    drawn = ("detection.class_out.", "detection.box_out.")
    kept = {name: shipped[name] for name in network.state_dict() if name in shipped and not name.startswith(drawn)}
    network.load_state_dict(kept, strict=False)
    return network.eval()


def clients_of(way: str, parts: dict[str, Fleet], config: TrainConfig, copies: Path) -> list[Client]:
    """Return the clients of a way, each with its data; `copies` keeps decoded images."""
    owners = [[fleet.train] for fleet in parts.values()]
    if way.endswith(" alone"):
        owners = [[parts[way.removesuffix(" alone")].train]]
    elif way == "central":
        owners = [[replace(fleet.train, weight=len(fleet.train.indices)) for fleet in parts.values()]]
    clients = []
    for owned in owners:
        client = Client(config)
        client._sets = TrainingSets(tuple(owned), None, None).cached(copies, 640, 10**9)
        clients.append(client)
    return clients


class Answer(NamedTuple):
    """What the server reads of a client's answer."""

    parameters: Any
    num_examples: int
    metrics: dict[str, Any]


def learn(way: str, seed: int, parts: dict[str, Fleet], options: Options, folder: Path) -> tuple[Network, list[Any]]:
    """Train in one way; return the network and the records of the rounds."""
    config = training(seed, options.steps)
    clients = clients_of(way, parts, config, options.out / "images")
    steps = options.steps * 3 // len(clients)
    noise = {"FedAvg clipped": 1e-9, "FedAvg ε": 1.0}.get(way, 0.0)
    federated = FederatedConfig(
        len(clients), options.rounds, steps, "fedprox" if way == "FedProx" else "fedavg", noise=noise, clip_change=5.0
    )
    rounds = Rounds(config, federated, folder, start(config))
    strategy = Strategy(rounds, options.rounds)
    for _ in range(options.rounds):
        sent = {**strategy._config(0), "proximal_mu": federated.mu}
        arrays = rounds.arrays
        size = sum(len(tensor) for tensor in flower.ndarrays_to_parameters(arrays).tensors)
        strategy._bytes_sent, strategy._begin_s = len(clients) * size, time.monotonic()
        answers = []
        for client in clients:
            after, frames, metrics = client.fit([a.copy() for a in arrays], sent)
            answers.append((None, Answer(flower.ndarrays_to_parameters(after), frames, metrics)))
        strategy.aggregate_fit(0, answers, [])
    return rounds.network, rounds.records


def score(network: Network, parts: dict[str, Fleet]) -> dict[str, float]:
    """Return AP at IoU 0.5 of each test, per cent, and their mean."""
    network.eval()
    detect = Detector(torch_model(network, (192, 640), torch.device("cpu")))
    names = network.config.class_names
    found: dict[tuple[str, str], list[Any]] = {test: [] for test in TESTS}
    for fleet, part in parts.items():
        for _, sample in my_samples(part.test, 0):
            detections, _ = detect(sample.image_bgr)
            for tested, name in TESTS:
                if tested == fleet and sample.labelled_classes[sample.class_names.index(name)]:
                    truth_id = sample.class_names.index(name)
                    found[tested, name].append(match_sample(sample, detections, names.index(name), truth_id=truth_id))
    scores = {f"{fleet} {name}": 100 * average_precision(pool(of)) for (fleet, name), of in found.items()}
    return {**scores, "mean": statistics.mean(scores.values())}


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table of means and ranges over seeds."""
    tests = [f"{fleet} {name}" for fleet, name in TESTS] + ["mean"]
    lines = ["| way | images | " + " | ".join(tests) + " | MB | ε |", "|---" * (len(tests) + 4) + "|"]
    for way, all_seeds in results.items():
        of_way = [result for result in all_seeds if "failed" not in result]
        if not of_way:  # noise drowned the weights
            lines.append(
                f"| {way} ({len(all_seeds)}) | | no number after the first round |" + " |" * (len(tests) + 1)
            )
            continue
        cells = []
        for test in tests:
            values = [result["scores"][test] for result in of_way]
            cells.append(f"{np.mean(values):.1f} ({min(values):.1f}–{max(values):.1f})")
        records = of_way[0]["rounds"]
        sent = sum(r["bytes_sent"] + r["bytes_received"] for r in records) / 1e6
        alone = way.endswith(" alone") or way == "central"
        spent = records[-1]["epsilon"] if way == "FedAvg ε" else None
        traffic, privacy = "–" if alone else f"{sent:.0f}", "–" if spent is None else f"{spent:.1f}"
        images = sum(r["images"] for r in records)
        lines.append(f"| {way} ({len(of_way)}) | {images} | " + " | ".join(cells) + f" | {traffic} | {privacy} |")
    return "\n".join(lines)


def main() -> None:
    options = tyro.cli(Options)
    begin_s = time.monotonic()
    parts = fleets(options.data)
    print({name: (len(fleet.train.indices), len(fleet.test.indices)) for name, fleet in parts.items()})
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in range(1, options.seeds + 1):
        for way in WAYS:
            path = options.out / f"{way.replace(' ', '-')}-{seed}.json"
            if not path.exists() and time.monotonic() - begin_s < 60 * options.minutes:
                folder = options.out / path.stem
                folder.mkdir(parents=True, exist_ok=True)
                cpu_s = time.process_time()
                result: dict[str, Any] = {}
                try:
                    network, records = learn(way, seed, parts, options, folder)
                    result |= {"scores": score(network, parts), "rounds": records}
                except UserError as error:
                    result["failed"] = str(error)
                result["cpu_s"] = time.process_time() - cpu_s
                path.write_text(json.dumps(result))
                print(way, seed, result.get("scores", "failed"), f"{result['cpu_s']:.0f} s", flush=True)
            if path.exists():
                results.setdefault(way, []).append(json.loads(path.read_text()))
    print(table(results))


if __name__ == "__main__":
    main()
