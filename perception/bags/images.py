"""From the images of messages to (H, W, 3) uint8 BGR: pixels, JPEG or PNG, H.264 and its like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from perception.arrays import U8
from perception.bags.messages import ImageMessage
from perception.errors import UserError
from perception.formats.images import check_pixels, decode_image
from perception.video.frames import FrameConverter

CODECS = {"h264": "h264", "h265": "hevc", "hevc": "hevc", "vp9": "vp9", "av1": "libdav1d"}
"""`CompressedVideo.format` → FFmpeg's decoder."""
_PLAIN: dict[str, tuple[int, int | None]] = {
    "bgr8": (3, None),
    "8uc3": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "8uc4": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "8uc1": (1, cv2.COLOR_GRAY2BGR),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2BGR),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2BGR),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2BGR),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2BGR),
    "uyvy": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuyv": (2, cv2.COLOR_YUV2BGR_YUY2),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2BGR_YUY2),
}
"""Encoding of 8-bit pixels, in lower case → bytes a pixel, and how OpenCV makes BGR of it.
Source: sensor_msgs/image_encodings.hpp."""
_WIDE = {"mono16": "mono8", **{f"bayer_{order}16": f"bayer_{order}8" for order in ("rggb", "bggr", "gbrg", "grbg")}}
"""16-bit encodings, whose upper byte is taken."""


class UnknownEncodingError(UserError):
    """An encoding that cannot be turned into colours."""


def pixels_to_bgr(message: ImageMessage, most_megapixels: float) -> U8:
    """The image of a message that holds pixels.

    Raises:
        UnknownEncodingError: not one of the encodings above.
        UserError: more pixels than allowed, or fewer bytes than the size needs.
    """
    assert message.size_hw is not None
    name = message.encoding.lower()
    narrow = _WIDE.get(name, name)
    if narrow not in _PLAIN:
        known = ", ".join([*_PLAIN, *_WIDE])
        raise UnknownEncodingError(f"the encoding '{message.encoding[:40]}'", f"one of {known}")
    bytes_wide, code = _PLAIN[narrow]
    bytes_wide *= 1 + (narrow != name)
    height, width = message.size_hw
    step = message.step or width * bytes_wide
    if height < 1 or width < 1 or step < width * bytes_wide or len(message.data) < height * step:
        found = f"{len(message.data):,} bytes, {step:,} a row, for {width}×{height} pixels of {message.encoding}"
        raise UserError(found, "as many bytes as its size needs")
    check_pixels(message.size_hw, most_megapixels, "an image message")
    rows: U8 = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)[:, : width * bytes_wide]
    if narrow != name:
        rows = rows[:, 0 if message.is_bigendian else 1 :: 2]
        bytes_wide //= 2
    is_bayer = narrow.startswith("bayer")
    if (width % 2 and (is_bayer or bytes_wide == 2)) or (height % 2 and is_bayer):  # colours lie in pairs of pixels
        raise UserError(f"{width}×{height} pixels of {message.encoding}", "an even width and height")
    image = np.ascontiguousarray(rows).reshape(height, width, bytes_wide)
    return image.copy() if code is None else np.asarray(cv2.cvtColor(image, code), np.uint8)


def is_video(message: ImageMessage) -> bool:
    """Whether a message is a packet of a video."""
    return message.size_hw is None and message.encoding.lower() in CODECS


def compressed_to_bgr(message: ImageMessage, most_megapixels: float) -> U8:
    """The image of a message that holds a JPEG, a PNG or the like.

    Raises:
        UnknownEncodingError: a depth image.
        UserError: it cannot be decoded, or has more pixels than allowed.
    """
    if "compresseddepth" in message.encoding.lower():
        raise UnknownEncodingError(f"the encoding '{message.encoding[:60]}'", "an image in colour or grey, not depth")
    return decode_image(bytes(message.data), "an image message", most_megapixels)


class VideoDecoder:
    """Packets of one video in, images out, each with the key that its packet had."""

    def __init__(self, name: str, most_megapixels: float) -> None:
        import av

        self._context: Any = av.CodecContext.create(CODECS[name.lower()], "r")
        self._context.options = {"max_pixels": str(int(most_megapixels * 1e6))}
        self._context.thread_type = "SLICE"  # frame threads would hold images back
        self._converter = FrameConverter(most_megapixels)

    def push(self, data: bytes | memoryview, key: int) -> Iterator[tuple[U8, int]]:
        """The images that are complete with this packet, mostly one.

        Raises:
            UserError: the packet cannot be decoded, as before the first key frame.
        """
        import av

        try:
            packet = av.Packet(bytes(data))
            packet.pts = packet.dts = key
            frames = self._context.decode(packet)
        except av.error.FFmpegError as error:
            raise UserError(f"a packet cannot be decoded ({error.strerror})", "packets from a key frame on") from None
        for frame in frames:
            yield self._converter.to_bgr(frame), key if frame.pts is None else int(frame.pts)

    def flush(self) -> Iterator[tuple[U8, int]]:
        """The images that the decoder still held."""
        import av

        try:
            frames = self._context.decode(None)
        except av.error.FFmpegError:
            return
        for frame in frames:
            yield self._converter.to_bgr(frame), int(frame.pts or 0)
