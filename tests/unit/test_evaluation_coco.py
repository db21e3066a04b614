"""COCO's mean average precision: equal to pycocotools, for any classes, from results and from a model."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval")

from perception.classes import ClassInfo, classes_named
from perception.cli.main import main
from perception.errors import UserError
from perception.evaluation.coco import SUMMARY, evaluate, of_classes, read_results, read_truth

CATEGORIES = [{"id": 3, "name": "bus"}, {"id": 7, "name": "traffic light"}, {"id": 9, "name": "tree"}]


def scene(seed: int, images: int = 12) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Labels with crowds, small and large objects, and a category without any; detections near them and elsewhere."""
    rng = np.random.default_rng(seed)
    labels: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(images):
        for _ in range(int(rng.integers(0, 8))):
            x, y = rng.uniform(0, 300, 2).round(2)
            w, h = np.exp(rng.uniform(1.5, 5, 2)).round(2)
            category = int(rng.choice([3, 7]))
            crowd = int(rng.random() < 0.1)
            box = [float(v) for v in (x, y, w, h)]
            row = {"id": len(labels) + 1, "image_id": image, "category_id": category, "bbox": box}
            labels.append({**row, "area": float(w * h), "iscrowd": crowd})
            if rng.random() < 0.8:
                moved = [float(v) for v in np.array(box) * rng.uniform(0.85, 1.15, 4)]
                score = float(rng.random().__round__(3))
                found.append({"image_id": image, "category_id": category, "bbox": moved, "score": score})
        for _ in range(3):
            box = [float(v) for v in rng.uniform(5, 200, 4)]
            score = float(rng.random() / 2)
            found.append({"image_id": image, "category_id": int(rng.choice([3, 7])), "bbox": box, "score": score})
    entries = [{"id": k, "file_name": f"{k}.png", "width": 400, "height": 400} for k in range(images)]
    return {"images": entries, "annotations": labels, "categories": CATEGORIES}, found


def written(folder: Path, labels: dict[str, Any], found: list[dict[str, Any]]) -> tuple[Path, Path]:
    (folder / "labels.json").write_text(json.dumps(labels))
    (folder / "results.json").write_text(json.dumps(found))
    return folder / "labels.json", folder / "results.json"


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_pycocotools(tmp_path: Path, seed: int) -> None:
    """All twelve numbers, and AP, AP50 and AP75 of each category, to the last bit but rounding."""
    pycocotools = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    labels, results = written(tmp_path, *scene(seed))
    truth = read_truth(labels)
    ours = evaluate(truth, read_results(results, truth))
    with contextlib.redirect_stdout(io.StringIO()):
        gt = pycocotools.COCO(str(labels))
        run = COCOeval(gt, gt.loadRes(str(results)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    theirs = [None if value < 0 else 100 * value for value in run.stats]
    assert ours.total.values == pytest.approx(theirs, abs=1e-9) and len(theirs) == len(SUMMARY)
    for k, one in enumerate(ours.classes):
        precision = run.eval["precision"][:, :, k, 0, 2]
        for ours_value, part in zip(one.values, (precision, precision[:1], precision[5:6]), strict=True):
            if (part > -1).any():
                assert ours_value == pytest.approx(100 * part[part > -1].mean(), abs=1e-9)
            else:
                assert ours_value is None
    assert ours.classes[2].values == (None, None, None), "a category without objects has no score"


def hand(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Two objects of 10 x 10 in one image."""
    boxes = [[0, 0, 10, 10], [50, 50, 10, 10]]
    rows = [{"id": k, "image_id": 1, "category_id": 3, "bbox": box} for k, box in enumerate(boxes)]
    return {"images": [{"id": 1, "file_name": "a.png"}], "annotations": rows, "categories": CATEGORIES[:1]}


def detection(box: list[float], score: float, category: int = 3) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}


@pytest.mark.parametrize(
    ("found", "ap", "ap50"),
    [
        ([], 0.0, 0.0),
        ([detection([0, 0, 10, 10], 0.9), detection([50, 50, 10, 10], 0.8)], 100.0, 100.0),
        # one of two found, at every threshold: 51 of 101 recall points
        ([detection([0, 0, 10, 10], 0.9)], 100 * 51 / 101, 100 * 51 / 101),
        # IoU 0.8: good for seven of the ten thresholds
        ([detection([0, 0, 10, 8], 0.9)], 100 * 0.7 * 51 / 101, 100 * 51 / 101),
        # a false positive before the hit halves the precision
        ([detection([90, 90, 5, 5], 0.9), detection([0, 0, 10, 10], 0.8)], 50 * 51 / 101, 50 * 51 / 101),
    ],
)
def test_hand_cases(tmp_path: Path, found: list[dict[str, Any]], ap: float, ap50: float) -> None:
    labels, results = written(tmp_path, hand(found), found)
    truth = read_truth(labels)
    evaluation = evaluate(truth, read_results(results, truth))
    assert evaluation.total.values[:2] == pytest.approx((ap, ap50))
    assert evaluation.total.objects == 2 and evaluation.classes[0].values[:2] == pytest.approx((ap, ap50))


def test_classes_of_a_network_and_their_neighbours(tmp_path: Path) -> None:
    """A bus network on labels of buses, coaches, trucks (neighbours) and trees (no class)."""
    content = hand([])
    content["categories"] = [{"id": k, "name": n} for k, n in enumerate(("Bus", "coach", "truck", "tree"), 3)]
    for k, row in enumerate(content["annotations"]):
        row["category_id"] = 3 + k
    more = [(5, [0, 50, 10, 10]), (6, [50, 0, 10, 10])]
    content["annotations"] += [
        {"id": 9 + k, "image_id": 1, "category_id": c, "bbox": box} for k, (c, box) in enumerate(more)
    ]
    labels, _ = written(tmp_path, content, [])
    bus = ClassInfo("Bus", labels=("bus", "coach"), neighbours=("truck",))
    truth = of_classes(read_truth(labels), (classes_named(("Car",))[0], bus))
    assert [(row["category_id"], row["iscrowd"]) for row in truth.content["annotations"]] == [(2, 0), (2, 0), (2, 1)]
    assert "tree" in truth.warnings[0] and "Car" in truth.warnings[1]
    boxes = [[0, 0, 10, 10], [50, 50, 10, 10], [0, 50, 10, 10]]
    perfect = evaluate(truth, [detection(box, 0.9, 2) for box in boxes])
    assert perfect.total.values[0] == pytest.approx(100), "the truck counts neither way"
    with_tree = evaluate(truth, [detection(box, 0.9, 2) for box in [*boxes[:1], [50, 0, 10, 10]]])
    assert with_tree.total.values[0] is not None and with_tree.total.values[0] < 51
    with pytest.raises(UserError, match="one of the network's labels: tram"):
        of_classes(read_truth(labels), (ClassInfo("Tram"),))


@pytest.mark.parametrize(
    ("labels", "results", "said"),
    [
        ("[]", "[]", "no JSON object"),
        ('{"images": 3}', "[]", "no list 'images'"),
        ('{"images": [{"id": 1}, {"id": 1}], "categories": []}', "[]", "image ids"),
        ('{"images": [], "annotations": [{"image_id": 4, "bbox": [0, 0, 1, 1]}], "categories": []}', "[]",
         "annotation 0"),
        (None, "{}", "no list"),
        (None, '[{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1], "score": 1}]', "row 0"),
        (None, '[{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1], "score": NaN}]', "row 0"),
        (None, '[{"image_id": 2, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}]', "image_id 2"),
        (None, '[{"image_id": 1, "category_id": 4, "bbox": [0, 0, 1, 1], "score": 1}]', "category_id 4"),
    ],
)  # fmt: skip
def test_broken_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: str | None, results: str, said: str
) -> None:
    (tmp_path / "gt.json").write_text(json.dumps(hand([])) if labels is None else labels)
    (tmp_path / "found.json").write_text(results)
    words = ["--gt", str(tmp_path / "gt.json"), "--results", str(tmp_path / "found.json")]
    assert main(["evaluate", "detection", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, results = written(tmp_path, hand([]), [detection([0, 0, 10, 10], 0.9)])
    words = ["evaluate", "detection", "--gt", str(labels)]
    assert main([*words, "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert "bus" in said and "50.50" in said and "1 images, 2 objects, 1 detections" in said
    assert main([*words, "--results", str(results), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["classes"]["bus"]["AP"] == pytest.approx(100 * 51 / 101) and values["all"]["AP large"] is None
    assert main(words) == 2 and "neither --results nor --model" in capsys.readouterr().err
    assert main([*words, "--model", "nano-384x1248.onnx"]) == 2
    assert "one of the network's labels: car, pedestrian, cyclist" in capsys.readouterr().err


def test_a_model_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped network on a grey image finds nothing, and the labels of cars are all missed."""
    import cv2

    content = hand([])
    content["categories"] = [{"id": 3, "name": "car"}]
    labels, _ = written(tmp_path, content, [])
    words = [
        "evaluate",
        "detection",
        "--gt",
        str(labels),
        "--model",
        "nano-384x1248.onnx",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(words) == 2 and "1 of 1 images missing" in capsys.readouterr().err
    cv2.imwrite(str(tmp_path / "a.png"), np.full((96, 312, 3), 90, np.uint8))
    assert main([*words, "--minimum-score", "0.5", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["detections"] == 0 and values["all"]["AP"] == 0.0
    assert json.loads((tmp_path / "o/results.json").read_text()) == []
    content["images"][0]["file_name"] = "../a.png"
    labels.write_text(json.dumps(content))
    assert main(words) == 2 and "inside the folder" in capsys.readouterr().err
