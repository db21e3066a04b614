"""The loop: frames in, tracked objects and road out.

    reader (one a source)   decode, check health            ─┐ bounded queue, drops by rule
    network thread          letterbox, run, read            ─┤ bounded queue, waits
    the caller's thread     track, range, publish           ─┤ bounded queue, waits or drops by sink
    sinks (one thread each) write, draw, serve

Every queue is short, so a frame that comes out is never older than a few steps of the slowest stage.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Thread, current_thread, main_thread
from typing import Any, NamedTuple

from perception.backends import Backend, Model, load_model
from perception.cameras.pinhole import PinholeCamera
from perception.cameras.sized import SizedCamera
from perception.detector import BatchFinder, Detector
from perception.devices import Device, Precision
from perception.errors import UserError
from perception.familiarity import Familiarity
from perception.model import ModelSpec, default_model, shipped_or
from perception.redact import redact
from perception.runtime.config import PipelineConfig, WhenLate
from perception.runtime.health import HealthMonitor, StallMonitor
from perception.runtime.queues import Channel, FrameBuffer, QueuedFrame
from perception.runtime.second_camera import CameraPair, PairMatcher
from perception.runtime.second_opinion import DisagreementMonitor, disagreement
from perception.runtime.sink_runner import SinkRunner
from perception.runtime.stats import RunStats
from perception.sinks import RunInfo, Sink, SourceInfo
from perception.source_options import SourceOptions
from perception.sources import Source, open_sources
from perception.timing import timed
from perception.trackers import Tracker, tracker_for_model
from perception.types import Detections, Disagreement, Frame, HealthEvent, Result, RoadMask, Tracks

log = logging.getLogger("perception.runtime.pipeline")

STAGES = ("decode", "health", "letterbox", "network", "read", "second", "track", "range", "familiar")
"""In the order in which a frame passes them."""


class DetectedFrame(NamedTuple):
    """A frame after the network."""

    queued: QueuedFrame
    detections: Detections
    road: RoadMask | None
    second: Detections | None = None
    """What the second network found, where there is one."""


class SourceEnd(NamedTuple):
    """Follows the last frame of a source while others go on."""

    name: str


class Pipeline:
    """Sources, one network, a tracker for each source, sinks. Iterate over it once.

    >>> pipeline = Pipeline([open_source("drive.mp4")], load_model("nano.onnx"))   # doctest: +SKIP
    >>> for result in pipeline: print(result.frame.frame_id, result.tracks)        # doctest: +SKIP
    """

    def __init__(
        self,
        sources: Sequence[Source],
        model: Model | tuple[Backend, ModelSpec] | BatchFinder,
        sinks: Iterable[Sink] = (),
        config: PipelineConfig | None = None,
        cameras: dict[str, PinholeCamera] | None = None,
        on_event: Callable[[HealthEvent], None] | None = None,
        tracker_factory: Callable[[], Tracker] | None = None,
        second: Model | tuple[Backend, ModelSpec] | None = None,
        pair: CameraPair | None = None,
    ) -> None:
        """Nothing starts before the first result is asked for.

        Args:
            sources: each with its own name.
            model: what `load_model` returns, any backend with its description, or an `Ensemble`.
            sinks: get every result, each in a thread of its own.
            config: how the stages are joined.
            cameras: calibration by source name, for sources without their own; of images of the size that the
                source begins with.
            on_event: called for each health event, from any thread.
            tracker_factory: makes a source's tracker; by default the one that `config` names, with the model's
                confirmation thresholds.
            second: a second network that sees the same frames; where the two disagree for long is a health event.
            pair: two sources that see the same; where they disagree for long is a health event.
        """
        names = _check_names(sources)
        self.sources, self.config = list(sources), config or PipelineConfig()
        most = self.config.batch if self.config.stay else min(len(names), self.config.batch)
        self.detector: BatchFinder = (
            Detector(model, model[1].track_threshold, most) if isinstance(model, tuple) else model
        )
        self.spec = self.detector.spec
        self.second: Detector | None = None
        if second is not None:
            self.second = Detector(second, second[1].track_threshold, self.detector.batch)
        self._pair = None if pair is None else PairMatcher(pair, self.spec.score_threshold)
        self._disagreements: dict[str, DisagreementMonitor] = {}
        self._familiarities: dict[str, Any] = {}
        for source in self.sources:
            if source.calibration is None and cameras and source.name in cameras:
                source.calibration = SizedCamera(cameras[source.name], source.size_hw)
        self.stats = RunStats.for_sources(names)
        self.errors: dict[str, str] = {}
        """Sources that failed, with the reason."""
        self._user_on_event = on_event
        self._on_event_failed = False
        self._make_tracker = tracker_factory or (
            lambda: tracker_for_model(self.config.tracker, self.spec.confirm_thresholds)
        )
        # the first one is made here, so that an unknown name shows before anything is written
        self._trackers: dict[str, Tracker] = {} if tracker_factory else {names[0]: self._make_tracker()}
        self._rangers: dict[str, Any] = {}
        self._stalls = StallMonitor([s.name for s in sources if s.behaves_live], self.config.stalled_s)

        self._buffer = FrameBuffer(
            {source.name: self._when_late(source) for source in sources}, self.config.queue, self.config.stay
        )
        self._detected: Channel[DetectedFrame | SourceEnd] = Channel(max(2, len(names)))
        self._in_network: list[QueuedFrame] = []
        self._network_error: BaseException | None = None
        self._stopping = Event()
        self._deadline_s: float | None = None
        self._closed = Event()
        self._threads: list[Thread] = []
        self._event_lock = Lock()
        self._sources_lock = Lock()
        self._names_used = set(names)
        self._removed: set[str] = set()
        self._ended: set[str] = set()
        self.info = RunInfo(self.spec, tuple(map(_describe, sources)), self.detector.provider)
        self.sinks = [SinkRunner(sink, self.info, self.stats.clock, self.publish_event) for sink in sinks]

    def __iter__(self) -> Iterator[Result]:
        """Yield results in order of capture for each source. Leaving the loop early closes everything."""
        self._start()
        try:
            for item in self._detected:
                if isinstance(item, SourceEnd):
                    self._publish_end(item.name)
                else:
                    yield self._process(item)
            if self._network_error is not None:
                raise self._network_error
        finally:
            self.close()

    # ------------------------------------------------------------ the stages, thread by thread

    def _read(self, source: Source) -> None:
        """Reader thread: from a source to the queue before the network."""
        source.on_event = self.publish_event
        monitor = HealthMonitor(source.name) if self.config.health else None
        try:
            # Decode
            for frame in source:
                self._stalls.saw_frame(source.name)
                timings_ms = {"decode": source.decode_ms}

                # Check health: black, frozen, over-exposed, blurred
                if monitor is not None:
                    self._check_health(monitor, frame, timings_ms)

                # Queue: wait or drop by the source's rule
                if not self._buffer.put(source.name, QueuedFrame(frame, timings_ms)):
                    break
        except BaseException as error:  # a library's SystemExit, too, is a failure of this source alone
            named = isinstance(error, Exception) and str(error)
            self.errors[source.name] = redact(named or f"{type(error).__name__} {error}".strip())
            log.error("source %s: %s", source.name, self.errors[source.name])
            self.publish_event(HealthEvent("failed", source.name, True, None, self.errors[source.name]))
        finally:
            source.close()
            self._stalls.source_ended(source.name)
            self._buffer.end(source.name)

    def _detect(self) -> None:
        """Network thread: one batch after another until the sources end or the run is stopped."""
        try:
            while not self._stopping.is_set():
                # Take the next frame of each source that has one
                batch = self._buffer.take(self.detector.batch)
                if batch is None:
                    break

                # Detect: letterbox, run, read
                self._in_network = batch
                detected = self._run_detector(batch)

                # Hand over to the caller's thread; frames it does not take are dropped at shutdown
                self._in_network = [item.queued for item in detected if not self._detected.put(item)]
                if self._in_network:
                    return

                # Report sources that have ended
                for name in self._buffer.finished_sources():
                    self._detected.put(SourceEnd(name))
        except Exception as error:
            self._network_error = error
        except BaseException as error:
            self._network_error = RuntimeError(f"the network raised {type(error).__name__} {error}".strip())
        finally:
            self._buffer.stop()
            self._detected.close()

    def _process(self, item: DetectedFrame) -> Result:
        """Caller's thread: from the detections of one frame to its published result."""
        frame, timings_ms, detections = item.queued.frame, item.queued.timings_ms, item.detections

        # Track: match detections to the source's objects
        tracks = self._track(frame, detections, timings_ms)

        # Range: distance, velocity and time to collision, where the camera is calibrated
        if frame.camera is not None:
            tracks = self._range(frame, frame.camera, tracks, detections, timings_ms)

        # Anonymize: blur people and vehicles
        if self.config.anonymize:
            frame = self._anonymize(frame, tracks, detections, timings_ms)

        # Compare: where does the second network, or the second camera, differ?
        differs = self._compare_cameras(frame, detections) if self._pair else None
        if item.second is not None:
            differs = self._compare(frame, detections, item.second)

        # Compare with the training set: is this frame unlike it?
        if self.config.health and self.spec.familiar is not None:
            self._check_familiar(frame, self.spec.familiar, detections, item.road, timings_ms)

        # Publish: count the result and hand it to every sink
        age_ms = None if frame.captured_ns is None else (time.monotonic_ns() - frame.captured_ns) / 1e6
        result = Result(frame, detections, tracks, item.road, timings_ms, age_ms, differs)
        self._publish(result)
        return result

    # ------------------------------------------------------------ each stage

    def _check_health(self, monitor: HealthMonitor, frame: Frame, timings_ms: dict[str, float]) -> None:
        with timed(timings_ms, "health"):
            events = monitor.update(frame)
        for event in events:
            self.publish_event(event)

    def _run_detector(self, batch: list[QueuedFrame]) -> list[DetectedFrame]:
        images = [item.frame.image_bgr for item in batch]
        found = self.detector.run(images, [item.timings_ms for item in batch])
        if self.second is None:
            return [DetectedFrame(item, *pair) for item, pair in zip(batch, found, strict=True)]
        timings_ms: list[dict[str, float]] = [{} for _ in batch]
        others = self.second.run(images, timings_ms)
        for item, own_ms in zip(batch, timings_ms, strict=True):
            item.timings_ms["second"] = sum(own_ms.values())
        return [
            DetectedFrame(item, *pair, other) for item, pair, (other, _) in zip(batch, found, others, strict=True)
        ]

    def _check_familiar(
        self,
        frame: Frame,
        familiar: Familiarity,
        detections: Detections,
        road: RoadMask | None,
        timings_ms: dict[str, float],
    ) -> None:
        from perception.runtime.unfamiliar import FamiliarityMonitor

        monitor = self._familiarities.get(frame.source)
        if monitor is None:
            monitor = FamiliarityMonitor(frame.source, familiar, self.spec.score_threshold)
            self._familiarities[frame.source] = monitor
        with timed(timings_ms, "familiar"):
            events = monitor.update(frame, detections, road)
        for event in events:
            self.publish_event(event)

    def _compare(self, frame: Frame, first: Detections, second: Detections) -> Disagreement:
        assert self.second is not None
        specs = self.spec, self.second.spec
        monitor = self._disagreements.get(frame.source)
        if monitor is None:
            names = tuple(spec.name or f"network {i}" for i, spec in enumerate(specs, 1))
            monitor = DisagreementMonitor(
                frame.source, (names[0], names[1]), (specs[0].class_names, specs[1].class_names)
            )
            self._disagreements[frame.source] = monitor
        found = disagreement(first, second, (specs[0].score_threshold, specs[1].score_threshold))
        for event in monitor.update(found, frame.timestamp_ns):
            self.publish_event(event)
        return found

    def _compare_cameras(self, frame: Frame, detections: Detections) -> Disagreement | None:
        assert self._pair is not None
        pair = self._pair.pair
        if frame.source not in (pair.left, pair.right):
            return None
        names = self.spec.class_names
        monitor = self._disagreements.setdefault(
            pair.left, DisagreementMonitor(pair.left, (pair.left, pair.right), (names, names))
        )
        found, events = self._pair.update(frame, detections)
        for event in events + (monitor.update(found, frame.timestamp_ns) if found else []):
            self.publish_event(event)
        return found

    def _track(self, frame: Frame, detections: Detections, timings_ms: dict[str, float]) -> Tracks:
        tracker = self._trackers.get(frame.source)
        if tracker is None:
            tracker = self._trackers[frame.source] = self._make_tracker()
        with timed(timings_ms, "track"):
            return tracker.update(detections, frame.timestamp_ns, frame.image_bgr)

    def _range(
        self,
        frame: Frame,
        camera: PinholeCamera,
        tracks: Tracks,
        detections: Detections,
        timings_ms: dict[str, float],
    ) -> Tracks:
        from perception.ranging.config import RangingConfig
        from perception.ranging.network import network_of_tracks
        from perception.ranging.ranger import Ranger
        from perception.ranging.size_priors import sizes_of

        with timed(timings_ms, "range"):
            ranger = self._rangers.get(frame.source)
            if ranger is None or ranger.camera is not camera:  # a new calibration starts anew
                config = RangingConfig(sizes=sizes_of(self.spec.class_infos))
                ranger = self._rangers[frame.source] = Ranger(camera, self.spec.class_names, config)
            depths, cuboids = network_of_tracks(tracks, detections)
            ranged: Tracks = ranger.update(tracks, frame.timestamp_ns, frame.size_hw, depths, cuboids)
            return ranged

    @staticmethod
    def _anonymize(frame: Frame, tracks: Tracks, detections: Detections, timings_ms: dict[str, float]) -> Frame:
        from perception.anonymize import anonymized

        with timed(timings_ms, "anonymize"):
            return replace(frame, image_bgr=anonymized(frame.image_bgr, detections, tracks))

    def _publish(self, result: Result) -> None:
        self.stats.add(result)
        for sink in self.sinks:
            sink.publish(result)

    def publish_event(self, event: HealthEvent) -> None:
        """Hand a health event to every sink and the caller. Any thread may call it."""
        with self._event_lock:
            self.stats.events += event.kind != "ended"  # the end of a source is no fault
        for sink in self.sinks:
            sink.publish(event)  # a sink that has failed ignores it
        if self._user_on_event is not None:
            try:
                self._user_on_event(event)
            except BaseException as error:
                if current_thread() is main_thread() and not isinstance(error, Exception):
                    raise  # Ctrl-C
                if not self._on_event_failed:
                    log.exception("on_event failed; the run continues")
                self._on_event_failed = True

    def _publish_end(self, name: str) -> None:
        """Report that one source has ended while others go on. The end of the last one is the end of the run."""
        if name not in self.errors and name not in self._ended:
            notes = "".join(f"; {note}" for source in self.sources if source.name == name for note in source.notes)
            frames = self.stats.frames.get(name, 0)
            removed = "removed " if name in self._removed else ""
            self.publish_event(HealthEvent("ended", name, True, None, f"{removed}after {frames} frames{notes}"))
        self._ended.add(name)
        if name in self._removed:
            self._forget(name)

    def _watch_stalls(self) -> None:
        """Watch thread: report live sources that deliver no frames."""
        while not self._closed.wait(0.1):
            for event in self._stalls.update():
                self.publish_event(event)

    # ------------------------------------------------------------ sources that come and go

    def add_source(self, source: Source) -> str:
        """Read a further source from now on; returns its name. Any thread may call it.

        A name that was used before in this run gets a number, so that its files and counts stay apart.

        Raises:
            UserError: the run is ending.
        """
        with self._sources_lock:
            if self._stopping.is_set() or self._closed.is_set():
                source.close()
                raise UserError("the run is ending", "a run that goes on")
            name, number = source.name, 2
            while source.name in self._names_used:
                source.name, number = f"{name}-{number}", number + 1
            self._names_used.add(source.name)
            self.sources.append(source)
            self.stats.add_source(source.name)
            if source.behaves_live:
                self._stalls.watch(source.name)
            self._buffer.add(source.name, self._when_late(source))
            self._publish_sources()
            if self._threads:  # else the start of the run reads it with the others
                jobs: list[tuple[str, Callable[[], None]]] = [(f"source-{source.name}", lambda: self._read(source))]
                if source.behaves_live and all(thread.name != "watch" for thread in self._threads):
                    jobs.append(("watch", self._watch_stalls))
                self._start_threads(jobs)
        return source.name

    def remove_source(self, name: str) -> None:
        """Read a source no longer. What is queued of it is still processed. Any thread may call it.

        Raises:
            UserError: no such source.
        """
        with self._sources_lock:
            source = next((s for s in self.sources if s.name == name and name not in self._removed), None)
            if source is None:
                raise UserError(f"no source '{name}'", "one of " + ", ".join(s.name for s in self.sources))
            self._removed.add(name)
            has_ended = name in self._ended
        source.stop()
        if has_ended:  # its end was reported before
            self._detected.put(SourceEnd(name))

    def _forget(self, name: str) -> None:
        """Keep nothing of a source that was removed but its counts."""
        with self._sources_lock:
            self.sources = [source for source in self.sources if source.name != name]
            self._trackers.pop(name, None)
            self._rangers.pop(name, None)
            self._disagreements.pop(name, None)
            self._familiarities.pop(name, None)
            self._stalls.forget(name)
            self.stats.source_ended(name)
            self.stats.dropped_at_shutdown[name] += self._buffer.forget(name)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._removed.discard(name)
            self._ended.discard(name)
            self._publish_sources()

    def _publish_sources(self) -> None:
        self._detected.set_capacity(max(2, len(self.sources)))
        self.info = replace(self.info, sources=tuple(map(_describe, self.sources)))
        for sink in self.sinks:
            sink.publish(self.info)

    # ------------------------------------------------------------ start, stop, close

    def _start(self) -> None:
        self.stats.started_s = time.perf_counter()
        atexit.register(self._finish_at_exit)
        for sink in self.sinks:
            sink.start()
        jobs: list[tuple[str, Callable[[], None]]] = [("network", self._detect)]
        with self._sources_lock:
            jobs += [(f"source-{s.name}", lambda s=s: self._read(s)) for s in self.sources]  # type: ignore[misc]
            if self.config.stay or any(source.behaves_live for source in self.sources):
                jobs.append(("watch", self._watch_stalls))
            self._start_threads(jobs)

    def _start_threads(self, jobs: Sequence[tuple[str, Callable[[], None]]]) -> None:
        threads = [Thread(target=job, name=name, daemon=True) for name, job in jobs]
        self._threads += threads
        for thread in threads:
            thread.start()

    def stop(self) -> None:
        """End the run within `drain_s`: results computed by then are written. Any thread may call it."""
        if self._deadline_s is None:
            now_s, drain_s = time.monotonic(), self.config.drain_s
            self._deadline_s = now_s + drain_s
            self._detected.set_deadline(now_s + drain_s / 4)
            for sink in self.sinks:
                sink.set_deadline(now_s + drain_s / 2)
        self._stop_input()

    def _finish_at_exit(self) -> None:
        """End the run where Python is left in the middle of it.

        A thread that returns from a library's code after the interpreter is gone aborts the process, and the exit
        code is lost.
        """
        self.stop()
        self.close()

    def _stop_input(self) -> None:
        """Read no more frames, and run the network on none of those queued."""
        with self._sources_lock:
            self._stopping.set()
        for source in self.sources:
            source.stop()
        self._buffer.stop()

    def close(self) -> None:
        """Stop all threads and close the sinks. The iteration calls it at its end."""
        if self._closed.is_set():
            return
        self._stop_input()
        self._closed.set()
        self._detected.close()
        items = [*self._detected, *self._detected.expired]
        unpublished = [item.queued for item in items if isinstance(item, DetectedFrame)]
        for sink in self.sinks:
            left_s = sink.timeout_s if self._deadline_s is None else self._deadline_s - time.monotonic()
            sink.finish(max(0.25, left_s))
        until_s = time.monotonic() + 0.2 if self._deadline_s is None else self._deadline_s
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        self.stats.dropped_at_shutdown.update(self._buffer.dropped_at_shutdown())
        for item in unpublished + self._in_network:
            self.stats.dropped_at_shutdown[item.frame.source] += 1 + item.frame.dropped_before
        atexit.unregister(self._finish_at_exit)

    def _when_late(self, source: Source) -> WhenLate:
        return self.config.when_late or ("drop-oldest" if source.behaves_live else "wait")


def _check_names(sources: Sequence[Source]) -> list[str]:
    """Names of the sources.

    Raises:
        UserError: no source, or two with the same name.
    """
    if not sources:
        raise UserError("no source", "at least one video, folder, camera or stream")
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise UserError(
            f"two sources have the same name: {', '.join(names)}", "a name for each", "front=SOURCE rear=SOURCE"
        )
    return names


def _describe(source: Source) -> SourceInfo:
    return SourceInfo(
        source.name,
        redact(source.location),
        source.kind,
        source.behaves_live,
        source.size_hw,
        source.rate_hz,
        source.frame_count,
        source.epoch_ns,
    )


def run(
    source: str | Path | Sequence[str | Path],
    model: str | Path | Model | None = None,
    *,
    device: Device = "auto",
    precision: Precision = "fp32",
    sinks: Iterable[Sink] = (),
    config: PipelineConfig | None = None,
    options: SourceOptions | None = None,
) -> Pipeline:
    """Open a source and load a model; iterate over the pipeline returned for the results.

    Args:
        source: a video, folder, KITTI sequence, camera or URL; several as a list.
        model: an ONNX file, or a shipped network by name; None: `nano`, in the size that suits the source best.
        device: what runs the network, see `load_model`.
        precision: arithmetic of OpenVINO.
        sinks: where results also go.
        config: how the stages are joined.
        options: which part of the source, and how.

    Raises:
        UserError: a source or model that cannot be used, with what to do about it.
    """
    locations = [source] if isinstance(source, (str, Path)) else list(source)
    sources = open_sources(locations, options)
    if model is None or isinstance(model, (str, Path)):
        size_hw = sources[0].size_hw if sources else None
        path = default_model(size_hw) if model is None else shipped_or(Path(model), size_hw)
        model = load_model(path, device, precision=precision)
    return Pipeline(sources, model, sinks, config)
