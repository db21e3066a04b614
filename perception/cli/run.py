"""`perception run SOURCE …`: track objects and find the road, in files, cameras and streams."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perception import __version__
from perception.cli.options import CommandOptions, parse_options
from perception.errors import UserError
from perception.files import write_atomically
from perception.redact import redact

if TYPE_CHECKING:
    from perception.runtime.pipeline import Pipeline, RunStats
    from perception.sinks import Sink
    from perception.sources import Source
    from perception.types import HealthEvent

log = logging.getLogger("perception.run")

EVERYDAY = (
    "sources", "out", "model", "camera", "device", "video", "kitti", "mot", "images", "serve", "tracker", "start",
    "duration", "every", "anonymize", "json", "quiet", "config",
)  # fmt: skip
"""What `perception run --help` shows."""
DEFAULT_SERVE = "127.0.0.1:8080"


@dataclass(frozen=True)
class RunOptions(CommandOptions):
    """Track objects and find the road in a video, a folder of images, a KITTI sequence, a camera or a stream.

    Several sources may be given, each with a name: front=rtsp://… rear=camera:1
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE …")] = ()
    """Video file, folder, camera:0, rtsp://…, http(s)://… or - for standard input."""
    model: Path | None = None
    """ONNX file that `perception export` wrote; by default the shipped one that fits the picture best."""
    out: Path | None = None
    """Folder for everything that is written, over an earlier run that is there; by default a new one under runs/."""
    video: bool = True
    """Write an annotated H.264 video."""
    json: bool = False
    """Print the summary as JSON."""
    quiet: bool = False
    """No progress on stderr."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """What runs the network. Anything but auto is used or refused, never replaced."""
    threads: int = 0
    """CPU threads for the network, 0 for one a core."""
    cuda_graph: bool = False
    """Capture the network's kernels once and replay them; needs --device cuda or tensorrt."""
    tracker: str = "drivetrack"
    """Tracker, by the name of its file in perception/trackers."""
    camera: Path | None = None
    """Calibration for distances: the TOML that `perception calibrate` writes, or a KITTI calibration file."""
    start: float = 0.0
    """Skip this many seconds of a stored source."""
    duration: float | None = None
    """Stop after this many seconds of it."""
    every: int = 1
    """Take every n-th frame only."""
    realtime: bool = False
    """Play a stored source at its own pace, as if it were live."""
    rate: float = 10.0
    """Pictures a second of a folder of images."""
    when_late: Literal["wait", "drop-oldest", "drop-newest"] | None = None
    """What happens to frames the network has no time for; files wait, live sources drop the oldest."""
    queue: int = 2
    """Frames of a source that may wait for the network."""
    batch: int = 4
    """Most frames in one run of the network, with several sources."""
    anonymize: bool = False
    """Blur people and vehicles in everything that is recorded or shown."""
    images: bool = False
    """Also write annotated frames as JPEG."""
    kitti: bool = False
    """Also write KITTI tracking rows."""
    mot: bool = False
    """Also write MOTChallenge rows."""
    rerun: bool = False
    """Also write a Rerun recording (needs the extra 'rerun')."""
    metrics: str | None = None
    """Serve Prometheus metrics at this address, as 127.0.0.1:9090."""
    serve: str | None = None
    """Serve the live page at this address; --serve alone means 127.0.0.1:8080."""
    token: str | None = None
    """Token for a live page that is not on loopback; by default one is made and printed."""
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP brings its packets."""
    timeout: float = 5.0
    """A stream that is silent for this many seconds is opened again."""
    reconnects: int | None = None
    """Give a stream up after this many failed attempts in a row; by default never."""


def main(argv: list[str]) -> int:
    """Run the pipeline; 0 where all went well, 1 where a source or sink failed or nothing was seen."""
    warm = threading.Thread(target=_warm_up, name="warm-up", daemon=True)
    if not {"-h", "--help", "--help-all"} & set(argv):
        warm.start()  # the slow imports run while the options are read and the source is opened
    try:
        with _signals_as_before():
            return _run(parse_options(RunOptions, _expand_serve(argv), "perception run", everyday=EVERYDAY))
    finally:
        if warm.ident is not None:
            warm.join()  # Python does not wait for it: a library that loads while all is torn down aborts


def _run(options: RunOptions) -> int:
    if not options.sources:
        raise UserError("no source given", "a video, folder, camera or stream", "perception run VIDEO")
    if options.cuda_graph and options.device not in ("cuda", "tensorrt"):
        raise UserError(
            f"--cuda-graph with --device {options.device}",
            "a GPU that was asked for: a graph cannot be had on a CPU",
            "--device cuda --cuda-graph, or leave --cuda-graph out",
        )
    _let_signals_kill()  # nothing is written yet, and a camera that does not answer would hold Python's handler up

    import cv2

    from perception.backends import load_model
    from perception.cameras.files import read_camera
    from perception.model import default_model
    from perception.runtime.pipeline import Pipeline, PipelineConfig
    from perception.sources import open_source

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it has to say, we say in a sentence
    begin = time.perf_counter()
    sources = [open_source(location, _source_options(options)) for location in options.sources]
    model_path = options.model or default_model(sources[0].size_hw)
    model = load_model(model_path, options.device, options.threads, options.cuda_graph)
    config = PipelineConfig(
        options.tracker, options.when_late, options.queue, options.batch, anonymize=options.anonymize
    )
    failures: list[HealthEvent] = []
    by_source = {source.name: read_camera(options.camera, source.size_hw) for source in sources if options.camera}
    out = _free_folder(options.out, sources)
    sinks = _sinks(options, out)
    pipeline = Pipeline(sources, model, sinks, config, by_source, on_event=_Reporter(failures, options.quiet))
    _make_folder(out, new=options.out is None)  # a mistake in anything above leaves nothing behind
    _write_json(out / "run.json", _record(options, pipeline, model_path))
    if not options.quiet:
        print(_opening(pipeline), file=sys.stderr)

    interrupted = _stop_on_signals(pipeline)
    progress = Progress(sources, options)
    broken = ""
    try:
        for result in pipeline:
            progress.update(result.frame.timestamp_ns, pipeline.stats)
    except UserError:
        raise
    except Exception as error:  # a fault of the network or ours: all is closed, and the summary told
        broken = redact(f"{type(error).__name__}: {error}")
        log.exception("the run ended early")
    progress.close()
    summary = summarise(pipeline, model_path, time.perf_counter() - begin, broken)
    _write_json(out / "summary.json", summary)
    bad = broken or pipeline.errors or any(sink.error for sink in pipeline.sinks)
    if options.start and not (summary["frames"] or bad or interrupted.is_set()):
        raise UserError(
            f"--start {options.start:g}: there is no frame", "seconds before the end", "a smaller --start"
        )
    print(json.dumps(summary) if options.json else as_text(summary))
    code = 0 if summary["frames"] > 0 and not bad else 1
    if interrupted.is_set():
        _leave(code)
    return code


# ---------------------------------------------------------------- setting up


def _warm_up() -> None:
    """Import what takes longest, in the order in which it is needed."""
    import av  # noqa: F401
    import cv2  # noqa: F401
    import onnxruntime  # noqa: F401


def _expand_serve(argv: list[str]) -> list[str]:
    """`--serve` may stand alone."""
    words = list(argv)
    for i, word in enumerate(words):
        if word == "--serve" and (i + 1 == len(words) or words[i + 1].startswith("--")):
            words.insert(i + 1, DEFAULT_SERVE)
            break
    return words


def _source_options(options: RunOptions) -> Any:
    from perception.sources import SourceOptions

    return SourceOptions(
        start_s=options.start,
        duration_s=options.duration,
        every=options.every,
        realtime=options.realtime,
        rate_hz=options.rate,
        rtsp_transport=options.rtsp_transport,
        timeout_s=options.timeout,
        reconnects=options.reconnects,
    )


def _free_folder(wanted: Path | None, sources: list[Source]) -> Path:
    """The output folder; without `--out` one that is not there yet, so that no earlier run is overwritten."""
    folder = candidate = wanted or Path("runs") / "+".join(source.name for source in sources)[:80]
    number = 2
    while wanted is None and candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate


def _make_folder(folder: Path, new: bool) -> None:
    """Make the output folder. `new` takes none that another run has made in the meantime."""
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", "a folder that can be written", "--out FOLDER") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: not writable", "a folder that can be written", "--out FOLDER")
    if (folder / "run.json").exists():
        print(f"note: {folder} holds an earlier run; what has the same name is replaced", file=sys.stderr)


def _sinks(options: RunOptions, out: Path) -> list[Sink]:
    """What the options ask for; heavy ones are imported only then."""
    from perception.sinks.jsonl import JsonLinesSink

    sinks: list[Sink] = [JsonLinesSink.in_folder(out)]
    if options.video:
        from perception.sinks.video import VideoSink

        sinks.append(VideoSink.in_folder(out))
    if options.images:
        from perception.sinks.images import ImageSink

        sinks.append(ImageSink.in_folder(out))
    if options.kitti:
        from perception.sinks.kitti import KittiSink

        sinks.append(KittiSink.in_folder(out))
    if options.mot:
        from perception.sinks.mot import MotSink

        sinks.append(MotSink.in_folder(out))
    if options.rerun:
        from perception.sinks.rerun import RerunSink

        sinks.append(RerunSink.in_folder(out))
    if options.metrics:
        from perception.sinks.metrics import MetricsSink

        metrics = MetricsSink(options.metrics)
        metrics.listen()
        print(f"metrics   {metrics.outputs()[0]}", file=sys.stderr)  # port 0 becomes one that is free
        sinks.append(metrics)
    if options.serve:
        from perception.sinks.web import WebSink

        page = WebSink(options.serve, options.token)
        print(f"live page {page.listen().url_with_token}", file=sys.stderr)  # a taken port ends the run here
        sinks.append(page)
    return sinks


@contextmanager
def _signals_as_before() -> Iterator[None]:
    """Whatever the run does with SIGINT and SIGTERM, afterwards they are handled as they were."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _let_signals_kill() -> None:
    """SIGINT and SIGTERM end the process at once, also while it waits inside a library."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stop_on_signals(pipeline: Pipeline) -> threading.Event:
    """SIGINT and SIGTERM end the run in order; a second one ends it at once. Set once one has come."""
    interrupted = threading.Event()

    def stop() -> None:
        interrupted.set()
        pipeline.stop()

    def handle(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        # not in the handler itself: it may interrupt a thread that holds a lock which `stop` needs
        threading.Thread(target=stop, daemon=True).start()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handle)
        signal.signal(signal.SIGTERM, handle)
    return interrupted


def _leave(code: int) -> None:
    """End the process now that all is written. A thread may still be inside the network or waiting for a camera:
    Python's own way out would tear the libraries down under it, which aborts, or takes seconds on a busy machine."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file; where that fails, warn and go on: a full disk costs this file, not the run."""
    try:
        write_atomically(path, json.dumps(value, indent=2, default=str) + "\n")
    except UserError as error:
        print(f"warning: {error.found}", file=sys.stderr)


def _record(options: RunOptions, pipeline: Pipeline, model_path: Path) -> dict[str, Any]:
    """What this run was: options, model and sources, without passwords."""
    shown = asdict(options)
    shown["sources"] = [redact(source) for source in options.sources]
    shown["token"] = "***" if options.token else None
    return {
        "perception": __version__,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "options": shown,
        "model": {"path": str(model_path), **asdict(pipeline.spec)},
        "provider": pipeline.info.provider,
        "sources": [asdict(sink_info) for sink_info in pipeline.info.sources],
    }


# ---------------------------------------------------------------- what the user sees


def _opening(pipeline: Pipeline) -> str:
    """What is about to run: each source, the network, and what `--device auto` chose."""
    lines = []
    for source in pipeline.info.sources:
        size = f"{source.size_hw[1]}x{source.size_hw[0]}" if source.size_hw else "size unknown"
        rate = f" at {source.rate_hz:g} Hz" if source.rate_hz else ""
        lines.append(f"{source.name}: {source.kind}, {size}{rate}{', live' if source.live else ''}")
    spec = pipeline.spec
    size = f"{spec.size_hw[1]}x{spec.size_hw[0]}"
    lines.append(f"network: {spec.name or 'unnamed'} {size} {spec.precision} on {pipeline.info.provider}")
    return "\n".join(lines)


class _Reporter:
    """Health events as lines on stderr; a flood of the same kind is counted, not shown."""

    MOST = 5

    def __init__(self, failures: list[HealthEvent], quiet: bool) -> None:
        self.failures, self.quiet = failures, quiet
        self._clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # the progress bar stands there
        self._seen: dict[tuple[str, str], int] = {}

    def __call__(self, event: HealthEvent) -> None:
        if event.kind in ("failed", "sink-failed"):
            self.failures.append(event)
            return  # logged where it happened
        seen = self._seen[event.kind, event.source] = self._seen.get((event.kind, event.source), 0) + 1
        if not self.quiet and seen <= self.MOST:
            more = "; no more of these are shown" if seen == self.MOST else ""
            state = "" if event.active else " over"
            print(f"{self._clear}{event.source}: {event.kind}{state}: {event.detail}{more}", file=sys.stderr)


class Progress:
    """A bar on a terminal, a line now and then elsewhere."""

    WIDTH = 28

    def __init__(self, sources: list[Source], options: RunOptions) -> None:
        self.total = sum(source.frame_count or 0 for source in sources) // options.every
        if options.duration or options.start or any(s.frame_count is None for s in sources):
            self.total = 0
        self.live = any(source.live for source in sources)
        """Then the stamps are this machine's clock, which tells nobody anything."""
        self.terminal = sys.stderr.isatty()
        self.quiet = options.quiet
        self._next_s = 0.0

    def update(self, timestamp_ns: int, stats: RunStats) -> None:
        """After each result; draws at most five times a second."""
        now = time.monotonic()
        if self.quiet or now < self._next_s:
            return
        first = self._next_s == 0.0
        self._next_s = now + (0.2 if self.terminal else 10.0)
        if first and not self.terminal:
            return
        done = sum(stats.frames.values())
        text = f"{done} frames  {stats.fps:.1f}/s" + ("" if self.live else f"  at {timestamp_ns / 1e9:.1f} s")
        if drops := sum(stats.dropped.values()):
            text += f"  {drops} dropped"
        if self.total:
            share = min(1.0, done / self.total)
            bar = "█" * round(self.WIDTH * share)
            left_s = (self.total - done) / stats.fps if stats.fps else 0
            text = f"{bar:░<{self.WIDTH}} {share:4.0%}  {text}  {max(0, left_s):.0f} s left"
        print(f"\r\x1b[K{text}" if self.terminal else text, end="" if self.terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        if self.terminal and not self.quiet:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def summarise(pipeline: Pipeline, model_path: Path, wall_s: float, broken: str = "") -> dict[str, Any]:
    """The end summary, as `--json` prints it; `broken` says what ended the run before its time."""
    from perception.sources.video import Video

    stats = pipeline.stats
    frames = sum(stats.frames.values())
    outputs = [path for sink in pipeline.sinks for path in sink.sink.outputs()]
    return {
        "frames": frames,
        "fps": round(stats.fps, 2),
        "wall_s": round(wall_s, 3),
        "first_result_s": stats.first_result_s and round(stats.first_result_s, 3),
        "latency_ms": stats.latency.summary(),
        "age_ms": stats.age.summary() if stats.age.count else None,
        "network_share": round(stats.network_share, 4),
        "stages_ms": stats.clock.summary(),
        "tracks": sum(stats.tracks.values()),
        "dropped": sum(stats.dropped.values()),
        "left_behind": sum(stats.left_behind.values()),
        "corrupt": sum(source.corrupt for source in pipeline.sources),
        "events": stats.events,
        "provider": pipeline.info.provider,
        "model": str(model_path),
        "sources": {
            source.name: {
                "frames": stats.frames.get(source.name, 0),
                "dropped": stats.dropped.get(source.name, 0),
                "left_behind": stats.left_behind.get(source.name, 0),
                "tracks": stats.tracks.get(source.name, 0),
                "corrupt": source.corrupt,
                "reconnects": source.reconnects if isinstance(source, Video) or source.live else 0,
                "notes": source.notes,
                "error": pipeline.errors.get(source.name),
            }
            for source in pipeline.sources
        },
        "sinks": {
            sink.sink.name: {"written": sink.written, "dropped": sink.dropped, "error": sink.error or None}
            for sink in pipeline.sinks
        },
        "outputs": outputs,
        "error": broken or None,
    }


def as_text(summary: dict[str, Any]) -> str:
    """The end summary for people."""
    latency, stages = summary["latency_ms"], summary["stages_ms"]
    rate = f", {summary['fps']:.1f} a second" if summary["frames"] > 1 else ""  # one frame has none
    lines = [
        f"{summary['frames']} {'frame' if summary['frames'] == 1 else 'frames'}{rate}, first result after "
        f"{summary['first_result_s'] or 0:.2f} s",
        f"latency   p50 {latency['p50_ms']:.1f} ms, p95 {latency['p95_ms']:.1f} ms (all stages of one frame)",
    ]
    if summary["age_ms"]:
        age = summary["age_ms"]
        lines.append(f"age       p50 {age['p50_ms']:.0f} ms, p95 {age['p95_ms']:.0f} ms (capture to result)")
    lines.append(f"network   {summary['network_share']:.0%} of that time, {summary['provider']}, {summary['model']}")
    lines.append("stages    " + ", ".join(f"{n} {s['p50_ms']:.2f}" for n, s in stages.items()) + " (median ms)")
    lines.append(f"tracks    {summary['tracks']}")
    lost = f"{summary['dropped']} frames dropped, {summary['corrupt']} unreadable"
    behind = f", {summary['left_behind']} under way when the run ended" if summary["left_behind"] else ""
    lines.append(f"lost      {lost}{behind}")
    if summary["error"]:
        lines.append(f"FAILED    {summary['error']}")
    for name, source in summary["sources"].items():
        lines += [f"note      {name}: {note}" for note in source["notes"]]
        if source["error"]:
            lines.append(f"FAILED    source {name}: {source['error']}")
    for name, sink in summary["sinks"].items():
        if sink["error"]:
            lines.append(f"FAILED    {name}: {sink['error']}")
        elif sink["dropped"]:
            lines.append(f"note      {name} left out {sink['dropped']} frames")
    lines += [f"written   {path}" for path in summary["outputs"]]
    return "\n".join(lines)
