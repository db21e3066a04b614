"""Training straight from COCO and YOLO, and the command that converts."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.catalogue import ExtraLabels, divide, open_sets
from datasets.formats.annotations import Box, as_mask_file
from datasets.labels import ALL_CLASSES
from datasets.readers.annotated import AnnotatedImages
from datasets.splits import HoldoutOptions
from perception.classes import ClassInfo, classes_named
from perception.cli.main import main
from perception.errors import UserError
from perception.types import CLASS_NAMES

WIDTH, HEIGHT = 208, 64
BUS = ClassInfo("Bus", labels=("bus", "coach"), neighbours=("truck",))


def coco(root: Path, images: int = 10, drives: int = 5, split: str = "") -> Path:
    """Images of two recordings' frames each, with a bright bus, a car, a truck, a crowd of cars, and a tree."""
    from dataset_folders import write, write_image

    rows, entries = [], []
    boxes = [[4, 20, 40, 30], [60, 30, 30, 20], [100, 20, 30, 30], [140, 30, 20, 20], [170, 10, 20, 40]]
    for i in range(images):
        write_image(root / f"images/{i:03d}.png", i, (HEIGHT, WIDTH))
        drive = {"drive": f"d{i * drives // images}"} if drives else {}
        entries.append({"id": i, "file_name": f"{i:03d}.png", "width": WIDTH, "height": HEIGHT, **drive})
        for category, box in enumerate(boxes):
            row = {"id": len(rows) + 1, "image_id": i, "category_id": [0, 1, 2, 1, 3][category], "bbox": box}
            rows.append({**row, "iscrowd": int(category == 3)})
    categories = [{"id": k, "name": name} for k, name in enumerate(("coach", "car", "truck", "tree"))]
    content = {"images": entries, "annotations": rows, "categories": categories}
    write(root / f"annotations/instances{split}.json", json.dumps(content))
    return root


def test_a_sample_of_coco(tmp_path: Path) -> None:
    (coco(tmp_path) / "road").mkdir()
    road = np.zeros((HEIGHT, WIDTH), np.uint8)
    road[40:] = 1
    (tmp_path / "road/000.png").write_bytes(as_mask_file(road))
    source = AnnotatedImages(tmp_path, "coco", ExtraLabels(classes=(*classes_named(("Car",)), BUS)))
    sample = source[0]
    assert sample.class_names == (*CLASS_NAMES, "Bus") and sample.labelled_classes == (True, False, False, True)
    assert sample.boxes_xyxy is not None and sample.class_ids is not None and sample.ignore_class_ids is not None
    assert sample.class_ids.tolist() == [3, 0]
    assert sample.boxes_xyxy.tolist() == [[4, 20, 44, 50], [60, 30, 90, 50]]
    assert sample.ignore_class_ids.tolist() == [3, 0], "trucks for buses, the crowd for cars; the tree is background"
    assert sample.road is not None and sample.road[50].all() and source[1].road is None
    assert sample.confidences is None and source.rule.background == ("tree",)
    assert source.variant != AnnotatedImages(tmp_path, "coco", ExtraLabels()).variant


def test_scores_of_machines_are_confidences_and_marked_regions_are_ignored(tmp_path: Path) -> None:
    source = AnnotatedImages(coco(tmp_path), "coco", ExtraLabels())
    box = Box("car", (1, 2, 30, 40), score=0.6)
    region = Box("DontCare", (50, 2, 90, 40), ignore=True)
    image = replace(source.found.images[0], boxes=(box, region, Box("car", (100, 2, 130, 40))))
    source.found = replace(source.found, images=(image,))
    sample = source[0]
    assert sample.confidences is not None and sample.confidences.tolist() == pytest.approx([0.6, 1])
    assert sample.ignore_class_ids is not None and sample.ignore_class_ids.tolist() == [ALL_CLASSES]


def rules(root: Path, options: HoldoutOptions | None = None) -> tuple[str, set[str]]:
    (one,), holdout = divide(open_sets(root), options)
    held = holdout.sets[one.opened.data_set.name]
    return held.rule, set(held.names)


def test_what_is_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert rules(coco(tmp_path / "drives")) == ("every fifth drive", {"000", "001"})
    folds = rules(tmp_path / "drives", HoldoutOptions(1, 5))
    assert folds[0] == "fold 1 of 5 by recording" and len(folds[1]) == 2
    caplog.set_level(logging.WARNING)
    assert rules(coco(tmp_path / "none", drives=0)) == ("nothing", set())
    assert "nothing is held out" in caplog.text
    from dataset_folders import yolo

    assert rules(yolo(tmp_path / "yolo")) == ("split val", {"1"})
    (tmp_path / "yolo/data.yaml").write_text("train: images/train\ntest: images/val\nnames: [a, b]\n")
    assert rules(tmp_path / "yolo") == ("split test", {"val/1"})


def test_problems_are_said_when_a_set_is_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (coco(tmp_path) / "images/003.png").unlink()
    source = AnnotatedImages(tmp_path, "coco", ExtraLabels())
    assert len(source) == 9 and "missing image: left out: 1, the first is 003.png" in caplog.text
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no image with labels"):
        AnnotatedImages(tmp_path, "coco", ExtraLabels())


@pytest.mark.parametrize("form", ["coco", "yolo", "kitti"])
def test_a_network_with_a_new_class_is_trained_from(form: str, tmp_path: Path) -> None:
    """COCO → each format → two steps of training with buses, validated on buses."""
    pytest.importorskip("torch")
    pytest.importorskip("tensorboard")
    from training_runs import changed, tiny

    from training.loop import train
    from training.sets import find_sets

    root = coco(tmp_path / "coco")
    if form != "coco":
        assert main(["data", "convert", str(root), str(tmp_path / form), "--to", form]) == 0
        root = tmp_path / form
    if form == "yolo":  # the format knows no recordings
        (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [coach, car, truck, tree]\n")
        for kind in ("images", "labels"):
            (root / kind / "val").mkdir()
            for path in sorted((root / kind / "train").iterdir())[:2]:
                path.rename(root / kind / "val" / path.name)
    model = replace(tiny().model, class_names=("Car", "Bus"), classes=(BUS,))
    config = changed(tiny(root), model=model, steps=2, evaluate_every=2)
    sets = find_sets(config.data, classes=config.model.class_infos)
    assert [(s.name.split("/")[0], len(s.indices)) for s in sets.train] == [(form, 8)]
    assert sets.objects is not None and len(sets.objects.indices) == 2
    best = train(config, tmp_path / "run")
    scores = json.loads((best.parent / "results.json").read_text())["metrics"]
    assert {"bus_ap50", "score"} <= set(scores) and ("car_moderate" in scores) == (form == "kitti")


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_other_labels_are_other_data(form: str, tmp_path: Path) -> None:
    """The hash of a run's data and the key of a cached copy change with the labels."""
    pytest.importorskip("torch")
    from training_runs import tiny

    from training.cache import CachedSource
    from training.sets import find_sets

    root = coco(tmp_path / "coco")
    if form == "yolo":
        assert main(["data", "convert", str(root), str(tmp_path / form), "--to", form]) == 0
        root = tmp_path / form
    label = root / ("annotations/instances.json" if form == "coco" else "labels/train/000.txt")

    def seen() -> tuple[str, str]:
        sets = find_sets(tiny(root).data)
        source = next(s.source for s in (*sets.train, sets.objects) if s is not None)
        return sets.data_hash(), CachedSource(source, tmp_path / "cache", 1000, 10**9).path(0).name

    before = seen()
    assert before == seen()
    label.write_text(label.read_text().replace("20", "21", 1).replace("0.", "0.0", 1))
    after = seen()
    assert before[0] != after[0] and before[1] != after[1]


def test_the_convert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = coco(tmp_path / "in")
    (root / "images/003.png").unlink()
    words = ["data", "convert", str(root), str(tmp_path / "out"), "--to", "yolo"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert (
        "9 images, 45 boxes of coach, car, truck, tree" in said
        and "missing image: left out: 1\n      003.png" in said
    )
    assert "yolo cannot hold recordings (drives): 9" in said and "yolo cannot hold ignore regions: 9" in said
    assert main(words) == 2 and "holds files" in capsys.readouterr().err
    few = [*words[:3], str(tmp_path / "few"), "--to", "coco", "--classes", "coach", "--json", "--images", "link"]
    assert main(few) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["images"] == 9 and values["classes"] == ["coach", "car"] and values["boxes"] == 18
    assert values["problems"]["box of a class that was not chosen: left out"] == 27
    assert main([*words[:3], str(tmp_path / "x"), "--to", "coco", "--classes", "lorry"]) == 2
    assert "some of coach, car, truck, tree" in capsys.readouterr().err
    assert main(["data", "convert", str(tmp_path / "gone"), str(tmp_path / "x"), "--to", "coco"]) == 2
    assert main([*words[:3], str(tmp_path / "x"), "--to", "coco", "--from", "voc"]) == 2
    assert not (tmp_path / "x").exists()
