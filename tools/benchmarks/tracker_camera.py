"""Whether DriveTrack gains from camera motion that sparse optical flow measures, and what that costs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from perception.arrays import F64
from perception.formats.images import read_image
from perception.formats.kitti import read_tracking
from perception.trackers.drivetrack import DriveTracker
from perception.types import Detections, Tracks
from tools.benchmarks.tracker_images import FOLDERS
from tools.benchmarks.tracker_runs import CLASSES, Found, Recording, figures, judge

MOST_CORNERS, SHRINK = 200, 2
"""Corners that are followed, in an image of so many times less width."""
LEAST_CORNERS = 12
"""With fewer matches the camera counts as still."""
LEAST_IMAGES = 30


class CameraMotion:
    """The affine change (2, 3) from one image to the next: corners, Lucas-Kanade flow, RANSAC."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self.seconds: list[float] = []
        """Processor time of each call."""

    def next(self, image_bgr: np.ndarray) -> F64:
        begin = time.thread_time()
        height, width = image_bgr.shape[:2]
        small = cv2.resize(image_bgr, (width // SHRINK, height // SHRINK), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
        motion = np.eye(2, 3)
        corners = None if self._before is None else cv2.goodFeaturesToTrack(self._before, MOST_CORNERS, 0.01, 8)
        if corners is not None and self._before is not None:
            moved, ok, _ = cv2.calcOpticalFlowPyrLK(self._before, grey, corners, np.empty_like(corners))
            found = ok.ravel() == 1
            if found.sum() >= LEAST_CORNERS:
                fitted, _ = cv2.estimateAffinePartial2D(corners[found], moved[found])
                motion = motion if fitted is None else fitted * [1, 1, SHRINK]
        self._before = grey
        self.seconds.append(time.thread_time() - begin)
        return motion


class MovedTracker(DriveTracker):
    """DriveTrack whose predicted boxes move along with the image."""

    def __init__(self) -> None:
        super().__init__()
        self.camera = CameraMotion()

    def update(self, detections: Detections, timestamp_ns: int, image_bgr: np.ndarray | None = None) -> Tracks:
        assert image_bgr is not None
        table, motion = self._table, self.camera.next(image_bgr)

        def advance(timestamp_ns: int, lost_s: float, *, projective: bool = False) -> None:
            type(table).advance(table, timestamp_ns, lost_s, projective=projective)
            box = table.states.position
            box[:2] = motion[:, :2] @ box[:2] + motion[:, 2:]
            box[2:] *= np.hypot(motion[0, 0], motion[1, 0])

        table.advance = advance  # type: ignore[method-assign]
        return super().update(detections, timestamp_ns)


def table_of_camera(kitti: Path, sequences: list[Recording]) -> None:
    """Print HOTA with and without camera motion on the sequences that have images, and the time that it takes."""
    print("\n| sequence (images) | class | HOTA, without | with flow | flow, ms a frame |\n|---|---|---|---|---|")
    for recording, paths in with_images(kitti, sequences):
        plain, moved = DriveTracker(), MovedTracker()
        results: dict[str, Found] = {"plain": [], "moved": []}
        for (frame_id, detections), path in zip(recording.frames, paths, strict=True):
            stamp = round(frame_id * 1e9 / recording.fps)
            for name, tracks in (
                ("plain", plain.update(detections, stamp)),
                ("moved", moved.update(detections, stamp, read_image(path))),
            ):
                results[name] += [(frame_id, t.track_id, t.class_id, t.box_xyxy) for t in tracks]
        scores = {name: judge(recording, found) for name, found in results.items()}
        cost_ms = 1e3 * float(np.median(moved.camera.seconds))
        for class_name in CLASSES:
            without, with_flow = (figures([scores[name]], class_name)[0] for name in ("plain", "moved"))
            name = f"{recording.name} ({len(paths)})"
            print(f"| {name} | {class_name} | {without:.1f} | {with_flow:.1f} | {cost_ms:.1f} |", flush=True)


def with_images(kitti: Path, sequences: list[Recording]) -> list[tuple[Recording, list[Path]]]:
    """Sequences of at least `LEAST_IMAGES` images, detections scaled as their labels are, and the images' paths."""
    found = []
    stored = {s.name: s for s in sequences}
    for folder in FOLDERS:
        for images in sorted((kitti / folder / "training" / "image_02").glob("*")):
            paths = {int(p.stem): p for p in sorted(images.iterdir()) if p.stem.isdecimal()}
            if images.name not in stored or len(paths) < LEAST_IMAGES:
                continue
            recording = stored[images.name]
            gt = read_tracking(kitti / folder / "training" / "label_02" / f"{images.name}.txt")
            scale = np.float32(gt.objects.boxes_xyxy[:, 2].max() / recording.gt.objects.boxes_xyxy[:, 2].max())
            frames = [(i, replace(d, boxes_xyxy=d.boxes_xyxy * scale)) for i, d in recording.frames if i in paths]
            found.append((replace(recording, gt=gt, frames=frames), [paths[i] for i, _ in frames]))
    return found
