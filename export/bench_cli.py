"""`perception bench`: `bench pipeline` measures the runtime around the network, `bench MODEL…` the network."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.options import CommandOptions, parse_options
from perception.devices import Device, Precision
from perception.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from perception.backends import Model
    from perception.model import ModelSpec
    from perception.runtime.pipeline import Pipeline
    from perception.sources import Source
    from perception.types import Detections


@dataclass(frozen=True)
class BenchPipelineOptions(CommandOptions):
    """Measure the runtime around the network. A replay backend outputs stored detections instead of the network."""

    source: str | None = None
    """Video or folder to play. Default: a generated clip of 1242×375."""
    frames: int = 300
    """Length of the generated clip, frames."""
    objects: int = 12
    """Objects in every frame."""
    sources: tuple[int, ...] = (1,)
    """Number of concurrent copies of the source. Several numbers are measured in turn."""
    delay_ms: float = 0.0
    """Simulated inference time per frame, ms."""
    model: Path | None = None
    """Model file to run instead of the replay. Its throughput alone is measured in the same process, before and
    after."""
    device: Device = "auto"
    """Device of the network."""
    precision: Precision = "fp32"
    """Arithmetic of OpenVINO."""
    realtime: bool = False
    """Play at the source's frame rate and drop late frames. A larger --delay-ms simulates overload."""
    duration: float | None = None
    """Part of the source to play, seconds."""
    repeat: int = 1
    """Repetitions in one process. The report shows medians, and the memory after each repetition."""
    calibrated: bool = True
    """Use KITTI's calibration, so that ranging is included."""
    json: bool = False
    """Print the results as JSON."""


def main(argv: list[str]) -> int:
    """Run `perception bench`."""
    if argv and argv[0] == "pipeline":
        return bench_pipeline(parse_options(BenchPipelineOptions, argv[1:], "perception bench pipeline"))
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: perception bench pipeline [options]    time of each pipeline stage around the network")
        print("       perception bench MODEL.onnx [options]  latency and throughput of the network by device")
        print("\nOptions: perception bench pipeline --help, perception bench MODEL.onnx --help")
        return 0
    from export.benchmark import main as bench_model

    return bench_model(argv)


def bench_pipeline(options: BenchPipelineOptions) -> int:
    """Measure the pipeline and print a table."""
    from perception.backends import load_model

    if min(options.frames, options.objects + 1, options.repeat, *options.sources) < 1 or not options.sources:
        raise UserError(
            "a count below its minimum",
            "--frames, --sources and --repeat from 1, --objects from 0",
            "perception bench pipeline --help",
        )
    with tempfile.TemporaryDirectory() as folder:
        location = options.source or str(make_clip(Path(folder) / "clip.mp4", options.frames))
        network = load_model(options.model, options.device, precision=options.precision) if options.model else None
        reports = [
            summed_up([measure(options, location, count, Path(folder), network) for _ in range(options.repeat)])
            for count in options.sources
        ]
        clip = describe_clip(location)
    if options.json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports))
        return 0
    print(clip)
    print("\n\n".join(as_table(report) for report in reports))
    if len(reports) > 1:
        print("\n" + as_scaling(reports))
    return 0


def measure(
    options: BenchPipelineOptions, location: str, count: int, folder: Path, network: Model | None
) -> dict[str, Any]:
    """Run the pipeline once over `count` copies of the source, with the outputs of `perception run --no-video`."""
    from perception.runtime.pipeline import Pipeline
    from perception.sinks.jsonl import JsonLinesSink
    from perception.source_options import SourceOptions
    from perception.sources import open_source

    how = SourceOptions(realtime=options.realtime, duration_s=options.duration)
    sources = [open_source(location, how, f"s{i}") for i in range(count)]
    cameras = {source.name: kitti_camera(source) for source in sources} if options.calibrated else {}
    model = network or replay(options, sources[0])
    pipeline = Pipeline(sources, model, [JsonLinesSink.in_folder(folder)], cameras=cameras)
    alone = [raw_fps(pipeline)] if options.model else []
    first_s, wall_start, laps = None, time.perf_counter(), []
    for frames, _ in enumerate(pipeline, 1):
        if first_s is None:
            first_s = time.perf_counter() - wall_start
        if frames % LAP == 0:
            laps.append((time.perf_counter(), time.process_time()))
    frames = sum(pipeline.stats.frames.values())
    if not frames:
        raise UserError(f"{location}: no readable frame", "a video or a folder of images")
    if options.model:
        alone.append(raw_fps(pipeline))
    return {
        "frames": frames,
        "sources": count,
        "objects": options.objects,
        "wall_ms_per_frame": lap_ms(laps, 0),
        "cpu_ms_per_frame": lap_ms(laps, 1),
        "fps": pipeline.stats.fps,
        "first_result_s": first_s,
        "stages_ms": pipeline.stats.clock.summary(),
        "beside_network_ms": beside_network_ms(pipeline),
        "age_ms": pipeline.stats.age.summary() if pipeline.stats.age.count else None,
        "dropped": sum(pipeline.stats.dropped.values()),
        "raw_network_fps": sum(alone) / len(alone) if alone else None,
        "batch": pipeline.detector.batch,
        "rss_mb": rss_mb(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


LAP = 25
"""Frames per lap. The median over laps excludes start-up and other load."""


def lap_ms(laps: list[tuple[float, float]], clock: int) -> float | None:
    """Return the median time per frame over all laps, ms; None for a run of less than two laps."""
    steps = sorted(after[clock] - before[clock] for before, after in pairwise(laps))
    return statistics.median(steps) / LAP * 1e3 if steps else None


def summed_up(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the report of the round with the median frame rate, with medians over all rounds for its speeds."""
    report = dict(sorted(rounds, key=lambda r: r["fps"])[len(rounds) // 2])
    for name in ("wall_ms_per_frame", "cpu_ms_per_frame", "fps", "beside_network_ms", "raw_network_fps"):
        values = [r[name] for r in rounds if r[name] is not None]
        report[name] = statistics.median(values) if values else None
    report["rss_mb_after_each_round"] = [r["rss_mb"] for r in rounds]
    return report


def beside_network_ms(pipeline: Pipeline) -> float:
    """Return the sum of the stages' medians without the network, ms.

    Stages overlap, so their times include waiting for others.
    """
    clock = pipeline.stats.clock
    return sum(clock[stage].percentile(50) for stage in clock.stages() if stage != "network")


def raw_fps(pipeline: Pipeline, seconds: float = 2.0) -> float:
    """Return the frame rate of the network alone, with the process, threads and batch size of the pipeline."""
    import numpy as np

    size = pipeline.detector.batch
    images = np.full((size, *pipeline.spec.size_hw, 3), 114, np.uint8)
    pipeline.detector.backend.run({"images": images})
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        pipeline.detector.backend.run({"images": images})
        done += size
    return done / (time.perf_counter() - begin)


def rss_mb() -> float | None:
    """Return the resident memory of this process, MB, where the system reports it."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---------------------------------------------------------------- sources


def make_clip(path: Path, frames: int) -> Path:
    """Write an H.264 clip of 1242×375 at 10 Hz: a moving texture with sensor noise, at more bits than a dashcam's."""
    import cv2
    import numpy as np

    from perception.sinks.video import H264Writer

    print(f"generating a clip of {frames} frames …", file=sys.stderr)
    writer = H264Writer(path, 10.0, crf=23, preset="medium")
    noise = np.random.default_rng(0)
    coarse = noise.integers(0, 255, (48, 320, 3)).astype(np.uint8)
    texture = cv2.resize(coarse, (2484, 375), interpolation=cv2.INTER_CUBIC)
    texture = cv2.add(texture, cv2.resize(noise.integers(0, 24, (188, 1242, 3)).astype(np.uint8), (2484, 375)))
    for i in range(frames):
        grain = noise.integers(0, 6, (375, 1242, 3)).astype(np.uint8)  # sensor noise
        writer.write(cv2.add(np.roll(texture, -6 * i, axis=1)[:, :1242], grain), i * 10**8)
    writer.close()
    return path


def replay(options: BenchPipelineOptions, source: Source) -> tuple[Any, ModelSpec]:
    """Return a backend that outputs `objects` cars, people and cyclists on smooth paths, and a road."""
    import numpy as np

    from perception.backends.replay import ReplayBackend
    from perception.model import ModelSpec
    from perception.types import CLASS_NAMES

    height, width = source.size_hw or (375, 1242)
    size_hw = (384, 1248) if width > 2.4 * height else (512, 928)
    spec = ModelSpec(CLASS_NAMES, size_hw, name="replay")
    road = np.zeros((size_hw[0] // 4, size_hw[1] // 4), np.uint8)
    road[size_hw[0] // 8 :] = 230
    frames = [moving_objects(i, options.objects, size_hw) for i in range(200)]
    return ReplayBackend(spec, frames + frames[::-1], road, options.delay_ms), spec


def moving_objects(step: int, count: int, size_hw: tuple[int, int]) -> Detections:
    """Return `count` boxes that move across the frame and grow, with one pixel of noise."""
    import numpy as np

    from perception.types import Detections

    noise = np.random.default_rng(step)
    index = np.arange(count)
    height = 24 + 12 * (index % 6) + step * 0.1
    width = height * np.array([1.6, 0.45, 0.7])[index % 3]
    x = (size_hw[1] * (index + 0.5) / max(1, count) + step * (0.6 * (index % 5) - 1.2)) % size_hw[1]
    bottom = size_hw[0] * 0.55 + height * 0.8
    boxes = np.stack([x - width / 2, bottom - height, x + width / 2, bottom], axis=1)
    boxes = boxes + noise.normal(0, 1, boxes.shape)
    scores = noise.uniform(0.35, 0.95, count)
    return Detections(boxes.astype(np.float32), scores.astype(np.float32), (index % 3).astype(np.int64))


def kitti_camera(source: Source) -> Any:
    """Return a camera with KITTI's focal length, scaled to the width of the source."""
    import numpy as np

    from perception.cameras.pinhole import PinholeCamera

    height, width = source.size_hw or (375, 1242)
    focal = 721.5 * width / 1242
    P: np.ndarray = np.array([[focal, 0, width / 2, 0], [0, focal, height * 0.46, 0], [0, 0, 1, 0]], np.float64)
    return PinholeCamera(P)


def describe_clip(location: str) -> str:
    """Return codec, size and bit rate of a video file, on which the decoding time depends."""
    path = Path(location)
    if not path.is_file():
        return location
    import av

    with av.open(location) as container:
        stream = container.streams.video[0]
        sizes = [
            packet.size for packet in container.demux(stream) if packet.size
        ]  # fragmented files have no frame count
        size, count = sum(sizes), max(1, len(sizes))
        width, height = stream.codec_context.width, stream.codec_context.height
        bits = 8 * size / count / (width * height)
        return (
            f"{path.name}: {stream.codec_context.name} {width}x{height}, {count} frames, "
            f"{size / count / 1e3:.1f} kB/frame ({bits:.2f} bit/pixel)"
        )


def as_table(report: dict[str, Any]) -> str:
    """Return the report as a table."""
    lines = [f"{'stage':<12}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'mean ms':>9}"]
    for stage, held in report["stages_ms"].items():
        values = (held["p50_ms"], held["p95_ms"], held["p99_ms"], held["mean_ms"])
        lines.append(f"{stage:<12}" + "".join(f"{v:>9.3f}" for v in values))
    lines.append(f"{'without the network':<20}{report['beside_network_ms']:.2f} ms/frame, sum of the medians")
    lines.append(
        f"{report['frames']} frames from {report['sources']} source(s): {report['fps']:.1f} frames/s; "
        f"median over {LAP} frames: wall time {report['wall_ms_per_frame'] or 0:.2f} ms/frame, "
        f"CPU time {report['cpu_ms_per_frame'] or 0:.2f} ms/frame over all threads"
    )
    if report["raw_network_fps"]:
        lines.append(against_the_network(report))
    if report["age_ms"]:
        age = report["age_ms"]
        lines.append(
            f"age p50 {age['p50_ms']:.0f}, p95 {age['p95_ms']:.0f}, p99 {age['p99_ms']:.0f}, "
            f"max {age['max_ms']:.0f} ms; {report['dropped']} frames dropped"
        )
    memory = [f"{value:.0f}" for value in report["rss_mb_after_each_round"] if value]
    lines.append(f"memory {', '.join(memory)} MB; load average {report['load_average'] or 0:.1f}")
    return "\n".join(lines)


def against_the_network(report: dict[str, Any]) -> str:
    """Return a line that compares the pipeline with the network alone."""
    alone, fps = report["raw_network_fps"], report["fps"]
    return (
        f"network alone: {alone:.1f} frames/s (batch {report['batch']}); "
        f"pipeline: {fps / alone:.0%} of that, {1e3 / fps - 1e3 / alone:+.2f} ms/frame"
    )


def as_scaling(reports: list[dict[str, Any]]) -> str:
    """Return a table with one line per number of sources."""
    lines = [f"{'sources':>8}{'frames/s':>10}{'each':>8}{'network alone':>15}{'share':>8}{'ms beside':>11}{'MB':>7}"]
    for report in reports:
        alone, fps, count = report["raw_network_fps"], report["fps"], report["sources"]
        line = f"{count:>8}{fps:>10.1f}{fps / count:>8.1f}"
        line += f"{alone:>15.1f}{fps / alone:>8.0%}{1e3 / fps - 1e3 / alone:>+11.2f}" if alone else " " * 34
        lines.append(line + f"{report['rss_mb'] or 0:>7.0f}")
    return "\n".join(lines)
