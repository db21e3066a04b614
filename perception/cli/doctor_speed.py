"""What each engine and precision would gain on this machine, measured on the shipped network in alternating runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from perception.backends import load_model, openvino_suits
from perception.devices import Device, Precision
from perception.errors import UserError
from perception.model import DEFAULT_NETWORK, WEIGHTS_FOLDER

MODEL = f"{DEFAULT_NETWORK}-384x1248.onnx"
ROUNDS, LONGEST_S = 12, 5.0
"""Runs of each case, and the time after which no further round begins."""
PAYS = 1.1
"""Times as fast from which another engine or precision is recommended."""


class Case(NamedTuple):
    """One way to run the network."""

    name: str
    device: Device
    precision: Precision


class Speed(NamedTuple):
    """What was measured of a case."""

    case: Case
    median_ms: float
    gain: float
    """Times as fast as the first case, which `--device auto` takes: the median over the rounds of the ratio within a
    round, which other load on the machine changes little."""


def cases() -> list[Case]:
    """What `--device auto` takes without a GPU, then the other engines and precisions of this machine."""
    found = [Case("ONNX Runtime on the CPU", "cpu", "fp32")]
    try:
        from perception.backends.openvino import NAMES, precisions

        for device, name in NAMES.items():
            found += [Case(f"OpenVINO {name} {kind}", device, kind) for kind in precisions(name)]
    except UserError:  # not installed
        pass
    usual = "openvino" if openvino_suits() else "cpu"
    return sorted(found, key=lambda case: (case.device, case.precision) != (usual, "fp32"))


def measure(wanted: Sequence[Case]) -> list[Speed]:
    """Run every case in turn, round by round; cases that do not load are left out."""
    import numpy as np

    runs: list[tuple[Case, Callable[[], Any]]] = []
    for case in wanted:
        try:
            backend, spec = load_model(WEIGHTS_FOLDER / MODEL, case.device, precision=case.precision)
            images = np.random.default_rng(0).integers(0, 256, (1, *spec.size_hw, 3), np.uint8)
            backend.run({"images": images})
            runs.append((case, partial(backend.run, {"images": images})))
        except UserError:
            continue
    rounds: list[list[float]] = []
    begin = time.perf_counter()
    while len(rounds) < ROUNDS and (len(rounds) < 3 or time.perf_counter() - begin < LONGEST_S):
        rounds.append([_ms(run) for _, run in runs])
    kept = rounds[1:]  # the first warms up
    return [
        Speed(
            case,
            statistics.median(times[i] for times in kept),
            statistics.median(times[0] / times[i] for times in kept),
        )
        for i, (case, _) in enumerate(runs)
    ]


def _ms(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begin)


def text(speeds: Sequence[Speed]) -> str:
    """The measurements in one line."""
    first = speeds[0]
    others = "; ".join(f"{s.case.name} is {s.gain:.1f} times as fast" for s in speeds[1:])
    return f"{MODEL}: {first.case.name} takes {first.median_ms:.0f} ms a frame here" + (
        f"; {others}" if others else ""
    )


def advice(speeds: Sequence[Speed]) -> str:
    """What to type for the fastest case; empty where the default is as fast."""
    best = max(speeds, key=lambda speed: speed.gain)
    if best.gain < PAYS:
        return ""
    precision = "" if best.case.precision == "fp32" else f" --precision {best.case.precision}"
    warning = "   (changes results a little; perception export verify measures it)" if precision else ""
    return f"perception run VIDEO --device {best.case.device}{precision}{warning}"
