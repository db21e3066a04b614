"""The front door: `perception COMMAND …`. Finds the command's file and turns a user's mistake into a sentence.

Nothing heavy is imported here, so `perception --help` answers at once and without torch.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from perception import __version__
from perception.errors import MissingDependencyError, UserError
from perception.redact import printable, redact

ROOT = Path(__file__).resolve().parents[2]
"""Folder that holds our packages."""

COMMANDS = {
    "demo": ("datasets.demo:main", "", "draw a street, run the shipped network on it, score the result: no download"),
    "run": ("perception.cli.run:main", "", "track objects and find the road in a video, camera, stream or folder"),
    "train": ("training.cli:main", "train", "train a network on KITTI, other street data and the synthetic street"),
    "pretrain": (
        "training.pretrain_cli:main",
        "pretrain",
        "train a backbone on frames without labels, for perception train to start from",
    ),
    "federate": (
        "training.federated.cli:main",
        "federated",
        "train over several owners of data, whose images stay with them",
    ),
    "export": ("export.cli:main", "export", "turn a checkpoint into one self-contained ONNX file"),
    "fleet": ("perception.cli.fleet:main", "", "process many drives into tables, and ask questions about them"),
    "ros2": ("perception.cli.ros2:main", "", "run as a ROS 2 node: images in, detections out"),
    "evaluate": ("perception.cli.evaluate:main", "", "official KITTI scores: object, road, tracking"),
    "stress": ("perception.cli.stress:main", "", "score a model under noise, weather, dirt, night, broken video"),
    "attack": ("training.attack_cli:main", "train", "change pixels a little so that a checkpoint fails: FGSM, PGD"),
    "explain": (
        "perception.cli.explain:main",
        "",
        "show what a network looks at, with checks of the maps",
    ),
    "track": ("perception.cli.track:main", "", "run a tracker over stored detections"),
    "calibrate": (
        "perception.cli.calibrate:main",
        "",
        "describe your camera, so that tracks carry metres and seconds",
    ),
    "data": ("datasets.cli:main", "", "check, fetch or make data sets"),
    "label": (
        "training.labelling_cli:label",
        "",
        "label your frames by machine: several networks, fused and tracked",
    ),
    "select": ("training.labelling_cli:select", "", "choose the frames that a person should label next"),
    "bench": ("export.bench_cli:main", "export", "measure latency and throughput"),
    "doctor": ("perception.cli.doctor:main", "", "report what works on this machine, and how to mend what does not"),
}
"""Command → where it lives, as `module:function`, the extra that brings its packages, and its line of help.

The function is called as `main(argv) -> int` with what follows the command. Names only, so that no import runs from
the runtime up to the rooms above it."""


def _call(command: str, argv: list[str]) -> int:
    """Import a command's module and call it.

    Raises:
        UserError: another distribution's package shadows one of our rooms.
        MissingDependencyError: the command's extra is not installed.
    """
    place, extra, _ = COMMANDS[command]
    name, _, function = place.partition(":")
    room = name.partition(".")[0]
    _refuse_shadows(room)
    try:
        return int(getattr(importlib.import_module(name), function)(argv) or 0)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == room and error.name == name:  # another project's files lie among ours
            raise _shadowed(room, str(ROOT / room)) from None
        if not extra or not package or (ROOT / package).is_dir():
            raise
        raise MissingDependencyError(package, extra, f"perception {command}") from None


def _refuse_shadows(room: str) -> None:
    """Refuse to run where `import datasets` finds another project's package: its name is a common one."""
    spec = importlib.util.find_spec(room)
    found = (
        [] if spec is None else [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    )
    if any(Path(place).resolve().is_relative_to(ROOT / room) for place in found):
        return
    raise _shadowed(room, str(found[0]) if found else "none found")


def _shadowed(room: str, found: str) -> UserError:
    return UserError(
        f"the package '{room}' is not this project's ({found})",
        f"this project's '{room}'",
        "install perception-pipeline into a virtual environment of its own",
    )


class _Formatter(logging.Formatter):
    """Log lines without passwords and escape codes; those of a traceback as well."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(redact(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return "\n".join(printable(redact(line)) for line in super().formatException(ei).splitlines())


class _Stderr:
    """Standard error that drops what cannot be written: a full disk or a reader that has left ends no command."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _guard_streams() -> None:
    """Make standard error unable to raise, and standard output able to show every file name."""
    if sys.stderr is None:  # closed; the next file that is opened would take its number, and libraries write there
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if not isinstance(sys.stderr, _Stderr):
        sys.stderr = _Stderr(sys.stderr)  # type: ignore[assignment]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _log_to_stderr() -> None:
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: perception COMMAND [options]", "", *lines, "", "perception COMMAND --help explains one of them."]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Results go to stdout, logs and errors to stderr.

    Returns:
        0 for yes, 1 where the answer is no (such as data with errors), 2 for a mistake in the call or its input,
        130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _guard_streams()
    _log_to_stderr()
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
        return _call(name, rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 0
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
        if error.filename is None and not full:  # no file of the user's
            raise
        mend = ("a disk that takes it", "free some space") if full else ("a path that can be used", "check the path")
        found = f"{error.filename or 'an output'}: {error.strerror}"
        print(f"error: {UserError(found, *mend)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
