"""Changes of light and weather of a training image, in uint8 arithmetic for speed."""

from __future__ import annotations

import cv2
import numpy as np

from perception.arrays import U8


def recolour(image: U8, rng: np.random.Generator) -> U8:
    """Change brightness, contrast, gamma, tint and saturation by a lookup table and a matrix."""
    gain, offset, gamma = rng.uniform(0.7, 1.3), rng.uniform(-15, 15), rng.uniform(0.75, 1.3)
    values = np.linspace(0, 1, 256) ** gamma * 255
    tint = rng.uniform(0.92, 1.08, 3)
    tables = np.clip((values[:, None] - 128) * gain + 128 + offset, 0, 255) * tint  # (256, 3)
    image = np.asarray(cv2.LUT(image, np.clip(tables, 0, 255).astype(np.uint8)[None]), np.uint8)
    saturation = rng.uniform(0.4, 1.5) if rng.random() < 0.9 else 0.0
    grey = np.array([0.114, 0.587, 0.299])
    mix = saturation * np.eye(3) + (1 - saturation) * np.tile(grey, (3, 1))
    return np.asarray(cv2.transform(image, mix), np.uint8)


def expose(image: U8, rng: np.random.Generator) -> U8:
    """Change exposure and white balance: black point, white point and middle grey.

    Makes dusk (a third of CamVid), the green cast of Cityscapes and fog look like daylight, which small changes of
    brightness cannot, and overexposes highlights in some images.
    """
    seen = image[::3, ::3].reshape(-1, 3)
    burnt = rng.uniform(0.2, 4.0)
    low, high = np.percentile(seen, (0.3 * burnt, 100 - burnt), axis=0)  # (3,) each
    balance = rng.uniform(0, 1)
    low += (1 - balance) * (low.min() - low)
    high += (1 - balance) * (high.max() - high)
    values = np.clip((np.arange(256)[:, None] - low) / np.maximum(high - low, 40), 0, 1)  # (256, 3)
    mean = float(np.clip(np.mean([values[seen[:, c], c].mean() for c in range(3)]), 0.02, 0.98))
    gamma = np.clip(np.log(rng.uniform(0.22, 0.5)) / np.log(mean), 0.45, 1.8)
    return np.asarray(cv2.LUT(image, (values**gamma * 255).astype(np.uint8)[None]), np.uint8)


def haze(image: U8, rng: np.random.Generator) -> U8:
    """Blend with grey, as by fog or spray."""
    share, grey_level = rng.uniform(0.15, 0.6), rng.uniform(140, 230)
    return np.asarray(cv2.addWeighted(image, 1 - share, np.full_like(image, grey_level), share, 0), np.uint8)


def rain(image: U8, rng: np.random.Generator) -> U8:
    """Draw bright slanted streaks on an image of less contrast."""
    height, width = image.shape[:2]
    length, slant = int(rng.integers(7, 22)), rng.uniform(-0.35, 0.35)
    drops = (rng.random((height, width), np.float32) > 1 - rng.uniform(0.002, 0.01)).astype(np.float32)
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2
    start, end = (round(middle * (1 - slant)), 0), (round(middle * (1 + slant)), length - 1)
    cv2.line(kernel, start, end, 1.0)
    streaks = np.minimum(cv2.filter2D(drops, -1, kernel * rng.uniform(40, 110)), 255).astype(np.uint8)
    dull = cv2.addWeighted(image, rng.uniform(0.75, 0.95), np.full_like(image, 120), rng.uniform(0.0, 0.12), 0)
    return np.asarray(cv2.add(dull, cv2.merge([streaks] * 3)), np.uint8)


def night(image: U8, rng: np.random.Generator) -> U8:
    """Darken and add noise, with headlights on the road ahead and a yellow or a blue cast."""
    height, width = image.shape[:2]
    ambient, beam = rng.uniform(0.25, 0.6), rng.uniform(0.1, 0.5)
    centre_x, centre_y = rng.uniform(0.35, 0.65), rng.uniform(0.6, 1.0)
    x = (np.arange(width, dtype=np.float32) / width - centre_x) / rng.uniform(0.25, 0.5)
    y = (np.arange(height, dtype=np.float32) / height - centre_y) / rng.uniform(0.25, 0.5)
    light = ambient + beam * np.exp(-(x**2))[None] * np.exp(-(y**2))[:, None]  # (h, w)
    warmth = rng.uniform(-0.12, 0.12)
    cast = np.array([1 - warmth, 1.0, 1 + warmth], np.float32)
    dark = image * (light[..., None].astype(np.float32) * cast)
    return sensor_noise(np.clip(dark, 0, 255).astype(np.uint8), rng)


def soften(image: U8, rng: np.random.Generator) -> U8:
    """Blur, or reduce the resolution."""
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5)), np.uint8)
    factor = rng.uniform(1.2, 2.2)
    size = image.shape[1], image.shape[0]
    low = cv2.resize(image, (round(size[0] / factor), round(size[1] / factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(low, size), np.uint8)


def sensor_noise(image: U8, rng: np.random.Generator) -> U8:
    """Add independent noise to every pixel."""
    noise = np.empty((image.shape[0], image.shape[1] * image.shape[2]), np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))  # OpenCV's generator is twice as fast as NumPy's
    cv2.randn(noise, 0, rng.uniform(2, 10))  # type: ignore[call-overload]
    return np.asarray(cv2.add(image, noise.reshape(image.shape), dtype=cv2.CV_8U), np.uint8)
