"""`--compile`: asks for a compiler, changes no result and no name in a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorboard")

from training_runs import tiny  # noqa: E402

from perception.errors import UserError  # noqa: E402
from training import loop  # noqa: E402
from training.checkpoint import load_checkpoint  # noqa: E402
from training.models.network import Network  # noqa: E402


def test_without_a_compiler_it_says_so_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match="no C\\+\\+ compiler"):
        loop.train(tiny(compile=True), tmp_path / "run")
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize("found", ["c++", "g++", "clang++"])
def test_any_compiler_will_do(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(loop.shutil, "which", lambda name: f"/bin/{name}" if name == found else None)
    loop._check_compiler()
    monkeypatch.setattr(loop.shutil, "which", lambda name: None)
    monkeypatch.setenv("CXX", "/opt/c++")
    loop._check_compiler()


def test_a_compiled_run_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and cut as for the compiler, then run without it: generating C++ takes minutes on a busy machine."""
    plain = torch.nn.Module.compile
    monkeypatch.setattr(Network, "compile", lambda self, **how: plain(self, backend="eager", **how), raising=False)
    monkeypatch.setattr(loop, "_check_compiler", lambda: None)
    monkeypatch.setattr(loop, "draw_curves", lambda run: run)
    losses, weights = [], []
    for compiled in (False, True):
        run = tmp_path / str(compiled)
        loop.train(tiny(compile=compiled, steps=2, batch=2, evaluate_every=2), run)
        record = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
        losses.append({name: record[name] for name in ("class", "box", "bins", "road")})
        weights.append(load_checkpoint(run / "last.pt"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0]["class"] > 0
    for part in ("network", "ema"):
        assert weights[0][part].keys() == weights[1][part].keys(), "a compiled run's checkpoint is like any other"
