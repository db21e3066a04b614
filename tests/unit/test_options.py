"""One reader of options: command line over TOML over defaults; mistakes are named."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from perception.cli.options import FLAT, CommandOptions, overlay, parse_options
from perception.errors import UserError


@dataclass(frozen=True)
class Rate:
    """How fast."""

    steps: int = 10
    """Number of steps."""
    peak_hz: float = 1.0
    """Highest rate, hertz."""

    def __post_init__(self) -> None:
        if not self.peak_hz > 0:
            raise UserError(f"peak_hz {self.peak_hz}", "more than 0")


@dataclass(frozen=True)
class Data:
    """What to read."""

    root: Path = Path("data")
    """Folder."""
    size_hw: tuple[int, int] = (2, 3)
    """Height and width."""


@dataclass(frozen=True)
class Options(CommandOptions):
    """Some options."""

    every: int = 1
    """Every n-th."""
    start_s: float = 0.0
    """Seconds."""
    device: Literal["auto", "cpu"] = "auto"
    """Where."""
    out: Path | None = None
    """Output
    directory."""
    names: tuple[str, ...] = ()
    """List."""
    rate: Annotated[Rate, FLAT] = field(default_factory=Rate)
    data: Data = field(default_factory=Data)


def read(*argv: str, **keywords: Any) -> Options:
    return parse_options(Options, list(argv), "test", names={"start_s": "start"}, **keywords)


def parse(text: str, tmp_path: Path, *argv: str) -> Options:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return read("--config", str(path), *argv)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    options = parse('every = 3\nstart = 2\nout = "x"\nnames = ["a", "b"]', tmp_path, "--every", "5")
    assert (options.every, options.start_s, options.out, options.names) == (5, 2.0, Path("x"), ("a", "b"))


def test_configs_inside_are_tables_and_prefixes_and_flat_ones_are_neither(tmp_path: Path) -> None:
    options = parse('steps = 3\n[data]\nsize-hw = [4, 5]\nroot = "x"', tmp_path, "--peak-hz", "2", "--data.root", "y")
    assert options.rate == Rate(3, 2.0) and options.data == Data(Path("y"), (4, 5))
    assert parse("[rate]\nsteps = 4", tmp_path).rate.steps == 4, "as a written config has it"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("evry = 3", "unknown key 'evry'(.|\n)*try: every"),
        ("stps = 3", "unknown key 'stps'(.|\n)*try: steps"),
        ("[data]\nrot = 3", r"\[data\]: unknown key 'rot'(.|\n)*try: root"),
        ("start_s = 3", "unknown key 'start_s'"),
        ('config = "other.toml"', "unknown key 'config'"),
        ("data = 3", "a table"),
        ('every = "x"', "every is 'x'\n  expected: a whole number"),
        ("every = 1.5", "a whole number"),
        ("every = true", "a whole number"),
        ("names = 1", "a list"),
        ("names = [1]", "text"),
        ('device = "gpu"', "auto or cpu"),
        ("[data]\nsize_hw = [1, 2, 3]", "size_hw has 3 values\n  expected: 2"),
        ("peak_hz = nan", "peak_hz nan"),
        ("every =", "not TOML"),
    ],
)
def test_mistakes_are_named(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        parse(text, tmp_path)


def test_lists_of_words_and_numbers() -> None:
    @dataclass(frozen=True)
    class Lists(CommandOptions):
        """Some lists."""

        files: tuple[Path, ...] = ()
        """Files."""
        scales: tuple[float, ...] = (1.5,)
        """Numbers."""

    def lists(*argv: str) -> Lists:
        return parse_options(Lists, list(argv), "test")

    assert lists() == Lists() and lists("--files") == Lists()
    assert lists("--files", "a", "b", "--scales", "2", "0.5") == Lists((Path("a"), Path("b")), (2.0, 0.5))
    with pytest.raises(SystemExit):
        lists("--scales", "wide")


def test_reading_the_options_of_a_run_imports_no_typeguard() -> None:
    """It takes a fifth of the start; tyro imports it for types that `_quick` does not know."""
    code = (
        "import sys\nfrom perception.cli import run\nfrom perception.cli.options import parse_options\n"
        "parse_options(run.RunOptions, ['a.mp4'], 'run', everyday=run.EVERYDAY, names=run.NAMES)\n"
        "assert 'typeguard' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read(f"--config={tmp_path / 'none.toml'}")


def test_a_wrong_option_is_refused_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in ((("--evry", "3"), "--every"), (("--every", "x"), "--every"), (("--data.rot", "x"), "root")):
        with pytest.raises(SystemExit) as ended:
            read(*words)
        assert ended.value.code == 2 and says in capsys.readouterr().err


def test_everyday_options_are_the_help_and_help_all_has_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            read(word, everyday=("out", "data.root"))
        assert ended.value.code == 0
        shown[word] = capsys.readouterr().out
    assert (
        "--out PATH" in shown["--help"] and "--data.root" in shown["--help"] and "--help-all shows" in shown["--help"]
    )
    assert "Output directory." in shown["--help"], "a help text of two lines is one paragraph"
    for name in ("--every", "--steps", "--start", "--data.size-hw", "--config"):
        assert name not in shown["--help"] and name in shown["--help-all"]


def test_options_that_decide_the_defaults_are_read_early(tmp_path: Path) -> None:
    def begin(given: dict[str, Any]) -> Options:
        return Options(every={"auto": 7, "cpu": 9}[given["device"] or "auto"])

    def started(*argv: str) -> int:
        return read(*argv, begin=begin, early=("device",)).every

    assert (started(), started("--device", "cpu"), started("--device=cpu")) == (7, 9, 9)
    assert started("--names", "a", "b", "--device", "cpu", "--every", "2") == 2
    file = tmp_path / "some.toml"
    file.write_text('device = "cpu"')
    assert started("--config", str(file)) == 9


def test_what_json_holds_comes_back(tmp_path: Path) -> None:
    stored = json.loads('{"out": null, "names": ["a"], "rate": {"steps": 2, "peak_hz": 3}}')
    options = overlay(Options(out=tmp_path), stored, "config.json")
    assert options == Options(names=("a",), rate=Rate(2, 3.0))
