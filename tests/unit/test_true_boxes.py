"""Networks that are given labelled boxes: the answer belongs to the labelled box, not to the one that was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from datasets.sample import Sample  # noqa: E402
from perception.errors import UserError  # noqa: E402
from tools.benchmarks.true_boxes import TrueBoxes  # noqa: E402
from training.checkpoint import model_config_to_json, save_checkpoint  # noqa: E402
from training.models.config import ModelConfig  # noqa: E402
from training.models.heads.detection import DetectionConfig  # noqa: E402
from training.models.network import Network  # noqa: E402

SIZE_HW = (96, 160)
BOXES = np.array([[20.0, 30, 60, 60], [100, 40, 116, 80]], np.float32)


def network(**options: bool) -> Network:
    torch.manual_seed(0)
    config = ModelConfig(channels=16, detection=DetectionConfig(max_detections=20, **options))
    return Network(config).eval()


def sample(boxes: np.ndarray) -> Sample:
    image = np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), np.uint8)
    class_ids = np.array([0, 1], np.int64)[: len(boxes)]
    return Sample(
        image,
        "one",
        boxes_xyxy=boxes,
        class_ids=class_ids,
        ignore_boxes_xyxy=np.zeros((0, 4), np.float32),
    )


def test_each_label_gets_an_answer_in_its_own_box() -> None:
    given = TrueBoxes(network(distance=True, cuboid=True), SIZE_HW)
    found = given(sample(BOXES))
    assert found.boxes_xyxy == pytest.approx(BOXES, abs=1e-3)
    assert found.class_ids.tolist() == [0, 1] and found.scores.tolist() == [1, 1]
    assert found.depths is not None and (found.depths > 0).all() and found.cuboids is not None
    middles, sides = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
    # an untrained branch looks for the centre near the middle of the box that it is given
    assert (np.abs(found.cuboids[:, :2] - middles) < 0.3 * sides).all()


def test_the_branch_looks_at_the_labelled_box() -> None:
    given = TrueBoxes(network(distance=True, cuboid=True), SIZE_HW)
    narrow, wide = (given(sample(BOXES[:1] + np.array([0, 0, wider, 0], np.float32))) for wider in (0, 30))
    assert narrow.cuboids is not None and wide.cuboids is not None
    assert wide.cuboids[0, 0] - narrow.cuboids[0, 0] == pytest.approx(15, abs=4)


def test_no_labels_no_answer() -> None:
    found = TrueBoxes(network(distance=True, cuboid=True), SIZE_HW)(sample(BOXES[:0]))
    assert len(found) == 0 and found.cuboids is not None and found.cuboids.shape == (0, 9)


def test_a_checkpoint_without_3d_boxes_is_refused(tmp_path: Path) -> None:
    plain = network()
    state = {"ema": plain.state_dict(), "model_config": model_config_to_json(plain.config)}
    save_checkpoint(tmp_path / "plain.pt", state)
    with pytest.raises(UserError, match="no 3-D boxes"):
        TrueBoxes.load(tmp_path / "plain.pt")
