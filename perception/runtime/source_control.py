"""Add and remove sources of a run from outside: the page's API, and a TOML file that is read again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Any

from perception.cameras.sized import SizedCamera
from perception.errors import UserError
from perception.redact import redact
from perception.runtime.pipeline import Pipeline
from perception.source_options import SourceOptions
from perception.sources import calibrate_sources, open_source
from perception.video.opening import is_remote

log = logging.getLogger("perception.sources")

MOST_SOURCES = 64


class SourceControl:
    """Opens sources with the options of the run. Any thread may call it; one change is made at a time."""

    def __init__(
        self, pipeline: Pipeline, options: SourceOptions, camera: SizedCamera | None, locations: Sequence[str] = ()
    ) -> None:
        """
        Args:
            pipeline: of the run.
            options: for all sources.
            camera: calibration of those without their own.
            locations: as typed, of the sources that the run begins with, in their order.
        """
        self._pipeline, self._options, self._camera = pipeline, options, camera
        self._lock = Lock()
        names = [source.name for source in pipeline.sources]
        self._names = dict(zip(locations, names, strict=True)) if len(locations) == len(names) else {}

    def sources(self) -> list[dict[str, Any]]:
        """What is read now, without passwords."""
        infos = self._pipeline.info.sources
        return [{"name": s.name, "location": s.location, "kind": s.kind, "live": s.live} for s in infos]

    def add_remote(self, location: str) -> str:
        """Add a stream or a camera; returns its name. Files are refused: who may see the page may not read the disk.

        Raises:
            UserError: not such a location, one that cannot be opened, or too many sources.
        """
        bare = location.partition("=")[2] if "=" in location.partition("://")[0] else location
        if not (is_remote(bare) or bare.startswith("camera:")):
            raise UserError(
                f"{redact(location)[:200]}: not a stream or camera",
                "rtsp://HOST/PATH, http(s)://HOST/PATH, another stream, or camera:0",
            )
        return self.add(location)

    def add(self, location: str) -> str:
        """Add any source, as on the command line: `front=rtsp://…`.

        Raises:
            UserError: one that cannot be opened, or too many sources.
        """
        with self._lock:
            if len(self._pipeline.sources) >= MOST_SOURCES:
                raise UserError(f"{MOST_SOURCES} sources", "fewer", "remove one first")
            source = open_source(location, self._options)
            try:
                if self._camera is not None:
                    calibrate_sources([source], self._camera)
            except UserError:
                source.close()
                raise
            name = self._names[location] = self._pipeline.add_source(source)
        log.info("source %s added: %s", name, redact(location))
        return name

    def remove(self, name: str) -> None:
        """Stop reading a source.

        Raises:
            UserError: no such source.
        """
        with self._lock:
            self._pipeline.remove_source(name)
            self._names = {location: of for location, of in self._names.items() if of != name}
        log.info("source %s removed", name)

    def reload(self, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
        """Make the sources those of a list; returns names added and removed. A mistake in one harms no other."""
        added, removed = [], []
        for location, name in list(self._names.items()):
            if location not in wanted:
                try:
                    self.remove(name)
                    removed.append(name)
                except UserError as error:
                    log.warning("%s", error.found)
        for location in dict.fromkeys(wanted):
            if location not in self._names:
                try:
                    added.append(self.add(location))
                except UserError as error:
                    log.warning("%s", error.found)
        return added, removed
