"""AdamW as both the retriever and the network are trained with it: weight decay on matrices, none on vectors."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW


def make_adamw(model: nn.Module, *, learning_rate: float, weight_decay: float) -> AdamW:
    """Return AdamW over `model`; `weight_decay` spares what has one dimension or none: norms, biases, temperatures."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.dim() > 1]
    plain = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    # One pass over all parameters, on CPUs too.
    return AdamW(groups, lr=learning_rate, fused=True)
