from pathlib import Path

import pytest

from perception.errors import UserError
from perception.model import default_model, shipped_or


def test_the_nearest_aspect_ratio_is_taken(tmp_path: Path) -> None:
    for name in ("nano-384x1248.onnx", "nano-512x928.onnx", "notes.txt"):
        (tmp_path / name).touch()
    assert default_model((375, 1242), tmp_path).name == "nano-384x1248.onnx"
    assert default_model((720, 1280), tmp_path).name == "nano-512x928.onnx"
    assert default_model((480, 640), tmp_path).name == "nano-512x928.onnx"
    assert default_model(None, tmp_path).name == "nano-384x1248.onnx"


def test_of_one_aspect_ratio_the_largest_is_taken(tmp_path: Path) -> None:
    for name in ("nano-384x1248.onnx", "nano-480x1568.onnx", "nano-512x928.onnx"):
        (tmp_path / name).touch()
    for size_hw in ((375, 1242), (370, 1224), (375, 1200), (320, 1280)):
        assert default_model(size_hw, tmp_path).name == "nano-480x1568.onnx"
    assert default_model((720, 1280), tmp_path).name == "nano-512x928.onnx"


def test_a_shipped_file_goes_by_its_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped, elsewhere = tmp_path / "weights", tmp_path / "elsewhere"
    shipped.mkdir()
    elsewhere.mkdir()
    (shipped / "nano-384x1248.onnx").touch()
    monkeypatch.setattr("perception.model.WEIGHTS_FOLDER", shipped)
    monkeypatch.chdir(elsewhere)
    assert shipped_or(Path("nano-384x1248.onnx")) == shipped / "nano-384x1248.onnx"
    assert shipped_or(Path("other.onnx")) == Path("other.onnx")
    assert shipped_or(Path("runs/nano-384x1248.onnx")) == Path("runs/nano-384x1248.onnx")
    Path("nano-384x1248.onnx").touch()
    assert shipped_or(Path("nano-384x1248.onnx")) == Path("nano-384x1248.onnx"), "one's own file comes first"


def test_without_weights_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model"):
        default_model((375, 1242), tmp_path)


def test_a_shipped_network_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "weights"
    shipped.mkdir()
    for name in (
        "nano-384x1248.onnx",
        "nano-640x1152.onnx",
        "small-384x1248.onnx",
        "small-640x1152.onnx",
        "small.pt",
    ):
        (shipped / name).touch()
    monkeypatch.setattr("perception.model.WEIGHTS_FOLDER", shipped)
    monkeypatch.chdir(tmp_path)
    assert default_model((720, 1280)).name == "nano-640x1152.onnx", "nano is the default"
    assert shipped_or(Path("small"), (720, 1280)).name == "small-640x1152.onnx"
    assert shipped_or(Path("small")).name == "small-384x1248.onnx"
    assert shipped_or(Path("medium")) == Path("medium")
    (tmp_path / "small").mkdir()
    assert shipped_or(Path("small")) == Path("small"), "one's own file comes first"
