import json

import pytest

from perception.cli import doctor, doctor_speed
from perception.cli.doctor_speed import Case, Speed, advice, text
from perception.cli.main import main as front_door


def test_it_reports_what_the_runtime_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert front_door(["doctor", "--json"]) == 0
    found = {f["topic"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["CPU"]["verdict"] == "ok"
    assert found["encoder"]["verdict"] == "ok"
    assert "h264" in found["decoders"]["text"]
    assert found["CUDA"]["verdict"] == "ok" or found["CUDA"]["mend"]
    usual = "OpenVINO CPU fp32" if "OpenVINO" in found["--device auto"]["text"] else "ONNX Runtime on the CPU"
    assert f"nano-384x1248.onnx: {usual} takes" in found["speed"]["text"], "gains are those over what runs by default"
    assert ("openvino devices" in found) == (found["openvino"]["verdict"] == "ok")


def test_people_get_a_line_a_finding_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    front_door(["doctor", "--no-speed"])
    shown = capsys.readouterr().out
    assert shown.startswith("ok")
    assert "onnxruntime" in shown


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_codecs() -> list[doctor.Finding]:
        raise ImportError("libfoo.so is missing")

    monkeypatch.setattr(doctor, "check_codecs", check_codecs)
    (finding,) = [f for f in doctor.examine() if f.topic == "codecs"]
    assert finding.verdict == "missing"
    assert "libfoo.so" in finding.text
    assert doctor.main(["--no-speed"]) == 1


def test_the_other_engine_is_advised_where_auto_takes_the_slower_one() -> None:
    usual = Speed(Case("OpenVINO CPU fp32", "openvino", "fp32"), 25.0, 1.0)
    assert advice([usual, Speed(Case("ONNX Runtime on the CPU", "cpu", "fp32"), 20.0, 1.25)]) == (
        "perception run VIDEO --device cpu"
    )


def test_a_faster_precision_is_advised_and_a_slower_engine_is_not() -> None:
    usual = Speed(Case("ONNX Runtime on the CPU", "cpu", "fp32"), 20.0, 1.0)
    slower = Speed(Case("OpenVINO CPU fp32", "openvino", "fp32"), 25.0, 0.8)
    assert text([usual, slower]) == (
        "nano-384x1248.onnx: ONNX Runtime on the CPU takes 20 ms a frame here; OpenVINO CPU fp32 is 0.8 times as fast"
    )
    assert advice([usual, slower]) == ""
    faster = Speed(Case("OpenVINO CPU bf16", "openvino", "bf16"), 12.5, 1.6)
    assert advice([usual, slower, faster]).startswith("perception run VIDEO --device openvino --precision bf16 ")


@pytest.mark.parametrize(
    ("suits", "usual"),
    [(True, "OpenVINO CPU fp32"), (False, "ONNX Runtime on the CPU")],
)
def test_gains_are_measured_against_what_auto_takes(monkeypatch: pytest.MonkeyPatch, suits: bool, usual: str) -> None:
    openvino = pytest.importorskip("perception.backends.openvino")
    pytest.importorskip("openvino")
    able = {"CPU": ["fp32", "bf16"]}
    monkeypatch.setattr(openvino, "precisions", lambda name="CPU": able.get(name, []))
    monkeypatch.setattr(doctor_speed, "openvino_suits", lambda: suits)
    found = doctor_speed.cases()
    assert found[0].name == usual
    assert {case.name for case in found} == {"ONNX Runtime on the CPU", "OpenVINO CPU fp32", "OpenVINO CPU bf16"}
