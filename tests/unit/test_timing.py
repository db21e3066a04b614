import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.timing import Durations, StageClock, timed


def test_percentiles_of_a_hundred_steps() -> None:
    durations = Durations()
    for value_ms in range(1, 101):
        durations.add(float(value_ms))
    assert durations.percentile(50) == pytest.approx(50, rel=0.02)
    assert durations.percentile(95) == pytest.approx(95, rel=0.02)
    assert durations.percentile(100) == pytest.approx(100, rel=0.02)
    assert durations.mean_ms == 50.5
    assert durations.max_ms == 100


def test_nothing_measured_is_zero() -> None:
    assert Durations().percentile(50) == 0
    assert Durations().summary()["count"] == 0
    assert StageClock()["network"].count == 0


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=50), st.floats(1, 100))
def test_a_percentile_lies_between_the_extremes(values: list[float], percent: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)
    assert 0 <= durations.percentile(percent) <= max(values)


def test_timed_adds_up() -> None:
    timings: dict[str, float] = {}
    for _ in range(2):
        with timed(timings, "letterbox"):
            pass
    assert list(timings) == ["letterbox"]
    assert timings["letterbox"] > 0
