"""Hardware decoders are used, refused by name, or replaced by software with a note."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from perception.cameras.letterbox import letterbox, resize
from perception.errors import UserError
from perception.source_options import SourceOptions
from perception.sources import open_source
from perception.video import hardware
from perception.video.frames import FrameConverter


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (40, 90, 140):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_device_that_is_not_there_is_refused_by_name(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "why_not", lambda kind: "it cannot be opened (no driver)")
    with pytest.raises(UserError, match=r"--decoder cuda: it cannot be opened \(no driver\)"):
        open_source(clip, SourceOptions(decoder="cuda"))


def test_auto_decodes_in_software_and_says_so(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [frame.image_bgr.copy() for frame in open_source(clip)]
    monkeypatch.setattr(hardware, "why_not", lambda kind: "no driver")
    source = open_source(clip, SourceOptions(decoder="auto"))
    frames = [frame.image_bgr.copy() for frame in source]
    assert len(frames) == 3 and all(np.array_equal(a, b) for a, b in zip(plain, frames, strict=True))
    assert source.notes == ["decoded in software: no hardware decoder works here"]
    assert open_source(clip).notes == []


def test_the_best_device_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.sys, "platform", "linux")
    monkeypatch.setattr(hardware, "why_not", lambda kind: "" if kind in ("vaapi", "qsv") else "no driver")
    assert hardware.device_for("auto") == "vaapi" and hardware.device_for("qsv") == "qsv"
    assert hardware.device_for("software") == ""


@pytest.mark.parametrize(
    ("decoder", "kind", "accelerated", "text"),
    [
        ("software", "", False, ""),
        ("auto", "", False, "decoded in software: no hardware decoder works here"),
        ("auto", "cuda", True, "decoded in hardware (cuda)"),
        ("auto", "cuda", False, "decoded in software: cuda does not decode mpeg4"),
        ("cuda", "cuda", True, "decoded in hardware (cuda)"),
    ],
)
def test_what_the_summary_says(decoder: Any, kind: str, accelerated: bool, text: str) -> None:
    assert hardware.said(decoder, kind, SimpleNamespace(is_hwaccel=accelerated, name="mpeg4")) == text


def test_a_codec_that_a_named_device_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="--decoder cuda: it does not decode mpeg4"):
        hardware.said("cuda", "cuda", SimpleNamespace(is_hwaccel=False, name="mpeg4"))


def test_a_kind_that_this_ffmpeg_lacks_is_named() -> None:
    hardware.why_not.cache_clear()
    kinds = av.codec.hwaccel.hwdevices_available()
    missing = next(k for k in ("videotoolbox", "d3d11va", "vaapi") if k not in kinds)
    assert hardware.why_not(missing).startswith("this build of FFmpeg lacks it")


@pytest.mark.parametrize(("width", "height"), [(320, 96), (318, 94), (1242, 376)])
def test_the_colours_of_hardware_frames_are_those_of_software(width: int, height: int) -> None:
    """Devices give NV12, software I420: the same samples in another order."""
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 40, 3)).astype(np.uint8), (width, height))
    planar = av.VideoFrame.from_ndarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), format="yuv420p")
    found = FrameConverter().to_bgr(planar.reformat(format="nv12"))
    assert np.array_equal(found, FrameConverter().to_bgr(planar))


@pytest.mark.parametrize("source_hw", [(375, 1242), (100, 90), (96, 320), (960, 3200)])
def test_the_letterbox_is_the_resized_frame_and_its_border(source_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*source_hw, 3)).astype(np.uint8)
    out = np.zeros((96, 320, 3), np.uint8)
    made, placed = letterbox(image, (96, 320), out)
    assert made is out
    wanted = np.full((96, 320, 3), 114, np.uint8)
    left, (height, width) = placed.offset_xy[0], placed.placed_hw
    wanted[:height, left : left + width] = resize(image, placed.placed_hw)
    assert np.array_equal(out, wanted)
