"""Timelines of ids, and the worst frames with labels and results drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.evaluation.results import TrackingEvaluation, TrackingSequence, TrackingTimeline
from perception.reports.images import DrawnBox, corners, load_image, scene, with_images
from perception.reports.plots import Span, Timeline, TimelineRow
from perception.reports.report import Block, Column, Figure, Gallery, Legend, Paragraph, Section, Table

TIMELINES = 3
"""Sequences shown for each class."""
TIMELINE_ROWS = 20
"""Tracks shown for each sequence."""
APART = 10
"""Least distance of two gallery frames of one sequence, frames: neighbours show the same fault."""
SWITCH_COST = 3
"""An id switch counts as this many misses when frames are ranked: it is rare, and the tracker's own fault."""
SCENE_LEGEND = (
    ("truth", "label that was found"),
    ("found", "right result, with its id"),
    ("missed", "missed label"),
    ("switched", "id switch: old → new"),
    ("false", "false positive, with its id"),
)


def of_class(evaluation: TrackingEvaluation, class_name: str) -> list[TrackingSequence]:
    """The sequences of one class."""
    return [one for one in evaluation.sequences.values() if one.class_name == class_name]


# ---------------------------------------------------------------- timelines


def timeline_rows(one: TrackingSequence, limit: int = TIMELINE_ROWS) -> list[TimelineRow]:
    """Return one row per ground truth track: most id switches first, then most misses."""
    line = one.timeline
    ranked = []
    for gt_id in np.unique(line.gt_ids):
        of_track = np.flatnonzero(line.gt_ids == gt_id)
        of_track = of_track[np.argsort(line.frames[of_track], kind="stable")]
        frames, ids = line.frames[of_track], line.tracker_ids[of_track]
        switches = frames[line.is_switch[of_track]]
        ranked.append((-len(switches), -int((ids < 0).sum()), int(gt_id), frames, ids, switches))
    ranked.sort(key=lambda row: row[:3])
    rows = []
    for _, _, gt_id, frames, ids, switches in ranked[:limit]:
        rows.append(TimelineRow(f"track {gt_id}", _spans(frames, ids), tuple(int(s) for s in switches)))
    return rows


def _spans(frames: np.ndarray, ids: np.ndarray) -> tuple[Span, ...]:
    """Split a track into runs of consecutive frames with one tracker id; colours by order of appearance."""
    breaks = np.flatnonzero((np.diff(frames) != 1) | (np.diff(ids) != 0)) + 1
    colours: dict[int, str] = {}
    spans = []
    for run in np.split(np.arange(len(frames)), breaks):
        if not len(run):
            continue
        first, last, who = int(frames[run[0]]), int(frames[run[-1]]), int(ids[run[0]])
        if who < 0:
            spans.append(Span(first, last + 1, "missed", f"missed, frames {first}–{last}"))
        else:
            colour = colours.setdefault(who, f"s{len(colours) % 6}")
            spans.append(Span(first, last + 1, colour, f"id {who}, frames {first}–{last}"))
    return tuple(spans)


def timelines(evaluation: TrackingEvaluation) -> Section:
    """Show the sequences with the most id switches, and list every switch."""
    figures, rows = [], []
    for class_name in evaluation.combined:
        sequences = of_class(evaluation, class_name)
        for one in sequences:
            line = one.timeline
            for i in np.flatnonzero(line.is_switch):
                rows.append(
                    (
                        class_name,
                        one.name,
                        int(line.frames[i]),
                        int(line.gt_ids[i]),
                        _before(line, int(i)),
                        int(line.tracker_ids[i]),
                    )
                )
        ranked = sorted(sequences, key=lambda one: (-one.clear.idsw, -one.clear.frag, one.name))
        for one in ranked[:TIMELINES]:
            tracks = timeline_rows(one)
            if not tracks:
                continue
            hidden = len(np.unique(one.timeline.gt_ids)) - len(tracks)
            more = f"; {hidden} tracks with fewer faults are not shown" if hidden else ""
            faults = f"{one.clear.idsw} id switches, {one.clear.frag} interruptions"
            caption = f"{class_name}, sequence {one.name}: {faults}{more}."
            title, frames = f"{class_name}, sequence {one.name}", evaluation.n_frames[one.name]
            figures.append(Figure((Timeline(title, caption, tuple(tracks), frames),), caption, scrolls=True))
    table = Table(
        "id_switches",
        "Every id switch",
        (
            Column("class", "Class"),
            Column("sequence", "Sequence"),
            Column("frame", "Frame", "d"),
            Column("track", "Labelled track", "d"),
            Column("from", "From id", "d"),
            Column("to", "To id", "d"),
        ),
        tuple(rows),
        folded=True,
    )
    intro = Paragraph(
        "One row per labelled track. A colour is one id of the tracker; rest the pointer on it to read which. A thin "
        "grey line is a stretch without a match, and a mark is an id switch. "
        f"Each class shows the {TIMELINES} sequences with the most switches."
    )
    legend = Legend((("s0", "tracked"), ("gap", "not tracked"), ("switch", "id switch")))
    return Section("timelines", "Ids over time", (intro, legend, Gallery(tuple(figures), "full"), table))


def _before(line: TrackingTimeline, i: int) -> int:
    """Return the tracker id of the same ground truth track's last match before entry i, -1 for none."""
    earlier = np.flatnonzero(
        (line.gt_ids == line.gt_ids[i]) & (line.frames < line.frames[i]) & (line.tracker_ids >= 0)
    )
    return int(line.tracker_ids[earlier[np.argmax(line.frames[earlier])]]) if len(earlier) else -1


# ---------------------------------------------------------------- the worst frames


@dataclass(frozen=True)
class FrameFaults:
    """The faults of one frame, both classes together."""

    sequence: str
    frame: int
    missed: int
    false: int
    switched: int

    @property
    def cost(self) -> int:
        return SWITCH_COST * self.switched + self.missed + self.false


def frame_faults(evaluation: TrackingEvaluation) -> list[FrameFaults]:
    """Frames with any fault, worst first."""
    found = []
    for name, count in evaluation.n_frames.items():
        missed, false, switched = (np.zeros(count, np.int64) for _ in range(3))
        for one in (s for s in evaluation.sequences.values() if s.name == name):
            line = one.timeline
            missed += np.bincount(line.frames[line.tracker_ids < 0], minlength=count)
            false += np.bincount(line.fp_frames, minlength=count)
            switched += np.bincount(line.frames[line.is_switch], minlength=count)
        for frame in np.flatnonzero(missed + false + switched):
            found.append(FrameFaults(name, int(frame), int(missed[frame]), int(false[frame]), int(switched[frame])))
    return sorted(found, key=lambda one: (-one.cost, one.sequence, one.frame))


def _apart(faults: list[FrameFaults]) -> list[FrameFaults]:
    """Drop frames that lie close to a worse one."""
    kept: list[FrameFaults] = []
    taken: dict[str, list[int]] = {}
    for one in faults:
        near = taken.setdefault(one.sequence, [])
        if all(abs(one.frame - frame) > APART for frame in near):
            near.append(one.frame)
            kept.append(one)
    return kept


def worst_frames(evaluation: TrackingEvaluation, images: Path | None, count: int) -> Section:
    """Show the frames with the most faults, worst first."""
    faults = frame_faults(evaluation)
    chosen, only_with_image = with_images(
        faults, lambda one: (images / one.sequence if images else None, f"{one.frame:06d}"), count, _apart
    )
    figures = []
    for one in chosen:
        caption = (
            f"{one.sequence}, frame {one.frame}: {one.switched} switched, {one.missed} missed, {one.false} false"
        )
        image = load_image(images / one.sequence if images else None, f"{one.frame:06d}")
        drawn = scene(image, _drawn(evaluation, one), f"Sequence {one.sequence}", caption)
        figures.append(Figure((drawn,), caption))
    table = Table(
        "frame_errors",
        "Faults by frame, worst first",
        (
            Column("sequence", "Sequence"),
            Column("frame", "Frame", "d"),
            Column("switched", "Switched", "d"),
            Column("missed", "Missed", "d"),
            Column("false", "False", "d"),
        ),
        tuple((one.sequence, one.frame, one.switched, one.missed, one.false) for one in faults),
        on_page=False,
    )
    if not chosen:
        return Section("worst", "Worst frames", (Paragraph("No frame has a fault."), table))
    total = sum(evaluation.n_frames.values())
    intro = Paragraph(
        f"Frames with the most faults; {len(faults):,} of {total:,} frames have any. An id switch counts as "
        f"{SWITCH_COST} misses, and the frames shown are at least {APART} apart. "
        + ("Only frames that have an image are shown. " if only_with_image else "")
        + "Rest the pointer on a box to read it."
    )
    blocks: tuple[Block, ...] = (intro, Legend(SCENE_LEGEND), Gallery(tuple(figures), "wide"), table)
    return Section("worst", "Worst frames", blocks)


def _drawn(evaluation: TrackingEvaluation, fault: FrameFaults) -> list[DrawnBox]:
    drawn = []
    gt, results = evaluation.gt[fault.sequence].objects, evaluation.results[fault.sequence].objects
    for one in (s for s in evaluation.sequences.values() if s.name == fault.sequence):
        line = one.timeline
        for i in np.flatnonzero(line.frames == fault.frame):
            box = corners(gt.boxes_xyxy[line.gt_rows[i]])
            who, track = int(line.tracker_ids[i]), int(line.gt_ids[i])
            if who < 0:
                drawn.append(DrawnBox(box, "missed", f"{track}", f"missed {one.class_name}, track {track}"))
                continue
            result = corners(results.boxes_xyxy[line.tracker_rows[i]])
            drawn.append(DrawnBox(box, "truth", "", f"label {one.class_name}, track {track}"))
            words = f"{one.class_name} id {who} on track {track}, overlap {line.iou[i]:.2f}"
            if line.is_switch[i]:
                before = _before(line, int(i))
                drawn.append(DrawnBox(result, "switched", f"{before}→{who}", f"{words}; before: id {before}"))
            else:
                drawn.append(DrawnBox(result, "found", f"{who}", words))
        for i in np.flatnonzero(line.fp_frames == fault.frame):
            box = corners(results.boxes_xyxy[line.fp_rows[i]])
            who = int(line.fp_tracker_ids[i])
            drawn.append(DrawnBox(box, "false", f"{who}", f"false positive: {one.class_name}, id {who}"))
    return drawn
