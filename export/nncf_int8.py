"""int8 ranges by NNCF, for OpenVINO: a range a channel before depthwise layers, and corrected biases."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
from collections.abc import Collection, Sequence
from typing import Any

import onnx

from perception.arrays import U8
from perception.errors import MissingDependencyError


def require_nncf() -> None:
    """Check that NNCF and OpenVINO are installed, without the seconds that their import takes.

    Raises:
        MissingDependencyError: one of them is not.
    """
    for package in ("nncf", "openvino"):
        if importlib.util.find_spec(package) is None:
            needed_for = "--precision int8 for OpenVINO (--runtime onnxruntime needs neither)"
            raise MissingDependencyError(package, "int8", needed_for)


def import_nncf() -> Any:
    """Return the module `nncf`, which is told to send no usage statistics.

    Raises:
        MissingDependencyError: it or OpenVINO is not installed, or does not load.
    """
    require_nncf()
    os.environ.setdefault("NNCF_CI", "1")  # its one switch against telemetry
    try:
        return importlib.import_module("nncf")
    except (ImportError, OSError):
        raise MissingDependencyError("nncf", "int8", "--precision int8 for OpenVINO") from None


def quantize_with_nncf(model: onnx.ModelProto, images: Sequence[U8], chosen: Collection[str]) -> onnx.ModelProto:
    """Return a copy of an fp32 model with Q/DQ pairs at the chosen nodes.

    Args:
        model: model that `export_onnx` returned.
        images: calibration images at the network's size.
        chosen: names of the nodes to quantise.
    """
    nncf = import_nncf()
    name = model.graph.input[0].name
    others = [node.name for node in model.graph.node if node.name and node.name not in chosen]
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars; stdout is for results
            quantised: onnx.ModelProto = nncf.quantize(
                onnx.ModelProto.FromString(model.SerializeToString()),
                nncf.Dataset([{name: image[None]} for image in images]),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(images),
                ignored_scope=nncf.IgnoredScope(names=others, validate=False),
            )
    finally:
        logging.disable(level)
    return quantised
