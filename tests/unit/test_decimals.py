"""Bulk conversion of decimals equals `float` to the bit, and refuses what is none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.formats.decimals import MARGIN, parse_decimals


def parse(tokens: list[str]) -> np.ndarray | None:
    text = b" " * MARGIN + " ".join(tokens).encode() + b"\n"
    solid = np.frombuffer(text, np.uint8) > 32
    edges = np.flatnonzero(solid[1:] != solid[:-1]) + 1
    return parse_decimals(text, edges[::2], edges[1::2])


def same_bits(values: np.ndarray | None, tokens: list[str]) -> bool:
    return values is not None and values.tobytes() == np.array([float(t) for t in tokens]).tobytes()


plain = st.builds(
    lambda sign, whole, part: sign + whole + part,
    st.sampled_from(["", "-", "+"]),
    st.text("0123456789", min_size=1, max_size=12),
    st.one_of(st.just(""), st.just("."), st.text("0123456789", min_size=1, max_size=20).map(lambda s: "." + s)),
)
awkward = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "-0.00", ".5", "5.", "-.25", "1e5", "1E-3", "99999999.9999999", "12345678.12345678"]),
)


@given(st.lists(st.one_of(plain, awkward), min_size=1, max_size=30))
def test_equals_float_to_the_bit(tokens: list[str]) -> None:
    assert same_bits(parse(tokens), tokens)


def test_equals_float_across_chunks() -> None:
    rng = np.random.default_rng(0)
    values, places = rng.normal(0, 500, 150_000), rng.integers(0, 7, 150_000)
    tokens = [f"{value:.{n}f}" for value, n in zip(values, places, strict=True)]
    assert same_bits(parse(tokens), tokens)


NO_NUMBERS = "1.5.2 1-2 --1 nan inf -inf 1_0 . - + -. 1,5 0x10 1e 12a4 1e999 Car 1.. ..1 1.25a 12/5 12:4 ٣ 1.2.3e4"


@pytest.mark.parametrize("token", NO_NUMBERS.split())
def test_refuses_what_is_no_finite_decimal(token: str) -> None:
    assert parse(["1.5", token, "2"]) is None


def test_nothing_is_no_numbers() -> None:
    empty = np.zeros(0, np.int64)
    values = parse_decimals(b" " * MARGIN, empty, empty)
    assert values is not None and len(values) == 0
