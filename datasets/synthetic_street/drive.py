"""The drive as a dataset: any frame on its own, and the truth of all frames without drawing them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.sample import Sample
from datasets.synthetic_street.chance import stable_seed
from datasets.synthetic_street.config import StreetConfig
from datasets.synthetic_street.geometry import View, kitti_camera
from datasets.synthetic_street.ground import strip
from datasets.synthetic_street.light import make_light
from datasets.synthetic_street.render import render
from datasets.synthetic_street.scene import Actor, Street
from datasets.synthetic_street.traffic import KINDS, simulate
from datasets.synthetic_street.truth import place_all, rows_of, sample_of, visibility_from_boxes
from perception.arrays import U8
from perception.cameras.pinhole import PinholeCamera
from perception.formats.kitti import ObjectRows, TrackingRows


@dataclass(frozen=True, eq=False)
class StreetFrame:
    """One frame of a drive with its truth."""

    image_bgr: U8
    rows: TrackingRows
    """Of this frame; `truncation` is the share outside the image, 0..1 (written as KITTI's 0, 1, 2 in files)."""
    road: U8
    """(H, W) 1 road, 0 not road, 255 not judged."""
    timestamp_ns: int
    frame_id: int


class SyntheticStreet:
    """A seeded drive: `len`, `[i]` for a Sample, `frame(i)` for the full truth. Frames may be asked in any order."""

    def __init__(self, config: StreetConfig) -> None:
        self.config = config
        fastest = 30.0 if config.ego_speed_mps is None else config.ego_speed_mps * 1.1 + 1
        length = config.frames / config.fps * fastest + 500
        self.street = Street(
            config.seed, -120.0, length, config.setting, config.curviness, config.parked, config.people
        )
        self.traffic = simulate(config, self.street)
        self.light = make_light(
            np.random.default_rng(stable_seed(config.seed, 4)), config.weather, config.camera_noise
        )
        self.camera: PinholeCamera = kitti_camera(config.size_hw)
        self._levels: tuple[U8, ...] | None = None

    @property
    def name(self) -> str:
        return f"street_{self.config.seed:04d}"

    def __len__(self) -> int:
        return self.config.frames

    def timestamp_ns(self, i: int) -> int:
        """Moment of capture of frame i; the drive starts at 0."""
        return round(i * 1e9 / self.config.fps)

    def _view(self, i: int) -> tuple[View, float]:
        s = float(self.traffic.ego_s[i])
        x, y, heading = self.street.line.place(s, self.traffic.ego_d)
        return View(self.camera, self.config.size_hw, float(x), float(y), float(heading)), s

    def _actors(self, i: int, s: float) -> list[Actor]:
        traffic = self.traffic
        actors = [a for _, b in self.street.blocks(s - 12, s + 100) for a in b.parked]
        present = np.flatnonzero((traffic.ids[i] >= 0) & (np.abs(traffic.s[i] - s - 45) < 58))
        if len(present):
            x, y, heading = self.street.line.place(traffic.s[i, present], traffic.d[i, present])
            for j, px, py, h in zip(present, x, y, heading, strict=True):
                actors.append(
                    Actor(
                        kind=KINDS[traffic.kind[i, j]],
                        track_id=int(traffic.ids[i, j]),
                        look=int(traffic.ids[i, j]) * 7919 + self.config.seed,
                        x=float(px),
                        y=float(py),
                        heading=float(h + traffic.turn[i, j]),
                        phase=float(traffic.phase[i, j] % (2 * np.pi)),
                        moving=bool(traffic.moving[i, j]),
                    )
                )
        return actors

    def frame(self, i: int) -> StreetFrame:
        """Draw frame i.

        Raises:
            IndexError: i is not in 0..len-1.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"frame {i} of a drive of {len(self)} frames")
        if self._levels is None:
            self._levels = strip(self.street)
        view, s = self._view(i)
        rendered = render(
            self.street, self._actors(i, s), view, s, self.light, self._levels, (self.config.seed, 6, i)
        )
        rows = rows_of(rendered.placed, rendered.visible, view, i)
        return StreetFrame(rendered.image_bgr, rows, rendered.road, self.timestamp_ns(i), i)

    def __getitem__(self, i: int) -> Sample:
        frame = self.frame(i)
        return sample_of(frame.rows, frame.image_bgr, frame.road, self.camera, f"{self.name}_{i:06d}", self.name)

    def truth(self, i: int) -> TrackingRows:
        """Rows of frame i without drawing it; occlusion is then estimated from boxes and depth."""
        view, s = self._view(i)
        placed = place_all(self._actors(i, s), view)
        return rows_of(placed, visibility_from_boxes(placed, self.config.size_hw), view, i)


def concatenate(parts: list[TrackingRows]) -> TrackingRows:
    """Rows of several frames as one sequence."""
    objects = [p.objects for p in parts]
    return TrackingRows(
        np.concatenate([p.frame_ids for p in parts]),
        np.concatenate([p.track_ids for p in parts]),
        ObjectRows(
            tuple(name for o in objects for name in o.names),
            *(
                np.concatenate([getattr(o, column) for o in objects])
                for column in (
                    "truncation",
                    "occlusion",
                    "alpha",
                    "boxes_xyxy",
                    "dimensions_hwl",
                    "location_cam2",
                    "rotation_y",
                )
            ),
        ),
    )


def drive_truth(config: StreetConfig) -> TrackingRows:
    """Truth of all frames without drawing: a test bed for trackers.

    Boxes, ids and poses are those of the drawn drive. Occlusion is estimated from boxes and depth among road users
    (see `visibility_from_boxes`), so its levels can differ a little, and walls and trees hide nobody.
    """
    drive = SyntheticStreet(config)
    return concatenate([drive.truth(i) for i in range(len(drive))])
