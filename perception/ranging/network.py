"""What the network says of each track: that of the detection in the same place."""

from __future__ import annotations

import numpy as np

from perception.arrays import F32
from perception.boxes import iou
from perception.types import Detections, Tracks


def network_of_tracks(tracks: Tracks, detections: Detections) -> tuple[F32 | None, F32 | None]:
    """What the network says of each track's depth and 3-D box: that of the detection in the same place.

    Returns:
        (N, 2) as `Detections.depths` and (N, 8) as `Detections.cuboids`, NaN for a track that no detection of its
        class overlaps by half; None where the network gives none.
    """
    columns = (detections.depths, detections.cuboids)
    if not len(tracks) or all(column is None for column in columns):
        return None, None
    if not len(detections):
        nothing = [None if c is None else np.full((len(tracks), c.shape[1]), np.nan, np.float32) for c in columns]
        return nothing[0], nothing[1]
    overlap = iou(tracks.boxes_xyxy, detections.boxes_xyxy)  # (N, M)
    overlap *= tracks.class_ids[:, None] == detections.class_ids
    best, lost = overlap.argmax(axis=1), overlap.max(axis=1) < 0.5
    rows = [None if column is None else column.take(best, axis=0) for column in columns]
    if lost.any():
        for found in rows:
            if found is not None:
                found[lost] = np.nan
    return rows[0], rows[1]
