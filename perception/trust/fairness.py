"""Whom a network misses more often: miss rates of people by stratum, matched, with intervals over drives.

People far away are small, and small people are missed more often; a raw gap is not unfairness. So each stratum is
also compared with the reference stratum at the same height and occlusion: within each cell of both, weighted as the
stratum is distributed (coarsened exact matching, Iacus et al. 2012).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from perception.arrays import F64, I64, U8
from perception.boxes import iou
from perception.errors import UserError
from perception.evaluation.bootstrap import RESAMPLES, Difference, holm, judge, paired_draws
from perception.files import read_text
from perception.formats.kitti import UNKNOWN_LOCATION, ObjectRows

POSES = {"pedestrian": "walking", "cyclist": "riding", "person_sitting": "sitting"}
"""KITTI's classes of people. A detection as any of them finds a person: the question is who is seen at all."""
MIN_IOU = 0.5
SMALLEST_PX = 25.0
FEWEST_PEOPLE, FEWEST_DRIVES = 10, 3
"""A stratum with fewer is shown without a verdict."""
MOST_ROWS = 1_000_000
HEIGHTS = ((25.0, "25–50 px"), (50.0, "50–100 px"), (100.0, "from 100 px"))
DISTANCES = ((0.0, "to 10 m"), (10.0, "10–20 m"), (20.0, "20–40 m"), (40.0, "from 40 m"))
LIGHTS = ((0.0, "dark (mean to 60)"), (60.0, "middle (60–110)"), (110.0, "bright (from 110)"))
CONTRASTS = ((0.0, "low (to 0.05)"), (0.05, "middle (0.05–0.2)"), (0.2, "high (from 0.2)"))
OCCLUSIONS = {0: "visible", 1: "partly hidden", 2: "largely hidden"}
MATCHED = ("height", "occlusion")
"""Attributes at whose values strata of the others are compared."""


@dataclass(frozen=True)
class Person:
    """One labelled person: whether it was found, and its values by attribute; an unknown value is absent."""

    frame: str
    row: int
    found: bool
    values: Mapping[str, str]


@dataclass(frozen=True)
class Stratum:
    """One value of an attribute."""

    attribute: str
    value: str
    people: int
    missed: int
    drives: int

    @property
    def miss_rate(self) -> float:
        return self.missed / self.people if self.people else float("nan")


@dataclass(frozen=True)
class Gap:
    """A stratum against the reference stratum of its attribute, in points of the miss rate."""

    stratum: Stratum
    reference: str
    raw: Difference
    matched: Difference | None
    """None where no person of the reference has the same height and occlusion."""
    matched_people: int
    """People of the stratum that have a counterpart."""
    verdict: str
    """'more', 'less', 'perhaps', 'not shown' or 'too few', by the matched difference where there is one."""


@dataclass(frozen=True)
class Fairness:
    """Strata and gaps."""

    people: int
    missed: int
    drives: int
    strata: tuple[Stratum, ...]
    gaps: tuple[Gap, ...]


# ---------------------------------------------------------------- people


def people_of_frame(
    frame: str, labels: ObjectRows, results: ObjectRows, threshold: float, image_bgr: U8 | None = None
) -> list[Person]:
    """List the labelled people of a frame from `SMALLEST_PX` on, and whether each was found.

    Args:
        frame: its name.
        labels: label rows; people in a DontCare region count.
        results: result rows with scores.
        threshold: lowest score of a detection that counts.
        image_bgr: the image, for light and contrast; None leaves them out.
    """
    names = [name.lower() for name in labels.names]
    rows = [i for i, name in enumerate(names) if name in POSES]
    rows = [i for i in rows if labels.boxes_xyxy[i, 3] - labels.boxes_xyxy[i, 1] >= SMALLEST_PX]
    scores = np.ones(len(results)) if results.scores is None else results.scores
    is_person = np.array([name.lower() in POSES for name in results.names], bool)
    found_boxes = results.boxes_xyxy[is_person & (scores >= threshold)]
    overlaps = iou(labels.boxes_xyxy[rows], found_boxes)  # (N, M)
    found = assigned(overlaps)
    grey = None if image_bgr is None else cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    return [Person(frame, row, bool(found[i]), _values(labels, row, names[row], grey)) for i, row in enumerate(rows)]


def assigned(overlaps: np.ndarray) -> np.ndarray:
    """Match greedily by overlap; returns whether each row has a partner, (N,) bool."""
    free = np.where(overlaps >= MIN_IOU, overlaps, 0.0)
    found = np.zeros(len(overlaps), bool)
    while free.size and free.max() > 0:
        row, column = np.unravel_index(int(free.argmax()), free.shape)
        found[row] = True
        free[row, :] = free[:, column] = 0
    return found


def _values(labels: ObjectRows, row: int, name: str, grey: U8 | None) -> dict[str, str]:
    box = labels.boxes_xyxy[row]
    values = {"pose": POSES[name], "height": _bin(float(box[3] - box[1]), HEIGHTS)}
    if (occlusion := int(labels.occlusion[row])) in OCCLUSIONS:
        values["occlusion"] = OCCLUSIONS[occlusion]
    if (truncation := float(labels.truncation[row])) >= 0:
        values["truncation"] = "whole" if truncation == 0 else "to 30 %" if truncation <= 0.3 else "over 30 %"
    location = labels.location_cam2[row]
    if (location > UNKNOWN_LOCATION).all():
        values["distance"] = _bin(float(np.hypot(location[0], location[2])), DISTANCES)
    if grey is not None:
        values |= _light(grey, box)
    return values


def _bin(value: float, bins: Sequence[tuple[float, str]]) -> str:
    return [name for edge, name in bins if value >= edge][-1]


def _light(grey: U8, box: F64) -> dict[str, str]:
    """Brightness of the image, and contrast of a person to a ring around it (Michelson's)."""
    left, top, right, bottom = (round(float(v)) for v in box)
    height, width = grey.shape
    pad_x, pad_y = max(2, (right - left) // 3), max(2, (bottom - top) // 6)
    inside = grey[max(0, top) : bottom, max(0, left) : right]
    outer = grey[max(0, top - pad_y) : min(height, bottom + pad_y), max(0, left - pad_x) : min(width, right + pad_x)]
    ring = float(outer.sum(dtype=np.float64)) - float(inside.sum(dtype=np.float64))
    if not inside.size or outer.size <= inside.size:
        return {}
    own, around = float(inside.mean()), ring / (outer.size - inside.size)
    contrast = abs(own - around) / max(own + around, 1.0)
    light = float(grey.mean())
    return {"light": _bin(light, LIGHTS), "contrast": _bin(contrast, CONTRASTS)}


def read_attributes(path: Path) -> dict[tuple[str, int], dict[str, str]]:
    """Read further attributes: CSV with the columns frame, object, attribute, value.

    `object` is the number of the row in the frame's label file, from 0.

    Raises:
        UserError: another form, with its line.
    """
    expected = "rows like 000042,3,age,child under the heading frame,object,attribute,value"
    lines = csv.reader(io.StringIO(read_text(path, expected, "--attributes FILE.csv", 64 << 20)))
    found: dict[tuple[str, int], dict[str, str]] = {}
    for i, row in enumerate(lines, 1):
        cells = [cell.strip() for cell in row]
        if i == 1:
            if cells != ["frame", "object", "attribute", "value"]:
                raise UserError(f"{path}:1: found {','.join(cells)[:80]!r}", expected)
            continue
        if not any(cells):
            continue
        if len(cells) != 4 or not cells[1].isdecimal() or len(cells[1]) > 6 or not all(cells) or i > MOST_ROWS:
            raise UserError(f"{path}:{i}: found {','.join(cells)[:80]!r}", expected)
        if not all(cell.isprintable() and len(cell) <= 64 for cell in cells):
            raise UserError(f"{path}:{i}: a text that is too long or not printable", expected)
        found.setdefault((cells[0], int(cells[1])), {})[cells[2]] = cells[3]
    return found


def with_attributes(
    people: Iterable[Person], attributes: Mapping[tuple[str, int], Mapping[str, str]]
) -> tuple[list[Person], int]:
    """Add attributes to people; returns them, and how many entries belong to nobody who counts."""
    people = list(people)
    known = {(person.frame, person.row) for person in people}
    added = [
        replace(person, values={**person.values, **attributes.get((person.frame, person.row), {})})
        for person in people
    ]
    return added, len(set(attributes) - known)


# ---------------------------------------------------------------- comparison


def compare_strata(
    people: Sequence[Person],
    drives: Mapping[str, str],
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Fairness:
    """Compare each stratum with the largest one of its attribute.

    Args:
        people: everybody who counts.
        drives: frame → drive; frames without one are drives of their own.
        resamples: draws of the bootstrap, which draws whole drives.
        seed: of the draws.
        progress: called with finished attributes and their number.
    """
    names = sorted({drives.get(person.frame, person.frame) for person in people})
    units = np.array([names.index(drives.get(person.frame, person.frame)) for person in people], np.int64)
    missed = np.array([not person.found for person in people], np.float64)
    cells = _numbered([tuple(person.values.get(name, "") for name in MATCHED) for person in people])
    attributes = list(dict.fromkeys(name for person in people for name in person.values))
    strata: list[Stratum] = []
    gaps: list[Gap] = []
    for i, attribute in enumerate(attributes):
        values = np.array([person.values.get(attribute, "") for person in people], dtype=object)
        own = [_stratum(attribute, value, values == value, missed, units) for value in sorted(set(values) - {""})]
        strata += own
        reference = max(own, key=lambda one: one.people)
        within = cells
        if attribute in MATCHED:  # at the same value of the other one only
            other = next(name for name in MATCHED if name != attribute)
            within = _numbered([(person.values.get(other, ""),) for person in people])
        for one in own:
            if one is not reference:
                groups = values == reference.value, values == one.value
                gaps.append(_gap(one, reference, groups, missed, units, within, resamples, seed))
        progress(i + 1, len(attributes))
    return Fairness(len(people), int(missed.sum()), len(names), tuple(strata), tuple(_corrected(gaps)))


def _numbered(keys: Sequence[tuple[str, ...]]) -> I64:
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([index[key] for key in keys], np.int64)


def _stratum(attribute: str, value: str, chosen: np.ndarray, missed: F64, units: I64) -> Stratum:
    return Stratum(attribute, value, int(chosen.sum()), int(missed[chosen].sum()), len(np.unique(units[chosen])))


def _gap(
    stratum: Stratum,
    reference: Stratum,
    groups: tuple[np.ndarray, np.ndarray],
    missed: F64,
    units: I64,
    cells: I64,
    resamples: int,
    seed: int,
) -> Gap:
    name = f"{stratum.attribute}: {stratum.value}"
    raw = _difference(name, groups, missed, units, np.zeros_like(cells), resamples, seed)
    shared = np.isin(cells, np.intersect1d(cells[groups[0]], cells[groups[1]]))
    matched_people = int((shared & groups[1]).sum())
    matched = None
    if matched_people:
        both = groups[0] & shared, groups[1] & shared
        matched = _difference(name, both, missed, units, cells, resamples, seed)
    enough = min(stratum.people, reference.people, matched_people) >= FEWEST_PEOPLE
    enough &= min(stratum.drives, reference.drives) >= FEWEST_DRIVES
    return Gap(stratum, reference.value, raw, matched, matched_people, "" if enough else "too few")


def _difference(
    name: str,
    groups: tuple[np.ndarray, np.ndarray],
    missed: F64,
    units: I64,
    cells: I64,
    resamples: int,
    seed: int,
) -> Difference:
    """Miss rates of both groups, standardised to the cells of the second one, and their bootstrap."""
    count = int(cells.max(initial=0)) + 1
    one_hot = np.zeros((len(cells), count))
    one_hot[np.arange(len(cells)), cells] = 1

    def rate(group: np.ndarray) -> Callable[[I64], F64]:
        def score(weights: I64) -> F64:
            weight = weights.astype(np.float64)  # (R, N), one weight a person
            first, second = ((weight * mask) @ one_hot for mask in groups)  # (R, C) people
            usable = np.where((first > 0) & (second > 0), second, 0.0)
            own = (weight * group) @ one_hot
            lost = (weight * group * missed) @ one_hot
            rates = np.divide(lost, own, out=np.zeros_like(lost), where=own > 0)
            total = usable.sum(axis=1)
            share = np.divide((rates * usable).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
            return 100 * share[:, None]

        return score

    scores = rate(groups[0]), rate(groups[1])
    whole = np.ones((1, len(units)), np.int64)
    points = [float(score(whole)[0, 0]) for score in scores]
    draws = paired_draws(*scores, units, resamples, seed)
    return judge([name], points[:1], points[1:], *draws)[0]


def _corrected(gaps: Sequence[Gap]) -> list[Gap]:
    """Give verdicts, with Holm's correction over all gaps that have enough people."""
    judged = [gap for gap in gaps if not gap.verdict]
    chosen = [gap.matched or gap.raw for gap in judged]
    verdicts = {}
    for gap, one, p in zip(judged, chosen, holm([one.p for one in chosen]), strict=True):
        excludes = one.low > 0 or one.high < 0
        sign = "more" if one.difference > 0 else "less"
        verdicts[id(gap)] = (sign if p < 0.05 else "perhaps") if excludes else "not shown"
    return [replace(gap, verdict=verdicts.get(id(gap), gap.verdict)) for gap in gaps]
