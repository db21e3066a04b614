"""Give the layers of a pruned network the weights that best repeat the unpruned one, by least squares.

Layer after layer, in the order of execution: the inputs are those of the pruned network, the targets are what the
unpruned network has at the channels that are left, after batch norm (He et al., ICCV 2017, channel pruning). A
ridge holds the weights near the inherited ones where images say nothing. A few images without labels suffice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POSITIONS = 8_000
"""Most places of a layer's map, over all images, that its weights are fitted to."""
DEPTHWISE_POSITIONS = 1_500
"""The same for depthwise layers, which have a few weights a channel."""
RIDGE = 1e-3
"""Weight of the inherited weights, relative to the mean square of the inputs."""

Places = tuple[Tensor, Tensor, Tensor]
"""Image, row and column of the places of one map."""


@torch.no_grad()
def reconstruct(
    pruned: nn.Module, unpruned: nn.Module, kept: Mapping[str, Tensor], images: Tensor
) -> dict[str, float]:
    """Fit the convolutions of a pruned network, in place.

    Args:
        pruned: network in evaluation mode.
        unpruned: network that it was made from, in evaluation mode.
        kept: channels that are left of the outputs of each convolution, by its name; all where it is missing.
        images: (N, H, W, 3) uint8 BGR, in one batch.

    Returns:
        Share of the variance of its targets that each layer misses, the median of its channels.
    """
    norms, sums = norms_of(unpruned), sums_of(unpruned)
    targets: dict[str, list[tuple[Places, Tensor]]] = defaultdict(list)
    generator = torch.Generator().manual_seed(0)

    def watch(name: str, most: int) -> Callable[..., None]:
        def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            places = choose_places(output, most, generator)
            values = at(output, places)
            targets[name].append((places, values[:, kept[name]] if name in kept else values))

        return remember

    convolutions = {name: m for name, m in unpruned.named_modules() if isinstance(m, nn.Conv2d)}
    hooks = []
    for name, conv in convolutions.items():
        watched = sums[name] if name in sums else norms.get(name, conv)
        most = POSITIONS if conv.groups == 1 else DEPTHWISE_POSITIONS
        hooks.append(watched.register_forward_hook(watch(name, most)))
    unpruned(images)
    for hook in hooks:
        hook.remove()

    errors: dict[str, float] = {}
    ours, ours_sums = norms_of(pruned), sums_of(pruned)
    waiting, added = dict(targets), dict[str, Tensor]()

    def keep_input(name: str) -> Callable[..., None]:
        def before(block: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if name in waiting:
                added[name] = at(arguments[0], waiting[name][0][0])

        return before

    def fit(name: str, inputs: dict[str, list[Tensor]]) -> Callable[..., None]:
        def before(conv: nn.Conv2d, arguments: tuple[Tensor, ...]) -> None:
            if name not in waiting or len(inputs[name]) == len(waiting[name]):
                return
            places = waiting[name][len(inputs[name])][0]
            inputs[name].append(patches(conv, arguments[0], places))
            if len(inputs[name]) == len(waiting[name]) == 1:  # later layers of this pass see the new weights
                solve()

        def solve() -> None:
            wanted = torch.cat([values for _, values in waiting.pop(name)])
            if name in added:  # the sum shall be right, so what it is added to may be wrong
                wanted = wanted - added.pop(name)
            errors[name] = fit_layer(layers[name], ours.get(name), torch.cat(inputs.pop(name)), wanted)

        finish[name] = solve
        return before

    layers = {name: m for name, m in pruned.named_modules() if isinstance(m, nn.Conv2d)}
    arguments: dict[str, tuple[Any, ...]] = {}
    parts = dict(pruned.named_children())
    run: Callable[[], Any] = lambda: pruned(images)  # noqa: E731
    while waiting:  # a layer that runs several times is fitted after a pass, the first of them first
        inputs: dict[str, list[Tensor]] = defaultdict(list)
        finish: dict[str, Callable[[], None]] = {}
        hooks = [m.register_forward_pre_hook(keep_input(name)) for name, m in ours_sums.items()]
        hooks += [m.register_forward_pre_hook(fit(name, inputs)) for name, m in layers.items()]
        if not arguments:
            hooks += [m.register_forward_pre_hook(partial(_note, arguments, name)) for name, m in parts.items()]
        run()
        for hook in hooks:
            hook.remove()
        if left := next((name for name in inputs if inputs[name]), None):
            finish[left]()
        if waiting:  # only the part that has them runs again
            part = next(iter(waiting)).partition(".")[0]
            run = partial(parts[part], *arguments[part])
    return errors


def _note(into: dict[str, tuple[Any, ...]], name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
    into[name] = arguments


def norms_of(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """Return the batch norm that follows a convolution, by the convolution's name."""
    pairs = pairwise(network.named_modules())
    return {a: n for (a, m), (_, n) in pairs if isinstance(m, nn.Conv2d) and isinstance(n, nn.BatchNorm2d)}


def sums_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks of MobileNets that add their input, by the name of their last convolution."""
    found: dict[str, nn.Module] = {}
    for name, block in network.named_modules():
        if getattr(block, "use_res_connect", False):
            last = [inner for inner, m in block.named_modules() if isinstance(m, nn.Conv2d)][-1]
            found[f"{name}.{last}"] = block
    return found


def choose_places(output: Tensor, most: int, generator: torch.Generator) -> Places:
    """Return some places of a map (N, C, H, W)."""
    count, _, height, width = output.shape
    total = count * height * width
    chosen = torch.randperm(total, generator=generator)[:most]
    return chosen // (height * width), chosen % (height * width) // width, chosen % width


def at(values: Tensor, places: Places) -> Tensor:
    """Return the values (P, C) of a map (N, C, H, W)."""
    image, row, column = places
    return values[image, :, row, column]


def patches(conv: nn.Conv2d, x: Tensor, places: Places) -> Tensor:
    """Return what a convolution sees at places of its output: (P, C, k·k)."""
    image, row, column = places
    (up, left), (down, right) = conv.padding, conv.stride  # type: ignore[misc]
    x = F.pad(x, (left, left, up, up))  # type: ignore[arg-type]
    seen = [
        x[image, :, row * down + i * conv.dilation[0], column * right + j * conv.dilation[1]]
        for i in range(conv.kernel_size[0])
        for j in range(conv.kernel_size[1])
    ]
    return torch.stack(seen, -1)


def fit_layer(conv: nn.Conv2d, norm: nn.BatchNorm2d | None, seen: Tensor, wanted: Tensor) -> float:
    """Set a convolution and its batch norm to the least-squares fit of wanted (P, D) to patches (P, C, k·k).

    Returns:
        Share of the variance that the median channel misses.
    """
    scale = torch.ones(conv.out_channels)
    if norm is not None:
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]
    weight = conv.weight.flatten(2) * scale[:, None, None]  # (D, C or 1, k·k)
    alone = conv.groups > 1  # one group a channel
    x = seen.transpose(0, 1) if alone else seen.flatten(1)[None]  # (G, P, F)
    y = wanted.T[..., None] if alone else wanted[None]  # (G, P, 1 or D)
    inherited = weight.flatten(1)[..., None] if alone else weight.flatten(1).T[None]  # (G, F, 1 or D)
    middle_x, middle_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    x, y = x - middle_x, y - middle_y
    left = y - x @ inherited  # what inherited weights and the best bias miss
    square = x.transpose(1, 2) @ x
    ridge = RIDGE * square.diagonal(dim1=1, dim2=2).clamp(min=1e-6)
    square = square + torch.diag_embed(ridge)  # each input by its own size: a few have a thousand times the others'
    best = inherited + torch.linalg.solve(square.double(), (x.transpose(1, 2) @ left).double()).float()
    bias = (middle_y - middle_x @ best).transpose(1, 2).flatten()  # (D,)
    weight = (best.transpose(1, 2) if not alone else best).reshape(weight.shape)
    conv.weight.copy_(weight.view_as(conv.weight))
    outputs = torch.einsum("pck,ck->pc", seen, weight[:, 0]) if alone else seen.flatten(1) @ weight.flatten(1).T
    if norm is None:
        assert conv.bias is not None
        conv.bias.copy_(bias)
    else:  # its statistics are those of the layer, so that training may go on
        mean, variance = outputs.mean(0), outputs.var(0, unbiased=False)
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean + bias)
    missed = (outputs + bias - wanted).square().mean(0) / wanted.var(0, unbiased=False).clamp(min=1e-9)
    return float(missed.median())
