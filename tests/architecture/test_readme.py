"""Every command of the README runs, in its order, in a folder that holds what a reader would have."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SHORTER = {
    # what keeps a command to seconds here; the command itself stands as it is in the README
    "perception train --preset nano": (
        "--steps 2 --batch 2 --warmup-steps 1 --threads 1 --data.workers 0 --data.crop-hw 64 128 "
        "--data.validation-hw 64 192 --data.synthetic-share 0 --evaluate-every 2 --device cpu "
        "--model.no-pretrained"  # a test downloads nothing
    ).split(),
    "perception data street": ["--frames", "3"],
    "perception export": ["--no-verify"],
}
ELSEWHERE = {
    "make test": "this is it",
    "make demo": "tests/runtime/test_demo.py and `make -n` below",
    ". .venv/bin/activate": "a shell's own business",
    "perception data fetch": "tests/unit/test_datasets_fetch.py, against a server on loopback",
}


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perception.cli.main", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip, a small KITTI object set, labels with results, and stored detections."""
    from datasets.synthetic_street import StreetConfig, SyntheticStreet, write_kitti_object
    from perception.formats.kitti import ObjectRows, format_objects

    folder = tmp_path_factory.mktemp("reader")
    drive = SyntheticStreet(StreetConfig(seed=3, frames=6, setting="city", weather="overcast"))
    write_video(folder / "drive.mp4", [drive.frame(i).image_bgr for i in range(6)])
    write_kitti_object(StreetConfig(seed=4, frames=4, setting="city"), folder / "kitti" / "object", image_kind="jpg")
    sets = folder / "kitti/object/ImageSets"
    sets.mkdir()
    (sets / "train.txt").write_text("000000\n000001\n")
    (sets / "val.txt").write_text("000002\n000003\n")
    for name in ("labels", "results", "detections"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        boxes = np.array([[100.0, 150, 200, 220], [300, 160, 380, 230], [500, 150, 560, 210]]) + rng.uniform(
            0, 5, (3, 4)
        )
        known = np.zeros(3)
        labels = ObjectRows.from_boxes(
            ["Car"] * 3, boxes, truncation=known, occlusion=known.astype(np.int64), alpha=known
        )
        results = ObjectRows.from_boxes(["Car"] * 3, boxes + 1, np.array([0.9, 0.8, 0.7]), alpha=known)
        (folder / f"labels/{i:06d}.txt").write_text(format_objects(labels))
        (folder / f"results/{i:06d}.txt").write_text(format_objects(results))
    (folder / "detections/0000.txt").write_text("".join(f"{i},{100 + i},100,160,150,0.9\n" for i in range(5)))
    return folder


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = frames[0].shape[0] // 2 * 2, frames[0].shape[1] // 2 * 2
        stream.pix_fmt = "yuv420p"
        for image in frames:
            picture = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(image[: stream.height, : stream.width]), "bgr24"
            )
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.mark.slow
def test_every_command_of_the_readme_runs(reader: Path) -> None:
    pytest.importorskip("torch")
    ran = []
    for line in commands():
        if any(line.startswith(start) for start in ELSEWHERE):
            continue
        words = shlex.split(line)
        assert words[0] == "perception", f"no test runs this line: {line}"
        extra = next((more for start, more in SHORTER.items() if line.startswith(start)), [])
        done = run([*words[1:], *extra], reader)
        # 1 is an honest no: two steps of training find nothing to evaluate well
        allowed = {0, 1} if words[1] in ("doctor",) else {0}
        assert done.returncode in allowed, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{line}\n{done.stderr}"
        ran.append(line)
    assert len(ran) >= 10


def test_make_targets_exist() -> None:
    for target in ("demo", "test"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_python_example_is_the_api() -> None:
    """Its names exist; tests/runtime/test_python_api.py runs it."""
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    compile(example.group(1), "README.md", "exec")
    assert len(example.group(1).strip().splitlines()) <= 10


def test_links_and_pictures_of_the_documents_exist() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_tests_and_modules_that_the_documents_name_exist() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:tests/)?(?:unit|runtime|parity|contracts|architecture)/\w+\.py)`", text):
            assert (ROOT / "tests" / path.removeprefix("tests/")).is_file(), f"{page.name} names {path}"
        for path in re.findall(r"`((?:perception|datasets|training|export|tools|docker)/[\w/]+\.\w+)`", text):
            assert (ROOT / path).is_file(), f"{page.name} names {path}"
        for module in re.findall(r"python -m (tools[\w.]+)", text):
            assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), f"{page.name} names {module}"


def documented_options() -> list[tuple[str, str, str]]:
    """(Page, command, option) of every `perception COMMAND … --option` in the documents."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "perception/weights/MODEL_CARD.md"]
    found = set()
    for page in pages:
        for call in re.findall(
            r"perception ((?:run|train|export|evaluate|explain|attack|stress|track|calibrate|data|bench)\b[^\n`|;]*)",
            page.read_text(),
        ):
            words = call.split()
            command = words[0]
            inner = ("export verify", "export doubt", "export familiar", "bench pipeline")
            if command in ("evaluate", "data") or " ".join(words[:2]) in inner:
                command = " ".join(words[:2])
            found |= {(page.name, command, word.split("=")[0]) for word in words if re.match(r"--[a-z]", word)}
    return sorted(found)


@pytest.mark.slow
def test_every_option_in_the_documents_exists(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from perception.cli.main import main

    texts: dict[str, str] = {}
    for page, command, option in documented_options():
        if command not in texts:
            with contextlib.suppress(SystemExit):
                main([*command.split(), "--help-all"])
            texts[command] = capsys.readouterr().out
        pattern = re.escape(option.replace("--no-", "--")).replace("\\-\\-", "--(?:no-)?", 1)
        assert re.search(rf"{pattern}\b|{re.escape(option)}\b", texts[command]), f"{page}: {command} has no {option}"
    assert len(texts) >= 8
