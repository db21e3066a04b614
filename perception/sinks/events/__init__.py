"""Events of zones, lines and alarms: one JSON object a line in `events.jsonl`, clips, a webhook, MQTT, the page."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from perception.sinks import RunInfo, Sink
from perception.sinks.events.clips import ClipRecorder
from perception.sinks.events.config import EventConfig, read_events
from perception.sinks.events.delivery import Delivery
from perception.sinks.events.engine import EventEngine, SceneEvent
from perception.types import Result

log = logging.getLogger("perception.events")

FILE_NAME = "events.jsonl"
CLOSE_S = 2.0
"""Time at the end of a run for events that still wait to be delivered."""


class EventsSink(Sink):
    """Every event stands in the file, whatever becomes of its delivery."""

    name = "events"
    lossless = True

    def __init__(
        self,
        folder: Path,
        config: EventConfig,
        deliveries: Sequence[Delivery] = (),
        listeners: Sequence[Callable[[SceneEvent], None]] = (),
    ) -> None:
        """
        Args:
            folder: of `events.jsonl` and `clips/`.
            config: what to watch.
            deliveries: where else events go.
            listeners: called with each event, from the sink's thread.
        """
        self.folder, self.config = folder, config
        self.deliveries, self.listeners = list(deliveries), list(listeners)
        self._file: IO[str] | None = None
        self._clips: dict[str, ClipRecorder] = {}
        self._clip_count = 0
        self._epochs: dict[str, int | None] = {}

    @classmethod
    def in_folder(cls, folder: Path, config: str = "") -> EventsSink:
        return cls(folder, read_events(Path(config)) if config else EventConfig())

    def open(self, info: RunInfo) -> None:
        self._engine = EventEngine(self.config, info.spec.class_names)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / FILE_NAME).open("w", encoding="utf-8", errors="backslashreplace")
        self.sources_changed(info)

    def sources_changed(self, info: RunInfo) -> None:
        for name in [name for name in self._epochs if all(name != source.name for source in info.sources)]:
            for event in self._engine.finish(name):
                self._publish(event, clip=False)
            if name in self._clips:
                self._clips.pop(name).close()
        self._epochs = {source.name: source.epoch_ns for source in info.sources}
        before_s, after_s = self.config.clip_before_s, self.config.clip_after_s
        for source in info.sources if before_s or after_s else ():
            if source.name not in self._clips:
                folder, rate_hz = self.folder / "clips", source.rate_hz or 25.0
                self._clips[source.name] = ClipRecorder(folder, source.name, rate_hz, before_s, after_s)

    def write(self, result: Result) -> None:
        if (clips := self._clips.get(result.frame.source)) is not None:
            clips.add(result.frame)
        for event in self._engine.update(result):
            self._publish(event)

    def _publish(self, event: SceneEvent, clip: bool = True) -> None:
        assert self._file is not None
        record = event.record()
        epoch_ns = self._epochs.get(event.source)
        record["unix_ns"] = None if epoch_ns is None else epoch_ns + event.timestamp_ns
        record["clip"] = self._clip(event) if clip else None
        self._file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n")
        self._file.flush()
        for delivery in self.deliveries:
            delivery.offer(record)
        for listener in self.listeners:
            listener(event)

    def _clip(self, event: SceneEvent) -> str | None:
        clips = self._clips.get(event.source)
        if clips is None or event.kind in ("leave", "alarm-over") or self._clip_count >= self.config.most_clips:
            return None
        name, is_new = clips.start(event.name, event.timestamp_ns)
        self._clip_count += is_new
        if self._clip_count == self.config.most_clips:
            log.warning("%d clips are written; later events get none ([clips] most)", self._clip_count)
        return name

    def close(self) -> None:
        file = self._file
        try:
            if file is not None:
                for event in self._engine.finish():
                    self._publish(event, clip=False)
        finally:
            self._file = None
            if file is not None:
                file.close()
            for clips in self._clips.values():
                clips.close()
            deliveries, self.deliveries = self.deliveries, []
            for delivery in deliveries:
                if missing := delivery.close(CLOSE_S):
                    log.warning("%d events did not reach %s; all are in %s", missing, delivery.shown, FILE_NAME)

    def outputs(self) -> list[str]:
        return [str(self.folder / FILE_NAME)]
