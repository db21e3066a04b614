"""A run that is killed, starved or fed nonsense loses nothing that was saved, and says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import changed, kitti, tiny  # noqa: E402

from perception.cli.main import main  # noqa: E402
from perception.errors import UserError  # noqa: E402
from training import loop  # noqa: E402
from training.checkpoint import load_checkpoint, load_network  # noqa: E402
from training.models.network import Network  # noqa: E402
from training.results import has_ended  # noqa: E402

KILLED_IN_A_WRITE = """
import os, signal, sys
from pathlib import Path
from perception import files
from training.loop import train
from training_runs import changed, tiny

writes = 0

def dies(number):
    global writes
    writes += 1
    if writes == int(sys.argv[3]):
        os.ftruncate(number, os.fstat(number).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

files.os.fsync = dies  # nothing but checkpoints is flushed to the disk
train(tiny(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def equal(a: Any, b: Any) -> bool:
    """To the bit, through dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def scorings(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "score" in line]


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda run: run)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kitti(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    run = tmp_path_factory.mktemp("unbroken")
    loop.train(tiny(data), run)
    return run


@pytest.mark.parametrize(("write", "step"), [(1, None), (3, 2)], ids=["first checkpoint", "a later one"])
def test_killed_in_the_middle_of_a_write_and_resumed_equals_unbroken(
    data: Path, unbroken: Path, tmp_path: Path, write: int, step: int | None
) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    child = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_WRITE, str(data), str(tmp_path), str(write)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert list(tmp_path.glob(".*.part")), "the kill must have left half a checkpoint"
    if step is None:
        assert not (tmp_path / "last.pt").exists()
    else:
        assert load_checkpoint(tmp_path / "last.pt")["step"] == step
    loop.train(tiny(data), tmp_path, resume=True)
    for name in ("last.pt", "best.pt"):
        ours, theirs = load_checkpoint(tmp_path / name), load_checkpoint(unbroken / name)
        for part in ("network", "ema", "optimiser", "step", "best", "scores"):
            assert equal(ours[part], theirs[part]), (name, part)
    assert scorings(tmp_path) == scorings(unbroken)
    assert not list(tmp_path.glob(".*.part")), "half a checkpoint of the killed run is left"


def test_two_runs_with_one_seed_are_equal_and_with_two_seeds_are_not(
    data: Path, unbroken: Path, tmp_path: Path
) -> None:
    loop.train(tiny(data, seed=2), tmp_path / "other")
    loop.train(tiny(data), tmp_path / "same")
    theirs = load_checkpoint(unbroken / "last.pt")["network"]
    assert equal(load_checkpoint(tmp_path / "same/last.pt")["network"], theirs)
    assert not equal(load_checkpoint(tmp_path / "other/last.pt")["network"], theirs)


def test_a_finished_run_that_is_resumed_stays_as_it_is(
    data: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in unbroken.iterdir() if path.is_file()}
    monkeypatch.setattr("training.results.commit", lambda: "later code")
    assert loop.train(tiny(data), unbroken, resume=True) == unbroken / "best.pt"
    assert {path: path.read_bytes() for path in unbroken.iterdir() if path.is_file()} == before
    (unbroken / "results.json").unlink()
    loop.train(tiny(data), unbroken, resume=True)
    assert json.loads((unbroken / "results.json").read_text())["ended"], "killed just before its last file"


def test_a_run_has_not_ended_before_its_last_checkpoint_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loop.save_checkpoint

    def killed(path: Path, state: dict[str, Any]) -> None:
        if path.name == "last.pt" and state["step"] == 4:
            raise KeyboardInterrupt
        whole(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.train(tiny(data), tmp_path)
    assert not has_ended(tmp_path), "tools would start the next stage from half a run"
    loop.train(tiny(data), tmp_path, resume=True)
    assert has_ended(tmp_path) and load_checkpoint(tmp_path / "last.pt")["step"] == 4


def test_a_full_disk_in_the_log_is_a_sentence(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.run_log.RunLog._record", full_disk)
    with pytest.raises(UserError, match=r"No space left on device\n.*\n.*--resume"):
        loop.train(tiny(data), tmp_path)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 2


def test_a_file_limit_ends_a_run_and_the_earlier_checkpoint_stays(data: Path, tmp_path: Path) -> None:
    """A real write that fails half way, as on a full disk: the limit lies below one checkpoint's size."""
    resource = pytest.importorskip("resource")
    loop.train(tiny(data, steps=2, evaluate_every=2), tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(UserError, match=r"best\.pt: cannot be written \(File too large\)"):
            loop.train(tiny(data), tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.part"))


def test_a_run_folder_that_cannot_be_written_is_a_sentence(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for run in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(UserError, match=r"(File exists|Not a directory)\n.*writable run directory"):
            loop.train(tiny(data), run)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore lines"), r"allocate 9 GiB\."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "9 bytes"),
        (MemoryError(), "no memory"),
    ],
)
def test_too_little_memory_is_a_sentence(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def too_large(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop, "train_step", too_large)
    with pytest.raises(UserError, match=said + r"\)\n.*\n.*--accumulate"):
        loop.train(tiny(data), tmp_path)


def test_other_failures_keep_their_traceback(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loop, "train_step", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        loop.train(tiny(data), tmp_path)


HOLDS = "import sys, time; from pathlib import Path; from perception.lock import alone_in\n" + (
    "with alone_in(Path(sys.argv[1]), sys.argv[2]): print('held', flush=True); time.sleep(600)"
)


def test_two_processes_do_not_train_in_one_folder(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    loop.train(tiny(data, steps=2, evaluate_every=2), tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path), "training"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        with pytest.raises(UserError, match="another process is training in it"):
            loop.train(tiny(data), tmp_path, resume=True)
        assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    finally:
        child.kill()
        child.communicate()
    loop.train(tiny(data), tmp_path, resume=True)
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 4


def test_a_broken_held_out_frame_is_told_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = kitti(tmp_path / "data")
    loop.train(tiny(root, steps=2, evaluate_every=2), tmp_path / "whole")
    assert (
        "training set: kitti/object 7; validation set: kitti/object 5 (ImageSets/val.txt)" in capsys.readouterr().err
    )
    broken = root / "kitti/object/training/image_2/000011.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UserError, match=r"000011\.png"):
        loop.train(tiny(root, steps=2, evaluate_every=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for name in ("run", "mine", "link"):
        with pytest.raises(UserError, match="no labelled images"):
            loop.train(tiny(tmp_path / "nothing"), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "mine", "nothing"]
    assert not list((tmp_path / "mine").iterdir())


def test_a_resumed_run_needs_its_first_weights_no_more(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []

    def make(config: Any) -> Network:
        made.append(config.pretrained)
        return Network(replace(config, pretrained=False))

    first = tmp_path / "first.pt"
    first.write_bytes((unbroken / "best.pt").read_bytes())
    config = replace(tiny(data, steps=2, evaluate_every=2), model=replace(tiny().model, pretrained=True))
    loop.train(config, tmp_path / "run", init=first, make=make)
    first.unlink()
    loop.train(changed(config, steps=4, evaluate_every=4), tmp_path / "run", resume=True, init=first, make=make)
    assert load_checkpoint(tmp_path / "run/last.pt")["step"] == 4
    assert made == [False, False], "ImageNet's weights would have been overwritten by the first ones"
    assert json.loads((tmp_path / "run/config.json").read_text())["init"] == str(first)


def test_a_checkpoint_without_our_network_is_a_sentence(data: Path, unbroken: Path, tmp_path: Path) -> None:
    whole = load_checkpoint(unbroken / "best.pt")
    newer = json.loads(whole["model_config"]) | {"a_field_of_tomorrow": 1}
    for changes in ({"ema": {}}, {"ema": [1]}, {"model_config": json.dumps(newer)}, {"model_config": "3"}):
        torch.save({**whole, **changes}, tmp_path / "other.pt")
        with pytest.raises(UserError, match=r"other\.pt: does not hold a network of this project"):
            load_network(tmp_path / "other.pt")
    for ema in ({}, [1], {"detection.class_out.bias": 3}, None):
        torch.save({**whole, "ema": ema}, tmp_path / "other.pt")
        with pytest.raises(UserError, match="no weight matches"):
            loop.train(tiny(data), tmp_path / "run", init=tmp_path / "other.pt")


@pytest.fixture
def nan_at_third(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = Network.loss, 0

    def loss(self: Network, *args: Any) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        losses = whole(self, *args)
        return {name: value * float("nan") for name, value in losses.items()} if calls == 3 else losses

    monkeypatch.setattr(Network, "loss", loss)


@pytest.mark.usefixtures("nan_at_third")
def test_a_loss_that_is_no_number_names_step_and_pictures_and_keeps_the_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"step 3: a loss is .* images: kitti/object/0000\d\d") as raised:
        loop.train(tiny(data), tmp_path)
    assert "--skip-nonfinite" in str(raised.value)
    state = load_checkpoint(tmp_path / "last.pt")
    assert state["step"] == 2
    assert all(torch.isfinite(t).all() for t in state["network"].values())


@pytest.mark.usefixtures("nan_at_third")
def test_a_loss_that_is_no_number_can_be_passed_over(data: Path, tmp_path: Path) -> None:
    loop.train(tiny(data, skip_nonfinite=1), tmp_path)
    state = load_checkpoint(tmp_path / "last.pt")
    assert state["step"] == 4 and state["progress"]["skipped"] == 1
    assert all(torch.isfinite(t).all() for t in state["network"].values())
    assert json.loads((tmp_path / "results.json").read_text())["skipped_batches"] == 1


def test_batch_norm_forgets_a_picture_that_made_it_infinite(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Network.forward, 0

    def forward(self: Network, images: torch.Tensor) -> Any:
        nonlocal calls
        calls += self.training
        if self.training and calls == 2:
            self.std.mul_(float("nan"))  # type: ignore[operator]
        return whole(self, images)

    monkeypatch.setattr(Network, "forward", forward)
    loop.train(tiny(data, skip_nonfinite=1), tmp_path)
    state = load_checkpoint(tmp_path / "last.pt")
    assert all(torch.isfinite(t).all() for t in state["network"].values())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_passed_over_counted_and_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    root = kitti(tmp_path / "data")
    path = root / "kitti/object/training/image_2/000001.png"
    path.write_bytes(path.read_bytes()[:900])
    config = tiny(root, steps=8, evaluate_every=8)
    loop.train(replace(config, data=replace(config.data, workers=workers)), tmp_path / "run")
    assert f"skipped: {path}" in capfd.readouterr().err
    assert json.loads((tmp_path / "run/results.json").read_text())["broken_samples"] == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_are_all_broken_end_the_run_with_a_sentence(tmp_path: Path, workers: int) -> None:
    root = kitti(tmp_path / "data")
    for path in (root / "kitti/object/training/image_2").glob("*.png"):
        path.write_bytes(b"no picture")
    config = tiny(root)
    with pytest.raises(UserError, match=r"^\S+\.png: cannot be decoded") as raised:
        loop.train(replace(config, data=replace(config.data, workers=workers)), tmp_path / "run")
    assert "Traceback" not in str(raised.value)


def test_a_held_out_picture_that_breaks_in_mid_run_is_a_sentence(tmp_path: Path) -> None:
    root = kitti(tmp_path / "data")

    def score(*arguments: Any) -> dict[str, float]:
        (root / "kitti/object/training/image_2/000011.png").write_bytes(b"")
        return loop.evaluate(*arguments)

    with pytest.raises(UserError, match=r"000011\.png"):
        loop.train(tiny(root), tmp_path / "run", score=score)
    assert load_checkpoint(tmp_path / "run/last.pt")["step"] == 2, "what was learnt before the scoring is kept"


def train_command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `perception train` says when it refuses."""
    assert main(["train", *(str(a) for a in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") or "\nerror: " in said
    return said


def test_mistakes_of_the_command_line_are_sentences(
    data: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    config = json.loads((unbroken / "config.json").read_text())
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text(json.dumps(config))
    (damaged / "last.pt").write_bytes((unbroken / "last.pt").read_bytes()[:5000])
    other = tmp_path / "other"
    other.mkdir()
    config["config"]["model"]["channels"] = 16
    (other / "config.json").write_text(json.dumps(config))
    (other / "last.pt").write_bytes((unbroken / "last.pt").read_bytes())
    strange = tmp_path / "strange.toml"
    strange.write_text('steps = "many"\n')
    out = ("--out", tmp_path / "run")
    for words, arguments in {
        "no such folder": (*out, "--data.root", tmp_path / "nowhere"),
        "no labelled images": (*out, "--data.root", tmp_path / "empty"),
        "already holds a run": ("--out", unbroken, "--data.root", data),
        "holds no config.json": ("--resume", tmp_path / "empty"),
        "last.pt: cannot be read": ("--resume", damaged),
        "last.pt: does not match this run": ("--resume", other),
        "no such file": (*out, "--data.root", data, "--init", tmp_path / "none.pt"),
        "steps is 'many'": (*out, "--config", strange),
        "--folds 1": (*out, "--data.root", data, "--folds", "1"),
        "fp16 on a CPU": (*out, "--data.root", data, "--precision", "fp16", "--device", "cpu"),
        "batch 5 in 2 parts": (*out, "--data.root", data, "--batch", "5", "--accumulate", "2"),
    }.items():
        assert words in train_command(capsys, *arguments)


def test_a_folder_without_labels_and_a_split_that_shares_drives_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = kitti(tmp_path / "bare")
    for path in (bare / "kitti/object/training/label_2").glob("*.txt"):
        path.unlink()
    assert "000000" in train_command(capsys, "--out", tmp_path / "run", "--data.root", bare)
    shared = kitti(tmp_path / "shared")
    drives = {f"{i:06d}": f"drive {i // 4}" for i in range(12)}
    (shared / "kitti/object/drives.json").write_text(json.dumps(drives))
    said = train_command(capsys, "--out", tmp_path / "run", "--data.root", shared)
    assert "train and val share the drive drive 1" in said


SMALL_SHARED_MEMORY = """
import sys
from dataclasses import replace
sys.path.insert(0, "tests/unit")
import training.data
from training_runs import tiny
training.data.LOADER_TIMEOUT_S = 5.0
config = tiny(steps=30)
list(training.data.batches(None, replace(config, data=replace(config.data, workers=2)), 0))
"""


def test_a_small_shared_memory_is_an_error_with_the_mend_and_no_hang() -> None:
    """A loader process drops a batch that does not fit and goes on; whoever waits for it would wait forever."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here")
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 77"
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", f"{mount}; exec {sys.executable} -c '{SMALL_SHARED_MEMORY}'"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode == 77 or "Operation not permitted" in done.stderr:
        pytest.skip("no right to mount a small shared memory")
    assert "UserError: a loader process died or sent nothing" in done.stderr
    assert "of 65.5 kB free in /dev/shm" in done.stderr and "--shm-size=2g" in done.stderr


AFTER_OPENCV_THREADS = """
import sys
from dataclasses import replace
from pathlib import Path
import cv2, numpy as np
sys.path.insert(0, "tests/unit")
import training.data
from training.sets import find_sets
from training_runs import tiny
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 2)
config = tiny(Path(sys.argv[1]), steps=2)
config = replace(config, data=replace(config.data, workers=1))
print(len(list(training.data.batches(find_sets(config.data), config, 0))), cv2.getNumThreads())
"""


def test_loader_processes_start_although_opencv_has_threads(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AFTER_OPENCV_THREADS, str(kitti(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split() == ["2", "4"], done.stderr
