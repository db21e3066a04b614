"""The loop under load: what comes out, in which order, what is counted, and that it ends."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from perception.backends.replay import ReplayBackend
from perception.cameras.pinhole import PinholeCamera
from perception.model import ModelSpec
from perception.runtime import sink_runner
from perception.runtime.hindsight import tracks_of
from perception.runtime.pipeline import Pipeline, PipelineConfig
from perception.runtime.queues import Channel
from perception.sinks import RunInfo, Sink
from perception.source_options import SourceOptions
from perception.sources import Source
from perception.trackers import tracker_for_model
from perception.types import CLASS_NAMES, Detections, Frame, HealthEvent, Result, Tracks

SPEC = ModelSpec(CLASS_NAMES, (96, 320))
CAR = Detections(np.array([[40, 30, 90, 70]], np.float32), np.array([0.9], np.float32), np.array([0]))
NOISE = np.random.default_rng(0).integers(0, 255, (96, 320, 3)).astype(np.uint8)
IDS = np.array([0, 1])


class Script(Source):
    """Frames with the given ids, at 10 Hz by id; live ones come every `gap_s`."""

    kind = "script"

    def __init__(
        self, ids: list[int], name: str = "a", gap_s: float | None = None, fail_at: int | None = None
    ) -> None:
        super().__init__(name, name, SourceOptions())
        self.ids, self.gap_s, self.fail_at = ids, gap_s, fail_at
        self.live = gap_s is not None
        self.size_hw = (96, 320)
        self.closed = False

    def read(self) -> Iterator[Frame]:
        for i in self.ids:
            if i == self.fail_at:
                raise OSError("rtsp://me:secret@cam: gone")
            if self.gap_s:
                time.sleep(self.gap_s)
            yield Frame(
                np.roll(NOISE, i, 1), i * 10**8, i, self.name, None, 0, time.monotonic_ns() if self.live else None
            )

    def close(self) -> None:
        self.closed = True


class Keep(Sink):
    """Remembers what it was given; may be slow or fail."""

    name = "keep"

    def __init__(self, lossless: bool = True, delay_s: float = 0.0, fail_at: int | None = None) -> None:
        self.lossless, self.delay_s, self.fail_at = lossless, delay_s, fail_at
        self.results: list[Result] = []
        self.events: list[HealthEvent] = []
        self.closed = 0

    @classmethod
    def in_folder(cls, folder: object) -> "Keep":
        return cls()

    def open(self, info: RunInfo) -> None:
        self.info = info

    def write(self, result: Result) -> None:
        if len(self.results) == self.fail_at:
            raise OSError(28, "No space left on device")
        time.sleep(self.delay_s)
        self.results.append(result)

    def event(self, event: HealthEvent) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1


def pipeline(*sources: Source, delay_ms: float = 0, sinks: tuple[Sink, ...] = (), **config: object) -> Pipeline:
    backend = ReplayBackend(SPEC, [CAR], delay_ms=delay_ms)
    return Pipeline(list(sources), (backend, SPEC), sinks, PipelineConfig(**config))  # type: ignore[arg-type]


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith(("source-", "network", "sink-", "watch"))}


def test_every_frame_of_a_file_comes_out_in_order() -> None:
    run = pipeline(Script(list(range(30))))
    results = list(run)
    assert [r.frame.frame_id for r in results] == list(range(30))
    assert sum(run.stats.dropped.values()) == 0
    assert results[-1].tracks[0].track_id == 1
    assert results[-1].road is not None
    assert set(results[-1].timings_ms) == {"decode", "health", "letterbox", "network", "read", "track"}
    assert run.stats.tracks == {"a": 1}
    assert not threads()


def test_a_sink_that_may_lose_results_does_not_hold_up_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it imports when it opens comes after the first result; without one it opens all the same."""

    class Late(Keep):
        def __init__(self) -> None:
            super().__init__(lossless=False)
            self.opened, self.opened_after = threading.Event(), -1

        def open(self, info: RunInfo) -> None:
            self.opened_after = sum(run.stats.frames.values())
            self.opened.set()

    class Waits(Script):
        def read(self) -> Iterator[Frame]:
            assert late.opened.wait(20)
            yield from super().read()

    monkeypatch.setattr(sink_runner, "FIRST_RESULT_S", 60)
    late = Late()
    run = pipeline(Script([0, 1]), sinks=(late,))
    assert len(list(run)) == 2
    assert late.opened_after >= 1 and late.results and late.closed == 1

    late = Late()
    run = pipeline(Script([]), sinks=(late,))
    assert not list(run)
    assert late.opened_after == 0 and late.closed == 1

    monkeypatch.setattr(sink_runner, "FIRST_RESULT_S", 0.01)
    late = Late()
    run = pipeline(Waits([0]), sinks=(late,))
    assert len(list(run)) == 1
    assert late.opened_after == 0 and len(late.results) == 1


def test_gaps_of_the_source_stay_visible() -> None:
    assert [r.frame.frame_id for r in pipeline(Script([0, 1, 5, 6]))] == [0, 1, 5, 6]


def test_late_frames_are_dropped_and_every_one_is_counted() -> None:
    source = Script(list(range(60)), gap_s=0.005)
    run = pipeline(source, delay_ms=30)
    results = list(run)
    ids = [r.frame.frame_id for r in results]
    assert ids == sorted(set(ids))
    assert len(ids) < 40
    # whatever is missing before a frame is what that frame says
    assert [r.frame.dropped_before for r in results] == np.diff([-1, *ids]).__sub__(1).tolist()
    assert results[-1].frame.frame_id == 59
    assert sum(run.stats.dropped.values()) + len(ids) == 60


def test_the_age_of_what_comes_out_stays_bounded_under_overload() -> None:
    ages = [r.age_ms for r in pipeline(Script(list(range(150)), gap_s=0.005), delay_ms=25, queue=2)]
    first, last = np.median(ages[3 : len(ages) // 2]), np.median(ages[len(ages) // 2 :])  # type: ignore[type-var]
    assert last < 2 * first  # it does not grow, however long it runs


def test_drop_newest_keeps_what_waits() -> None:
    results = list(pipeline(Script(list(range(40)), gap_s=0.002), delay_ms=20, when_late="drop-newest"))
    ids = [r.frame.frame_id for r in results]
    assert ids[:2] == [0, 1]
    assert [r.frame.dropped_before for r in results] == np.diff([-1, *ids]).__sub__(1).tolist()


def test_wait_loses_nothing_even_live() -> None:
    results = list(pipeline(Script(list(range(20)), gap_s=0.001), delay_ms=5, when_late="wait"))
    assert len(results) == 20


def test_several_sources_share_one_network_and_nothing_else() -> None:
    run = pipeline(Script(list(range(12)), "front"), Script(list(range(20)), "rear"))
    results = list(run)
    for name, count in (("front", 12), ("rear", 20)):
        own = [r for r in results if r.frame.source == name]
        assert [r.frame.frame_id for r in own] == list(range(count))
        assert {t.track_id for r in own for t in r.tracks} == {1}
    assert run.stats.frames == {"front": 12, "rear": 20}


def test_two_sources_of_one_name_are_refused() -> None:
    from perception.errors import UserError

    with pytest.raises(UserError, match="same name"):
        pipeline(Script([0]), Script([0]))


def test_one_source_that_breaks_does_not_stop_the_other() -> None:
    sink = Keep()
    run = pipeline(Script(list(range(9)), "bad", fail_at=4), Script(list(range(9)), "good"), sinks=(sink,))
    results = list(run)
    assert sum(r.frame.source == "good" for r in results) == 9
    assert sum(r.frame.source == "bad" for r in results) == 4
    assert "secret" not in run.errors["bad"]
    assert [(e.kind, e.source) for e in sink.events] == [("failed", "bad")]


class Diary(Keep):
    """Results and events in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[tuple[str, str]] = []

    def write(self, result: Result) -> None:
        self.pages.append(("frame", result.frame.source))

    def event(self, event: HealthEvent) -> None:
        self.pages.append((event.kind, event.source))


def test_the_end_of_one_source_beside_another_is_told_after_its_last_frame() -> None:
    diary = Diary()
    run = pipeline(Script(list(range(4)), "short"), Script(list(range(30)), "long", gap_s=0.02), sinks=(diary,))
    list(run)
    ends = [page for page in diary.pages if page[0] != "frame"]
    assert ends == [("ended", "short")]  # that of the last one is the end of the run
    before = diary.pages[: diary.pages.index(("ended", "short"))]
    assert before.count(("frame", "short")) == 4
    assert diary.pages[-1] == ("frame", "long")
    assert run.stats.events == 0


def test_an_end_is_told_while_the_others_are_silent() -> None:
    ended = threading.Event()
    silent = Script([0, 1], "silent", gap_s=0.01)
    silent.read = lambda: (ended.wait(20) and None for _ in range(0 if ended.wait(20) else 1))  # type: ignore[method-assign, assignment, return-value]
    run = Pipeline(
        [Script([0, 1, 2], "short"), silent], (ReplayBackend(SPEC, [CAR]), SPEC),
        on_event=lambda event: ended.set() if event.kind == "ended" else None,
    )  # fmt: skip
    assert len(list(run)) == 3
    assert ended.is_set()


def test_a_source_that_ends_while_it_stalls_is_not_stalled_for_ever() -> None:
    events: list[HealthEvent] = []
    over = threading.Event()

    def hear(event: HealthEvent) -> None:
        events.append(event)
        if event.kind == "stalled":
            over.set()

    class Stalls(Script):
        def read(self) -> Iterator[Frame]:
            yield from super().read()
            over.wait(20)

    class Goes(Script):
        def read(self) -> Iterator[Frame]:
            yield from super().read()
            while sum(e.kind == "stalled" for e in events) < 2 and time.monotonic() < end_s:
                time.sleep(0.02)
                yield Frame(NOISE, time.monotonic_ns(), 99, self.name)

    end_s = time.monotonic() + 20
    run = Pipeline(
        [Stalls([0, 1], "stalls", gap_s=0.01), Goes([0], "goes", gap_s=0.01)], (ReplayBackend(SPEC, [CAR]), SPEC),
        config=PipelineConfig(stalled_s=0.3), on_event=hear,
    )  # fmt: skip
    list(run)
    assert [e.active for e in events if (e.kind, e.source) == ("stalled", "stalls")] == [True, False]


def test_a_network_that_breaks_is_raised_after_all_is_closed() -> None:
    sink = Keep()
    run = pipeline(Script(list(range(9))), sinks=(sink,))

    def broken(inputs: object) -> dict:
        raise RuntimeError("out of memory")

    run.detector.backend.run = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        list(run)
    assert sink.closed == 1
    assert not threads()


def test_leaving_the_loop_early_closes_everything() -> None:
    source, sink = Script(list(range(1000))), Keep()
    run = pipeline(source, sinks=(sink,))
    for result in run:
        if result.frame.frame_id == 3:
            break
    del result
    run.close()
    assert [r.frame.frame_id for r in sink.results] == [0, 1, 2, 3]
    assert (sink.closed, source.closed) == (1, True)
    assert not threads()


def test_stop_from_another_thread_ends_the_run_and_keeps_what_is_done() -> None:
    sink = Keep()
    run = pipeline(Script(list(range(10**6)), gap_s=0.005), sinks=(sink,))
    threading.Timer(0.2, run.stop).start()
    results = list(run)
    assert 1 <= len(results) < 10**6
    assert len(sink.results) == len(results)


def test_a_stop_waits_for_no_network_and_counts_what_it_leaves() -> None:
    sink = Keep()
    run = pipeline(Script(list(range(100))), sinks=(sink,), drain_s=0.3)
    original, stuck, released = run.detector.backend.run, threading.Event(), threading.Event()

    def third_time_stuck(inputs: object) -> dict:
        if run.detector.backend.played >= 3:  # type: ignore[attr-defined]
            stuck.set()
            released.wait(60)
        return original(inputs)  # type: ignore[arg-type]

    def stop() -> None:
        stuck.wait(60)
        while run._buffer.dropped_at_shutdown() != {"a": 2}:
            time.sleep(0.01)
        run.stop()

    run.detector.backend.run = third_time_stuck  # type: ignore[method-assign]
    threading.Thread(target=stop).start()
    results = list(run)  # returns although the network does not
    released.set()
    assert len(sink.results) == len(results) == 3
    assert sink.closed == 1
    # one in the network, two before it, perhaps one whose reader was told that no more are wanted
    assert run.stats.dropped_at_shutdown["a"] in (3, 4)


def test_after_a_stop_a_slow_lossless_sink_loses_what_it_has_no_time_for_and_says_how_much() -> None:
    slow, quick = Keep(delay_s=0.15), Keep()
    run = pipeline(Script(list(range(1000))), sinks=(slow, quick), drain_s=0.6)
    threading.Timer(0.4, run.stop).start()
    list(run)
    assert (slow.closed, run.sinks[0].error) == (1, "")
    assert run.sinks[0].dropped > 0
    assert run.sinks[0].dropped + len(slow.results) == sum(run.stats.frames.values())
    assert run.sinks[0].dropped + len(slow.results) == run.sinks[1].dropped + len(quick.results)


def test_drops_after_the_last_result_are_counted_too() -> None:
    run = pipeline(Script(list(range(40)), gap_s=0.002), delay_ms=20, when_late="drop-newest")
    count = len(list(run))
    assert count + sum(run.stats.dropped.values()) + sum(run.stats.dropped_at_shutdown.values()) == 40


# ---------------------------------------------------------------- sinks behind their fences


def test_a_slow_lossless_sink_holds_back_and_gets_all() -> None:
    sink = Keep(delay_s=0.003)
    list(pipeline(Script(list(range(40))), sinks=(sink,)))
    assert [r.frame.frame_id for r in sink.results] == list(range(40))


def test_a_slow_lossy_sink_drops_and_counts() -> None:
    slow, other = Keep(lossless=False, delay_s=0.05), Keep()
    run = pipeline(Script(list(range(60))), sinks=(slow, other))
    list(run)
    runner = run.sinks[0]
    assert len(other.results) == 60
    assert 0 < len(slow.results) < 60
    assert runner.dropped + len(slow.results) == 60


def test_a_failing_sink_is_reported_and_the_rest_goes_on() -> None:
    bad, other = Keep(fail_at=5), Keep()
    bad.name = "video"  # type: ignore[misc]
    run = pipeline(Script(list(range(30))), sinks=(bad, other))
    assert len(list(run)) == 30
    assert len(other.results) == 30
    assert run.sinks[0].error == "No space left on device"
    assert [(e.kind, e.source, e.detail) for e in other.events] == [
        ("sink-failed", "video", "No space left on device")
    ]
    assert bad.closed == 1


def test_a_sink_that_cannot_open_is_reported() -> None:
    class Unopenable(Keep):
        def open(self, info: RunInfo) -> None:
            raise PermissionError(13, "Permission denied", "/nowhere/x")

    run = pipeline(Script(list(range(5))), sinks=(Unopenable(),))
    assert len(list(run)) == 5
    assert "Permission denied" in run.sinks[0].error


def test_a_sink_that_hangs_is_given_up() -> None:
    class Hangs(Keep):
        def write(self, result: Result) -> None:
            release.wait(30)

    release = threading.Event()
    hanging, other = Hangs(), Keep()
    run = pipeline(Script(list(range(30))), sinks=(hanging, other))
    run.sinks[0].timeout_s = 0.2
    assert len(list(run)) == 30
    assert len(other.results) == 30
    assert "accepted nothing" in run.sinks[0].error
    release.set()


def test_a_sink_that_is_slow_to_finish_is_waited_for_as_long_as_it_gets_on() -> None:
    slow = Keep(delay_s=0.12)
    run = pipeline(Script(list(range(6))), sinks=(slow,))
    run.sinks[0].timeout_s = 0.4  # all six together take longer
    list(run)
    assert (len(slow.results), run.sinks[0].error) == (6, "")


def test_a_sink_that_fails_at_the_end_harms_no_other() -> None:
    class HangsAtTheEnd(Keep):
        def close(self) -> None:
            release.wait(30)

    release = threading.Event()
    first, hanging = Keep(), HangsAtTheEnd()
    run = pipeline(Script([0, 1, 2]), sinks=(first, hanging))
    run.sinks[1].timeout_s = 0.2
    list(run)
    release.set()
    assert [runner.error for runner in run.sinks] == ["", "did not finish in time"]


# ---------------------------------------------------------------- the rest


def test_silence_of_a_live_source_is_an_event_and_so_is_its_end() -> None:
    class Pauses(Script):
        def read(self) -> Iterator[Frame]:
            for frame in super().read():
                if frame.frame_id == 5:
                    time.sleep(0.7)
                yield replace(frame, captured_ns=time.monotonic_ns())

    sink = Keep()
    list(pipeline(Pauses(list(range(40)), gap_s=0.02), sinks=(sink,), stalled_s=0.3))
    assert [(e.kind, e.active) for e in sink.events] == [("stalled", True), ("stalled", False)]


def test_metric_fields_where_the_camera_is_known() -> None:
    camera = PinholeCamera(np.array([[700, 0, 160, 0], [0, 700, 40, 0], [0, 0, 1, 0]], np.float64))
    backend = ReplayBackend(SPEC, [CAR])
    results = list(Pipeline([Script(list(range(5)))], (backend, SPEC), cameras={"a": camera}))
    track = results[-1].tracks[0]
    assert track.distance_m is not None
    assert track.distance_m == pytest.approx(float(np.hypot(*track.position_m)))  # type: ignore[misc]
    assert "range" in results[-1].timings_ms
    assert all(t.distance_m is None for r in pipeline(Script([0, 1])) for t in r.tracks)


def test_size_and_heading_come_from_the_model_with_hindsight_too() -> None:
    camera = PinholeCamera(np.array([[700, 0, 160, 0], [0, 700, 40, 0], [0, 0, 1, 0]], np.float64))
    cuboid = np.array([[65, 50, 4, 1.6, 1.5, -1.5, 0.1, 0.1]], np.float32)
    backend = ReplayBackend(SPEC, [replace(CAR, cuboids=cuboid)])
    live = list(Pipeline([Script(list(range(12)))], (backend, SPEC), cameras={"a": camera}))
    known = tracks_of(
        Script(list(range(12))),
        (backend, SPEC),
        PipelineConfig(),
        tracker_for_model("drivetrack", SPEC.confirm_thresholds),
        lambda count: None,
    )
    late = list(Pipeline([Script(list(range(12)))], (backend, SPEC), cameras={"a": camera}, tracker_factory=known))
    for track in (live[-1].tracks[0], late[0].tracks[0], late[-1].tracks[0]):
        assert track.size_m == pytest.approx((4, 1.6, 1.5), rel=1e-3)
        # the ray through column 65 points (160 - 65) / 700 to the left
        assert track.heading_rad == pytest.approx(-1.5 - np.arctan2(95, 700), abs=0.01)
    assert live[-1].tracks[0].heading_std_rad < late[0].tracks[0].heading_std_rad  # type: ignore[operator]
    bare = pipeline(Script(list(range(12))))
    assert all(track.size_m is None and track.heading_rad is None for result in bare for track in result.tracks)


def test_anonymized_results_reach_no_one_unblurred() -> None:
    sink = Keep()
    results = list(pipeline(Script([0, 1, 2]), sinks=(sink,), anonymize=True))
    for result in results + sink.results:
        original = np.roll(NOISE, result.frame.frame_id, 1)
        assert result.frame.image_bgr[35:65, 45:85].std() < original[35:65, 45:85].std() / 2


def test_a_model_with_a_fixed_batch_of_one_is_run_one_by_one() -> None:
    backend = ReplayBackend(SPEC, [CAR])
    backend.inputs = {"images": (1, 96, 320, 3)}
    sizes = []
    original = backend.run
    backend.run = lambda inputs: (sizes.append(len(inputs["images"])), original(inputs))[1]  # type: ignore[method-assign]
    results = list(Pipeline([Script([0, 1], "a"), Script([0, 1], "b")], (backend, SPEC)))
    assert len(results) == 4
    assert sizes == [1, 1, 1, 1]


def test_an_engine_is_never_given_more_than_its_profile_holds() -> None:
    """Its batch is free, as its inputs say, and yet no larger than the one it was built for."""
    backend = ReplayBackend(SPEC, [CAR])
    sources = [Script([0], name) for name in "abc"]
    assert Pipeline(sources, (backend, SPEC)).detector.batch == 3
    backend.max_batch = 1  # type: ignore[attr-defined]
    assert Pipeline(sources, (backend, SPEC)).detector.batch == 1
    backend.inputs, backend.max_batch = {"images": (2, 96, 320, 3)}, 2  # type: ignore[attr-defined]
    assert Pipeline(sources, (backend, SPEC)).detector.batch == 2


def test_large_pictures_wait_in_small_numbers_and_get_more_time() -> None:
    """Eight 8K pictures before each sink would be 800 MB."""
    sink = Keep()
    run = pipeline(Script([0]), sinks=(sink,))
    runner = run.sinks[0]

    def waiting(size_hw: tuple[int, int]) -> int:
        """How many of that size a sink that takes nothing is given before the pipeline would have to wait."""
        runner.timeout_s, runner._extra_timeout_s, runner.error = 0.0, 0.0, ""
        runner._queue = Channel(runner.capacity)
        image = np.broadcast_to(np.zeros(3, np.uint8), (*size_hw, 3))
        result = Result(Frame(image, 0, 0, "a"), CAR, Tracks.empty(), None)
        runner._adapt_to_size(size_hw)
        return sum(runner._queue.put(result, 0.0) for _ in range(20))

    assert [waiting(size) for size in ((375, 1242), (1080, 1920), (2160, 3840), (4320, 7680))] == [8, 8, 7, 2]
    assert runner._extra_timeout_s == pytest.approx(33, abs=1)


def test_a_second_network_that_differs_for_long_is_an_event_with_its_place() -> None:
    more = Detections(np.array([[40, 30, 90, 70], [200, 30, 240, 80]], np.float32), np.full(2, 0.9, np.float32), IDS)
    second = replace(SPEC, name="second")
    events: list[HealthEvent] = []
    pipeline = Pipeline(
        [Script(list(range(12)))],
        (ReplayBackend(SPEC, [CAR]), SPEC),
        on_event=events.append,
        second=(ReplayBackend(second, [more]), second),
    )
    results = list(pipeline)
    assert all(len(result.detections) == 1 for result in results), "the first network drives"
    differs = results[0].disagreement
    assert differs is not None and len(differs.only_first) == 0
    assert differs.only_second.boxes_xyxy.tolist() == [[200, 30, 240, 80]]
    lasting = [event for event in events if event.kind == "disagreement"]
    assert [(event.active, event.timestamp_ns) for event in lasting] == [(True, 6 * 10**8)]
    assert lasting[0].detail == "only second sees a Pedestrian at 200,30–240,80"
    assert "second" in results[0].timings_ms
