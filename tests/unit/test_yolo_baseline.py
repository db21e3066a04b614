"""The network that ours is compared with: its size, its assignment by hand, what it is not taught, that it learns."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from training_runs import changed, kitti, tiny  # noqa: E402

from perception.errors import UserError  # noqa: E402
from tools.baselines import yolo as yolo_baseline  # noqa: E402
from tools.baselines.yolo_network import NoRoad, YoloHead, YoloNano, joint_logits, sim_ota  # noqa: E402
from tools.recipes import ablation  # noqa: E402
from training.config import HardwareConfig, TrainConfig  # noqa: E402
from training.loop import train_step  # noqa: E402
from training.models.head import Features  # noqa: E402
from training.models.heads.detection import DetectionConfig, DetectionTargets, grid_points  # noqa: E402
from training.models.network import DeployedNetwork, ModelConfig  # noqa: E402

SIZE = (64, 96)
POINTS = 96 + 24 + 6


def targets(
    boxes: list[list[float]],
    classes: list[int],
    labelled: tuple[bool, ...] = (True, True, True),
    ignore: list[list[float]] | None = None,
    ignore_class: int = -1,
) -> DetectionTargets:
    regions = torch.tensor(ignore or [], dtype=torch.float32).reshape(1, -1, 4)
    return DetectionTargets(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4),
        class_ids=torch.tensor(classes, dtype=torch.long).reshape(1, -1),
        ignore_xyxy=regions,
        ignore_class_ids=torch.full((1, regions.shape[1]), ignore_class),
        confidences=torch.ones(1, len(boxes)),
        labelled=torch.tensor([labelled]),
        depths=torch.full((1, len(boxes)), math.nan),
        cuboids=torch.full((1, len(boxes), 6), math.nan),
    )


def head() -> YoloHead:
    torch.manual_seed(0)
    return YoloHead((64, 128, 256), 3, DetectionConfig()).eval()


def features(seed: int = 1) -> Features:
    rng = torch.Generator().manual_seed(seed)
    levels = [
        torch.randn(1, c, SIZE[0] // s, SIZE[1] // s, generator=rng).requires_grad_()
        for c, s in ((64, 8), (128, 16), (256, 32))
    ]
    return Features(torch.zeros(1, 32, SIZE[0] // 4, SIZE[1] // 4), levels)


def test_it_is_as_large_as_the_paper_says() -> None:
    """YOLOX-nano: 0.91 million parameters, 1.08 GFLOPs at 416×416 with COCO's 80 classes."""
    from torch.utils.flop_counter import FlopCounterMode

    network = YoloNano(ModelConfig(class_names=tuple(map(str, range(80))))).eval().to("meta")
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(0.91e6, rel=0.01)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 416, 416, 3, dtype=torch.uint8, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(1.08, rel=0.05)


def test_it_speaks_as_our_network_does() -> None:
    deployed = DeployedNetwork(YoloNano(ModelConfig()).eval(), SIZE)
    with torch.inference_mode():
        boxes, scores, class_ids, road = deployed(torch.zeros(2, *SIZE, 3, dtype=torch.uint8))
    assert boxes.shape == (2, 100, 4) and scores.shape == class_ids.shape == (2, 100)
    assert (scores.diff(dim=1) <= 0).all() and not road.any() and road.shape == (2, 16, 24)


def test_a_joint_logit_is_that_of_the_product() -> None:
    objectness, alone = torch.tensor([[0.3, -40.0]]), torch.tensor([[[1.2, -2.0], [50.0, -60.0]]])
    joint = joint_logits(objectness, alone)
    product = objectness.sigmoid()[..., None] * alone.sigmoid()
    assert torch.allclose(joint.sigmoid(), product) and joint.isfinite().all()


def test_boxes_are_centre_and_log_size_in_strides() -> None:
    points, strides = torch.tensor([[20.0, 28.0]]), torch.tensor([[8.0]])
    numbers = torch.tensor(
        [[0.5, 0.0, math.log(2.0), math.log(4.0)]]
    )  # centre: half a cell right of the cell's corner
    assert torch.allclose(head().boxes(numbers, points, strides), torch.tensor([[12.0, 8.0, 28.0, 40.0]]))


def test_an_object_takes_as_many_points_as_its_overlaps_add_up_to() -> None:
    """Three points inside say the object exactly: the sum of overlaps is 3. Others inside say a far box."""
    points, strides = grid_points(SIZE, torch.device("cpu"))
    wanted = [16.0, 16.0, 48.0, 48.0]
    boxes = torch.tensor([[900.0, 900, 910, 910]]).repeat(POINTS, 1)
    inside = [i for i in range(96) if 24 < points[i, 0] < 44 and 24 < points[i, 1] < 44][:3]
    boxes[inside] = torch.tensor(wanted)
    owner = sim_ota(torch.zeros(1, POINTS, 3), boxes[None], points, strides, targets([wanted], [1]))
    assert (owner[0] >= 0).nonzero().flatten().tolist() == inside
    nobody = sim_ota(torch.zeros(1, POINTS, 3), boxes[None], points, strides, targets([wanted], [-1]))
    assert (nobody < 0).all(), "padding takes no points"
    assert (sim_ota(torch.zeros(1, POINTS, 3), boxes[None], points, strides, targets([], [])) < 0).all()


def test_a_disputed_point_goes_where_it_costs_least() -> None:
    points, strides = grid_points(SIZE, torch.device("cpu"))
    left, right = [0.0, 0, 48, 64], [40.0, 0, 88, 64]
    boxes = torch.tensor([right]).repeat(POINTS, 1)
    owner = sim_ota(torch.zeros(1, POINTS, 3), boxes[None], points, strides, targets([left, right], [0, 0]))
    assert (owner[0] == 1).sum() == 10 and (owner[0] == 0).sum() <= 1


@pytest.mark.parametrize("labelled", [(False, False, False), (False, True, False)])
def test_what_is_not_labelled_is_not_taught_as_background(labelled: tuple[bool, ...]) -> None:
    network = head()
    raw = network(features())
    raw.alone.retain_grad()
    network.loss(raw, targets([], [], labelled), SIZE)["objectness"].backward()
    taught = raw.alone.grad.abs().sum((0, 1)) > 0
    assert taught.tolist() == list(labelled)


def test_a_picture_without_labels_adds_nothing() -> None:
    network, maps = head(), features()
    losses = network.loss(network(maps), targets([], [], (False,) * 3), SIZE)
    sum(losses.values()).backward()
    assert all(value.item() == 0 for value in losses.values()) and all(not map.grad.any() for map in maps.levels)


def test_an_ignore_region_of_all_classes_is_silent() -> None:
    network = head()
    whole = [[0.0, 0.0, 96.0, 64.0]]
    raw = network(features())
    assert network.loss(raw, targets([], [], ignore=whole), SIZE)["objectness"].item() == 0
    of_one = network.loss(raw, targets([], [], ignore=whole, ignore_class=0), SIZE)["objectness"].item()
    assert 0 < of_one < network.loss(raw, targets([], []), SIZE)["objectness"].item()


def test_it_learns_two_frames_by_heart() -> None:
    torch.manual_seed(0)
    network = YoloNano(ModelConfig())
    images = torch.full((2, *SIZE, 3), 60, dtype=torch.uint8)
    images[0, 16:48, 8:40], images[1, 24:56, 48:80] = 220, 20
    both = [targets([[8.0, 16.0, 40.0, 48.0]], [0]), targets([[48.0, 24.0, 80.0, 56.0]], [2])]
    names = [field.name for field in fields(DetectionTargets)]
    together = DetectionTargets(**{n: torch.cat([getattr(t, n) for t in both]) for n in names})
    from training.data import Batch

    batch = Batch(images, together, torch.full((2, 3, 16, 24), 255, dtype=torch.uint8))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    config = replace(TrainConfig(), hardware=HardwareConfig(device="cpu"))
    losses = [sum(train_step(network, batch, optimiser, config)[0].values()) for _ in range(90)]
    assert losses[-1] < 0.4 * losses[0]
    with torch.inference_mode():
        network.train()  # ninety steps are few for the running statistics
        boxes, scores, class_ids, _ = DeployedNetwork(network, SIZE).train()(images)
    assert class_ids[:, 0].tolist() == [0, 2] and (scores[:, 0] > 0.3).all()
    assert (boxes[:, 0] - together.boxes_xyxy[:, 0]).abs().max() < 8


def test_no_road_has_nothing_to_learn() -> None:
    road = NoRoad()
    assert road.loss(torch.zeros(1, 4, 4), None, (16, 16)) == {} and not list(road.parameters())


def test_both_networks_are_trained_by_the_same_run() -> None:
    theirs, ours = (yolo_baseline.configuration(yolo_baseline.Options(ours=ours)) for ours in (False, True))
    assert theirs == replace(ours, preset="yolo-nano-class") and ours.data.crop_hw == (256, 512)


def test_a_run_is_scored_as_the_ablation_is_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = kitti(tmp_path / "data")
    monkeypatch.setattr("training.loop.draw_curves", lambda run: run)
    small = tiny(root)
    monkeypatch.setattr(
        yolo_baseline,
        "configuration",
        lambda o: changed(small, preset="yolo-nano-class", steps=o.steps, seed=o.seed, evaluate_every=o.steps),
    )
    monkeypatch.setattr(ablation, "measures", lambda network, root, road: {"car_moderate": 5.0 + road})
    out = tmp_path / "out"
    call = ["--root", str(root), "--out", str(out), "--steps", "4", "--seed", "3"]
    assert yolo_baseline.main(call) == 0
    assert "| YOLO-nano class | 1 | 5.0 | – |" in capsys.readouterr().out
    path = ablation.result_path(out, ablation.COMPARED, 3)
    assert json.loads(path.read_text()) == {"car_moderate": 5.0}
    path.unlink()
    assert yolo_baseline.main([*call[:-3], "5", *call[-2:]]) == 2, "other steps are another run"
    assert "a run with another evaluate_every, steps" in capsys.readouterr().err
    assert yolo_baseline.main(call) == 0 and path.exists(), "scored again without a step"
    with pytest.raises(UserError):
        from training.cli import stored_run

        stored_run(path.parent)


def test_it_can_follow_a_run_of_a_study(tmp_path: Path) -> None:
    """Same images, labels, steps and seed; random weights, of which none is frozen."""
    from training.checkpoint import resolved_config
    from training.config import PRESETS

    small = PRESETS["small"]()
    theirs = replace(
        changed(small, seed=7, steps=90, frozen_stages=4, frozen_norm=True, backbone_learning_rate=0.3),
        data=replace(small.data, soft_labels=False, label_share=0.3, crop_hw=(128, 256)),
    )
    (tmp_path / "config.json").write_text(json.dumps({"config": resolved_config(theirs), "init": None}))
    ours = yolo_baseline.configuration(yolo_baseline.Options(like=tmp_path))
    assert (ours.data, ours.schedule, ours.augment) == (theirs.data, theirs.schedule, theirs.augment)
    assert not ours.model.pretrained and ours.model.backbone_weights is None
    assert (ours.optimiser.frozen_stages, ours.optimiser.frozen_norm) == (0, False)
    assert ours.optimiser.backbone_learning_rate == 1.0 and ours.preset not in PRESETS
