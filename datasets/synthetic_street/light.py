"""Sun, sky, haze and the camera's response to them, drawn from a seed and a kind of weather."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from datasets.synthetic_street import textures
from datasets.synthetic_street.chance import pick
from datasets.synthetic_street.config import WEATHERS, Weather
from perception.arrays import F64, U8


@dataclass(frozen=True, eq=False)
class Light:
    """How a scene is lit and photographed. Colours are BGR; gains are relative to a sunlit road."""

    weather: Weather
    sun_world: F64
    """(3,) unit vector to the sun: x east, up, y north."""
    sun: F64
    """(3,) gain of direct light on a face turned to it."""
    sky: F64
    """(3,) gain of light from above."""
    bounce: F64
    """(3,) gain of light from the ground."""
    haze: F64
    """(3,) colour that distance fades to, 0..255."""
    haze_m: float
    """Distance at which two thirds have faded."""
    shade: float
    """Brightness of the ground in a cast shadow, 0..1."""
    sky_top: F64
    sky_low: F64
    cloud: int
    cloud_cover: float
    wet: float
    """0 dry to 1 soaked road."""
    lut: U8
    """(256,) camera response."""
    noise: float
    """Standard deviation of the sensor noise, grey levels."""
    blur: float
    """Standard deviation of the lens blur, pixels."""
    jpeg: int
    """Quality of the compression the image has gone through, 0 for none."""
    bloom: float

    @cached_property
    def haze_list(self) -> list[float]:
        """`haze` as plain numbers."""
        return self.haze.tolist()

    def fade(self, distance_m: np.ndarray | float) -> np.ndarray:
        """Share of the own colour that is left at a distance, 0..1."""
        return np.exp(-np.maximum(distance_m, 0) / self.haze_m)

    def sun_in_camera(self, heading: float) -> F64:
        """Sun direction as (X right, up, Z ahead) for a camera heading."""
        east, up, north = self.sun_world
        cos, sin = np.cos(heading), np.sin(heading)
        return np.array([east * cos - north * sin, up, east * sin + north * cos])


def _response(rng: np.random.Generator, weather: Weather) -> U8:
    """Exposure, contrast and gamma as one table."""
    exposure = rng.lognormal(0.16, 0.14) if weather != "fog" else rng.uniform(0.9, 1.1)
    gamma = rng.uniform(0.85, 1.15)
    contrast = rng.uniform(0.05, 0.4) if weather != "fog" else 0.0
    lift = rng.uniform(0.0, 0.02)
    y = np.minimum(np.arange(256) / 255.0 * exposure, 1.0) ** gamma
    curve = y * y * (3 - 2 * y)
    return np.clip((lift + (1 - lift) * (y * (1 - contrast) + curve * contrast)) * 255, 0, 255).astype(np.uint8)


def make_light(rng: np.random.Generator, weather: Weather | None, camera_noise: float) -> Light:
    """Draw a light. Sun is the most frequent, as in KITTI."""
    kind: Weather = weather or WEATHERS[pick(rng, (0.64, 0.22, 0.05, 0.05, 0.04))]
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(22, 58))
    direct, ambient, haze_m, shade, wet = 0.0, 0.0, 900.0, 1.0, 0.0
    haze = np.array([235.0, 225.0, 215.0])
    warm = np.array([0.92, 1.0, 1.06])
    cool = np.array([1.16, 1.0, 0.89])
    if kind == "sun":
        direct, ambient = rng.uniform(0.85, 1.15), rng.uniform(0.3, 0.48)
        haze_m = rng.uniform(300, 1500)
    elif kind == "overcast":
        direct, ambient = rng.uniform(0.0, 0.15), rng.uniform(0.7, 0.95)
        haze, haze_m, cool = np.full(3, rng.uniform(190, 240)), rng.uniform(250, 900), np.ones(3)
    elif kind == "rain":
        direct, ambient, wet = 0.0, rng.uniform(0.5, 0.8), rng.uniform(0.5, 1.0)
        haze, haze_m, cool = np.full(3, rng.uniform(140, 210)), rng.uniform(80, 260), np.array([1.04, 1.0, 0.97])
    elif kind == "fog":
        direct, ambient = 0.0, rng.uniform(0.6, 0.9)
        haze, haze_m, cool = np.full(3, rng.uniform(165, 230)), rng.uniform(35, 110), np.ones(3)
    else:
        elevation = np.radians(rng.uniform(4, 14))
        direct, ambient = rng.uniform(0.15, 0.6), rng.uniform(0.35, 0.6)
        haze, haze_m = np.array([150.0, 150.0, 190.0]) * rng.uniform(0.7, 1.2), rng.uniform(200, 700)
        warm = np.array([0.62, 0.9, 1.25])
    sky = ambient * cool
    sun = direct * warm
    lit = sky + sun * np.sin(elevation)
    shade = float(np.clip((sky / lit).mean() * 0.9, 0.12, 1.0))
    top, low, cover = _sky_colours(rng, kind, haze)
    direction = np.array(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    balance = np.array([rng.normal(1.02, 0.03), 1.0, rng.normal(0.97, 0.03)])  # of the white, BGR
    return Light(
        weather=kind,
        sun_world=direction,
        sun=sun * balance,
        sky=sky * balance,
        bounce=lit * rng.uniform(0.18, 0.32) * balance,
        haze=haze * balance,
        haze_m=float(haze_m),
        shade=shade,
        sky_top=top * balance,
        sky_low=low * balance,
        cloud=int(rng.integers(4)),
        cloud_cover=float(cover),
        wet=float(wet),
        lut=_response(rng, kind),
        noise=float(rng.uniform(0.5, 3.5) * camera_noise) * (2.0 if kind == "dusk" else 1.0),
        blur=float(rng.uniform(0.2, 0.95) * min(camera_noise, 1.5)),
        jpeg=int(rng.integers(70, 96)) if camera_noise > 0 and rng.random() < 0.3 else 0,
        bloom=float(rng.uniform(0, 0.35) * min(camera_noise, 1.0)),
    )


def _sky_colours(rng: np.random.Generator, kind: Weather, haze: F64) -> tuple[F64, F64, float]:
    """Draw the colours of the sky at the top and at the horizon, BGR, and the cloud cover."""
    style = pick(rng, (0.5, 0.35, 0.15)) if kind == "sun" else 3
    if style == 0:  # overexposed, as towards the sun
        return np.array([255.0, 252, 235]), np.array([262.0, 262, 258]), rng.uniform(0, 0.6)
    if style == 1:
        return np.array([250.0, 215, 150]), np.array([258.0, 250, 215]), rng.uniform(0, 0.35)
    if style == 2:
        return np.array([225.0, 165, 95]), np.array([250.0, 225, 175]), rng.uniform(0.2, 1.0)
    top, low, cover = haze * rng.uniform(0.85, 1.05), haze * 1.06, rng.uniform(0, 0.5)
    if kind == "dusk":
        top = np.array([150.0, 115, 100]) * rng.uniform(0.6, 1.2)
    return top, low, cover


def photograph(scene_bgr: U8, light: Light, rng: np.random.Generator) -> U8:
    """What the camera makes of the scene: bloom, response, blur, noise, rain on the way, compression."""
    image = scene_bgr
    height, width = image.shape[:2]
    if light.bloom > 0.05 and min(height, width) >= 8:
        # bright places bleed into their surroundings; blocks of 8 pixels, as other ratios cost five times that
        small = cv2.resize(
            image[: height // 8 * 8, : width // 8 * 8], (width // 8, height // 8), interpolation=cv2.INTER_AREA
        )
        glow = cv2.blur(cv2.blur(cv2.subtract(small, (190, 190, 190, 0)), (5, 5)), (5, 5))
        image = cv2.add(image, cv2.resize(cv2.convertScaleAbs(glow, alpha=light.bloom * 3), (width, height)))
    image = cv2.LUT(image.reshape(height, width * 3), light.lut).reshape(height, width, 3)
    if light.weather == "rain":
        drops = np.zeros((height, width), np.uint8)
        starts = rng.uniform(0, 1, (60, 2)) * (width, height)
        for (x, y), length in zip(starts, rng.uniform(6, 30, 60), strict=True):
            cv2.line(drops, (int(x), int(y)), (int(x + length * 0.12), int(y + length)), int(rng.uniform(8, 30)), 1)
        image = cv2.add(image, cv2.cvtColor(drops, cv2.COLOR_GRAY2BGR))
    if light.blur > 0.25:
        image = cv2.GaussianBlur(image, (3, 3), light.blur)
    if light.noise > 0:
        tile = textures.sensor_noise()
        if height > tile.shape[0] or width > tile.shape[1]:
            tile = np.tile(tile, (-(-height // tile.shape[0]), -(-width // tile.shape[1]), 1))
        y = int(rng.integers(tile.shape[0] - height + 1))
        x = int(rng.integers(tile.shape[1] - width + 1))
        strength = light.noise / 28.0
        image = cv2.addWeighted(image, 1.0, tile[y : y + height, x : x + width], strength, -128 * strength)
    if light.jpeg:
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, light.jpeg])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return image
