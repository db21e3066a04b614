"""Train the 3-D branch of a finished network alone, in minutes on a CPU.

`perception train --train-only detection.cuboid` runs the whole network at every step, although all but the branch is
frozen. This tool runs it once over augmented images and keeps what the branch sees of each object. Then it trains the
branch on that for many epochs. All other weights of the checkpoint stay as they are, to the bit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from perception.errors import UserError
from perception.files import write_atomically
from perception.progress import Progress
from training.checkpoint import load_checkpoint, load_network, model_config_to_json, save_checkpoint
from training.config import AugmentConfig, DataConfig, ScheduleConfig, TrainConfig
from training.data import ImageStream
from training.models.cuboid import PREFIX, CuboidBranch, RawCuboids, widen
from training.models.network import Network
from training.sets import TrainingSets, find_sets

LABELLED = {"kitti/object": 0.4, "kitti/tracking": 0.3, "kitti/tracking_640x192": 0.12}
"""Sets with 3-D labels, and their weights."""
POINTS_EACH = 3
"""Points kept of each object in an image, the best aligned ones."""
DISTANCE = PREFIX + "distance."
"""Of the names of the weights that give distances."""
STORE_EVERY = 20
"""Images between two writes of what the branch saw."""
COLUMNS = ("sampled", "boxes", "box_features", "class_ids", "truth", "weights", "depths")


@dataclass(frozen=True)
class Options:
    """Train the 3-D branch of a checkpoint."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Checkpoint of a network with the distance head."""
    root: Path = Path("../shared/data")
    """Dataset root, as in `perception train`."""
    out: Path = Path("runs/cuboid.pt")
    """Checkpoint to write. What the branch sees is kept beside it, as a .npz file."""
    images: int = 1500
    """Augmented images to look at."""
    streets: int = 150
    """Number of distinct synthetic streets."""
    synthetic_share: float = 0.2
    """Share of the images that are synthetic streets."""
    epochs: int = 30
    """Passes over the objects."""
    learning_rate: float = 2e-3
    """Peak learning rate, with cosine decay."""
    weight_decay: float = 0.05
    """Weight decay."""
    batch: int = 512
    """Objects in a step."""
    dropout: float = 0.0
    """Share of the features that are left out at random in a step."""
    part: Literal["shape", "distance", "both"] = "shape"
    """What to train: a new branch; a part of the branch that gives distances instead of the distance head, beside the
    checkpoint's branch as it is; or a new branch with distances."""
    widen: tuple[float, ...] = ()
    """Factors on the spreads of size and angle, the doubt about front and rear, and the spread of distance, from
    held-out frames: a branch knows its training set too well."""
    seed: int = 1
    """Random seed."""


class Watched(CuboidBranch):
    """A branch that keeps what it is trained with."""

    seen: dict[str, Tensor]

    def predict(self, sampled: Tensor, boxes: Tensor, box_features: Tensor) -> RawCuboids:
        self.seen = {"sampled": sampled, "boxes": boxes, "box_features": box_features}
        return super().predict(sampled, boxes, box_features)

    def losses(
        self, raw: RawCuboids, boxes: Tensor, class_ids: Tensor, truth: Tensor, weights: Tensor, depths: Tensor
    ) -> dict[str, Tensor]:
        self.seen |= {"class_ids": class_ids, "truth": truth, "weights": weights, "depths": depths}
        return super().losses(raw, boxes, class_ids, truth, weights, depths)


def main(argv: Sequence[str] | None = None) -> int:
    """Look, train, and write the checkpoint."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.recipes.cuboid_branch", description=__doc__)
    try:
        network, state = with_branch(options)
        found = find_sets(replace(data_config(options), weights=tuple(f"{k}={v}" for k, v in LABELLED.items())))
        sets = replace(found, train=tuple(subset for subset in found.train if subset.name in LABELLED))
        seen = look(network, sets, options)
        fit(network.detection.cuboid, seen, options)  # type: ignore[arg-type]
        write(network, state, options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def data_config(options: Options) -> DataConfig:
    """Return the data to look at: crops near native scale."""
    return DataConfig(
        root=options.root,
        crop_hw=(320, 640),
        workers=0,
        streets=options.streets,
        synthetic_share=options.synthetic_share,
        mask_boxes=False,
    )


def with_branch(options: Options) -> tuple[Network, dict[str, Any]]:
    """Return the checkpoint's network with the part to train, in place of one that it may have; and the checkpoint.

    Raises:
        UserError: the network has no distance head, without which a 3-D box has no place, or no branch to add to.
    """
    old, state = load_network(options.checkpoint)
    if not old.config.detection.distance:
        raise UserError(
            f"{options.checkpoint}: no distance head", "a network trained with --model.detection.distance"
        )
    if options.part == "distance" and not old.config.detection.cuboid:
        raise UserError(f"{options.checkpoint}: no 3-D boxes", "a network that has them", "--part both")
    torch.manual_seed(options.seed)
    detection = replace(old.config.detection, cuboid=True, cuboid_distance=options.part != "shape")
    network = Network(replace(old.config, detection=detection))
    network.load_state_dict({**network.state_dict(), **kept(old.state_dict(), options)})
    return network.eval().requires_grad_(False), state


def kept(weights: dict[str, Tensor], options: Options) -> dict[str, Tensor]:
    """Return the weights that stay as they are."""
    trained = DISTANCE if options.part == "distance" else PREFIX
    return {name: value for name, value in weights.items() if not name.startswith(trained)}


def look(network: Network, sets: TrainingSets, options: Options) -> dict[str, Tensor]:
    """Return what the branch sees of the objects in augmented images. The .npz file of a broken run is continued."""
    path = options.out.with_suffix(".npz")
    parts, first = _stored(path)
    config = TrainConfig(
        model=network.config,
        data=data_config(options),
        augment=AugmentConfig(
            native_width=1242, scale_min=0.6, scale_max=1.4, copy_paste=0, mosaic=0, off_for_last=0
        ),
        schedule=ScheduleConfig(seed=options.seed),
    )
    stream = ImageStream(sets, config)
    branch = network.detection.cuboid
    assert branch is not None
    watched = Watched(branch.channels, network.config.class_names, box_channels=branch.box_channels)
    network.detection.cuboid = watched
    torch.set_num_threads(1)
    progress = Progress("images looked at", options.images)
    for n in range(first, options.images):
        batch = stream.collate([stream[n]])
        with torch.inference_mode():
            raw = network(batch.images)["detection"]
            network.detection.loss(raw, network.detection.targets(batch), config.data.crop_hw)
        for name, values in best_of_each(watched.seen).items():
            parts[name].append(values.numpy())
        progress.update(n + 1)
        if (n + 1) % STORE_EVERY == 0 or n + 1 == options.images:
            whole: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
            write_atomically(path, partial(np.savez, images=n + 1, **whole))
    progress.close()
    network.detection.cuboid = branch
    return {name: torch.from_numpy(np.concatenate(values)) for name, values in parts.items()}


def _stored(path: Path) -> tuple[dict[str, list[np.ndarray]], int]:
    """Return what is stored of each column, and the number of images that it comes from."""
    if not path.exists():
        return {name: [] for name in COLUMNS}, 0
    stored = np.load(path, allow_pickle=False)
    return {name: [stored[name]] for name in COLUMNS}, int(stored["images"])


def best_of_each(seen: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the rows with a known 3-D box, `POINTS_EACH` for each object; features at half precision."""
    truth, weights = seen["truth"], seen["weights"]
    kept: list[int] = []
    order = weights.argsort(descending=True).tolist()
    counts: dict[tuple[float, ...], int] = {}
    for row in order:
        key = tuple(truth[row].tolist())
        if np.isfinite(key).all() and counts.setdefault(key, 0) < POINTS_EACH:
            counts[key] += 1
            kept.append(row)
    rows = {name: values[kept].clone() for name, values in seen.items()}
    return rows | {name: rows[name].half() for name in ("sampled", "box_features")}


def fit(branch: CuboidBranch, seen: dict[str, Tensor], options: Options) -> None:
    """Train the branch, or its part for distances, in place on what it saw."""
    part = branch.distance if options.part == "distance" else branch
    assert part is not None
    part.requires_grad_(True).train()
    decayed = [p for p in part.parameters() if p.ndim > 1]
    rest = [p for p in part.parameters() if p.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": options.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        lr=options.learning_rate,
    )
    count, generator = len(seen["weights"]), torch.Generator().manual_seed(options.seed)
    if count < options.batch:
        raise UserError(f"{count} views of objects", f"at least one batch of {options.batch}", "--images or --batch")
    steps = options.epochs * (count // options.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, options.learning_rate / 100)
    print(f"{count} views of objects, {steps} steps", file=sys.stderr)
    for epoch in range(options.epochs):
        sums = np.zeros(1)
        for rows in torch.randperm(count, generator=generator)[: count // options.batch * options.batch].split(
            options.batch
        ):
            one = {name: values[rows] for name, values in seen.items()}
            raw = predict(branch, one, options)
            known = one["class_ids"], one["truth"], one["weights"], one["depths"]
            losses = branch.losses(raw, one["boxes"], *known)
            *named, weight = losses.values()
            optimiser.zero_grad()
            (torch.stack(named).sum() / weight).backward()
            optimiser.step()
            schedule.step()
            sums = sums + [float(value.detach()) for value in losses.values()]
        means = ", ".join(f"{name} {value / sums[-1]:.3f}" for name, value in zip(losses, sums, strict=True))
        print(f"epoch {epoch + 1}: {means}", file=sys.stderr, flush=True)
    branch.requires_grad_(False).eval()


def predict(branch: CuboidBranch, rows: dict[str, Tensor], options: Options) -> RawCuboids:
    """Return what the branch predicts for stored rows in training."""
    sampled, box_features = (F.dropout(rows[name].float(), options.dropout) for name in ("sampled", "box_features"))
    return branch.predict(sampled, rows["boxes"], box_features)


def write(network: Network, state: dict[str, Any], options: Options) -> None:
    """Write the checkpoint, after a check that nothing but the trained part has changed."""
    weights = network.state_dict()
    before = kept(load_checkpoint(options.checkpoint)["ema"], options)
    assert all(torch.equal(weights[name], value) for name, value in before.items()), "only the branch has changed"
    widen(weights, *options.widen)
    other = ("network", "optimiser", "progress", "format")
    rest = {name: value for name, value in state.items() if name not in other}
    description = json.loads(state["description"])
    description["cuboid_branch"] = {"images": options.images, "epochs": options.epochs, "seed": options.seed}
    rest |= {"ema": weights, "model_config": model_config_to_json(network.config)}
    save_checkpoint(options.out, {**rest, "description": json.dumps(description)})
    print(f"done: {options.out}")


if __name__ == "__main__":
    sys.exit(main())
