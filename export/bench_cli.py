"""`perception bench pipeline`: what everything but the network costs. Other words go to the networks' benchmark."""

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
    """Measure the runtime around the network: a replay backend answers with stored detections."""

    source: str | None = None
    """Video or folder to play; by default a clip of 1242×375 is made."""
    frames: int = 300
    """Length of the clip that is made."""
    objects: int = 12
    """Objects in every picture."""
    sources: tuple[int, ...] = (1,)
    """How many times the source is played at once; several numbers are measured one after the other."""
    delay_ms: float = 0.0
    """How long the stand-in for the network takes for a picture."""
    model: Path | None = None
    """Run this network instead of the replay; what it does alone is measured before and after, in the same run."""
    device: str = "auto"
    """What runs the network."""
    realtime: bool = False
    """Play at the source's own pace and drop what is late: with --delay-ms above it, an overload."""
    duration: float | None = None
    """Play this many seconds of the source only."""
    repeat: int = 1
    """Play the whole again this many times in one process; figures are medians, memory is measured after each."""
    calibrated: bool = True
    """Give the source KITTI's calibration, so that ranging is part of the work."""
    json: bool = False
    """Print the numbers as JSON."""


def main(argv: list[str]) -> int:
    """`pipeline` here, everything else in `export.benchmark`."""
    if argv and argv[0] == "pipeline":
        return bench_pipeline(parse_options(BenchPipelineOptions, argv[1:], "perception bench pipeline"))
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: perception bench pipeline [options]   everything but the network, stage by stage")
        print("       perception bench MODEL.onnx [options]  the network: latency and throughput by device")
        print("\nperception bench pipeline --help and perception bench MODEL.onnx --help explain the options.")
        return 0
    from export.benchmark import main as bench_model

    return bench_model(argv)


def bench_pipeline(options: BenchPipelineOptions) -> int:
    """Play, measure, print a table."""
    from perception.backends import load_model

    if min(options.frames, options.objects + 1, options.repeat, *options.sources) < 1 or not options.sources:
        raise UserError(
            "a count below one",
            "frames, sources and repeat from 1, objects from 0",
            "perception bench pipeline --help",
        )
    with tempfile.TemporaryDirectory() as folder:
        location = options.source or str(make_clip(Path(folder) / "clip.mp4", options.frames))
        network = load_model(options.model, options.device) if options.model else None  # type: ignore[arg-type]
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
    """One pass over `count` copies of the source, records written as `perception run --no-video` does."""
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
        raise UserError(f"{location}: no frame could be read", "a video or folder with pictures")
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
"""Frames after which the clocks are read: medians of laps are not spoilt by the start and by what else runs."""


def lap_ms(laps: list[tuple[float, float]], clock: int) -> float | None:
    """Median time of a frame over all laps; None for runs that are too short."""
    steps = sorted(after[clock] - before[clock] for before, after in pairwise(laps))
    return statistics.median(steps) / LAP * 1e3 if steps else None


def summed_up(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The round with the median rate, with the medians of what all rounds say about speed."""
    report = dict(sorted(rounds, key=lambda r: r["fps"])[len(rounds) // 2])
    for name in ("wall_ms_per_frame", "cpu_ms_per_frame", "fps", "beside_network_ms", "raw_network_fps"):
        values = [r[name] for r in rounds if r[name] is not None]
        report[name] = statistics.median(values) if values else None
    report["rss_mb_after_each_round"] = [r["rss_mb"] for r in rounds]
    return report


def beside_network_ms(pipeline: Pipeline) -> float:
    """Sum of the stages' medians, without the network. Stages overlap, and their clocks run while others compute."""
    clock = pipeline.stats.clock
    return sum(clock[stage].percentile(50) for stage in clock.stages() if stage != "network")


def raw_fps(pipeline: Pipeline, seconds: float = 2.0) -> float:
    """The network alone, in the same process, on the same threads: batches of the size the pipeline uses."""
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
    """Memory of this process that is in RAM, where the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---------------------------------------------------------------- what is played


def make_clip(path: Path, frames: int) -> Path:
    """1242×375 at 10 Hz as H.264: a moving texture with a sensor's grain, more bits a pixel than dashcams give."""
    import cv2
    import numpy as np

    from perception.sinks.video import H264Writer

    print(f"making a clip of {frames} frames …", file=sys.stderr)
    writer = H264Writer(path, 10.0, crf=23, preset="medium")
    noise = np.random.default_rng(0)
    coarse = noise.integers(0, 255, (48, 320, 3)).astype(np.uint8)
    texture = cv2.resize(coarse, (2484, 375), interpolation=cv2.INTER_CUBIC)
    texture = cv2.add(texture, cv2.resize(noise.integers(0, 24, (188, 1242, 3)).astype(np.uint8), (2484, 375)))
    for i in range(frames):
        grain = noise.integers(0, 6, (375, 1242, 3)).astype(np.uint8)  # a sensor is never still
        writer.write(cv2.add(np.roll(texture, -6 * i, axis=1)[:, :1242], grain), i * 10**8)
    writer.close()
    return path


def replay(options: BenchPipelineOptions, source: Source) -> tuple[Any, ModelSpec]:
    """A backend that finds `objects` cars, people and cyclists on smooth paths, and a road."""
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
    """`count` boxes that drift across the picture and grow, with a pixel of noise."""
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
    """KITTI's focal length, scaled to the width of the source."""
    import numpy as np

    from perception.cameras.pinhole import PinholeCamera

    height, width = source.size_hw or (375, 1242)
    focal = 721.5 * width / 1242
    P: np.ndarray = np.array([[focal, 0, width / 2, 0], [0, focal, height * 0.46, 0], [0, 0, 1, 0]], np.float64)
    return PinholeCamera(P)


def describe_clip(location: str) -> str:
    """Codec, size and bits of a video file: they decide what decoding costs."""
    path = Path(location)
    if not path.is_file():
        return location
    import av

    with av.open(location) as container:
        stream = container.streams.video[0]
        sizes = [packet.size for packet in container.demux(stream) if packet.size]  # fragments don't tell how many
        size, count = sum(sizes), max(1, len(sizes))
        width, height = stream.codec_context.width, stream.codec_context.height
        bits = 8 * size / count / (width * height)
        return (
            f"{path.name}: {stream.codec_context.name} {width}x{height}, {count} frames, "
            f"{size / count / 1e3:.1f} kB a frame ({bits:.2f} bit a pixel)"
        )


def as_table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{'stage':<12}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'mean ms':>9}"]
    for stage, held in report["stages_ms"].items():
        values = (held["p50_ms"], held["p95_ms"], held["p99_ms"], held["mean_ms"])
        lines.append(f"{stage:<12}" + "".join(f"{v:>9.3f}" for v in values))
    lines.append(f"{'all but the network':<20}{report['beside_network_ms']:.2f} ms a frame, sum of the medians")
    lines.append(
        f"{report['frames']} frames from {report['sources']} source(s): {report['fps']:.1f} a second; "
        f"median of {LAP} frames: wall {report['wall_ms_per_frame'] or 0:.2f} ms, "
        f"processor {report['cpu_ms_per_frame'] or 0:.2f} ms a frame, all threads"
    )
    if report["raw_network_fps"]:
        lines.append(against_the_network(report))
    if report["age_ms"]:
        age = report["age_ms"]
        lines.append(
            f"age p50 {age['p50_ms']:.0f}, p95 {age['p95_ms']:.0f}, p99 {age['p99_ms']:.0f}, "
            f"most {age['max_ms']:.0f} ms; {report['dropped']} frames dropped"
        )
    memory = [f"{value:.0f}" for value in report["rss_mb_after_each_round"] if value]
    lines.append(f"memory {', '.join(memory)} MB; load average {report['load_average'] or 0:.1f}")
    return "\n".join(lines)


def against_the_network(report: dict[str, Any]) -> str:
    alone, fps = report["raw_network_fps"], report["fps"]
    return (
        f"network alone {alone:.1f} a second (batch {report['batch']}): "
        f"the pipeline reaches {fps / alone:.0%} of it, {1e3 / fps - 1e3 / alone:+.2f} ms a frame"
    )


def as_scaling(reports: list[dict[str, Any]]) -> str:
    """One line for each number of sources."""
    lines = [f"{'sources':>8}{'frames/s':>10}{'each':>8}{'network alone':>15}{'share':>8}{'ms beside':>11}{'MB':>7}"]
    for report in reports:
        alone, fps, count = report["raw_network_fps"], report["fps"], report["sources"]
        line = f"{count:>8}{fps:>10.1f}{fps / count:>8.1f}"
        line += f"{alone:>15.1f}{fps / alone:>8.0%}{1e3 / fps - 1e3 / alone:>+11.2f}" if alone else " " * 34
        lines.append(line + f"{report['rss_mb'] or 0:>7.0f}")
    return "\n".join(lines)
