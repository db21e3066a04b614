"""What stands between a GPU and ONNX Runtime on a machine whose CUDA came with pip, without a GPU."""

from __future__ import annotations

import os
import types
from pathlib import Path
from typing import Any

import pytest

from perception.backends import onnxruntime as backend_module
from perception.backends.onnxruntime import OnnxRuntimeBackend, load_gpu_libraries
from perception.cli import doctor
from perception.errors import UserError

WITHOUT_CUDNN = backend_module._without_cudnn
MISSING = "Failed to load libcurand.so.10: no such file"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What ONNX Runtime was asked for, on a machine with a driver and without libcurand."""
    found: list[Any] = []

    def preload() -> None:
        found.append("libraries")
        print(f"{MISSING}\nPlease follow https://onnxruntime.ai to install CUDA.")

    def session(path: str, options: Any, providers: list[Any], **more: Any) -> Any:
        names = [name for name, _ in providers]
        found.append((names[0], more))
        if Path(path).read_bytes() == b"broken":
            raise RuntimeError("no ONNX")
        if names[0] == "TensorrtExecutionProvider":
            raise RuntimeError("Please install TensorRT")
        return types.SimpleNamespace(
            get_providers=lambda: ["CPUExecutionProvider"],  # what is left where CUDA's library does not load
            get_inputs=list,
            get_outputs=list,
            get_modelmeta=lambda: types.SimpleNamespace(custom_metadata_map={}),
        )

    monkeypatch.setattr(backend_module.ort, "preload_dlls", preload)
    monkeypatch.setattr(backend_module.ort, "InferenceSession", session)
    monkeypatch.setattr(
        backend_module.ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(backend_module, "_cuda_present", lambda: True)
    monkeypatch.setattr(backend_module, "_without_cudnn", list)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # put back afterwards, whoever sets it
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"read by nobody here")
    return path


def test_cudas_libraries_are_loaded_before_a_session_that_needs_them(file: Path, calls: list[Any]) -> None:
    """pip puts them where the system's loader does not look: the provider then fails, and the CPU takes over."""
    OnnxRuntimeBackend(file, "auto")
    assert calls[0] == "libraries" and calls[1][0] == "CUDAExecutionProvider"
    calls.clear()
    OnnxRuntimeBackend(file, "cpu")
    assert [call[0] for call in calls] == ["CPUExecutionProvider"]


def test_what_is_missing_is_told_and_not_to_stdout(
    file: Path, calls: list[Any], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"fell back to CPUExecutionProvider .*libcurand"):
        OnnxRuntimeBackend(file, "cuda")
    assert OnnxRuntimeBackend(file, "auto").provider == "CPUExecutionProvider"
    assert "libcurand" in caplog.text and "perception doctor" in caplog.text
    assert load_gpu_libraries("cuda") == MISSING
    assert capsys.readouterr().out == ""


def test_a_gpu_without_cudnn_is_refused_before_the_first_frame(
    file: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ONNX Runtime opens a session without it, and fails at the first convolution."""

    def load(name: str) -> None:
        raise OSError(f"{name}: no such file")

    monkeypatch.setattr(backend_module.ctypes, "CDLL", load)
    (missing,) = WITHOUT_CUDNN()
    assert "cudnn" in missing
    monkeypatch.setattr(backend_module, "load_gpu_libraries", lambda device: missing)
    with pytest.raises(UserError, match=r"--device cuda: Failed to load cuDNN"):
        OnnxRuntimeBackend(file, "cuda")
    assert OnnxRuntimeBackend(file, "auto").provider == "CPUExecutionProvider"
    assert [call[0] for call in calls] == ["CPUExecutionProvider"] and "so the CPU is" in caplog.text


def test_onnx_runtimes_own_fallback_is_off(file: Path, calls: list[Any]) -> None:
    """It would replace a device that was asked for, even in the middle of a run, and say so on stdout alone."""
    for device in ("auto", "cpu"):
        OnnxRuntimeBackend(file, device)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Please install TensorRT"):
        OnnxRuntimeBackend(file, "tensorrt")
    assert [call[1] for call in calls if call != "libraries"] == [{"enable_fallback": 0}] * 3


def test_tensorrts_provider_keeps_fp32_unless_the_user_says_otherwise(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CUDA provider has an option for it; this one listens to the environment alone."""
    for before, after in ((None, "0"), ("1", "1")):
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", before or "")
        if before is None:
            monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
        load_gpu_libraries("cuda")
        assert os.environ.get("NVIDIA_TF32_OVERRIDE") == before
        load_gpu_libraries("tensorrt")
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == after


def test_a_broken_file_is_a_sentence_on_a_machine_with_a_gpu_too(file: Path, calls: list[Any]) -> None:
    file.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"cannot load it on 'cpu' \(no ONNX\)"):
        OnnxRuntimeBackend(file, "auto")


def test_the_doctor_tries_with_the_libraries_and_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backend_module, "load_gpu_libraries", lambda device: MISSING)
    monkeypatch.setattr("onnxruntime.InferenceSession", _on_the_cpu)
    finding = doctor._try_provider("CUDAExecutionProvider", "CUDA")
    assert "libcurand" in finding.text and "onnxruntime-gpu[cuda,cudnn]" in finding.mend
    assert capsys.readouterr().out == ""


def _on_the_cpu(*args: Any, **more: Any) -> Any:
    return types.SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"], run=lambda names, inputs: [])


def test_the_doctor_names_the_tensorrt_that_the_provider_is_linked_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "capi").mkdir()
    monkeypatch.setattr("onnxruntime.__file__", str(tmp_path / "__init__.py"))
    assert doctor._linked_tensorrt() == ""
    library = tmp_path / "capi" / "libonnxruntime_providers_tensorrt.so"
    library.write_bytes(b"\x7fELF\0libcudart.so.13\0libnvinfer.so.10\0")
    assert doctor._linked_tensorrt() == "==10.*"
