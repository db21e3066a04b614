"""`perception fleet run|ask`: many drives on many machines, and questions about what was in them."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.files import read_text, write_atomically
from perception.progress import Progress


@dataclass(frozen=True)
class FleetRunOptions(CommandOptions):
    """Process every drive of a folder, a list or a bucket into Parquet tables.

    Example: perception fleet run s3://BUCKET/2026 --out s3://RESULTS/2026 --workers 8
    """

    input: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="INPUT")] = ""
    """Folder, text file with one location a line, or s3://, gs:// or az:// prefix."""
    out: str = ""
    """Output folder or bucket. A second start does only what is missing."""
    workers: int = 1
    """Drives at a time, each in a process with its own network."""
    address: str | None = None
    """Ray cluster, as HEAD:6379 or auto. Default: a Ray of its own on this machine."""
    gpus: float = 0.0
    """GPUs of each worker, for --device cuda or tensorrt."""
    model: Path | None = None
    """ONNX file, at this path on every machine. Default: the shipped one that fits each drive best."""
    second: Path | None = None
    """A second ONNX file, at this path on every machine. Where the two networks disagree for long is an event."""
    camera: Path | None = None
    """Calibration of drives that have none of their own, at this path on every machine."""
    height_m: float | None = None
    """Height of the cameras of bags above the road, metres."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "cpu"
    """Where the networks run."""
    threads: int = 1
    """CPU threads of each network."""
    tracker: str = "drivetrack"
    """Tracker, by the name of its file in perception/trackers."""
    every: int = 1
    """Process every n-th frame only."""
    events: Path | None = None
    """TOML file with zones, lines and alarms."""
    retries: int = 2
    """Further attempts for a drive that fails, or whose worker is killed."""
    json: bool = False
    """Print the report as JSON."""
    quiet: bool = False
    """Print no progress."""


@dataclass(frozen=True)
class FleetAskOptions(CommandOptions):
    """Ask the tables of a fleet: SQL over frames, tracks, events, road and drives, or a ready question.

    Example: perception fleet ask OUTPUT close-approaches --clips clips --input DRIVES
    """

    output: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")] = ""
    """What perception fleet run wrote."""
    question: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="QUESTION")] = ""
    """SQL, or the name of a ready question; without one they are listed."""
    input: str = ""
    """The drives, for --clips and --frames."""
    clips: Path | None = None
    """Folder for a video of the 3 s before and after each row."""
    frames: Path | None = None
    """Folder for a PNG image of each row, to label."""
    most: int = 100
    """Clips and images at most."""
    json: bool = False
    """Print the rows as JSON."""
    csv: Path | None = None
    """Write the rows to this CSV file."""


def main(argv: list[str]) -> int:
    """Dispatch `run` and `ask`."""
    command, rest = (argv[0], argv[1:]) if argv else ("", [])
    if command == "run":
        return _run(parse_options(FleetRunOptions, rest, "perception fleet run"))
    if command == "ask":
        return _ask(parse_options(FleetAskOptions, rest, "perception fleet ask"))
    usage = "usage: perception fleet run INPUT --out OUTPUT\n       perception fleet ask OUTPUT QUESTION"
    if command in ("", "-h", "--help"):
        print(f"{usage}\n\nperception fleet run --help explains one of them.")
        return 0
    raise UserError(f"unknown command 'fleet {command}'", "run or ask", "perception fleet run INPUT --out OUTPUT")


def _run(options: FleetRunOptions) -> int:
    """0 where every drive is done, 1 where some have failed."""
    for name in ("input", "out"):
        if not getattr(options, name):
            raise UserError(f"no {name}", "drives and an output", "perception fleet run INPUT --out OUTPUT")
    if options.workers < 1 or not 0 <= options.retries <= 100 or options.gpus < 0:
        raise UserError(
            f"--workers {options.workers} --retries {options.retries} --gpus {options.gpus:g}",
            "1 worker or more, 0 to 100 retries, no negative share",
            "--workers 2 --retries 2",
        )
    from perception.fleet.drives import find_drives
    from perception.fleet.run import Report, missing_drives, ray_on_stderr, run_drives, write_report

    begin_s = time.monotonic()
    job = _job(options)
    drives = find_drives(options.input)
    wanted = missing_drives(drives, job)
    report = Report(found=len(drives), before=len(drives) - len(wanted))
    if not options.quiet:
        print(f"{len(drives)} drives, {report.before} done before", file=sys.stderr)
    if wanted:
        with ray_on_stderr(), Progress("drives", total=len(wanted), quiet=options.quiet) as progress:
            for done, outcome in enumerate(
                run_drives(job, wanted, options.workers, options.address, options.gpus), 1
            ):
                report.add(outcome)
                if outcome.status == "failed" and not options.quiet:
                    progress.print(f"failed: {outcome.path}: {outcome.error}")
                progress.update(done, note=f", {report.frames:,} frames")
    write_report(job, report, begin_s)
    print(json.dumps(asdict(report)) if options.json else report.text())
    return 1 if report.failed else 0


def _job(options: FleetRunOptions) -> Any:
    """The options that workers need, with a key of those that decide what the tables hold."""
    from perception import __version__
    from perception.fleet.tables import SCHEMA
    from perception.fleet.worker import Job
    from perception.sinks.events.config import read_events

    if options.events:
        read_events(options.events)  # a mistake shows before anything starts
    events = read_text(options.events) if options.events else None
    model = options.model.read_bytes() if options.model else b""
    camera = options.camera.read_bytes() if options.camera else b""
    decides = [SCHEMA, __version__, options.tracker, options.every, options.height_m, options.device, events]
    second = b"\0second" + options.second.read_bytes() if options.second else b""
    digest = hashlib.sha256(json.dumps(decides).encode() + model + camera + second).hexdigest()[:16]
    return Job(
        output=options.out if "://" in options.out else str(Path(options.out).resolve()),
        key=digest,
        model=str(options.model.resolve()) if options.model else None,
        second=str(options.second.resolve()) if options.second else None,
        camera=str(options.camera.resolve()) if options.camera else None,
        device=options.device,
        threads=options.threads,
        tracker=options.tracker,
        every=options.every,
        height_m=options.height_m,
        events=events,
        retries=options.retries,
    )


def _ask(options: FleetAskOptions) -> int:
    from perception.fleet.ask import QUESTIONS, ask

    if not options.output:
        raise UserError("no output of a fleet", "a folder or bucket", "perception fleet ask OUTPUT close-approaches")
    if not options.question:
        for name, ready in QUESTIONS.items():
            print(f"{name:<18} {ready.text}")
        return 0
    if (options.clips or options.frames) and not options.input:
        raise UserError("--clips or --frames without --input", "where the drives are", "--input DRIVES")
    answer = ask(options.output, options.question)
    if options.csv:
        write_atomically(options.csv, _csv(answer))
    if options.json:
        print(json.dumps(answer.records(), default=str))
    elif not options.csv:
        _print_table(answer)
    if options.clips or options.frames:
        _cut(options, answer)
    return 0


def _cut(options: FleetAskOptions, answer: Any) -> None:
    from perception.fleet.cuts import cut, hits_of
    from perception.fleet.drives import find_drives

    hits, found = hits_of(answer.records(), options.most)
    drives = {drive.drive_id: drive for drive in find_drives(options.input)}
    cuts = cut(hits, drives, options.clips, options.frames)
    left = f", {found - len(hits)} left out (--most)" if found > len(hits) else ""
    print(f"{len(cuts.paths)} files of {len(hits)} moments{left}", file=sys.stderr)
    for reason in cuts.missed:
        print(f"warning: {reason}", file=sys.stderr)


def _csv(answer: Any) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows(answer.rows)
    return text.getvalue()


def _print_table(answer: Any) -> None:
    """Columns under their names; at most 50 rows."""
    from perception.redact import printable

    shown = [[_cell(value) for value in row] for row in answer.rows[:50]]
    table = [answer.columns, *shown]
    widths = [max(len(row[i]) for row in table) for i in range(len(answer.columns))]
    for row in table:
        print(printable("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()))
    if len(answer.rows) > len(shown):
        print(f"… {len(answer.rows)} rows in all (--json or --csv gives them)")
    if not answer.rows:
        print("no rows")


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "" if value is None else str(value)
