"""Shared fixtures: where the sample data and the recorded numbers of the official tools lie.

Neither is part of the project. Tests that need them ask for the fixture, and are skipped with a visible reason
where the folder is missing.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

# on a busy machine a deadline only measures the neighbours
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data",
        type=Path,
        default=REPOSITORY.parent / "shared" / "data",
        help="folder of the sample data (default: %(default)s)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first: begun last, one of them would leave the other cores idle."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled models of the tests are none of the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_root(request: pytest.FixtureRequest) -> Path:
    """Folder of the sample data: kitti/, camvid/, extra/, videos/."""
    folder = Path(request.config.getoption("--data")).resolve()
    if not (folder / "kitti").is_dir():
        pytest.skip(f"no sample data at {folder} (pytest --data FOLDER)")
    return folder


@pytest.fixture(scope="session")
def golden_root(request: pytest.FixtureRequest) -> Path:
    """Folder of the official tools' recorded numbers, beside the sample data."""
    folder = Path(request.config.getoption("--data")).resolve().parent / "golden"
    if not folder.is_dir():
        pytest.skip(f"no recorded numbers at {folder} (pytest --data FOLDER, beside which 'golden' lies)")
    return folder


@pytest.fixture(scope="session")
def cases_root(request: pytest.FixtureRequest) -> Path:
    """Folder of small inputs that show faults users reported, beside the sample data."""
    folder = Path(request.config.getoption("--data")).resolve().parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases at {folder} (pytest --data FOLDER, beside which 'cases' lies)")
    return folder
