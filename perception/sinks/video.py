"""Annotated H.264 in fragmented MP4: a browser plays it, and what was written plays even after a kill."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from perception.arrays import U8
from perception.errors import UserError
from perception.overlay import Overlay, shrunk
from perception.sinks import RunInfo, Sink
from perception.types import Result

if TYPE_CHECKING:
    from av.container import OutputContainer

TIME_BASE = Fraction(1, 90_000)
LONGEST_EDGE = 4096
"""Larger frames are scaled down to it: hardly a player takes H.264 beyond, and 8K costs seconds a frame."""
FRAGMENT_S = 1.0
"""A kill loses at most this much of the end."""


class VideoSink(Sink):
    """One `annotated.mp4` for each source, at the times of capture."""

    name = "video"

    def __init__(
        self, folder: Path, crf: int = 23, preset: str = "superfast", annotate: bool = True, margins: bool = False
    ) -> None:
        """x264's quality (lower is better, 18 looks lossless) and speed; `annotate` draws the results in, `margins`
        the boxes that hold the true ones as well."""
        self.folder, self.crf, self.preset, self.annotate, self.margins = folder, crf, preset, annotate, margins
        self._writers: dict[str, H264Writer] = {}
        self._overlays: dict[str, Overlay] = {}
        self._paths: list[Path] = []

    @classmethod
    def in_folder(
        cls, folder: Path, crf: int = 23, preset: str = "superfast", annotate: bool = True, margins: bool = False
    ) -> VideoSink:
        if not 0 <= crf <= 51:
            raise UserError(f"video.crf {crf}", "x264's quality from 0 (lossless) to 51", "--set video.crf=23")
        return cls(folder, crf, preset, annotate, margins)

    def open(self, info: RunInfo) -> None:
        import av

        if "libx264" not in av.codecs_available:
            raise UserError(
                "this build of PyAV has no libx264", "an H.264 encoder", "pip install --force-reinstall av"
            )
        if self.margins and info.spec.doubt is None:
            raise UserError(
                "video.margins: the model file has no margins",
                "one with its doubt measured",
                "perception export doubt MODEL --data LABELLED --out NEW.onnx",
            )
        self.info = info
        self.lossless = not info.live
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, result: Result) -> None:
        source = result.frame.source
        result = shrunk(result, LONGEST_EDGE)
        image = result.frame.image_bgr
        if self.annotate:
            overlay = self._overlays.setdefault(source, Overlay(self.info.spec, self.margins))
            image = overlay.draw(result)
        writer = self._writers.get(source)
        if writer is None:
            rate_hz = next((s.rate_hz for s in self.info.sources if s.name == source), None)
            path = self.folder / self.info.file_name(source, ".mp4", "annotated")
            if path in self._paths:  # one source was alone at first, and another is alone now
                path = path.with_stem(f"annotated-{source}")
            self._paths.append(path)
            writer = self._writers[source] = H264Writer(path, rate_hz or 25.0, self.crf, self.preset)
        writer.write(image, result.frame.timestamp_ns)

    def sources_changed(self, info: RunInfo) -> None:
        self.info, names = info, {source.name for source in info.sources}
        for name in [name for name in self._writers if name not in names]:
            self._writers.pop(name).close()
            self._overlays.pop(name, None)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def outputs(self) -> list[str]:
        return [str(path) for path in self._paths]


class H264Writer:
    """One MP4 file. The first frame sets the size; others are scaled to it."""

    def __init__(self, path: Path, rate_hz: float, crf: int = 23, preset: str = "superfast") -> None:
        self.path, self.rate_hz, self.crf, self.preset = path, rate_hz, crf, preset
        self._container: OutputContainer | None = None
        self._stream: Any = None
        self._first_ns = 0
        self._last_pts = -1

    def _open(self, size_hw: tuple[int, int]) -> None:
        import av

        self._container = av.open(
            str(self.path),
            "w",
            format="mp4",
            options={"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"},
        )
        self._stream = self._container.add_stream(
            "libx264",
            rate=Fraction(self.rate_hz).limit_denominator(1001),
            # zerolatency drops the look-ahead and its forty frames of memory
            options={"crf": str(self.crf), "preset": self.preset, "tune": "zerolatency"},
        )
        self._stream.height, self._stream.width = size_hw
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.gop_size = max(1, round(self.rate_hz * FRAGMENT_S))
        self._stream.codec_context.time_base = TIME_BASE
        # what OpenCV's conversion makes: BT.601, limited range. Untagged, browsers take large frames for BT.709
        self._stream.codec_context.colorspace = 6
        self._stream.codec_context.color_range = 1

    def write(self, image_bgr: U8, timestamp_ns: int) -> None:
        """Encode one frame at its time of capture."""
        import av

        even = even_size(image_bgr)
        if self._container is None:
            self._first_ns = timestamp_ns
            self._open((even.shape[0], even.shape[1]))
        size_hw = (self._stream.height, self._stream.width)
        if even.shape[:2] != size_hw:
            even = cv2.resize(even, size_hw[::-1], interpolation=cv2.INTER_AREA)
        encoded = av.VideoFrame.from_ndarray(cv2.cvtColor(even, cv2.COLOR_BGR2YUV_I420), format="yuv420p")
        encoded.colorspace, encoded.color_range = 6, 1
        pts = round((timestamp_ns - self._first_ns) * TIME_BASE.denominator / 1e9)
        self._last_pts = encoded.pts = max(pts, self._last_pts + 1)
        encoded.time_base = TIME_BASE
        assert self._container is not None
        self._container.mux(self._stream.encode(encoded))

    def abandon(self) -> None:
        """Remove the file where it has not been closed, as after a failure."""
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(OSError):
                container.close()
            with contextlib.suppress(OSError):
                self.path.unlink()

    def close(self) -> None:
        """Write what the encoder still holds."""
        container, self._container = self._container, None
        if container is not None:
            try:
                container.mux(self._stream.encode(None))
            finally:
                container.close()


def even_size(image: U8) -> U8:
    """H.264 in 4:2:0 wants even sizes: an odd edge is doubled, nothing is cut or scaled."""
    height, width = image.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
