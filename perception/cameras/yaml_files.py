"""Calibrations of ROS (`camera_info`) and OpenCV (`FileStorage`), as YAML.

They hold intrinsics and the lens's distortion, but not how high the camera stands, so they become a camera file
through `perception calibrate --intrinsics FILE --height-m METRES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.arrays import F64
from perception.errors import UserError

MOST_TEXT = 1 << 20
"""Longest text that is parsed, characters."""
MOST_BRACKETS = 1000
"""Most brackets that open a list or a map: OpenCV's parser recurses into each without a limit, and crashes."""
MODELS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
    "fisheye": (4,),
    "radtan": (4, 5),
}
"""Names of distortion models → how many coefficients they have."""
FISHEYE = ("equidistant", "fisheye")
_SIZES = (("image_width", "image_height"), ("width", "height"), ("imageWidth", "imageHeight"))
_MATRICES = ("camera_matrix", "Camera_Matrix", "cameraMatrix", "K", "k")
_COEFFICIENTS = ("distortion_coefficients", "Distortion_Coefficients", "distCoeffs", "dist_coeffs", "D", "d")
_PROJECTIONS = ("projection_matrix", "P", "p")


@dataclass(frozen=True)
class Intrinsics:
    """What such a file says."""

    size_hw: tuple[int, int]
    K: F64
    """(3, 3)."""
    distortion_model: str
    """One of `MODELS`; empty where there is none."""
    distortion: tuple[float, ...]
    """Its coefficients; empty where all are zero."""


def looks_like_yaml(text: str) -> bool:
    """Whether a calibration is one of these rather than KITTI's."""
    keys = (*(key for pair in _SIZES for key in pair), *_MATRICES[:3], "distortion_model")
    return text.startswith("%YAML") or any(f"{key}:" in text for key in keys)


def parse_intrinsics(text: str, path: Path | str = "<text>") -> Intrinsics:
    """Intrinsics from the text of a ROS or OpenCV calibration.

    A projection matrix counts where there is no distortion: it belongs to images that are straight already.

    Raises:
        UserError: not YAML, a part is missing, or a distortion model that is not known.
    """
    import cv2

    text = text.lstrip("\ufeff")
    if len(text) > MOST_TEXT or text.count("[") + text.count("{") > MOST_BRACKETS:
        raise UserError(f"{path}: too long or too deeply nested for a calibration", "lines like  image_width: 1280")
    try:
        storage = _storage(text)  # its nodes live as long as it does
        root = storage.root()
        width, height = _size(root, path)
        return _intrinsics(root, (height, width), path)
    except (cv2.error, SystemError, UnicodeError):
        raise UserError(f"{path}: not YAML as ROS or OpenCV write it", "lines like  image_width: 1280") from None


def _intrinsics(root: Any, size_hw: tuple[int, int], path: Path | str) -> Intrinsics:
    K = _numbers(root, _MATRICES, 9)
    if K is None:
        raise UserError(
            f"{path}: has no camera_matrix", "9 numbers under camera_matrix, as ROS and OpenCV write them"
        )
    K = K.reshape(3, 3)
    coefficients = _numbers(root, _COEFFICIENTS, None)
    values = () if coefficients is None or not np.any(coefficients) else tuple(float(v) for v in coefficients)
    model = ""
    if values:
        model = _text(root, "distortion_model") or ("plumb_bob" if len(values) <= 5 else "rational_polynomial")
        if model not in MODELS or len(values) not in MODELS[model]:
            raise UserError(
                f"{path}: distortion_model '{model[:40]}' with {len(values)} coefficients",
                "one of " + ", ".join(f"{name} ({'/'.join(map(str, n))})" for name, n in MODELS.items()),
            )
    else:
        straight = _numbers(root, _PROJECTIONS, 12)
        if straight is not None and straight.reshape(3, 4)[0, 0] > 0:
            K = straight.reshape(3, 4)[:, :3]
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise UserError(f"{path}: camera_matrix: focal lengths {K[0, 0]:g}, {K[1, 1]:g}", "positive ones")
    return Intrinsics(size_hw, K, model, values)


def _storage(text: str) -> Any:
    """The file as OpenCV reads it, which wants a header and lists that are indented; ROS writes neither."""
    import cv2

    if not text.startswith("%YAML"):
        text = "%YAML:1.0\n---\n" + "\n".join(line for line in text.splitlines() if not line.startswith("---")) + "\n"
    text = re.sub(r"(?m)^( *)- ", r"\1  - ", text)
    return cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)


def _size(root: Any, path: Path | str) -> tuple[int, int]:
    for names in _SIZES:
        nodes = [root.getNode(name) for name in names]
        if all(node.isInt() or node.isReal() for node in nodes):
            width, height = (node.real() for node in nodes)
            if 1 <= width <= 100_000 and 1 <= height <= 100_000:
                return int(width), int(height)
    raise UserError(f"{path}: has no image_width and image_height", "the size of the images it was calibrated with")


def _numbers(root: Any, names: tuple[str, ...], count: int | None) -> F64 | None:
    """The finite numbers of the first of these nodes that has them, row by row."""
    for name in names:
        node = root.getNode(name)
        if node.isMap():
            node = node.getNode("data")
        if not node.isSeq() or not 0 < node.size() <= 64 or (count is not None and node.size() != count):
            continue
        items = [node.at(i) for i in range(node.size())]
        if all(item.isInt() or item.isReal() for item in items):
            values = np.array([item.real() for item in items])
            if np.isfinite(values).all():
                return values
    return None


def _text(root: Any, name: str) -> str:
    node = root.getNode(name)
    return str(node.string()) if node.isString() else ""
