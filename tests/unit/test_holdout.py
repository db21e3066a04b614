"""One hold-out: what training does not see is what export verifies on, whatever names it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import kitti, tiny  # noqa: E402

from datasets.catalogue import divide, open_sets  # noqa: E402
from datasets.splits import HeldOut, Holdout, common  # noqa: E402
from export.frames import holdout_for, open_frames  # noqa: E402
from perception.errors import UserError  # noqa: E402
from training import loop  # noqa: E402
from training.checkpoint import holdout_of, load_checkpoint, save_checkpoint  # noqa: E402
from training.sets import find_sets  # noqa: E402

FRAMES = 20


@pytest.fixture
def by_drives(tmp_path: Path) -> Path:
    """Twenty object frames of ten drives, two each, and no ImageSets: every fifth drive is held out."""
    root = kitti(tmp_path / "data", frames=FRAMES, road=5)
    for split in ("train", "val"):
        (root / f"kitti/object/ImageSets/{split}.txt").unlink()
    drives = {f"{i:06d}": f"2011_09_26_drive_{i // 2:04d}" for i in range(FRAMES)}
    (root / "kitti/object/drives.json").write_text(json.dumps(drives))
    return root


def trained_on(root: Path) -> set[str]:
    sets = find_sets(tiny(root).data)
    return {str(subset.source.names[i]) for subset in sets.train for i in subset.indices}


def names(root: Path, split: str = "held-out", **options: Holdout) -> set[str]:
    # road frames are called by their ground truth
    return {f.name.replace("_road", "") for f in open_frames(root, 100, split, **options)}  # type: ignore[arg-type]


def test_export_verifies_on_no_frame_that_was_trained_on(by_drives: Path) -> None:
    """Without ImageSets, export's own rule (the second half) held out eight frames that training used."""
    held_out = names(by_drives)
    assert {name for name in held_out if "_" not in name} == {"000000", "000001", "000010", "000011"}
    assert {name for name in held_out if "_" in name} == {"um_000000", "umm_000000", "uu_000000"}
    assert not held_out & trained_on(by_drives)
    assert names(by_drives, "seen") == trained_on(by_drives)
    assert "every fifth drive" in open_frames(by_drives, 1).source


def test_a_set_of_which_nothing_is_held_out_says_so(by_drives: Path) -> None:
    (by_drives / "kitti/object/drives.json").unlink()
    frames = open_frames(by_drives, 100)
    assert "kitti/object: its second half, because nothing is held out" in frames.source
    assert len(frames) == FRAMES // 2 + 3


def train(config, run: Path, monkeypatch: pytest.MonkeyPatch, init: Path | None = None) -> Path:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(loop, "draw_curves", lambda run: run)
    return loop.train(config, run, init=init)


def test_a_checkpoint_names_its_frames_and_export_takes_them(
    by_drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(by_drives, steps=2, evaluate_every=2)
    config = replace(config, data=replace(config.data, fold="1/2"))
    best = train(config, tmp_path / "run", monkeypatch)
    sets = find_sets(config.data)
    stored = holdout_of(load_checkpoint(best))
    assert stored == sets.holdout and sets.objects is not None
    assert stored.indices("kitti/object", sets.objects.source.names) == sets.objects.indices
    (by_drives / "kitti/object/drives.json").unlink()  # the data can no longer say it
    holdout = holdout_for(by_drives, best)
    trained = {str(s.source.names[i]) for s in sets.train for i in s.indices}
    assert trained and not names(by_drives, holdout=holdout) & trained
    assert "drives of fold 1 of 2, stored in best.pt" in open_frames(by_drives, 1, holdout=holdout).source


def test_an_old_checkpoint_without_names_says_how_they_were_derived(by_drives: Path, tmp_path: Path) -> None:
    data = {"fold": 0, "folds": 2, "road_fold": -1}
    save_checkpoint(tmp_path / "old.pt", {"description": json.dumps({"config": {"data": data}})})
    holdout = holdout_for(by_drives, tmp_path / "old.pt")
    assert holdout.sets["kitti/object"].rule == "drives of fold 0 of 2, derived for old.pt"
    assert len(holdout.sets["kitti/object"].names) == FRAMES // 2
    # a model file says nothing at all: training's defaults
    assert (
        holdout_for(by_drives, tmp_path / "x.onnx").sets["kitti/object"].rule
        == "every fifth drive, derived for x.onnx"
    )


def test_weights_that_saw_the_validation_frames_are_warned_of(
    by_drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(by_drives, steps=2, evaluate_every=2)
    first, second = (replace(config, data=replace(config.data, fold=f"{i}/2")) for i in range(2))
    best = train(first, tmp_path / "first", monkeypatch)
    assert "warning: the weights" not in capsys.readouterr().err
    both = train(second, tmp_path / "second", monkeypatch, init=best)
    told = capsys.readouterr().err
    assert "were trained on 10 of the 10 validation frames of kitti/object" in told
    after = holdout_of(load_checkpoint(both))
    assert after is not None and not after.sets["kitti/object"].names, "neither run left any frame alone"


def test_what_runs_have_in_common() -> None:
    a = Holdout({"x": HeldOut(frozenset("ab"), "r"), "y": HeldOut(frozenset("c"), "r")})
    b = Holdout({"x": HeldOut(frozenset("bc"), "s")})
    both = common([a, b])
    assert both.sets["x"] == HeldOut(frozenset("b"), "r; s") and both.sets["y"].names == {"c"}
    assert common([a]) == a and Holdout.from_json(both.to_json()) == both


@pytest.mark.parametrize("text", ["", "[]", '{"x": 3}', '{"x": {"rule": "r"}}', '{"x": {"rule": "r", "names": 5}}'])
def test_a_damaged_hold_out_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="hold-out cannot be read"):
        holdout_of({"holdout": text})


@pytest.mark.data
def test_of_the_sample_data_each_held_out_drive_is_held_out_everywhere(data_root: Path) -> None:
    divided, holdout = divide(open_sets(data_root))
    counts = {n: len(held.names) for n, held in holdout.sets.items() if held.names and n.startswith("kitti/")}
    assert counts == {"kitti/object": 27, "kitti/tracking": 16, "kitti/road": 9}
    held = {one.opened.source.drive(i) for one in divided for i in one.held_out} - {""}
    assert not held & {one.opened.source.drive(i) for one in divided for i in one.train}
