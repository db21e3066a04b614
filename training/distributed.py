"""Training with several processes: ranks, sums over all processes, and batch norm over all processes.

`torchrun` starts the processes and sets their ranks in the environment. With one process, these functions do nothing.
Each process takes a part of every batch. A loss sums over all processes before it divides (`sum_over_ranks`), so
every process has the loss of the whole batch. The gradient that DistributedDataParallel averages therefore equals
that of one process with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from perception.errors import UserError

T = TypeVar("T")


def rank() -> int:
    """Return the rank of this process. Rank 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launched() -> bool:
    """Return whether `torchrun` started this process, as its environment variables show."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launched_rank() -> int:
    """Return the rank of this process from the environment, also outside the process group."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """Return the rank of this process on its machine, which is the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group for the length of a block. Does nothing with one process.

    A block that fails does not notify the other processes, which may wait for it; `torchrun` ends them.

    Raises:
        UserError: another process has ended.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    except RuntimeError as error:
        if "by peer" not in str(error):  # gloo: closed or reset
            raise
        raise UserError(
            f"process {rank()}: another process of this run has ended",
            "all of them, to the end",
            "what that one said; then the same command with --resume",
        ) from None
    dist.barrier()
    dist.destroy_process_group()


def sum_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, with its gradient. With one process, return the tensor.

    Every process must make the same calls in the same order.
    """
    return all_reduce(value) if world() > 1 else value


def total(count: int, device: torch.device) -> int:
    """Return the sum of a count over all processes. Every process must make the same calls."""
    if world() == 1:
        return count
    value = torch.tensor(count, device=device)
    dist.all_reduce(value)
    return int(value)


def gather(items: Sequence[T]) -> list[T]:
    """Return the items of all processes, in the order of ranks, on every process. Lengths may differ."""
    if world() == 1:
        return list(items)
    parts: list[Any] = [None] * world()
    dist.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def from_first(value: T) -> T:
    """Return the value of rank 0 on every process."""
    if world() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class BatchNormOverRanks(nn.BatchNorm2d):
    """Batch norm over the batch of all processes, also on CPUs, which PyTorch's SyncBatchNorm does not support."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input (B, C, H, W), normalised by mean and variance over all processes."""
        if not self.training or world() == 1:
            return super().forward(input)
        x = input.float()
        count = x.numel() / x.shape[1] * world()  # every process has the same number of images
        mean = sum_over_ranks(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = sum_over_ranks(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Make every batch norm of a network use the batch of all processes. Names and shapes of weights are kept."""
    if world() == 1:
        return
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                if device.type == "cuda":
                    setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
                else:
                    child.__class__ = BatchNormOverRanks  # same fields; only the forward pass differs
