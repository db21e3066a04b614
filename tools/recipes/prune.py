"""Remove the channels of a network that matter least, as a start for a shorter fine-tuning.

    python -m tools.recipes.prune small.pt --share 0.4 --out small-40.pt
    perception train --preset small --init small-40.pt --distill.network small.pt --out runs/small-40

Whole groups of channels go: those of every layer that a channel connects (DepGraph, Fang et al., CVPR 2023, package
`torch-pruning`, extra `prune`). The checkpoint carries the channels that are left, so `perception train --init`,
`perception export` and everything else build the same network. Outputs keep their channels. A branch of 3-D boxes is
left out; `tools.recipes.cuboid_branch` trains a new one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

from perception.errors import MissingDependencyError, UserError
from training.checkpoint import load_network, model_config_to_json, save_checkpoint
from training.models.network import Network
from training.models.widths import widths_of

TRACED_HW = (96, 320)
"""Size of the image that finds the connections and counts the work; shares do not depend on it."""
MOST = 0.8
"""No layer loses more than this share of its channels."""
ROUNDS = 60
"""Steps in which channels are removed, until enough work is gone."""


@dataclass(frozen=True)
class Options:
    """Prune a checkpoint."""

    checkpoint: Annotated[Path, tyro.conf.Positional]
    """Checkpoint, or the name of a shipped one."""
    out: Path
    """Checkpoint to write."""
    share: float = 0.4
    """Share of the multiply-adds to remove."""
    multiple: int = 4
    """Channels of a layer stay a multiple of this, as vector instructions like them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pruned checkpoint and print what is left."""
    options = tyro.cli(Options, args=argv, prog="python -m tools.recipes.prune", description=__doc__)
    if not 0 <= options.share < 1:
        raise UserError(f"--share {options.share:g}", "from 0 to below 1", "--share 0.4")
    network, state = load_network(options.checkpoint)
    network = without_cuboids(network)
    before = multiply_adds(network)
    prune(network, options.share, options.multiple)
    left = multiply_adds(network) / before
    if left > 1 - options.share + 0.02:
        raise UserError(f"{1 - left:.0%} of the work can be removed", f"--share up to {1 - left:.2f}")
    kept = {k: v for k, v in state.items() if k not in ("network", "optimiser", "progress", "format", "scaler")}
    config = replace(network.config, widths=widths_of(network))
    description = json.loads(state["description"])
    description["pruned"] = {"from": options.checkpoint.name, "share": options.share, "multiple": options.multiple}
    kept |= {"ema": network.state_dict(), "model_config": model_config_to_json(config)}
    save_checkpoint(options.out, {**kept, "description": json.dumps(description)})
    parameters = sum(p.numel() for p in network.parameters())
    print(f"done: {options.out}, {left:.0%} of the multiply-adds, {parameters / 1e6:.2f} million parameters")
    return 0


def without_cuboids(network: Network) -> Network:
    """Return the network without its branch of 3-D boxes, in evaluation mode."""
    config = network.config
    if "detection" not in config.heads or not config.detection.cuboid:
        return network
    plain = Network(replace(config, detection=replace(config.detection, cuboid=False)))
    names = plain.state_dict().keys()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if name in names})
    return plain.eval()


def prune(network: Network, share: float, multiple: int = 4) -> None:
    """Remove the channels of least weight, in place, until a share of the multiply-adds is gone.

    Args:
        network: network in evaluation mode.
        share: share to remove.
        multiple: see `Options`.

    Raises:
        UserError: `torch-pruning` is missing, or the network has layers that cannot be pruned here.
    """
    try:
        import torch_pruning as tp
    except ImportError:
        raise MissingDependencyError("torch-pruning", "prune", "pruning") from None
    widths_of(network)  # refuses layers that a checkpoint's widths cannot describe
    network.requires_grad_(True)  # the connections are read from the graph of the gradient
    pruner = tp.pruner.BasePruner(
        network,
        torch.zeros((1, *TRACED_HW, 3), dtype=torch.uint8),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=MOST,
        max_pruning_ratio=MOST,
        iterative_steps=ROUNDS,
        round_to=multiple,
        ignored_layers=outputs_of(network),
        output_transform=tensors_of,
    )
    wanted = (1 - share) * multiply_adds(network)
    for _ in range(ROUNDS):
        if multiply_adds(network) <= wanted:
            break
        pruner.step()
    network.eval()


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


@torch.no_grad()
def multiply_adds(network: Network) -> int:
    """Return the multiply-adds of all convolutions for an image of `TRACED_HW`."""
    count = 0

    def counter(conv: nn.Conv2d) -> Callable[..., None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal count
            count += output[0, 0].numel() * conv.weight.numel()

        return add

    hooks = [m.register_forward_hook(counter(m)) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network(torch.zeros((1, *TRACED_HW, 3), dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return count


if __name__ == "__main__":
    sys.exit(main())
