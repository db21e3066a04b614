"""The shipped weights out of the data by one command: stage after stage, means of several ends, two model files.

    python -m tools.recipes.reference_weights --root ../shared/data --out runs/reference

The same command goes on where it was stopped. The weights will be like the shipped ones, not the same: those were
made while this code was written (perception/weights/MODEL_CARD.md says what was different).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.sets import TrainingSets


@dataclass(frozen=True)
class Stage:
    """One run of `perception train`."""

    name: str
    steps: int
    batch: int
    options: str
    """Further options, as on a command line."""


STAGES = (
    Stage("a", 400, 16, "--data.synthetic-share 0.3"),
    Stage("b", 3600, 8, "--learning-rate 0.0014 --seed 2 --data.synthetic-share 0.2"),
    Stage(
        "c",
        1500,
        8,
        "--learning-rate 0.0007 --warmup-steps 50 --seed 3 --data.synthetic-share 0.15 --augment.scale-min 0.65"
        " --augment.scale-max 1.35 --augment.centre-on-object 0.7 --augment.off-for-last 0.3",
    ),
    Stage(
        "d",
        7500,
        8,
        "--learning-rate 0.0013 --warmup-steps 100 --seed 5 --data.synthetic-share 0.2"
        " --augment.centre-on-object 0.65 --augment.off-for-last 0.2",
    ),
    Stage(
        "e",
        3600,
        8,
        "--learning-rate 0.0012 --warmup-steps 100 --seed 7 --data.synthetic-share 0.2"
        " --augment.centre-on-object 0.65 --augment.off-for-last 0.15 --model.detection.distance",
    ),
    Stage(
        "f",
        6700,
        8,
        "--learning-rate 0.0012 --warmup-steps 100 --seed 12 --data.synthetic-share 0.2"
        " --augment.centre-on-object 0.65 --augment.off-for-last 0.15 --model.detection.distance",
    ),
    Stage(  # whole frames: what channel gates average over a crop is not what they will meet
        "g",
        450,
        4,
        "--learning-rate 0.0003 --warmup-steps 20 --ema-decay 0.99 --seed 13 --data.crop-hw 384 1248"
        " --data.synthetic-share 0.15 --augment.centre-on-object 0.5 --augment.mosaic 0 --augment.off-for-last 0.5"
        " --model.detection.distance",
    ),
)
"""Each starts from the averaged weights of the last step before it."""
ENDS = tuple(
    Stage(
        f"h{seed}",
        500,
        8,
        f"--learning-rate 0.0005 --warmup-steps 20 --ema-decay 0.99 --seed {seed} --data.synthetic-share 0.35"
        " --data.road-share 0.2 --augment.centre-on-object 0.5 --augment.off-for-last 0.15"
        " --model.detection.distance",
    )
    for seed in (53, 54, 55)
)
"""All start from the last stage and learn what it finds in CamVid, too; then they are averaged (model soups, Wortsman
et al. 2022)."""
LAST = Stage(  # the road is far from learnt by then, even on the frames that are learnt from
    "i",
    400,
    4,
    "--learning-rate 0.0005 --warmup-steps 20 --ema-decay 0.99 --seed 91 --data.crop-hw 384 1248"
    " --model.segmentation.road-weight 8 --data.road-share 0.35 --data.synthetic-share 0.25"
    " --augment.centre-on-object 0.5 --augment.mosaic 0 --augment.native-width 1242 --augment.scale-min 0.6"
    " --augment.off-for-last 0.3 --model.detection.distance",
)
"""From the mean of the ends, with the same labels. Then the mean of before and after is taken (WiSE-FT, Wortsman
et al. 2022): after it the road is better and all else a little worse."""

LONG = tuple(
    Stage(
        f"j{seed}",
        2900,
        8,
        f"--learning-rate 0.001 --warmup-steps 50 --ema-decay 0.998 --seed {seed} --model.segmentation.road-weight 4"
        " --data.road-share 0.15 --data.synthetic-share 0.3 --augment.off-for-last 0.2 --model.detection.distance",
    )
    for seed in (71, 72)
)
"""More crops from that mean, in two seeds with a heavy road. Their mean is averaged with what they began with."""

_ROUND = (
    "--ema-decay 0.998 --model.segmentation.road-weight 4 --data.road-share 0.15 --data.streets {streets}"
    " --model.detection.distance --warmup-steps {warmup} --seed {seed} --learning-rate {rate}"
    " --data.synthetic-share {street} --augment.off-for-last {plain} "
)
_FIRST = {"streets": 600, "warmup": 100, "rate": 0.0015, "street": 0.2, "plain": 0.1}
_SECOND = {"streets": 400, "warmup": 60, "rate": 0.001, "street": 0.3, "plain": 0.2}
ROUNDS = (
    (
        Stage("k81", 5700, 8, _ROUND.format(seed=81, **_FIRST)),
        Stage("k82", 5700, 8, _ROUND.format(seed=82, **_FIRST) + "--model.detection.class-weights 1 3 2"),
    ),
    (
        Stage("k83", 2800, 8, _ROUND.format(seed=83, **_SECOND) + "--model.detection.class-weights 1 2 1.5"),
        Stage(
            "k84",
            2800,
            8,
            _ROUND.format(seed=84, **_SECOND) + "--model.detection.class-weights 1 2 1.5 --augment.native-width 1400",
        ),
    ),
)
"""Then two rounds of two runs: both of a round start from the mean of the one before. What goes on is the mean of all
four and of what they began with."""
_LIGHT = {"streets": 500, "warmup": 80, "street": 0.2, "plain": 0.15}
_PEOPLE = "--model.detection.class-weights 1 2 1.5 "
_TALL = "--data.crop-hw 352 416 "
_SQUARE = "--data.crop-hw 384 384 "
LIGHT_ROUNDS = (
    (
        Stage("l101", 4000, 8, _ROUND.format(seed=101, rate=0.0014, **_LIGHT) + _PEOPLE),
        Stage(
            "l102",
            3800,
            8,
            _ROUND.format(seed=102, rate=0.0014, **_LIGHT) + _PEOPLE + _TALL + "--augment.native-width 1400",
        ),
    ),
    (
        Stage(
            "l103",
            4000,
            8,
            _ROUND.format(seed=103, rate=0.0014, **_LIGHT) + _PEOPLE + "--augment.native-width 1250",
        ),
        Stage(
            "l104",
            4200,
            8,
            _ROUND.format(seed=104, rate=0.0012, **_LIGHT)
            + _PEOPLE
            + _TALL
            + "--augment.native-width 1300 --augment.copy-paste 0.6",
        ),
        Stage(
            "l105",
            3700,
            8,
            _ROUND.format(seed=105, rate=0.0012, **_LIGHT) + _PEOPLE + _SQUARE + "--augment.native-width 1400",
        ),
    ),
)
"""Two more, of two and three: these were the first to see pictures exposed anew and people in other clothes, and most
of them crops tall enough for what is near. What goes on lies half way between the mean of these five and what they
began with: the five alone take a concrete barrier for a car twice as often."""
_SEEN = _ROUND.format(seed="{seed}", rate=0.0014, **_LIGHT) + _PEOPLE  # each stage puts its seed in
SEEN = (
    Stage("m106", 4000, 8, _SEEN.format(seed=106) + _TALL + "--augment.native-width 1400 --data.no-hand-labels"),
    Stage("m107", 3600, 8, _SEEN.format(seed=107) + _SQUARE + "--augment.native-width 1300"),
    Stage("m120", 3600, 8, _SEEN.format(seed=120) + _TALL + "--augment.native-width 1350"),
)
"""Labels that were looked at, from the second on also labels drawn by hand. The third goes on from the first."""
SEEN_ROUNDS = (
    (
        Stage("m121", 3000, 8, _SEEN.format(seed=121) + _SQUARE + "--augment.native-width 1400"),
        Stage("m122", 2600, 6, _SEEN.format(seed=122) + "--data.crop-hw 352 640 --augment.native-width 1250"),
    ),
    (
        Stage("m123", 2300, 8, _SEEN.format(seed=123) + _SQUARE + "--augment.native-width 1300"),
        Stage("m124", 2300, 8, _SEEN.format(seed=124) + _TALL + "--augment.native-width 1350"),
    ),
)
"""The first two start from the mean of those three and of that of the five before, the last two from the mean of all
five that had such labels."""
SHORT = tuple(
    Stage(
        f"m{seed}",
        steps,
        batch,
        _ROUND.format(seed=seed, rate=0.0006, streets=200, warmup=20, street=0.2, plain=0.3)
        + _PEOPLE
        + crop
        + "--ema-decay 0.99 --augment.native-width 1250 --augment.mosaic 0.1",  # the later of two counts
    )
    for seed, steps, batch, crop in (
        (125, 700, 6, "--data.crop-hw 352 640 "),
        (126, 600, 5, "--data.crop-hw 384 768 "),
    )
)
"""Two short ends with crops half as wide as the frame, from the mean of those seven and of that of the five before.
The weights are that mean, twice, either end, and what stood before stage L, which takes concrete for a car least
often."""
SIZES = {(480, 1568): (480, 1568), (384, 1248): (384, 1248), (640, 1152): (384, 1248)}
"""Size of each model file and the size at which its thresholds are measured, for scores depend on it: KITTI's shape
twice, the larger for people and far cars; and 16:9, where KITTI's frames would be half grey, so by its like."""


@dataclass(frozen=True)
class Options:
    """Make the reference weights, or go on with it."""

    root: Path = Path("../shared/data")
    """The data, laid out as `perception train` expects it."""
    out: Path = Path("runs/reference")
    """Folder of the stages, the mean and the model files."""
    shorter: int = 1
    """Divide the steps of every stage by this, to try the chain."""
    compile: bool = False
    """As in `perception train`: worth it on a CPU."""
    workers: int = 1
    """Loader processes."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, average, score, export."""
    import tyro

    from perception.errors import UserError

    options = tyro.cli(Options, args=argv, prog="python -m tools.recipes.reference_weights", description=__doc__)
    if options.shorter < 1:
        print(UserError(f"--shorter {options.shorter}", "1 or more"), file=sys.stderr)
        return 2
    try:
        before: Path | None = None
        for stage in STAGES:
            before = _train(options, stage, before)
        assert before is not None
        more = _self_labels(options, before, "self", ENDS[0])
        ends = _mean(options, [_train(options, end, before, *more) for end in ENDS], "mean-h")
        half_way = _mean(options, [ends, _train(options, LAST, ends, *more)], "mean-h-i")
        long = _mean(options, [_train(options, stage, half_way, *more) for stage in LONG], "mean-j")
        all_of_them = _mean(options, [half_way, long], "mean-h-i-j")
        more = _self_labels(options, all_of_them, "self-again", ROUNDS[0][0])
        rounds = _mean(options, [all_of_them, *_rounds(options, ROUNDS, all_of_them, more)], "mean-k")
        light = _mean(options, _rounds(options, LIGHT_ROUNDS, rounds, more), "mean-l")
        half_way = _mean(options, [rounds, light], "mean-k-l")
        more = _self_labels(options, light, "self-third", SEEN[0])
        seen = [_train(options, stage, half_way, *more) for stage in SEEN[:2]]
        seen.append(_train(options, SEEN[2], seen[0], *more))
        for stages, parts in zip(SEEN_ROUNDS, ([light, *seen], seen), strict=True):  # `seen` grows on the way
            start = _mean(options, parts, f"mean-before-{stages[0].name}")
            seen += [_train(options, stage, start, *more) for stage in stages]
        looked_at = _mean(options, [light, *seen], "mean-m")
        short = [_train(options, stage, looked_at, *more) for stage in SHORT]
        parts = [rounds, looked_at, looked_at, *short]
        sizes = dict.fromkeys(SIZES.values())
        means = {size_hw: _mean(options, parts, f"mean-{size_hw[0]}", size_hw) for size_hw in sizes}
        release(means[384, 1248], options.out / "nano.pt")
        answers = [_export(options, means[measured_at], size_hw) for size_hw, measured_at in SIZES.items()]
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:  # it has said why
        return error.returncode
    except KeyboardInterrupt:
        print("the same command goes on", file=sys.stderr)
        return 130
    return max(answers)


def _self_labels(options: Options, checkpoint: Path, name: str, until: Stage) -> list[str]:
    """Options that teach what a network finds in CamVid; it looks until the first stage that needs it has begun."""
    labels = options.out / name
    if not (options.out / until.name).exists():
        look = ["--checkpoint", str(checkpoint), "--root", str(options.root), "--out", str(labels)]
        _python("tools.recipes.self_labels", *look)
    return ["--data.self-labels", str(labels)]


def _rounds(options: Options, rounds: Sequence[Sequence[Stage]], first: Path, more: Sequence[str]) -> list[Path]:
    """The last checkpoints of all runs of some rounds, each of which starts from the mean of the one before."""
    start, parts = first, []
    for stages in rounds:
        ended = [_train(options, stage, start, *more) for stage in stages]
        parts += ended
        if stages is not rounds[-1]:
            start = _mean(options, ended, "mean-" + "-".join(stage.name for stage in stages))
    return parts


def _train(options: Options, stage: Stage, before: Path | None, *more: str) -> Path:
    """The last checkpoint of a stage, which is trained, or trained on, where it is not yet whole."""
    from training.results import has_ended

    run = options.out / stage.name
    last = run / "last.pt"
    if has_ended(run):
        return last
    print(f"stage {stage.name}", file=sys.stderr, flush=True)
    if (run / "config.json").exists():  # killed before its first checkpoint, it begins again
        _perception("train", "--resume", str(run))
        return last
    steps = max(1, stage.steps // options.shorter)
    _perception(
        "train", "--preset", "nano", "--out", str(run), "--data.root", str(options.root),
        "--steps", str(steps), "--batch", str(stage.batch), "--evaluate-every", str(min(steps, 1200)),
        "--data.workers", str(options.workers), "--model.no-pretrained", *(["--compile"] if options.compile else []),
        *(["--init", str(before)] if before else []), *stage.options.split(), *more,
    )  # fmt: skip
    return last


def _mean(options: Options, checkpoints: Sequence[Path], name: str, size_hw: tuple[int, int] = (384, 1248)) -> Path:
    """A checkpoint with the mean of the weights of some, its thresholds measured at a size."""
    mean = options.out / name / "mean.pt"
    mean.parent.mkdir(exist_ok=True)
    average(checkpoints, mean, options.root, size_hw)
    return mean


def release(checkpoint: Path, out: Path) -> None:
    """Write what `--init` and `perception export` take of a checkpoint, at half its size: averaged weights, the
    network's shape, scores, what run it was. Of folders of this machine only their names go along."""
    from training.checkpoint import load_checkpoint, save_checkpoint

    state = load_checkpoint(checkpoint)
    description = json.loads(state["description"])
    data = description.get("config", {}).get("data", {})
    for values, names in ((data, ("root", "self_labels", "cache")), (description, ("init",))):
        values.update({name: Path(values[name]).name for name in names if values.get(name)})
    rest = ("network", "optimiser", "scaler", "progress", "best", "format")
    kept = {name: value for name, value in state.items() if name not in rest}
    save_checkpoint(out, {**kept, "description": json.dumps(description)})


def _export(options: Options, checkpoint: Path, size_hw: tuple[int, int]) -> int:
    """Exit code of the export: 1 where file and checkpoint differ, as they may after next to no training."""
    size = f"{size_hw[0]}x{size_hw[1]}"
    arguments = ["--size-hw", size, "--data", str(options.root), "--out", str(options.out / f"nano-{size}.onnx")]
    return _perception("export", str(checkpoint), *arguments, may_say_no=True)


def _perception(*arguments: str, may_say_no: bool = False) -> int:
    return _python("perception.cli.main", *arguments, may_say_no=may_say_no)


def _python(module: str, *arguments: str, may_say_no: bool = False) -> int:
    """Exit code of a command of ours; any but 0, and 1 where it may say no, ends everything."""
    code = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    if code > int(may_say_no) or code < 0:
        raise subprocess.CalledProcessError(code, module)
    return code


def average(
    checkpoints: Sequence[Path],
    out: Path,
    root: Path,
    size_hw: tuple[int, int] = (384, 1248),
    sets: TrainingSets | None = None,
) -> dict[str, float]:
    """Write the mean of some checkpoints' averaged weights as a checkpoint of its own, scored on the held-out frames.

    Args:
        checkpoints: of networks of one shape; the last one's description is kept.
        out: file to write.
        root: the data whose held-out frames give scores and operating points.
        size_hw: at which they are scored.
        sets: of it, where they are known already.

    Raises:
        UserError: unreadable checkpoints, or of different shapes.
    """
    import torch

    from datasets.splits import common
    from perception.errors import UserError
    from training.checkpoint import holdout_of, load_checkpoint, load_network, save_checkpoint
    from training.config import DataConfig, TrainConfig
    from training.evaluate import evaluate
    from training.sets import find_sets

    network, state = load_network(checkpoints[-1])
    states = [load_checkpoint(path) for path in checkpoints]
    all_weights = [each["ema"] for each in states]
    holdouts = [holdout for each in states if (holdout := holdout_of(each)) is not None]
    holdout = common(holdouts) if len(holdouts) == len(states) else None
    shapes = [{name: value.shape for name, value in weights.items()} for weights in all_weights]
    if different := [path for path, shape in zip(checkpoints, shapes, strict=True) if shape != shapes[-1]]:
        raise UserError(f"{different[0]}: another network than {checkpoints[-1]}", "checkpoints of one network")
    mean = {
        name: torch.stack([weights[name].double() for weights in all_weights]).mean(0).to(value.dtype)
        if value.dtype.is_floating_point
        else value
        for name, value in all_weights[-1].items()
    }
    network.load_state_dict(mean)
    data = DataConfig(root=root, workers=0, validation_hw=size_hw)
    config = replace(TrainConfig(data=data), model=network.config)
    sets = sets or find_sets(data, holdout)
    scores = evaluate(network, sets, config, torch.device("cpu"))
    kept = {**state, "holdout": (holdout or sets.holdout).to_json()}
    save_checkpoint(out, {**kept, "network": mean, "ema": mean, "optimiser": {}, "scores": scores})
    print(json.dumps({name: round(value, 3) for name, value in scores.items()}, indent=1))
    return scores


if __name__ == "__main__":
    sys.exit(main())
