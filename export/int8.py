"""int8 by static Q/DQ: ranges from calibration frames, weights per channel, costly blocks left in fp32.

Only what lies between convolutions is quantised (see `export.graph`), and of that not the squeeze-and-excite gates:
they work on one value a channel, where int8 saves nothing. If the loss is beyond the budget, every block is tried
alone in int8, and the costliest go back to fp32, as few as do. Blocks are ranked by what they do to scores, boxes and
road on a few frames, which is a smooth measure; AP on few frames is not, so the budget is judged on many.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.config import QuantizeConfig
from export.frames import TestFrame
from export.graph import between_convolutions, read_spec, remove_unused, write_spec
from export.onnx import write_model
from export.parity import TOLERANCES, Candidate, ParityReport, Tolerance, checks, compare, open_candidate
from perception.cameras.letterbox import letterbox
from perception.errors import UserError
from perception.types import U8, Detections, RoadMask

OPERATORS = ("Conv", "Add", "Mul", "Resize")
"""What has an int8 kernel worth having in ONNX Runtime and TensorRT."""
OVERLAP_LIMIT = 0.1
"""Mean lack of IoU that counts as much as the tolerance's mean difference of scores or road."""
ABSORBED = "Relu"
"""Unsigned ranges that begin at zero do its work, so it goes from the graph; `in_float` brings it back."""


@dataclass
class QuantizeReport:
    """What was done, and why."""

    method: str
    calibration_frames: int
    quantised: int = 0
    """Convolutions in int8."""
    convolutions: int = 0
    blocks_in_fp32: list[tuple[str, float]] = field(default_factory=list)
    """Blocks that were left, with the `harm` that each did alone; worst first."""
    tried: list[tuple[str, float]] = field(default_factory=list)
    """Every block that was tried alone, worst first; empty where everything could be quantised."""
    by_rule: list[str] = field(default_factory=list)
    """Convolutions that are never quantised."""
    before: ParityReport | None = None
    """Everything quantised, against fp32."""
    after: ParityReport | None = None

    def text(self) -> str:
        """For people."""
        lines = [
            f"int8: {self.quantised} of {self.convolutions} convolutions, {self.method} ranges from"
            f" {self.calibration_frames} frames; {len(self.by_rule)} left in fp32 by rule (gates on pooled values)"
        ]
        for name, harm in self.blocks_in_fp32:
            lines.append(f"  left in fp32: {name} (alone in int8 it does {100 * harm:.1f} % of the harm allowed)")
        for what, report in (("everything in int8", self.before), ("with these in fp32", self.after)):
            if report and self.blocks_in_fp32:
                lines.append(f"  {what}: {_worst_text(report, TOLERANCES['int8'])}")
        return "\n".join(lines)


def worst(report: ParityReport, tolerance: Tolerance) -> float:
    """Largest share of any allowance that is used; above 1 is too much.

    Losses count with their standard errors, so that no variant is chosen because chance was kind to it: the closer
    one is to fp32, the smaller both become.
    """
    return max((check.used for check in checks(report, tolerance, cautious=True)), default=0.0)


def harm(report: ParityReport) -> float:
    """How far a variant is from fp32: mean differences of scores, boxes and road as shares of their limits, averaged.

    Smooth where AP jumps: two variants can be told apart on a handful of frames.
    """
    tolerance = TOLERANCES["int8"]
    shares = (
        report.score.mean / tolerance.mean_score,
        report.overlap.mean / OVERLAP_LIMIT,
        report.road_levels.mean / tolerance.mean_road_levels,
    )
    return float(np.mean(shares))


def _worst_text(report: ParityReport, tolerance: Tolerance) -> str:
    check = max(checks(report, tolerance, cautious=True), key=lambda check: check.used)
    return f"{100 * check.used:.0f} % of the tolerance used ({check.what}: {check.found:.3g}{check.unit})"


def quantize(
    model: onnx.ModelProto,
    calibration: Iterable[TestFrame],
    judged: list[TestFrame],
    config: QuantizeConfig | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[onnx.ModelProto, QuantizeReport]:
    """An int8 version of an exported fp32 model.

    Args:
        model: as `export_onnx` returns it.
        calibration: frames whose activations give the ranges.
        judged: other frames, on which the loss is measured.
        config: method, budget.
        progress: told what is going on.

    Returns:
        The int8 model, whose description says so, and the report.

    Raises:
        UserError: no calibration frames, or the budget cannot be kept.
    """
    config = config or QuantizeConfig()
    spec = read_spec(model)
    if spec.precision != "fp32":
        raise UserError(
            f"a model of precision {spec.precision}", "an fp32 model to quantise", "export with fp32 first"
        )
    tolerance = replace(TOLERANCES["int8"], points=config.budget)
    images = [letterbox(frame.image_bgr, spec.size_hw)[0] for frame in calibration]
    if not images:
        raise UserError("no calibration frames", "some images of the road", "--calibration FOLDER")
    progress(f"calibrating on {len(images)} frames ({config.method}) …")
    rule = _gates(model.graph)
    chosen = [
        node.name
        for node, between in zip(model.graph.node, between_convolutions(model.graph), strict=True)
        if between and node.op_type in (*OPERATORS, ABSORBED) and node.name not in rule
    ]
    full = _quantize_static(model, images, chosen, config)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    report = QuantizeReport(config.method, len(images), convolutions=len(convolutions))
    report.by_rule = [name for name in convolutions if name in rule]

    with tempfile.TemporaryDirectory() as folder:

        def candidate(variant: onnx.ModelProto, name: str, precision: str) -> Candidate:
            path = Path(folder) / "variant.onnx"
            write_spec(variant, replace(spec, precision=precision))
            write_model(variant, path)
            return replace(open_candidate(path), name=name)

        reference = _remembering(candidate(_copy(model), "fp32", "fp32"))

        def loss(in_fp32: set[str], frames: list[TestFrame]) -> ParityReport:
            variant = in_float(full, model, {name for name in chosen if block_of(name) in in_fp32})
            return compare(reference, candidate(variant, "int8", "int8"), frames, "int8")

        report.before = report.after = loss(set(), judged)
        progress(f"everything in int8: {_worst_text(report.before, tolerance)}")
        left: list[tuple[str, float]] = []
        if worst(report.before, tolerance) > 1:
            blocks = sorted({block_of(name) for name in chosen})
            few = judged[:: max(1, len(judged) // config.sweep_frames)][: config.sweep_frames]
            alone = []
            for i, block in enumerate(blocks):
                alone.append((block, harm(loss(set(blocks) - {block}, few))))
                progress(f"block {i + 1} of {len(blocks)}: {block}, {100 * alone[-1][1]:.1f} % of the harm allowed")
            alone.sort(key=lambda item: -item[1])
            report.tried = alone
            left, report.after = _fewest(alone, lambda names: loss(names, judged), tolerance, progress)
        report.blocks_in_fp32 = left
    names_left = {name for name in chosen if block_of(name) in {block for block, _ in left}}
    result = in_float(full, model, names_left)
    report.quantised = sum(name in set(chosen) - names_left for name in convolutions)
    write_spec(result, replace(spec, precision="int8"))
    onnx.checker.check_model(result, full_check=True)
    return result, report


def _fewest(
    alone: list[tuple[str, float]],
    loss: Callable[[set[str]], ParityReport],
    tolerance: Tolerance,
    progress: Callable[[str], None],
) -> tuple[list[tuple[str, float]], ParityReport]:
    """The shortest head of `alone` that, left in fp32, keeps the rest within the tolerance; by bisection."""

    reports: dict[int, ParityReport] = {}

    def fails(count: int) -> bool:
        reports[count] = loss({name for name, _ in alone[:count]})
        progress(f"{count} of {len(alone)} blocks in fp32: {_worst_text(reports[count], tolerance)}")
        return worst(reports[count], tolerance) > 1

    low, high = 0, 1  # `low` is known to fail
    while high < len(alone) and fails(high):
        low, high = high, min(2 * high, len(alone))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fails(middle) else (low, middle)
    if high >= len(alone):  # nothing would be left in int8
        raise UserError(
            "int8 costs more than the budget whatever is left in fp32",
            f"a loss of at most {tolerance.points:g} points",
            "--precision fp16, or --budget with more points",
        )
    return alone[:high], reports[high]


def block_of(node_name: str) -> str:
    """`/backbone/stages.1/stages.1.0/block/…/Conv` → `backbone/stages.1.0`; a head shared by levels is one block."""
    parts = [part for part in node_name.strip("/").split("/") if part]
    name, _, number = parts[0].rpartition("_")
    first = name if number.isdecimal() else parts[0]
    inner = [part for part in parts[1:-1] if "." in part]
    if first == "backbone" and len(inner) > 1:
        return f"{first}/{inner[1]}"
    shared = not inner or inner[0].startswith(f"{first}.")  # a part of a head that runs once on each level
    return first if shared else f"{first}/{inner[0]}"


def _gates(graph: onnx.GraphProto) -> set[str]:
    """Names of nodes that work on pooled values: from a GlobalAveragePool on, until the gate meets the map."""
    pooled: set[str] = set()
    names = set()
    for node in graph.node:
        if node.op_type == "GlobalAveragePool":
            pooled.update(node.output)
        elif node.op_type in ("Conv", "Relu", "HardSigmoid", "Sigmoid", "HardSwish") and node.input[0] in pooled:
            pooled.update(node.output)
            names.add(node.name)
    return names


class _Reader:
    """What ONNX Runtime's calibration asks for images."""

    def __init__(self, name: str, images: list[U8]) -> None:
        self.name, self.images = name, images
        self.set_range(0, len(images))

    def __len__(self) -> int:
        return len(self.images)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next: Iterator[U8] = iter(self.images[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._next, None)
        return None if image is None else {self.name: image[None]}


def _quantize_static(
    model: onnx.ModelProto, images: list[U8], chosen: list[str], config: QuantizeConfig
) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    activation = QuantType.QInt8 if config.symmetric else QuantType.QUInt8
    extra: dict[str, Any] = {
        "ActivationSymmetric": config.symmetric,
        "WeightSymmetric": True,
        "CalibStridedMinMax": 1,  # one frame at a time: all activations of all frames at once fill the memory
        "CalibPercentile": config.percentile,
        "QuantizeBias": not config.symmetric,  # TensorRT takes biases in float
    }
    if config.symmetric:  # TensorRT fuses a convolution with its ReLU only if no Q/DQ stands between them
        extra["OpTypesToExcludeOutputQuantization"] = [*OPERATORS, ABSORBED]
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # its progress goes to stdout, where results belong
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            out = Path(folder) / "int8.onnx"
            quantize_static(
                _copy(model),
                out,
                _Reader(model.graph.input[0].name, images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*OPERATORS, ABSORBED],
                per_channel=True,
                activation_type=activation,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=chosen,
                calibrate_method=methods[config.method],
                extra_options=extra,
            )
            return onnx.load(out)
    finally:
        logging.disable(level)


def in_float(full: onnx.ModelProto, original: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """A copy of the quantised model in which the named nodes read and write fp32 again.

    Args:
        full: the model with Q/DQ everywhere.
        original: the fp32 model that it was made from.
        names: nodes to free.
    """
    model = _copy(full)
    graph = model.graph
    _bring_back_absorbed(graph, original.graph, names)
    made_by = {output: node for node in graph.node for output in node.output}
    values = {tensor.name: tensor for tensor in original.graph.initializer}
    present = {tensor.name for tensor in graph.initializer}
    inputs = {node.name: list(node.input) for node in original.graph.node}

    def before_quantising(name: str) -> str:
        """The fp32 tensor behind a Q/DQ pair; empty where `name` does not come from one."""
        dequantizer = made_by.get(name)
        if dequantizer is None or dequantizer.op_type != "DequantizeLinear":
            return ""
        quantizer = made_by.get(dequantizer.input[0])
        return quantizer.input[0] if quantizer is not None and quantizer.op_type == "QuantizeLinear" else ""

    free: set[str] = set()
    for node in graph.node:  # sorted: producers come first
        sources = [before_quantising(name) for name in node.input]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if node.name in names or node.op_type not in (*OPERATORS, ABSORBED):
            free.add(node.name)
        elif node.op_type == ABSORBED:
            maker = made_by.get(sources[0] or node.input[0])
            if maker is not None and maker.name in free:
                free.add(node.name)
        for k, name in enumerate(node.input):
            maker = made_by.get(sources[k])
            # between two nodes that both compute in fp32 a Q/DQ pair only adds noise; behind one in int8 it stays,
            # for it may do the work of a ReLU
            if sources[k] and node.name in free and (maker is None or maker.name in free):
                node.input[k] = sources[k]
            elif not sources[k] and node.name in names and _is_dequantizer(made_by.get(name)):
                wanted = inputs[node.name][k]  # a weight or a bias: the numbers as they were
                node.input[k] = f"{wanted}_fp32"  # the plain name may be the output of its DequantizeLinear
                if node.input[k] not in present:
                    restored = graph.initializer.add()
                    restored.CopyFrom(values[wanted])
                    restored.name = node.input[k]
                    present.add(restored.name)
    remove_unused(graph)
    return model


def _is_dequantizer(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _bring_back_absorbed(graph: onnx.GraphProto, original: onnx.GraphProto, names: set[str]) -> None:
    """Put the ReLU behind each named node that quantising had let do the ReLU's work."""
    outputs = {node.name: node.output[0] for node in original.node}
    present = {node.name for node in graph.node}
    absorbed = {
        node.input[0]: node for node in original.node if node.op_type == ABSORBED and node.name not in present
    }
    nodes = []
    for node in graph.node:
        nodes.append(node)
        plain = outputs.get(node.name, "")
        if node.name in names and plain in absorbed and node.output[0] != plain:
            node.output[0] = plain
            nodes.append(absorbed[plain])
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _remembering(candidate: Candidate) -> Candidate:
    """The same, but each image is run once: a sweep asks for the same reference again and again."""
    known: dict[bytes, tuple[Detections, RoadMask | None]] = {}

    def detect(image_bgr: U8) -> tuple[Detections, RoadMask | None]:
        key = image_bgr.tobytes()[::997]
        if key not in known:
            known[key] = candidate.detect(image_bgr)
        return known[key]

    return replace(candidate, detect=detect)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())
