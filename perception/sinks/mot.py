"""MOTChallenge rows, one file a source: `frame,id,left,top,width,height,score,-1,-1,-1`, frames from 1."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from perception.sinks import RunInfo, Sink
from perception.sinks.kitti import open_files
from perception.types import Result


class MotSink(Sink):
    """`mot/NAME.txt`: confirmed tracks that were seen in the frame. The format has no classes."""

    name = "mot"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, IO[str]] = {}
        self._paths: list[str] = []

    @classmethod
    def in_folder(cls, folder: Path) -> MotSink:
        return cls(folder / "mot")

    def open(self, info: RunInfo) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sources_changed(info)

    def sources_changed(self, info: RunInfo) -> None:
        self._paths += open_files(self._files, self.folder, info)

    def write(self, result: Result) -> None:
        file = self._files[result.frame.source]
        for track in result.tracks:
            if track.state == "confirmed":
                left, top, right, bottom = (float(v) for v in track.box_xyxy)
                file.write(
                    f"{result.frame.frame_id + 1},{track.track_id},{left:.2f},{top:.2f},"
                    f"{right - left:.2f},{bottom - top:.2f},{track.score:.4f},-1,-1,-1\n"
                )
        file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def outputs(self) -> list[str]:
        return list(self._paths)
