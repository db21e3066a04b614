"""Memory that is used again only when nobody looks at it, and colours as exact as OpenCV's."""

import av
import cv2
import numpy as np
import pytest

from perception.image_pool import ImagePool
from perception.video.frames import FrameConverter


def test_an_array_comes_back_only_when_nobody_refers_to_it() -> None:
    pool = ImagePool()
    first = pool.take((4, 4, 3))
    where = first.ctypes.data
    assert pool.take((4, 4, 3)).ctypes.data != where
    part = first[1:, 1:]
    del first
    assert pool.take((4, 4, 3)).ctypes.data != where  # a view keeps it
    del part
    assert pool.take((4, 4, 3)).ctypes.data == where


def test_a_kept_picture_is_never_written_over() -> None:
    pool = ImagePool()
    kept = []
    for number in range(ImagePool.MOST + 10):
        image = pool.take((2, 2, 3))
        image[:] = number
        kept.append(image)
    assert [int(image[0, 0, 0]) for image in kept] == list(range(ImagePool.MOST + 10))


def test_another_shape_is_another_array() -> None:
    pool = ImagePool()
    assert pool.take((2, 2, 3)).shape == (2, 2, 3)
    assert pool.take((4, 2, 3)).shape == (4, 2, 3)


@pytest.mark.parametrize(("width", "height"), [(320, 96), (318, 94), (1242, 376)])
def test_colours_of_padded_rows(width: int, height: int) -> None:
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 40, 3)).astype(np.uint8), (width, height))
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    found = FrameConverter().to_bgr(picture)
    assert (found == cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)).all()
    assert np.abs(found.astype(int) - picture.to_ndarray(format="bgr24").astype(int)).max() <= 4


@pytest.mark.parametrize("kind", ["yuvj420p", "rgb24", "gray", "yuv444p", "gray16le"])
def test_other_formats_go_through_ffmpeg(kind: str) -> None:
    grey = np.full((96, 320, 3), 120, np.uint8)
    picture = av.VideoFrame.from_ndarray(grey, format="bgr24").reformat(format=kind)
    found = FrameConverter().to_bgr(picture)
    assert found.shape == (96, 320, 3)
    assert np.abs(found.astype(int) - 120).max() <= 3
