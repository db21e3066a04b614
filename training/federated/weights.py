"""What server and clients exchange: the weights of a network as a list of arrays.

Batch norm: the global network shall have the statistics of all clients' images together. The mean of the variances is
not that variance: it lacks the spread between the clients. So a client sends the second moment E[x²] = σ² + μ² in
place of σ². Then every entry averages linearly, and σ² = E[x²] - μ² of the averages is the pooled variance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def norms_of(network: nn.Module) -> Iterator[_BatchNorm]:
    """Iterate over the batch norms that have running statistics."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            yield module


def arrays_of(network: nn.Module, statistics: bool = True) -> list[np.ndarray]:
    """Return copies of the parameters, then mean and second moment of each batch norm (float64).

    Args:
        network: network to send.
        statistics: whether to send the statistics of batch norms.
    """
    arrays = [p.detach().cpu().numpy().copy() for p in network.parameters()]
    for norm in norms_of(network) if statistics else ():
        mean, variance = (t.detach().cpu().numpy().astype(np.float64) for t in _statistics(norm))
        arrays += [mean, variance + mean**2]
    return arrays


@torch.no_grad()
def load_arrays(network: nn.Module, arrays: Sequence[np.ndarray], statistics: bool = True) -> None:
    """Copy arrays, as `arrays_of` returns them, into a network.

    Raises:
        ValueError: they belong to another network.
    """
    if problem := difference(arrays, arrays_of(network, statistics)):
        raise ValueError(problem)
    rest = iter(arrays)
    for p in network.parameters():
        p.copy_(torch.from_numpy(next(rest)))
    for norm in norms_of(network) if statistics else ():
        mean, second = next(rest), next(rest)
        mine = _statistics(norm)
        mine[0].copy_(torch.from_numpy(mean))
        mine[1].copy_(torch.from_numpy(np.maximum(second - mean**2, 0.0)))


def difference(arrays: Sequence[np.ndarray], like: Sequence[np.ndarray]) -> str:
    """Describe why arrays are no weights of the same network; empty where they are."""
    if len(arrays) != len(like):
        return f"{len(arrays)} arrays, expected {len(like)}"
    for i, (array, mine) in enumerate(zip(arrays, like, strict=True)):
        if array.shape != mine.shape or array.dtype != mine.dtype:
            return f"array {i} is {array.dtype} {array.shape}, expected {mine.dtype} {mine.shape}"
        if not np.isfinite(array).all():
            return f"array {i} has values that are not finite"
    return ""


def _statistics(norm: _BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var
