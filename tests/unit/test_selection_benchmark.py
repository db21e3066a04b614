"""Which people the comparison of chosen and random thirds counts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.formats.annotations import Box


def test_plain_people_count_and_all_other_people_are_ignored(tmp_path: Path) -> None:
    """An image 384 pixels high: people from 25 pixels, at most partly hidden."""
    pytest.importorskip("torch")
    from tools.benchmarks.selection import _frame

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((384, 100, 3), np.uint8))
    rows = (
        ("Pedestrian", 0, 30), ("Pedestrian", 2, 30), ("Pedestrian", 1, 24), ("Cyclist", 0, 30), ("Car", 0, 30),
    )  # fmt: skip
    text = "".join(
        f"{name} -1 {hidden} -10 {10 * i} 0 {10 * i + 8} {height} -1 -1 -1 -1000 -1000 -1000 -10\n"
        for i, (name, hidden, height) in enumerate(rows)
    )
    (tmp_path / "a.txt").write_text(text)
    frame = _frame("drive/a", "drive", tmp_path / "a.png", tmp_path / "a.txt")
    assert frame.size_hw == (384, 100) and frame.drive == "drive"
    assert frame.boxes == (
        Box("Pedestrian", (0, 0, 8, 30)),
        Box("DontCare", (10, 0, 18, 30), ignore=True),
        Box("DontCare", (20, 0, 28, 24), ignore=True),
        Box("DontCare", (30, 0, 38, 30), ignore=True),
    )
