from pathlib import Path

import pytest

from perception.errors import UserError
from perception.model import default_model


def test_the_nearest_aspect_ratio_is_taken(tmp_path: Path) -> None:
    for name in ("nano-384x1248.onnx", "nano-512x928.onnx", "notes.txt"):
        (tmp_path / name).touch()
    assert default_model((375, 1242), tmp_path).name == "nano-384x1248.onnx"
    assert default_model((720, 1280), tmp_path).name == "nano-512x928.onnx"
    assert default_model((480, 640), tmp_path).name == "nano-512x928.onnx"
    assert default_model(None, tmp_path).name == "nano-384x1248.onnx"


def test_without_weights_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model"):
        default_model((375, 1242), tmp_path)
