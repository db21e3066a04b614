"""What Ray costs, and what a second worker gives: the same drives plainly, with one worker, with two, in turns.

    python -m tools.benchmarks.fleet DRIVES --model nano-384x1248.onnx --rounds 3

Times of a run with Ray are those of the drives alone, without the start of Ray and of the workers, which is shown
apart. On a machine that others use only the ratios within a round mean anything.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from perception.fleet.drives import Drive, find_drives
from perception.fleet.run import run_drives, run_here
from perception.fleet.worker import Job, Outcome


@dataclass(frozen=True)
class Options:
    """Compare the fleet with the plain pipeline."""

    drives: Annotated[str, tyro.conf.Positional]
    """Folder of drives."""
    model: Path
    """ONNX file."""
    rounds: int = 3
    """Turns; medians are shown."""


class Run(NamedTuple):
    """One way through all drives."""

    start_s: float
    """Until the first drive begins."""
    drives_s: float
    cpu_s: float
    """Of the processes that do the work."""
    frames: int


def measure(way: str, model: Path, drives: list[Drive]) -> Run:
    """Run all drives into a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        job = Job(name, "benchmark", str(model.resolve()))
        begin, first = time.perf_counter(), 0.0
        outcomes: list[Outcome] = []
        workers = {"plain": 0, "ray 1": 1, "ray 2": 2}[way]
        for outcome in run_drives(job, drives, workers) if workers else run_here(job, drives):
            outcomes.append(outcome)
            if len(outcomes) == 1:
                first = time.perf_counter() - begin - outcome.wall_s
        assert all(outcome.status == "done" for outcome in outcomes), [o.error for o in outcomes]
        ended = time.perf_counter() - begin
        return Run(first, ended - first, sum(o.cpu_s for o in outcomes), sum(o.frames for o in outcomes))


def main() -> None:
    options = tyro.cli(Options)
    drives = find_drives(options.drives)
    runs: dict[str, list[Run]] = {"plain": [], "ray 1": [], "ray 2": []}
    for _ in range(options.rounds):
        for way, of_way in runs.items():
            of_way.append(measure(way, options.model, drives))
            print(f"{way}: {of_way[-1]}", file=sys.stderr)
    print("| way | start s | drives s | CPU ms a frame | frames/s | against plain |\n|---|---|---|---|---|---|")
    for way, of_way in runs.items():
        ratio = statistics.median(p.drives_s / r.drives_s for p, r in zip(runs["plain"], of_way, strict=True))
        start, took, cpu = (statistics.median(values) for values in zip(*(run[:3] for run in of_way), strict=True))
        frames = of_way[0].frames
        print(f"| {way} | {start:.1f} | {took:.1f} | {1e3 * cpu / frames:.1f} | {frames / took:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
