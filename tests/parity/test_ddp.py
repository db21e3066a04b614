"""Two processes with half the batch each are one process with the whole batch, to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # three processes import torch, perhaps on a busy machine
REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY / "tests/unit"))

from ddp_worker import STEPS, STOP, config, double_precision, losses_of_run, sharded_scores  # noqa: E402
from training_runs import kitti  # noqa: E402

from perception.errors import UserError  # noqa: E402
from training import distributed  # noqa: E402
from training.checkpoint import load_checkpoint  # noqa: E402


def torchrun(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(REPOSITORY / part) for part in ("", "tests/unit", "tests/parity"))
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        + [str(a) for a in arguments],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=check,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ddp")
    root = kitti(folder / "data", frames=13, held_out=5, road=5)
    threads = torch.get_num_threads()
    with double_precision():
        one = losses_of_run(config(root), folder / "one")
    scores = sharded_scores(config(root))
    torch.set_num_threads(threads)
    done = torchrun(REPOSITORY / "tests/parity/ddp_worker.py", root, folder, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    reports = [json.loads((folder / f"report-{rank}.json").read_text()) for rank in range(2)]
    return {"folder": folder, "one": one, "scores": scores, "two": reports, "root": root}


def test_losses_of_every_step_are_those_of_one_process(runs: dict[str, Any]) -> None:
    a, b = (report["losses"] for report in runs["two"])
    assert a == b, "each process holds the loss of the whole batch"
    assert len(a) == STEPS
    for step, (ours, theirs) in enumerate(zip(a, runs["one"], strict=True)):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-6, abs=1e-9), (step, name)
    assert any(record["class"] > 0 and record["box"] > 0 and record["road"] > 0 for record in a)


def test_weights_and_batch_norm_after_it_are_those_of_one_process(runs: dict[str, Any]) -> None:
    ours, theirs = (load_checkpoint(runs["folder"] / run / "last.pt")["network"] for run in ("whole", "one"))
    for name, value in theirs.items():
        if value.dtype.is_floating_point:
            moved = float((ours[name] - value).abs().max())
            assert moved < 1e-6 * max(1.0, float(value.abs().max())), name
        else:
            assert torch.equal(ours[name], value), name


def test_scores_of_a_set_that_does_not_divide_are_exactly_those_of_one_process(runs: dict[str, Any]) -> None:
    assert runs["two"][0]["scores"] == runs["two"][1]["scores"] == runs["scores"]
    assert any(0 < runs["scores"][f"{name}_moderate"] < 100 for name in ("car", "pedestrian", "cyclist"))
    assert 50 < runs["scores"]["road_max_f"] < 100


def test_a_resumed_run_of_two_processes_equals_an_unbroken_one_to_the_bit(runs: dict[str, Any]) -> None:
    ours, theirs = (load_checkpoint(runs["folder"] / run / "last.pt") for run in ("resumed", "whole"))
    assert ours["step"] == theirs["step"] == STEPS
    assert all(torch.equal(ours["network"][name], value) for name, value in theirs["network"].items())
    assert runs["two"][0]["resumed"] == runs["two"][0]["losses"][STOP:]


def test_counts_are_summed(runs: dict[str, Any]) -> None:
    assert [report["total"] for report in runs["two"]] == [12, 12]


def test_the_first_process_alone_writes(runs: dict[str, Any]) -> None:
    results = json.loads((runs["folder"] / "whole/results.json").read_text())
    assert results["processes"] == 2 and results["steps"] == STEPS
    assert len(list((runs["folder"] / "whole/tensorboard").iterdir())) == 1
    steps = [json.loads(line)["step"] for line in (runs["folder"] / "whole/metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 6, 6], "two scorings and one record of losses"


def test_the_documented_command_trains(runs: dict[str, Any], tmp_path: Path) -> None:
    arguments = (
        f"train --preset nano --data.root {runs['root']} --out {tmp_path / 'run'} --steps 1 --batch 2 --threads 1 "
        "--data.workers 0 --data.crop-hw 64 128 --data.validation-hw 64 192 --data.synthetic-share 0 "
        "--augment.copy-paste 0 --device cpu --model.no-pretrained"
    )
    done = torchrun("-m", "perception.cli.main", *arguments.split())
    assert done.stdout.count("done: ") == 1


def test_a_batch_that_does_not_divide_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.loop.world", lambda: 3)
    with pytest.raises(UserError, match=r"batch 4 over 3 processes in 1 parts\n.*\n.*--batch 3"):
        losses_of_run(config(tmp_path), tmp_path)


def test_batch_norm_over_ranks_is_batch_norm_where_there_is_one() -> None:
    from training.distributed import BatchNormOverRanks

    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 6)
    ours, theirs = BatchNormOverRanks(3), torch.nn.BatchNorm2d(3)
    assert torch.equal(ours(x), theirs(x))
    assert np.allclose(ours.running_var, theirs.running_var)


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (
            "[pair.cc:561] Connection closed by peer [127.0.0.1]:31419",
            UserError,
            "another process of this run has ended",
        ),
        ("shapes differ", RuntimeError, "^shapes differ$"),
    ],
)
def test_a_process_that_has_gone_is_a_sentence_of_the_others(
    monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Exception], says: str
) -> None:
    monkeypatch.setattr(distributed, "launched", lambda: True)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend: None)
    with pytest.raises(kind, match=says), distributed.process_group(torch.device("cpu")):
        raise RuntimeError(text)
