"""The page of `perception explain`: maps over images, their checks, and where the evidence of each class lies."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from perception.arrays import F32, U8
from perception.files import write_atomically
from perception.formats.images import read_image
from perception.reports.images import Photo, data_uri
from perception.reports.report import Card, Column, Figure, Gallery, Paragraph, Report, Section, Table, Value
from perception.trust.explain import PARTS, Checks, evidence_shares
from perception.trust.explain_targets import Case

TITLES = {
    "missed": ("Missed", "What keeps the weak box that the network has there, if any."),
    "false": ("False alarms", "What makes the network report an object where none is labelled."),
    "found": ("Found", "What the network needs to report the object."),
    "road": ("Road", "What the road's confidence at the marked point depends on."),
}


@dataclass(frozen=True, eq=False)
class Explained:
    """A case with its map and checks."""

    case: Case
    found_map: F32
    checks: Checks

    @property
    def empty(self) -> bool:
        """The network reports nothing there, whatever is hidden: there is no map to check."""
        return self.checks.insertion == 0 and bool(self.found_map.std() == 0)


def _file_of(folder: Path, key: str, cases: Sequence[Case]) -> Path:
    targets = [(case.frame, case.target.kind, case.target.class_id, case.target.box_xyxy.tolist()) for case in cases]
    digest = hashlib.sha256(repr((key, targets)).encode()).hexdigest()[:16]
    return folder / f"{cases[0].frame[:40]}-{digest}.npz"


def save_explained(folder: Path, key: str, done: Sequence[Explained]) -> None:
    """Keep the maps of one image, so that a run that ends early is continued."""
    packed = BytesIO()
    checks = np.array([list(asdict(one.checks).values()) for one in done], np.float64)
    np.savez_compressed(packed, maps=np.stack([one.found_map for one in done]), checks=checks)
    write_atomically(_file_of(folder, key, [one.case for one in done]), packed.getvalue())


def load_explained(folder: Path, key: str, cases: Sequence[Case]) -> list[Explained] | None:
    """Read the maps of one image; None where they are not there or not whole."""
    path = _file_of(folder, key, cases)
    try:
        with np.load(path, allow_pickle=False) as stored:
            maps, checks = stored["maps"], stored["checks"]
    except (OSError, ValueError, KeyError):
        return None
    if len(maps) != len(cases) or checks.shape != (len(cases), 4):
        return None
    return [
        Explained(case, one, Checks(row[0], row[1], bool(row[2]), row[3]))
        for case, one, row in zip(cases, maps, checks, strict=True)
    ]


def explain_report(done: Sequence[Explained], class_names: Sequence[str], facts: Mapping[str, Value]) -> Report:
    """Build the report."""
    sections = []
    for kind, (title, words) in TITLES.items():
        own = [one for one in done if one.case.target.kind == kind]
        if own:
            figures = tuple(_figure(one, class_names) for one in own)
            sections.append(Section(kind, title, (Paragraph(words), Gallery(figures, "wide"))))
    sections += [_checks(done, class_names), _evidence(done, class_names)]
    boxes = [one for one in done if one.case.target.kind != "road" and not one.empty]
    pointing = sum(one.checks.pointing for one in boxes)
    doubtful = sum(one.checks.meaningless for one in done)
    return Report(
        task="explain",
        title="What the network looks at",
        facts={**facts, "maps": len(done)},
        cards=(
            Card("Pointing game", f"{pointing} of {len(boxes)}", "maps peak inside their box"),
            Card("Meaningless", str(doubtful), "maps that stay when weights are shuffled"),
        ),
        sections=tuple(sections),
        warnings=tuple(
            f"{_name(one, class_names)}: the map stays when the weights are shuffled: it says nothing of the network"
            for one in done
            if one.checks.meaningless
        ),
    )


def _name(one: Explained, class_names: Sequence[str]) -> str:
    target = one.case.target
    what = "road" if target.kind == "road" else class_names[target.class_id]
    return f"{one.case.frame}: {target.kind} {what}" if target.kind != "road" else f"{one.case.frame}: road"


def _figure(one: Explained, class_names: Sequence[str]) -> Figure:
    target = one.case.target
    score = f", score {target.score:.2f}" if target.score else ""
    checks = one.checks
    words = f"{_name(one, class_names)}{score}. Deletion {checks.deletion:.2f}, insertion {checks.insertion:.2f}"
    if not math.isnan(checks.shuffled):
        words += f", shuffled weights {checks.shuffled:+.2f}"
    if one.empty:
        words = f"{_name(one, class_names)}. No box of the class overlaps it, whatever is hidden"
    if checks.meaningless:
        words += " – meaningless"
    return Figure((Photo(data_uri(painted(one)), words),), words)


def painted(one: Explained) -> U8:
    """The image with its map in colour, red where the evidence is, and the target in white."""
    image = read_image(one.case.image)
    low, high = (float(v) for v in np.percentile(one.found_map, (50, 99.9)))
    share = np.clip((one.found_map - low) / max(high - low, 1e-6), 0, 1)
    heat = cv2.resize((share * 255).astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colour = cv2.applyColorMap(heat, cv2.COLORMAP_TURBO)
    weight = (0.15 + 0.5 * heat.astype(np.float32) / 255)[..., None]
    out = (image * (1 - weight) + colour * weight).astype(np.uint8)
    left, top, right, bottom = (round(float(v)) for v in one.case.target.box_xyxy)
    if one.case.target.kind == "road":
        cv2.drawMarker(out, (left, top), (255, 255, 255), cv2.MARKER_CROSS, 24, 3)
    else:
        cv2.rectangle(out, (left, top), (right, bottom), (255, 255, 255), 2)
    return np.asarray(out, np.uint8)


def _checks(done: Sequence[Explained], class_names: Sequence[str]) -> Section:
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (
            _name(one, class_names),
            one.case.target.score,
            *((None,) * 4 if one.empty else list(asdict(one.checks).values())),
            one.checks.meaningless,
        )
        for one in done
    )
    table = Table(
        "checks",
        "Checks of the maps",
        (
            Column("target", "Target"),
            Column("score", "Score", ".2f"),
            Column(
                "deletion", "Deletion", ".3f", "area under the strength as salient pixels are blurred; low is good"
            ),
            Column("insertion", "Insertion", ".3f", "as salient pixels are shown in a blurred image; high is good"),
            Column("pointing", "Peak inside"),
            Column("shuffled", "Shuffled", "+.2f", "rank correlation with the map of shuffled weights"),
            Column("meaningless", "Meaningless"),
        ),
        rows,
        note="The strength is the overlap times the score of the best box, for the road the confidence. A row "
        "without checks has no map: no box of the class overlaps the object, whatever is hidden.",
    )
    return Section("checks", "Checks", (table,))


def evidence_by_class(
    done: Sequence[Explained], class_names: Sequence[str]
) -> dict[str, tuple[int, dict[str, float]]]:
    """Mean share of the evidence in each part, by class: of found objects with maps that mean something."""
    shares: dict[str, list[dict[str, float]]] = {}
    for one in done:
        target = one.case.target
        if target.kind == "found" and not one.checks.meaningless:
            size_hw = read_image(one.case.image).shape[:2]
            if (found := evidence_shares(one.found_map, target.box_xyxy, size_hw)) is not None:
                shares.setdefault(class_names[target.class_id], []).append(found)
    return {
        name: (len(own), {part: float(np.mean([one[part] for one in own])) for part in PARTS})
        for name, own in shares.items()
    }


def _evidence(done: Sequence[Explained], class_names: Sequence[str]) -> Section:
    found = evidence_by_class(done, class_names)
    table = Table(
        "evidence",
        "Where the evidence lies, per cent",
        (
            Column("class", "Class"),
            Column("objects", "Objects", "d"),
            *(Column(part, part.capitalize(), ".0f") for part in PARTS),
        ),
        tuple((name, count, *(100 * shares[part] for part in PARTS)) for name, (count, shares) in found.items()),
        note="Of found objects, within three times the box; evidence is what exceeds the map's median. The box "
        "itself is a ninth of that area. A share below it that is much larger than above it means the ground and the "
        "shadow help.",
    )
    return Section("evidence", "Evidence", (table,))


def explain_text(done: Sequence[Explained], class_names: Sequence[str]) -> str:
    """The checks for a terminal."""
    lines = [f"{'':<44}{'score':>7}{'deletion':>10}{'insertion':>11}{'peak in':>9}{'shuffled':>10}"]
    for one in done:
        checks = one.checks
        if one.empty:
            lines.append(f"{_name(one, class_names)[:43]:<44}{one.case.target.score:>7.2f}  nothing there to explain")
            continue
        shuffled = "–" if math.isnan(checks.shuffled) else f"{checks.shuffled:+.2f}"
        mark = "  meaningless" if checks.meaningless else ""
        lines.append(
            f"{_name(one, class_names)[:43]:<44}{one.case.target.score:>7.2f}{checks.deletion:>10.3f}"
            f"{checks.insertion:>11.3f}{'yes' if checks.pointing else 'no':>9}{shuffled:>10}{mark}"
        )
    for name, (count, shares) in evidence_by_class(done, class_names).items():
        parts = ", ".join(f"{part} {100 * share:.0f} %" for part, share in shares.items())
        lines.append(f"evidence for {name} ({count}): {parts}")
    return "\n".join(lines)
