"""A calibration and the image size it belongs to: scaled where images were resized, refused where it cannot belong.

Pixels mean nothing without the size of the image they were counted in. The rule is no metres rather than wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from perception.arrays import F64, U8
from perception.cameras.geometry import ImageGeometry
from perception.cameras.pinhole import PinholeCamera
from perception.errors import UserError

SAME_SHAPE = 0.02
"""Largest difference of the two scales, relative; resizing to whole pixels or multiples of 32 stays below it."""
SAME_SIZE = 0.005
"""Scales closer to 1 than this are none: codecs cut a row off to make the height even."""
KITTI_SIZES_HW = {
    (721.5377, 609.5593, 172.854): (375, 1242),
    (707.0493, 604.0814, 180.5066): (370, 1224),
    (718.3351, 600.3891, 181.5122): (374, 1238),
    (707.0912, 601.8873, 183.1104): (370, 1226),
    (718.856, 607.1928, 185.2157): (376, 1241),
}
"""Focal length and centre of KITTI's rectified cameras on its five recording days → size of their images
(`S_rect_02`). Source: calib_cam_to_cam.txt of the raw data. The object set crops some images without changing P2, so
all five sizes count as a KITTI camera's own."""
PINHOLE_FOV_DEG = 110
"""Wider lenses are not built without distortion."""
CENTRAL_X, CENTRAL_Y = (0.4, 0.6), (0.1, 0.9)
"""Where the optical centre can lie in an image, as a share of its width and height. Images are cropped at the top and
bottom, hardly ever at one side."""


@dataclass(frozen=True, eq=False)
class Distortion:
    """What a lens does to straight lines, in OpenCV's terms; images are straightened before anything else."""

    K: F64
    """(3, 3) intrinsics of the image as the camera gives it."""
    coefficients: F64
    """(4,) fisheye, else (4,), (5,), (8,), (12,) or (14,)."""
    fisheye: bool = False
    """ROS's `equidistant` instead of `plumb_bob` and `rational_polynomial`."""

    def maps(self, K_straight: F64, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """For `cv2.remap`: where each pixel of the straight image comes from."""
        make = cv2.fisheye.initUndistortRectifyMap if self.fisheye else cv2.initUndistortRectifyMap
        first, second = make(self.K, self.coefficients, np.eye(3), K_straight, size_hw[::-1], cv2.CV_16SC2)
        return np.asarray(first), np.asarray(second)


@dataclass(frozen=True, eq=False)
class SizedCamera:
    """A camera as a calibration file describes it."""

    camera: PinholeCamera
    size_hw: tuple[int, int] | None = None
    """Of the images it was calibrated with; None where the file does not say."""
    origin: str = "the calibration"
    """The file, for messages."""
    distortion: Distortion | None = None
    """None where the images are free of it."""

    def at(self, size_hw: tuple[int, int] | None, geometry: ImageGeometry | None = None) -> PinholeCamera:
        """The camera for images of a size.

        Args:
            size_hw: of the upright images; None takes the file's own.
            geometry: how they were made from the stored ones, for a calibration that was made with those.

        Raises:
            UserError: the calibration cannot belong to images of this size.
        """
        if size_hw is None or size_hw == self.size_hw:
            return self.camera
        own_hw = self.size_hw
        if own_hw is None:
            own_hw = kitti_size_hw(self.camera)
            if own_hw is None:
                self._check_centre(size_hw)
                return self.camera
            if any(_scale(size_hw, known) is None for known in KITTI_SIZES_HW.values()):
                return self.camera
        scale = _scale(size_hw, own_hw)
        if scale is None:
            return self.camera
        if abs(scale[0] / scale[1] - 1) <= SAME_SHAPE:
            return self.camera.scaled(*scale)
        if geometry is not None and not geometry.is_identity:
            shown_hw = geometry.shown_size_hw(own_hw)
            scale = _scale(size_hw, shown_hw) or (1.0, 1.0)
            if abs(scale[0] / scale[1] - 1) <= SAME_SHAPE:
                return as_shown(self.camera, own_hw, geometry).scaled(*scale)
        raise UserError(
            f"{self.origin}: the calibration is for {_text(own_hw)} pixels, these are {_text(size_hw)}",
            "the same shape: cropped images need a calibration of their own",
            "perception calibrate --video VIDEO",
        )

    @property
    def known_size_hw(self) -> tuple[int, int] | None:
        """The size that it belongs to, where the file says it or the numbers show it."""
        return self.size_hw or kitti_size_hw(self.camera)

    def straightened(self, image_bgr: U8, maps: tuple[np.ndarray, np.ndarray]) -> U8:
        """The image without the lens's distortion."""
        return np.asarray(cv2.remap(image_bgr, maps[0], maps[1], cv2.INTER_LINEAR), np.uint8)

    def straightening_maps(self, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        """For `straightened`, at this size; None where there is no distortion."""
        if self.distortion is None or self.size_hw is None:
            return None
        x, y = size_hw[1] / self.size_hw[1], size_hw[0] / self.size_hw[0]
        resize = np.diag([x, y, 1.0])
        K = resize @ self.distortion.K
        return replace(self.distortion, K=K).maps(K, size_hw)

    def _check_centre(self, size_hw: tuple[int, int]) -> None:
        """Refuse a projection whose centre lies where no camera's can: the images have been resized or cropped."""
        K = self.camera.K_cam2
        x, y = K[0, 2] / size_hw[1], K[1, 2] / size_hw[0]
        if CENTRAL_X[0] <= x <= CENTRAL_X[1] and CENTRAL_Y[0] <= y <= CENTRAL_Y[1]:
            return
        raise UserError(
            f"{self.origin}: its optical centre ({K[0, 2]:.0f}, {K[1, 2]:.0f}) is not in the middle of images of "
            f"{_text(size_hw)} pixels, so it belongs to another size",
            "the calibration of these images",
            "a camera.toml that names width and height; perception calibrate writes one",
        )


def wide_lens(sized: SizedCamera) -> str:
    """What to say of a camera that sees more than a pinhole can: empty where it is narrow enough, or straightened."""
    size_hw = sized.known_size_hw
    if size_hw is None or sized.distortion is not None:
        return ""
    fov_deg = float(np.degrees(2 * np.arctan(size_hw[1] / 2 / sized.camera.K_cam2[0, 0])))
    if fov_deg <= PINHOLE_FOV_DEG:
        return ""
    return (
        f"{fov_deg:.0f}° across: a lens this wide bends straight lines, and away from the middle metres are wrong; "
        "calibrate it with ROS or OpenCV, then perception calibrate --intrinsics FILE"
    )


def kitti_size_hw(camera: PinholeCamera) -> tuple[int, int] | None:
    """The image size of a KITTI camera, known by its numbers; None for any other camera."""
    K = camera.K_cam2
    for (focal, x, y), size_hw in KITTI_SIZES_HW.items():
        if np.allclose([K[0, 0], K[1, 1], K[0, 2], K[1, 2]], [focal, focal, x, y], atol=0.01):
            return size_hw
    return None


def as_shown(camera: PinholeCamera, stored_hw: tuple[int, int], geometry: ImageGeometry) -> PinholeCamera:
    """The camera of the upright image, from the camera of the stored one."""
    top, bottom, left, right = geometry.crop
    height, width = stored_hw[0] - top - bottom, stored_hw[1] - left - right
    cut = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
    pixels = np.eye(3)
    axes = np.eye(3)
    if geometry.mirrored:
        pixels = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
        axes = np.diag([-1.0, 1, 1])
    for _ in range(geometry.quarter_turns):
        pixels = np.array([[0.0, -1, height - 1], [1, 0, 0], [0, 0, 1]]) @ pixels
        axes = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ axes
        height, width = width, height
    shown_hw = geometry.shown_size_hw(stored_hw)
    pixels = np.diag([shown_hw[1] / width, shown_hw[0] / height, 1.0]) @ pixels
    projection = pixels @ cut @ camera.P_cam2
    projection[:, :3] = projection[:, :3] @ axes.T
    return replace(camera, P_cam2=projection)


def _scale(size_hw: tuple[int, int], own_hw: tuple[int, int]) -> tuple[float, float] | None:
    """How much wider and higher images are than the calibration's; None where that is nothing."""
    x, y = size_hw[1] / own_hw[1], size_hw[0] / own_hw[0]
    return None if abs(x - 1) < SAME_SIZE and abs(y - 1) < SAME_SIZE else (x, y)


def _text(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]}×{size_hw[0]}"
