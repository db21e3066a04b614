"""The mean of several checkpoints' weights, and the checkpoint as it is released.

python -m tools.recipes.average A.pt B.pt --root ../shared/data --out mean.pt
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from datasets.splits import common
from perception.errors import UserError

if TYPE_CHECKING:
    from training.sets import TrainingSets


@dataclass(frozen=True)
class Options:
    """Average the weights of checkpoints of one network, and measure the mean on the validation set."""

    checkpoints: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Checkpoints; one named twice counts twice."""
    out: Path
    """File to write."""
    root: Path = Path("../shared/data")
    """Dataset root, as in `perception train`."""
    size_hw: tuple[int, int] = (384, 1248)
    """Input size of the evaluation."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the mean of the checkpoints."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.recipes.average", description=__doc__)
    try:
        average(options.checkpoints, options.out, options.root, options.size_hw)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def average(
    checkpoints: Sequence[Path],
    out: Path,
    root: Path,
    size_hw: tuple[int, int] = (384, 1248),
    sets: TrainingSets | None = None,
) -> dict[str, float]:
    """Write the mean of the averaged weights of several checkpoints, evaluated on the validation set.

    The held-out frames of the mean are those that all checkpoints held out.

    Args:
        checkpoints: checkpoints of one architecture; the description of the last one is kept.
        out: file to write.
        root: dataset root of the validation frames.
        size_hw: input size of the evaluation.
        sets: data sets in `root`, if they are already open.

    Returns:
        Scores of `training.evaluate.evaluate`.

    Raises:
        UserError: there are no checkpoints, one is unreadable, or their architectures differ.
    """
    import torch

    from training.checkpoint import holdout_of, load_checkpoint, load_network, save_checkpoint
    from training.config import DataConfig, TrainConfig
    from training.evaluate import evaluate
    from training.sets import find_sets

    if not checkpoints:
        raise UserError("no checkpoints", "one or more .pt files")
    network, state = load_network(checkpoints[-1])
    states = [load_checkpoint(path) for path in checkpoints]
    shapes = [{name: value.shape for name, value in each["ema"].items()} for each in states]
    if different := [path for path, shape in zip(checkpoints, shapes, strict=True) if shape != shapes[-1]]:
        raise UserError(f"{different[0]}: another network than {checkpoints[-1]}", "checkpoints of one network")
    mean = {
        name: torch.stack([each["ema"][name].double() for each in states]).mean(0).to(value.dtype)
        if value.dtype.is_floating_point
        else value
        for name, value in state["ema"].items()
    }
    network.load_state_dict(mean)
    holdouts = [holdout for each in states if (holdout := holdout_of(each)) is not None]
    holdout = common(holdouts) if len(holdouts) == len(states) else None
    data = DataConfig(root=root, workers=0, validation_hw=size_hw)
    config = replace(TrainConfig(data=data), model=network.config)
    sets = sets or find_sets(data, holdout, network.config.class_infos)
    scores = evaluate(network, sets, config, torch.device("cpu"))
    kept = {**state, "holdout": (holdout or sets.holdout).to_json()}
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(out, {**kept, "network": mean, "ema": mean, "optimiser": {}, "scores": scores})
    print(json.dumps({name: round(value, 3) for name, value in scores.items()}, indent=1))
    return scores


def release(checkpoint: Path, out: Path, widen: Sequence[float] = ()) -> None:
    """Write the part of a checkpoint that `--init` and `perception export` need, at half its size.

    It keeps averaged weights, architecture, scores, hold-out and description. Absolute paths in the description are
    reduced to their last part.

    Args:
        widen: factors on the spreads of depth, size and angle, and on the doubt about front and rear, from held-out
            frames: a network knows its training set too well. Empty for none.
    """
    from training.checkpoint import load_checkpoint, save_checkpoint
    from training.models.cuboid import widen as widen_branch

    state = load_checkpoint(checkpoint)
    description = _without_folders(json.loads(state["description"]))
    if widen:
        widen_branch(state["ema"], **dict(zip(("distance", "size", "angle", "doubt"), widen, strict=False)))
        description["spreads_widened"] = list(widen)
    rest = ("network", "optimiser", "scaler", "progress", "best", "format")
    kept = {name: value for name, value in state.items() if name not in rest}
    save_checkpoint(out, {**kept, "description": json.dumps(description)})


def _without_folders(value: Any) -> Any:
    """Return JSON values with every absolute path reduced to its last part."""
    if isinstance(value, dict):
        return {name: _without_folders(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


if __name__ == "__main__":
    sys.exit(main())
