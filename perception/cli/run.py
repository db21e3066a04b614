"""`perception run SOURCE …`: track objects and find the road, in files, cameras and streams."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from perception.cli.options import FLAT, CommandOptions, parse_options
from perception.cli.run_outputs import make_sinks
from perception.cli.run_redundancy import check_redundancy, fused, pair_of
from perception.cli.run_signals import (
    leave,
    let_change,
    let_signals_kill,
    reload_on_hangup,
    signals_as_before,
    stop_on_signals,
)
from perception.cli.run_summary import as_text, opening, summarise
from perception.devices import Device, Precision
from perception.errors import UserError
from perception.files import make_folder, write_atomically
from perception.lock import alone_in
from perception.progress import Progress
from perception.provenance import record
from perception.redact import redact
from perception.runtime.config import PipelineConfig
from perception.source_options import SourceOptions

if TYPE_CHECKING:
    from perception.runtime.pipeline import Pipeline
    from perception.sources import Source
    from perception.trackers import Tracker
    from perception.types import HealthEvent

log = logging.getLogger("perception.run")

EVERYDAY = (
    "sources", "out", "model", "camera", "device", "precision", "video", "kitti", "mot", "images", "serve", "tracker",
    "start", "duration", "anonymize", "json", "config",
)  # fmt: skip
"""What `perception run --help` shows."""
DEFAULT_ADDRESSES = {"--serve": "127.0.0.1:8080", "--foxglove": "127.0.0.1:8765"}
"""Of what is served, where no address is given."""


NAMES = {
    "start_s": "start",
    "duration_s": "duration",
    "rate_hz": "rate",
    "timeout_s": "timeout",
    "retry_s": "retry",
    "stalled_s": "stalled",
    "drain_s": "drain",
    "baseline_m": "baseline",
}
"""Fields with a unit in their name → the option."""


@dataclass(frozen=True)
class RunOptions(CommandOptions):
    """Track objects and find the road in a video, an image folder, a KITTI sequence, a camera or a stream.

    Several sources may be given, each with a name: front=rtsp://… rear=camera:1
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE …")] = ()
    """Video file, folder, camera:0, rtsp://…, http(s)://… or - for standard input."""
    out: Path | None = None
    """Output directory, overwritten if it exists. Default: a new one under runs/."""
    model: Path | None = None
    """ONNX file from `perception export`, or the name of a shipped network. Default: nano."""
    second: Path | None = None
    """Second model file, compared frame by frame; a lasting disagreement is a health event."""
    second_camera: str = ""
    """Name of a second source that sees what the first one sees, compared as --second compares networks."""
    baseline_m: float = 0.0
    """Distance of that camera to the right of the first one, metres; they share one calibration, in parallel."""
    ensemble: tuple[Path, ...] = ()
    """Further model files, fused with --model by weighted boxes fusion; each costs its own time."""
    flip: bool = False
    """Fuse the mirrored image too, at twice the time."""
    scales: tuple[float, ...] = ()
    """Fuse smaller wholes (below 1) or overlapping crops (above 1) of each frame; 1.5 costs five times the time."""
    camera: Path | None = None
    """Calibration for distances: from `perception calibrate`, or a KITTI file."""
    device: Device = "auto"
    """Where the network runs. Anything but auto is used or refused, never replaced."""
    precision: Precision = "fp32"
    """Arithmetic of OpenVINO. Lower ones change results a little, and are faster on processors that have them."""
    threads: int = 0
    """CPU threads of the network; 0: one per core."""
    cuda_graph: bool = False
    """Capture the network's kernels once and replay them; needs --device cuda or tensorrt."""
    video: bool = True
    """Write an annotated H.264 video."""
    kitti: bool = False
    """Write KITTI tracking rows."""
    mot: bool = False
    """Write MOTChallenge rows."""
    images: bool = False
    """Write annotated frames as JPEG."""
    rerun: bool = False
    """Write a Rerun recording (needs the extra 'rerun')."""
    mcap: bool = False
    """Write an MCAP recording for Foxglove, Rerun or ROS 2 (needs the extra 'ros')."""
    sink: tuple[str, ...] = ()
    """Further outputs, by the name of their file in perception/sinks."""
    offline: bool = False
    """Track one recording with hindsight: tracks begin earlier, gaps are filled, false tracks go. Reads it twice."""
    set: tuple[str, ...] = ()
    """Set fields of the tracker's config, as lost_s=1.5, or of a sink, as images.quality=95."""
    serve: str | None = None
    """Serve the live page at this address; --serve alone means 127.0.0.1:8080."""
    foxglove: str | None = None
    """Serve Foxglove at this loopback address; --foxglove alone means 127.0.0.1:8765 (needs the extra 'ros')."""
    events: Path | None = None
    """TOML file with zones, lines and alarms; writes events.jsonl."""
    webhook: str | None = None
    """Post each event to this address, signed; needs --events and --webhook-secret."""
    webhook_secret: Path | None = None
    """File with the secret of the webhook's signature."""
    mqtt: str | None = None
    """Publish each event to a broker, as mqtt://HOST:1883/PREFIX; needs --events and the extra 'mqtt'."""
    token: str | None = None
    """Token of a live page that is not on loopback. Default: one is made and printed."""
    metrics: str | None = None
    """Serve Prometheus metrics at this address, as 127.0.0.1:9090."""
    json: bool = False
    """Print the summary as JSON."""
    quiet: bool = False
    """Print no progress."""
    source: Annotated[SourceOptions, FLAT] = field(default_factory=SourceOptions)
    pipeline: Annotated[PipelineConfig, FLAT] = field(default_factory=PipelineConfig)


def main(argv: list[str]) -> int:
    """Run the pipeline; 0 where all went well, 1 where a source or sink failed or nothing was seen."""
    # numpy's OpenBLAS starts a thread a core, and each spins for a tenth of a second; no matrix here needs a second
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    warm = threading.Thread(target=_warm_up, name="warm-up", daemon=True)
    if not {"-h", "--help", "--help-all"} & set(argv):
        warm.start()  # the slow imports run while the options are read and the source is opened
    try:
        with signals_as_before():
            return _run(
                parse_options(RunOptions, _expand_serve(argv), "perception run", everyday=EVERYDAY, names=NAMES)
            )
    finally:
        if warm.ident is not None:
            warm.join()  # Python does not wait for it: a library that loads while all is torn down aborts


def _run(options: RunOptions) -> int:
    _check(options)
    let_signals_kill()  # nothing is written yet, and a camera that does not answer would hold Python's handler up
    begin = time.perf_counter()
    progress = Progress("frames", quiet=options.quiet)
    pipeline, model_path, out = _open(options, _Reporter(progress, options.quiet))
    made = make_folder(out, new=options.out is None)  # a mistake in anything above leaves nothing behind
    with alone_in(out, "writing", made):
        code, interrupted = _run_in(out, options, pipeline, model_path, begin, progress)
    if interrupted:
        leave(code)
    return code


def _run_in(
    out: Path, options: RunOptions, pipeline: Pipeline, model_path: Path, begin: float, progress: Progress
) -> tuple[int, bool]:
    """Run to the end; returns the exit code, and whether a signal ended the run."""
    if (out / "run.json").exists():
        print(f"note: {out} holds an earlier run; what has the same name is replaced", file=sys.stderr)
    _write_json(out / "run.json", _record(options, pipeline, model_path))
    if not options.quiet:
        print(opening(pipeline), file=sys.stderr)

    interrupted = stop_on_signals(pipeline)
    reload_on_hangup(options.config, let_change(pipeline, options))
    progress.total = _frame_count(pipeline.sources, options.source)
    live = any(source.live for source in pipeline.sources)
    broken = ""
    try:
        for result in pipeline:
            stats = pipeline.stats
            at = "" if live else f", at {result.frame.timestamp_ns / 1e9:.1f} s"  # a live stamp is a clock's
            dropped = f", {count} dropped" if (count := sum(stats.dropped.values())) else ""
            progress.update(sum(stats.frames.values()), note=at + dropped)
    except UserError:
        raise
    except Exception as error:  # a fault of the network or ours: all is closed, and the summary told
        broken = redact(f"{type(error).__name__}: {error}")
        log.exception("the run ended early")
    finally:
        progress.close()
    summary = summarise(pipeline, model_path, time.perf_counter() - begin, broken)
    _write_json(out / "summary.json", summary)
    bad = broken or pipeline.errors or any(sink.error for sink in pipeline.sinks)
    start_s = options.source.start_s
    if start_s and not (summary["frames"] or bad or interrupted.is_set()):
        raise UserError(f"--start {start_s:g}: there is no frame", "seconds before the end", "a smaller --start")
    print(json.dumps(summary) if options.json else as_text(summary))
    return (0 if summary["frames"] > 0 and not bad else 1), interrupted.is_set()


def _check(options: RunOptions) -> None:
    """Refuse what cannot be meant."""
    if not options.sources:
        raise UserError("no source given", "a video, folder, camera or stream", "perception run VIDEO")
    if (options.webhook or options.mqtt) and not options.events:
        raise UserError(
            "--webhook or --mqtt without --events", "zones, lines or alarms to report", "--events FILE.toml"
        )
    check_redundancy(options)
    if options.cuda_graph and options.device not in ("cuda", "tensorrt"):
        raise UserError(
            f"--cuda-graph with --device {options.device}",
            "a GPU that was asked for: a graph cannot be had on a CPU",
            "--device cuda --cuda-graph, or leave --cuda-graph out",
        )


def _open(options: RunOptions, reporter: _Reporter) -> tuple[Pipeline, Path, Path]:
    """Open sources, network and sinks; returns the pipeline, the model's file and the output directory."""
    import cv2

    from perception.backends import load_model
    from perception.cameras.files import read_camera
    from perception.cli.settings import make_tracker, read_settings
    from perception.model import default_model, shipped_or
    from perception.runtime.pipeline import Pipeline
    from perception.sources import calibrate_sources, open_sources

    # what OpenCV has to say, we say in a sentence; the function moved in 4.13
    (cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)
    of_tracker: dict[str, Any] = {}
    of_sinks: dict[str, dict[str, Any]] = {}
    for name, value in read_settings(options.set).items():
        sink, dot, field_name = name.partition(".")
        (of_sinks.setdefault(sink, {}) if dot else of_tracker)[field_name or name] = value
    sources = open_sources(options.sources, options.source)
    model_path = shipped_or(options.model, sources[0].size_hw) if options.model else default_model(sources[0].size_hw)
    model = load_model(model_path, options.device, options.threads, options.cuda_graph, options.precision)
    second = None
    if options.second is not None:
        second = load_model(options.second, options.device, options.threads, options.cuda_graph, options.precision)
    pair = pair_of(options, [source.name for source in sources])
    thresholds = model[1].confirm_thresholds

    def tracker() -> Tracker:
        return make_tracker(options.pipeline.tracker, of_tracker, thresholds)

    offline_tracker = tracker()  # a mistake in --set ends the run here
    if options.camera:
        calibrate_sources(sources, read_camera(options.camera))
    out = _free_folder(options.out, sources)
    factory = tracker if of_tracker else None
    if options.offline:
        from perception.runtime.hindsight import check_recording, tracks_of

        check_recording(sources)
        progress = Progress("frames detected", total=_frame_count(sources, options.source), quiet=options.quiet)
        factory = tracks_of(sources[0], model, options.pipeline, offline_tracker, progress.update)
        progress.close()
        sources = open_sources(options.sources, options.source)
        if options.camera:
            calibrate_sources(sources, read_camera(options.camera))
    pipeline = Pipeline(
        sources,
        fused(options, model, model_path),
        make_sinks(options, out, of_sinks, sources),
        options.pipeline,
        on_event=reporter,
        tracker_factory=factory,
        second=second,
        pair=pair,
    )
    return pipeline, model_path, out


def _frame_count(sources: Sequence[Source], options: SourceOptions) -> int:
    """Frames to come, for the progress; 0 where nobody knows."""
    if options.duration_s or options.start_s or any(source.frame_count is None for source in sources):
        return 0
    return sum(source.frame_count or 0 for source in sources) // options.every


# ---------------------------------------------------------------- setting up


def _warm_up() -> None:
    """Import what every run needs and takes longest, in the order in which it is needed."""
    import cv2  # noqa: F401
    import onnxruntime  # noqa: F401

    from perception.provenance import commit

    commit()


def _expand_serve(argv: list[str]) -> list[str]:
    """`--serve` and `--foxglove` may stand alone."""
    words: list[str] = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=False):
        words.append(word)
        if word in DEFAULT_ADDRESSES and following.startswith("--"):
            words.append(DEFAULT_ADDRESSES[word])
    return words


def _free_folder(wanted: Path | None, sources: list[Source]) -> Path:
    """The output folder; without `--out` one that is not there yet, so that no earlier run is overwritten."""
    folder = candidate = wanted or Path("runs") / "+".join(source.name for source in sources)[:80]
    number = 2
    while wanted is None and candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file; where that fails, warn and go on: a full disk costs this file, not the run."""
    try:
        write_atomically(path, json.dumps(value, indent=2, default=str) + "\n")
    except UserError as error:
        print(f"warning: {error.found}", file=sys.stderr)


def _record(options: RunOptions, pipeline: Pipeline, model_path: Path) -> dict[str, Any]:
    """Describe this run without passwords. Stored sources and the model are hashed, live ones cannot be."""
    made = record(
        "perception run",
        options,
        (model_path, *(Path(source.location) for source in pipeline.info.sources if Path(source.location).exists())),
        model={"path": str(model_path), **asdict(pipeline.spec)},
        second=pipeline.second and asdict(pipeline.second.spec),
        provider=pipeline.info.provider,
        sources=[asdict(info) for info in pipeline.info.sources],
    )
    made["options"]["sources"] = [redact(source) for source in options.sources]
    made["options"]["token"] = "***" if options.token else None
    for name in ("webhook", "mqtt"):
        made["options"][name] = redact(getattr(options, name)) if getattr(options, name) else None
    return made


class _Reporter:
    """Health events as lines on stderr; a flood of the same kind is counted, not shown."""

    MOST = 5

    def __init__(self, progress: Progress, quiet: bool) -> None:
        self.progress, self.quiet = progress, quiet
        self._seen: dict[tuple[str, str], int] = {}

    def __call__(self, event: HealthEvent) -> None:
        if event.kind in ("failed", "sink-failed"):
            return  # logged where it happened
        seen = self._seen[event.kind, event.source] = self._seen.get((event.kind, event.source), 0) + 1
        if not self.quiet and seen <= self.MOST:
            more = "; no more of these are shown" if seen == self.MOST else ""
            state = "" if event.active else " over"
            self.progress.print(f"{event.source}: {event.kind}{state}: {event.detail}{more}")
