"""Disk cache of decoded samples, no wider than training needs.

Decoding a PNG costs more than cropping it. A cached copy is one file: a line of JSON that describes the arrays, then
their raw bytes. Raw bytes read much faster than PNG or JPEG (docs/guides/train.md). They hold the same pixels as the
source, so a run with a cold cache equals one with a warm cache.

A copy's name is a hash of the path, time and size of every file of the sample, and of the width. A changed image or
label therefore gets a new copy, and the folder may be deleted at any time. Files are written atomically.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.catalogue import SampleSource
from datasets.sample import Sample
from perception.cameras.letterbox import resize
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.files import write_atomically

log = logging.getLogger("training.cache")

MAGIC = b"perception sample 2\n"
KEEP_AS_IS = 1.1
"""A frame wider than requested by up to this factor keeps its size: a second interpolation would cost more."""
FREE_BYTES = 2_000_000_000
"""Disk space that the cache leaves free."""
LOOK_EVERY = 64
"""Copies that a process writes between two measurements of the folder."""
_ARRAYS = (
    "image_bgr",
    "boxes_xyxy",
    "class_ids",
    "ignore_boxes_xyxy",
    "ignore_class_ids",
    "confidences",
    "distances_m",
    "boxes_xyzlhwr",
    "road",
    "semantic",
)


class CachedSource:
    """A source that reads samples from cached copies. The first read of a sample writes its copy.

    Args:
        source: source to cache.
        folder: cache folder; created when missing.
        width: wider frames are resized to this width, pixels.
        limit_bytes: size of the folder from which no more copies are written. Other samples are read from the source.
    """

    def __init__(self, source: SampleSource, folder: Path, width: int, limit_bytes: int) -> None:
        self.source, self.folder, self.width, self.limit_bytes = source, folder, width, limit_bytes
        self._written, self._full = 0, False

    @property
    def names(self) -> Sequence[str]:
        return self.source.names

    def __len__(self) -> int:
        return len(self.source)

    def files(self, i: int) -> list[Path]:
        return self.source.files(i)

    def drive(self, i: int) -> str:
        return self.source.drive(i)

    def __getitem__(self, i: int) -> Sample:
        path = self.path(i)
        if (sample := read_copy(path)) is not None:
            return sample
        sample = reduce(self.source[i], self.width)
        if not self._full:
            self._write(path, sample)
        return sample

    def path(self, i: int) -> Path:
        """Return the path of the copy of sample `i`."""
        variant = getattr(self.source, "variant", "")  # what a sample depends on besides its files
        # a clip is one file with many samples, so the sample's name is part of the key
        digest = hashlib.sha256(MAGIC + f"{self.width}{variant}\0{self.names[i]}".encode())
        for file in self.source.files(i):
            try:
                status = file.stat()
            except OSError:
                continue
            digest.update(f"\0{os.path.abspath(file)}\0{status.st_mtime_ns}\0{status.st_size}".encode())
        key = digest.hexdigest()[:32]
        return self.folder / key[:2] / f"{key}.sample"

    def _write(self, path: Path, sample: Sample) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._written % LOOK_EVERY == 0 and not self._room():
                return
            self._written += 1
            write_atomically(path, lambda file: file.writelines(pack(sample)))
        except UserError as error:  # without a cache the run is slower and its result the same
            self._stop(error.found)
        except OSError as error:
            self._stop(str(error))

    def _room(self) -> bool:
        used = folder_bytes(self.folder)
        if used > self.limit_bytes:
            self._stop(f"it holds {used / 1e9:.1f} GB of {self.limit_bytes / 1e9:.1f}")
        elif shutil.disk_usage(self.folder).free < FREE_BYTES:
            self._stop(f"less than {FREE_BYTES / 1e9:.0f} GB are free on its disk")
        return not self._full

    def _stop(self, why: str) -> None:
        self._full = True
        log.warning(
            "%s: no more copies are written: %s; other samples are read from the data set each time", self.folder, why
        )


def folder_bytes(folder: Path) -> int:
    """Return the size of all files in a cache folder, partial files of killed processes included."""
    total = 0
    for part in folder.glob("??"):
        with os.scandir(part) as entries:
            total += sum(entry.stat().st_size for entry in entries)
    return total


def reduce(sample: Sample, width: int) -> Sample:
    """Return a sample no wider than `width`: image antialiased, masks nearest-neighbour, boxes and camera scaled."""
    height, full = sample.image_bgr.shape[:2]
    if full <= width * KEEP_AS_IS:
        return sample
    size_hw = (round(height * width / full), width)
    scale = np.array([width / full, size_hw[0] / height] * 2, np.float32)

    def mask(values: Any) -> Any:
        size = (size_hw[1], size_hw[0])
        return None if values is None else cv2.resize(values, size, interpolation=cv2.INTER_NEAREST_EXACT)

    camera = sample.camera
    if camera is not None:
        camera = replace(camera, P_cam2=camera.P_cam2 * np.array([[scale[0]], [scale[1]], [1.0]], np.float64))
    boxes, ignore = sample.boxes_xyxy, sample.ignore_boxes_xyxy
    return replace(
        sample,
        image_bgr=resize(sample.image_bgr, size_hw),
        boxes_xyxy=None if boxes is None else boxes * scale,
        ignore_boxes_xyxy=None if ignore is None else ignore * scale,
        road=mask(sample.road),
        semantic=mask(sample.semantic),
        camera=camera,
    )


def pack(sample: Sample) -> list[bytes]:
    """Return the bytes of a sample's copy."""
    arrays = {
        name: np.ascontiguousarray(getattr(sample, name)) for name in _ARRAYS if getattr(sample, name) is not None
    }
    camera = sample.camera
    header = {
        "name": sample.name,
        "drive": sample.drive,
        "class_names": sample.class_names,
        "labelled_classes": sample.labelled_classes,
        "camera": None if camera is None else [camera.P_cam2.tolist(), camera.height_m, camera.pitch_rad],
        "arrays": [[name, a.dtype.str, a.shape] for name, a in arrays.items()],
    }
    return [MAGIC, json.dumps(header).encode() + b"\n", *(a.tobytes() for a in arrays.values())]


def read_copy(path: Path) -> Sample | None:
    """Read the sample of a copy; None where the file is missing or incomplete."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError:
        return None
    if data[: len(MAGIC)].tobytes() != MAGIC:
        return None
    start = len(MAGIC)
    newline = data[start : start + 65536].tobytes().find(b"\n")
    try:
        header = json.loads(data[start : start + newline].tobytes())
        start += newline + 1
        arrays: dict[str, Any] = {}
        for name, dtype, shape in header.pop("arrays"):
            if name not in _ARRAYS:
                return None
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays[name] = np.frombuffer(data[start : start + size].data, dtype).reshape(shape)
            start += size
        camera = header.pop("camera")
        header["camera"] = camera and PinholeCamera(np.array(camera[0]), camera[1], camera[2])
        for names in ("class_names", "labelled_classes"):
            if names in header:
                header[names] = tuple(header[names])
        return Sample(**arrays, **header) if start == len(data) else None
    except (ValueError, KeyError, TypeError, IndexError):
        return None
