"""All disturbances of `perception stress`, by name and family, seeded."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from perception.arrays import U8
from perception.errors import MissingDependencyError
from perception.trust import lens_and_sensor as car

SEVERITIES = (1, 2, 3, 4, 5)
Corrupt = Callable[[U8, int, np.random.Generator], U8]


@dataclass(frozen=True)
class Corruption:
    """One kind of disturbance."""

    name: str
    family: str
    """noise, blur, weather, digital, lens, motion or sensor."""
    function: Corrupt
    fixed: bool = False
    """Looks the same in every frame of a sequence, as dirt on the lens does."""

    def __call__(self, image_bgr: U8, severity: int, frame: str, seed: int = 0) -> U8:
        """Disturb one image (H, W, 3) uint8; the same arguments give the same image.

        Args:
            image_bgr: the image.
            severity: 1 to 5.
            frame: name of the frame; it varies the random numbers unless the kind is `fixed`.
            seed: varies all random numbers.
        """
        own = zlib.crc32(f"{self.name}/{severity}/{'' if self.fixed else frame}".encode())
        return self.function(image_bgr, severity, np.random.default_rng([seed, own]))


def _generic(name: str) -> Corrupt:
    """A corruption of Hendrycks and Dietterich (ICLR 2019), from the package imagecorruptions-imaug."""

    def apply(image_bgr: U8, severity: int, rng: np.random.Generator) -> U8:
        from imagecorruptions import corrupt, corruptions

        state, number = np.random.get_state(), int(rng.integers(2**32))  # noqa: NPY002
        np.random.seed(number)  # noqa: NPY002  the package draws from numpy's global generator
        rgb = np.ascontiguousarray(image_bgr[..., ::-1])
        try:
            if name in ("glass_blur", "impulse_noise"):  # these two draw from a generator of their own
                found = getattr(corruptions, name)(rgb, severity, seed=number)
            else:
                found = corrupt(rgb, corruption_name=name, severity=severity)
        finally:
            np.random.set_state(state)  # noqa: NPY002
        return np.ascontiguousarray(np.asarray(found).astype(np.uint8)[..., ::-1])

    return apply


_GENERIC = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}
_CAR = (
    Corruption("drops", "lens", car.drops, fixed=True),
    Corruption("dirt", "lens", car.dirt, fixed=True),
    Corruption("low_sun", "lens", car.low_sun, fixed=True),
    Corruption("speed_blur", "motion", car.speed_blur),
    Corruption("night_gain", "sensor", car.night_gain),
    Corruption("dead_rows", "sensor", car.dead_rows, fixed=True),
    Corruption("torn_frame", "sensor", car.torn_frame),
    Corruption("lost_packets", "sensor", car.lost_packets),
)
CORRUPTIONS: dict[str, Corruption] = {
    one.name: one
    for one in (
        *_CAR,
        *(Corruption(name, family, _generic(name)) for family, names in _GENERIC.items() for name in names),
    )
}
"""The eight of a car and the 19 generic ones."""
GENERIC = frozenset(name for names in _GENERIC.values() for name in names)


def require_generic() -> None:
    """Check that the package of the generic corruptions is there.

    Raises:
        MissingDependencyError: the extra `stress` is not installed.
    """
    if find_spec("imagecorruptions") is None:
        raise MissingDependencyError("imagecorruptions-imaug", "stress", "the 19 generic corruptions")
