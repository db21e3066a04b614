"""Compare a YOLO-nano-class network with ours: the same images, training and evaluation, both from scratch.

    python -m tools.baselines.yolo --root ../shared/data --out runs/yolo --steps 2000 --seed 1         # the YOLO
    python -m tools.baselines.yolo --root ../shared/data --out runs/yolo --steps 2000 --seed 1 --ours  # our `nano`
    python -m tools.recipes.ablation --table --out runs/yolo  # side by side
    python -m tools.baselines.yolo --like runs/levers/base-1 --out runs/levers  # as a run of a study

Image number n of a run depends on the seed and on n alone, so both networks see the same images in the same order.
Images without boxes train only our network's road and mask heads. Optimiser, schedule, averaged weights, NMS,
augmentation and evaluation are the same code. The last step is evaluated, so nothing is
selected on the validation set.

The same command resumes an interrupted run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.detector import Detector
from perception.files import write_atomically
from training.config import PRESETS, AugmentConfig, TrainConfig
from training.models.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from training.models.network import Network
    from training.sets import TrainingSets


@dataclass(frozen=True)
class Options:
    """Train and evaluate one network with one seed, or resume it."""

    root: Path = Path("../shared/data")
    """Dataset root, as in `perception train`."""
    out: Path = Path("runs/yolo")
    """Folder of the run directories."""
    like: Path | None = None
    """Run directory of `perception train`: the same images, labels, steps and seed, and the yardstick's choosing part
    for evaluation. Options of images and schedule are then taken from there."""
    ours: bool = False
    """Train our `nano` preset instead of the YOLO network."""
    steps: int = 2000
    batch: int = 8
    seed: int = 1
    crop_hw: tuple[int, int] = (256, 512)
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    synthetic_share: float = 0.25
    """Fraction of images rendered by the synthetic street."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """As in `perception train`."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    workers: int = 0
    """Loader processes."""
    threads: int = 1
    """CPU threads of the network."""
    compile: bool = False
    """As in `perception train`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, score it, print what there is of this seed's network."""
    import tyro

    from perception.errors import UserError
    from tools.recipes.ablation import (
        COMPARED,
        YARDSTICK,
        YARDSTICK_TITLES,
        read_results,
        result_path,
        table,
    )

    options = tyro.cli(Options, args=argv, prog="python -m tools.baselines.yolo", description=__doc__)
    try:
        config = configuration(options)
        path = result_path(options.out, "base" if options.ours else COMPARED, config.schedule.seed)
        if not path.exists():
            train_and_score(options, config, path)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(read_results(options.out), *((YARDSTICK, YARDSTICK_TITLES) if options.like else ())))
    return 0


def configuration(options: Options) -> TrainConfig:
    """The run, which is the same for both networks but for its name.

    Raises:
        UserError: the run of `like` cannot be read.
    """
    if options.like is not None:
        return _like(options.like)
    config = PRESETS["nano"]()
    return replace(
        config,
        preset="nano" if options.ours else "yolo-nano-class",  # `perception train --resume` must not take it for ours
        model=replace(config.model, pretrained=False, backbone_weights=None),
        data=replace(
            config.data,
            root=options.root,
            crop_hw=options.crop_hw,
            synthetic_share=options.synthetic_share,
            workers=options.workers,
        ),
        augment=options.augment,
        schedule=replace(
            config.schedule,
            steps=options.steps,
            batch=options.batch,
            seed=options.seed,
            warmup_steps=min(options.warmup_steps, max(1, options.steps // 10)),
        ),
        optimiser=replace(config.optimiser, learning_rate=options.learning_rate),
        hardware=replace(config.hardware, threads=options.threads, compile=options.compile),
        checkpoints=replace(
            config.checkpoints, evaluate_every=options.steps, checkpoint_every=options.checkpoint_every
        ),
    )


def _like(run: Path) -> TrainConfig:
    """Return the config of a run for the YOLO network, which starts from random weights and is trained whole."""
    from training.cli import stored_run

    config = stored_run(run)[0]
    whole = replace(config.optimiser, frozen_stages=0, frozen_norm=False, backbone_learning_rate=1.0)
    plain = ModelConfig(class_names=config.model.class_names, classes=config.model.classes)
    return replace(config, preset="yolo-nano-class", model=plain, optimiser=whole)


def train_and_score(options: Options, config: TrainConfig, path: Path) -> None:
    """Train in the folder of `path` and write the measures of the last step there.

    Raises:
        UserError: what training raises, and a folder that holds a run with other options.
    """
    from perception.errors import UserError
    from tools.baselines.yolo_network import YoloNano
    from tools.benchmarks.yardstick import headline
    from tools.recipes.ablation import measures
    from training.backend import torch_model
    from training.checkpoint import load_checkpoint, resolved_config
    from training.loop import train
    from training.models.network import Network

    run = path.parent
    make = Network if options.ours else YoloNano
    if (run / "config.json").exists():
        stored = json.loads((run / "config.json").read_text())["config"]
        if other := sorted(_differences(resolved_config(config), stored)):
            raise UserError(
                f"{run}: a run with another {', '.join(other)}", "the options it began with, or another --out"
            )
    train(config, run, resume=True, make=make, score=objects_alone)
    network = make(config.model)
    network.load_state_dict(load_checkpoint(run / "last.pt")["ema"])
    if options.like is not None:
        found = headline(Detector(torch_model(network.eval(), config.data.validation_hw)), config.data.root)
        found.pop("road_max_f", None)  # this network knows no road
    else:
        found = measures(network.eval(), options.root, road=options.ours)
    write_atomically(path, json.dumps(found, indent=1) + "\n")


def _differences(config: dict[str, Any], stored: dict[str, Any]) -> set[str]:
    """Fields in which two configs differ, of those that both have and that change what is learnt."""
    found: set[str] = set()
    for name in (config.keys() & stored.keys()) - {"threads", "compile", "checkpoint_every", "workers", "root"}:
        if isinstance(config[name], dict) and isinstance(stored[name], dict):
            found |= _differences(config[name], stored[name])
        elif config[name] != stored[name]:
            found.add(name)
    return found


def objects_alone(
    network: Network, sets: TrainingSets | None, config: TrainConfig, device: torch.device, show: Any = None
) -> dict[str, float]:
    """The trainer's own scoring without the road, which only one of the two networks knows."""
    from training.evaluate import evaluate

    return evaluate(network, sets and replace(sets, road=None), config, device, show)


if __name__ == "__main__":
    sys.exit(main())
