"""The front door: `perception COMMAND …`. Finds the command's file and turns a user's mistake into a sentence.

Nothing heavy is imported here, so `perception --help` answers at once and without torch.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from perception import __version__
from perception.errors import UserError
from perception.redact import redact

COMMANDS = {
    "demo": "draw a street, run the shipped network on it, score the result: no download",
    "run": "track objects and find the road in a video, camera, stream or folder of images",
    "train": "train a network on KITTI, other street data and the synthetic street",
    "export": "turn a checkpoint into one self-contained ONNX file",
    "evaluate": "official KITTI scores: object, road, tracking",
    "track": "run a tracker over stored detections",
    "calibrate": "describe your own camera, so that tracks carry metres and seconds",
    "data": "check, fetch or make data sets",
    "bench": "measure latency and throughput",
    "doctor": "say what works on this machine, and how to mend what does not",
}
"""One file of the same name beside this one for each; its `main(argv) -> int` gets what follows the command."""


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
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
        module = importlib.import_module(f"perception.cli.{name}")
        return int(module.main(rest) or 0)
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
