"""The loop: frames in, tracked objects and road out.

    reader (one a source)   decode, judge health           ─┐ bounded, drops by rule
    network thread          letterbox, run, read outputs    ─┤ bounded, waits
    the caller's thread     track, range, publish           ─┤ bounded, waits or drops by sink
    sinks (one thread each) write, draw, serve

Every queue is short, so a frame that comes out is never older than a few steps of the slowest stage.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from perception.backends import Backend, Device, Model, load_model
from perception.cameras.pinhole import PinholeCamera
from perception.detector import Detector
from perception.errors import UserError
from perception.model import ModelSpec, default_model
from perception.redact import redact
from perception.runtime.config import PipelineConfig
from perception.runtime.health import HealthMonitor
from perception.runtime.queues import Channel, FrameBuffer, Waiting, WhenLate
from perception.runtime.sink_runner import SinkRunner
from perception.sinks import RunInfo, Sink, SourceInfo
from perception.sources import Source, SourceOptions, open_source
from perception.timing import Durations, StageClock, timed
from perception.trackers import Tracker, tracker_for_model
from perception.types import CONFIRMED, F32, Detections, HealthEvent, Result, RoadMask, Tracks

log = logging.getLogger("perception.runtime.pipeline")

STAGES = ("decode", "health", "letterbox", "network", "read", "track", "range")
"""In the order in which a frame meets them."""


@dataclass
class RunStats:
    """Counters of one run; flat in memory, readable at any time from any thread."""

    clock: StageClock = field(default_factory=StageClock)
    latency: Durations = field(default_factory=Durations)
    """All stages of a frame together, without the waiting between them."""
    age: Durations = field(default_factory=Durations)
    """Live sources: age of the frame when its result left."""
    frames: dict[str, int] = field(default_factory=dict)
    """Results by source."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Frames lost before one that came out, by source."""
    left_behind: dict[str, int] = field(default_factory=dict)
    """Frames that were read and had no result when the run ended: stopped on their way, or dropped after the last."""
    tracks: dict[str, int] = field(default_factory=dict)
    """Confirmed tracks so far by source."""
    events: int = 0
    started_s: float = field(default_factory=time.perf_counter)
    first_result_s: float | None = None
    """Seconds from the start of the pipeline."""
    first_ns: int | None = None
    last_ns: int | None = None
    _confirmed: dict[str, set[int]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Count one result."""
        now = time.perf_counter_ns()
        if self.first_ns is None:
            self.first_ns, self.first_result_s = now, now / 1e9 - self.started_s
        self.last_ns = now
        name = result.frame.source
        self.frames[name] = self.frames.get(name, 0) + 1
        self.dropped[name] = self.dropped.get(name, 0) + result.frame.dropped_before
        self.clock.add_all(result.timings_ms)
        self.latency.add(sum(result.timings_ms.values()))
        if result.age_ms is not None:
            self.age.add(result.age_ms)
        # ids only grow: what is below the oldest living track need not be remembered
        living = self._confirmed.setdefault(name, set())
        ids = set(result.tracks.track_ids.tolist())
        new = set(result.tracks.track_ids[result.tracks.states == CONFIRMED].tolist()) - living
        self.tracks[name] = self.tracks.get(name, 0) + len(new)
        self._confirmed[name] = (living & ids) | new

    @property
    def fps(self) -> float:
        """Results a second, from the first to the last."""
        total = sum(self.frames.values())
        if total < 2 or self.first_ns is None or self.last_ns is None or self.last_ns == self.first_ns:
            return 0.0
        return (total - 1) / ((self.last_ns - self.first_ns) / 1e9)

    @property
    def network_share(self) -> float:
        """Share of all stages' time that is the network."""
        total = self.latency.sum_ms
        return self.clock["network"].sum_ms / total if total else 0.0


class Pipeline:
    """Sources, one network, a tracker for each source, sinks. Iterate over it once.

    >>> pipeline = Pipeline([open_source("drive.mp4")], load_model("nano.onnx"))   # doctest: +SKIP
    >>> for result in pipeline: print(result.frame.frame_id, result.tracks)        # doctest: +SKIP
    """

    def __init__(
        self,
        sources: Sequence[Source],
        model: Model | tuple[Backend, ModelSpec],
        sinks: Iterable[Sink] = (),
        config: PipelineConfig | None = None,
        cameras: dict[str, PinholeCamera] | None = None,
        on_event: Callable[[HealthEvent], None] | None = None,
        tracker_factory: Callable[[], Tracker] | None = None,
    ) -> None:
        """Nothing starts before the first result is asked for.

        Args:
            sources: each with its own name.
            model: what `load_model` returns, or any backend with its description.
            sinks: get every result, each in a thread of its own.
            config: how the stages are joined.
            cameras: calibration by source name, where the source itself knows none.
            on_event: called for each health event, from any thread.
            tracker_factory: makes a source's tracker; by default the one `config` names, told what
                the model's scores mean.
        """
        if not sources:
            raise UserError("no source", "at least one video, folder, camera or stream")
        names = [source.name for source in sources]
        if len(set(names)) != len(names):
            raise UserError(
                f"two sources have the same name: {', '.join(names)}", "a name for each", "front=… rear=…"
            )
        self.sources, self.config = list(sources), config or PipelineConfig()
        self.spec = model[1]
        self.detector = Detector(model, self.spec.track_threshold, min(len(self.sources), self.config.batch))
        self.cameras = cameras or {}
        nothing = dict.fromkeys(names, 0)
        self.stats = RunStats(frames=dict(nothing), dropped=dict(nothing), left_behind=dict(nothing))
        self.errors: dict[str, str] = {}
        """Sources that broke, with the reason."""
        self._user_on_event = on_event
        self._make_tracker = tracker_factory or (
            lambda: tracker_for_model(self.config.tracker, self.spec.confirm_thresholds)
        )
        # the first one is made here, so that an unknown name shows before anything is written
        self._trackers: dict[str, Tracker] = {} if tracker_factory else {names[0]: self._make_tracker()}
        self._rangers: dict[str, Any] = {}
        self._buffer = FrameBuffer({s.name: self._rule(s) for s in sources}, self.config.queue)
        self._found: Channel[tuple[Waiting, Detections, RoadMask | None] | str] = Channel(max(2, len(sources)))
        """Results of the network, and the name of a source after its last one."""
        self._under_way: list[Waiting] = []
        self._network_error: BaseException | None = None
        self._last_frame_s = {s.name: time.monotonic() for s in sources}
        self._stopping = Event()
        self._deadline_s: float | None = None
        self._closed = Event()
        self._threads: list[Thread] = []
        self._event_lock = Lock()
        infos = tuple(_describe(source) for source in sources)
        self.info = RunInfo(self.spec, infos, self.detector.backend.provider)
        self.sinks = [SinkRunner(sink, self.info, self.stats.clock, self.publish_event) for sink in sinks]

    def __iter__(self) -> Iterator[Result]:
        """Results in order of capture for each source. Leaving the loop early closes everything."""
        self._start()
        try:
            for found in self._found:
                if isinstance(found, str):
                    self._tell_end(found)
                    continue
                result = self._follow(*found)
                self._publish(result)
                yield result
            if self._network_error is not None:
                raise self._network_error
        finally:
            self.close()

    def stop(self) -> None:
        """End the run within `drain_s`: what is computed by then is written. Safe from any thread."""
        if self._deadline_s is None:
            now_s, drain_s = time.monotonic(), self.config.drain_s
            self._deadline_s = now_s + drain_s
            self._found.expire(now_s + drain_s / 4)
            for sink in self.sinks:
                sink.hurry(now_s + drain_s / 2)
        self._let_go()

    def _let_go(self) -> None:
        """No more frames."""
        self._stopping.set()
        for source in self.sources:
            source.stop()
        self._buffer.stop()

    def close(self) -> None:
        """Stop all threads and close the sinks. Called by the iteration itself."""
        if self._closed.is_set():
            return
        self._let_go()
        self._closed.set()
        self._found.close()
        found = [item[0] for item in [*self._found, *self._found.expired] if not isinstance(item, str)]
        for sink in self.sinks:
            left_s = sink.patience_s if self._deadline_s is None else self._deadline_s - time.monotonic()
            sink.finish(max(0.25, left_s))
        until_s = time.monotonic() + 0.2 if self._deadline_s is None else self._deadline_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        self.stats.left_behind = self._buffer.left_behind()
        for waiting in found + self._under_way:
            self.stats.left_behind[waiting.frame.source] += 1 + waiting.frame.dropped_before

    # ------------------------------------------------------------ the stages

    def _start(self) -> None:
        self.stats.started_s = time.perf_counter()
        for sink in self.sinks:
            sink.start()
        jobs: list[tuple[str, Callable[[], None]]] = [("network", self._detect)]
        jobs += [(f"source-{s.name}", lambda s=s: self._read(s)) for s in self.sources]  # type: ignore[misc]
        if any(source.behaves_live for source in self.sources):
            jobs.append(("watch", self._watch))
        self._threads = [Thread(target=job, name=name, daemon=True) for name, job in jobs]
        for thread in self._threads:
            thread.start()

    def _read(self, source: Source) -> None:
        """Reader thread: decode, judge health, wait or drop."""
        source.on_event = self.publish_event
        monitor = HealthMonitor(source.name) if self.config.health else None
        try:
            for frame in source:
                timings_ms = {"decode": source.decode_ms}
                self._last_frame_s[source.name] = time.monotonic()
                if monitor is not None:
                    with timed(timings_ms, "health"):
                        events = monitor.update(frame)
                    for event in events:
                        self.publish_event(event)
                if frame.camera is None and source.name in self.cameras:
                    frame = replace(frame, camera=self.cameras[source.name])
                if not self._buffer.put(source.name, Waiting(frame, timings_ms)):
                    break
        except Exception as error:
            self.errors[source.name] = redact(str(error) or type(error).__name__)
            log.error("source %s: %s", source.name, self.errors[source.name])
            self.publish_event(HealthEvent("failed", source.name, True, None, self.errors[source.name]))
        finally:
            source.close()
            self._last_frame_s.pop(source.name, None)
            self._buffer.end(source.name)

    def _detect(self) -> None:
        """Network thread: one batch after another until the sources end or the run is stopped."""
        try:
            while not self._stopping.is_set():
                batch = self._buffer.take(self.detector.batch)
                if batch is None:
                    break
                if batch:
                    self._under_way = batch
                    self._under_way = [found[0] for found in self._run_network(batch) if not self._found.put(found)]
                    if self._under_way:
                        return
                for name in self._buffer.drained():
                    self._found.put(name)
        except Exception as error:
            self._network_error = error
        finally:
            self._buffer.stop()
            self._found.close()

    def _run_network(self, batch: list[Waiting]) -> list[tuple[Waiting, Detections, RoadMask | None]]:
        images = [waiting.frame.image_bgr for waiting in batch]
        found = self.detector.run(images, [waiting.timings_ms for waiting in batch])
        return [(waiting, *both) for waiting, both in zip(batch, found, strict=True)]

    def _follow(self, waiting: Waiting, detections: Detections, road: RoadMask | None) -> Result:
        """Caller's thread: who is who, and where on the road."""
        frame, timings_ms = waiting.frame, waiting.timings_ms
        tracker = self._trackers.get(frame.source)
        if tracker is None:
            tracker = self._trackers[frame.source] = self._make_tracker()
        with timed(timings_ms, "track"):
            tracks = tracker.update(detections, frame.timestamp_ns, frame.image_bgr)
        if frame.camera is not None:
            with timed(timings_ms, "range"):
                ranger = self._ranger(frame.source, frame.camera)
                depths = self._depths(tracks, detections)
                tracks = ranger.update(tracks, frame.timestamp_ns, frame.size_hw, depths)
        if self.config.anonymize:
            from perception.anonymize import anonymized

            with timed(timings_ms, "anonymize"):
                frame = replace(frame, image_bgr=anonymized(frame.image_bgr, detections, tracks))
        age_ms = None if frame.captured_ns is None else (time.monotonic_ns() - frame.captured_ns) / 1e6
        return Result(frame, detections, tracks, road, timings_ms, age_ms)

    def _publish(self, result: Result) -> None:
        self.stats.add(result)
        for sink in self.sinks:
            sink.publish(result)

    # ------------------------------------------------------------ health

    def publish_event(self, event: HealthEvent) -> None:
        """Tell every sink and the caller what went wrong. Any thread."""
        with self._event_lock:
            self.stats.events += event.kind != "ended"  # that one is no trouble
        for sink in self.sinks:
            sink.publish(event)  # one that has failed takes nothing any more
        if self._user_on_event is not None:
            self._user_on_event(event)

    def _tell_end(self, name: str) -> None:
        """One source is through while others go on. That of the last one is the end of the run."""
        if name not in self.errors:
            notes = "".join(f"; {note}" for source in self.sources if source.name == name for note in source.notes)
            frames = self.stats.frames.get(name, 0)
            self.publish_event(HealthEvent("ended", name, True, None, f"after {frames} frames{notes}"))

    def _watch(self) -> None:
        """Watch thread: live sources that have gone silent."""
        stalled: set[str] = set()
        live = [source.name for source in self.sources if source.behaves_live]
        while not self._closed.wait(0.1):
            now = time.monotonic()
            for name in live:
                last = self._last_frame_s.get(name)
                if last is None:
                    if name in stalled:
                        stalled.discard(name)
                        self.publish_event(HealthEvent("stalled", name, False, None, "no more is waited for"))
                    continue
                silent_s = now - last
                if silent_s > self.config.stalled_s and name not in stalled:
                    stalled.add(name)
                    self.publish_event(HealthEvent("stalled", name, True, None, f"no picture for {silent_s:.1f} s"))
                elif silent_s <= self.config.stalled_s and name in stalled:
                    stalled.discard(name)
                    self.publish_event(HealthEvent("stalled", name, False, None, "pictures again"))

    # ------------------------------------------------------------ details

    def _rule(self, source: Source) -> WhenLate:
        return self.config.when_late or ("drop-oldest" if source.behaves_live else "wait")

    @staticmethod
    def _depths(tracks: Tracks, detections: Detections) -> F32 | None:
        """What the network says of the tracks' distances, where it has a distance head."""
        if detections.depths is None:
            return None
        from perception.ranging.ranger import depths_of_tracks

        return depths_of_tracks(tracks, detections)

    def _ranger(self, name: str, camera: PinholeCamera) -> Any:
        """The source's ranger; a new one where the calibration changed."""
        ranger = self._rangers.get(name)
        if ranger is None or ranger.camera is not camera:
            from perception.ranging.ranger import Ranger

            ranger = self._rangers[name] = Ranger(camera, self.spec.class_names)
        return ranger


def _describe(source: Source) -> SourceInfo:
    return SourceInfo(
        source.name,
        redact(source.location),
        source.kind,
        source.behaves_live,
        source.size_hw,
        source.rate_hz,
        source.frame_count,
    )


def run(
    source: str | Path | Sequence[str | Path],
    model: str | Path | Model | None = None,
    *,
    device: Device = "auto",
    sinks: Iterable[Sink] = (),
    config: PipelineConfig | None = None,
    options: SourceOptions | None = None,
) -> Pipeline:
    """Open a source, load a model, and iterate over the results.

    Args:
        source: a video, folder, KITTI sequence, camera or URL; several as a list.
        model: an ONNX file; None takes the shipped weights that fit the source best.
        device: auto, cpu, cuda or tensorrt.
        sinks: where results also go.
        config: how the stages are joined.
        options: which part of the source, and how.

    Raises:
        UserError: a source or model that cannot be used, with what to do about it.
    """
    locations = [source] if isinstance(source, (str, Path)) else list(source)
    sources = [open_source(location, options) for location in locations]
    if model is None or isinstance(model, (str, Path)):
        path = default_model(sources[0].size_hw if sources else None) if model is None else Path(model)
        model = load_model(path, device)
    return Pipeline(sources, model, sinks, config)
