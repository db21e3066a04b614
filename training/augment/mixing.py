"""AugMix (Hendrycks et al., ICLR 2020) for a detector: mix an image with versions of itself that are changed in turn.

Three chains of one to three operations each are averaged with random weights, and the average is blended with the
image. The operations change values only, so that boxes and masks stay right: AugMix's own four without its rotations,
shears and shifts, a random filter (RandConv, Xu et al., ICLR 2021) and a plane wave (Yin et al., NeurIPS 2019). None
of them is a kind that `perception stress` tests. AugMix's consistency loss, which needs three passes, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from perception.arrays import U8

Operation = Callable[[U8, np.random.Generator], U8]
CHAINS = 3
LONGEST = 3
"""Operations of a chain, from one to this number, as in the paper."""
MOST_WAVE = 30.0
"""Largest amplitude of the plane wave, grey levels."""


def autocontrast(image: U8, rng: np.random.Generator) -> U8:
    """Stretch each channel to the whole range."""
    del rng
    low, high = (edge(image, axis=(0, 1)).astype(np.float64) for edge in (np.min, np.max))
    values = (np.arange(256)[:, None] - low) * 255 / np.maximum(high - low, 1)  # (256, 3)
    return np.asarray(cv2.LUT(image, np.clip(np.rint(values), 0, 255).astype(np.uint8)[None]), np.uint8)


def equalise(image: U8, rng: np.random.Generator) -> U8:
    """Equalise the histogram of each channel."""
    del rng
    return np.asarray(cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)]), np.uint8)


def posterise(image: U8, rng: np.random.Generator) -> U8:
    """Keep the highest two to five bits of each value."""
    return image & np.uint8(256 - (1 << (8 - int(rng.integers(2, 6)))))


def solarise(image: U8, rng: np.random.Generator) -> U8:
    """Invert the values from a random threshold on."""
    values = np.arange(256)
    table = np.where(values >= rng.integers(64, 256), 255 - values, values).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), np.uint8)


def random_filter(image: U8, rng: np.random.Generator) -> U8:
    """Filter with random weights that sum to one, 3 to 7 pixels wide."""
    side = 2 * int(rng.integers(1, 4)) + 1
    kernel = rng.normal(0, 1 / side, (side, side))
    kernel += (1 - kernel.sum()) / side**2
    return np.asarray(cv2.filter2D(image, -1, kernel), np.uint8)


def plane_wave(image: U8, rng: np.random.Generator) -> U8:
    """Add a sinusoid of random direction and 2 to 64 pixels wavelength, with an amplitude for each channel."""
    height, width = image.shape[:2]
    angle, wavelength = rng.uniform(0, np.pi), 2 ** rng.uniform(1, 6)
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    phase = 2 * np.pi / wavelength * (columns * np.cos(angle) + rows * np.sin(angle)) + rng.uniform(0, 2 * np.pi)
    wave = np.sin(phase).astype(np.float32)[..., None] * rng.uniform(-MOST_WAVE, MOST_WAVE, 3).astype(np.float32)
    return np.clip(np.rint(image + wave), 0, 255).astype(np.uint8)


OPERATIONS: tuple[Operation, ...] = (autocontrast, equalise, posterise, solarise, random_filter, plane_wave)


def augmix(image: U8, rng: np.random.Generator, operations: Sequence[Operation] = OPERATIONS) -> U8:
    """Return the image (H, W, 3) uint8, mixed with changed versions of itself."""
    weights = rng.dirichlet(np.ones(CHAINS))
    share = rng.beta(1, 1)
    mixed = np.zeros(image.shape, np.float32)
    for weight in weights:
        changed = image
        for _ in range(rng.integers(1, LONGEST + 1)):
            changed = operations[int(rng.integers(len(operations)))](changed, rng)
        mixed += np.float32(weight) * changed
    return np.clip(np.rint((1 - share) * image + share * mixed), 0, 255).astype(np.uint8)
