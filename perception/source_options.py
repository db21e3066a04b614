"""What can be asked of a source. Light: `perception run --help` reads it, without numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perception.errors import UserError
from perception.files import MAX_MEGAPIXELS

Decoder = Literal["software", "auto", "cuda", "vaapi", "qsv", "videotoolbox", "d3d11va"]
LONGEST_S = 1e9
"""Thirty years: the end of what counts as a number of seconds; nanoseconds stay well within 64 bits."""


@dataclass(frozen=True)
class SourceOptions:
    """Which part of a source to read, and how patient to be with it."""

    start_s: float = 0.0
    """Skip the beginning of a stored source, seconds."""
    duration_s: float | None = None
    """Stop after this much of a stored source, seconds."""
    every: int = 1
    """Read every n-th frame only."""
    realtime: bool = False
    """Play a stored source at its own pace, as if it were live."""
    rate_hz: float | None = None
    """Frames a second where the source does not say: folders of images (10 by default, as KITTI), raw streams."""
    height_m: float | None = None
    """Height of a bag's camera above the road, metres. With it the bag's CameraInfo is the calibration."""
    deinterlace: bool = True
    """Deinterlace video that is marked as interlaced."""
    decoder: Decoder = "software"
    """Decoder of video. auto: hardware where it works, else software; a named one is used or refused."""
    max_megapixels: float = MAX_MEGAPIXELS
    """Refuse larger images before they are decoded: a few kilobytes can decode to gigabytes."""
    verify_tls: bool = True
    """Refuse https, rtsps and tls servers whose certificate is not valid for their name."""
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    """TCP loses nothing on a bad network; UDP is a little faster."""
    timeout_s: float = 5.0
    """Reopen a stream that is silent for this long, seconds."""
    retry_s: float = 0.5
    """Wait before the first reconnect, seconds. It doubles up to 30 s, with jitter."""
    reconnects: int | None = None
    """Give a stream up after this many failed attempts in a row. Default: never."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"--every {self.every}", "a whole number from 1", "--every 2 takes every second frame")
        for name, option in (("start_s", "--start"), ("timeout_s", "--timeout"), ("retry_s", "--retry")):
            if not 0 <= getattr(self, name) <= LONGEST_S:
                raise UserError(f"{option} {getattr(self, name):g}", "seconds, not negative", f"{option} 5")
        if self.duration_s is not None and not 0 < self.duration_s <= LONGEST_S:
            raise UserError(f"--duration {self.duration_s:g}", "seconds, more than 0", "--duration 10")
        if self.rate_hz is not None and not 0 < self.rate_hz <= 1000:
            raise UserError(f"--rate {self.rate_hz:g}", "frames a second, more than 0, up to 1000", "--rate 10")
        if self.height_m is not None and not 0 < self.height_m <= 100:
            raise UserError(f"--height-m {self.height_m:g}", "metres, more than 0, up to 100", "--height-m 1.65")
        if not 0 < self.max_megapixels <= 4000:
            raise UserError(
                f"--max-megapixels {self.max_megapixels:g}", "more than 0, up to 4000", "--max-megapixels 100"
            )
        if self.reconnects is not None and self.reconnects < 0:
            raise UserError(
                f"--reconnects {self.reconnects}", "a whole number from 0", "leave it out to try for ever"
            )
