"""Remove the channels of a network that matter least for their work, as a start for a shorter fine-tuning.

    python -m tools.recipes.prune small.pt --root DATA --share 0.4 --out small-40.pt
    perception train --preset small --init small-40.pt --distill.network small.pt --out runs/small-40

Whole groups of channels go: those of every layer that a channel connects (DepGraph, Fang et al., CVPR 2023, package
`torch-pruning`, extra `prune`). `tools.recipes.importance` tells what a channel is worth. The layers that are left
get new weights by least squares (`tools.recipes.reconstruct`). The checkpoint carries the channels, so
`perception train --init`, `perception export` and everything else build the same network. Outputs keep their
channels. A branch of 3-D boxes is left out; `tools.recipes.cuboid_branch` trains a new one.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

from perception.errors import MissingDependencyError, UserError
from tools.recipes.importance import channel_importance
from tools.recipes.reconstruct import norms_of, reconstruct
from training.checkpoint import load_network, model_config_to_json, save_checkpoint
from training.config import AugmentConfig, DataConfig, ScheduleConfig, TrainConfig
from training.data import batches
from training.models.network import Network
from training.models.widths import widths_of
from training.sets import find_sets

TRACED_HW = (96, 320)
"""Size of the image that finds the connections and counts the work; shares do not depend on it."""
CROP_HW = (256, 384)
"""Size of the crops of training frames."""
MOST = 0.9
"""No layer loses more than this share of its channels."""
VALUE_COST = 4
"""Multiply-adds that count as much as reading or writing one value of a map; in profiles it is 3 to 20."""
AT_ONCE = 8
"""One group of channels in this many loses a block in each round, before the costs are counted again."""


@dataclass(frozen=True)
class Options:
    """Prune a checkpoint."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Checkpoint, or the name of a shipped one."""
    out: Path
    """Checkpoint to write."""
    root: Path = Path("../shared/data")
    """Dataset root, whose training frames tell what a channel is worth. Labels are not used."""
    images: int = 64
    """Crops of training frames."""
    share: float = 0.4
    """Share of the work to remove: of the multiply-adds, and of the values that convolutions read and write."""
    multiple: int = 16
    """Channels of a layer stay a multiple of this. A vector holds 8 (AVX2) or 16 (AVX-512), and what is filled up
    takes as long as what is used."""
    rounds: int = 3
    """Rounds in which channels are removed. After each, the layers that are left get new weights, and the worth of
    their channels is measured again."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pruned checkpoint and print what is left."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.recipes.prune", description=__doc__)
    try:
        write_pruned(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def write_pruned(options: Options) -> None:
    """Prune, refit and write.

    Raises:
        UserError: the share is not in 0..1 or cannot be removed, or see `prune`.
    """
    if not 0 <= options.share < 1:
        raise UserError(f"--share {options.share:g}", "from 0 to below 1", "--share 0.4")
    network, state = load_network(options.checkpoint)
    network = without_cuboids(network)
    unpruned = copy.deepcopy(network)
    images = training_images(options.root, options.images)
    kept_channels: dict[str, Tensor] = {}
    for round_ in range(1, options.rounds + 1):
        part = 1 - (1 - options.share) ** (1 / options.rounds)  # of what is left
        kept_channels = through(kept_channels, prune(network, part, images, options.multiple))
        errors = reconstruct(network, unpruned, kept_channels, images)
        left = work_of(network) / work_of(unpruned)
        missed = median(errors.values())
        print(f"round {round_}: {left:.0%} of the work; the median layer misses {missed:.0%} of its variance")
    if left > 1 - options.share + 0.02:
        raise UserError(f"{1 - left:.0%} of the work can be removed", f"--share up to {1 - left:.2f}")
    kept = {k: v for k, v in state.items() if k not in ("network", "optimiser", "progress", "format", "scaler")}
    config = replace(network.config, widths=widths_of(network))
    description = json.loads(state["description"])
    description["pruned"] = {"from": options.checkpoint.name, "share": options.share, "multiple": options.multiple}
    kept |= {"ema": network.state_dict(), "model_config": model_config_to_json(config)}
    save_checkpoint(options.out, {**kept, "description": json.dumps(description)})
    parameters = sum(p.numel() for p in network.parameters())
    print(f"done: {options.out}, {left:.0%} of the work, {parameters / 1e6:.2f} million parameters")


def training_images(root: Path, count: int) -> Tensor:
    """Return crops of the training frames of a dataset root: (N, H, W, 3) uint8 BGR.

    Raises:
        UserError: there are no training frames.
    """
    config = TrainConfig(
        data=DataConfig(root=root, crop_hw=CROP_HW, synthetic_share=0, workers=0),
        augment=AugmentConfig(copy_paste=0, mosaic=0, off_for_last=1),
        schedule=ScheduleConfig(steps=1, batch=count, warmup_steps=0),
    )
    return next(batches(find_sets(config.data), config, 0)).images


def through(kept: Mapping[str, Tensor], later: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the channels that are left after two rounds; a layer that the first does not name had all."""
    return {name: kept[name][channels] if name in kept else channels for name, channels in later.items()}


def without_cuboids(network: Network) -> Network:
    """Return the network without its branch of 3-D boxes, in evaluation mode."""
    config = network.config
    if "detection" not in config.heads or not config.detection.cuboid:
        return network
    plain = Network(replace(config, detection=replace(config.detection, cuboid=False, cuboid_distance=False)))
    names = plain.state_dict().keys()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if name in names})
    return plain.eval()


def prune(network: Network, share: float, images: Tensor, multiple: int = 16) -> dict[str, Tensor]:
    """Remove the channels that are worth least for their work, in place, until a share of the work is gone.

    Args:
        network: network in evaluation mode.
        share: share to remove.
        images: (N, H, W, 3) uint8 BGR, see `channel_importance`.
        multiple: see `Options`.

    Returns:
        The channels that are left of each convolution's outputs, by its name.

    Raises:
        UserError: `torch-pruning` is missing, or the network has layers that cannot be pruned here.
    """
    try:
        import torch_pruning as tp
    except ImportError:
        raise MissingDependencyError("torch-pruning", "prune", "pruning") from None
    widths_of(network)  # refuses layers that a checkpoint's widths cannot describe
    channels = Channels(network, channel_importance(network, images), multiple)
    network.requires_grad_(True)  # the connections are read from the graph of the gradient
    example = torch.zeros((1, *TRACED_HW, 3), dtype=torch.uint8)
    graph = tp.DependencyGraph().build_dependency(network, example, output_transform=tensors_of)
    ignored = outputs_of(network)
    wanted = (1 - share) * work_of(network, channels.places)
    while (work := work_of(network, channels.places)) > wanted:
        groups = graph.get_all_groups(ignored_layers=ignored, root_module_types=[nn.Conv2d])
        blocks = sorted(filter(None, map(channels.least_block, groups)), key=lambda block: block.worth / block.cost)
        if not blocks:
            break
        for block in blocks[: max(1, len(blocks) // AT_ONCE)]:
            if work <= wanted:
                break
            work -= block.cost
            root = block.group[0].dep
            chosen = graph.get_pruning_group(root.layer, root.handler, block.idxs)
            channels.forget(chosen)
            chosen.prune()
    network.eval()
    return channels.kept


@dataclass(frozen=True)
class _Block:
    """Channels of a group that go together."""

    group: Any
    idxs: list[int]
    worth: float
    cost: int
    """Work that goes with them, see `work_of`."""


class Channels:
    """What the channels of each convolution are worth and cost, while they are removed."""

    def __init__(self, network: nn.Module, importance: Mapping[str, Tensor], multiple: int) -> None:
        self.multiple, self.places = multiple, places_of(network)
        self._names = {module: name for name, module in network.named_modules()}
        convolutions = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
        self.kept = {name: torch.arange(m.out_channels) for name, m in convolutions.items()}
        self._least = {name: max(multiple, m.out_channels * (1 - MOST)) for name, m in convolutions.items()}
        # a depthwise convolution has the channels of the convolution before it
        self._worth = {
            name: importance[self._names[norm]]
            for name, norm in norms_of(network).items()
            if convolutions[name].groups == 1
        }

    def least_block(self, group: Any) -> _Block | None:
        """Return the channels of a group that are worth least, up to the next multiple; None where all must stay."""
        worth, cost = torch.zeros(len(group[0].idxs)), 0
        order = len(worth) % self.multiple or self.multiple
        for name, conv, outputs, idxs in self._members(group):
            places = self.places[name]
            size = places.written * conv.kernel_size[0] * conv.kernel_size[1]
            if not outputs:
                cost += size * conv.out_channels + VALUE_COST * places.read if conv.groups == 1 else 0
                continue
            if conv.out_channels - order < self._least[name]:
                return None
            cost += size * conv.in_channels // conv.groups + VALUE_COST * places.written
            cost += VALUE_COST * places.read if conv.groups > 1 else 0
            if name in self._worth:
                worth += self._worth[name][self.kept[name]][idxs]
        chosen = worth.argsort()[:order]
        return _Block(group, chosen.tolist(), float(worth[chosen].sum()), cost * order)

    def forget(self, group: Any) -> None:
        """Note that the channels of a group go."""
        for name, _, outputs, idxs in self._members(group):
            if outputs:
                stays = torch.ones(len(self.kept[name]), dtype=torch.bool)
                stays[idxs] = False
                self.kept[name] = self.kept[name][stays]

    def _members(self, group: Any) -> Iterator[tuple[str, nn.Conv2d, bool, Tensor]]:
        """Return name, convolution, whether its outputs are meant, and the channels."""
        for dependency, idxs in group:
            conv = dependency.layer
            if isinstance(conv, nn.Conv2d):
                outputs = group._DG.is_out_channel_pruning_fn(dependency.handler)
                yield self._names[conv], conv, outputs, torch.tensor(idxs)


def outputs_of(network: Network) -> list[nn.Module]:
    """Return the layers that compute logits: the convolutions outside the backbone that have a bias."""
    return [
        module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.bias is not None and not name.startswith("backbone.")
    ]


def tensors_of(raw: Any) -> list[Tensor]:
    """Return all tensors with a gradient in the raw outputs of the heads."""
    found: list[Tensor] = []
    for value in raw.values():
        parts = [value] if isinstance(value, Tensor) else vars(value).values()
        found += [part for part in parts if isinstance(part, Tensor) and part.grad_fn is not None]
    return found


@dataclass(frozen=True)
class Places:
    """Pixels of the maps of a convolution for an image of `TRACED_HW`, in all its calls."""

    read: int
    written: int


@torch.no_grad()
def places_of(network: nn.Module) -> dict[str, Places]:
    """Return the pixels that each convolution reads and writes, by name."""
    counts: dict[str, Places] = {}

    def counter(name: str) -> Callable[..., None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            before = counts.get(name, Places(0, 0))
            counts[name] = Places(before.read + inputs[0][0, 0].numel(), before.written + output[0, 0].numel())

        return add

    hooks = [
        m.register_forward_hook(counter(name)) for name, m in network.named_modules() if isinstance(m, nn.Conv2d)
    ]
    network(torch.zeros((1, *TRACED_HW, 3), dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return counts


def work_of(network: nn.Module, places: Mapping[str, Places] | None = None) -> int:
    """Return the work of all convolutions for an image of `TRACED_HW`: their multiply-adds, and `VALUE_COST` for each
    value that they read or write."""
    places = places or places_of(network)
    return sum(
        places[name].written * (m.weight.numel() + VALUE_COST * m.out_channels)
        + places[name].read * VALUE_COST * m.in_channels
        for name, m in network.named_modules()
        if isinstance(m, nn.Conv2d)
    )


if __name__ == "__main__":
    sys.exit(main())
