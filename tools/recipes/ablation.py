"""What each ingredient of training brings: variants × seeds, one after the other, resumable; a table at the end.

    python -m tools.recipes.ablation --root ../shared/data --out runs/ablation [--init CHECKPOINT] [--steps 300]
    python -m tools.recipes.ablation --config tools/recipes/levers.toml --root ../shared/data --out runs/levers

Every run is a `perception train` with the same small budget. Seeds are the outer loop, so that a study that is
stopped early still compares all variants at the seeds that it reached; started again, it goes on where it was. Few
held-out frames make the official AP noisy, so AP at IoU 0.5 over the object and the tracking frames of held-out
drives is counted too, and every variant is compared with the base run of the same seed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from datasets.catalogue import open_sets
from datasets.kitti_object import KittiObject
from datasets.labels import kitti_rule
from datasets.sample import Sample
from datasets.splits import Holdout
from perception.cli.options import CommandOptions, parse_options
from perception.detector import Detector
from perception.errors import UserError
from perception.evaluation.detection import average_precision, best_f1, pool
from perception.files import write_atomically
from perception.types import CLASS_NAMES, Detections
from training.operating_point import confirm_threshold_key, match_sample

if TYPE_CHECKING:
    from torch import Tensor

    from training.config import TrainConfig
    from training.data import Batch
    from training.models.network import ModelConfig, Network
    from training.sets import TrainingSets

MEASURES = ("car_moderate", "car_ap50", "car_f1_50", "pedestrian_ap50", "cyclist_ap50", "road_max_f")
TITLES = ("Car AP R40 mod.", "Car AP@0.5", "Car F1@0.5", "Ped. AP@0.5", "Cyc. AP@0.5", "Road MaxF")
YARDSTICK = ("pedestrian_ap", "pedestrian_recall", "cyclist_ap", "car_kitti_ap", "car_dawn_ap", "road_max_f")
YARDSTICK_TITLES = (
    "Ped. AP@0.5",
    "Ped. recall at precision 85",
    "Cyc. AP@0.5",
    "Car AP@0.5 KITTI",
    "Car AP@0.5 DAWN",
    "Road MaxF",
)
"""Measures of `tools.benchmarks.yardstick.headline` and their titles."""

PEOPLE = (0.3, 0.4, 0.5, 0.6)
OVERLAPS = ((0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8), PEOPLE, PEOPLE)
"""Of cars, pedestrians and cyclists: AP and F1 averaged over them move less by chance than KITTI's at one overlap."""


PLAIN = kitti_rule(max_truncation=0.3, max_occlusion=1)
PLAIN_M = 40.0
"""What a person sees plainly: objects that KITTI calls visible or partly hidden, at most three tenths outside of the
image, within so many metres."""


@dataclass(frozen=True)
class Variant:
    """One thing changed."""

    options: tuple[str, ...] = ()
    """Of `perception train`."""
    without: tuple[str, ...] = ()
    """Folders of the data that it does not see."""
    before: tuple[str, ...] = ()
    """Options of a first quarter of the steps, from whose weights the other three quarters start."""
    raw: bool = False
    """Not a run of its own: the base run of this seed, scored with the weights of its last step instead of the
    averaged ones. Averaging touches nothing that is learnt, so this is the run without it."""


VARIANTS = {
    "base": Variant(),
    "no copy-paste": Variant(("--augment.copy-paste", "0")),
    "no mosaic": Variant(("--augment.mosaic", "0")),
    "no synthetic street": Variant(("--data.synthetic-share", "0")),
    "no EMA": Variant(raw=True),
    "half width": Variant(("--augment.native-width", "600", "--data.validation-hw", "192", "640")),
    "synthetic street first": Variant(("--data.synthetic-share", "0"), before=("--data.synthetic-share", "1")),
    "fixed assignment": Variant(("--model.detection.assign-by", "centre")),
    "one point an object": Variant(("--model.detection.topk", "1")),
    "no boxes from masks": Variant(("--data.no-mask-boxes",)),
    "no mask sets": Variant(without=("camvid", "extra/idd_lite")),
    "no class-balanced crops": Variant(("--augment.no-balance-classes",)),
    "no rotation, rain, night": Variant(("--augment.rotation", "0", "--augment.rain", "0", "--augment.night", "0")),
    "one-to-one head": Variant(("--model.one-to-one",)),
    "uncertainty weights": Variant(("--model.task-weights", "uncertainty")),
    "GIoU for CIoU": Variant(("--model.detection.box-loss", "giou")),
    "distance head": Variant(("--model.detection.distance",)),
}


COMPARED = "YOLO-nano class"
"""Row of the other network that `tools.baselines.yolo` trains; that tool, not this one, makes it."""


@dataclass(frozen=True)
class Arm:
    """A variant as a file of options writes it."""

    name: str
    """As in the table. The variant `base` is what the others are compared with."""
    options: str = ""
    """Of `perception train`; `{root}` and `{out}` stand for these folders."""
    seeds: tuple[int, ...] = ()
    """Seeds of this variant where they are fewer than those of the study."""


@dataclass(frozen=True)
class Options(CommandOptions):
    """Run an ablation study, or go on with one."""

    root: Path = Path("../shared/data")
    """The data, laid out as `perception train` expects it."""
    out: Path = Path("runs/ablation")
    """Folder of all runs and of the table."""
    init: Path | None = None
    """Checkpoint that every run starts from: differences show only where something is found at all."""
    preset: str = "nano"
    steps: int = 300
    """Of every run."""
    batch: int = 8
    crop_hw: tuple[int, int] = (192, 384)
    learning_rate: float = 1e-3
    seeds: tuple[int, ...] = (1, 2, 3)
    variants: tuple[str, ...] = ()
    """Names as in the table; all without it."""
    arms: tuple[Arm, ...] = ()
    """Variants of a study of your own, from `--config FILE`; without them the study is the one built in."""
    measure: Literal["validation", "yardstick"] = "validation"
    """Held-out drives of the run, or the choosing part of `tools.benchmarks.yardstick`."""
    distinct: int = 0
    """With the yardstick: batches that are made; a run repeats them. 0: a new one for every step."""
    compile: bool = False
    """Let torch compile the network of every run: pays from some hundred steps on."""
    more: str = ""
    """Further options of `perception train`, for every run, the base too; in one string: --more="--a 1 --b 2".
    `{root}` and `{out}` stand for these folders."""
    table: bool = False
    """Only draw the table of what is there."""
    score: tuple[Path, ...] = ()
    """Only score these checkpoints, a line of JSON each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, draw the table."""
    try:
        options = parse_options(
            Options, list(sys.argv[1:] if argv is None else argv), "python -m tools.recipes.ablation"
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    variants = _variants(options)
    unknown = set(options.variants) - set(variants)
    if unknown:
        print(f"unknown variant {sorted(unknown)[0]!r}; one of {', '.join(variants)}", file=sys.stderr)
        return 2
    for checkpoint in options.score:
        try:
            found = scores(checkpoint, options.root)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        rounded = {name: round(value, 2) for name, value in found.items()}
        print(json.dumps({"checkpoint": str(checkpoint), **rounded}), flush=True)
    if options.score:
        return 0
    names = options.variants or tuple(variants)
    options = replace(options, root=options.root.resolve(), out=options.out.resolve())
    seeds_of = {arm.name: arm.seeds for arm in options.arms}
    columns = (YARDSTICK, YARDSTICK_TITLES) if options.measure == "yardstick" else (MEASURES, TITLES)
    try:
        shlex.split(options.more)
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        mistake = f"{options.out}: {error.strerror}" if isinstance(error, OSError) else f"--more: {error}"
        print(mistake, file=sys.stderr)
        return 2
    for seed in () if options.table else options.seeds:
        for name in names:
            if result_path(options.out, name, seed).exists() or seed not in (seeds_of.get(name) or options.seeds):
                continue
            print(f"seed {seed}: {name}", file=sys.stderr, flush=True)
            try:
                _run(options, name, seed)
            except subprocess.CalledProcessError as error:  # `perception train` has said why
                return error.returncode
            except KeyboardInterrupt:
                print("the same command goes on with what is missing", file=sys.stderr)
                return 130
            except UserError as error:
                print(error, file=sys.stderr)
                return 2
            write_atomically(options.out / "table.md", table(read_results(options.out, tuple(variants)), *columns))
    print(table(read_results(options.out, tuple(variants)), *columns))
    return 0


def _variants(options: Options) -> dict[str, Variant]:
    """Return the variants of the study by name."""
    folders = {"root": options.root.resolve(), "out": options.out.resolve()}
    own = {arm.name: Variant(tuple(_filled(arm.options, folders))) for arm in options.arms}
    return own or VARIANTS


def _filled(text: str, folders: Mapping[str, Path]) -> list[str]:
    """Return the words of a command line with the folders in place of `{root}` and `{out}`."""
    words = shlex.split(text)
    for name, folder in folders.items():
        words = [word.replace("{" + name + "}", str(folder)) for word in words]
    return words


def result_path(out: Path, name: str, seed: int) -> Path:
    """Where the scores of a run are kept."""
    return out / f"{name.replace(' ', '-').replace(',', '')}-{seed}" / "scores.json"


def _run(options: Options, name: str, seed: int) -> None:
    """Train one variant with one seed, score it, keep the scores."""
    from training.results import has_ended

    variant, path = _variants(options)[name], result_path(options.out, name, seed)
    if variant.raw:
        base = result_path(options.out, "base", seed)
        if not base.exists():
            _run(options, "base", seed)
        found = scores(base.parent / "last.pt", options.root, averaged=False)
        write_atomically(path, json.dumps(found, indent=1) + "\n")
        return
    init, steps = options.init, options.steps
    if variant.before:
        first = path.parent.with_name(path.parent.name + "-before")
        steps = max(1, options.steps // 4)
        if not has_ended(first):
            _train(options, variant, variant.before, first, seed, steps, init)
        init, steps = first / "last.pt", max(1, options.steps - steps)
    _train(options, variant, variant.options, path.parent, seed, steps, init)
    if options.measure == "yardstick":
        results = json.loads((path.parent / "results.json").read_text())
        found = {name: results["metrics"][name] for name in YARDSTICK if name in results["metrics"]}
    else:
        found = scores(path.parent / "last.pt", options.root)
    write_atomically(path, json.dumps(found, indent=1) + "\n")


def _train(
    options: Options, variant: Variant, chosen: tuple[str, ...], run: Path, seed: int, steps: int, init: Path | None
) -> None:
    """One `perception train`, or the rest of one."""
    if (run / "config.json").exists():  # killed before its first checkpoint, it begins again
        words = ["--resume", str(run)]
    else:
        words = [
            "--preset", options.preset, "--out", str(run), "--seed", str(seed),
            "--data.root", str(root_without(options, variant.without)), "--data.workers", "0", "--threads", "1",
            "--steps", str(steps), "--batch", str(options.batch),
            "--data.crop-hw", *map(str, options.crop_hw),
            "--learning-rate", str(options.learning_rate), "--warmup-steps", str(max(1, steps // 10)),
            "--evaluate-every", str(steps + 1), "--checkpoint-every", "100", "--model.no-pretrained",
            *(["--compile"] if options.compile else []),
            *_filled(options.more, {"root": options.root, "out": options.out}), *chosen,
        ]  # fmt: skip
        if init is not None:
            words += ["--init", str(init.resolve())]
    if options.measure == "yardstick":
        _train_here(words, options.distinct)
        return
    subprocess.run(
        [sys.executable, "-m", "perception.cli.main", "train", *words], check=True, stdout=subprocess.DEVNULL
    )


def _train_here(words: list[str], distinct: int) -> None:
    """Train in this process, with the yardstick in place of the run's own evaluation.

    Runs that see the same images share them, and the features of a backbone that is frozen whole.
    """
    from training.cli import TrainOptions, train_options
    from training.loop import train

    def score(network: Network, *_: object, **__: object) -> dict[str, float]:
        from tools.benchmarks.yardstick import headline
        from training.backend import torch_model

        detect = Detector(torch_model(network, config.data.validation_hw))
        return headline(detect, config.data.root, boxes="detection" in network.config.heads)

    options: TrainOptions = train_options(words)
    config = options.training
    make = partial(KEPT.network, frozen=config.optimiser.frozen_stages == 4 and config.optimiser.frozen_norm)
    resume = options.resume is not None
    train(
        config,
        options.out,
        resume=resume,
        init=options.init,
        make=make,
        score=score,
        feed=partial(KEPT.batches, distinct),
    )


class Kept:
    """What several runs of a study share: batches, and features of a frozen backbone.

    Those of training images are kept for one seed, those of the yardstick's frames for all.
    """

    def __init__(self) -> None:
        self._batches: dict[str, list[Batch]] = {}
        self._features: dict[bool, dict[tuple[str, bytes], list[Tensor]]] = {True: {}, False: {}}
        """With gradients, which is training, and without."""
        self._seed = -1

    def __deepcopy__(self, _: object) -> Kept:
        return self  # the average of the weights is a copy of the network, and shares the features

    def batches(self, distinct: int, sets: TrainingSets | None, config: TrainConfig, first: int) -> Iterable[Batch]:
        """Return the batches of a run from a step on."""
        from training.data import batches

        steps = config.schedule.steps
        if config.schedule.seed != self._seed:
            self._seed = config.schedule.seed
            self._batches.clear()
            self._features[True].clear()
        key = repr((config.data, config.augment, config.schedule))
        if key not in self._batches:
            self._batches[key] = list(islice(batches(sets, config, 0), distinct or steps))
        made = self._batches[key]
        return [made[step % len(made)] for step in range(first, steps)]

    def network(self, config: ModelConfig, frozen: bool) -> Network:
        """Return a network; a frozen backbone computes the features of an image once for all runs."""
        from training.models.network import Network

        network = Network(config)
        if frozen:
            kept = partial(self._forward, network.backbone.forward, str(config.backbone_weights))
            network.backbone.forward = kept  # type: ignore[method-assign]
        return network

    def _forward(self, forward: Callable[[Tensor], list[Tensor]], name: str, images: Tensor) -> list[Tensor]:
        import torch

        features = self._features[torch.is_grad_enabled()]
        keys = [(name, hashlib.sha1(image.contiguous().numpy().tobytes()).digest()) for image in images]
        missing = [k for k, key in enumerate(keys) if key not in features]
        if missing:
            with torch.no_grad():
                maps = forward(images[missing])
            for place, k in enumerate(missing):
                features[keys[k]] = [level[place].clone() for level in maps]
        return [torch.stack([features[key][level] for key in keys]) for level in range(4)]


KEPT = Kept()


def root_without(options: Options, folders: tuple[str, ...]) -> Path:
    """The data without some of its folders: a tree of links to the rest."""
    if not folders:
        return options.root
    if not options.root.is_dir():
        raise UserError(f"{options.root}: no such folder", "the data", "--root FOLDER")
    made = options.out / ("data-without-" + "-".join(folder.replace("/", "_") for folder in folders))

    def link(source: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for child in sorted(source.iterdir()):
            inside = str(child.relative_to(options.root))
            if inside in folders or (target / child.name).is_symlink():
                continue
            if any(folder.startswith(inside + "/") for folder in folders):
                link(child, target / child.name)
            else:
                (target / child.name).symlink_to(child)

    link(options.root, made)
    return made


def scores(checkpoint: Path, root: Path, averaged: bool = True) -> dict[str, float]:
    """All measures of a checkpoint's averaged or raw weights on held-out drives, in per cent, at its run's size."""
    from training.checkpoint import holdout_of, load_network

    network, state = load_network(checkpoint)
    if not averaged:
        network.load_state_dict(state["network"])
    height, width = json.loads(state["description"])["config"]["data"]["validation_hw"]
    return measures(network, root, (height, width), holdout=holdout_of(state))


def measures(
    network: Network,
    root: Path,
    validation_hw: tuple[int, int] | None = None,
    road: bool = True,
    holdout: Holdout | None = None,
) -> dict[str, float]:
    """All measures of a network on held-out drives, in per cent; of what is plainly seen (`PLAIN`) the number of
    objects, and of those found by the score from which the tracker believes.

    Args:
        network: in evaluation mode.
        root: the data.
        validation_hw: size of its input; None: as `perception train` has it.
        road: False for a network that knows no road.
        holdout: of the network's checkpoint; None derives it from the data.
    """

    from training.backend import torch_model
    from training.config import DataConfig
    from training.evaluate import object_scores, road_scores
    from training.sets import find_sets

    data = DataConfig(root=root)
    sets = find_sets(data, holdout, network.config.class_infos)
    detect = Detector(torch_model(network, validation_hw or data.validation_hw))
    found: dict[str, float] = {}
    if sets.objects is not None:
        found |= object_scores(detect, sets.objects, network.config.class_infos)
        pairs = [(sample, detect(sample.image_bgr)[0]) for sample in held_out_frames(root, sets.holdout)]
        for class_id, name in enumerate(CLASS_NAMES):
            ap, f1 = ap_and_f1(pairs, class_id)
            found |= {f"{name.lower()}_ap50": 100 * ap, f"{name.lower()}_f1_50": 100 * f1}
            several = np.array([ap_and_f1(pairs, class_id, overlap) for overlap in OVERLAPS[class_id]])
            ap, f1 = several.mean(0).tolist()
            found |= {f"{name.lower()}_ap_mean": 100 * ap, f"{name.lower()}_f1_mean": 100 * f1}
        plain = KittiObject(root / "kitti/object", rule=PLAIN)
        near = (plainly_seen(plain[i]) for i in sets.objects.indices)
        shown = [(sample, detect(sample.image_bgr)[0]) for sample in near]
        for class_id, name in enumerate(CLASS_NAMES):
            if confirm_threshold_key(name) in found:
                seen, right = found_from(found[confirm_threshold_key(name)], shown, class_id)
                found |= {f"{name.lower()}_plain": seen, f"{name.lower()}_plain_found": right}
    if road and sets.road is not None:
        found |= road_scores(detect, sets.road)
    return found


def held_out_frames(root: Path, holdout: Holdout) -> Iterator[Sample]:
    """Held-out object frames, then held-out tracking frames."""
    for opened in open_sets(root, only=("kitti/object", "kitti/tracking")):
        for i in holdout.indices(opened.data_set.name, opened.source.names):
            yield opened.source[i]


def plainly_seen(sample: Sample) -> Sample:
    """A frame in which what is farther than `PLAIN_M`, or nobody knows how far, is neither found nor missed."""
    assert sample.boxes_xyxy is not None and sample.class_ids is not None and sample.distances_m is not None
    assert sample.ignore_boxes_xyxy is not None and sample.ignore_class_ids is not None
    near = sample.distances_m <= PLAIN_M
    return replace(
        sample,
        boxes_xyxy=sample.boxes_xyxy[near],
        class_ids=sample.class_ids[near],
        distances_m=sample.distances_m[near],
        ignore_boxes_xyxy=np.concatenate([sample.ignore_boxes_xyxy, sample.boxes_xyxy[~near]]),
        ignore_class_ids=np.concatenate([sample.ignore_class_ids, sample.class_ids[~near]]),
    )


def found_from(score: float, pairs: Sequence[tuple[Sample, Detections]], class_id: int) -> tuple[int, int]:
    """How many objects of a class there are, and how many of them a detection of at least that score is on."""
    matches = pool(match_sample(*pair, class_id) for pair in pairs)
    return matches.n_objects, int((matches.is_true & (matches.scores >= score)).sum())


def ap_and_f1(pairs: Sequence[tuple[Sample, Detections]], class_id: int, overlap: float = 0.5) -> tuple[float, float]:
    """Area under the precision-recall curve and best F1 of one class.

    Args:
        pairs: truth and detections of each frame.
        class_id: which class.
        overlap: IoU from which a detection matches an object.
    """
    matches = pool(match_sample(*pair, class_id, overlap) for pair in pairs)
    return average_precision(matches), best_f1(matches)


Results = dict[str, dict[int, dict[str, float]]]
"""Variant → seed → measure → value."""


def read_results(out: Path, names: Sequence[str] = tuple(VARIANTS)) -> Results:
    """All scores of these variants that are there."""
    results: Results = {}
    for name in (*names, COMPARED):
        for path in sorted(out.glob("*/scores.json")):
            seed = path.parent.name.rsplit("-", 1)[-1]
            if seed.isdecimal() and path == result_path(out, name, int(seed)):
                results.setdefault(name, {})[int(seed)] = json.loads(path.read_text())
    return results


def table(results: Results, measures: Sequence[str] = MEASURES, titles: Sequence[str] = TITLES) -> str:
    """Return Markdown: median (lowest–highest) over the seeds, and the median difference from base at the same seeds.

    A difference is in bold where every seed agrees on its sign and it is larger than the range of base.
    """
    base = results.get("base", {})
    lines = ["| variant | seeds | " + " | ".join(titles) + " |", "|---|---|" + "---|" * len(titles)]
    for name, runs in results.items():
        cells = []
        for measure in measures:
            known = {seed: run[measure] for seed, run in runs.items() if measure in run}
            if not known:  # a network without this task
                cells.append("–")
                continue
            values = list(known.values())
            spread = f" ({min(values):.1f}–{max(values):.1f})" if len(values) > 1 else ""
            change = (
                "" if name == "base" else _change(known, {s: r[measure] for s, r in base.items() if measure in r})
            )
            cells.append(f"{np.median(values):.1f}{spread}{change}")
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _change(known: Mapping[int, float], base: Mapping[int, float]) -> str:
    """Return the median difference from base at the same seeds, bold where it is more than chance explains."""
    pairs = [value - base[seed] for seed, value in known.items() if seed in base]
    if not pairs:
        return ""
    change = float(np.median(pairs))
    wide = max(base.values()) - min(base.values())
    clear = len(pairs) > 1 and (min(pairs) > 0 or max(pairs) < 0) and abs(change) > wide
    return f", **{change:+.1f}**" if clear else f", {change:+.1f}"


if __name__ == "__main__":
    sys.exit(main())
