"""A mistake ends as one sentence: what was found, what was expected, what to type."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import dataset_folders as make
import pytest
from evaluation_scenes import object_set, road_set

from perception import files
from perception.cli.main import main
from perception.cli.settings import make_tracker, read_settings
from perception.errors import UserError
from perception.evaluation.tracking_folders import score_tracking_folders
from perception.reports.object import object_report
from perception.reports.road import road_report
from perception.reports.runs import load_run
from perception.reports.write import write_report

ROOT = Path(__file__).resolve().parents[2]
ROW = "{frame} 1 Car 0 0 0 10 20 60 80 1.5 1.6 4 0 1.5 20 0{score}\n"


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The error of a command that ends with 2."""
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said[said.index("error: ") :]


# ---------------------------------------------------------------- options, as they were typed


@pytest.mark.parametrize(
    ("option", "value", "do"),
    [
        ("--seed", "-1", "--seed 1"),
        ("--steps", "0", "--steps 6000"),
        ("--learning-rate", "nan", "--learning-rate 0.002"),
        ("--augment.scale-min", "0", "--augment.scale-min 0.55"),
        ("--data.road-share", "1", "--data.road-share 0.0"),
        ("--model.detection.bins", "1", "--model.detection.bins 16"),
    ],
)
def test_a_value_out_of_range_names_the_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, value: str, do: str
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")
    said = error_of(capsys, "train", "--out", str(tmp_path / "run"), "--data.no-real", option, value)
    found, expected, hint = said.strip().split("\n")
    assert re.fullmatch(rf"error: {option} {value}(\.0)?", found)
    assert expected.startswith("  expected: ") and hint == f"  try: {do}"


def test_no_message_tells_the_user_to_type_an_ellipsis() -> None:
    """`--…seed` and `front=…` cannot be typed."""
    found = [
        f"{path.relative_to(ROOT)}:{i}"
        for room in ("perception", "datasets", "training", "export")
        for path in sorted((ROOT / room).rglob("*.py"))
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"[=.-]…|… -|//…|…/", line.partition("#")[0])
        and re.search(r"""["'].*….*["']""", line)
        and not line.lstrip().startswith('"""')
    ]
    assert found == []


@pytest.mark.parametrize(
    "words",
    ["calibrate --frame {} --fov-deg 60 --height-m 1.4", "data check {}", "run {}", "run frame.png --model {}"],
)
def test_a_path_that_no_system_takes_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make.write_image(tmp_path / "frame.png")
    said = error_of(capsys, *words.format("x" * 5000).split())
    assert "xxx" in said and "expected: " in said and "try: " in said


@pytest.mark.parametrize(
    ("setting", "do"),
    [
        ("confirm_thresholds=abc", "--set confirm_thresholds=0.3,0.6,0.5"),
        ("even_scores=0.7", "--set confirm_thresholds=0.3,0.6,0.5"),
        ("lost_s=abc", "--set lost_s=2.0"),
        ("lost_s=nan", "--set lost_s=2.0"),
        ("lost_s=-1", "--set lost_s=2.0"),
        ("lost_s=[1]", "--set lost_s=2.0"),
        ("lost_s=True", "--set lost_s=2.0"),
        ("learn_scores=1", "--set learn_scores=True"),
    ],
)
def test_a_setting_of_a_tracker_says_what_it_wants(setting: str, do: str) -> None:
    with pytest.raises(UserError, match="expected: ") as error:
        make_tracker("drivetrack", read_settings([setting]))
    assert error.value.do == do
    for good in ("confirm_thresholds=0.7", "confirm_thresholds=0.7,", "lost_s=3", "unseen_log_odds_per_s=-0.5"):
        made = make_tracker("drivetrack", read_settings([good]), confirm_thresholds=(0.4, 0.4, 0.4))
        assert getattr(made.config, good.partition("=")[0]) in ((0.7,), 3, -0.5), "also over the model's own"


@pytest.mark.parametrize(
    "words",
    [
        "run frame.png --stalled nan",
        "run frame.png --drain -1",
        "run frame.png --queue 0",
        "run frame.png --sink x",
        "run frame.png --set images.x=1 --images",
        "evaluate object --gt . --results . --minimum-score nan",
        "evaluate object --gt . --results . --score-threshold nan",
        "run frame.png --config .",
        "data street --frames 999999999999999999999",
        "data street --frames 0",
        "evaluate compare a b --seed -1",
        "evaluate compare a b --block 0",
        "evaluate compare a b --block 999999999999999999999",
        "evaluate compare a b --resamples 999999999999999999999",
        "data fetch kitti-road --root fr --base-url http://[",
        "data fetch kitti-road --root fr --base-url http://",
        "train --data.no-real --out run --model.backbone x",
        "export m.onnx --budget nan",
        "export m.onnx --percentile 101",
        "export m.onnx --sweep-frames 0",
        "export m.onnx --workspace-gb -1",
        "export m.onnx --batch-profile 4 1 1",
    ],
)
def test_a_mistake_on_the_command_line_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make.write_image(tmp_path / "frame.png")
    said = error_of(capsys, *words.split())
    assert "expected: " in said and "try: " in said


# ---------------------------------------------------------------- evaluation


def test_frames_beyond_the_labels_name_what_the_length_comes_from(tmp_path: Path) -> None:
    """Results that count from 1, labels from 0."""
    for name, first, score in (("gt", 0, ""), ("res", 1, " 0.9")):
        rows = [ROW.format(frame=i + first, score=score) for i in range(4)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "0000.txt").write_text("".join(rows))
    with pytest.raises(UserError, match="frames 0 to 3, by the last label or image") as error:
        score_tracking_folders(tmp_path / "gt", tmp_path / "res")
    assert "number frames from 0" in str(error.value)
    seqmap = tmp_path / "seqmap.txt"
    seqmap.write_text("0000 empty 000000 000003\n")
    with pytest.raises(UserError, match=f"frames 0 to 2, by the sequence map {seqmap}"):
        score_tracking_folders(tmp_path / "gt", tmp_path / "res", seqmap=seqmap)


def test_a_report_that_ends_early_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second report into the same folder ends after some of its files: the first is not taken for it."""
    pytest.importorskip("jinja2")
    first, second = object_report(object_set(frames=5), gallery=0), road_report(road_set())
    whole, left = files.write_atomically, [0]

    def until_killed(path: Path, content: files.Content, **options: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        whole(path, content, **options)

    write_report(second, tmp_path / "whole")
    total = sum(path.is_file() for path in (tmp_path / "whole").rglob("*"))
    assert total > 3
    write_report(first, tmp_path / "first")
    for done in (0, 1, total // 2, total - 1):
        folder = tmp_path / str(done)
        shutil.copytree(tmp_path / "first", folder)
        assert load_run(folder).task == "object"
        left[0] = done
        with monkeypatch.context() as patch:
            patch.setattr("perception.reports.write.write_atomically", until_killed)
            with pytest.raises(KeyboardInterrupt):
                write_report(second, folder)
        with pytest.raises(UserError, match=r"no report\.json, so its report was not finished"):
            load_run(folder)
    write_report(second, folder)
    assert load_run(folder).task == "road"


# ---------------------------------------------------------------- data check


def test_data_check_reports_its_findings_where_nothing_can_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    make.kitti_object(tmp_path / "data")
    (tmp_path / "file").write_text("")
    call = ["data", "check", str(tmp_path / "data"), "--out", str(tmp_path / "file" / "out"), "--json"]
    assert main(call) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["errors"] == 0 and "note: no label statistics drawn" in printed.err
    next((tmp_path / "data").rglob("label_2/*.txt")).write_text("rubbish\n")
    assert main(call) == 1
    assert json.loads(capsys.readouterr().out)["errors"] > 0


# ---------------------------------------------------------------- export


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """An ONNX file of another project."""
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["images"], ["output0"])
    shape = [1, 3, 64, 64]
    graph = onnx.helper.make_graph([node], "g", [value("images", 1, shape)], [value("output0", 1, shape)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "yolo.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "words",
    [
        "export {} --precision fp16",
        "export {} --precision int8",
        "export {} --format triton",
        "export verify {} {}",
        "bench {}",
        "run clip.mp4 --model {}",
        "evaluate object --model {} --data kitti",
        "evaluate tracking --model {} --data kitti",
    ],
)
def test_a_foreign_onnx_file_is_named(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    if words.startswith(("export", "bench")):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    make.kitti_object(tmp_path / "kitti")
    make.kitti_tracking(tmp_path / "kitti")
    make.write_image(tmp_path / "frame.png")
    said = error_of(capsys, *words.format(foreign, foreign).replace("clip.mp4", "frame.png").split())
    assert said.startswith(f"error: {foreign}: the model has no description"), said
    assert "try: perception export CHECKPOINT" in said


@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 64])
@pytest.mark.parametrize("command", ["bench", "export --format triton", "run frame.png --model"])
def test_a_file_that_is_no_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, content: bytes
) -> None:
    if not command.startswith("run"):
        pytest.importorskip("torch")
        pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    make.write_image(tmp_path / "frame.png")
    (tmp_path / "m.onnx").write_bytes(content)
    said = error_of(capsys, *command.split(), "m.onnx")
    assert said.startswith("error: m.onnx: ") and "expected: " in said and "try: " in said


@pytest.mark.parametrize(
    ("words", "found", "do"),
    [
        ("--calibration EMPTY", "--calibration EMPTY: no images", "omit --calibration"),
        ("--calibration gone", "--calibration gone: no such folder", "omit --calibration"),
        ("--data EMPTY", "--data EMPTY: no images", "omit --data"),
        ("--calibration-frames 0", "--calibration-frames 0", "--calibration-frames 12"),
        ("--frames -1", "--frames -1", "--frames 12"),
    ],
)
def test_export_names_the_option_that_was_typed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    found: str,
    do: str,
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    said = error_of(capsys, "export", "nano-384x1248.onnx", "--precision", "int8", *words.split())
    assert said.startswith(f"error: {found}\n") and said.rstrip().endswith(f"try: {do}"), said


def test_an_engine_without_tensorrt_is_refused_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    said = error_of(capsys, "export", str(tmp_path / "not_even_read.pt"), "--format", "engine")
    assert "the package 'tensorrt' is not installed" in said and "perception-pipeline[tensorrt]" in said
