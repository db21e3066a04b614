"""Side by side with TrackEval itself, where it is installed, on crowds that the recorded results do not hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.evaluation.tracking_folders import score_tracking_folders

pytest.importorskip("trackeval", reason="TrackEval is not installed (pip install trackeval==1.3.0)")

GT_CLASSES = ["Car"] * 5 + ["Van", "Pedestrian", "Pedestrian", "Person", "Cyclist", "DontCare"]


def write_crowd(folder: Path, seed: int, lengths: dict[str, int]) -> None:
    """Objects on a coarse grid that overlap heavily: equal boxes, ties, DontCare, small and doubled boxes."""
    rng = np.random.default_rng(seed)
    for name in ("label_02", "results/ours/data"):
        (folder / name).mkdir(parents=True)
    seqmap = "".join(f"{name} empty 000000 {length:06d}\n" for name, length in lengths.items())
    (folder / "evaluate_tracking.seqmap.training").write_text(seqmap)
    for name, length in lengths.items():
        gt, results = [], []
        kinds = rng.choice(GT_CLASSES, 12)
        places = rng.integers(0, 8, (12, 2)) * 15.0
        for t in range(length):
            places += rng.integers(-1, 2, places.shape) * 3.0
            for i, ((x, y), kind) in enumerate(zip(places, kinds, strict=True)):
                size = 45, rng.choice([20, 30, 45])
                tail = "-1 -1 -1 -1000 -1000 -1000 -10"
                if rng.random() < 0.85:
                    number = -1 if kind == "DontCare" else i
                    hidden = f"{rng.choice([0, 0, 0, 1])} {rng.choice([0, 1, 2, 3])}"
                    gt.append(f"{t} {number} {kind} {hidden} 0 {x} {y} {x + size[0]} {y + size[1]} {tail}")
                for double in range(rng.choice([0, 1, 1, 2])):
                    dx, dy = rng.integers(-2, 3, 2) * 5.0
                    found = "Pedestrian" if kind in ("Pedestrian", "Person") else "Car"
                    number = i * 100 + double * 10 + (t // 4 if rng.random() < 0.2 else 0)
                    box = f"{x + dx} {y + dy} {x + dx + size[0]} {y + dy + size[1]}"
                    results.append(f"{t} {number} {found} -1 -1 -10 {box} {tail} {rng.random():.3f}")
        unique = {tuple(row.split()[:2]): row for row in results}  # ids are unique in a frame
        (folder / "label_02" / f"{name}.txt").write_text("\n".join(gt) + "\n")
        (folder / "results/ours/data" / f"{name}.txt").write_text("\n".join(unique.values()) + "\n")


def run_trackeval(folder: Path) -> dict:
    """TrackEval's numbers of the tracker 'ours', by sequence, class and family."""
    import trackeval

    quiet = {"PRINT_CONFIG": False}
    dataset = trackeval.datasets.Kitti2DBox(
        {"GT_FOLDER": str(folder), "TRACKERS_FOLDER": str(folder / "results"), **quiet}
    )
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR(quiet), trackeval.metrics.Identity(quiet)]
    names = [metric.get_name() for metric in metrics]
    found = {}
    for class_name in ("car", "pedestrian"):
        by_sequence = {}
        for name in dataset.seq_list:
            raw = dataset.get_raw_seq_data("ours", name)
            data = dataset.get_preprocessed_seq_data(raw, class_name)
            by_sequence[name] = {n: m.eval_sequence(data) for n, m in zip(names, metrics, strict=True)}
        by_sequence["COMBINED"] = {
            n: m.combine_sequences({k: v[n] for k, v in by_sequence.items()})
            for n, m in zip(names, metrics, strict=True)
        }
        found[class_name] = by_sequence
    return found


@pytest.mark.parametrize("seed", range(6))
def test_equals_trackeval_in_crowds(tmp_path: Path, seed: int) -> None:
    lengths = {"0000": 25, "0001": 9, "0002": 1}
    write_crowd(tmp_path, seed, lengths)
    evaluation = score_tracking_folders(tmp_path, tmp_path / "results" / "ours")
    for class_name, sequences in run_trackeval(tmp_path).items():
        own = class_name.capitalize()
        for name, families in sequences.items():
            score = evaluation.combined[own] if name == "COMBINED" else evaluation.sequences[name, own].score
            for family in families.values():
                for key, wanted in family.items():
                    if key == "MOTP_sum":
                        continue
                    found = score.by_alpha[key] if np.ndim(wanted) else score.values[key]
                    assert np.abs(np.subtract(found, wanted)).max() < 1e-9, (name, own, key)
