"""OpenVINO's devices and precisions are used or refused, never replaced; which engine `auto` takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perception.backends
from perception.backends import load_model, openvino_suits
from perception.devices import Device, Precision
from perception.errors import MissingDependencyError, UserError
from perception.files import keep_newest, user_cache
from perception.model import default_model

SHIPPED = default_model(None).with_name("nano-384x1248.onnx")


@pytest.fixture
def openvino() -> Any:
    """The backend's module, where OpenVINO is installed."""
    pytest.importorskip("openvino")
    from perception.backends import openvino as module

    return module


def test_a_batch_is_as_good_as_its_images(openvino: Any) -> None:
    backend = openvino.OpenVinoBackend(SHIPPED, "openvino", 1)
    images = np.random.default_rng(1).integers(0, 256, (3, 384, 1248, 3), np.uint8)
    together = backend.run({"images": images})
    for i in range(3):
        alone = backend.run({"images": images[i : i + 1]})
        assert all(np.array_equal(alone[name][0], together[name][i]) for name in alone)
    images.setflags(write=False)
    assert np.array_equal(backend.run({"images": images})["scores"], together["scores"]), "the input may be read-only"


def test_what_runs_is_named(openvino: Any) -> None:
    assert load_model(SHIPPED, "openvino", 1).backend.provider == "OpenVINO CPU fp32"


@pytest.mark.parametrize(
    ("device", "precision", "found"),
    [
        ("openvino-gpu", "fp32", "OpenVINO finds no GPU here, only CPU"),
        ("openvino-npu", "fp16", "OpenVINO finds no NPU here, only CPU"),
        ("openvino", "bf16", "--precision bf16 on OpenVINO's CPU, which computes fp32"),
        ("auto", "fp16", "--precision fp16 on OpenVINO's CPU, which computes fp32"),
    ],
)
def test_nothing_is_replaced_in_silence(
    openvino: Any, monkeypatch: pytest.MonkeyPatch, device: Device, precision: Precision, found: str
) -> None:
    """On a processor with AVX2, where OpenVINO itself would compute bf16 as fp32 without a word."""
    monkeypatch.setattr(openvino, "capabilities", lambda name="CPU": ("FP32", "INT8") if name == "CPU" else ())
    with pytest.raises(UserError, match=f"^{found}"):
        load_model(SHIPPED, device, 1, precision=precision)


def test_a_precision_that_the_device_claims_and_does_not_use_is_refused(
    openvino: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = openvino.capabilities("CPU")
    if "BF16" in real:
        pytest.skip("this processor computes bf16")
    monkeypatch.setattr(openvino, "capabilities", lambda name="CPU": (*real, "BF16"))
    with pytest.raises(UserError, match="bf16: OpenVINO would compute in f32"):
        load_model(SHIPPED, "openvino", 1, precision="bf16")


@pytest.mark.parametrize(
    ("able", "driver", "taken"),
    [
        (("FP32", "BF16"), False, "OpenVINO CPU fp32"),
        (("FP32", "INT8"), False, "CPUExecutionProvider"),
    ],
)
def test_auto_takes_openvino_on_processors_that_it_serves_well(
    openvino: Any, monkeypatch: pytest.MonkeyPatch, able: tuple[str, ...], driver: bool, taken: str
) -> None:
    from perception.backends import onnxruntime

    monkeypatch.setattr(openvino, "capabilities", lambda name="CPU": able)
    monkeypatch.setattr(perception.backends, "_may_have_avx512", lambda: True)
    monkeypatch.setattr(onnxruntime, "gpu_may_work", lambda: driver)
    assert load_model(SHIPPED, "auto", 1).backend.provider == taken


@pytest.mark.parametrize(
    ("text", "asked"),
    [("flags\t: fpu avx2 fma\n", False), ("flags\t: fpu avx512f amx_bf16\n", True), ("Features\t: asimd\n", True)],
)
def test_openvino_is_not_imported_for_a_processor_without_avx512(text: str, asked: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}")
    assert perception.backends._may_have_avx512(tmp_path / "cpuinfo") is asked
    assert perception.backends._may_have_avx512(tmp_path / "none")


def test_auto_falls_back_with_a_warning(
    openvino: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise UserError("OpenVINO cannot load it")

    monkeypatch.setattr(perception.backends, "openvino_suits", lambda: True)
    monkeypatch.setattr(perception.backends, "_load_openvino", broken)
    assert load_model(SHIPPED, "auto", 1).backend.provider == "CPUExecutionProvider"
    assert "OpenVINO cannot load it, so ONNX Runtime runs it" in caplog.text


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"perception-pipeline\[openvino\]"):
        load_model(SHIPPED, "openvino", 1)


def test_openvino_that_is_not_installed_suits_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perception.backends.importlib.util, "find_spec", lambda name: None)
    assert not openvino_suits()


def test_a_compiled_model_is_kept_and_a_broken_one_is_made_again(
    openvino: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = np.full((1, 384, 1248, 3), 99, np.uint8)
    first = load_model(SHIPPED, "openvino", 1).backend.run({"images": images})
    (blob,) = (tmp_path / "perception/openvino").glob("*.blob")
    model = load_model(SHIPPED, "openvino", 1)
    assert model.backend._compiled.get_property("LOADED_FROM_CACHE")  # type: ignore[attr-defined]
    blob.write_bytes(blob.read_bytes()[:1000])
    again = load_model(SHIPPED, "openvino", 1).backend.run({"images": images})
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_cache_that_cannot_be_made_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert user_cache("openvino") is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = user_cache("openvino")
    assert folder is not None and folder.stat().st_mode & 0o077 == 0


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for age, name in enumerate(("new.blob", "older.blob", "oldest.blob", "other.txt")):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    keep_newest(tmp_path, "*.blob", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.blob", "older.blob", "other.txt"]
