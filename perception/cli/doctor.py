"""`perception doctor`: what works on this machine, and what to type to mend what does not."""

from __future__ import annotations

import base64
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from perception import __version__
from perception.cli.options import CommandOptions, parse_options

Verdict = Literal["ok", "missing", "note"]

_PACKAGES = {
    "numpy": "", "scipy": "", "lap": "", "av": "", "tyro": "", "rich": "",
    "torch": "train", "torchvision": "train", "onnx": "export",
    "openvino": "openvino", "tensorrt": "tensorrt", "starlette": "web", "uvicorn": "web", "rerun-sdk": "rerun",
    "rosbags": "ros", "mcap": "ros", "foxglove-sdk": "ros", "paho-mqtt": "mqtt",
    "imagecorruptions-imaug": "stress", "xaitk-saliency": "explain",
}  # fmt: skip
"""Distribution → the extra that brings it; none for what the runtime cannot do without."""

# one Identity node of one float, opset 13: small enough to ask every provider whether it really loads
_TINY_MODEL = base64.b64decode(
    "CAc6OgoQCgF4EgF5IghJZGVudGl0eRIEdGlueVoPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0="
)


@dataclass(frozen=True)
class DoctorOptions(CommandOptions):
    """Say what is installed, what really loads, and how to mend what does not."""

    speed: bool = True
    """Measure the engines and precisions of this machine, which takes some seconds."""
    json: bool = False
    """Print the findings as JSON."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    verdict: Verdict
    text: str
    mend: str = ""
    """What to type; empty where nothing needs mending."""


def main(argv: list[str]) -> int:
    """Print the findings; 1 where something is missing that the runtime needs."""
    options = parse_options(DoctorOptions, argv, "perception doctor")
    findings = examine(options.speed)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            print(f"{finding.verdict:<8}{finding.topic:<{width}}  {finding.text}")
            if finding.mend:
                print(f"{'':<8}{'':<{width}}  → {finding.mend}")
    return 1 if any(finding.verdict == "missing" for finding in findings) else 0


def examine(speed: bool = True) -> list[Finding]:
    """Everything, in the order of the report; `speed` measures too."""
    checks = [check_python, check_packages, check_opencv, check_providers, check_codecs, check_weights, check_shadows]
    checks += [check_speed] if speed else []
    findings = []
    for check in checks:
        try:
            findings += check()
        except Exception as error:  # the doctor must not fall ill: what cannot be examined is a finding
            findings.append(
                Finding(check.__name__.removeprefix("check_"), "missing", f"{type(error).__name__}: {error}")
            )
    return findings


def check_python() -> list[Finding]:
    """Interpreter and machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        Finding("perception", "ok", f"{__version__}, {Path(__file__).resolve().parents[1]}"),
        Finding("python", "ok", f"{platform.python_version()}, {platform.platform()}, {cores} cores"),
    ]


def check_packages() -> list[Finding]:
    """What is installed, without importing it."""
    findings = []
    for package, extra in _PACKAGES.items():
        try:
            findings.append(Finding(package, "ok", importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            if extra:
                mend = f"pip install 'perception-pipeline[{extra}]'"
                findings.append(Finding(package, "note", f"not installed; only the extra '{extra}' needs it", mend))
            else:
                findings.append(Finding(package, "missing", "not installed", f"pip install {package}"))
    return findings


def check_opencv() -> list[Finding]:
    """OpenCV loads, and which of its packages it is: the usual one needs libGL or libglib, the headless one not."""
    installed = [p for p in ("opencv-python", "opencv-python-headless", "opencv-contrib-python") if _version(p)]
    mend = "pip uninstall -y opencv-python && pip install opencv-python-headless"
    try:
        cv2: Any = importlib.import_module("cv2")
    except ImportError as error:
        return [Finding("opencv", "missing", f"does not load: {error}", mend)]
    named = ", ".join(f"{p} {_version(p)}" for p in installed) or "package unknown"
    if len(installed) > 1:
        return [Finding("opencv", "note", f"{cv2.__version__}: {named} overwrite one another", mend)]
    headless = " (for servers without libGL)" if installed == ["opencv-python-headless"] else ""
    return [Finding("opencv", "ok", f"{cv2.__version__}, {named}{headless}")]


def check_providers() -> list[Finding]:
    """Execution providers that really load, each tried on a model of one node."""
    import onnxruntime as ort

    from perception.backends import openvino_suits
    from perception.backends.onnxruntime import _cuda_present

    package = next((p for p in ("onnxruntime-gpu", "onnxruntime") if _version(p)), "onnxruntime")
    findings = [Finding("onnxruntime", "ok", f"{ort.__version__} ({package})")]
    ort.set_default_logger_severity(4)
    built = ort.get_available_providers()
    driver = _cuda_present()
    for provider in ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"):
        name = provider.removesuffix("ExecutionProvider")
        if provider not in built:
            mend = "" if name == "CPU" else "pip install onnxruntime-gpu   (Linux or Windows on x86-64)"
            verdict: Verdict = "missing" if name == "CPU" else "note"
            findings.append(Finding(name, verdict, "not in this build of ONNX Runtime", mend))
        elif name != "CPU" and not driver:
            mend = "install NVIDIA's driver, if there is a GPU; nvidia-smi must answer"
            findings.append(Finding(name, "note", "built in, but no NVIDIA driver answers", mend))
        else:
            findings.append(_try_provider(provider, name))
    used = next((f.topic for f in reversed(findings) if f.topic in ("CUDA", "CPU") and f.verdict == "ok"), "nothing")
    findings += _openvino_devices()
    if used == "CPU" and openvino_suits():
        used = "OpenVINO's CPU, in fp32"
    findings.append(Finding("--device auto", "ok", f"runs the network on {used}"))
    return findings


def _openvino_devices() -> list[Finding]:
    """What OpenVINO finds; nothing where it is not installed, which the packages already say."""
    if importlib.util.find_spec("openvino") is None:
        return []
    from perception.backends.openvino import NAMES, precisions

    named = {name: precisions(name) for name in NAMES.values()}
    found = "; ".join(f"{name} computes {', '.join(kinds)}" for name, kinds in named.items() if kinds)
    return [Finding("openvino devices", "ok" if found else "note", found or "none")]


def check_speed() -> list[Finding]:
    """What another engine or precision would gain here."""
    from perception.cli.doctor_speed import advice, cases, measure, text

    wanted = cases()
    speeds = measure(wanted)
    findings = [Finding("speed", "ok", text(speeds), advice(speeds))]
    if len(wanted) > 1 and not any(case.precision != "fp32" for case in wanted):
        findings.append(
            Finding("precision", "ok", "no bf16 or fp16 arithmetic here: --precision cannot gain anything")
        )
    return findings


def _try_provider(provider: str, name: str) -> Finding:
    import numpy as np
    import onnxruntime as ort

    from perception.backends.onnxruntime import load_gpu_libraries

    options = ort.SessionOptions()
    options.log_severity_level = 4
    missing = load_gpu_libraries(name.lower()) if name != "CPU" else ""
    try:
        # without its own fallback, which tells stdout and lets a run that fails end well, on the CPU
        session = ort.InferenceSession(_TINY_MODEL, options, providers=[provider], enable_fallback=0)
        active = session.get_providers()[0]
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        active, reason = "", re.sub(r"^/\S+:\d+ .*?\) ", "", first)[:160]  # source file and function come first
    else:
        reason = missing or f"fell back to {active}"
    if active == provider:
        return Finding(name, "ok", "loads and runs")
    mend = {
        "CUDA": "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.31'   (brings CUDA's libraries)",
        "Tensorrt": f"pip install 'tensorrt{_linked_tensorrt()}'",
    }.get(name, "pip install --force-reinstall onnxruntime")
    return Finding(name, "missing" if name == "CPU" else "note", f"does not load: {reason}", mend)


def _linked_tensorrt() -> str:
    """Which major version ONNX Runtime's TensorRT provider is linked with, as `==10.*`; it takes no other."""
    import onnxruntime as ort

    libraries = [*(Path(ort.__file__).parent / "capi").glob("*onnxruntime_providers_tensorrt.*")]
    found = [re.search(rb"nvinfer(?:\.so\.|_)(\d+)", library.read_bytes()) for library in libraries]
    return next((f"=={match.group(1).decode()}.*" for match in found if match), "")


def check_codecs() -> list[Finding]:
    """The decoders that cameras need and the encoder of the annotated video."""
    import av

    findings = [Finding("ffmpeg", "ok", "libavcodec " + ".".join(map(str, av.library_versions["libavcodec"])))]
    decoders = [c for c in ("h264", "hevc", "mjpeg", "mpeg4", "vp9", "av1") if _decodes(c)]
    verdict: Verdict = "ok" if "h264" in decoders else "missing"
    findings.append(Finding("decoders", verdict, ", ".join(decoders), "" if verdict == "ok" else "pip install -U av"))
    if "libx264" in av.codecs_available:
        findings.append(Finding("encoder", "ok", "libx264: annotated video as H.264"))
    else:
        mend = "pip install -U av   (or run with --no-video)"
        findings.append(Finding("encoder", "missing", "no libx264: no annotated video", mend))
    return findings


def check_weights() -> list[Finding]:
    """Models that ship with the package, and whether they can be read."""
    from perception.backends import load_model
    from perception.model import WEIGHTS_FOLDER

    paths = sorted(WEIGHTS_FOLDER.glob("*.onnx"))
    if not paths:
        return [Finding("weights", "note", f"none in {WEIGHTS_FOLDER}", "perception run VIDEO --model FILE.onnx")]
    findings = []
    for path in paths:
        spec = load_model(path, "cpu", 1).spec
        height, width = spec.size_hw
        text = f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, {width}x{height}, {', '.join(spec.class_names)}"
        findings.append(Finding("weights", "ok", text))
    return findings


def check_shadows() -> list[Finding]:
    """Our top-level names are generic: a foreign package of the same name would be taken for ours, or ours for it."""
    root = Path(__file__).resolve().parents[2]
    findings = []
    for name in ("datasets", "training", "export"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and not Path(spec.origin).resolve().is_relative_to(root):
            text = f"a foreign package lies over ours: {spec.origin}"
            mend = "python -m venv .venv && .venv/bin/pip install perception-pipeline   (an environment of its own)"
            findings.append(Finding(name, "note", text, mend))
    return findings


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _decodes(codec: str) -> bool:
    import av

    try:
        av.Codec(codec, "r")
        return True
    except av.codec.codec.UnknownCodecError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
