"""The front door: `perception COMMAND …`. Finds the command's file and turns a user's mistake into a sentence.

Nothing heavy is imported here, so `perception --help` answers at once and without torch.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from perception import __version__
from perception.errors import UserError
from perception.redact import redact

COMMANDS = {
    "demo": ("datasets.demo:main", "draw a street, run the shipped network on it, score the result: no download"),
    "run": ("perception.cli.run:main", "track objects and find the road in a video, camera, stream or image folder"),
    "train": ("training.cli:main", "train a network on KITTI, other street data and the synthetic street"),
    "export": ("export.cli:main", "turn a checkpoint into one self-contained ONNX file"),
    "evaluate": ("perception.cli.evaluate:main", "official KITTI scores: object, road, tracking"),
    "track": ("perception.cli.track:main", "run a tracker over stored detections"),
    "calibrate": (
        "perception.cli.calibrate:main",
        "describe your own camera, so that tracks carry metres and seconds",
    ),
    "data": ("datasets.cli:main", "check, fetch or make data sets"),
    "bench": ("export.bench_cli:main", "measure latency and throughput"),
    "doctor": ("perception.cli.doctor:main", "say what works on this machine, and how to mend what does not"),
}
"""Command → where it lives, as `module:function`, and its line of help. The function is called as `main(argv) -> int`
with what follows the command. Names only, so that no import runs from the runtime up to the rooms above it."""


def _load(place: str) -> Callable[[list[str]], int | None]:
    """The function that a row of `COMMANDS` names.

    Raises:
        UserError: another distribution's package has the name of one of our rooms and comes before it.
    """
    name, _, function = place.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        room = name.partition(".")[0]
        found = getattr(sys.modules.get(room), "__file__", None) or "another package"
        if not (error.name or "").startswith(room) or Path(found).parents[1] == Path(__file__).parents[2]:
            raise
        raise UserError(
            f"the package '{room}' is not this project's ({found})",
            f"this project's '{room}'",
            "install perception-pipeline into a virtual environment of its own",
        ) from None
    return getattr(module, function)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: perception COMMAND [options]", "", *lines, "", "perception COMMAND --help explains one of them."]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 for yes, 1 for an honest no, 2 for a mistake in the call or its input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"perception {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"perception {near[0]}" if near else "perception --help"
        if not near and (os.path.exists(name) or "://" in name):  # a source, and the command forgotten
            hint = "perception run SOURCE"
        error = UserError(f"unknown command '{redact(name)}'", "one of " + ", ".join(COMMANDS), hint)
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return int(_load(COMMANDS[name][0])(rest) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 0


if __name__ == "__main__":
    sys.exit(main())
