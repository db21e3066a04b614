"""Messages of ROS 1, ROS 2 and Foxglove that hold images and calibrations, as plain values.

The definitions that a bag carries are not used for ROS messages: reading them means running code that was made from
them. Those of the standard types come with `rosbags`, and Foxglove's three are written below.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from perception.arrays import F64
from perception.errors import MissingDependencyError

IMAGE_TYPES = frozenset(
    f"{package}{name}"
    for package, names in {
        "sensor_msgs/msg/": ("Image", "CompressedImage"),
        "foxglove_msgs/msg/": ("RawImage", "CompressedImage", "CompressedVideo"),
        "foxglove.": ("RawImage", "CompressedImage", "CompressedVideo"),
    }.items()
    for name in names
)
CALIBRATION_TYPES = frozenset({"sensor_msgs/msg/CameraInfo", "foxglove.CameraCalibration"})

_FOXGLOVE_ROS = {
    "foxglove_msgs/msg/RawImage": "builtin_interfaces/Time timestamp\nstring frame_id\nuint32 width\nuint32 height\n"
    "string encoding\nuint32 step\nuint8[] data\n",
    "foxglove_msgs/msg/CompressedImage": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\n"
    "string format\n",
    "foxglove_msgs/msg/CompressedVideo": "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\n"
    "string format\n",
}
"""Source: github.com/foxglove/foxglove-sdk, schemas/ros2."""


class ImageMessage(NamedTuple):
    """One image or video packet, still encoded."""

    stamp_ns: int | None
    """Moment of capture as its header says; None where the header holds none."""
    data: bytes | memoryview
    encoding: str
    """`rgb8` and the like for pixels, else the format that the sender names: `jpeg`, `h264`."""
    size_hw: tuple[int, int] | None = None
    """Of pixels; None for compressed data, which knows it itself."""
    step: int = 0
    """Bytes a row, of pixels."""
    is_bigendian: bool = False


class CalibrationMessage(NamedTuple):
    """What CameraInfo and CameraCalibration say."""

    size_hw: tuple[int, int]
    K: F64
    """(3, 3)."""
    P: F64
    """(3, 4), of the rectified image; all zero where the sender gives none."""
    distortion_model: str
    coefficients: tuple[float, ...]


def normalised_type(name: str) -> str:
    """A ROS 1 name as ROS 2 writes it: `sensor_msgs/Image` → `sensor_msgs/msg/Image`."""
    package, slash, rest = name.partition("/")
    return f"{package}/msg/{rest}" if slash and "/" not in rest else name


@cache
def typestore(version: int) -> Any:
    """The standard messages of ROS 1 or 2.

    Raises:
        MissingDependencyError: `rosbags` is not installed.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError:
        raise MissingDependencyError("rosbags", "ros", "MCAP and ROS bags") from None
    store = get_typestore(Stores.ROS1_NOETIC if version == 1 else Stores.ROS2_HUMBLE)
    if version == 2:
        for name, text in _FOXGLOVE_ROS.items():
            store.register(get_types_from_msg(text, name))
    return store


def read_ros(data: bytes | memoryview, msgtype: str, encoding: str) -> Any:
    """A message of ROS as `rosbags` gives it.

    Args:
        data: the serialised message.
        msgtype: as `normalised_type` gives it, one of the standard types.
        encoding: `ros1` or `cdr`.

    Raises:
        ValueError: the bytes are no such message.
    """
    from rosbags.serde import SerdeError

    store = typestore(1 if encoding == "ros1" else 2)
    read = store.deserialize_ros1 if encoding == "ros1" else store.deserialize_cdr
    try:
        return read(data, msgtype)
    except (SerdeError, ValueError, KeyError, IndexError, AssertionError, OverflowError, MemoryError) as error:
        raise ValueError(f"not a {msgtype} ({str(error)[:100]})") from None


def image_of(message: Any, msgtype: str) -> ImageMessage:
    """The image in a decoded message of one of `IMAGE_TYPES`.

    Raises:
        ValueError: the message lacks a field, as where a bag defines a type of that name in its own way.
    """
    try:
        stamp_ns, data = _stamp_ns(message), message.data
        data = data.data if isinstance(data, np.ndarray) else memoryview(data)
        if msgtype.endswith(("/Image", "RawImage")):
            size_hw, step = (int(message.height), int(message.width)), int(message.step)
            is_bigendian = bool(getattr(message, "is_bigendian", 0))
            return ImageMessage(stamp_ns, data, str(message.encoding), size_hw, step, is_bigendian)
        return ImageMessage(stamp_ns, data, str(message.format))
    except (AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"not a {msgtype} ({str(error)[:100]})") from None


def calibration_of(message: Any) -> CalibrationMessage:
    """The calibration in a decoded message of one of `CALIBRATION_TYPES`.

    Raises:
        ValueError: its matrices have the wrong size or hold no numbers, or a field is missing.
    """
    try:
        return _calibration_of(message)
    except (AttributeError, TypeError, OverflowError) as error:
        raise ValueError(str(error)[:100]) from None


def _calibration_of(message: Any) -> CalibrationMessage:

    def field(name: str) -> Any:  # ROS 1 and Foxglove write them in upper case
        return getattr(message, name, None) if hasattr(message, name) else getattr(message, name.lower())

    K, P = np.asarray(field("K"), np.float64), np.asarray(field("P"), np.float64)
    D = tuple(float(value) for value in field("D"))
    if K.size != 9 or P.size not in (0, 12) or len(D) > 14 or not np.isfinite([*K, *P, *D]).all():
        raise ValueError(f"K of {K.size}, P of {P.size} and D of {len(D)} numbers")
    P = P.reshape(3, 4) if P.size else np.zeros((3, 4))
    size_hw = (int(message.height), int(message.width))
    return CalibrationMessage(size_hw, K.reshape(3, 3), P, str(message.distortion_model), D)


def _stamp_ns(message: Any) -> int | None:
    """Header stamp, nanoseconds; None where it is zero or missing."""
    stamp = message.header.stamp if hasattr(message, "header") else message.timestamp
    seconds = getattr(stamp, "sec", None)
    if seconds is None:  # protobuf
        return (int(stamp.seconds) * 10**9 + int(stamp.nanos)) or None
    return (int(seconds) * 10**9 + int(stamp.nanosec)) or None
