"""Every command of docs/guides/own-data.md runs, in its order, on two synthetic drives of a few frames."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/own-data.md"
SHORTER = {
    "perception data frames": ["--every-s", "0.2"],
    "perception train": (
        "--steps 2 --batch 2 --warmup-steps 1 --threads 1 --data.workers 0 --data.crop-hw 64 128 "
        "--data.validation-hw 64 192 --data.synthetic-share 0 --evaluate-every 2 --device cpu --augment.copy-paste 0"
    ).split(),
    "perception export": ["--no-verify", "--size-hw", "64x192"],
    "perception run": ["--no-video"],
}
"""What keeps a command to seconds here; the command itself stands as it is in the guide."""


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def label(frames: Path, truth: dict[str, list[tuple[list[str], np.ndarray]]]) -> None:
    """What a person does in CVAT: boxes for every frame, with vans in the part of buses."""
    names = {"Car": "car", "Pedestrian": "pedestrian", "Cyclist": "cyclist", "Van": "bus"}
    images = []
    for path in sorted(frames.rglob("*.jpg")):
        kinds, boxes = truth[path.parent.name][int(path.stem)]
        rows = "".join(
            f'<box label="{names[kind]}" occluded="0" xtl="{box[0]}" ytl="{box[1]}" xbr="{box[2]}" ybr="{box[3]}"/>'
            for kind, box in zip(kinds, boxes.tolist(), strict=True)
            if kind in names
        )
        name = path.relative_to(frames).as_posix()
        images.append(f'<image id="{len(images)}" name="{name}" width="620" height="186">{rows}</image>')
    labels = "".join(f"<label><name>{name}</name></label>" for name in names.values())
    meta = f"<version>1.1</version><meta><job><labels>{labels}</labels></job></meta>"
    (frames / "annotations.xml").write_text(f"<annotations>{meta}{''.join(images)}</annotations>")


def drives(folder: Path) -> dict[str, list[tuple[list[str], np.ndarray]]]:
    """Write two videos of a street; returns the truth of every frame."""
    from datasets.synthetic_street import StreetConfig, SyntheticStreet
    from perception.sinks.video import H264Writer

    truth: dict[str, list[tuple[list[str], np.ndarray]]] = {}
    for name, seed in (("monday", 3), ("tuesday", 9)):
        config = StreetConfig(seed=seed, frames=11, setting="city", size_hw=(186, 620))
        street = SyntheticStreet(config)
        writer = H264Writer(folder / f"{name}.mp4", 10.0)
        truth[name] = []
        for i in range(11):
            frame = street.frame(i)
            writer.write(frame.image_bgr, frame.timestamp_ns)
            objects = frame.rows.objects
            kinds = ["Van" if kind == "Car" and k % 3 == 0 else kind for k, kind in enumerate(objects.names)]
            truth[name].append((kinds, objects.boxes_xyxy))
        writer.close()
    return truth


@pytest.mark.slow
def test_every_command_of_the_guide_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("faster_coco_eval")
    truth = drives(tmp_path)
    toml = re.search(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert toml is not None
    (tmp_path / "classes.toml").write_text(toml.group(1))
    ran: list[str] = []
    for line in commands():
        words = shlex.split(line)
        if line.startswith("perception data convert export.xml"):  # the same command with another name
            continue
        extra = next((more for start, more in SHORTER.items() if line.startswith(start)), [])
        done = subprocess.run(
            [sys.executable, "-m", "perception.cli.main", *words[1:], *extra],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        # two steps of training find nothing: an honest no of the run and of the check
        allowed = {0, 1} if words[1] == "run" or words[1:3] == ["data", "check"] else {0}
        assert done.returncode in allowed, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{line}\n{done.stderr}"
        ran.append(" ".join(words[1:3] if words[1] in ("data", "evaluate") else words[1:2]))
        if ran[-1] == "data frames":
            label(tmp_path / "frames", truth)
    assert ran == "data frames,data convert,data check,train,export,evaluate detection,run,label,select".split(",")
    content = json.loads((tmp_path / "mydata/annotations/instances_val.json").read_text())
    assert {image["drive"] for image in content["images"]} == {"tuesday"}
    scores = json.loads((tmp_path / "runs/bus/results.json").read_text())["metrics"]
    assert {"car_ap50", "pedestrian_ap50", "cyclist_ap50", "bus_ap50"} <= set(scores)
    from perception.backends import load_model

    spec = load_model(tmp_path / "bus.onnx", "cpu", 1).spec
    assert spec.class_names == ("Car", "Pedestrian", "Cyclist", "Bus") and spec.class_infos[3].colour == "#ff8c00"
