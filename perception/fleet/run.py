"""Run many drives on Ray Data: a pool of workers that hold the networks, one drive a task."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from perception.errors import MissingDependencyError, UserError
from perception.fleet.drives import Drive
from perception.fleet.storage import Store
from perception.fleet.worker import DriveWorker, Job, Outcome

log = logging.getLogger("perception.fleet")
_STORE_BYTES = 200 << 20
"""Ray's shared memory: what travels through it are names and counts."""


@dataclass
class Report:
    """Counts of a whole run."""

    found: int = 0
    before: int = 0
    """Done by an earlier run."""
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Drive → reason."""
    retried: int = 0
    """Drives that needed more than one attempt, those that failed among them."""
    frames: int = 0
    hours: float = 0.0
    corrupt: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    bytes_out: int = 0
    wall_s: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """One drive of this run."""
        self.retried += outcome.attempts > 1
        if outcome.status == "failed":
            self.failed[outcome.path] = outcome.error
            return
        self.done += 1
        self.frames += outcome.frames
        self.hours += outcome.hours
        self.corrupt += outcome.corrupt
        self.bytes_out += outcome.bytes_out
        for table, count in outcome.rows.items():
            self.rows[table] = self.rows.get(table, 0) + count

    def text(self) -> str:
        """For people."""
        rows = ", ".join(f"{count:,} {table}" for table, count in self.rows.items())
        lines = [
            f"drives    {self.found} found, {self.done} done, {self.before} done before, {len(self.failed)} failed, "
            f"{self.retried} retried",
            f"frames    {self.frames:,} of {self.hours:.2f} hours, {self.corrupt} unreadable",
            f"rows      {rows or 'none'} ({self.bytes_out / 1e6:.1f} MB)",
            f"time      {self.wall_s:.1f} s",
        ]
        lines += [f"failed    {path}: {reason}" for path, reason in sorted(self.failed.items())[:20]]
        if len(self.failed) > 20:
            lines.append(f"failed    … and {len(self.failed) - 20} more, in report.json")
        return "\n".join(lines)


def missing_drives(drives: list[Drive], job: Job) -> list[Drive]:
    """Those without a result that these options and this input would give again. Marks of earlier attempts go.

    Raises:
        UserError: the output cannot be read or written.
    """
    output = Store(job.output)
    listing = output.sizes()
    for path in listing:
        if path.startswith("attempts/"):
            output.remove(path)
    outcomes = output.read_all([path for d in drives if (path := f"drives/{d.drive_id}.json") in listing])
    missing = []
    for drive in drives:
        known: dict[str, Any] = {}
        with contextlib.suppress(ValueError):  # written by somebody else
            known = json.loads(outcomes.get(f"drives/{drive.drive_id}.json", b"{}"))
        if known.get("status") != "done" or known.get("key") != job.key + drive.fingerprint:
            missing.append(drive)
    return missing


def run_drives(
    job: Job, drives: list[Drive], workers: int, address: str | None = None, gpus: float = 0.0
) -> Iterator[Outcome]:
    """Process drives, in the order in which they are finished.

    Args:
        job: what is the same for all.
        drives: those to do.
        workers: processes of the pool.
        address: of a Ray cluster; None: a Ray of our own on this machine, on loopback.
        gpus: GPUs a worker.

    Raises:
        MissingDependencyError: Ray is not installed.
        UserError: there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use to its makers
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingDependencyError("ray", "fleet", "perception fleet") from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    shared: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with tempfile.TemporaryDirectory(prefix="ray-", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        try:
            if address:
                ray.init(address=address, **shared)
            else:
                ray.init(
                    num_cpus=workers,
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=folder,  # else each run would leave its logs behind
                    **shared,
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            where = f"--address {address}" if address else "Ray"
            raise UserError(f"{where}: {str(error)[:200]}", "a Ray cluster that runs", "ray status") from None
        try:
            yield from _outcomes(ray, job, drives, workers, gpus)
        finally:
            ray.shutdown()


def _short_folder() -> str | None:
    """Where Ray may put its sockets, whose paths have at most 107 characters; None: the usual temporary folder."""
    return "/tmp" if len(tempfile.gettempdir()) > 20 and os.path.isdir("/tmp") else None


@contextlib.contextmanager
def ray_on_stderr() -> Iterator[None]:
    """Ray prints what it has to say of killed workers to standard output, which is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _outcomes(ray: Any, job: Job, drives: list[Drive], workers: int, gpus: float) -> Iterator[Outcome]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"drive": json.dumps(asdict(drive))} for drive in drives]
    pool = ray.data.ActorPoolStrategy(size=min(workers, len(drives)), max_tasks_in_flight_per_actor=1)
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        DriveWorker, fn_constructor_args=(job,), compute=pool, num_cpus=1, num_gpus=gpus or None
    )
    for row in results.iter_rows():
        yield Outcome(**json.loads(row["outcome"]))


def run_here(job: Job, drives: list[Drive]) -> Iterator[Outcome]:
    """The same without Ray, one drive after another: to measure what Ray costs."""
    worker = DriveWorker(job)
    for drive in drives:
        yield worker.process(drive)


def write_report(job: Job, report: Report, begin_s: float) -> None:
    """`report.json` in the output; removes the marks of attempts."""
    report.wall_s = round(time.monotonic() - begin_s, 3)
    output = Store(job.output)
    output.write("report.json", (json.dumps(asdict(report), indent=1) + "\n").encode())
    for path in output.sizes():
        if path.startswith("attempts/"):
            output.remove(path)
