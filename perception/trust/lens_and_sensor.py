"""What a car's camera suffers and generic corruptions lack: drops, dirt, low sun, speed, broken rows, lost packets.

Each function takes an image (H, W, 3) uint8, a severity from 1 to 5 and a random generator, and returns an image of
the same shape. They are simple models, chosen so that severity 1 is common and severity 5 is as bad as it gets on a
road. Lengths scale with the image, so that a severity means the same at any size.
"""

from __future__ import annotations

import cv2
import numpy as np

from perception.arrays import F32, U8

HORIZON = 0.46
"""Row of the horizon as a share of the height; KITTI's camera looks straight ahead."""
FOCAL = 0.58
"""Focal length as a share of the width, KITTI's."""
CAMERA_HEIGHT_M = 1.65
EXPOSURE_S = 0.02
"""Of the motion blur: dusk or a tunnel."""


def drops(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
    """Put water drops on the lens. A drop is a small wide-angle lens that shows the scene upside down and blurred.

    After the observation in Garg and Nayar, "Vision and Rain" (IJCV 2007); the optics are reduced to a flip.
    """
    height, width = image_bgr.shape[:2]
    scene = cv2.GaussianBlur(cv2.flip(image_bgr, 0), (0, 0), height / 60)
    alpha = np.zeros((height, width), np.float32)
    for _ in range((6, 12, 20, 32, 48)[severity - 1]):
        radius = height * rng.uniform(0.015, 0.02 + 0.012 * severity)
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
        axes = (max(2, int(radius)), max(2, int(radius * rng.uniform(1.0, 1.5))))
        cv2.ellipse(alpha, centre, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    alpha = cv2.GaussianBlur(alpha, (0, 0), height / 250)
    return _blend(image_bgr, scene.astype(np.float32) * 1.08, 0.92 * alpha)


def dirt(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
    """Put dried mud on the lens: brown, out of focus, covering 4 to 35 % of the image."""
    height, width = image_bgr.shape[:2]
    cover = (0.04, 0.08, 0.14, 0.22, 0.35)[severity - 1]
    field = _smooth_noise((height, width), height / 14, rng) + 0.5 * _smooth_noise((height, width), height / 40, rng)
    edge = float(np.quantile(field, 1 - cover))
    alpha = np.clip((field - edge) / (0.8 * float(field.std())) + 0.5, 0, 1).astype(np.float32)
    return _blend(image_bgr, np.array([45, 62, 78], np.float32), 0.95 * alpha)


def low_sun(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
    """Put the sun just above the horizon: a burnt-out disc, a halo and a veil of stray light over the whole image."""
    height, width = image_bgr.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    centre = rng.uniform(0.25, 0.75) * width, (HORIZON - rng.uniform(0.08, 0.2)) * height
    away = np.hypot(x - centre[0], y - centre[1]) / height
    strength = (0.25, 0.45, 0.7, 1.0, 1.4)[severity - 1]
    glare = strength * (np.exp(-away / 0.45) + 0.18) + 3 * np.exp(-((away / (0.03 + 0.015 * severity)) ** 2))
    light = np.array([190, 225, 255], np.float32)  # blue, green, red: warm
    return _to_image(image_bgr.astype(np.float32) * (1 - 0.08 * severity) + glare[..., None] * light)


def speed_blur(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
    """Blur by driving straight ahead at 30, 60, 90, 120 or 150 km/h during an exposure of 20 ms.

    A point at depth Z moves away from the vanishing point by its distance from it, times v·t / Z. Depth is that of
    the road plane, or of walls 8 m beside the camera where those are nearer.
    """
    del rng  # speed decides
    height, width = image_bgr.shape[:2]
    rows, columns = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    below = np.maximum(rows - HORIZON * height, 1.0)
    depth_m = np.where(rows > HORIZON * height, FOCAL * width * CAMERA_HEIGHT_M / below, np.inf)  # (H,)
    aside_m = 8 * FOCAL * width / np.maximum(np.abs(columns - width / 2), 1.0)  # (W,) a wall 8 m beside the camera
    depth_m = np.clip(np.minimum(depth_m[:, None], aside_m[None, :]), 3.0, 200.0)
    share = (30 * severity / 3.6 * EXPOSURE_S / depth_m).astype(np.float32)  # (H, W)
    dx, dy = columns[None, :] - width / 2, (rows - HORIZON * height)[:, None]
    total = np.zeros(image_bgr.shape, np.float32)
    steps = 2 + 2 * severity
    for step in np.linspace(-0.5, 0.5, steps, dtype=np.float32):
        map_x, map_y = columns[None, :] - dx * share * step, rows[:, None] - dy * share * step
        total += cv2.remap(image_bgr, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return _to_image(total / steps)


def dead_rows(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
    """Set 1 to 25 % of the sensor's rows, in bands, to black, white or a stuck value."""
    out = image_bgr.copy()
    height = len(out)
    left = round(height * (0.01, 0.03, 0.07, 0.14, 0.25)[severity - 1]) or 1
    while left > 0:
        band = min(left, int(rng.integers(1, 4 + 2 * severity)))
        start = int(rng.integers(0, height - band + 1))
        out[start : start + band] = rng.choice([0, 255, int(rng.integers(0, 256))])
        left -= band
    return out


def torn_frame(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
    """Take the lower part of the frame from another moment: it is moved sideways by 2 to 30 % of the width."""
    height, width = image_bgr.shape[:2]
    row = int(height * rng.uniform(0.4, 0.6))
    moved = round(width * (0.02, 0.05, 0.1, 0.18, 0.3)[severity - 1]) * int(rng.choice([-1, 1]))
    out = image_bgr.copy()
    out[row:] = np.roll(image_bgr[row:], moved, axis=1)
    return out


def night_gain(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
    """Take the image with 2 to 6 stops less light and let the camera's gain make up for most of it.

    Shot noise comes from counted electrons and grows with the gain, read noise is 4 electrons (EMVA 1288's model).
    """
    linear = (image_bgr.astype(np.float32) / 255) ** 2.2
    stops = severity + 1
    electrons = linear * 8000 / 2**stops
    noisy = rng.normal(electrons, np.sqrt(electrons + 16)).astype(np.float32)
    gain = 2.0 ** min(stops - 0.35 * severity, 4.2)  # the gain of a camera has an end
    return _to_image(255 * np.clip(noisy / 8000 * gain, 0, 1) ** (1 / 2.2))


def lost_packets(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
    """Encode a drive up to this image as H.264, lose 2 to 40 % of the slices, and decode what is left.

    The drive is a zoom towards the image: eight frames of eight slices each. Errors therefore come from earlier
    frames too, as in a stream. Each frame keeps its first slice, so that the decoder returns it.
    """
    from perception.trust.h264 import decode_last, encode_clip

    height, width = image_bgr.shape[:2]
    even = image_bgr[: height - height % 2, : width - width % 2]
    loss = (0.02, 0.06, 0.12, 0.22, 0.4)[severity - 1]
    frames = []
    for step in range(7, -1, -1):
        zoom = cv2.getRotationMatrix2D((width / 2, HORIZON * height), 0, 1 / (1 + 0.04 * step))
        frames.append(
            cv2.warpAffine(even, zoom, (even.shape[1], even.shape[0]), borderMode=cv2.BORDER_REPLICATE)
            if step
            else even
        )
    decoded = decode_last(encode_clip(frames, slices=8), lambda first: first or bool(rng.random() >= loss))
    out = image_bgr.copy()
    if decoded is not None:
        out[: even.shape[0], : even.shape[1]] = decoded
    return out


def _smooth_noise(size_hw: tuple[int, int], sigma: float, rng: np.random.Generator) -> F32:
    """Blurred normal noise with a standard deviation of one, (H, W)."""
    step = max(1, int(sigma / 3))
    small = rng.normal(size=(size_hw[0] // step + 2, size_hw[1] // step + 2)).astype(np.float32)
    small = cv2.GaussianBlur(small, (0, 0), sigma / step)
    field = cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def _blend(image_bgr: U8, over: F32, alpha: F32) -> U8:
    """Lay a colour or image over another, `alpha` (H, W) in 0..1."""
    share = np.clip(alpha, 0, 1)[..., None]
    return _to_image(image_bgr.astype(np.float32) * (1 - share) + over * share)


def _to_image(values: np.ndarray) -> U8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
