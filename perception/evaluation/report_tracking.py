"""The report of a tracking evaluation: scores, HOTA over α, who was followed by which id, and the worst frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.evaluation.object_analysis import BINS, Bin, wilson
from perception.evaluation.pictures import DrawnBox, corners, load_picture, pictured, scene
from perception.evaluation.plots import Axis, Series, Span, TimelineRow, interval_bars, line_plot, timeline
from perception.evaluation.report import (
    Block,
    Card,
    Column,
    Figure,
    Gallery,
    Legend,
    Paragraph,
    Report,
    Section,
    Table,
    Value,
    legend_of,
)
from perception.evaluation.results import ALPHAS, TrackingEvaluation, TrackingSequence
from perception.evaluation.tracking_evidence import TrackingEvidence

TIMELINES = 3
"""Sequences shown for each class."""
TIMELINE_ROWS = 20
"""Tracks shown for each sequence."""
APART = 10
"""Frames between two pictures of one sequence in the gallery: neighbours show the same fault."""
SWITCH_COST = 3
"""A switched id counts as this many misses when frames are ranked: it is rare, and it is what a tracker is for."""

MEASURES = (
    ("HOTA", "%"),
    ("DetA", "%"),
    ("AssA", "%"),
    ("LocA", "%"),
    ("MOTA", "%"),
    ("MOTP", "%"),
    ("IDF1", "%"),
    ("CLR_Pr", "%"),
    ("CLR_Re", "%"),
    ("CLR_F1", "%"),
    ("IDSW", "n"),
    ("Frag", "n"),
    ("MT", "n"),
    ("PT", "n"),
    ("ML", "n"),
    ("CLR_TP", "n"),
    ("CLR_FP", "n"),
    ("CLR_FN", "n"),
)
EXPLAINED = {
    "HOTA": "higher order tracking accuracy: geometric mean of DetA and AssA, over 19 overlaps",
    "DetA": "detection accuracy",
    "AssA": "association accuracy: does one id stay with one object",
    "LocA": "overlap of what is matched",
    "MOTA": "1 − (misses + false alarms + switches) / labels",
    "MOTP": "overlap of what is matched, at 0.5",
    "IDF1": "F1 of the best one-to-one assignment of ids",
    "CLR_Pr": "precision at overlap 0.5",
    "CLR_Re": "recall at overlap 0.5",
    "CLR_F1": "F1 at overlap 0.5",
    "IDSW": "id switches",
    "Frag": "interruptions of a track",
    "MT": "tracks followed for at least 80 % of their life",
    "PT": "tracks followed for 20 to 80 %",
    "ML": "tracks followed for less than 20 %",
    "CLR_TP": "hits at overlap 0.5",
    "CLR_FP": "false alarms",
    "CLR_FN": "misses",
}
BY_SEQUENCE = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "Frag", "CLR_FP", "CLR_FN")
SCENE_LEGEND = (
    ("truth", "label that was found"),
    ("found", "right result, with its id"),
    ("missed", "missed label"),
    ("switched", "id switched here: old → new"),
    ("false", "false alarm, with its id"),
)


def tracking_report(
    evaluation: TrackingEvaluation,
    *,
    images: Path | None = None,
    facts: Mapping[str, Value] | None = None,
    gallery: int = 12,
) -> Report:
    """Build the report.

    Args:
        images: folder with one folder of pictures for each sequence (KITTI's `image_02`).
        facts: what else to say about the run (folders, tracker, model).
        gallery: how many of the worst frames are shown.
    """
    all_facts: dict[str, Value] = {
        **(facts or {}),
        "sequences": len(evaluation.n_frames),
        "frames": sum(evaluation.n_frames.values()),
        "label rows": sum(len(rows) for rows in evaluation.gt.values()),
        "result rows": sum(len(rows) for rows in evaluation.results.values()),
    }
    if evaluation.missing_sequences:
        all_facts["sequences without results, counted as empty"] = len(evaluation.missing_sequences)
    cards = []
    for name, score in evaluation.combined.items():
        cards.append(Card(f"{name} HOTA", f"{100 * score.values['HOTA']:.2f}", "%"))
        cards.append(Card(f"{name} MOTA", f"{100 * score.values['MOTA']:.2f}", "%"))
        cards.append(Card(f"{name} id switches", f"{score.values['IDSW']:.0f}"))
    return Report(
        task="tracking",
        title="KITTI tracking",
        facts=all_facts,
        cards=tuple(cards),
        sections=(
            _scores(evaluation),
            _over_alpha(evaluation),
            _sequences(evaluation),
            _timelines(evaluation),
            _splits(evaluation),
            _gallery(evaluation, images, gallery),
        ),
        warnings=evaluation.warnings,
        evidence=TrackingEvidence.of(evaluation).arrays(),
    )


def _of_class(evaluation: TrackingEvaluation, class_name: str) -> list[TrackingSequence]:
    return [one for one in evaluation.sequences.values() if one.class_name == class_name]


# ---------------------------------------------------------------- scores


def _scores(evaluation: TrackingEvaluation) -> Section:
    rows = []
    for measure, kind in MEASURES:
        values: list[Value] = []
        for score in evaluation.combined.values():
            value = score.values[measure]
            values.append(f"{100 * value:.2f}" if kind == "%" else f"{value:.0f}")
        rows.append((measure, *values, EXPLAINED[measure]))
    shown = Table(
        "summary",
        "Combined over all sequences",
        (
            Column("measure", "Measure"),
            *(Column(name.lower(), name, "s") for name in evaluation.combined),
            Column("meaning", "What it is"),
        ),
        tuple(rows),
        note="Shares in per cent, the rest are counts. Precision, recall and F1 are at an overlap of 0.5, "
        "over all that the tracker gave out: it has no score threshold left to choose.",
    )
    every = Table(
        "scores",
        "Every number, as fractions and counts",
        (Column("class", "Class"), Column("measure", "Measure"), Column("value", "Value", ".6g")),
        tuple(
            (name, measure, float(value))
            for name, score in evaluation.combined.items()
            for measure, value in score.values.items()
        ),
        folded=True,
    )
    return Section("scores", "Scores", (shown, every))


def _over_alpha(evaluation: TrackingEvaluation) -> Section:
    figures: list[Figure] = []
    rows: list[tuple[Value, ...]] = []
    names = ("HOTA", "DetA", "AssA")
    for class_name, score in evaluation.combined.items():
        series = [
            Series(name, np.stack([ALPHAS, score.by_alpha[name]], axis=1), style, dots=True)
            for style, name in enumerate(names)
        ]
        means = ", ".join(f"{name} {100 * float(np.mean(score.by_alpha[name])):.2f} %" for name in names)
        figures.append(
            Figure(
                line_plot(
                    f"{class_name}: HOTA, DetA and AssA over α",
                    f"Means over α: {means}.",
                    series,
                    Axis("overlap α that counts as a match"),
                    Axis("share"),
                ),
                f"{class_name}. Means: {means}.",
                legend_of(names),
            )
        )
        for i, alpha in enumerate(ALPHAS):
            rows.append((class_name, round(float(alpha), 2), *(float(score.by_alpha[name][i]) for name in names)))
    table = Table(
        "over_alpha",
        "HOTA, DetA and AssA over α",
        (Column("class", "Class"), Column("alpha", "α", ".2f"), *(Column(n.lower(), n, ".4f") for n in names)),
        tuple(rows),
        folded=True,
    )
    intro = Paragraph(
        "Where the curve falls late, boxes are tight. DetA below AssA: the detector holds the score down. AssA below "
        "DetA: ids do."
    )
    return Section("alpha", "HOTA over α", (intro, Gallery(tuple(figures)), table))


def _sequences(evaluation: TrackingEvaluation) -> Section:
    figures: list[Figure] = []
    rows: list[tuple[Value, ...]] = []
    for class_name in evaluation.combined:
        bars = []
        for one in _of_class(evaluation, class_name):
            values = one.score.values
            rows.append((class_name, one.name, *(float(values[measure]) for measure in BY_SEQUENCE)))
            if one.sizes.gt_dets:
                bars.append((one.name, float(values["HOTA"]), np.nan, np.nan, f"{values['IDSW']:.0f} switched"))
        worst = min(bars, key=lambda bar: bar[1], default=("none", 0.0))
        figures.append(
            Figure(
                interval_bars(
                    f"{class_name}: HOTA by sequence", f"Lowest: {worst[0]} with {worst[1]:.3f}.", bars, Axis("HOTA")
                ),
                f"{class_name}: HOTA of each sequence, and how many ids switched in it.",
            )
        )
    table = Table(
        "sequences",
        "By sequence, fractions and counts",
        (
            Column("class", "Class"),
            Column("sequence", "Sequence"),
            *(Column(m.lower(), m, ".4f" if dict(MEASURES)[m] == "%" else ".0f", EXPLAINED[m]) for m in BY_SEQUENCE),
        ),
        tuple(rows),
        folded=True,
    )
    return Section("sequences", "Sequences", (Gallery(tuple(figures)), table))


# ---------------------------------------------------------------- time lines


def timeline_rows(one: TrackingSequence, limit: int = TIMELINE_ROWS) -> list[TimelineRow]:
    """One row for each ground truth track: most switches first, then most misses."""
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
    """Runs of consecutive frames with one tracker id; colours in order of first appearance."""
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


def _timelines(evaluation: TrackingEvaluation) -> Section:
    figures, rows = [], []
    for class_name in evaluation.combined:
        sequences = _of_class(evaluation, class_name)
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
            more = f"; {hidden} tracks with fewer faults are not drawn" if hidden else ""
            faults = f"{one.clear.idsw} id switches, {one.clear.frag} interruptions"
            caption = f"{class_name}, sequence {one.name}: {faults}{more}."
            figures.append(
                Figure(
                    timeline(f"{class_name}, sequence {one.name}", caption, tracks, evaluation.n_frames[one.name]),
                    caption,
                    scrolls=True,
                )
            )
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
        "One row for each labelled track. A colour is one id of the tracker (rest the pointer on it to read which), "
        "a thin grey line is time in which nobody followed, and a mark is where the id switched. "
        f"The {TIMELINES} sequences with the most switches are drawn for each class."
    )
    legend = Legend((("s0", "followed"), ("gap", "not followed"), ("switch", "id switched")))
    return Section("timelines", "Ids over time", (intro, legend, Gallery(tuple(figures), "full"), table))


def _before(line, i: int) -> int:  # type: ignore[no-untyped-def]
    """The id that followed the same track the last time before entry i."""
    earlier = np.flatnonzero(
        (line.gt_ids == line.gt_ids[i]) & (line.frames < line.frames[i]) & (line.tracker_ids >= 0)
    )
    return int(line.tracker_ids[earlier[np.argmax(line.frames[earlier])]]) if len(earlier) else -1


# ---------------------------------------------------------------- splits


def _splits(evaluation: TrackingEvaluation) -> Section:
    figures, rows = [], []
    # a cut off object (truncation above 0) is not judged in tracking
    bins: dict[str, tuple[Bin, ...]] = {name: BINS[name] for name in ("distance", "height", "occlusion")}
    bins["height"] = (Bin("below 25 px", -np.inf, 25), *bins["height"])
    for class_name in evaluation.combined:
        for quantity, of_quantity in bins.items():
            values, hit, switched = _judged(evaluation, class_name, quantity)
            bars = []
            for one in of_quantity:
                inside = (values >= one.low) & (values < one.high)
                found, count, switches = int(hit[inside].sum()), int(inside.sum()), int(switched[inside].sum())
                low, high = wilson(found, count)
                recall = found / count if count else float("nan")
                rows.append((class_name, quantity, one.label, found, count - found, recall, switches))
                bars.append((one.label.replace(" and more", "+"), recall, low, high, f"{count:,}"))
            figures.append(
                Figure(
                    interval_bars(
                        f"{class_name}: recall by {quantity}",
                        "; ".join(f"{bar[0]}: {bar[1]:.2f} of {bar[4]}" for bar in bars),
                        bars,
                        Axis("recall"),
                    ),
                    f"{class_name} by {quantity}",
                )
            )
    table = Table(
        "splits",
        "Hits, misses and switches by distance, box height and occlusion",
        (
            Column("class", "Class"),
            Column("by", "By"),
            Column("bin", "Bin"),
            Column("found", "Found", "d"),
            Column("missed", "Missed", "d"),
            Column("recall", "Recall", ".3f"),
            Column("switches", "Id switches", "d"),
        ),
        tuple(rows),
        folded=True,
    )
    intro = Paragraph("Recall at an overlap of 0.5 over the labels that are judged; how many at the right.")
    return Section("splits", "Where objects are missed", (intro, Gallery(tuple(figures)), table))


def _judged(
    evaluation: TrackingEvaluation, class_name: str, quantity: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The quantity, hit and switch of every judged label of a class."""
    values, hit, switched = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0, bool)]
    for one in _of_class(evaluation, class_name):
        objects, rows = evaluation.gt[one.name].objects, one.timeline.gt_rows
        if quantity == "distance":
            values.append(objects.location_cam2[rows, 2])
        elif quantity == "height":
            values.append(objects.boxes_xyxy[rows, 3] - objects.boxes_xyxy[rows, 1])
        else:
            values.append(objects.occlusion[rows].astype(np.float64))
        hit.append(one.timeline.tracker_ids >= 0)
        switched.append(one.timeline.is_switch)
    return np.concatenate(values), np.concatenate(hit), np.concatenate(switched)


# ---------------------------------------------------------------- the gallery


@dataclass(frozen=True)
class FrameFaults:
    """What went wrong in one frame, both classes together."""

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
    """The same without frames that lie close to a worse one."""
    kept: list[FrameFaults] = []
    taken: dict[str, list[int]] = {}
    for one in faults:
        near = taken.setdefault(one.sequence, [])
        if all(abs(one.frame - frame) > APART for frame in near):
            near.append(one.frame)
            kept.append(one)
    return kept


def _gallery(evaluation: TrackingEvaluation, images: Path | None, count: int) -> Section:
    faults = frame_faults(evaluation)
    chosen, only_pictured = pictured(
        faults, lambda one: (images / one.sequence if images else None, f"{one.frame:06d}"), count, _apart
    )
    figures = []
    for one in chosen:
        caption = (
            f"{one.sequence}, frame {one.frame}: {one.switched} switched, {one.missed} missed, {one.false} false"
        )
        picture = load_picture(images / one.sequence if images else None, f"{one.frame:06d}")
        figures.append(Figure(scene(picture, _boxes(evaluation, one), f"Sequence {one.sequence}", caption), caption))
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
        f"Frames with the most faults ({len(faults):,} of {total:,} have any), a switched id counting as "
        f"{SWITCH_COST} misses, at least {APART} frames apart. "
        + ("Only frames that have a picture are shown. " if only_pictured else "")
        + "Rest the pointer on a box to read it."
    )
    blocks: tuple[Block, ...] = (intro, Legend(SCENE_LEGEND), Gallery(tuple(figures), "wide"), table)
    return Section("worst", "Worst frames", blocks)


def _boxes(evaluation: TrackingEvaluation, fault: FrameFaults) -> list[DrawnBox]:
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
            drawn.append(DrawnBox(box, "false", f"{who}", f"false alarm: {one.class_name}, id {who}"))
    return drawn
