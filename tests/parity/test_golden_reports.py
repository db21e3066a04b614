"""Reports of recorded results, from the command line: JSON holds the official numbers, draws follow the rule."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.evaluation.object import score_curve
from perception.evaluation.object_draws import PrecisionAreas
from perception.evaluation.results import LEVELS, ObjectCurve
from perception.reports.compare import compare

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def stress(data_root: Path, golden_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report folder of the object stress case, as `perception evaluate object --report` writes it."""
    folder = tmp_path_factory.mktemp("stress")
    with zipfile.ZipFile(golden_root / "object_stress_results.zip") as archive:
        archive.extractall(folder / "results")
    names = sorted(path.stem for path in (folder / "results").glob("*.txt"))
    with zipfile.ZipFile(data_root / "kitti" / "label_2_all.zip") as archive:
        archive.extractall(folder / "labels", [f"training/label_2/{name}.txt" for name in names])
    command = ["evaluate", "object", "--gt", str(folder / "labels"), "--results", str(folder / "results")]
    assert main([*command, "--report", str(folder / "report"), "--json"]) == 0
    return folder / "report"


def test_report_holds_the_official_numbers(stress: Path, golden_root: Path) -> None:
    golden = json.loads((golden_root / "object_stress.json").read_text())["results"]
    rows = json.loads((stress / "report.json").read_text())["tables"]["scores"]
    assert len(rows) == 6
    for row in rows:
        for level in LEVELS:
            expected = golden[f"{row['class']}/{level}"]
            assert row[f"r40_{level}"] == pytest.approx(expected[f"{row['measure']}_R40"], abs=1e-4)
            assert row[f"r11_{level}"] == pytest.approx(expected[f"{row['measure']}_R11"], abs=1e-4)


def test_evidence_scores_as_the_official_tool(stress: Path, golden_root: Path) -> None:
    golden = json.loads((golden_root / "object_stress.json").read_text())["results"]
    with np.load(stress / "evidence.npz") as packed:
        arrays = dict(packed)
    frames = len(arrays["frame_names"])
    weights = np.random.default_rng(0).multinomial(frames, np.full(frames, 1 / frames), size=8)
    weights[0] = 1
    for key, expected in golden.items():
        name, level = key.split("/")
        start = f"{name}.{level}."
        fields = {field.removeprefix(start): value for field, value in arrays.items() if field.startswith(start)}
        curve = ObjectCurve(name, level, **fields)
        areas = PrecisionAreas(curve)(weights)
        assert areas[0] == pytest.approx([expected["AP_R40"], expected["AOS_R40"]], abs=1e-4)
        for weight, area in zip(weights, areas, strict=True):
            score = score_curve(curve, True, weight)
            assert area == pytest.approx([score.ap_r40, score.aos_r40], abs=1e-9)


def test_a_run_does_not_differ_from_itself(stress: Path) -> None:
    assert {one.verdict for one in compare(stress, stress, resamples=1100).differences} == {"equal"}
