"""int8 by static Q/DQ: ranges from calibration frames, per-channel weights, sensitive blocks in fp32.

NNCF sets the ranges of files for OpenVINO (`export.nncf_int8`), ONNX Runtime those of all others.

Only nodes between convolutions are quantised (see `export.graph`). The squeeze-and-excitation gates stay in fp32,
because they have one value per channel, where int8 saves nothing. If the loss exceeds the budget, each block is
quantised alone to rank the blocks by sensitivity, and the fewest most sensitive ones return to fp32.

The ranking uses the differences of scores, boxes and road on a few frames, which vary smoothly. AP does not, so the
budget is checked on many frames.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.config import QuantizeConfig
from export.frames import TestFrame
from export.graph import between_convolutions, read_spec, remove_unused, write_spec
from export.nncf_int8 import import_nncf, quantize_with_nncf
from export.onnx import write_model
from export.parity import TOLERANCES, Candidate, ParityReport, Tolerance, checks, compare, open_candidate
from perception.arrays import U8
from perception.cameras.letterbox import letterbox
from perception.devices import Device
from perception.errors import UserError
from perception.types import Detections, RoadMask

OPERATORS = ("Conv", "Add", "Mul", "Resize")
"""Operators with an efficient int8 kernel in ONNX Runtime and TensorRT."""
OVERLAP_LIMIT = 0.1
"""Mean 1 − IoU that weighs as much as the tolerance's mean difference of scores or road."""
ABSORBED = "Relu"
"""Operator that quantisation replaces by an unsigned range from zero; `in_float` restores it."""


@dataclass
class QuantizeReport:
    """Result of a quantisation."""

    method: str
    calibration_frames: int
    quantised: int = 0
    """Convolutions in int8."""
    convolutions: int = 0
    blocks_in_fp32: list[tuple[str, float]] = field(default_factory=list)
    """Blocks in fp32 with their sensitivity (`harm`), most sensitive first."""
    tried: list[tuple[str, float]] = field(default_factory=list)
    """All blocks with their sensitivity, most sensitive first; empty where all blocks are quantised."""
    by_rule: list[str] = field(default_factory=list)
    """Convolutions that are never quantised."""
    before: ParityReport | None = None
    """Comparison with fp32 with all blocks quantised."""
    after: ParityReport | None = None

    def text(self) -> str:
        """Return the report as text."""
        lines = [
            f"int8: {self.quantised} of {self.convolutions} convolutions, {self.method} ranges from"
            f" {self.calibration_frames} frames; {len(self.by_rule)} left in fp32 by rule (gates on pooled values)"
        ]
        for name, harm in self.blocks_in_fp32:
            lines.append(f"  left in fp32: {name} (quantised alone: {100 * harm:.1f} % of the tolerance)")
        for what, report in (("all blocks in int8", self.before), ("with these in fp32", self.after)):
            if report and self.blocks_in_fp32:
                lines.append(f"  {what}: {_worst_text(report, TOLERANCES['int8'])}")
        return "\n".join(lines)


def worst(report: ParityReport, tolerance: Tolerance) -> float:
    """Return the largest used fraction of a limit; above 1 the tolerance is exceeded.

    Standard errors are added to losses, so that no variant passes by chance.
    """
    return max((check.used for check in checks(report, tolerance, cautious=True)), default=0.0)


def harm(report: ParityReport) -> float:
    """Return the distance of a variant from fp32: the mean of its differences relative to their limits.

    The differences are those of scores, boxes and road. Unlike AP, they vary smoothly, so a few frames suffice to
    rank variants.
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
    """Quantise an exported fp32 model to int8.

    Args:
        model: model that `export_onnx` returned.
        calibration: frames whose activations define the ranges.
        judged: other frames, on which the loss is measured.
        config: method and budget.
        progress: receives progress messages.

    Returns:
        The int8 model and the report.

    Raises:
        UserError: there are no calibration frames, or the budget cannot be met.
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
    for_openvino = config.runtime == "openvino"
    method = f"NNCF {import_nncf().__version__}" if for_openvino else config.method
    progress(f"calibrating on {len(images)} frames ({method}) …")
    chosen = _quantisable(model.graph)
    if for_openvino:
        full = quantize_with_nncf(model, images, chosen)
    else:
        full = _quantize_static(model, images, chosen, config)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    report = QuantizeReport(method, len(images), convolutions=len(convolutions))
    report.by_rule = [name for name in convolutions if name in _gates(model.graph)]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "variant.onnx"
        loss = _loss_of_variants(model, full, chosen, path, "openvino" if for_openvino else "cpu")
        report.before = report.after = loss(set(), judged)
        progress(f"all blocks in int8: {_worst_text(report.before, tolerance)}")
        if worst(report.before, tolerance) > 1:
            few = judged[:: max(1, len(judged) // config.sweep_frames)][: config.sweep_frames]
            report.tried = _by_sensitivity(
                {block_of(name) for name in chosen}, lambda names: loss(names, few), progress
            )
            report.blocks_in_fp32, report.after = _fewest(
                report.tried, lambda names: loss(names, judged), tolerance, progress
            )
    blocks_left = {block for block, _ in report.blocks_in_fp32}
    names_left = {name for name in chosen if block_of(name) in blocks_left}
    result = in_float(full, model, names_left)
    report.quantised = sum(name in set(chosen) - names_left for name in convolutions)
    write_spec(result, replace(spec, precision="int8"))
    onnx.checker.check_model(result, full_check=True)
    return result, report


def _quantisable(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes that can be quantised: between convolutions and not in a gate."""
    gates = _gates(graph)
    return [
        node.name
        for node, between in zip(graph.node, between_convolutions(graph), strict=True)
        if between and node.op_type in (*OPERATORS, ABSORBED) and node.name not in gates
    ]


def _loss_of_variants(
    model: onnx.ModelProto, full: onnx.ModelProto, chosen: Sequence[str], path: Path, device: Device
) -> Callable[[set[str], list[TestFrame]], ParityReport]:
    """Return a function that compares a variant with the fp32 model.

    Args:
        model: fp32 model.
        full: the model with all of `chosen` in int8.
        chosen: names of the quantised nodes.
        path: file for variants, overwritten by each one.
        device: device that runs both models.

    Returns:
        A function of the blocks in fp32 and the frames.
    """
    spec = read_spec(model)

    def candidate(variant: onnx.ModelProto, precision: str) -> Candidate:
        write_spec(variant, replace(spec, precision=precision))
        write_model(variant, path)
        return replace(open_candidate(path, device=device), name=precision)

    reference = _remembering(candidate(_copy(model), "fp32"))

    def loss(in_fp32: set[str], frames: list[TestFrame]) -> ParityReport:
        variant = in_float(full, model, {name for name in chosen if block_of(name) in in_fp32})
        return compare(reference, candidate(variant, "int8"), frames, "int8")

    return loss


def _by_sensitivity(
    blocks: set[str], loss: Callable[[set[str]], ParityReport], progress: Callable[[str], None]
) -> list[tuple[str, float]]:
    """Return all blocks with their `harm` when quantised alone, most sensitive first."""
    alone = []
    for i, block in enumerate(sorted(blocks)):
        alone.append((block, harm(loss(blocks - {block}))))
        progress(f"block {i + 1} of {len(blocks)}: {block}, {100 * alone[-1][1]:.1f} % of the tolerance")
    return sorted(alone, key=lambda item: -item[1])


def _fewest(
    alone: list[tuple[str, float]],
    loss: Callable[[set[str]], ParityReport],
    tolerance: Tolerance,
    progress: Callable[[str], None],
) -> tuple[list[tuple[str, float]], ParityReport]:
    """Return the shortest prefix of `alone` that must stay in fp32 to meet the tolerance, by bisection."""

    reports: dict[int, ParityReport] = {}

    def fails(count: int) -> bool:
        reports[count] = loss({name for name, _ in alone[:count]})
        progress(f"{count} of {len(alone)} blocks in fp32: {_worst_text(reports[count], tolerance)}")
        return worst(reports[count], tolerance) > 1

    low, high = 0, 1  # invariant: `low` fails
    while high < len(alone) and fails(high):
        low, high = high, min(2 * high, len(alone))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fails(middle) else (low, middle)
    if high >= len(alone):  # no block would be in int8
        raise UserError(
            "int8 exceeds the budget with any blocks in fp32",
            f"a loss of at most {tolerance.points:g} points",
            "--precision fp16, or --budget with more points",
        )
    return alone[:high], reports[high]


def block_of(node_name: str) -> str:
    """Return the block of a node: `/backbone/stages.1/stages.1.0/block/…/Conv` → `backbone/stages.1.0`.

    A head that is shared by all levels is one block.
    """
    parts = [part for part in node_name.strip("/").split("/") if part]
    name, _, number = parts[0].rpartition("_")
    first = name if number.isdecimal() else parts[0]
    inner = [part for part in parts[1:-1] if "." in part]
    if first == "backbone" and len(inner) > 1:
        return f"{first}/{inner[1]}"
    shared = not inner or inner[0].startswith(f"{first}.")  # part of a head that runs on each level
    return first if shared else f"{first}/{inner[0]}"


def _gates(graph: onnx.GraphProto) -> set[str]:
    """Return the nodes of squeeze-and-excitation gates: from a GlobalAveragePool to the product with the map."""
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
    """Data reader for ONNX Runtime's calibration."""

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
        "CalibStridedMinMax": 1,  # one frame at a time, because the activations of all frames exceed the memory
        "CalibPercentile": config.percentile,
        "QuantizeBias": not config.symmetric,  # TensorRT requires float biases
    }
    if config.symmetric:  # TensorRT fuses a convolution with its ReLU only without a Q/DQ pair between them
        extra["OpTypesToExcludeOutputQuantization"] = [*OPERATORS, ABSORBED]
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # ONNX Runtime prints its progress to stdout, which is for results
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
    """Return a copy of a quantised model in which the named nodes compute in fp32.

    Args:
        full: model with Q/DQ at all quantised nodes.
        original: the fp32 model that it was made from.
        names: nodes to return to fp32.
    """
    model = _copy(full)
    graph = model.graph
    _bring_back_absorbed(graph, original.graph, names)
    _bring_back_biases(graph, original.graph, names)
    made_by = {output: node for node in graph.node for output in node.output}
    values = {tensor.name: tensor for tensor in original.graph.initializer}
    present = {tensor.name for tensor in graph.initializer}
    inputs = {node.name: list(node.input) for node in original.graph.node}

    def before_quantising(name: str) -> str:
        """Return the fp32 input of the Q/DQ pair that outputs `name`; empty where there is none."""
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
            # between two fp32 nodes a Q/DQ pair only adds noise; after an int8 node it stays, because it may replace
            # a ReLU
            if sources[k] and node.name in free and (maker is None or maker.name in free):
                node.input[k] = sources[k]
            elif not sources[k] and node.name in names and _is_dequantizer(made_by.get(name)):
                wanted = inputs[node.name][k]  # a weight or a bias: restore the fp32 values
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
    """Restore the ReLU after each named node whose quantised range had replaced it."""
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


def _bring_back_biases(graph: onnx.GraphProto, original: onnx.GraphProto, names: set[str]) -> None:
    """Restore the biases of named nodes, which NNCF corrects under their old names."""
    biases = {node.input[2] for node in original.node if node.name in names and len(node.input) > 2}
    values = {tensor.name: tensor for tensor in original.initializer if tensor.name in biases}
    for tensor in graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(values[tensor.name])


def _remembering(candidate: Candidate) -> Candidate:
    """Return a candidate that caches its outputs, because a sweep needs the same reference many times."""
    known: dict[bytes, tuple[Detections, RoadMask | None]] = {}

    def detect(image_bgr: U8) -> tuple[Detections, RoadMask | None]:
        key = image_bgr.tobytes()[::997]
        if key not in known:
            known[key] = candidate.detect(image_bgr)
        return known[key]

    return replace(candidate, detect=detect)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())
