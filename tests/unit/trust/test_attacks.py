"""Attacks stay within their budget, do what they are for, and beat noise of the same size."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from perception.cli.main import main  # noqa: E402
from perception.errors import UserError  # noqa: E402
from training.attacks import AttackConfig, Goal, attack  # noqa: E402
from training.checkpoint import load_network  # noqa: E402
from training.models.network import ModelConfig, Network  # noqa: E402

HW = (96, 320)
LABEL = "Car 0.00 0 0.00 40.00 30.00 90.00 71.00 1.5 1.6 4.0 0 1.6 20 0.0\n"


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network(Path("nano.pt"))[0].requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """A road-like picture: grey below, lighter above, with a dark box."""
    out = np.full((1, *HW, 3), 170, np.uint8)
    out[:, 50:] = 90
    out[:, 35:70, 120:180] = 30
    noise = np.random.default_rng(0).integers(-10, 10, out.shape)
    return np.clip(out.astype(int) + noise, 0, 255).astype(np.uint8)


def measure(network: Network, images: np.ndarray, goal: Goal, before: np.ndarray) -> float:
    """What the attacker raises: see `training.attacks`."""
    with torch.no_grad():
        clean, raw = network(torch.from_numpy(before).float()), network(torch.from_numpy(images).float())
    if goal == "road":
        return float((raw["segmentation"][:, 0].gt(0) != clean["segmentation"][:, 0].gt(0)).float().mean())
    scores, old = raw["detection"].class_logits.sigmoid(), clean["detection"].class_logits.sigmoid()
    return float(scores.max()) if goal == "invent" else -float(scores[old >= 0.05].sum())


@pytest.mark.parametrize("goal", ["invent", "road", "disappear"])
def test_an_attack_stays_within_its_budget_and_beats_noise(network: Network, images: np.ndarray, goal: Goal) -> None:
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    found = {}
    for method in ("noise", "fgsm", "pgd"):
        changed = attack(network, images, goal, 4, AttackConfig(method, steps=6))  # type: ignore[arg-type]
        assert changed.dtype == np.uint8 and np.abs(changed.astype(int) - images).max() <= 4
        found[method] = measure(network, changed, goal, images)
    assert found["pgd"] >= found["noise"] and found["pgd"] >= found["fgsm"] - 0.05
    if goal != "disappear":  # this picture may have nothing to hide
        assert found["pgd"] > found["noise"]
    assert all((value == weights[name]).all() for name, value in network.state_dict().items())


def test_the_same_seed_gives_the_same_attack_and_none_changes_nothing(network: Network, images: np.ndarray) -> None:
    one, other = (attack(network, images, "invent", 2, AttackConfig("pgd", 2)) for _ in range(2))
    assert (one == other).all()
    assert (attack(network, images, "invent", 0, AttackConfig()) == images).all()


def test_a_network_without_the_head_is_refused(images: np.ndarray) -> None:
    alone = Network(ModelConfig(heads=("detection",), pretrained=False)).eval()
    with pytest.raises(UserError, match="no segmentation head"):
        attack(alone, images, "road", 2, AttackConfig())


def test_the_command_scores_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = tmp_path / "object" / "training"
    for name in ("label_2", "image_2"):
        (training / name).mkdir(parents=True)
    (training / "label_2" / "000000.txt").write_text(LABEL)
    picture = np.random.default_rng(0).integers(0, 255, (96, 320, 3)).astype(np.uint8)
    cv2.imwrite(str(training / "image_2" / "000000.png"), picture)
    words = [
        "attack",
        "nano.pt",
        "--data",
        str(tmp_path),
        "--epsilons",
        "2",
        "--steps",
        "2",
        "--size-hw",
        "96",
        "320",
    ]
    words += ["--out", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert "disappear, PGD" in page and "the change for road, 63 times as strong" in page
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [(c["goal"], c["method"], c["epsilon"]) for c in cells][:2] == [
        ("disappear", "noise", 0),
        ("disappear", "noise", 2),
    ]
    assert len(cells) == 2 + 2 * 3 and all(c["car_ap"] is not None and c["max_f"] is None for c in cells)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")}
    assert main(words) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.json")}
    capsys.readouterr()
    for more, expected in ((["--seed", "1"], "another call"), (["--epsilons", "0"], "--epsilons 0")):
        assert main([*words, *more]) == 2
        assert expected in capsys.readouterr().err
    assert main(["attack", "nano.pt"]) == 2


def test_layercam_lies_on_the_box_and_is_zero_where_there_is_nothing(network: Network) -> None:
    from datasets.synthetic_street import StreetConfig, SyntheticStreet
    from perception.trust.explain import Target, points_at
    from training.layercam import CheckpointExplainer

    image = SyntheticStreet(StreetConfig(seed=3, frames=1, setting="city", weather="sun")).frame(0).image_bgr
    explainer = CheckpointExplainer(network, (384, 1248))
    found, road = explainer.detector(image)
    assert found.scores[0] > 0.3 and road is not None
    target = Target("found", int(found.class_ids[0]), found.boxes_xyxy[0].astype(float), float(found.scores[0]))
    nothing = Target("missed", int(found.class_ids[0]), np.array([1.0, 1, 3, 3]), 0.0)
    place = Target("road", -1, np.array([600.0, 350, 600, 350]), 1.0)
    one, none, at_road = explainer.saliency(image, [target, nothing, place])
    assert one.shape == (image.shape[0] // 4, image.shape[1] // 4) and one.min() >= 0 and one.max() > 0.2
    assert points_at(one, target, image.shape[:2])
    assert none.max() == 0 and at_road.max() > 0
    assert (one == explainer.saliency(image, [target])[0]).all()
    assert (explainer.shuffled(0).saliency(image, [target])[0] != one).any()
