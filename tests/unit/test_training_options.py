"""What cannot be meant is named before anything starts; what is asked for is what is trained."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import kitti, tiny  # noqa: E402

from datasets.splits import HoldoutOptions  # noqa: E402
from perception.classes import classes_named  # noqa: E402
from perception.cli.main import main  # noqa: E402
from perception.errors import UserError  # noqa: E402
from perception.types import Detections  # noqa: E402
from training import loop  # noqa: E402
from training.cli import stored_run  # noqa: E402
from training.config import read_fold  # noqa: E402
from training.data import ImageStream  # noqa: E402
from training.evaluate import object_scores  # noqa: E402
from training.sets import find_sets  # noqa: E402


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda run: run)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("evaluate-every", "0"),
        ("checkpoint-every", "0"),
        ("learning-rate", "nan"),
        ("learning-rate", "-1"),
        ("ema-decay", "2"),
        ("clip-norm", "0"),
        ("threads", "-1"),
        ("seed", "-1"),
        ("seed", "4294967296"),
        ("data.workers", "-1"),
        ("data.fold", "3"),
        ("data.fold", "5/5"),
        ("data.fold", "0/1"),
        ("augment.scale-min", "0"),
        ("augment.scale-min", "3"),
        ("augment.native-width", "0"),
        ("augment.copy-paste", "nan"),
        ("augment.off-for-last", "2"),
        ("model.channels", "0"),
        ("model.dropout", "1.5"),
        ("model.detection.bins", "1"),
        ("model.detection.topk", "0"),
        ("model.detection.max-detections", "20000"),
        ("model.segmentation.channels", "0"),
        ("model.class-names", "Truck"),
    ],
)
def test_a_number_that_cannot_be_meant_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    run = tmp_path / "run"
    assert main(["train", "--out", str(run), "--data.no-real", f"--{option}", value]) == 2
    said = capsys.readouterr().err
    assert "expected:" in said and f"--{option.removesuffix('-min')}" in said
    assert not run.exists()


def test_sizes_that_do_not_go_together_are_named() -> None:
    with pytest.raises(UserError, match="batch norm"):
        tiny(batch=1, data=replace(tiny().data, crop_hw=(32, 32)))
    with pytest.raises(UserError, match=r"max_detections 100 for an input of 32x32\n  expected: at most 63"):
        tiny(data=replace(tiny().data, validation_hw=(32, 32)))
    for names in ((), ("Car", "Car")):
        with pytest.raises(UserError, match="names without spaces, each once"):
            tiny(model=replace(tiny().model, class_names=names))


def test_classes_in_another_order_are_learnt_and_scored_under_their_own_names(tmp_path: Path) -> None:
    root = kitti(tmp_path)
    plain = tiny(root)
    sets = find_sets(plain.data)
    other = replace(plain, model=replace(plain.model, class_names=("Cyclist", "Car")))
    usual, two = ImageStream(sets, plain), ImageStream(sets, other)
    counted = 0
    for n in range(12):
        theirs, ours = usual[n], two[n]
        for i, name in ((0, 2), (1, 0)):
            boxes = theirs.boxes_xyxy[theirs.class_ids == name]
            assert np.array_equal(ours.boxes_xyxy[ours.class_ids == i], boxes)
            counted += len(boxes)
        assert set(ours.class_ids) <= {0, 1} and ours.labelled == (True, True)
        assert len(ours.depths) == len(ours.class_ids) == len(ours.boxes_xyxy)
    assert counted > 4
    assert sets.objects is not None
    truth = {s.image_bgr.tobytes(): s for s in (sets.objects.source[i] for i in sets.objects.indices)}

    def says_the_truth(image_bgr: np.ndarray) -> tuple[Detections, None]:
        sample = truth[image_bgr.tobytes()]
        assert sample.boxes_xyxy is not None and sample.class_ids is not None
        rows = np.isin(sample.class_ids, (0, 2))
        boxes, ids = sample.boxes_xyxy[rows], np.array([1, -1, 0])[sample.class_ids[rows]]
        return Detections(boxes, np.full(len(ids), 0.9, np.float32), ids), None

    scores = object_scores(says_the_truth, sets.objects, classes_named(("Cyclist", "Car")))
    assert scores["car_precision"] == 100 and scores["car_recall"] == 100
    assert "pedestrian_moderate" not in scores


def test_other_classes_start_from_earlier_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = kitti(tmp_path / "data")
    loop.train(tiny(root, steps=1), tmp_path / "three")
    one = tiny(root, steps=1)
    one = replace(one, model=replace(one.model, class_names=("Pedestrian",)))
    loop.train(one, tmp_path / "one", init=tmp_path / "three/best.pt")
    said = capsys.readouterr().err
    assert "init: 414 of 414 tensors" in said and "init: new classes: none" in said
    metrics = json.loads((tmp_path / "one/results.json").read_text())["metrics"]
    assert "pedestrian_moderate" in metrics and "car_moderate" not in metrics


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `perception train` says when it refuses."""
    assert main(["train", *map(str, arguments)]) == 2
    return capsys.readouterr().err


TINY = (
    "--data.no-real --steps 1 --batch 2 --data.crop-hw 64 128 --data.validation-hw 64 192 --data.workers 0 "
    "--threads 1 --device cpu --augment.copy-paste 0 --model.no-pretrained"
).split()


def test_a_config_file_is_read_however_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "some.toml"
    out = ("--out", tmp_path / "run", *TINY)
    for text, words in {
        "stepz = 3": "unknown key 'stepz'",
        'preset = "foo"': "unknown preset 'foo'",
        "[data]\ncrop_hw = [64, 64, 64]": "crop_hw has 3 values\n  expected: 2",
        '[data]\ncrop_hw = ["a", "b"]': "crop_hw is 'a'",
        "[model]\nclass_names = [1, 2]": "class_names is 1",
        "[model]\ndropout = 3.0": "dropout 3.0",
    }.items():
        file.write_text(text)
        assert words in refused(capsys, *out, "--config", file)
        assert words in refused(capsys, *out, f"--config={file}")
    assert "no such file" in refused(capsys, *out, "--config", tmp_path / "none.toml")


def test_a_preset_in_the_file_is_that_preset(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text('preset = "small"\nweight_decay = 0.5\n[model]\npretrained = false\n')
    made = []
    for name, words in (("file", ()), ("both", ("--preset", "small", "--preset", "nano"))):
        run = tmp_path / name
        assert main(["train", "--config", str(file), "--out", str(run), *words, *TINY]) == 0
        made.append(json.loads((run / "config.json").read_text())["config"])
    assert [c["preset"] for c in made] == ["small", "nano"]
    assert [c["model"]["backbone"] for c in made] == ["mobilenet_v2", "mobilenet_v3_small"]
    assert [c["optimiser"]["weight_decay"] for c in made] == [0.5, 0.5]


def test_a_resumed_run_may_change_its_machine_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    loop.train(tiny(steps=1), run)
    capsys.readouterr()
    other = tmp_path / "other"
    for arguments, words in {
        ("--steps", "9", "--learning-rate", "0.1"): "with another steps, learning_rate\n",
        ("--preset", "small"): "with another preset\n",
        ("--model.channels", "16"): "with another model.channels\n",
        ("--init", run / "last.pt"): "with another init\n",
        ("--out", other): "with another out\n",
        ("--folds", "3"): "with another folds\n",
    }.items():
        assert words in refused(capsys, "--resume", run, *arguments)
    config = json.loads((run / "config.json").read_text())
    config["config"]["schedule"]["steps"] = 2
    (run / "config.json").write_text(json.dumps(config))
    assert main(["train", f"--resume={run}", "--threads", "2", "--data.cache-gb", "3"]) == 0
    now = json.loads((run / "config.json").read_text())["config"]
    assert (now["schedule"]["steps"], now["hardware"]["threads"], now["data"]["cache_gb"]) == (2, 2, 3.0)
    assert json.loads((run / "results.json").read_text())["steps"] == 2


def test_a_run_of_an_earlier_layout_is_continued(tmp_path: Path) -> None:
    run = tmp_path / "run"
    loop.train(tiny(steps=1), run)
    file = json.loads((run / "config.json").read_text())
    now = file["config"]
    flat = {k: v for k, v in now.items() if k not in ("schedule", "optimiser", "hardware", "checkpoints")}
    for name in ("schedule", "optimiser", "hardware", "checkpoints"):
        flat |= now[name]
    for numbers, fold in (({"fold": -1, "folds": 5, "road_fold": 0}, ""), ({"fold": 2, "folds": 4}, "2/4")):
        flat["data"] = {**now["data"], **numbers}
        (run / "config.json").write_text(json.dumps({**file, "config": flat}))
        config = stored_run(run)[0]
        assert config == replace(tiny(steps=1), data=replace(tiny().data, fold=fold))


def test_a_fold_is_a_part_of_some() -> None:
    assert read_fold("") == HoldoutOptions() and read_fold("2/4") == HoldoutOptions(2, 4)
    for text in ("2", "2/2", "0/1", "-1/5", "a/b", "1/5/7", "0/1000000", "²/5"):
        with pytest.raises(UserError, match=f"fold {text}"):
            read_fold(text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_names_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def stopped(*_: object, **__: object) -> None:
        assert signal.getsignal(number) is not signal.SIG_DFL, "it would end these tests"
        signal.raise_signal(number)

    monkeypatch.setattr(loop, "train_step", stopped)
    # a job in the background of a shell has SIGINT ignored, and so would these tests
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    of_children = signal.getsignal(signal.SIGCHLD)
    try:
        before = signal.getsignal(number)
        assert main(["train", "--out", str(tmp_path / "run"), *TINY]) == 130
        assert f"continue with: perception train --resume {tmp_path / 'run'}\n" in capsys.readouterr().err
        assert signal.getsignal(number) is before
    finally:
        signal.signal(signal.SIGINT, inherited)
        signal.signal(signal.SIGCHLD, of_children)
