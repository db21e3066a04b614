"""Measure images/s of the data loader, from full-size PNGs and from the disk cache, and of training by preset.

    python -m tools.benchmarks.loader --data FOLDER             # KITTI's object frames under FOLDER
    python -m tools.benchmarks.loader --data FOLDER --presets   # a training step of each preset too

JPEG copies of KITTI's frames are converted to PNG, KITTI's own format, in a temporary folder. The loaders take turns
in one process and one thread. CPU time is measured, which other load changes little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from datasets.kitti_object import KittiObject
from perception.formats.images import read_image
from training.cache import CachedSource
from training.config import PRESETS, TrainConfig, nano
from training.data import ImageStream, batches
from training.loop import choose_device, train_step
from training.models.network import Network
from training.sets import Subset, TrainingSets


def main() -> int:
    """Print a table, or JSON with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with kitti/object")
    parser.add_argument("--frames", type=int, default=48, help="frames to read")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each loader, of which the median is shown")
    parser.add_argument("--presets", action="store_true", help="also time training steps of each preset")
    parser.add_argument("--batch", type=int, default=4, help="images per training step")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = {"loader": loader_rates(options.data, Path(folder), options.frames, options.rounds)}
    if options.presets:
        result["training"] = {name: training_rate(PRESETS[name](), options.batch) for name in PRESETS}
    if options.json:
        print(json.dumps(result, indent=1))
        return 0
    for table, rows in result.items():
        print(f"{table}: one core's time, median")
        for name, row in rows.items():
            print(f"  {name:<34} " + "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    return 0


def png_copies(data: Path, folder: Path, count: int) -> KittiObject:
    """Write KITTI's object frames as full-size PNGs with their labels, and open them."""
    source = KittiObject(next(p for p in (data / "kitti/object", data / "object", data) if (p / "training").is_dir()))
    (folder / "training/image_2").mkdir(parents=True)
    (folder / "training/label_2").mkdir()
    for i in range(min(count, len(source))):
        image, label = source.files(i)[:2]
        cv2.imwrite(str(folder / f"training/image_2/{i:06d}.png"), read_image(image))
        (folder / f"training/label_2/{i:06d}.txt").write_text(label.read_text())
    return KittiObject(folder)


def loader_rates(data: Path, folder: Path, frames: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return ms per image and the ratio, for reading alone and for the whole loader."""
    config = nano()
    # the loader's own memory is switched off: full KITTI doesn't fit it, and each epoch reads every file again
    config = replace(config, data=replace(config.data, synthetic_share=0.0, cache=folder / "cache"))
    plain = png_copies(data, folder / "png", frames)
    cached = CachedSource(plain, folder / "cache", config.augment.native_width, 10**12)
    everything = tuple(range(len(plain)))
    for i in everything:
        cached[i]  # fill the cache
    rows: dict[str, dict[str, float]] = {}
    jobs: dict[str, Callable[[KittiObject | CachedSource], Callable[[int], object]]] = {
        "reading and decoding": lambda source: source.__getitem__,
        "crop, mirror, light": lambda source: stream(source, light(config), everything),
        "all of this preset's augmentation": lambda source: stream(source, config, everything),
    }
    for name, job in jobs.items():
        both = {"PNG": job(plain), "cache": job(cached)}
        times: dict[str, list[float]] = {key: [] for key in both}
        for _ in range(rounds):
            for key, read in both.items():
                started = time.process_time()
                for n in everything:
                    read(n)
                times[key].append(1000 * (time.process_time() - started) / len(everything))
        png, copy = (statistics.median(times[key]) for key in both)
        rows[name] = {
            "PNG_ms": png,
            "cache_ms": copy,
            "PNG_per_s": 1000 / png,
            "cache_per_s": 1000 / copy,
            "ratio": png / copy,
        }
    return rows


def light(config: TrainConfig) -> TrainConfig:
    """Return the config of the last part of each run, without the expensive augmentation."""
    from training.augment.pipeline import without_strong

    return replace(config, augment=without_strong(config.augment))


def stream(
    source: KittiObject | CachedSource, config: TrainConfig, indices: tuple[int, ...]
) -> Callable[[int], object]:
    """Return a function that makes image number n of a run on these frames."""
    sets = TrainingSets((Subset("kitti/object", source, indices, 1.0),), None, None)
    images = ImageStream(sets, config)
    images[0]  # collects the cut-outs for copy-paste, which a run does once
    return images.__getitem__


def training_rate(config: TrainConfig, batch: int, steps: int = 3) -> dict[str, float]:
    """Return images/s of optimiser steps without the loader."""
    device = choose_device("auto")
    config = replace(
        config,
        schedule=replace(config.schedule, batch=batch),
        data=replace(config.data, real=False, synthetic_share=1.0, workers=0),
    )
    ready = next(batches(None, config, 0)).to(device)
    network = Network(replace(config.model, pretrained=False)).to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)
    train_step(network, ready, optimiser, config)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds = []
    for _ in range(steps):
        started = clock()
        train_step(network, ready, optimiser, config)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    parameters = sum(p.numel() for p in network.parameters())
    return {"images_per_s": batch / float(np.median(seconds)), "parameters_M": parameters / 1e6}


if __name__ == "__main__":
    sys.exit(main())
