"""The benchmark of what checkpoints keep: its sums, and a whole call on a rendered frame."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from datasets.synthetic_street import StreetConfig, write_kitti_object
from tools.benchmarks import disturbed


def test_disturbed_is_the_mean_over_kinds() -> None:
    found = {kind: (10.0 * i, float(i)) for i, kind in enumerate(disturbed.KINDS)}  # mean of 0 to 10
    found |= {"clean": (80.0, 8.0), "ε 1": (40.0, 4.0), "ε 2": (1.0, 0.0)}
    assert disturbed.row("a", found).split() == "a 80.0, 8.0 50.0, 5.0 40.0, 4.0 1.0, 0.0".split()


def test_a_checkpoint_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kitti_object(StreetConfig(seed=3, frames=1, setting="city", weather="sun"), tmp_path / "object")
    (tmp_path / "object/ImageSets").mkdir(exist_ok=True)
    (tmp_path / "object/ImageSets/val.txt").write_text("000000\n")
    monkeypatch.setattr(disturbed, "KINDS", ("torn_frame",))
    monkeypatch.setattr(disturbed, "EPSILONS", (8,))
    monkeypatch.setattr(disturbed, "row", lambda name, found: json.dumps(found))
    assert disturbed.main(["nano.pt", "--root", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[1])
    clean, torn, attacked = (found[name][0] for name in ("clean", "torn_frame", "ε 8"))
    assert clean > 30 and torn < clean and attacked < clean
    assert disturbed.main(["--root", str(tmp_path)]) == 2 and "no checkpoint" in capsys.readouterr().err
