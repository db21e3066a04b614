"""Sampling, decode and losses of the 3-D branch, on cases that can be checked by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402

from perception.errors import UserError  # noqa: E402
from perception.types import CLASS_NAMES  # noqa: E402
from training.checkpoint import model_config_to_json, save_checkpoint  # noqa: E402
from training.config import OptimiserConfig, TrainConfig  # noqa: E402
from training.data import Batch, collate  # noqa: E402
from training.example import TrainingImage  # noqa: E402
from training.loop import build_learner, train_step, update_average  # noqa: E402
from training.models.config import ModelConfig  # noqa: E402
from training.models.cuboid import (  # noqa: E402
    BINS,
    CENTRE_SCALE,
    GRID,
    MEAN_LWH_M,
    PREFIX,
    STRIDE,
    CuboidBranch,
    RawCuboids,
    widen,
    wrap,
)
from training.models.heads.detection import DetectionConfig  # noqa: E402
from training.models.network import Network  # noqa: E402

BOXES = torch.tensor([[100.0, 40, 180, 80]])
CAR = torch.tensor([0])


def branch() -> CuboidBranch:
    torch.manual_seed(0)
    return CuboidBranch(8, CLASS_NAMES)


def raw(angle_bin: int = 3, residual: float = 0.0, spread: float = -3.0, size: float = 0.0) -> RawCuboids:
    bins = torch.zeros(1, BINS)
    bins[0, angle_bin] = 20.0
    return RawCuboids(
        torch.tensor([[0.05, -0.1]]),
        torch.full((1, 3), size),
        torch.tensor([spread]),
        bins,
        torch.full((1, BINS), residual),
        torch.tensor([spread]),
    )


def truth(u: float = 144.0, v: float = 56.0, alpha: float = -math.pi / 2) -> Tensor:
    return torch.tensor([[u, v, *MEAN_LWH_M["Car"], alpha]])


def test_features_are_read_at_the_centres_of_a_grid_in_the_box() -> None:
    """A map whose two channels are the coordinates of its cells' centres gives back the points of the grid."""
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(20.0), indexing="ij")
    level = torch.stack([x, y] + [torch.zeros(6, 20)] * 6)[None].repeat(2, 1, 1, 1)
    level[1] += 100
    boxes = torch.tensor([[32.0, 16, 96, 80], [32, 16, 96, 80], [-40, -40, 8, 8]])
    found = branch().sample((level + 0.5) * STRIDE, torch.tensor([0, 1, 0]), boxes)
    assert found.shape == (3, GRID**2, 8)
    assert found[0, :, 0].tolist() == pytest.approx([40, 56, 72, 88] * 4)
    assert found[0, :, 1].tolist() == pytest.approx([24] * 4 + [40] * 4 + [56] * 4 + [72] * 4)
    assert torch.allclose(found[1], found[0] + 100 * STRIDE), "each box reads its own image"
    assert found[2].min() == STRIDE / 2, "outside the map its border is read"


def test_decode_by_hand() -> None:
    (found,) = branch().decode(raw(3, 0.2, size=math.log(1.1)), BOXES, CAR).tolist()
    assert found[:2] == pytest.approx([140 + 0.05 * 80, 60 - 0.1 * 40])
    assert found[2:5] == pytest.approx([1.1 * side for side in MEAN_LWH_M["Car"]], rel=1e-5)
    assert found[5] == pytest.approx(-math.pi / 2 + 0.2, abs=1e-5), "bin 3 is 270°"
    assert found[6:] == pytest.approx([*[math.sqrt(2) * math.exp(-3)] * 2, 0], abs=1e-6)
    pedestrian = branch().decode(raw(), BOXES, torch.tensor([1]))[0, 2:5]
    assert pedestrian.tolist() == pytest.approx(MEAN_LWH_M["Pedestrian"])
    assert branch().decode(raw(2, 0.1), BOXES, CAR)[0, 5] == pytest.approx(-math.pi + 0.1, abs=1e-5), "wraps at π"


def test_bins_that_point_the_other_way_are_doubt_about_front_and_rear() -> None:
    """Rear 0.6, front 0.3 with an axis 0.4 further on, and 0.1 for a side, a right angle less 0.1 away."""
    bins = torch.tensor([[0.1, 0.3, 1e-9, 0.6]]).log()
    residuals = torch.tensor([[-0.1, 0.4, 0.0, 0.0]])
    found = branch().decode(replace(raw(), bins=bins, residuals=residuals), BOXES, CAR)[0]
    assert found[5] == pytest.approx(-math.pi / 2, abs=1e-5) and found[8] == pytest.approx(0.3, abs=1e-5)
    side = math.pi / 2 - 0.1
    axis_var = 2 * math.exp(-6) + 0.3 * 0.4**2 + 0.1 * side**2
    assert found[7] == pytest.approx(math.sqrt(axis_var), rel=1e-4)
    even = branch().decode(replace(raw(), bins=torch.zeros(1, BINS)), BOXES, CAR)[0]
    assert 0.25 <= even[8] <= 0.5, "the best bin is never more likely wrong than right"


def test_a_branch_with_distance_begins_with_the_height_of_the_box() -> None:
    near = CuboidBranch(8, CLASS_NAMES, distance=True)
    assert near.distance is not None
    torch.nn.init.zeros_(near.distance.out.weight)
    torch.nn.init.zeros_(near.distance.out.bias)
    with torch.inference_mode():
        found = near.predict(torch.zeros(1, GRID**2, 8), BOXES, torch.zeros(1, 8))
    assert found.log_depth is not None and found.log_depth_spread is not None
    assert found.log_depth.exp().tolist() == pytest.approx([1.6 / 40]), "40 px high"
    assert found.log_depth_spread.tolist() == [-2]
    depths = torch.tensor([0.04 * math.exp(0.1)])
    parts = near.losses(found, BOXES, CAR, truth(), torch.ones(1), depths)
    assert parts["cuboid_distance"] == pytest.approx(0.1 * math.exp(2) - 2, rel=1e-4)
    parts = near.losses(found, BOXES, CAR, truth(), torch.ones(1), torch.tensor([math.nan]))
    assert parts["cuboid_distance"] == 0 and parts["cuboid_size"] != 0


def test_distances_of_the_branch_replace_those_of_the_head() -> None:
    torch.manual_seed(0)
    detection = DetectionConfig(distance=True, cuboid=True, cuboid_distance=True, max_detections=20)
    network = Network(ModelConfig(channels=16, detection=detection)).eval()
    head = network.detection
    assert head.cuboid is not None and head.cuboid.distance is not None
    torch.nn.init.zeros_(head.cuboid.distance.out.weight)
    torch.nn.init.zeros_(head.cuboid.distance.out.bias)
    with torch.inference_mode():
        outputs = dict(zip(head.outputs, head.decode(network(batch().images)["detection"], (64, 96)), strict=True))
    heights = (outputs["boxes_xyxy"][..., 3] - outputs["boxes_xyxy"][..., 1]).clamp(min=1)
    assert torch.allclose(outputs["distances"][..., 0], 1.6 / heights, rtol=1e-4)
    assert torch.allclose(outputs["distances"][..., 1], torch.tensor(math.sqrt(2) * math.exp(-2)))
    with pytest.raises(UserError, match="without 3-D boxes"):
        replace(detection, cuboid=False)


def test_widening_changes_how_sure_the_branch_is_and_nothing_else() -> None:
    learner = CuboidBranch(8, CLASS_NAMES, distance=True)
    seen = torch.randn(5, GRID**2, 8), BOXES.repeat(5, 1), torch.randn(5, 8)
    with torch.inference_mode():
        before = learner.predict(*seen)
        weights = {PREFIX + name: value for name, value in learner.state_dict().items()}
        widen(weights, size=2, angle=3, doubt=4, distance=5)
        after = learner.predict(*seen)
    assert torch.allclose(after.log_size_spread - before.log_size_spread, torch.tensor(math.log(2)), atol=1e-5)
    assert torch.allclose(after.log_angle_spread - before.log_angle_spread, torch.tensor(math.log(3)), atol=1e-5)
    assert before.log_depth_spread is not None and after.log_depth_spread is not None
    assert torch.allclose(after.log_depth_spread - before.log_depth_spread, torch.tensor(math.log(5)), atol=1e-5)
    assert torch.allclose(after.bins * 4, before.bins, atol=1e-5)
    for name in ("centre", "log_size", "residuals", "log_depth"):
        assert torch.equal(getattr(after, name), getattr(before, name))


def losses(found: RawCuboids, wanted: Tensor, weight: float = 1.0) -> dict[str, float]:
    parts = branch().losses(found, BOXES, CAR, wanted, torch.tensor([weight]), torch.tensor([0.03]))
    return {name: float(value) for name, value in parts.items()}


def test_a_right_answer_costs_its_spread_alone() -> None:
    found = losses(raw(), truth())
    assert found == pytest.approx({"cuboid_centre": 0, "cuboid_size": -3, "cuboid_angle": -3, "weight": 1}, abs=1e-5)


def test_each_loss_grows_with_its_own_error() -> None:
    centre = losses(raw(), truth(u=144 + 8))  # a tenth of the width, half of two numbers
    assert centre["cuboid_centre"] == pytest.approx(0.05 / CENTRE_SCALE, rel=1e-4)
    size = losses(raw(size=0.1), truth())
    assert size["cuboid_size"] == pytest.approx(0.1 * math.exp(3) - 3, rel=1e-4)
    angle = losses(raw(residual=0.1), truth())
    assert angle["cuboid_angle"] == pytest.approx(0.1 * math.exp(3) - 3, rel=1e-4)
    flipped = losses(raw(1), truth())
    assert flipped["cuboid_angle"] == pytest.approx(20 - 3, rel=1e-4), "the wrong way round costs the cross-entropy"


def test_neighbouring_bins_overlap() -> None:
    """40° from one bin's centre and 50° from the next: both residuals are trained, the nearer bin is wanted."""
    angle = -math.pi / 2 + math.radians(40)
    wanted = raw()
    residuals = torch.tensor([[-math.radians(50), 9.0, 9.0, math.radians(40)]])
    assert losses(replace(wanted, residuals=residuals), truth(alpha=angle))["cuboid_angle"] == pytest.approx(
        -3, abs=1e-4
    )


def test_what_is_not_labelled_is_in_no_sum() -> None:
    nothing = losses(raw(), torch.full((1, 6), math.nan))
    assert set(nothing.values()) == {0.0}
    half = losses(raw(), truth(), 0.5)
    assert half["weight"] == 0.5 and half["cuboid_size"] == pytest.approx(-1.5)


def test_angles_wrap() -> None:
    angles = torch.tensor([math.pi, -math.pi, 4.0, -4.0, 0.3])
    assert wrap(angles).tolist() == pytest.approx(
        [-math.pi, -math.pi, 4 - 2 * math.pi, 2 * math.pi - 4, 0.3], abs=1e-5
    )


def tiny() -> ModelConfig:
    return ModelConfig(channels=16, detection=DetectionConfig(distance=True, max_detections=20))


def batch() -> Batch:
    """Two images with a car of known 3-D box, as big as a batch must be for batch norm to move."""
    rng, nothing = np.random.default_rng(0), np.zeros((0, 4), np.float32)
    one = TrainingImage(
        image_bgr=rng.integers(0, 255, (64, 96, 3), np.uint8),
        boxes_xyxy=np.array([[20, 10, 60, 40]], np.float32),
        class_ids=np.zeros(1, np.int64),
        ignore_xyxy=nothing,
        ignore_class_ids=np.zeros(0, np.int64),
        labelled=(True,) * 3,
        masks=np.zeros((3, 16, 24), np.uint8),
        depths=np.full(1, 0.03, np.float32),
        confidences=np.ones(1, np.float32),
        cuboids=np.array([[42, 26, 3.9, 1.6, 1.5, -1.5]], np.float32),
    )
    return collate([one, one])


def test_training_one_part_leaves_all_else_to_the_bit(tmp_path: Path) -> None:
    """Weights, batch norm statistics and averages: what 2-D boxes come from does not move."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    before = {name: value.clone() for name, value in Network(tiny()).state_dict().items()}
    save_checkpoint(tmp_path / "old.pt", {"ema": before, "model_config": model_config_to_json(tiny())})
    config = TrainConfig(
        model=replace(tiny(), detection=replace(tiny().detection, cuboid=True)),
        optimiser=OptimiserConfig(train_only="detection.cuboid"),
    )
    learner = build_learner(config, torch.device("cpu"), tmp_path / "old.pt")
    began = {name: value.clone() for name, value in learner.network.state_dict().items()}
    for step in range(2):
        losses, norm = train_step(learner.model, batch(), learner.optimiser, config)
        update_average(learner.average, learner.network, 0.9, step)
    assert norm > 0 and {"class", "distance", "cuboid_angle", "road"} <= set(losses)
    for network in (learner.network, learner.average):
        after = network.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        moved = {name for name in after if not torch.equal(after[name], began[name])}
        assert moved == {name for name in after if name.startswith("detection.cuboid.")}
    with pytest.raises(UserError, match="no such part"):
        wrong = replace(config, optimiser=OptimiserConfig(train_only="detection.cube"))
        build_learner(wrong, torch.device("cpu"), tmp_path / "old.pt")


def test_the_tool_keeps_the_best_views_of_each_object_and_learns_from_them() -> None:
    pytest.importorskip("tyro")
    from tools.recipes.cuboid_branch import Options, best_of_each, fit

    rows = torch.cat([truth()] * 5 + [truth(u=132.0), torch.full((1, 6), math.nan)])
    made = {
        "sampled": torch.randn(7, GRID**2, 8),
        "boxes": BOXES.repeat(7, 1),
        "box_features": torch.randn(7, 8),
        "class_ids": torch.zeros(7, dtype=torch.long),
        "truth": rows,
        "weights": torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3, 0.2, 1.0]),
        "depths": torch.full((7,), 0.03),
    }
    kept = best_of_each(made)
    assert kept["weights"].tolist() == pytest.approx([0.9, 0.7, 0.5, 0.2]) and kept["sampled"].dtype == torch.float16
    learner = branch()
    whole = {name: values.repeat(8, *[1] * (values.ndim - 1)) for name, values in kept.items()}
    fit(learner, whole, Options(Path(), batch=16, epochs=60))
    with torch.inference_mode():
        raw_cuboids = learner.predict(kept["sampled"].float(), kept["boxes"], kept["box_features"].float())
        found = learner.decode(raw_cuboids, kept["boxes"], kept["class_ids"])
    assert np.abs(found[:, 0].numpy() - kept["truth"][:, 0].numpy()).max() < 4
    assert torch.allclose(found[:, 5], kept["truth"][:, 5], atol=0.05)


def test_the_tool_adds_distances_to_a_branch_that_stays(tmp_path: Path) -> None:
    pytest.importorskip("tyro")
    from tools.recipes.cuboid_branch import Options, fit, with_branch, write
    from training.checkpoint import load_checkpoint

    torch.manual_seed(0)
    model = replace(tiny(), detection=replace(tiny().detection, cuboid=True))
    before = {name: value.clone() for name, value in Network(model).state_dict().items()}
    stored = {"ema": before, "model_config": model_config_to_json(model), "description": "{}"}
    save_checkpoint(tmp_path / "old.pt", stored)
    options = Options(tmp_path / "old.pt", out=tmp_path / "new.pt", part="distance", batch=8, epochs=80)
    options = replace(options, widen=(1, 1, 2, 3), learning_rate=0.02)
    network, state = with_branch(options)
    learner = network.detection.cuboid
    assert isinstance(learner, CuboidBranch)
    made = {
        "sampled": torch.zeros(16, GRID**2, 16),
        "boxes": BOXES.repeat(16, 1),
        "box_features": torch.zeros(16, 16),
        "class_ids": torch.zeros(16, dtype=torch.long),
        "truth": truth().repeat(16, 1),
        "weights": torch.ones(16),
        "depths": torch.full((16,), 0.05),
    }
    fit(learner, made, options)
    with torch.inference_mode():
        found = learner.predict(made["sampled"], made["boxes"], made["box_features"])
    assert found.log_depth is not None and found.log_depth.exp()[0] == pytest.approx(0.05, rel=0.05), "40 px are 0.04"
    write(network, state, options)
    after = load_checkpoint(tmp_path / "new.pt")["ema"]
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {PREFIX + "out.weight", PREFIX + "out.bias"}, "the doubt of the bins, by the widening"
    assert torch.equal(after[PREFIX + "out.bias"][6:10], before[PREFIX + "out.bias"][6:10] / 2)
    with pytest.raises(UserError, match=r"no 3-D boxes"):
        save_checkpoint(tmp_path / "plain.pt", {**stored, "ema": Network(tiny()).state_dict(),
                                                "model_config": model_config_to_json(tiny())})  # fmt: skip
        with_branch(replace(options, checkpoint=tmp_path / "plain.pt"))
