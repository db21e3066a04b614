"""MkDocs hook: puts the help text of every command into the page of the command line."""

from __future__ import annotations

import os
import subprocess
import sys

MARK = "<!-- help: -->"


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page with each command's help in place of the mark."""
    if MARK not in markdown:
        return markdown
    from perception.cli.main import COMMANDS

    parts = []
    for name in COMMANDS:
        command = [sys.executable, "-m", "perception.cli.main", name, "--help"]
        environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        parts.append(f"## {name}\n\n```text\n{done.stdout.strip()}\n```\n")
    return markdown.replace(MARK, "\n".join(parts))
