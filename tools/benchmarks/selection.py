"""Train on the third of a pool that `perception select` chose, and on thirds by chance, and score people.

    python -m tools.benchmarks.selection --root ../shared/data --out runs/selection \\
        --models person-detection-0203.xml --backbone-weights MOBILENET_V2.pth

The pool is KITTI's and CityPersons' frames outside the yardstick (`datasets/yardstick_split.py`). The networks of
`--models` choose from its images, without a label. The yardstick's frames report. All trainings share one recipe:
those on the chosen third differ by seed, those by chance by seed and third. The same command resumes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import imagesize
import numpy as np
import tyro

from datasets.formats import write
from datasets.formats.annotations import DONT_CARE, AnnotatedImage, AnnotationSet, Box
from datasets.kitti_object import KittiObject
from datasets.readers.yardstick import Frame, frames
from datasets.sample import image_stems
from datasets.yardstick_split import withheld
from perception.errors import UserError
from perception.evaluation.detection import average_precision, pool
from perception.files import write_atomically
from perception.formats.images import find_image
from perception.formats.kitti import read_objects
from tools.benchmarks.yardstick import ROWS, load_detector, matches_of
from training.results import has_ended

CLASS = "Pedestrian"
CITYPERSONS = "extra/citypersons_sample"
PEOPLE = [row for row in ROWS if row.name.startswith(CLASS)]
LOWEST_SHARE = 25 / 384
"""Lower people, as a share of the image's height, are ignore regions, as in the yardstick."""
MOST_OCCLUDED = 1


@dataclass(frozen=True)
class Options:
    """Compare a chosen third with thirds by chance."""

    models: tuple[Path, ...]
    """Networks that choose. They have not seen the pool's labels."""
    root: Path = Path("../shared/data")
    """Dataset root."""
    out: Path = Path("runs/selection")
    """Folder of the sets, the runs and the table."""
    seeds: tuple[int, ...] = (1, 2, 3)
    backbone: str = "mobilenet_v2"
    backbone_weights: Path | None = None
    """Start of the backbone, which then stays frozen."""
    steps: int = 30
    batch: int = 8
    crop_hw: tuple[int, int] = (128, 256)
    learning_rate: float = 2e-3
    size_hw: tuple[int, int] = (256, 832)
    """Input of the networks that choose, and of the trained ones when they are scored."""
    trainings: int = 0
    """Stop after so many trainings; 0: never."""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is missing, and print the table."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.benchmarks.selection", description=__doc__)
    try:
        images = pool_images(options.root)
        thirds = {"chosen": chosen(options, images)}
        count, names = len(thirds["chosen"]), sorted(images)
        for seed in options.seeds:
            drawn = np.random.default_rng(seed).permutation(len(names))[:count]
            thirds[f"chance-{seed}"] = [names[i] for i in drawn]
        done = 0
        for seed in options.seeds:
            for kind, name in (("chosen", "chosen"), ("chance", f"chance-{seed}")):
                run = options.out / f"{kind}-{seed}"
                if not (run / "scores.json").exists() and (not options.trainings or done < options.trainings):
                    train(options, [images[one] for one in thirds[name]], options.out / f"set-{name}", run, seed)
                    write_atomically(run / "scores.json", json.dumps(score(options, run / "last.pt")))
                    done += 1
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:  # the command has said why
        return error.returncode
    print(table(options, images, thirds))
    return 0


def pool_images(root: Path) -> dict[str, AnnotatedImage]:
    """Return the labelled frames by name that the yardstick does not withhold."""
    found, held = {}, withheld()
    kitti = KittiObject(root / "kitti/object")
    for i, stem in enumerate(kitti.names):
        drive = kitti.drives.get(stem, "")
        if drive and drive not in held.kitti_drives:
            found[f"{drive}/{stem}"] = _frame(f"{drive}/{stem}", drive, *kitti.files(i)[:2])
    folder = root / CITYPERSONS
    for stem in image_stems(folder / "image_2"):
        city, path = stem.partition("_")[0], find_image(folder / "image_2", stem)
        if path is not None and city not in held.citypersons_cities:
            label = folder / "label_2_official" / f"{stem}.txt"
            found[f"{city}/{stem}"] = _frame(f"{city}/{stem}", city, path, label)
    if not found:
        raise UserError(f"{root}: no frames", f"kitti/object and {CITYPERSONS}", "--root FOLDER")
    return found


def _frame(name: str, drive: str, path: Path, label: Path) -> AnnotatedImage:
    """Return a frame whose plain people are objects; whatever else may be a person is an ignore region."""
    width, height = imagesize.get(path)
    rows, boxes = read_objects(label, scores=False, classes=None), []
    for kind, box, hidden in zip(rows.names, rows.boxes_xyxy.tolist(), rows.occlusion.tolist(), strict=True):
        left, top, right, bottom = box
        is_plain = hidden <= MOST_OCCLUDED and bottom - top >= LOWEST_SHARE * height
        if kind == CLASS and is_plain:
            boxes.append(Box(CLASS, (left, top, right, bottom)))
        elif kind in (CLASS, "Cyclist", "Person_sitting", DONT_CARE):
            boxes.append(Box(DONT_CARE, (left, top, right, bottom), ignore=True))
    return AnnotatedImage(name, path, (height, width), tuple(boxes), drive)


def chosen(options: Options, images: Mapping[str, AnnotatedImage]) -> list[str]:
    """Return the third of the pool that `perception select` chooses, by its images alone."""
    folder, out = options.out / "pool", options.out / "select"
    for name, image in images.items():
        link = folder / f"{name}{image.path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(image.path.resolve())
    if not (out / "selected.json").is_file():
        _perception(
            "select", str(folder), "--out", str(out), "--count", str(len(images) // 3), "--no-page",
            "--teacher-hw", *map(str, options.size_hw), "--models", *map(str, options.models),
        )  # fmt: skip
    return [row["name"] for row in json.loads((out / "selected.json").read_text(encoding="utf-8"))]


def train(options: Options, third: Sequence[AnnotatedImage], root: Path, run: Path, seed: int) -> None:
    """Train on a third; nothing of it is held out, and nothing is validated."""
    if has_ended(run):
        return
    if (run / "config.json").is_file():
        _perception("train", "--resume", str(run))
        return
    if not root.exists():
        flat = tuple(replace(image, name=image.name.replace("/", "_"), drive="") for image in third)
        write(AnnotationSet(options.root, (CLASS,), flat), root, "coco", "link")
    start = ["--model.no-pretrained"]
    if options.backbone_weights is not None:
        start = ["--model.backbone-weights", str(options.backbone_weights), "--frozen-stages", "4", "--frozen-norm"]
    _perception(
        "train", "--out", str(run), "--data.root", str(root), "--seed", str(seed), "--steps", str(options.steps),
        "--batch", str(options.batch), "--data.crop-hw", *map(str, options.crop_hw), "--data.synthetic-share", "0",
        "--model.backbone", options.backbone, *start, "--model.heads", "detection", "--ema-decay", "0.99",
        "--warmup-steps", str(max(1, options.steps // 10)), "--learning-rate", str(options.learning_rate),
        "--threads", "1", "--data.workers", "0",
    )  # fmt: skip


def _perception(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "perception.cli.main", *arguments], check=True, stdout=subprocess.DEVNULL)


def score(options: Options, checkpoint: Path) -> dict[str, float]:
    """Return the AP of people at IoU 0.5 over the yardstick's frames, together and of each set, per cent."""
    detect = load_detector(checkpoint, options.size_hw, threads=1)
    pairs = [(frame, detect(frame.image_bgr)[0]) for frame in reporting(options.root)]
    return {row.name: 100 * average_precision(pool(matches_of(row, *pair) for pair in pairs)) for row in PEOPLE}


def reporting(root: Path) -> list[Frame]:
    """Return the frames of both parts of the yardstick that label people."""
    both = (*frames(root, "choosing"), *frames(root, "report"))
    return [frame for frame in both if frame.group != "dawn"]


def table(options: Options, images: Mapping[str, AnnotatedImage], thirds: Mapping[str, Sequence[str]]) -> str:
    """Return the people in the thirds, and the AP of the finished runs, as Markdown."""
    lines = [
        f"Pool of {len(images)} frames; thirds of {len(thirds['chosen'])}.",
        "",
        "| third, seed | people in it | " + " | ".join(f"AP50 {row.name}" for row in PEOPLE) + " |",
        "|---|---|" + "---|" * len(PEOPLE),
    ]
    for kind in ("chosen", "chance"):
        found = []
        for seed in options.seeds:
            path = options.out / f"{kind}-{seed}" / "scores.json"
            if not path.is_file():
                continue
            names = thirds["chosen"] if kind == "chosen" else thirds[f"chance-{seed}"]
            people = sum(not box.ignore for name in names for box in images[name].boxes)
            found.append(list(json.loads(path.read_text(encoding="utf-8")).values()))
            lines.append(f"| {kind}, {seed} | {people} | {' | '.join(f'{value:.1f}' for value in found[-1])} |")
        if len(found) > 1:
            both = zip(np.mean(found, axis=0), np.std(found, axis=0, ddof=1), strict=True)
            lines.append(f"| {kind}: mean ± deviation | | {' | '.join(f'{m:.1f} ± {s:.1f}' for m, s in both)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
