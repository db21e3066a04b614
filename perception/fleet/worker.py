"""What one worker does with one drive: fetch, run, write. Everything that it needs is plain data."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from perception.errors import UserError
from perception.fleet.drives import Drive
from perception.fleet.storage import Store
from perception.redact import redact
from perception.types import HealthEvent


@dataclass(frozen=True)
class Job:
    """What is the same for all drives."""

    output: str
    key: str
    """Of everything that decides the content of the tables; a drive with another key is done again."""
    model: str | None = None
    second: str | None = None
    """A second network; where the two differ for long is an event."""
    camera: str | None = None
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "cpu"
    threads: int = 1
    tracker: str = "drivetrack"
    every: int = 1
    height_m: float | None = None
    max_megapixels: float = 100.0
    events: str | None = None
    """Text of the TOML file with zones, lines and alarms."""
    retries: int = 2


@dataclass
class Outcome:
    """What became of a drive; `drives/ID.json` in the output."""

    drive: str
    path: str
    status: Literal["done", "failed"] = "done"
    key: str = ""
    frames: int = 0
    hours: float = 0.0
    """Of recorded time."""
    rows: dict[str, int] = field(default_factory=dict)
    corrupt: int = 0
    bytes_out: int = 0
    attempts: int = 1
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Of the worker's process."""
    error: str = ""
    notes: list[str] = field(default_factory=list)


class DriveWorker:
    """Holds the networks; one process of the pool."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.output = Store(job.output)
        self._models: dict[Path, Any] = {}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Process a drive given as JSON; never raises for a fault of the drive."""
        given = json.loads(row["drive"])
        drive = Drive(**(given | {"files": tuple(given["files"])}))
        return {"outcome": json.dumps(asdict(self.process(drive)))}

    def process(self, drive: Drive) -> Outcome:
        """Try until it is done or has had its attempts. Those in which a worker was killed count too."""
        most = self.job.retries + 1
        begin, begin_cpu = time.perf_counter(), time.process_time()
        error = "the worker was killed each time"
        attempt = self._attempts(drive)
        while attempt < most:
            attempt += 1
            self._mark(drive, attempt)
            try:
                outcome = self._once(drive)
            except Exception as fault:
                error = fault.found if isinstance(fault, UserError) else _last_line(fault)
                continue
            outcome.attempts, outcome.wall_s = attempt, round(time.perf_counter() - begin, 3)
            outcome.cpu_s = round(time.process_time() - begin_cpu, 3)
            self._write_outcome(outcome)
            return outcome
        failed = Outcome(drive.drive_id, drive.shown, "failed", attempts=attempt, error=redact(error)[:1000])
        failed.wall_s = round(time.perf_counter() - begin, 3)
        self._write_outcome(failed)
        return failed

    def _write_outcome(self, outcome: Outcome) -> None:
        text = json.dumps(asdict(outcome), indent=1) + "\n"
        try:
            self.output.write(f"drives/{outcome.drive}.json", text.encode())
            self.output.remove(f"attempts/{outcome.drive}.json")
        except UserError as error:  # a full disk: the run's report says so
            outcome.status, outcome.error = "failed", error.found

    def _attempts(self, drive: Drive) -> int:
        """How often a worker has begun with it in this run."""
        try:
            return int(json.loads(self.output.read(f"attempts/{drive.drive_id}.json"))["attempt"])
        except (FileNotFoundError, ValueError, KeyError, UserError):
            return 0

    def _mark(self, drive: Drive, attempt: int) -> None:
        mark = {"attempt": attempt, "pid": os.getpid(), "host": socket.gethostname()}
        self.output.write(f"attempts/{drive.drive_id}.json", json.dumps(mark).encode())

    def _once(self, drive: Drive) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="perception-fleet-") as name:
            folder = Path(name)
            location = fetch_drive(drive, folder / "input")
            outcome, paths = self._run(drive, location, folder)
            for table, path in paths.items():
                outcome.bytes_out += path.stat().st_size
                self.output.write(f"{table}/{drive.drive_id}.parquet", path)
        return outcome

    def _run(self, drive: Drive, location: Path, folder: Path) -> tuple[Outcome, dict[str, Path]]:
        """All sources of a drive, one after another, into the tables."""
        from perception.fleet.tables import DriveTables

        outcome = Outcome(drive.drive_id, drive.shown, key=self.job.key + drive.fingerprint)
        tables: DriveTables | None = None
        try:
            for source in open_drive(location, drive.is_bag, self._source_options()):
                model = self._model(source.size_hw)
                if tables is None:
                    tables = DriveTables(folder, drive.drive_id, model[1])
                self._run_source(source, model, tables, outcome)
        finally:
            if tables is not None:
                tables.close()
        if tables is None:
            raise UserError(f"{drive.shown}: no images", "a drive with images")
        outcome.rows = tables.counts
        return outcome, tables.paths

    def _run_source(self, source: Any, model: Any, tables: Any, outcome: Outcome) -> None:
        from perception.runtime.config import PipelineConfig
        from perception.runtime.pipeline import Pipeline
        from perception.sinks.events.config import EventConfig
        from perception.sinks.events.engine import EventEngine

        config: EventConfig | None = self._event_config()
        engine = None if config is None else EventEngine(config, model[1].class_names)
        if self.job.camera and source.calibration is None:
            from perception.cameras.files import read_camera
            from perception.sources import calibrate_sources

            calibrate_sources([source], read_camera(Path(self.job.camera)))
        health: list[HealthEvent] = []
        config_of = PipelineConfig(tracker=self.job.tracker)
        pipeline = Pipeline([source], model, (), config_of, second=self._second(), on_event=health.append)
        last_ns = 0
        for result in pipeline:
            tables.add(result, source.epoch_ns)
            last_ns = result.frame.timestamp_ns
            outcome.frames += 1
            for event in engine.update(result) if engine is not None else ():
                tables.add_scene_event(event)
        for event in engine.finish() if engine is not None else ():
            tables.add_scene_event(event)
        if pipeline.errors:
            raise UserError("; ".join(pipeline.errors.values()), "a drive that can be read to its end")
        tables.add_health(source.name, health, source.corrupt)
        outcome.corrupt += source.corrupt
        outcome.hours += last_ns / 3.6e12
        outcome.notes += [f"{source.name}: {note}" for note in source.notes]

    def _source_options(self) -> Any:
        from perception.source_options import SourceOptions

        job = self.job
        return SourceOptions(every=job.every, height_m=job.height_m, max_megapixels=job.max_megapixels)

    def _event_config(self) -> Any:
        if self.job.events is None:
            return None
        from perception.sinks.events.config import read_events

        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(self.job.events)
            file.flush()
            return read_events(Path(file.name))

    def _second(self) -> Any:
        return self._loaded(Path(self.job.second)) if self.job.second else None

    def _model(self, size_hw: tuple[int, int] | None) -> Any:
        from perception.model import default_model

        return self._loaded(Path(self.job.model) if self.job.model else default_model(size_hw))

    def _loaded(self, path: Path) -> Any:
        from perception.backends import load_model

        if path not in self._models:
            self._models[path] = load_model(path, self.job.device, self.job.threads)
        return self._models[path]


def fetch_drive(drive: Drive, folder: Path) -> Path:
    """Where a drive's files are on this machine: where they were found, or below `folder`, copied from the bucket."""
    store = Store(drive.base)
    if store.is_local:
        return Path(store.root) / drive.path
    for file in drive.files:
        store.fetch(file, folder / file)
    return folder / drive.path


def open_drive(location: Path, is_bag: bool, options: Any) -> Any:
    """The sources of a drive, one after another: each image topic of a bag, else one."""
    from perception.sources import open_source

    if not is_bag:
        yield open_source(location, options)
        return
    from perception.sources.bag import topics_of

    topics = topics_of(location)
    if not topics:
        raise UserError(f"{location.name}: no topic with images", "a bag with images")
    for topic in topics:
        yield open_source(f"{location}:{topic}", replace(options))


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()
