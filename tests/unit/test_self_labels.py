"""What a network finds in several views and a mask confirms becomes a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dataset_folders as make
import numpy as np
import pytest

from datasets.camvid import CamVid
from datasets.labels import CAR, CYCLIST, PEDESTRIAN
from perception.errors import UserError
from perception.types import Detections
from tools.recipes.self_labels import Seen, confirmed, look, merged, views

SHAPE_HW = (384, 1248)
CAR_MASK, PERSON_MASK = 8, 9


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def bright_parts(image: np.ndarray) -> Detections:
    """A perfect detector of one white rectangle."""
    rows, columns = np.nonzero(image[..., 0] > 128)
    if not len(rows):
        return Detections.empty()
    return detections((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 0.8, CAR))


def picture(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    image = np.zeros((360, 480, 3), np.uint8)
    image[top:bottom, left:right] = 255
    return image


def test_bands_are_of_the_network_s_shape_and_cover_the_width():
    windows = [window for window, mirrored in views((360, 480), SHAPE_HW) if not mirrored]
    assert windows[0] == (0, 0, 480, 360)
    for left, top, right, bottom in windows[1:]:
        assert (right - left) / (bottom - top) == pytest.approx(1248 / 384, rel=0.03)
    assert {left for left, *_ in windows[1:]} == {0, 120, 240}
    assert sum(mirrored for _, mirrored in views((360, 480), SHAPE_HW)) == 1


@pytest.mark.parametrize(
    ("box", "seen_in"),
    [
        ((200, 170, 230, 190), 4),  # whole, mirrored, left and middle band
        ((20, 170, 60, 190), 3),  # whole, mirrored, left
        ((20, 20, 60, 40), 2),  # above the bands
        ((180, 170, 300, 190), 3),  # cut by the left band: what is in that would be a second, shorter car
        ((100, 150, 400, 200), 2),  # cut by every band
    ],
)
def test_views_agree_on_where_a_thing_is(box: tuple[int, int, int, int], seen_in: int):
    seen = look(bright_parts, picture(*box), SHAPE_HW)
    assert seen.views.tolist() == [seen_in]
    np.testing.assert_allclose(seen.boxes_xyxy, [box], atol=1e-4)


def test_groups_are_averaged_by_score_and_the_weaker_class_goes():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 12, 10], [0, 0, 10, 10], [50, 0, 60, 10]], np.float32)
    seen = merged(boxes, np.float32([0.6, 0.2, 0.5, 0.3]), np.int64([CAR, CAR, CYCLIST, CAR]), np.int64([0, 1, 1, 0]))
    assert seen.class_ids.tolist() == [CAR, CAR] and seen.views.tolist() == [2, 1]
    np.testing.assert_allclose(seen.boxes_xyxy[0], [0, 0, 10.5, 10])
    np.testing.assert_allclose(seen.scores, [0.6, 0.3])


def test_nothing_seen_is_nothing():
    seen = look(lambda image: Detections.empty(), picture(0, 0, 1, 1), SHAPE_HW)
    assert len(confirmed(seen, np.zeros((360, 480), np.uint8), 0.3).scores) == 0


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"scores": np.float32([0.2])}, False),
        ({"views": np.int64([1])}, False),
        ({"class_ids": np.int64([PEDESTRIAN])}, False),
        ({"boxes_xyxy": np.float32([[10, 10, 60, 30]])}, False),  # half of it is not car
        ({"boxes_xyxy": np.float32([[-80, 10, -40, 30]])}, False),  # outside
    ],
)
def test_a_mask_confirms(change: dict, kept: bool):
    numbers = np.zeros((50, 100), np.uint8)
    numbers[10:30, 10:35] = CAR_MASK
    seen = Seen(np.float32([[10, 10, 36, 30]]), np.float32([0.4]), np.int64([CAR]), np.int64([2]))
    assert (len(confirmed(replace(seen, **change), numbers, 0.3).scores) == 1) == kept


def test_camvid_takes_them_beside_its_own(tmp_path: Path):
    root, found = make.camvid(tmp_path), tmp_path / "found"
    numbers = np.full((make.HEIGHT, make.WIDTH), 3, np.uint8)
    numbers[5:25, 20:28] = PERSON_MASK
    numbers[10:20, 40:60] = CAR_MASK
    name = CamVid(root).names[0]
    make.write_mask(root / "trainannot" / f"{name}.png", numbers)
    found.mkdir()
    with pytest.raises(UserError, match=r"no such file.*\n.*\n.*tools\.recipes\.self_labels --checkpoint"):
        CamVid(root, found=found)
    for each in CamVid(root).names:
        (found / f"{each}.txt").write_text("")
    assert CamVid(root, found=found)[0].class_ids.tolist() == [PEDESTRIAN]
    (found / f"{name}.txt").write_text("Car -1 -1 -10 40 10 50 20 -1 -1 -1 -1000 -1000 -1000 -10 0.8\n")
    data = CamVid(root, found=found)
    sample = data[0]
    assert sample.class_ids.tolist() == [PEDESTRIAN, CAR] and sample.boxes_xyxy[1].tolist() == [40, 10, 50, 20]
    assert sample.ignore_class_ids.tolist() == [CAR], "what was not told apart stays ignored"
    assert data.files(0)[-1] == found / f"{name}.txt", "a changed label changes the data's hash and the cache's copy"


def test_the_command_writes_a_file_for_every_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch = pytest.importorskip("torch")
    from tools.recipes.self_labels import main
    from training.checkpoint import model_config_to_json, save_checkpoint
    from training.models.network import ModelConfig, Network

    make.camvid(tmp_path / "data/camvid")
    torch.manual_seed(0)
    network = Network(ModelConfig(channels=16))
    weights = network.state_dict()
    config = model_config_to_json(network.config)
    state = {"ema": weights, "network": weights, "model_config": config, "description": "{}"}
    save_checkpoint(tmp_path / "a.pt", state)
    out = tmp_path / "out"
    arguments = ["--checkpoint", str(tmp_path / "a.pt"), "--out", str(out), "--size-hw", "64", "128"]
    assert main([*arguments, "--root", str(tmp_path / "data")]) == 0
    assert sorted(path.stem for path in out.glob("*.txt")) == sorted(CamVid(tmp_path / "data/camvid").names)
    capsys.readouterr()
    assert main([*arguments, "--root", str(tmp_path / "nothing")]) == 2
    assert "no images" in capsys.readouterr().err
    in_the_way = str(tmp_path / "a.pt")
    assert main([*arguments, "--root", str(tmp_path / "data"), "--out", in_the_way]) == 2
    assert capsys.readouterr().err.startswith(in_the_way)
    capsys.readouterr()
    assert main([*arguments, "--root", str(tmp_path / "data"), "--least-score", "7"]) == 2
    assert "--least-score 7" in capsys.readouterr().err
