"""A patch has its size on paper and in the image, is pasted where it belongs, and hides what it is on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from perception.cli.main import main  # noqa: E402
from perception.formats.kitti import parse_objects  # noqa: E402
from training.models.network import ModelConfig, Network  # noqa: E402
from training.patch import PatchConfig, carriers, draw_look, find_patch, paste  # noqa: E402
from training.patch_cli import save_patch  # noqa: E402

HW = (128, 320)


def label(name: str = "Car", occlusion: int = 0, top: int = 30, bottom: int = 90, height_m: float = 1.5) -> str:
    return f"{name} 0.00 {occlusion} 0.00 40.00 {top}.00 140.00 {bottom}.00 {height_m} 1.6 4.0 0 1.6 20 0.0\n"


def test_a_patch_has_the_objects_scale() -> None:
    rows = parse_objects(label() + label(occlusion=2) + label("Pedestrian") + label(bottom=60) + label(height_m=-1))
    image = np.zeros((*HW, 3), np.uint8)
    frame = carriers(image, rows, lambda boxes: boxes, "Car", 0.5)
    # 60 pixels are 1.5 m, so half a metre is 20 pixels; hidden, low and unmeasured cars carry none
    assert frame.boxes_xyxy.tolist() == [[40, 30, 140, 90]] and frame.sides_px.tolist() == [20]
    assert len(carriers(image, rows, lambda boxes: boxes, "Car", 2.0).boxes_xyxy) == 0  # higher than the car


def test_it_is_pasted_at_its_place_and_size() -> None:
    image, white = torch.zeros(60, 80, 3), torch.full((3, 50, 50), 200.0)
    out = paste(image, white, (20, 10, 60, 50), 20, (0, 0, 1, 0, 1))
    rows, columns = np.nonzero(out[..., 0].numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 30, 49)
    assert set(np.unique(out.round().numpy())) == {0, 200} and image.max() == 0
    moved = paste(image, white, (20, 10, 60, 50), 20, (0.25, 0, 0.5, 0, 0.5))  # 10 px to the right, half the size
    rows, columns = np.nonzero(moved[..., 0].numpy())
    assert (columns.min(), columns.max(), rows.max() - rows.min() + 1, moved.max().round()) == (45, 54, 10, 100)
    assert paste(image, white, (200, 200, 220, 220), 20, (0, 0, 1, 0, 1)) is image  # outside
    left_half = white.clone()
    left_half[:, :, 25:] = 0
    turned = paste(image, left_half, (20, 10, 60, 50), 20, (0, 0, 1, np.pi / 2, 1))  # its left edge is now on top
    assert turned[22, 40, 0].round() == 200 and turned[37, 40, 0] == 0


def test_looks_stay_within_their_ranges() -> None:
    rng, config = np.random.default_rng(0), PatchConfig()
    looks = np.abs(np.array([draw_look(rng, config) for _ in range(500)]) - [0, 0, 1, 0, 1])
    limits = np.array([config.shift, config.shift, config.scale, np.radians(config.turn_deg), config.gain])
    assert (looks.max(0) <= limits).all() and (looks.max(0) > 0.9 * limits).all()


def test_the_search_lowers_the_score_on_its_carriers() -> None:
    torch.manual_seed(0)
    network = Network(ModelConfig(pretrained=False)).eval().requires_grad_(False)
    image = np.random.default_rng(0).integers(0, 255, (*HW, 3)).astype(np.uint8)
    frame = carriers(image, parse_objects(label()), lambda boxes: boxes, "Car", 0.5)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    short, long = (find_patch(network, [frame], 0, PatchConfig(steps=steps)) for steps in (1, 12))
    assert short.shape == (50, 50, 3) and short.dtype == np.uint8 and (short != long).any()

    def score(patch: np.ndarray) -> float:
        shown = paste(
            torch.from_numpy(image).float(),
            torch.from_numpy(patch).float().permute(2, 0, 1),
            frame.boxes_xyxy[0].tolist(),
            20,
            (0, 0, 1, 0, 1),
        )
        with torch.no_grad():
            logits = network(shown[None])["detection"].class_logits[0, :, 0]
        level = logits[: 16 * 40].reshape(16, 40)  # stride 8
        return float(level[4:11, 5:17].sum())

    assert score(long) < score(short)
    assert all((value == state[name]).all() for name, value in network.state_dict().items())


def test_the_file_knows_its_size_on_paper(tmp_path: Path) -> None:
    save_patch(tmp_path / "patch.png", np.zeros((50, 50, 3), np.uint8), 0.5)
    dpi = Image.open(tmp_path / "patch.png").info["dpi"]
    assert dpi == pytest.approx((2.54, 2.54), abs=0.01)  # 50 pixels on 50 cm: one a centimetre


def test_the_command_searches_on_other_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = tmp_path / "object" / "training"
    for name in ("label_2", "image_2"):
        (training / name).mkdir(parents=True)
    for i in range(3):
        (training / "label_2" / f"{i:06d}.txt").write_text(label())
        picture = np.random.default_rng(i).integers(0, 255, (*HW, 3)).astype(np.uint8)
        cv2.imwrite(str(training / "image_2" / f"{i:06d}.png"), picture)
    words = ["attack", "nano.pt", "--data", str(tmp_path), "--size-hw", "128", "320", "--patch-steps", "2"]
    words += ["--out", str(tmp_path / "out")]
    assert main([*words, "--patch", "0.5", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["frames"] == {"searched": 1, "evaluated": 2} and (tmp_path / "out/patch.png").is_file()
    assert [(row["patch"], row["carriers"]) for row in result["rows"]] == [("none", 2), ("grey", 2), ("attack", 2)]
    for more, expected in (
        (["--patch", "9"], "--patch 9"),
        (["--patch", "4"], "none has a Car"),
        (["--patch", "0.5", "--patch-class", "Tram"], "--patch-class Tram"),
    ):
        assert main([*words, *more]) == 2
        assert expected in capsys.readouterr().err
