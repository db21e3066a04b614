"""What a synthetic drive is made of: length, density, weather, setting. One frozen dataclass, one demo preset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Weather = Literal["sun", "overcast", "rain", "fog", "dusk"]
Setting = Literal["city", "suburb", "country", "arterial"]
WEATHERS: tuple[Weather, ...] = ("sun", "overcast", "rain", "fog", "dusk")
SETTINGS: tuple[Setting, ...] = ("city", "suburb", "country", "arterial")


MOST_FRAMES = 100_000
"""Longest drive: almost three hours."""


@dataclass(frozen=True)
class StreetConfig:
    """A seeded drive. The same config gives the same bytes with the same versions of numpy and OpenCV."""

    seed: int = 7
    """Everything random follows from it."""
    frames: int = 200
    """Length of the drive, frames."""
    size_hw: tuple[int, int] = (375, 1242)
    """Height and width of the images, pixels; the camera is scaled with them."""
    fps: float = 10.0
    """Frames a second, KITTI's rate by default."""
    traffic: float = 1.0
    """Moving vehicles, times the usual number."""
    parked: float = 1.0
    """Parked vehicles, times the usual number."""
    people: float = 1.0
    """Pedestrians and cyclists, times the usual number."""
    curviness: float = 1.0
    """Curvature of the road, times the usual; 0 is straight."""
    ego_speed_mps: float | None = None
    """Speed the camera's car would like to drive, metres a second; None picks what fits the setting."""
    weather: Weather | None = None
    """None picks one from the seed."""
    setting: Setting | None = None
    """What stands beside the road; None picks one from the seed."""
    camera_noise: float = 1.0
    """Sensor noise, blur and compression, times the usual; 0 is a clean image."""

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MOST_FRAMES:
            raise ValueError(f"frames: found {self.frames}, expected 1 to {MOST_FRAMES:,}")
        if min(self.size_hw) < 32:
            raise ValueError(f"size_hw: found {self.size_hw}, expected at least 32 pixels a side")
        if not 0 < self.fps <= 1000:
            raise ValueError(f"fps: found {self.fps}, expected between 0 and 1000")
        for name in ("traffic", "parked", "people", "curviness", "camera_noise"):
            if not 0 <= getattr(self, name) <= 10:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected a factor between 0 and 10")
        if self.ego_speed_mps is not None and not 0 <= self.ego_speed_mps <= 60:
            raise ValueError(f"ego_speed_mps: found {self.ego_speed_mps}, expected 0 to 60 metres a second")
        if self.weather is not None and self.weather not in WEATHERS:
            raise ValueError(f"weather: found {self.weather!r}, expected one of {', '.join(WEATHERS)}")
        if self.setting is not None and self.setting not in SETTINGS:
            raise ValueError(f"setting: found {self.setting!r}, expected one of {', '.join(SETTINGS)}")


DEMO_CONFIG = StreetConfig(seed=17, frames=180, weather="sun", setting="city", people=1.2)
"""The clip of `make demo`: a city street with crossings, a bend, trees and much traffic, 18 seconds."""
