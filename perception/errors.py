"""The one exception that reaches a user as a sentence instead of a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.redact import printable, redact

_LFS_HEAD = b"version https://git-lfs"


class UserError(Exception):
    """Something the user can mend. `str(error)` is what the command line prints.

    Args:
        found: what was found, with the file, line or value.
        expected: what was expected there.
        do: what to type or change next.
    """

    def __init__(self, found: str, expected: str = "", do: str = "") -> None:
        # the parts hold names and locations that come from outside
        self.found, self.expected, self.do = (printable(redact(part)) for part in (found, expected, do))
        parts = [self.found, f"expected: {self.expected}" * bool(expected), f"try: {self.do}" * bool(do)]
        super().__init__("\n  ".join(part for part in parts if part))


class FieldError(UserError):
    """A field of a config has a value that it cannot have. The command line names the option of that field.

    Args:
        config: of which one field is wrong.
        field: its name.
        expected: what was expected there.
    """

    def __init__(self, config: Any, field: str, expected: str) -> None:
        self.kind, self.field = type(config), field
        self.value = _as_typed(getattr(config, field))
        self.default = _as_typed(type(config).__dataclass_fields__[field].default)
        super().__init__(f"{field} {self.value}", expected, f"{field} {self.default}")


def _as_typed(value: Any) -> str:
    """A field's value as on a command line; empty for a default that cannot be typed."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


class MissingDependencyError(UserError):
    """An optional package is not installed; carries the exact install command."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"the package '{package}' is not installed",
            f"{package}, which is needed for {needed_for}",
            f"pip install 'perception-pipeline[{extra}]'   (in a clone: pip install -e '.[{extra}]')",
        )


def lfs_pointer(path: Path) -> UserError | None:
    """The error to raise where `path` is a Git LFS pointer instead of the file itself; None where it is not."""
    try:
        with path.open("rb") as file:
            pointer = file.read(len(_LFS_HEAD)) == _LFS_HEAD
    except OSError:
        return None
    if not pointer:
        return None
    return UserError(f"{path}: a Git LFS pointer, not the file itself", "the file that it stands for", "git lfs pull")
