"""`perception COMMAND`: what a newcomer sees, and what stands in the way is named in a sentence."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perception.cli.main import main

ROOT = Path(__file__).parents[2]
TWO_SCREENS = 50


def perception(*words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the front door with `path` before our own folder, as a foreign package may lie."""
    code = f"import sys; sys.path[:0] = {[str(path)] if path else []} + [{str(ROOT)!r}]\n"
    code += f"from perception.cli.main import main; sys.exit(main({list(words)!r}))"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=path,
        env={**os.environ, "COLUMNS": "100"},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("folder", ["regular", "namespace"])
def test_a_foreign_package_over_ours_is_named_with_the_mend(tmp_path: Path, folder: str) -> None:
    (tmp_path / "datasets").mkdir()
    if folder == "regular":
        (tmp_path / "datasets/__init__.py").write_text("def load_dataset(): ...\n")
    done = perception("data", "check", ".", path=tmp_path)
    if folder == "namespace":  # a folder that happens to have the name is no package, and ours comes before it
        assert "not this project's" not in done.stderr
        return
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"the package 'datasets' is not this project's ({tmp_path / 'datasets'}" in done.stderr
    assert "virtual environment of its own" in done.stderr


@pytest.mark.parametrize("command", ["train", "run", "export", "bench m.onnx"])
def test_help_fits_two_screens_and_help_all_has_more(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not command.startswith("run"):
        for package in ("torch", "onnx"):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"needs {package}")
    call = [*command.split(), "--help"]
    short = perception(*call)
    assert short.returncode == 0, short.stderr
    lines = [max(1, -(-len(line) // 100)) for line in short.stdout.splitlines()]
    assert sum(lines) <= TWO_SCREENS
    assert "--help-all shows all" in short.stdout
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        sys.exit(main([*call[:-1], "--help-all"]))
    assert not end.value.code and len(capsys.readouterr().out) > len(short.stdout)
