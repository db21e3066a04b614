"""The one reader of image files. A file that cannot be trusted costs no more memory than its options allow."""

from __future__ import annotations

import contextlib
import struct
from io import BytesIO
from pathlib import Path

import numpy as np

from perception.arrays import U8
from perception.errors import UserError, lfs_pointer
from perception.files import MAX_MEGAPIXELS
from perception.image_pool import ImagePool

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Of images in data sets, in order of preference: KITTI's own PNG before re-encoded copies."""


def read_image(
    path: Path,
    max_megapixels: float = MAX_MEGAPIXELS,
    expected: str = "a PNG or JPEG file",
    pool: ImagePool | None = None,
) -> U8:
    """Read an image of any bit depth and channels as (H, W, 3) uint8, blue first, upright as EXIF says.

    Args:
        path: PNG, JPEG or another common format.
        max_megapixels: larger images are refused before they are decoded.
        expected: what the error says was expected.
        pool: gives the memory of plain JPEGs.

    Raises:
        UserError: missing, empty, cut short, too large or not an image.
    """
    return np.asarray(_read(path, max_megapixels, expected, unchanged=False, pool=pool), np.uint8)


def read_image_or_none(path: Path) -> U8 | None:
    """Read as `read_image`; None where that fails."""
    with contextlib.suppress(UserError):
        return read_image(path)
    return None


def read_unchanged(path: Path, expected: str = "a PNG or JPEG file") -> np.ndarray:
    """Read an image with its own bit depth and channels, as label masks need.

    Raises:
        UserError: as `read_image`.
    """
    return _read(path, MAX_MEGAPIXELS, expected, unchanged=True)


def decode_image(data: bytes, what: str, max_megapixels: float = MAX_MEGAPIXELS) -> U8:
    """Decode as `read_image` what is in memory.

    Raises:
        UserError: cut short, too large or not an image; `what` names it.
    """
    image, problem = _decode(data, max_megapixels, what, unchanged=False)
    if image is None:
        raise UserError(f"{what}: {problem}", "a PNG, JPEG or another common format")
    return np.asarray(image, np.uint8)


def _read(
    path: Path, max_megapixels: float, expected: str, unchanged: bool, pool: ImagePool | None = None
) -> np.ndarray:
    image = None
    try:
        image, problem = _decode(
            path.read_bytes(), max_megapixels, str(path), unchanged, pool
        )  # imread prints messages
    except FileNotFoundError:
        problem = "no such file"
    except OSError as error:
        problem = error.strerror or str(error)
    if image is None:
        do = f"file {path}   (says what it really is)" if path.is_file() else "check the path"
        raise lfs_pointer(path) or UserError(f"{path}: {problem}", expected, do)
    return image


def _decode(
    data: bytes, max_megapixels: float, what: str, unchanged: bool, pool: ImagePool | None = None
) -> tuple[np.ndarray | None, str]:
    """The image, or None and what is wrong."""
    import cv2

    # OpenCV fills the missing part of a JPEG with grey and reports nothing
    if data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9", -65536) < 0:
        return None, "the end of the image is missing"
    if not data:
        return None, "the file is empty"
    image = None
    if (size_hw := announced_size_hw(data)) is not None:
        check_pixels(size_hw, max_megapixels, what)
        image = None if unchanged else _jpeg(data, size_hw, pool)
        flags = cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_COLOR
        if image is None:
            with contextlib.suppress(cv2.error):  # the header promises more pixels than OpenCV allows
                image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return image, "cannot be decoded as an image"


def _jpeg(data: bytes, size_hw: tuple[int, int], pool: ImagePool | None = None) -> np.ndarray | None:
    """Decode a plain JPEG in half of OpenCV's time, to the same pixels; None for what OpenCV has to look at.

    That is other formats, EXIF, which may ask for a turn, other colours than grey and YCbCr, and faults in the data.
    """
    if data[:2] != b"\xff\xd8" or _may_have_exif(data):
        return None
    import simplejpeg

    try:
        *size, colours, _ = simplejpeg.decode_jpeg_header(data)
        if tuple(size) == size_hw and colours in ("YCbCr", "Gray"):
            image = pool.take((*size_hw, 3)) if pool is not None else np.empty((*size_hw, 3), np.uint8)
            simplejpeg.decode_jpeg(data, "BGR", buffer=image)
            return image
    except ValueError:
        pass
    return None


def _may_have_exif(data: bytes) -> bool:
    """Whether a JPEG has EXIF before its pixels, where decoders look for it; True where its parts cannot be told."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] >= 0xC0:
        if data[at + 1] == 0xDA:  # the pixels begin
            return False
        if data[at + 1] == 0xE1 and data.startswith(b"Exif", at + 4):
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True


def announced_size_hw(data: bytes) -> tuple[int, int] | None:
    """Read the size in an encoded image's header; None without such a header, or where a part passes the end.

    OpenCV allocates as much memory as a PNG's parts say they are long.
    """
    import imagesize

    try:
        width, height = imagesize.get(BytesIO(data), exif_rotation=False)
    except Exception:  # whatever a parser of untrusted bytes may raise
        return None
    if width < 1 or height < 1:
        return None
    if data[:4] == b"\x89PNG":
        at = 8
        while at + 8 <= len(data):
            length, name = struct.unpack(">I4s", data[at : at + 8])
            at += 12 + length
            if at > len(data):
                return None
            if name == b"IEND":
                break
    return height, width


def check_pixels(size_hw: tuple[int, int], max_megapixels: float, what: str) -> None:
    """Refuse an image before its memory is allocated: a few kilobytes can decode to gigabytes.

    Raises:
        UserError: more pixels than allowed.
    """
    megapixels = size_hw[0] * size_hw[1] / 1e6
    if megapixels > max_megapixels:
        raise UserError(
            f"{what}: {size_hw[1]}×{size_hw[0]} pixels are {megapixels:.0f} megapixels",
            f"at most {max_megapixels:g}",
            f"a smaller image, or perception run --max-megapixels {int(megapixels) + 1} if you trust the file",
        )


def find_image(folder: Path, stem: str) -> Path | None:
    """Find the image called `stem` in a folder; None where there is none."""
    suffixes = (*SUFFIXES, *map(str.upper, SUFFIXES))
    return next((path for suffix in suffixes if (path := folder / (stem + suffix)).is_file()), None)
