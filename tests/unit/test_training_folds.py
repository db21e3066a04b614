"""Folds never cut a drive, cover everything once, and a broken cross-validation goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import kitti, tiny

from datasets.splits import contiguous_part, drive_folds
from perception.cli.main import main
from perception.errors import UserError
from training import folds as module
from training import loop
from training.folds import cross_validate, pooled
from training.sets import find_sets


def with_drives(root: Path) -> Path:
    """Twelve frames: five of drive a, three of b, two of c, one each of d and e."""
    drives = dict(zip((f"{i:06d}" for i in range(12)), "aaaaabbbccde", strict=True))
    (kitti(root, road=3) / "kitti/object/drives.json").write_text(json.dumps(drives))
    return root


def test_drives_go_whole_into_parts_of_about_one_size(tmp_path: Path) -> None:
    names = [f"{i:06d}" for i in range(12)]
    drives = dict(zip(names, "aaaaabbbccde", strict=True))
    assert drive_folds(tmp_path, names, drives, 2) == [["a", "d"], ["b", "c", "e"]]
    with pytest.raises(UserError, match="5 drives"):
        drive_folds(tmp_path, names, drives, 6)
    with pytest.raises(UserError, match="drive of 1 frames is unknown, the first is 000007"):
        drive_folds(tmp_path, names, {n: d for n, d in drives.items() if n != "000007"}, 2)


def test_every_frame_is_held_out_once_and_never_learnt_there(tmp_path: Path) -> None:
    data = tiny(with_drives(tmp_path)).data
    held_objects: list[int] = []
    held_road: list[int] = []
    for fold in range(3):
        sets = find_sets(replace(data, fold=f"{fold}/3"))
        assert sets.objects is not None and sets.road is not None
        learnt = {subset.name: set(subset.indices) for subset in sets.train}
        assert not learnt["kitti/object"] & set(sets.objects.indices)
        assert not learnt["kitti/road"] & set(sets.road.indices)
        held_objects += sets.objects.indices
        held_road += sets.road.indices
    assert sorted(held_objects) == list(range(12)) and sorted(held_road) == list(range(9))


def test_parts_are_contiguous() -> None:
    names = [f"um_{i:06d}" for i in range(10)]
    assert contiguous_part(names, 1, 5) == names[2:4]
    assert contiguous_part(names, 0, 2) == names[:5]
    assert [len(contiguous_part(names, part, 4)) for part in range(4)] == [3, 3, 2, 2]
    assert [contiguous_part(names[:2], part, 3) for part in range(3)] == [names[:1], names[1:2], []]


def test_pooled_is_mean_and_standard_deviation_of_ended_folds(tmp_path: Path) -> None:
    for i, (value, ended) in enumerate([(60.0, True), (68.0, True), (99.0, False)]):
        folder = tmp_path / f"fold-{i}"
        folder.mkdir()
        result = {"ended": ended, "metrics": {"road_max_f": value}, "seconds": 10.0, "best_step": 100 * i}
        (folder / "results.json").write_text(json.dumps(result))
    results = pooled(tmp_path, 4)
    # deviations -4 and +4 about 64: sqrt((16 + 16) / 1)
    assert results["metrics"]["road_max_f"] == {"mean": 64.0, "std": 5.657, "folds": [60.0, 68.0]}
    assert results["ended"] == 2 and results["seconds"] == 20.0


def test_a_broken_cross_validation_goes_on_with_the_fold_it_was_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda run: run)
    config = tiny(with_drives(tmp_path / "data"), steps=2, evaluate_every=2)
    whole = module.train
    calls = 0

    def dies(*args: object, **options: object) -> Path:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return whole(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "train", dies)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(config, tmp_path / "run", 2)
    assert json.loads((tmp_path / "run/results.json").read_text())["ended"] == 1
    first = (tmp_path / "run/fold-0/best.pt").stat().st_mtime_ns
    monkeypatch.setattr(module, "train", whole)
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert "results.json" in capsys.readouterr().out
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["ended"] == 2 and len(results["metrics"]["road_max_f"]["folds"]) == 2
    assert (tmp_path / "run/fold-0/best.pt").stat().st_mtime_ns == first
    folds = [json.loads((tmp_path / f"run/fold-{i}/config.json").read_text()) for i in range(2)]
    assert folds[0]["data_hash"] != folds[1]["data_hash"]


def test_nothing_to_hold_out_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="synthetic street alone"):
        cross_validate(tiny(), tmp_path / "run", 2)
    root = kitti(tmp_path / "data")
    with pytest.raises(UserError, match="drive of 12 frames is unknown"):
        cross_validate(tiny(root), tmp_path / "run", 2)
