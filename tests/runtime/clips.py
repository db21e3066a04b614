"""Small videos that tests make: any container, codec, size and time stamp."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def numbered(number: int, size_hw: tuple[int, int] = (64, 96)) -> np.ndarray:
    """An image that says which frame it is: eight bars, one a bit."""
    bits = np.array([40 + 160 * (number >> bit & 1) for bit in range(8)], np.uint8)
    row = np.repeat(bits, size_hw[1] // 8)
    return np.repeat(np.broadcast_to(row, (size_hw[0], len(row)))[..., None], 3, axis=2)


def number_of(image_bgr: np.ndarray) -> int:
    """The number that `numbered` put in, through any codec."""
    columns = image_bgr.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1)
    return sum(1 << bit for bit in range(8) if columns[bit] > 120)


def corners(size_hw: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Red, green, blue and white quarters: left to right, top to bottom."""
    height, width = size_hw
    image = np.full((height, width, 3), 255, np.uint8)
    image[: height // 2, : width // 2] = (0, 0, 255)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (255, 0, 0)
    return image


def corner_names(image_bgr: np.ndarray) -> str:
    """R, G, B, W of the quarters' middles, as `corners` has them: "RGBW"."""
    height, width = image_bgr.shape[:2]
    names = ""
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            blue, green, red = (int(v) > 128 for v in image_bgr[y, x])
            names += {(0, 0, 1): "R", (0, 1, 0): "G", (1, 0, 0): "B", (1, 1, 1): "W"}.get((blue, green, red), "?")
    return names


def write_clip(
    path: Path,
    images: Iterable[np.ndarray],
    rate: int = 10,
    codec: str = "libx264",
    times: list[int] | None = None,
    container_format: str | None = None,
    gop: int = 250,
    pixel_format: str = "yuv420p",
    aspect: Fraction | None = None,
    **options: str,
) -> Path:
    """Write a video; `times` are stamps in units of 1/1000 s instead of a steady rate."""
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = None
        for number, image in enumerate(images):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options={"crf": "10", **options})
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], pixel_format
                stream.codec_context.gop_size = gop
                if aspect is not None:
                    stream.sample_aspect_ratio = aspect
                if times is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "bgr24").reformat(format=pixel_format)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
