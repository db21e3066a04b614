from dataclasses import dataclass
from pathlib import Path

import pytest

from perception.cli.options import parse_options
from perception.errors import UserError


@dataclass(frozen=True)
class Options:
    """Some."""

    every: int = 1
    """Every n-th."""
    start_s: float = 0.0
    """Seconds."""
    device: str = "auto"
    """Where."""
    out: Path | None = None
    """Folder."""
    names: tuple[str, ...] = ()
    """List."""


def parse(text: str, tmp_path: Path, *argv: str) -> Options:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return parse_options(Options, ["--config", str(path), *argv], "test")


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    options = parse('every = 3\nstart-s = 2\nout = "x"\nnames = ["a", "b"]', tmp_path, "--every", "5")
    assert options == Options(5, 2.0, "auto", Path("x"), ("a", "b"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("evry = 3", "every"),
        ('every = "x"', "int"),
        ("every = 1.5", "int"),
        ("every = true", "int"),
        ("names = 1", "a list"),
        ("every =", "not TOML"),
    ],
)
def test_mistakes_are_named(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        parse(text, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        parse_options(Options, [f"--config={tmp_path / 'none.toml'}"], "test")
