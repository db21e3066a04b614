"""`perception bench MODEL…`: latency and throughput of models, comparable on a machine with other load.

The cases take turns, one run each, in an order that is shuffled every round, so that other load affects all of them
alike. Warm-up runs are discarded. Besides wall time, the table shows CPU time, which other load changes little, and
the share of a roofline bound: the time of the model's operations at the rate that this machine reaches in a large
matrix product with the same runtime.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import tyro

from export.flops import ModelCost, model_cost, single
from export.graph import load_onnx, read_spec
from perception import __version__
from perception.backends import Backend, load_model
from perception.cli.options import CommandOptions, parse_options
from perception.devices import Device, Precision, is_openvino, on_cpu
from perception.errors import UserError
from perception.files import write_atomically
from perception.model import ModelSpec, shipped_or

GEMM_SIDE = 1024
COPY_FLOATS = 16 * 1024 * 1024
EVERYDAY = ("models", "device", "precision", "batch", "threads", "rounds", "json", "out", "plot", "profile", "config")
"""What `perception bench MODEL --help` shows."""


@dataclass(frozen=True)
class BenchOptions(CommandOptions):
    """Measure latency and throughput of one or more model files in alternating runs."""

    models: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL …")] = ()
    """Model files of `perception export`."""
    device: tuple[Device, ...] = ("cpu",)
    """Devices to compare. An engine runs on the GPU that it was built for."""
    precision: tuple[Precision, ...] = ("fp32",)
    """Arithmetic of OpenVINO, to compare. Other devices compute in the precision of the file."""
    cuda_graph: bool = False
    """Replay a captured CUDA graph instead of launching each kernel (GPU only)."""
    batch: tuple[int, ...] = (1,)
    """Batch sizes to compare. A file with a fixed batch uses its own."""
    threads: int = 0
    """CPU threads per operator; 0: one per core."""
    rounds: int = 50
    """Measured runs of each case."""
    warmup: int = 5
    """Discarded warm-up runs of each case."""
    floor: bool = True
    """Measure the peak performance of the machine."""
    profile: bool = False
    """Print the time by operator (ONNX Runtime)."""
    json: bool = False
    """Print the results as JSON."""
    out: Path | None = None
    """JSON file for the results."""
    plot: Path | None = None
    """PNG file for a plot of the latencies (needs the extra 'report')."""


@dataclass(frozen=True)
class Machine:
    """Machine of a measurement."""

    processor: str
    cores: int
    load: float
    """Load average of the last minute. Above the number of cores, wall times are too long."""
    versions: dict[str, str]


@dataclass(frozen=True)
class Floor:
    """Peak performance of the machine in ONNX Runtime, with the same device and threads."""

    gemm_gflops: float
    """GFLOP/s of a product of square fp32 matrices, by wall time."""
    gemm_gflops_core: float
    """GFLOP/s of one core, by CPU time, which other load changes little."""
    memory_gbs: float
    """GB/s of reading and writing an array larger than all caches."""


@dataclass(frozen=True)
class Measurement:
    """Result of one case: a model with a device and a batch size."""

    model: str
    precision: str
    size_hw: tuple[int, int]
    device: str
    """As asked for, with the arithmetic where it is not fp32."""
    provider: str
    """Engine that ran the model."""
    batch: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    """Throughput at the median latency."""
    cpu_ms: float
    """CPU time of one run over all threads, minimum of all runs; with a GPU, that of the host."""
    memory_mb: float
    """Memory growth of the process by loading the model and its first run."""
    file_mb: float
    gflops: float
    """Operations of one run, GFLOP."""
    floor_ms: float
    """Roofline bound: time of the operations at peak rate, or of the bytes at peak bandwidth, the longer one."""
    floor_share: float
    """Roofline bound over measured time; 1 is ideal. By CPU time on a CPU, else by wall time."""


@dataclass
class _Case:
    model: Path
    device: Device
    precision: Precision
    backend: Backend
    spec: ModelSpec
    images: np.ndarray
    cost: ModelCost | None
    memory_mb: float
    times_ms: list[float]
    cpu_ms: list[float]

    def run(self) -> None:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        self.backend.run({"images": self.images})  # synchronous: returns when the outputs are in host memory
        self.times_ms.append(1e3 * (time.perf_counter() - begin))
        self.cpu_ms.append(1e3 * (time.process_time() - begin_cpu))


def main(argv: Sequence[str]) -> int:
    """Run `perception bench MODEL…`."""
    options = parse_options(BenchOptions, list(argv), "perception bench", everyday=EVERYDAY)
    if not options.models:
        raise UserError("no model given", "one or more model files", "perception bench MODEL.onnx")
    if options.rounds < 1 or options.warmup < 0 or min(options.batch) < 1:
        found = f"--rounds {options.rounds} --warmup {options.warmup} --batch {min(options.batch)}"
        raise UserError(found, "at least one round and one image", "--rounds 50 --batch 1")
    if options.plot:
        _require_matplotlib()
    result = bench(options)
    values = to_json(result)
    if options.out:
        write_atomically(options.out, json.dumps(values, indent=1), do="--out FILE.json")
    if options.plot:
        plot(result.measurements, options.plot)
    print(json.dumps(values, indent=1) if options.json else text(result))
    return 0


@dataclass(frozen=True)
class BenchResult:
    """Results of all cases."""

    machine: Machine
    floors: dict[str, Floor]
    """Peak performance by device."""
    measurements: list[Measurement]
    profiles: dict[str, list[dict[str, Any]]]
    """Model → operators with milliseconds and share, longest first."""


def bench(options: BenchOptions) -> BenchResult:
    """Measure every case in alternating runs, and compare it with the peak performance of the machine.

    Raises:
        UserError: a model or a device cannot be used.
    """
    if options.cuda_graph and set(options.device) == {"cpu"} and all(m.suffix != ".engine" for m in options.models):
        raise UserError("--cuda-graph on the CPU", "a GPU", "--device cuda, or omit it")
    cases = [
        _load(model, device, precision, batch, options)
        for model in map(shipped_or, options.models)
        for device in (("tensorrt",) if model.suffix == ".engine" else options.device)
        for precision in (options.precision if is_openvino(device) else ("fp32",))
        for batch in _batches(model, options.batch)
    ]
    order = np.random.default_rng(0)
    for number in range(options.warmup + options.rounds):
        if number == options.warmup:
            for case in cases:
                case.times_ms.clear()
                case.cpu_ms.clear()
        for index in order.permutation(len(cases)):
            cases[index].run()
        if sys.stderr.isatty():
            print(f"\rround {number + 1} of {options.warmup + options.rounds}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    floors: dict[str, Floor] = {}
    for device in dict.fromkeys(map(floor_device, options.device)) if options.floor else ():
        if device:
            floors[device] = measure_floor(device, options.threads)
    profiles = {}
    if options.profile:
        for model in map(shipped_or, options.models):
            if model.suffix == ".onnx":
                profiles[str(model)] = profile(model, options.threads, rounds=max(5, options.rounds // 5))
    return BenchResult(
        machine(), floors, [_measured(case, floors.get(floor_device(case.device))) for case in cases], profiles
    )


def _batches(model: Path, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Return the requested batch sizes, or the fixed batch size of the file."""
    if model.suffix != ".onnx" or not model.is_file():
        return wanted
    loaded = load_onnx(model)
    read_spec(loaded, model)  # another project's file ends here
    first = loaded.graph.input[0].type.tensor_type.shape.dim[0]
    return (first.dim_value,) if first.dim_value else wanted


def floor_device(device: Device) -> Device | Literal[""]:
    """Return the device of ONNX Runtime that measures the floor; empty where it has none, as for Intel GPUs."""
    return "cpu" if on_cpu(device) else "" if is_openvino(device) else device


def _load(model: Path, device: Device, precision: Precision, batch: int, options: BenchOptions) -> _Case:
    before = _resident_mb()
    graph = options.cuda_graph and device in ("cuda", "tensorrt")
    backend, spec = load_model(model, device, options.threads, graph, precision)
    images = np.random.default_rng(0).integers(0, 256, (batch, *spec.size_hw, 3), np.uint8)
    backend.run({"images": images})
    counted = model_cost(onnx.load(str(model)), batch) if model.suffix == ".onnx" else None
    return _Case(model, device, precision, backend, spec, images, counted, max(0.0, _resident_mb() - before), [], [])


def _measured(case: _Case, floor: Floor | None) -> Measurement:
    p50, p90, p99 = (float(v) for v in np.percentile(case.times_ms, (50, 90, 99)))
    floor_ms = floor_of(case.cost, floor) if case.cost and floor else float("nan")
    share = floor_ms / p50
    if case.cost and floor and on_cpu(case.device):
        share = case.cost.conv_flops / floor.gemm_gflops_core / 1e6 / min(case.cpu_ms)
    return Measurement(
        model=str(case.model),
        precision=case.spec.precision,
        size_hw=case.spec.size_hw,
        device=case.device if case.precision == "fp32" else f"{case.device} {case.precision}",
        provider=case.backend.provider,
        batch=len(case.images),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        images_per_s=1e3 * len(case.images) / p50,
        cpu_ms=min(case.cpu_ms),
        memory_mb=case.memory_mb,
        file_mb=case.model.stat().st_size / 1e6,
        gflops=case.cost.flops / 1e9 if case.cost else float("nan"),
        floor_ms=floor_ms,
        floor_share=share,
    )


def floor_of(counted: ModelCost, floor: Floor) -> float:
    """Return the roofline bound of a run, ms, from the machine's fp32 rate and bandwidth (Williams et al. 2009)."""
    return max(counted.conv_flops / floor.gemm_gflops, counted.bytes_once / floor.memory_gbs) / 1e6


def measure_floor(device: Device, threads: int, repeats: int = 12) -> Floor:
    """Measure peak performance: the best of several large matrix products and of passes over a large array."""
    square = (GEMM_SIDE, GEMM_SIDE)
    gemm, gemm_cpu = _fastest_s(single("MatMul", [square, square]), square, device, threads, repeats)
    copy, _ = _fastest_s(single("Add", [(COPY_FLOATS,), (1,)]), (COPY_FLOATS,), device, threads, max(3, repeats // 3))
    flops = 2 * GEMM_SIDE**3
    # Add reads and writes each float, and the maximum after it reads it once more
    return Floor(flops / gemm / 1e9, flops / gemm_cpu / 1e9, 3 * 4 * COPY_FLOATS / copy / 1e9)


def _fastest_s(
    model: onnx.ModelProto, shape: tuple[int, ...], device: Device, threads: int, repeats: int
) -> tuple[float, float]:
    """Return the minimum wall time and the minimum CPU time of a run, seconds."""
    from perception.backends.onnxruntime import OnnxRuntimeBackend

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "floor.onnx"
        onnx.save(model, str(path))
        backend = OnnxRuntimeBackend(path, device, threads)
    inputs = {"x0": np.random.default_rng(1).random(shape, np.float32)}
    times, cpu_times = [], []
    for _ in range(repeats + 2):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        backend.run(inputs)
        times.append(time.perf_counter() - begin)
        cpu_times.append(time.process_time() - begin_cpu)
    return min(times[2:]), max(1e-9, min(cpu_times[2:]))


def profile(model: Path, threads: int, rounds: int = 10) -> list[dict[str, Any]]:
    """Profile a model on the CPU with ONNX Runtime, with the median of each node over the rounds.

    Returns:
        For each operator type the number of nodes, milliseconds and share of the total, longest first.
    """
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        first = session.get_inputs()[0]
        shape = [d if isinstance(d, int) else 1 for d in first.shape]
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        for _ in range(rounds + 2):
            session.run(None, {first.name: images})
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"] / 1e3)
    totals: dict[str, tuple[int, float]] = {}
    for (operator, _), times in nodes.items():
        count, total = totals.get(operator, (0, 0.0))
        totals[operator] = (count + 1, total + float(np.median(times[2:] or times)))
    everything = sum(total for _, total in totals.values())
    return [
        {"operator": operator, "nodes": count, "ms": round(total, 4), "share": round(total / everything, 4)}
        for operator, (count, total) in sorted(totals.items(), key=lambda item: -item[1][1])
    ]


def machine() -> Machine:
    """Return processor, cores, load and versions of this machine."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    import onnxruntime

    versions = {
        "perception": __version__,
        "onnxruntime": onnxruntime.__version__,
        "python": platform.python_version(),
    }
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions["openvino"] = importlib.metadata.version("openvino")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return Machine(name, os.cpu_count() or 1, round(load, 2), versions)


def _resident_mb() -> float:
    """Return the resident memory of this process, MB, where the system reports it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if statm.exists() else 0.0


def to_json(result: BenchResult) -> dict[str, Any]:
    """Return the results as JSON values; unknown values are null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and value != value else value

    return clean(asdict(result))


def text(result: BenchResult) -> str:
    """Return the results as tables."""
    info = result.machine
    lines = [
        f"{info.processor}, {info.cores} cores, load {info.load}, "
        + ", ".join(f"{name} {info.versions[name]}" for name in ("onnxruntime", "openvino") if name in info.versions),
        *(
            f"{device}: {floor.gemm_gflops:.0f} GFLOP/s in a matrix product ({floor.gemm_gflops_core:.0f} a core),"
            f" {floor.memory_gbs:.0f} GB/s of memory"
            for device, floor in result.floors.items()
        ),
        f"{'model':34} {'device':13} {'batch':>5} {'p50 ms':>8} {'p90':>7} {'p99':>7} {'img/s':>7} {'cpu ms':>7}"
        f" {'MB':>6} {'GFLOP':>6} {'floor ms':>8} {'share':>6}",
    ]
    for m in result.measurements:
        lines.append(
            f"{Path(m.model).name[-34:]:34} {m.device:13} {m.batch:5d} {m.p50_ms:8.2f} {m.p90_ms:7.2f}"
            f" {m.p99_ms:7.2f} {m.images_per_s:7.1f} {m.cpu_ms:7.2f} {m.memory_mb:6.0f} {m.gflops:6.2f}"
            f" {m.floor_ms:8.2f} {100 * m.floor_share:5.0f}%"
        )
    if info.load > info.cores:
        lines.append(f"The machine was busy (load {info.load} on {info.cores} cores): compare ratios and cpu ms.")
    lines += slower_than_fp32(result.measurements)
    for model, rows in result.profiles.items():
        lines += ["", f"{Path(model).name} by operator, ms:"]
        lines += [f"  {r['operator']:24} {r['nodes']:4d} {r['ms']:8.3f} {100 * r['share']:5.1f}%" for r in rows[:16]]
    return "\n".join(lines)


def slower_than_fp32(measurements: Sequence[Measurement]) -> list[str]:
    """Return a line per reduced-precision model that compares its speed with fp32.

    Files of the same input whose operations differ by over a tenth hold different networks; precisions alone change
    them less.
    """
    lines = []
    for m in measurements:
        for base in measurements:
            same = (base.size_hw, base.device, base.batch) == (m.size_hw, m.device, m.batch)
            same &= not abs(m.gflops / base.gflops - 1) > 0.1  # unknown for engines, which are then compared
            if m.precision != "fp32" and base.precision == "fp32" and same:
                ratio = m.cpu_ms / base.cpu_ms if on_cpu(m.device) else m.p50_ms / base.p50_ms
                verdict = "faster" if ratio < 0.97 else "NOT faster"
                lines.append(
                    f"{m.precision} is {verdict} than fp32 here: {Path(m.model).name} takes {ratio:.2f} of the time"
                    f" of {Path(base.model).name} ({m.device}, batch {m.batch})"
                )
    return lines


def _require_matplotlib() -> None:
    from perception.errors import MissingDependencyError

    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise MissingDependencyError("matplotlib", "report", "drawing the latencies") from None


def plot(measurements: Sequence[Measurement], path: Path) -> None:
    """Plot the latencies: medians as bars, p90 as whiskers, the roofline bound as a mark."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [f"{Path(m.model).stem}\n{m.precision}, {m.device}, batch {m.batch}" for m in measurements]
    middle = [m.p50_ms for m in measurements]
    upper = [m.p90_ms - m.p50_ms for m in measurements]
    figure, axes = plt.subplots(figsize=(8, 0.7 + 0.6 * len(names)), layout="constrained")
    places = np.arange(len(names))[::-1]
    axes.barh(
        places, middle, xerr=[[0.0] * len(names), upper], color="#4878a8", ecolor="#303030", height=0.6, capsize=3
    )
    axes.plot([m.floor_ms for m in measurements], places, "|", color="#d05030", markersize=18, markeredgewidth=2)
    for m, place in zip(measurements, places, strict=True):
        axes.annotate(
            f"{m.p50_ms:.1f}", (m.p90_ms, place), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(places, names, fontsize=8)
    axes.set_xlabel("latency, ms: median, whisker to p90; red: roofline bound")
    axes.set_xlim(0, 1.1 * max(m.p90_ms for m in measurements))  # room for the last number
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
