"""CLEAR and HOTA as their papers state them, one loop per time step. Slow and plain: a check of the fast versions.

Input is one sequence as a list of frames; a frame is a pair of dicts from identity to box (left, top, right, bottom).
"""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
from scipy.optimize import linear_sum_assignment

Box = tuple[float, float, float, float]
Frames = list[tuple[dict[int, Box], dict[int, Box]]]
ALPHAS = [0.05 * k for k in range(1, 20)]
EPS = float(np.finfo("float").eps)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def best_pairs(
    gt: dict[int, Box], tracker: dict[int, Box], gain: dict[tuple[int, int], float]
) -> list[tuple[int, int]]:
    """The one-to-one pairing of highest total gain; pairs that gain nothing are left out."""
    matrix = np.array([[gain.get((g, t), 0.0) for t in tracker] for g in gt]).reshape(len(gt), len(tracker))
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    pairs = [(list(gt)[i], list(tracker)[j]) for i, j in zip(rows, columns, strict=True)]
    return [pair for pair in pairs if gain.get(pair, 0.0) > 0]


def clear(frames: Frames) -> dict[str, float]:
    """MOTA's counts: Bernardin and Stiefelhagen 2008, section 2.1.3, at an overlap of one half."""
    tp = fn = fp = switches = 0
    last_partner: dict[int, int] = {}  # of each ground truth, whenever it was matched last
    before: dict[int, int] = {}  # partners of the frame before
    for gt, tracker in frames:
        if not gt or not tracker:
            fn, fp = fn + len(gt), fp + len(tracker)
            continue
        # 1. keep partners of the frame before that still overlap; 2. pair the others by overlap
        gain = {(g, t): overlap(gt[g], tracker[t]) for g, t in product(gt, tracker)}
        gain = {
            pair: value + 1000 * (before.get(pair[0]) == pair[1])
            for pair, value in gain.items()
            if value >= 0.5 - EPS
        }
        pairs = best_pairs(gt, tracker, gain)
        # 3. count misses, false positives and switches
        switches += sum(last_partner.get(g, t) != t for g, t in pairs)
        tp, fn, fp = tp + len(pairs), fn + len(gt) - len(pairs), fp + len(tracker) - len(pairs)
        before = dict(pairs)
        last_partner |= before
    return {
        "CLR_TP": tp,
        "CLR_FN": fn,
        "CLR_FP": fp,
        "IDSW": switches,
        "MOTA": (tp - fp - switches) / max(1, tp + fn),
    }


def hota(frames: Frames) -> dict[str, list[float]]:
    """DetA, AssA and HOTA by alpha: Luiten et al. 2020, equations 6 to 15."""
    gt_count = Counter(g for gt, _ in frames for g in gt)
    tracker_count = Counter(t for _, tracker in frames for t in tracker)
    # how well two identities agree over the sequence, which guides the matching (section 5.2 and TrackEval)
    potential: Counter[tuple[int, int]] = Counter()
    for gt, tracker in frames:
        iou = {(g, t): overlap(gt[g], tracker[t]) for g, t in product(gt, tracker)}
        for (g, t), value in iou.items():
            rest = sum(iou[g, other] for other in tracker) + sum(iou[other, t] for other in gt) - value
            potential[g, t] += value / rest if rest > EPS else 0.0
    agree = {(g, t): p / (gt_count[g] + tracker_count[t] - p) for (g, t), p in potential.items()}
    values: dict[str, list[float]] = {"DetA": [], "AssA": [], "HOTA": []}
    for alpha in ALPHAS:
        matches: Counter[tuple[int, int]] = Counter()
        for gt, tracker in frames:
            iou = {(g, t): overlap(gt[g], tracker[t]) for g, t in product(gt, tracker)}
            pairs = best_pairs(gt, tracker, {pair: agree[pair] * value for pair, value in iou.items()})
            matches.update(pair for pair in pairs if iou[pair] >= alpha - EPS)
        tp = sum(matches.values())
        fn, fp = sum(gt_count.values()) - tp, sum(tracker_count.values()) - tp
        # TPA / (TPA + FNA + FPA) of each match, averaged over matches
        association = sum(n * n / (gt_count[g] + tracker_count[t] - n) for (g, t), n in matches.items()) / max(1, tp)
        detection = tp / max(1, tp + fn + fp)
        values["DetA"].append(detection)
        values["AssA"].append(association)
        values["HOTA"].append((detection * association) ** 0.5)
    return values
