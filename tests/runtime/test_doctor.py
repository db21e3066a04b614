import json

import pytest

from perception.cli import doctor
from perception.cli.main import main as front_door


def test_it_reports_what_the_runtime_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert front_door(["doctor", "--json"]) == 0
    found = {f["topic"]: f for f in json.loads(capsys.readouterr().out)}
    assert found["CPU"]["verdict"] == "ok"
    assert found["encoder"]["verdict"] == "ok"
    assert "h264" in found["decoders"]["text"]
    assert found["CUDA"]["verdict"] == "ok" or found["CUDA"]["mend"]


def test_people_get_a_line_a_finding_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    front_door(["doctor"])
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
    assert doctor.main([]) == 1
