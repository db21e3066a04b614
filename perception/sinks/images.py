"""Annotated frames as JPEG files."""

from __future__ import annotations

from pathlib import Path

import cv2

from perception.errors import UserError
from perception.files import write_atomically
from perception.overlay import Overlay
from perception.sinks import RunInfo, Sink
from perception.types import Result


class ImageSink(Sink):
    """`frames/NAME/000000.jpg`, by frame number."""

    name = "images"

    def __init__(self, folder: Path, quality: int = 90) -> None:
        self.folder, self.quality = folder, quality
        self._overlays: dict[str, Overlay] = {}

    @classmethod
    def in_folder(cls, folder: Path, quality: int = 90) -> ImageSink:
        if not 1 <= quality <= 100:
            raise UserError(f"images.quality {quality}", "a JPEG quality from 1 to 100", "--set images.quality=90")
        return cls(folder / "frames", quality)

    def open(self, info: RunInfo) -> None:
        self.info = info
        self.lossless = not info.live
        self.sources_changed(info)

    def sources_changed(self, info: RunInfo) -> None:
        for source in info.sources:
            (self.folder / source.name).mkdir(parents=True, exist_ok=True)
        names = {source.name for source in info.sources}
        self._overlays = {name: overlay for name, overlay in self._overlays.items() if name in names}

    def write(self, result: Result) -> None:
        source = result.frame.source
        image = self._overlays.setdefault(source, Overlay(self.info.spec)).draw(result)
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        if not done:
            raise UserError(f"frame {result.frame.frame_id}: cannot be encoded as JPEG")
        path = self.folder / source / f"{result.frame.frame_id:06d}.jpg"
        write_atomically(path, data.tobytes(), do="free some space, or --out FOLDER on another disk")

    def close(self) -> None:
        pass

    def outputs(self) -> list[str]:
        return [str(self.folder)]
