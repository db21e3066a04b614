"""Drives written as KITTI writes them: tracking, object and road folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from datasets.sample import ROAD_IGNORE
from datasets.synthetic_street.config import StreetConfig
from datasets.synthetic_street.drive import SyntheticStreet, concatenate
from datasets.synthetic_street.geometry import KITTI_SIZE_HW
from perception.arrays import F64, U8
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError
from perception.files import write_atomically
from perception.formats.kitti import TrackingRows, format_calibration, format_objects, format_tracking

ImageKind = Literal["png", "jpg"]
Progress = Callable[[int, int, U8], None]
"""Called after each frame with its number, their count and the image."""

# the other cameras sit beside ours as KITTI's do (translations of P0, P1 and P3 relative to camera 0, in pixels)
_BASELINES = {"P0": (0.0, 0.0, 0.0), "P1": (-387.5744, 0.0, 0.0), "P3": (-339.5242, 2.199936, 0.002729905)}
# axes of a laser scanner that looks along the camera: x ahead, y left, z up, 8 cm above and 27 cm behind the camera
_VELO_TO_CAM = np.array([[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [1.0, 0.0, 0.0, -0.27]])
_IMU_TO_VELO = np.array([[1.0, 0.0, 0.0, -0.81], [0.0, 1.0, 0.0, 0.32], [0.0, 0.0, 1.0, -0.8]])


def calibration(camera: PinholeCamera, size_hw: tuple[int, int]) -> dict[str, F64]:
    """All matrices of KITTI's calibration files, for a camera of ours."""
    scale = np.array([size_hw[1] / KITTI_SIZE_HW[1], size_hw[0] / KITTI_SIZE_HW[0], 1.0])
    matrices: dict[str, F64] = {}
    for name in ("P0", "P1", "P2", "P3"):
        P = camera.P_cam2.copy()
        if name != "P2":
            P[:, 3] = np.array(_BASELINES[name]) * scale
        matrices[name] = P
    matrices["R0_rect"] = np.eye(3)
    matrices["Tr_velo_to_cam"] = _VELO_TO_CAM.copy()
    matrices["Tr_imu_to_velo"] = _IMU_TO_VELO.copy()
    return matrices


def road_image(road: U8) -> U8:
    """Road mask → BGR in the official colours: magenta road, red valid and not road, black not judged."""
    image = np.zeros((*road.shape, 3), np.uint8)
    image[road != ROAD_IGNORE, 2] = 255
    image[road == 1, 0] = 255
    return image


def tracking_levels(rows: TrackingRows) -> TrackingRows:
    """The same rows with truncation as tracking files give it: 0 whole, 1 cut by the edge, 2 mostly outside."""
    share = rows.objects.truncation
    level = np.where(share < 0, share, np.where(share <= 0.02, 0.0, np.where(share < 0.5, 1.0, 2.0)))
    return replace(rows, objects=replace(rows.objects, truncation=level))


def _write_image(path: Path, image: U8) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    ok, data = cv2.imencode(path.suffix, image, options)
    if not ok:
        raise UserError(f"{path}: the image cannot be encoded")
    write_atomically(path, data.tobytes())


def _prepare(root: Path, *folders: str) -> None:
    try:
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}", "a folder that can be written", "choose another --out") from None


def write_kitti_tracking(
    config: StreetConfig,
    root: Path,
    *,
    sequence: str = "0000",
    image_kind: ImageKind = "png",
    progress: Progress | None = None,
) -> TrackingRows:
    """Write a drive as a KITTI tracking sequence with road masks beside it.

    Under `root/training`: image_02/SEQ/, label_02/SEQ.txt, calib/SEQ.txt and gt_road/SEQ/ (road in the official
    colours). Labels are written last, so a broken export has none.

    Raises:
        UserError: the folder cannot be written.
    """
    drive = SyntheticStreet(config)
    base = root / "training"
    _prepare(base, f"image_02/{sequence}", f"gt_road/{sequence}", "label_02", "calib")
    matrices = calibration(drive.camera, config.size_hw)
    # the tracking kit's files call some matrices otherwise
    names = {"R0_rect": "R_rect", "Tr_velo_to_cam": "Tr_velo_cam", "Tr_imu_to_velo": "Tr_imu_velo"}
    text = format_calibration({names.get(k, k): v for k, v in matrices.items()})
    write_atomically(base / f"calib/{sequence}.txt", text)
    parts = []
    for i in range(len(drive)):
        frame = drive.frame(i)
        parts.append(frame.rows)
        _write_image(base / f"image_02/{sequence}/{i:06d}.{image_kind}", frame.image_bgr)
        _write_image(base / f"gt_road/{sequence}/{i:06d}.png", road_image(frame.road))
        if progress:
            progress(i + 1, len(drive), frame.image_bgr)
    rows = concatenate(parts)
    write_atomically(base / f"label_02/{sequence}.txt", format_tracking(tracking_levels(rows)))
    return rows


def write_kitti_object(
    config: StreetConfig,
    root: Path,
    *,
    image_kind: ImageKind = "png",
    progress: Progress | None = None,
) -> TrackingRows:
    """Write a drive as KITTI object frames: `root/training/{image_2,label_2,calib,gt_image_2}`.

    Raises:
        UserError: the folder cannot be written.
    """
    drive = SyntheticStreet(config)
    base = root / "training"
    _prepare(base, "image_2", "label_2", "calib", "gt_image_2")
    text = format_calibration(calibration(drive.camera, config.size_hw)).encode()
    parts = []
    for i in range(len(drive)):
        frame = drive.frame(i)
        parts.append(frame.rows)
        _write_image(base / f"image_2/{i:06d}.{image_kind}", frame.image_bgr)
        _write_image(base / f"gt_image_2/um_road_{i:06d}.png", road_image(frame.road))
        write_atomically(base / f"calib/{i:06d}.txt", text)
        write_atomically(base / f"label_2/{i:06d}.txt", format_objects(frame.rows.objects))
        if progress:
            progress(i + 1, len(drive), frame.image_bgr)
    return concatenate(parts)
