"""The list of chosen frames, and a page that shows them with their reasons."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets.labelling.looking import Seen
from datasets.labelling.selecting import Selection
from datasets.labelling.signals import FAINT, FIRM, Signals
from perception.files import write_atomically
from perception.formats.images import read_image_or_none
from perception.labelling.committee import Committee
from perception.reports.images import DrawnBox, corners, scene
from perception.reports.report import Card, Column, Figure, Gallery, Legend, Report, Section, Table
from perception.reports.write import write_report

MOST_SHOWN = 200
"""Frames on the page; the list has all."""
BOX_COLOURS = (("found", f"boxes of score {FIRM:g} and more"), ("missed", "doubtful boxes"))


def write_list(out: Path, pool: Sequence[Seen], chosen: Selection, found: Signals) -> None:
    """Write `selected.txt`, one image file a line, and `selected.json` with the reasons and signals of each."""
    rows = []
    for number, one in enumerate(chosen.choices, 1):
        frame = pool[one.index].frame
        rows.append(
            {
                "number": number,
                "name": frame.name,
                "image": str(frame.path),
                "drive": frame.drive,
                "reason": one.reason,
                "value": round(one.value, 4),
                "distance": None if math.isinf(one.distance) else round(one.distance, 4),
                "signals": {name: round(float(values[one.index]), 4) for name, values in found.values.items()},
            }
        )
    write_atomically(out / "selected.json", json.dumps(rows, indent=1))
    write_atomically(out / "selected.txt", "".join(f"{row['image']}\n" for row in rows))


def write_page(out: Path, pool: Sequence[Seen], chosen: Selection, committee: Committee, wanted: int) -> Path:
    """Write a page with the chosen frames, in order, into `out/page`; returns the page's path."""
    figures = []
    for number, one in enumerate(chosen.choices[:MOST_SHOWN], 1):
        seen = pool[one.index]
        fused = committee.fuse(seen.parts, seen.size_hw)
        boxes = [
            DrawnBox(corners(box), "found" if score >= FIRM else "missed", f"{score:.2f}", title)
            for box, score, title in zip(
                fused.boxes_xyxy,
                fused.scores.tolist(),
                [committee.class_names[k] for k in fused.class_ids.tolist()],
                strict=True,
            )
            if score >= FAINT
        ]
        words = f"{len(boxes)} boxes" if boxes else "no boxes"
        picture = scene(read_image_or_none(seen.frame.path), boxes, seen.frame.name, words)
        figures.append(Figure((picture,), f"{number}. {seen.frame.name}: {one.reason}"))
    drives = Counter(pool[one.index].frame.drive for one in chosen.choices)
    in_pool = Counter(one.frame.drive for one in pool)
    table = Table(
        "recordings",
        "Recordings",
        (Column("recording", "recording"), Column("chosen", "chosen", "d"), Column("pool", "in the pool", "d")),
        tuple((name, drives[name], count) for name, count in in_pool.items()),
    )
    shown = f", the first {MOST_SHOWN} shown" if len(chosen.choices) > MOST_SHOWN else ""
    report = Report(
        "select",
        "Frames to label next",
        {"frames in the pool": len(pool), "frames asked for": wanted},
        (
            Card("frames chosen", str(len(chosen.choices)), f"of {len(pool)}{shown}"),
            Card("recordings", f"{len(drives)} of {len(in_pool)}"),
            Card("near-copies left out", str(chosen.near_copies)),
        ),
        (
            Section(
                "frames",
                "Chosen frames, the most useful first",
                (Legend(BOX_COLOURS), Gallery(tuple(figures), "wide")),
            ),
            Section("drives", "Where they come from", (table,)),
        ),
    )
    return write_report(report, out / "page")
