"""Image files: the quick way for plain JPEGs gives OpenCV's pixels, and leaves to OpenCV what it cannot do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from perception.formats import images
from perception.formats.images import announced_size_hw, decode_image
from perception.image_pool import ImagePool

SAMPLING = (0x111111, 0x211111, 0x221111)
"""4:4:4, 4:2:2 and 4:2:0."""


def picture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, options)[1].tobytes()


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 9), (33, 130)])
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_plain_jpeg_has_opencv_s_pixels(size_hw: tuple[int, int], sampling: int, progressive: int) -> None:
    options = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    for image in (picture(*size_hw), picture(*size_hw)[..., 1]):  # in colour, and grey
        data = jpeg(image, *options)
        quick = images._jpeg(data, size_hw)
        assert quick is not None
        assert np.array_equal(quick, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def test_a_jpeg_that_exif_turns_is_read_upright() -> None:
    """An EXIF block of one entry: orientation (tag 0x0112) 6, so the image has to be turned clockwise."""
    data = jpeg(picture(8, 20))
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    body = b"Exif\0\0" + tiff
    turned = data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]
    assert decode_image(data, "it").shape == (8, 20, 3) and decode_image(turned, "it").shape == (20, 8, 3)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def test_exif_counts_where_decoders_look_for_it() -> None:
    """In a segment APP1 before the pixels, whatever other segments hold; nowhere else."""
    data = jpeg(picture(8, 20))
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    comment, exif = segment(0xFE, b"\xff\xda Exif\0\0"), segment(0xE1, b"Exif\0\0" + tiff)
    plain, late = data[:2] + comment + data[2:], data[:-2] + exif + data[-2:]
    turned = data[:2] + comment + exif + data[2:]
    assert images._jpeg(turned, (8, 20)) is None and decode_image(turned, "it").shape == (20, 8, 3)
    quick = images._jpeg(plain, (8, 20))
    assert quick is not None and np.array_equal(quick, cv2.imdecode(np.frombuffer(plain, np.uint8), 1))
    for unclear in (late, data[:2] + b"\0" + exif + data[2:], data[:2], data[:2] + exif[:3]):
        opencv = cv2.imdecode(np.frombuffer(unclear, np.uint8), cv2.IMREAD_COLOR)
        ours = images._jpeg(unclear, (8, 20))
        assert ours is None or np.array_equal(ours, opencv)


def test_a_damaged_jpeg_is_read_as_opencv_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes in the middle of the data are lost: libjpeg warns, so the quick way leaves it to OpenCV."""
    data = bytearray(jpeg(picture(64, 64)))
    middle = len(data) - len(data) // 3
    data[middle : middle + 8] = b"\xff\xd0\xff\xd5\xff\xd2\xff\xd1"
    assert images._jpeg(bytes(data), (64, 64)) is None
    assert decode_image(bytes(data), "it").shape == (64, 64, 3)


def test_another_size_than_was_checked_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second header further on may promise another size than the one that was allowed."""
    data = jpeg(picture(16, 16))
    assert announced_size_hw(data) == (16, 16)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_: pytest.fail("decoded"))
    assert images._jpeg(data, (8, 8)) is None


def test_an_image_in_a_pool_s_memory_is_kept_as_long_as_somebody_holds_it(tmp_path: Path) -> None:
    pool, paths = ImagePool(), []
    for value in (0, 200):
        paths.append(tmp_path / f"{value}.jpg")
        paths[-1].write_bytes(jpeg(np.full((16, 16, 3), value, np.uint8)))
    first = images.read_image(paths[0], pool=pool)
    second = images.read_image(paths[1], pool=pool)
    assert first.max() == 0 and second.min() == 200
    place = second.ctypes.data
    del second
    assert images.read_image(paths[1], pool=pool).ctypes.data == place
