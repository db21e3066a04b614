"""TOML, JSON and YAML that nobody meant end in a sentence, whatever reads them: nested, huge, broken, endless."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.splits import read_drives
from perception.cameras.files import read_camera
from perception.cameras.yaml_files import parse_intrinsics
from perception.cli.options import parse_options
from perception.cli.run import RunOptions
from perception.engine import read_sidecar
from perception.errors import UserError
from perception.files import MOST_DOTS, MOST_TOML, read_json, read_text, read_toml
from perception.reports.compare import read_groups
from perception.reports.runs import load_run
from tools.recipes.run import read_recipe

TOML = {
    "nested lists": "a = " + "[" * 100_000,
    "nested tables": "a = " + "{b = " * 100_000,
    "a dotted key": "a" + ".a" * (MOST_DOTS + 1) + " = 1",
    "a dotted table": "[a" + ".a" * 50_000 + "]",
    "a huge number": "a = 1" + "0" * 5000,
    "huge": "a = 1\n" * (MOST_TOML // 6 + 1),
    "broken": "a = ",
    "not UTF-8": b"a = '\xff'",
    "a NUL": "a = '\0'",
}
JSON = {
    "nested lists": "[" * 100_000,
    "nested tables": '{"a":' * 100_000,
    "a huge number": '{"a": 1' + "0" * 5000 + "}",
    "broken": '{"a": ',
    "a list": "[1]",
    "a number": "7",
    "not UTF-8": b'{"a": "\xff"}',
}


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def config(path: Path) -> object:
    return parse_options(RunOptions, ["clip.mp4", "--config", str(path)], "perception run")


@pytest.mark.parametrize("case", TOML)
@pytest.mark.parametrize(
    ("name", "read"), [("c.toml", config), ("camera.toml", read_camera), ("r.toml", read_recipe)]
)
def test_toml(case: str, name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    path = written(tmp_path / name, TOML[case])
    with pytest.raises(UserError, match=name) as caught:
        read(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("case", JSON)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("drives.json", lambda path: read_drives(path.parent)),
        ("groups.json", read_groups),
        ("report.json", lambda path: load_run(path.parent)),
        ("x.engine.json", lambda path: read_sidecar(path.with_name("x.engine"))),
    ],
)
def test_json(case: str, name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    path = written(tmp_path / name, JSON[case])
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(tmp_path) in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("opening", ["[", "{b: "])
def test_a_nested_calibration_does_not_reach_opencvs_parser(opening: str) -> None:
    with pytest.raises(UserError, match="nested"):
        parse_intrinsics("%YAML:1.0\nimage_width: 5\na: " + opening * 100_000)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_a_file_without_an_end_is_read_to_the_limit_only() -> None:
    for read in (read_toml, lambda path: read_json(path, "JSON")):
        with pytest.raises(UserError, match="longer than"):
            read(Path("/dev/zero"))


def test_a_text_of_the_longest_length_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "äbc")
    assert read_text(path, most=3) == "äbc"
    with pytest.raises(UserError, match="longer than 2 characters"):
        read_text(path, most=2)
