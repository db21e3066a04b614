"""From FFmpeg's frames to upright BGR images: deinterlaced, tone-mapped, with square pixels."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from perception.arrays import F32, U8
from perception.cameras.geometry import ImageGeometry
from perception.errors import UserError
from perception.formats.images import check_pixels
from perception.image_pool import ImagePool

if TYPE_CHECKING:
    import av

_BT601, _UNSPECIFIED, _FULL_RANGE = (5, 6), (2,), 2
_PQ, _HLG = 16, 18
_BT2020_PRIMARIES = 9
_RGB_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""Linear BT.2020 to BT.709 primaries. Source: ITU-R BT.2087."""
_ASPECTS = (0.1, 10.0)
"""Pixel aspects beyond these are taken as a fault of the header, and ignored."""


class FrameConverter:
    """Frames of one decoder as upright (H, W, 3) uint8 BGR images with square pixels."""

    def __init__(self, most_megapixels: float = float("inf"), crop: tuple[int, int, int, int] = (0, 0, 0, 0)) -> None:
        """`crop` is what the container wants to be cut off: top, bottom, left, right."""
        from av.sidedata.sidedata import Type

        self._matrix_key = Type.DISPLAYMATRIX
        self._pool = ImagePool()
        self._planes: U8 = np.empty((0, 0), np.uint8)
        self._most_megapixels = most_megapixels
        self._crop = crop
        self._size_hw: tuple[int, int] | None = None
        self.geometry = ImageGeometry()
        """Of the latest frame."""
        self.notes: dict[str, str] = {}
        """What is done to the images beyond decoding, for people, by kind."""

    def to_bgr(self, frame: av.VideoFrame, pixel_aspect: Fraction | None = None) -> U8:
        """Convert one frame.

        Args:
            frame: as decoded.
            pixel_aspect: width of a stored pixel over its height; None is square.

        Raises:
            UserError: more pixels than allowed, or a pixel format that cannot be converted.
        """
        self._look_at(frame, pixel_aspect)
        image = self._decoded(frame)
        if getattr(frame, "color_trc", 0) in (_PQ, _HLG):
            image = self._tone_mapped(image, frame)
        return self.geometry.apply(image)

    def _look_at(self, frame: av.VideoFrame, pixel_aspect: Fraction | None) -> None:
        """Find the frame's geometry; a stream may change it at any time."""
        matrix = frame.side_data.get(self._matrix_key)
        aspect = 1.0 if pixel_aspect is None else float(pixel_aspect) or 1.0
        if matrix is None and aspect == 1.0 and self.geometry.is_identity and not any(self._crop):
            return  # the usual case
        if not _ASPECTS[0] <= aspect <= _ASPECTS[1]:
            self.notes["aspect"] = f"the pixel aspect {aspect:g} in the header cannot be true; ignored"
            aspect = 1.0
        top, bottom, left, right = self._crop
        crop = self._crop if top + bottom < frame.height and left + right < frame.width else (0, 0, 0, 0)
        geometry = ImageGeometry.from_display_matrix(None if matrix is None else bytes(matrix), aspect, crop)
        if geometry == self.geometry and (frame.height, frame.width) == self._size_hw:
            return
        self.geometry, self._size_hw = geometry, (frame.height, frame.width)
        check_pixels(geometry.shown_size_hw(self._size_hw), self._most_megapixels, "a frame with square pixels")
        if text := geometry.says():
            self.notes["geometry"] = f"the images are {text}, as the file says"

    def _decoded(self, frame: av.VideoFrame) -> U8:
        """The stored pixels as BGR.

        The common case goes through OpenCV, whose rounding is exact to half a grey level; swscale's fast path is off
        by one on average. OpenCV knows BT.601 with limited range and even sizes only, so everything else goes
        through FFmpeg.
        """
        even = frame.width % 2 == 0 and frame.height % 2 == 0
        plain = even and frame.format.name in ("yuv420p", "nv12")  # nv12: what hardware decodes to
        if plain and frame.color_range != _FULL_RANGE and frame.colorspace in _BT601 + _UNSPECIFIED:
            image = self._pool.take((frame.height, frame.width, 3))
            if frame.format.name == "nv12":
                luma, chroma = (_rows(plane) for plane in frame.planes)
                luma = luma[: frame.height, : frame.width]
                chroma = chroma[: frame.height // 2, : frame.width].reshape(frame.height // 2, -1, 2)
                converted = cv2.cvtColorTwoPlane(luma, chroma, cv2.COLOR_YUV2BGR_NV12, dst=image)
            else:
                converted = cv2.cvtColor(self._i420(frame), cv2.COLOR_YUV2BGR_I420, dst=image)
            return np.asarray(converted, np.uint8)
        if frame.format.name.startswith("yaf32"):
            raise _no_conversion(frame, "FFmpeg has none")  # and ends the process when asked
        if frame.format.name.startswith("bayer_") and (frame.width % 2 or frame.height % 2):
            frame = _even_bayer(frame)
        try:
            return frame.to_ndarray(format="bgr24")
        except (OSError, ValueError) as error:
            raise _no_conversion(frame, getattr(error, "strerror", None) or str(error)) from None

    def _i420(self, frame: av.VideoFrame) -> U8:
        """The three planes without the padding of their rows, one after the other: (3/2 H, W) uint8."""
        height, width = frame.height, frame.width
        if self._planes.shape != (height * 3 // 2, width):
            self._planes = np.empty((height * 3 // 2, width), np.uint8)
        chroma = self._planes[height:].reshape(2, height // 2, width // 2)
        for plane, to in zip(frame.planes, (self._planes[:height], *chroma), strict=True):
            padded = _rows(plane)
            np.copyto(to, padded[: to.shape[0], : to.shape[1]])
        return self._planes

    def _tone_mapped(self, image_bgr: U8, frame: av.VideoFrame) -> U8:
        """HDR code values as an ordinary image; see `hdr_to_display_light`."""
        name = "PQ" if frame.color_trc == _PQ else "HLG"
        self.notes["hdr"] = f"HDR ({name}): tone-mapped to an ordinary image"
        light: F32 = np.asarray(cv2.LUT(image_bgr, hdr_to_display_light(name)), np.float32)
        if frame.color_primaries == _BT2020_PRIMARIES:
            light = np.asarray(cv2.transform(light, _RGB_FROM_BT2020[::-1, ::-1]), np.float32)
        # 2.4 is the gamma of BT.1886 displays; the square root keeps dark tones apart in eight bits
        root = np.asarray(cv2.sqrt(np.clip(light, 0, 1)) * 255 + 0.5, np.uint8)
        return np.asarray(cv2.LUT(root, _gamma_from_root()), np.uint8)


def _rows(plane: Any) -> U8:
    """A plane's rows with their padding, (H, line size) uint8, without a copy."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)


@cache
def hdr_to_display_light(transfer: str) -> F32:
    """Tone-mapped light, 0 to 1, (256,) float32, for each 8-bit code value of PQ or HLG.

    Light is relative to a reference white of 100 cd/m²; what is brighter is compressed by FFmpeg's `mobius` curve up
    to 1000 cd/m². Sources: ITU-R BT.2100 tables 4 and 5; libavfilter/vf_tonemap.c with its default of 0.3.
    """
    code = np.arange(256) / 255
    if transfer == "PQ":
        power = code ** (32 / 2523)
        ratio = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
        light = 100 * ratio ** (16384 / 2610)  # 10 000 cd/m² over 100
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        light = 10 * scene**1.2  # 1000 cd/m² over 100
    knee, peak = 0.3, 10.0
    start = -(knee**2) * (peak - 1) / (knee**2 - 2 * knee + peak)
    end = (knee**2 - 2 * knee * peak + peak) / (peak - 1)
    scale = (end**2 + 2 * end * knee + knee**2) / (end - start)
    return np.where(light <= knee, light, scale * (light + start) / (light + end)).clip(0, 1).astype(np.float32)


@cache
def _gamma_from_root() -> U8:
    """(256,) 8-bit gamma 2.4 of what is given as 8-bit square root."""
    return np.asarray(np.round(255 * (np.arange(256) / 255) ** (2 / 2.4)), np.uint8)


def _no_conversion(frame: av.VideoFrame, reason: str) -> UserError:
    return UserError(
        f"the pixel format {frame.format.name} cannot be converted ({reason})",
        "a common one, such as yuv420p",
        "ffmpeg -i FILE -pix_fmt yuv420p OUT.mp4",
    )


def _even_bayer(frame: av.VideoFrame) -> av.VideoFrame:
    """A raw Bayer frame cut to an even size: swscale ends the process at some odd ones.

    Raises:
        UserError: nothing would be left.
    """
    height, width = frame.height // 2 * 2, frame.width // 2 * 2
    if not (height and width):
        raise UserError(
            f"a raw Bayer image of {frame.width}×{frame.height} pixels",
            "two rows and columns or more",
            "ffprobe FILE   (what it holds)",
        )
    even = type(frame)(width, height, frame.format.name)
    bytes_wide = width * (2 if "16" in frame.format.name else 1)
    source, target = frame.planes[0], even.planes[0]
    rows = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)
    padded = np.zeros((target.height, target.line_size), np.uint8)
    padded[:height, :bytes_wide] = rows[:height, :bytes_wide]
    target.update(padded.tobytes())
    return even


class Deinterlacer:
    """FFmpeg's `bwdif` on frames that are marked as interlaced; others pass. It is one frame late."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._shape: tuple[int, int, str] | None = None
        self.used = False

    def __call__(self, frame: av.VideoFrame, time_base: Fraction | None) -> Iterator[av.VideoFrame]:
        """The frames that are done now that this one is here."""
        import av.filter

        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is None and not frame.interlaced_frame:
            yield frame
            return
        if shape != self._shape:
            yield from self.flush()
            self._shape, self._graph = shape, av.filter.Graph()
            begin = self._graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=time_base or Fraction(1, 90_000),
            )
            work = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
            end = self._graph.add("buffersink")
            begin.link_to(work)
            work.link_to(end)
            self._graph.configure()
            self.used = True
        self._graph.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[av.VideoFrame]:
        """The last frame."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
            self._graph = self._shape = None

    def _pull(self) -> Iterator[av.VideoFrame]:
        import av.error

        while True:
            try:
                yield self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
