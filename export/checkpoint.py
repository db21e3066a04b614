"""Export a checkpoint file as a model file with its metadata."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from export.fp16 import to_fp16
from export.frames import Frames
from export.graph import load_onnx, read_spec
from export.int8 import QuantizeConfig, QuantizeReport, quantize
from export.onnx import OnnxConfig, export_onnx, write_model
from perception.errors import UserError
from perception.model import ModelSpec, shipped_or
from training.checkpoint import load_network
from training.models.network import check_size
from training.operating_point import of_exported_head, proposed


def export_checkpoint(
    checkpoint: Path,
    out: Path | None,
    size_hw: tuple[int, int],
    batch: int | None,
    licence: str,
    one_to_one: bool | None = None,
    confirm_thresholds: tuple[float, ...] = (),
) -> Path:
    """Export the averaged weights of a checkpoint, with the thresholds measured on its validation frames.

    Args:
        checkpoint: file of `perception train`.
        out: file to write; None: `<preset>-<height>x<width>.onnx` beside the checkpoint.
        size_hw: height and width of the input.
        batch: fixed batch size; None: dynamic.
        licence: licence of the weights.
        one_to_one: head whose boxes the graph outputs, see `OnnxConfig`.
        confirm_thresholds: see `ModelSpec`; empty: the thresholds that the run measured, if any.

    Returns:
        The path of the file.
    """
    check_size(size_hw)
    network, state = load_network(checkpoint)
    scores = of_exported_head(state.get("scores", {}), one_to_one)
    try:
        description = json.loads(state["description"])
        preset, step, commit = str(description["config"]["preset"]), state["step"], str(description["commit"])[:12]
        data_hash = str(description["data_hash"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise UserError(
            f"{checkpoint}: does not describe its run", "best.pt or last.pt of `perception train`"
        ) from None
    if not preset.replace("-", "").replace("_", "").isalnum():  # it becomes part of a path
        raise UserError(f"{checkpoint}: the preset is named {preset[:80]!r}", "letters, digits, - and _")
    name = f"{preset}-{size_hw[0]}x{size_hw[1]}"
    path = out or checkpoint.parent / f"{name}.onnx"
    spec = ModelSpec(
        class_names=network.config.class_names,
        size_hw=size_hw,
        score_threshold=round(scores.get("score_threshold", ModelSpec.score_threshold), 3),
        track_threshold=ModelSpec.track_threshold,
        confirm_thresholds=confirm_thresholds or proposed(scores, network.config.class_names),
        road_threshold=int(scores.get("road_threshold", ModelSpec.road_threshold)),
        name=name,
        licence=licence,
        training_run=f"{checkpoint.parent.name}, step {step}, commit {commit}",
        data_hash=data_hash,
        classes=network.config.classes,
    )
    export_onnx(network, spec, path, OnnxConfig(size_hw, batch, one_to_one))
    return path


Precision = Literal["fp32", "fp16", "int8"]


def export_precision(
    checkpoint: Path,
    out: Path | None,
    size_hw: tuple[int, int],
    batch: int | None,
    licence: str,
    precision: Precision,
    calibration: Frames | None = None,
    judged: Frames | None = None,
    config: QuantizeConfig | None = None,
    say: Callable[[str], None] = lambda text: None,
    one_to_one: bool | None = None,
    confirm_thresholds: tuple[float, ...] = (),
) -> tuple[Path, QuantizeReport | None]:
    """Export a checkpoint at any precision.

    Args:
        checkpoint: see `export_checkpoint`; or an fp32 ONNX file, whose size, batch and licence are kept.
        out, size_hw, batch, licence: see `export_checkpoint`.
        precision: fp32, fp16 or int8.
        calibration: int8: calibration frames.
        judged: int8: other frames, on which the loss is measured.
        config: int8: method and budget.
        say: receives progress messages.
        one_to_one, confirm_thresholds: see `export_checkpoint`.

    Returns:
        The path of the file and the report of int8. The default name for fp16 and int8 is
        `<preset>-<height>x<width>-<precision>.onnx`. An ONNX file that stays fp32 is returned unchanged.

    Raises:
        UserError: the ONNX file is not fp32, the size is not supported, or int8 exceeds its budget.
    """
    is_onnx = checkpoint.suffix == ".onnx"
    if precision == "fp32":
        return (
            shipped_or(checkpoint)
            if is_onnx
            else export_checkpoint(checkpoint, out, size_hw, batch, licence, one_to_one, confirm_thresholds)
        ), None
    report = None
    with tempfile.TemporaryDirectory() as folder:
        plain = checkpoint
        if not is_onnx:
            plain = export_checkpoint(
                checkpoint, Path(folder) / "fp32.onnx", size_hw, batch, licence, one_to_one, confirm_thresholds
            )
        model = load_onnx(plain)
    if (found := read_spec(model, checkpoint).precision) != "fp32":
        raise UserError(
            f"{checkpoint}: already {found}", "a checkpoint or an fp32 file", "export that with fp32 first"
        )
    if precision == "fp16":
        model = to_fp16(model)
    else:
        model, report = quantize(model, calibration or (), list(judged or ()), config, say)
    spec = read_spec(model, checkpoint)
    path = out or checkpoint.parent / f"{spec.name}-{precision}.onnx"
    write_model(model, path)
    return path, report
