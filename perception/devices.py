"""What can run a network, by the names that `--device` and `--precision` take. Light: `--help` reads it."""

from __future__ import annotations

from typing import Literal

Device = Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "openvino-gpu", "openvino-npu"]
"""cpu, cuda and tensorrt are ONNX Runtime's providers; openvino is OpenVINO on the CPU."""
Precision = Literal["fp32", "bf16", "fp16"]
"""Arithmetic of OpenVINO. Other engines compute in the precision of the model file."""


def is_openvino(device: str) -> bool:
    """Whether OpenVINO runs this device."""
    return device.startswith("openvino")


def on_cpu(device: str) -> bool:
    """Whether this device is the processor."""
    return device in ("cpu", "openvino")
