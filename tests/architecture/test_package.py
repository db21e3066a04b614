"""Wheel and sdist install and run outside the repository; the version stands in one place."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy
import pytest

import perception

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, wheel); the wheel is built from the sdist, so what the sdist lacks is missing in both."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_runs_the_demo_outside_the_repository(distributions: tuple[Path, Path], tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin/python"
    packages = next((environment / "lib").glob("python3*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(distributions[1])], check=True)
    # its dependencies are this environment's: a download of gigabytes would test nothing of ours
    (packages / "dependencies.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n")
    where = subprocess.run(
        [python, "-I", "-c", "import perception; print(perception.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(environment)
    command = [environment / "bin/perception", "demo", "--frames", "12", "--out", "demo-out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo-out/tracks.jsonl").is_file()


@pytest.mark.slow
def test_distributions_hold_what_they_should(distributions: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(distributions[1]) as wheel:
        names = set(wheel.namelist())
    for room in ("perception", "datasets", "training", "export"):
        assert f"{room}/py.typed" in names
    assert not any(name.startswith(("tests/", "tools/", "docs/")) for name in names)
    with tarfile.open(distributions[0]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml"} <= inside


def test_the_version_stands_in_one_place() -> None:
    assert f'version = "{perception.__version__}"' not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = [
        path
        for path in (ROOT / "perception").rglob("*.py")
        if f'"{perception.__version__}"' in path.read_text(encoding="utf-8")
    ]
    assert found == [ROOT / "perception/__init__.py"]
