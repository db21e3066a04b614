"""Say how an output was made: the resolved options, the commit of this code, and a hash of the data."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from perception import __version__

SMALL_BYTES = 1 << 16
"""Contents of files up to this size and of all text files are hashed; of larger ones the name and the size, as images
cost too long."""
TEXT = (".txt", ".csv", ".json", ".jsonl")


def record(command: str, options: Any, data: tuple[Path, ...] = (), **facts: Any) -> dict[str, Any]:
    """Describe a run of a command, for a JSON file beside its output.

    Args:
        command: as typed.
        options: the resolved options, a dataclass.
        data: files and folders that were read.
        facts: what else belongs to the record; wins over a key of the same name.
    """
    return {
        "command": command,
        "perception": __version__,
        "commit": commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "options": asdict(options),
        "data_hash": data_hash(*data) if data else None,
        **facts,
    }


@functools.cache
def commit() -> str:
    """Find the commit of this code, with a plus where files differ from it; "unknown" outside a clone."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        try:
            done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    # a clone of ours: not the repository of a project that has this package in its own .venv
    if not git("ls-files", "--", Path(__file__).name):
        return "unknown"
    found = git("rev-parse", "HEAD")
    changed = found and git("status", "--porcelain", "--untracked-files=no", "--", "..")
    return found + ("+" if changed else "") or "unknown"


def data_hash(*paths: Path) -> str:
    """Hash files and folders: names and sizes of all files, contents of small ones and of text, such as labels.

    Returns:
        16 hexadecimal digits; a path that does not exist counts by its absence.
    """
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        for file in files:
            name = file.name if file == path else str(file.relative_to(path))
            try:
                size = file.stat().st_size
                content = file.read_bytes() if size <= SMALL_BYTES or file.suffix in TEXT else b""
            except OSError:
                size, content = -1, b""
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            digest.update(content)
    return digest.hexdigest()[:16]
