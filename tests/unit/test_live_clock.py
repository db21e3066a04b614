from threading import Event

from hypothesis import given
from hypothesis import strategies as st

from perception.clocks import MOST_RETRY_S, Backoff, StreamClock

MS = 10**6


def test_steps_are_the_streams_own_even_when_frames_arrive_in_bursts() -> None:
    clock = StreamClock()
    pts = [0, 33, 100, 133]
    arrivals = [1000, 1120, 1121, 1140]
    stamps = [clock.stamp(p * MS, a * MS)[0] for p, a in zip(pts, arrivals, strict=True)]
    assert [s - stamps[0] for s in stamps] == [p * MS for p in pts]


def test_a_delay_that_builds_up_shows_as_age() -> None:
    clock = StreamClock()
    ages = []
    for i in range(20):
        arrival = (1000 + 100 * i + 50 * i) * MS  # every frame 50 ms later than the last
        ages.append((arrival - clock.stamp(i * 100 * MS, arrival)[1]) // MS)
    assert ages == [50 * i for i in range(20)]


def test_clock_drift_does_not_become_age() -> None:
    clock = StreamClock()
    age = 0
    for i in range(36_000):  # an hour at 10 Hz, the camera's clock 100 ppm slow
        arrival = round(i * 100.01 * MS)
        age = arrival - clock.stamp(i * 100 * MS, arrival)[1]
    assert age < 10 * MS


def test_one_clock_across_a_reconnect() -> None:
    clock = StreamClock()
    first = clock.stamp(5_000 * MS, 1_000 * MS)[0]
    clock.restart()
    second = clock.stamp(0, 4_000 * MS)[0]
    assert second - first == 3_000 * MS


def test_stamps_that_jump_start_a_new_segment() -> None:
    clock = StreamClock()
    a = clock.stamp(0, 1000 * MS)[0]
    b = clock.stamp(10**9 * 3600, 1100 * MS)[0]  # an hour ahead after 100 ms
    c = clock.stamp(0, 1200 * MS)[0]  # and back
    d = clock.stamp(None, 1300 * MS)[0]
    assert [b - a, c - b, d - c] == [100 * MS] * 3


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(-(10**12), 10**12)), st.integers(0, 10**10)),
        min_size=2,
        max_size=40,
    )
)
def test_time_always_goes_forward(steps: list[tuple[int | None, int]]) -> None:
    clock, arrival, last = StreamClock(), 0, None
    for pts_ns, wait_ns in steps:
        arrival += wait_ns
        timestamp_ns, captured_ns = clock.stamp(pts_ns, arrival)
        assert last is None or timestamp_ns > last
        assert captured_ns <= arrival
        last = timestamp_ns


def test_backoff_doubles_to_a_limit_and_starts_again() -> None:
    backoff = Backoff(0.5, seed=1)
    waits = [backoff.next_s() for _ in range(12)]
    assert all(0.25 * 2**i <= w <= 0.5 * 2**i for i, w in enumerate(waits[:6]))
    assert MOST_RETRY_S / 2 <= waits[-1] <= MOST_RETRY_S
    backoff.reset()
    assert backoff.next_s() <= 0.5


def test_backoff_gives_up_when_told_to() -> None:
    backoff = Backoff(0.0, attempts=2)
    assert [backoff.wait(Event()) for _ in range(3)] == [True, True, False]
    stopped = Event()
    stopped.set()
    assert not Backoff(10).wait(stopped)
