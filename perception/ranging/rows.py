"""Which row of the filters belongs to which track, and what is remembered of each from frame to frame."""

from __future__ import annotations

import numpy as np

from perception.arrays import F64, I64
from perception.ranging.config import MAX_REMEMBERED

Bools = np.ndarray


class TrackRows:
    """Rows in the order of the present frame's tracks, remembered ones after them."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.seen_ns: I64 = np.zeros(0, np.int64)
        self.placed: Bools = np.zeros(0, bool)
        """(N,) whether the filter has a place of it."""
        self.half_depth_var: F64 = np.zeros(0)
        self.least: F64 = np.zeros(0)
        """(N,) factor on the least closing speed that is reported: 1, or `closing_keep` where the last one was."""

    def arrange(self, ids: list[int], timestamp_ns: int, forget_ns: float) -> tuple[I64, Bools] | None:
        """Make rows for these tracks and forget what was not seen for long.

        Returns:
            (M,) the old row of each new one, -1 where there was none, and whether what was known of it stays known;
            None where all rows stay.
        """
        unseen_ns = timestamp_ns - self.seen_ns
        self.placed &= unseen_ns <= forget_ns
        if ids == self.ids or (ids == self.ids[: len(ids)] and self.placed.all()):
            return None  # the remembered ones stay behind them, too
        row_of = {track_id: row for row, track_id in enumerate(self.ids)}
        present = set(ids)
        absent = [i for i, row in row_of.items() if i not in present and self.placed[row]]
        if len(absent) > MAX_REMEMBERED:
            absent = sorted(absent, key=lambda i: unseen_ns[row_of[i]])[:MAX_REMEMBERED]
        order = np.array([row_of.get(i, -1) for i in ids + absent], np.int64)
        kept = order >= 0
        if self.ids:
            self.least = np.where(kept, self.least[order], 1.0)
            kept &= self.placed[order]
            self.seen_ns, self.placed = self.seen_ns[order], kept.copy()
            self.half_depth_var = self.half_depth_var[order]
        else:
            self.seen_ns, self.placed = np.zeros(len(order), np.int64), kept.copy()
            self.half_depth_var, self.least = np.zeros(len(order)), np.ones(len(order))
        self.ids = ids + absent
        return order, kept

    def repetition(self, usable: Bools, fresh: Bools, timestamp_ns: int, edge_time_s: float) -> F64:
        """(N,) by how much the variance of this frame's boxes grows because they repeat the last ones' errors."""
        seen_ns = self.seen_ns[: len(usable)]
        gap_s = np.maximum((timestamp_ns - seen_ns) * 1e-9, 1e-6)
        repetition = 1 + 2 * edge_time_s / gap_s
        repetition[fresh] = 1.0
        repetition[~usable] = np.inf
        np.copyto(seen_ns, timestamp_ns, where=usable)
        return repetition
