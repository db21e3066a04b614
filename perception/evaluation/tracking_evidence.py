"""Tracking scores as a function of the weights of frames: what a bootstrap over frames needs.

HOTA at one α is sqrt(ΣA / (TP + FN + FP)), with ΣA the association accuracy summed over true positives; MOTA and IDF1
are likewise quotients of sums over frames. So a draw of frames is a weighting of the sums. Association and the
assignment of ids stay those of the whole sequence: drawing frames does not cut tracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perception.arrays import F64, I64
from perception.evaluation.results import TRACKING_CLASSES_SCORED, TrackingEvaluation, TrackingFrames, ratio
from perception.evaluation.tracking import frames_of

FIELDS = ("hota_tp", "hota_fn", "hota_fp", "hota_ass", "clear", "identity")
MEASURES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "precision", "recall", "F1")


@dataclass(frozen=True, eq=False)
class TrackingEvidence:
    """The frames of all sequences, one after the other, F in all."""

    sequences: tuple[str, ...]
    lengths: tuple[int, ...]
    """Frames of each sequence."""
    classes: dict[str, TrackingFrames]
    """By class, arrays over all F frames."""

    @cached_property
    def _tables(self) -> dict[str, F64]:
        """All fields of a class side by side, so that weighting them is one product."""
        return {
            name: np.concatenate([getattr(frames, field) for field in FIELDS], axis=1).astype(np.float64)
            for name, frames in self.classes.items()
        }

    @staticmethod
    def of(evaluation: TrackingEvaluation) -> TrackingEvidence:
        """Gather the sums of each frame from an evaluation."""
        names = tuple(evaluation.n_frames)
        classes = {}
        for class_name in evaluation.combined:
            frames = [frames_of(evaluation, name, class_name) for name in names]
            classes[class_name] = TrackingFrames(
                **{field: np.concatenate([getattr(one, field) for one in frames]) for field in FIELDS}
            )
        return TrackingEvidence(names, tuple(evaluation.n_frames[name] for name in names), classes)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return everything as arrays, for `np.savez`."""
        out: dict[str, np.ndarray] = {
            "sequences": np.array(self.sequences, dtype=str),
            "lengths": np.array(self.lengths, np.int64),
        }
        for name, frames in self.classes.items():
            out.update({f"{name}.{field}": getattr(frames, field) for field in FIELDS})
        return out

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> TrackingEvidence:
        """Rebuild the evidence from `arrays`.

        Raises:
            KeyError, ValueError: the arrays do not fit together.
        """
        lengths = tuple(int(n) for n in arrays["lengths"])
        classes = {}
        for name in TRACKING_CLASSES_SCORED:
            if f"{name}.{FIELDS[0]}" in arrays:
                fields = {field: arrays[f"{name}.{field}"] for field in FIELDS}
                if any(len(values) != sum(lengths) for values in fields.values()):
                    raise ValueError(f"{name}: not one row for each of {sum(lengths)} frames")
                classes[name] = TrackingFrames(**fields)
        return TrackingEvidence(tuple(str(name) for name in arrays["sequences"]), lengths, classes)

    def frame_names(self) -> tuple[str, ...]:
        """List the frames as '0001/000042'."""
        return tuple(
            f"{name}/{frame:06d}"
            for name, length in zip(self.sequences, self.lengths, strict=True)
            for frame in range(length)
        )

    def score_names(self) -> tuple[str, ...]:
        """List the names of the M scores."""
        return tuple(f"{name} {measure}" for name in self.classes for measure in MEASURES)

    def score(self, weights: I64) -> F64:
        """Score each draw, (R, F) → (R, M) by `score_names`, in per cent; NaN where nothing was drawn."""
        columns: list[F64] = []
        weights = weights.astype(np.float64)
        for table in self._tables.values():
            sums = weights @ table  # (R, 4·19 + 4 + 3)
            tp, fn, fp, association = (sums[:, 19 * i : 19 * (i + 1)] for i in range(4))  # (R, 19) each
            hit, miss, false, switched, idtp, idfn, idfp = sums[:, 4 * 19 :].T  # (R,) each
            det_a, ass_a = ratio(tp, tp + fn + fp), association / np.maximum(tp, 1)
            columns += [
                np.sqrt(det_a * ass_a).mean(axis=1),
                det_a.mean(axis=1),
                ass_a.mean(axis=1),
                ratio(hit - false - switched, hit + miss),
                ratio(idtp, idtp + 0.5 * (idfn + idfp)),
                ratio(hit, hit + false),
                ratio(hit, hit + miss),
                ratio(2 * hit, 2 * hit + miss + false),
            ]
        return 100 * np.stack(columns, axis=1) if columns else np.zeros((len(weights), 0))

    def truths(self) -> I64:
        """Count the valid labels of each frame, (F, classes)."""
        columns = [frames.clear[:, 0] + frames.clear[:, 1] for frames in self.classes.values()]
        return np.stack(columns, axis=1) if columns else np.zeros((sum(self.lengths), 0), np.int64)

    def errors(self) -> I64:
        """Count the misses, false positives and id switches of each frame, (F,)."""
        return sum(
            (frames.clear[:, 1:].sum(axis=1) for frames in self.classes.values()),
            np.zeros(sum(self.lengths), np.int64),
        )
