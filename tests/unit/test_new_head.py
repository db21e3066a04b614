"""A new head is one file: options, loss, checkpoint and output come from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("tensorboard")

ROOT = Path(__file__).parents[2]

THIRD_HEAD = '''
"""How bright an image is."""

from dataclasses import dataclass

import torch
from torch import nn

from training.models.head import Head, HeadConfig


@dataclass(frozen=True)
class BrightnessConfig(HeadConfig):
    """Brightness."""

    weight: float = 1.0
    """Weight of the loss."""


Config = BrightnessConfig


class BrightnessHead(Head):
    outputs = ("brightness",)
    tasks = (("brightness",),)

    def __init__(self, channels, config):
        super().__init__()
        self.config, self.out = config, nn.Conv2d(channels, 1, 1)

    def forward(self, features):
        return self.out(features.levels[2]).mean((1, 2, 3))

    def targets(self, batch):
        return batch.images.float().mean((1, 2, 3)) / 255

    def loss(self, raw, targets, size_hw):
        return {"brightness": self.config.weight * (raw - targets).square().mean()}

    def decode(self, raw, size_hw):
        return (raw,)


def build(model, stride4_channels):
    return BrightnessHead(model.channels, model.brightness)
'''

USE_IT = """
import sys
from pathlib import Path

import training.models.heads

training.models.heads.__path__.append(sys.argv[1])
from export.checkpoint import export_checkpoint
from export.int8 import block_of
from perception.backends.onnxruntime import OnnxRuntimeBackend
from training import cli
from training.checkpoint import load_network

run = Path(sys.argv[2])
options = "--data.no-real --data.synthetic-share 1 --data.crop-hw 64 128 --data.validation-hw 64 192"
options += " --model.no-pretrained --model.channels 16 --steps 1 --batch 2 --device cpu --data.workers 0"
options += " --model.task-weights uncertainty --model.heads detection segmentation brightness"
options += " --model.brightness.weight 3"
assert cli.main(["--out", str(run), *options.split()]) == 0
network, state = load_network(run / "best.pt")
assert network.config.brightness.weight == 3 and network.log_variances.shape == (5,)
assert '"brightness"' in (run / "metrics.jsonl").read_text()
path = export_checkpoint(run / "best.pt", run / "n.onnx", (64, 192), None, "test")
backend = OnnxRuntimeBackend(path, "cpu", 1)
assert list(backend.outputs) == ["boxes_xyxy", "scores", "class_ids", "road", "brightness"]
assert block_of("/brightness/out/Conv") == "brightness"
"""


def test_a_third_head_is_one_file(tmp_path: Path) -> None:
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads/brightness.py").write_text(THIRD_HEAD)
    done = subprocess.run(
        [sys.executable, "-c", USE_IT, str(tmp_path / "heads"), str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
