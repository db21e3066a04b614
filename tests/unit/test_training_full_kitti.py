"""The full-KITTI recipe on a made-up set: index, split, loader, a training step, a scoring of a shard."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import tiny  # noqa: E402

from datasets import kitti_object, kitti_road  # noqa: E402
from perception.errors import UserError  # noqa: E402
from tools.benchmarks import synthetic_kitti  # noqa: E402
from tools.benchmarks.synthetic_kitti import make  # noqa: E402
from training import evaluate, loop  # noqa: E402
from training.sets import find_sets  # noqa: E402

ROW = "Car 0.00 0 -1.57 10.00 20.00 90.00 61.00 1.50 1.60 3.90 1.00 1.65 20.00 0.00\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A hundredth of KITTI, a sixth as large."""
    names = [f"{i:06d}" for i in range(75)]
    texts = {f"training/label_2/{name}.txt": ROW for name in names}
    texts |= {"ImageSets/train.txt": "\n".join(names[::2]), "ImageSets/val.txt": "\n".join(names[1::2])}
    make(tmp_path / "data", texts, {"um": 5, "umm": 5, "uu": 5}, size_hw=(63, 208))
    return tmp_path / "data"


def test_the_recipe_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda run: run)
    config = tiny(root, steps=2, evaluate_every=2)
    sets = find_sets(config.data)
    assert [(s.name, len(s.indices)) for s in sets.train] == [("kitti/object", 38), ("kitti/road", 12)]
    assert sets.objects is not None and sets.road is not None
    assert (len(sets.objects.indices), len(sets.road.indices)) == (37, 3)
    config = replace(config, data=replace(config.data, cache=tmp_path / "cache", workers=1))
    loop.train(config, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["steps"] == 2 and {"car_moderate", "road_max_f"} <= results["metrics"].keys()
    assert list((tmp_path / "cache").rglob("*.sample"))


def shares(root: Path, road_share: float = 0.0) -> dict[str, float]:
    config = tiny(root)
    sets = find_sets(replace(config.data, road_share=road_share))
    total = sum(subset.weight for subset in sets.train)
    return {subset.name: subset.weight / total for subset in sets.train}


def test_large_sets_count_with_the_root_of_their_size(root: Path) -> None:
    """A sixth of full KITTI's images are road frames; small sets keep the weights that were chosen for them."""
    assert shares(root)["kitti/road"] == pytest.approx(0.12 / 0.32), "38 and 12 images are few"
    weights = [kitti_object.DATA_SET.weight_of(3712), kitti_road.DATA_SET.weight_of(230)]
    assert weights[1] / sum(weights) == pytest.approx(0.176, abs=0.001)


def test_the_share_of_road_frames_can_be_told(root: Path) -> None:
    assert shares(root, 0.5) == pytest.approx({"kitti/object": 0.5, "kitti/road": 0.5})
    with pytest.raises(UserError, match="road_share"):
        tiny(root, data=replace(tiny(root).data, road_share=1.0))


def test_shards_are_disjoint_and_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = find_sets(tiny(root).data).objects
    assert subset is not None
    monkeypatch.setattr(evaluate, "world", lambda: 4)
    places: list[int] = []
    for number in range(4):
        monkeypatch.setattr(evaluate, "rank", lambda number=number: number)
        for readers in (0, 2):
            shard = [(k, sample.name) for k, sample in evaluate.my_samples(subset, readers)]
            assert [name for _, name in shard] == [subset.source.names[subset.indices[k]] for k, _ in shard]
        places += [k for k, _ in shard]
    assert sorted(places) == list(range(37))


@pytest.mark.parametrize(
    ("name", "out", "said"),
    [
        ("labels.zip", "new", "expected KITTI's labels as a zip"),
        ("empty.zip", "new", "holds no training/label_2"),
        ("whole.zip", ".", "new folder"),
        ("whole.zip", "empty.zip/new", "expected a folder with room"),
    ],
)
def test_what_the_made_up_set_cannot_be_made_of(
    name: str,
    out: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No zip, no labels in it, a folder with something in it, which is left as it is, and no folder."""
    (tmp_path / "labels.zip").write_text("no zip")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as file:
        file.writestr("training/label_2/000000.txt", ROW)
    arguments = ["--labels", str(tmp_path / name), "--out", str(tmp_path / out)]
    monkeypatch.setattr("sys.argv", ["made_up_kitti", *arguments])
    with pytest.raises(SystemExit, match="2"):
        synthetic_kitti.main()
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.zip", "labels.zip", "whole.zip"]


@pytest.mark.parametrize(
    "name", ["../ImageSets/train.txt", "/ImageSets/train.txt", "training/label_2/../../x.txt", "x.txt"]
)
def test_other_names_in_the_zip_are_not_written(name: str) -> None:
    assert synthetic_kitti.WANTED.fullmatch("training/label_2/000000.txt")
    assert not synthetic_kitti.WANTED.fullmatch(name)
