"""Run a recipe: a sequence of training stages, weight averages and other commands.

    python -m tools.recipes.run tools/recipes/nano.toml --root ../shared/data --out runs/nano

The same command resumes an interrupted recipe. A recipe is a TOML file with a list of `[[stage]]`, each with a `name`
and one of four kinds:

    train = "OPTIONS"    `perception train` with these options, `steps`, `batch` and the weights of the stage `init`
    mean = ["A", "B"]    mean weights of earlier stages; `size_hw` is the input size of its evaluation
    run = "MODULE ARGS"  a Python module, skipped once the stage `until` has begun; with `may_fail` the recipe goes on
                         after exit code 1
    release = "A"        the part of an earlier stage's checkpoint that is published; with `widen`, factors on the
                         spreads of depth, size and angle, and on the doubt about front and rear, measured on held-out
                         frames

In `train` and `run`, `{NAME}` stands for the result of an earlier stage or for a group of options of `[options]`, and
`{root}` and `{out}` for the folders. `[common]` holds `train` options of every stage and `evaluate_every`.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from perception.errors import UserError
from perception.files import read_toml
from tools.recipes.average import average, release

KINDS = ("train", "mean", "run", "release")


@dataclass(frozen=True)
class Options:
    """Run a recipe, or resume it."""

    recipe: Annotated[Path, tyro.conf.Positional]
    """TOML file of the stages."""
    root: Path = Path("../shared/data")
    """Dataset root, as in `perception train`."""
    out: Path = Path("runs/recipe")
    """Output directory of the stages."""
    shorter: int = 1
    """Divisor of the steps of every stage, for a test run."""
    compile: bool = False
    """Compile the network, see `perception train`."""
    workers: int = 1
    """Data loader processes."""


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe."""

    name: str
    train: str | None = None
    mean: tuple[str, ...] | None = None
    run: str | None = None
    release: str | None = None
    widen: tuple[float, ...] = ()
    steps: int = 0
    batch: int = 0
    init: str = ""
    size_hw: tuple[int, ...] = (384, 1248)
    until: str = ""
    may_fail: bool = False

    @property
    def kind(self) -> str:
        """Return the kind of the stage, one of `KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    def names(self) -> set[str]:
        """Return the stages and groups of options that the stage uses."""
        text = (self.train or "") + (self.run or "")
        return {*re.findall(r"{(.*?)}", text), *(self.mean or ()), *filter(None, (self.init, self.release))}

    def result(self, out: Path) -> Path:
        """Return the file or folder that the stage writes."""
        inside = {"train": ("last.pt",), "mean": ("mean.pt",)}
        return out.joinpath(self.name, *inside.get(self.kind, ()))


@dataclass(frozen=True)
class Recipe:
    """A recipe, with its stages in order."""

    stages: tuple[Stage, ...]
    groups: Mapping[str, str]
    """Named groups of options."""
    common: str = ""
    """Options of every training stage."""
    evaluate_every: int = 1000
    """Largest number of steps between evaluations."""


def read_recipe(path: Path) -> Recipe:
    """Read a recipe, and check that every stage is complete and uses known names.

    Raises:
        UserError: the file is unreadable, or a stage is invalid.
    """
    table = read_toml(path, "a TOML file with [[stage]] tables", "tools/recipes/nano.toml")
    common, groups = table.get("common", {}), table.get("options", {})
    if unknown := sorted(set(table) - {"common", "options", "stage"} | set(common) - {"train", "evaluate_every"}):
        expected = "[common] with train and evaluate_every, [options] and [[stage]]"
        raise UserError(f"{path}: unknown key '{unknown[0]}'", expected)
    if wrong := [name for name, value in groups.items() if not isinstance(value, str)]:
        raise UserError(f"{path}: options.{wrong[0]} is {groups[wrong[0]]!r}", "options in quotes")
    stages: list[Stage] = []
    for i, values in enumerate(table.get("stage", []), 1):
        stage = _stage(values, f"{path}: stage {values.get('name', i)}")
        known = {*(one.name for one in stages), *groups, "root", "out"}
        if stage.name in known:
            raise UserError(f"{path}: stage {stage.name}: the name is taken", "another name")
        if unknown := sorted(stage.names() - known):
            expected = "the name of an earlier stage or of a group of [options]"
            raise UserError(f"{path}: stage {stage.name}: '{unknown[0]}' is not known here", expected)
        stages.append(stage)
    names = {stage.name for stage in stages}
    if lost := [stage.until for stage in stages if stage.until and stage.until not in names]:
        raise UserError(f"{path}: until '{lost[0]}'", "the name of a stage")
    if not stages:
        raise UserError(f"{path}: no stages", "[[stage]] tables", "tools/recipes/nano.toml")
    return Recipe(tuple(stages), groups, common.get("train", ""), common.get("evaluate_every", 1000))


KEYS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("name", "train", "run", "release", "init", "until"), lambda v: isinstance(v, str)),
    **dict.fromkeys(("steps", "batch"), lambda v: type(v) is int and v > 0),
    "mean": lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v),
    "size_hw": lambda v: isinstance(v, list) and len(v) == 2 and all(type(side) is int for side in v),
    "widen": lambda v: isinstance(v, list) and len(v) in (3, 4) and all(isinstance(f, float) and f > 0 for f in v),
    "may_fail": lambda v: isinstance(v, bool),
}
"""Keys of a stage, with a check of their values."""


def _stage(values: dict[str, Any], where: str) -> Stage:
    """Return a stage from checked keys and values."""
    if unknown := sorted(set(values) - set(KEYS)):
        raise UserError(f"{where}: unknown key '{unknown[0]}'", ", ".join(KEYS))
    if wrong := [key for key, value in values.items() if not KEYS[key](value)]:
        raise UserError(f"{where}: {wrong[0]} is {values[wrong[0]]!r}", "a value as in tools/recipes/nano.toml")
    found = [kind for kind in KINDS if kind in values]
    if not values.get("name") or len(found) != 1:
        raise UserError(f"{where}: has {', '.join(found) or 'no kind'}", f"a name and one of {', '.join(KINDS)}")
    if found == ["train"] and not {"steps", "batch"} <= set(values):
        raise UserError(f"{where}: steps and batch", "at least 1 of each")
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Stage(**fields)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the missing stages of a recipe. Return 1 where a stage with `may_fail` failed."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.recipes.run", description=__doc__)
    try:
        if options.shorter < 1:
            raise UserError(f"--shorter {options.shorter}", "1 or more")
        recipe = read_recipe(options.recipe)
        return max(
            _run_stage(recipe, stage, options, f"stage {i} of {len(recipe.stages)}: {stage.name}")
            for i, stage in enumerate(recipe.stages, 1)
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:  # the command has printed its error
        return error.returncode
    except KeyboardInterrupt:
        print("the same command resumes the recipe", file=sys.stderr)
        return 130


def _run_stage(recipe: Recipe, stage: Stage, options: Options, title: str) -> int:
    """Run one stage and return its exit code; 0 where it is already done."""
    results = {one.name: one.result(options.out) for one in recipe.stages}
    names = {**recipe.groups, **results, "root": options.root, "out": options.out}
    if stage.kind == "train":
        return _train(recipe, stage, options, title, names)
    if stage.until and (options.out / stage.until).exists():  # what that stage began with stays
        return 0
    result = results[stage.name]
    parts = [results[name] for name in stage.mean or filter(None, [stage.release])]
    if parts and _is_newer(result, parts):
        return 0
    print(title, file=sys.stderr, flush=True)
    if stage.kind == "mean":
        average(parts, result, options.root, (stage.size_hw[0], stage.size_hw[1]))
        return 0
    if stage.kind == "release":
        release(parts[0], result, stage.widen)
        return 0
    return _python(_words(stage.run or "", names), stage.may_fail)


def _is_newer(result: Path, parts: Sequence[Path]) -> bool:
    """Return whether a file exists and is newer than all of its parts."""
    return result.exists() and all(
        part.exists() and part.stat().st_mtime_ns <= result.stat().st_mtime_ns for part in parts
    )


def _train(recipe: Recipe, stage: Stage, options: Options, title: str, names: Mapping[str, object]) -> int:
    """Train a stage, or resume it."""
    from training.results import has_ended

    folder = options.out / stage.name
    if has_ended(folder):
        return 0
    print(title, file=sys.stderr, flush=True)
    command = ["perception.cli.main", "train"]
    if (folder / "config.json").exists():  # a run without a checkpoint starts again
        return _python([*command, "--resume", str(folder)])
    steps = max(1, stage.steps // options.shorter)
    return _python(
        [
            *command, "--out", str(folder), "--data.root", str(options.root),
            "--steps", str(steps), "--batch", str(stage.batch),
            "--evaluate-every", str(min(steps, recipe.evaluate_every)), "--data.workers", str(options.workers),
            *(["--compile"] if options.compile else []),
            *(["--init", str(names[stage.init])] if stage.init else []),
            *_words(recipe.common, names), *_words(stage.train or "", names),
        ]
    )  # fmt: skip


def _words(text: str, names: Mapping[str, object]) -> list[str]:
    """Split a command line into words. A group of options becomes several words, a path one."""
    words: list[str] = []
    for word in shlex.split(text):
        whole = re.fullmatch(r"{(.*?)}", word)
        value = names[whole[1]] if whole else ""
        words += (
            shlex.split(value)
            if isinstance(value, str) and whole
            else [re.sub(r"{(.*?)}", lambda match: str(names[match[1]]), word)]
        )
    return words


def _python(words: Sequence[str], may_fail: bool = False) -> int:
    """Run a Python module and return its exit code.

    Raises:
        CalledProcessError: the code is not 0, or not 0 or 1 with `may_fail`.
    """
    code = subprocess.run([sys.executable, "-m", *words], check=False).returncode
    if code > int(may_fail) or code < 0:
        raise subprocess.CalledProcessError(code, words[0])
    return code


if __name__ == "__main__":
    sys.exit(main())
