"""Write a dummy data set with KITTI's names, sizes, labels and split, to test a recipe without KITTI.

    python -m tools.benchmarks.synthetic_kitti --labels ../shared/data/kitti/label_2_all.zip --out FOLDER

7,481 object frames and 289 road frames as PNGs of 1242×375. All names are hard links to a few images, so the set has
a few megabytes and decodes like KITTI. Object labels and split are the official ones, from the zip. The images are
unrelated to the labels, so a network cannot learn from them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

SIZE_HW = (375, 1242)
ROAD_FRAMES = {"um": 95, "umm": 96, "uu": 98}
"""Of the road benchmark's training part."""
DIFFERENT = 8
"""Number of different images."""
WANTED = re.compile(r"(training/label_2/\d{6}|ImageSets/\w+)\.txt")
"""Of the zip; no other name is written."""


def main() -> int:
    """Write the data set and print its size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="zip with training/label_2 and ImageSets")
    parser.add_argument("--out", type=Path, required=True, help="empty or new folder")
    options = parser.parse_args()
    try:
        with zipfile.ZipFile(options.labels) as file:
            texts = {name: file.read(name).decode() for name in file.namelist() if WANTED.fullmatch(name)}
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        parser.error(f"{options.labels}: {error}; expected KITTI's labels as a zip")
    if not any(name.startswith("training/label_2/") for name in texts):
        parser.error(f"{options.labels}: holds no training/label_2/000000.txt; expected KITTI's labels as a zip")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        parser.error(f"{options.out}: already exists; expected an empty or new folder")
    try:
        make(options.out, texts, ROAD_FRAMES)
    except OSError as error:
        parser.error(f"{options.out}: {error.strerror}; expected a folder with room, on a disk that has hard links")
    objects = sum(name.startswith("training/label_2/") for name in texts)
    print(f"{options.out}: {objects} object frames, {sum(ROAD_FRAMES.values())} road frames")
    return 0


def make(
    out: Path, texts: Mapping[str, str], road_frames: Mapping[str, int], size_hw: tuple[int, int] = SIZE_HW
) -> None:
    """Write kitti/object and kitti/road under a folder.

    Args:
        out: output directory.
        texts: content of `training/label_2/NAME.txt` and `ImageSets/SPLIT.txt`.
        road_frames: frames of each road category.
        size_hw: height and width of the images.
    """
    drawn = [_write(out / f"images/{i}.png", _image(i, size_hw)) for i in range(DIFFERENT)]
    objects, road = out / "kitti/object", out / "kitti/road"
    for name, text in texts.items():
        path = objects / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if "label_2" in name:
            _link(drawn[int(path.stem) % DIFFERENT], objects / f"training/image_2/{path.stem}.png")
    truth = np.zeros((*size_hw, 3), np.uint8)
    truth[..., 2] = 255
    truth[size_hw[0] // 2 :, size_hw[1] // 4 : -size_hw[1] // 4, 0] = 255
    drawn_truth = _write(out / "images/truth.png", truth)
    for category, count in road_frames.items():
        for i in range(count):
            _link(drawn[i % DIFFERENT], road / f"training/image_2/{category}_{i:06d}.png")
            _link(drawn_truth, road / f"training/gt_image_2/{category}_road_{i:06d}.png")


def _image(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Draw shapes of many sizes and some noise, which compress about like a street."""
    rng = np.random.default_rng(seed)
    image = np.zeros((*size_hw, 3), np.float32)
    for cells in (4, 16, 64, 256):
        coarse = rng.normal(0, 1, (cells, 3 * cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 0.06, image.shape)
    return np.clip(110 + 35 * image, 0, 255).astype(np.uint8)


def _write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def _link(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, path)


if __name__ == "__main__":
    sys.exit(main())
