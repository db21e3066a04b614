"""The one exception that reaches a user as a sentence instead of a traceback."""


class UserError(Exception):
    """Something the user can mend. `str(error)` is what the command line prints.

    Args:
        found: what was found, with the file, line or value.
        expected: what was expected there.
        do: what to type or change next.
    """

    def __init__(self, found: str, expected: str = "", do: str = "") -> None:
        self.found, self.expected, self.do = found, expected, do
        parts = [found, f"expected: {expected}" if expected else "", f"try: {do}" if do else ""]
        super().__init__("\n  ".join(part for part in parts if part))


class MissingDependencyError(UserError):
    """An optional package is not installed; carries the exact install command."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"the package '{package}' is not installed",
            f"{package}, which is needed for {needed_for}",
            f"pip install 'perception-pipeline[{extra}]'   (in a clone: pip install -e '.[{extra}]')",
        )
