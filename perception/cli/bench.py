"""`perception bench pipeline`: what everything but the network costs. Other words go to the networks' benchmark."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.options import parse_options
from perception.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from perception.model import ModelSpec
    from perception.pipeline import Pipeline
    from perception.sources import Source
    from perception.types import Detections


@dataclass(frozen=True)
class BenchPipelineOptions:
    """Measure the runtime around the network: a replay backend answers with stored detections."""

    source: str | None = None
    """Video or folder to play; by default a clip of 1242×375 is made."""
    frames: int = 300
    """Length of the clip that is made."""
    objects: int = 12
    """Objects in every picture."""
    sources: int = 1
    """How many times the source is played at once."""
    delay_ms: float = 0.0
    """How long the stand-in for the network takes for a picture."""
    model: Path | None = None
    """Run this network instead of the replay; its time alone is measured beside."""
    device: str = "auto"
    """What runs the network."""
    realtime: bool = False
    """Play at the source's own pace and drop what is late: with --delay-ms above it, an overload."""
    repeat: int = 1
    """Play the whole again this many times in one process; memory is measured after each."""
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
        return 0
    from export.benchmark import main as bench_model

    return bench_model(argv)


def bench_pipeline(options: BenchPipelineOptions) -> int:
    """Play, measure, print a table."""
    if min(options.frames, options.objects + 1, options.sources, options.repeat) < 1:
        raise UserError("a count below one", "frames, sources and repeat from 1, objects from 0")
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        location = options.source or str(make_clip(Path(folder) / "clip.mp4", options.frames))
        rounds = [measure(options, location) for _ in range(options.repeat)]
    report = rounds[-1]
    report["rss_mb_after_each_round"] = [r["rss_mb"] for r in rounds]
    report["opencv_threads"] = cv2.getNumThreads()
    print(json.dumps(report) if options.json else as_table(report))
    return 0


def measure(options: BenchPipelineOptions, location: str) -> dict[str, Any]:
    """One pass over the source: wall and processor time, stages, ages, memory."""
    from perception.backends import load_model
    from perception.pipeline import Pipeline
    from perception.sources import SourceOptions, open_source

    how = SourceOptions(realtime=options.realtime)
    sources = [open_source(location, how, f"s{i}") for i in range(options.sources)]
    cameras = {source.name: kitti_camera(source) for source in sources} if options.calibrated else {}
    model = load_model(options.model, options.device) if options.model else replay(options, sources[0])  # type: ignore[arg-type]
    pipeline = Pipeline(sources, model, cameras=cameras)
    first_s, wall_start, cpu_start = None, time.perf_counter(), time.process_time()
    frames = 0
    for _ in pipeline:
        if first_s is None:
            first_s = time.perf_counter() - wall_start
        frames += 1
    wall_s, cpu_s = time.perf_counter() - wall_start, time.process_time() - cpu_start
    if not frames:
        raise UserError(f"{location}: no frame could be read", "a video or folder with pictures")
    return {
        "frames": frames,
        "sources": options.sources,
        "objects": options.objects,
        "wall_ms_per_frame": wall_s / frames * 1e3,
        "cpu_ms_per_frame": cpu_s / frames * 1e3,
        "fps": pipeline.stats.fps,
        "first_result_s": first_s,
        "stages_ms": pipeline.stats.clock.summary(),
        "beside_network_ms": beside_network_ms(pipeline),
        "age_ms": pipeline.stats.age.summary() if pipeline.stats.age.count else None,
        "dropped": sum(pipeline.stats.dropped.values()),
        "raw_network_fps": raw_fps(pipeline) if options.model else None,
        "rss_mb": rss_mb(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def beside_network_ms(pipeline: Pipeline) -> float:
    """Sum of the stages' medians, without the network."""
    clock = pipeline.stats.clock
    return sum(clock[stage].percentile(50) for stage in clock.stages() if stage != "network")


def raw_fps(pipeline: Pipeline, seconds: float = 3.0) -> float:
    """The network alone, in the same process, on the same threads: batches of the size the pipeline uses."""
    import numpy as np

    size = pipeline._batch_limit
    images = np.full((size, *pipeline.spec.size_hw, 3), 114, np.uint8)
    pipeline.backend.run({"images": images})
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        pipeline.backend.run({"images": images})
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
    """A drive of 1242×375 at 10 Hz as H.264: the synthetic street where it is at hand, else a moving texture."""
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

    from perception.camera import PinholeCamera

    height, width = source.size_hw or (375, 1242)
    focal = 721.5 * width / 1242
    P: np.ndarray = np.array([[focal, 0, width / 2, 0], [0, focal, height * 0.46, 0], [0, 0, 1, 0]], np.float64)
    return PinholeCamera(P)


def as_table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"{'stage':<12}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'mean ms':>9}"]
    for stage, held in report["stages_ms"].items():
        values = (held["p50_ms"], held["p95_ms"], held["p99_ms"], held["mean_ms"])
        lines.append(f"{stage:<12}" + "".join(f"{v:>9.3f}" for v in values))
    lines.append(f"{'all but the network':<20}{report['beside_network_ms']:.2f} ms a frame, sum of the medians")
    lines.append(
        f"{report['frames']} frames from {report['sources']} source(s), {report['objects']} objects each: "
        f"{report['fps']:.0f} a second; wall {report['wall_ms_per_frame']:.2f} ms, "
        f"processor {report['cpu_ms_per_frame']:.2f} ms a frame"
    )
    if report["raw_network_fps"]:
        share = report["fps"] / report["raw_network_fps"]
        lines.append(
            f"network alone {report['raw_network_fps']:.1f} a second: the pipeline reaches {share:.0%} of it"
        )
    if report["age_ms"]:
        age = report["age_ms"]
        lines.append(
            f"age p50 {age['p50_ms']:.0f}, p95 {age['p95_ms']:.0f}, p99 {age['p99_ms']:.0f}, "
            f"most {age['max_ms']:.0f} ms; {report['dropped']} frames dropped"
        )
    memory = [f"{value:.0f}" for value in report["rss_mb_after_each_round"] if value]
    lines.append(f"memory {', '.join(memory)} MB; load average {report['load_average'] or 0:.1f}")
    return "\n".join(lines)
