"""Check that numbers of a config are within their ranges."""

from __future__ import annotations

import math

from perception.errors import FieldError


def check_ranges(config: object, **ranges: tuple[float, float]) -> None:
    """Raise where a field of a config lies outside its range, both ends included. NaN and infinity lie outside all.

    Args:
        config: any dataclass.
        ranges: lowest and highest value of each field; the highest may be infinite.

    Raises:
        FieldError: a value outside its range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not (math.isfinite(value) and low <= value <= high):
            expected = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
            raise FieldError(config, name, expected)
