"""From a checkpoint file to a model file: the description travels along."""

from __future__ import annotations

import json
from pathlib import Path

from export.onnx import OnnxConfig, export_onnx
from perception.model import ModelSpec
from training.checkpoint import load_network


def export_checkpoint(
    checkpoint: Path, out: Path | None, size_hw: tuple[int, int], batch: int | None, licence: str
) -> Path:
    """Export the averaged weights of a checkpoint; thresholds chosen on the held-out frames go with them.

    Returns:
        The file written, `<preset>-<height>x<width>.onnx` beside the checkpoint unless `out` names another.
    """
    network, state = load_network(checkpoint)
    description, scores = json.loads(state["description"]), state.get("scores", {})
    preset = description["config"]["preset"]
    name = f"{preset}-{size_hw[0]}x{size_hw[1]}"
    path = out or checkpoint.parent / f"{name}.onnx"
    spec = ModelSpec(
        class_names=network.config.class_names,
        size_hw=size_hw,
        score_threshold=round(scores.get("score_threshold", ModelSpec.score_threshold), 3),
        track_threshold=ModelSpec.track_threshold,
        road_threshold=int(scores.get("road_threshold", ModelSpec.road_threshold)),
        name=name,
        licence=licence,
        training_run=f"{checkpoint.parent.name}, step {state['step']}, commit {description['commit'][:12]}",
        data_hash=description["data_hash"],
    )
    export_onnx(network, spec, path, OnnxConfig(size_hw, batch))
    return path
