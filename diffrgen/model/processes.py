"""A batch split among training processes: the operations that compute the loss of the complete batch.

Every process computes L_r, the mean of its own B/W studies, and DistributedDataParallel averages the W gradients. That
is the gradient of (1/W) sum_r L_r, the loss of the whole batch, where a study's loss depends on nothing but itself, and

- where it depends on the others (Eq. 8), if their features are gathered with gradient: process r then also computes
  what the losses of the others owe to its features, and the average above needs no further factor;
- where studies weigh differently (a report's tokens in L_LM), if L_r is weighted by W n_r / sum_r n_r.

All of it assumes batches of one size in every process, as the training loader makes them. NOTE: batch normalisation
standardises over the studies of its own process, and the running statistics of the first process are kept.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


def process_count() -> int:
    """Return W, 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(features: Tensor) -> Tensor:
    """Concatenate `features` (B, ...) of every process along the batch, (W B, ...), with gradient."""
    return features if process_count() == 1 else _Gather.apply(features.contiguous())


def own_rows(features: Tensor) -> Tensor:
    """Return the positions (B,) int64 of this process's rows in the result of `gather(features)`."""
    first = 0 if process_count() == 1 else dist.get_rank() * len(features)
    return torch.arange(first, first + len(features), device=features.device)


def weight_of(count: Tensor) -> Tensor:
    """Return W n_r / sum_r n_r for the count n_r of this process, a scalar; 1 for one process and any n > 0."""
    # A copy: all_reduce adds in place.
    total = count.to(torch.float32, copy=True)
    if process_count() > 1:
        dist.all_reduce(total)
    return count * process_count() / total.clamp_min(1)


class _Gather(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, mine: Tensor) -> Tensor:
        everywhere = [torch.empty_like(mine) for _ in range(process_count())]
        dist.all_gather(everywhere, mine)
        return torch.cat(everywhere)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        # The gradients of all processes' losses with respect to this process's features.
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(process_count())[dist.get_rank()]
