"""Two processes with half a batch each: writes the loss and gradients that DistributedDataParallel leaves in each.

`python tests/support/gradients_of_two_processes.py FOLDER` writes FOLDER/0.safetensors and FOLDER/1.safetensors, and in
FOLDER/steps-0.safetensors and its like the losses of two steps with the weights sharded (FSDP2) and copied.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_network import random_batch_with_prior, tiny_network
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from two_processes import PROCESSES, in_two_processes

from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.model.router import Router

STUDIES = 6


def training_network() -> DiffRGenForReportGeneration:
    """Return a network in training mode without what differs between processes: noise and batch statistics."""
    network = tiny_network(prior=True).train()
    network.decoder.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout | Router):
            module.eval()
    return network


def batch() -> dict[str, Tensor]:
    """Return six studies, whose reports get shorter: the halves have different numbers of tokens.

    None of the second half has an earlier study.
    """
    studies = random_batch_with_prior(STUDIES)
    studies["prior_mask"][STUDIES // PROCESSES :] = False
    return studies


def gradients(network: nn.Module, studies: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the loss, its terms, and the gradient of each parameter."""
    output = network(**studies)
    output.loss.backward()
    terms = ("loss", "language_loss", "disease_loss", "contrast_loss")
    found = {name: output[name].detach() for name in terms}
    parameters = getattr(network, "module", network).named_parameters()
    return found | {name: p.grad.clone() for name, p in parameters if p.grad is not None}


def two_steps(network: nn.Module, studies: dict[str, Tensor]) -> Tensor:
    """Return the loss before and after a step of AdamW."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        losses.append(network(**studies).loss)
        losses[-1].backward()
        optimiser.step()
        optimiser.zero_grad()
    return torch.stack(losses).detach()


def work(folder: Path, rank: int) -> int:
    """Compute on the half of process `rank`."""
    dist.init_process_group("gloo")
    half = STUDIES // PROCESSES
    mine = {name: tensor[rank * half : (rank + 1) * half] for name, tensor in batch().items()}
    save_file(gradients(DistributedDataParallel(training_network()), mine), folder / f"{rank}.safetensors")
    sharded = training_network()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (PROCESSES,)))
    losses = {
        "sharded": two_steps(sharded, mine),
        "copied": two_steps(DistributedDataParallel(training_network()), mine),
    }
    save_file(losses, folder / f"steps-{rank}.safetensors")
    return 0


if __name__ == "__main__":
    assert in_two_processes(partial(work, Path(sys.argv[1]))) == [0, 0]
