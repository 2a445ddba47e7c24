"""Two processes with half a batch each: writes the loss and gradients that DistributedDataParallel leaves in each.

`python tests/gradients_of_two_processes.py FOLDER` writes FOLDER/0.safetensors and FOLDER/1.safetensors.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from tiny_network import random_batch, tiny_network
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffrgen.model import DiffRGenForReportGeneration
from diffrgen.model.router import Router

PROCESSES, STUDIES = 2, 6


def training_network() -> DiffRGenForReportGeneration:
    """Return a network in training mode without what differs between processes: noise and batch statistics."""
    network = tiny_network().train()
    network.decoder.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.Dropout | Router):
            module.eval()
    return network


def batch() -> dict[str, Tensor]:
    """Return six studies, whose reports get shorter: the halves have different numbers of tokens."""
    return random_batch(STUDIES)


def gradients(network: nn.Module, studies: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the loss, its terms, and the gradient of each parameter."""
    output = network(**studies)
    output.loss.backward()
    terms = ("loss", "language_loss", "disease_loss", "contrast_loss")
    found = {name: output[name].detach() for name in terms}
    parameters = getattr(network, "module", network).named_parameters()
    return found | {name: p.grad.clone() for name, p in parameters if p.grad is not None}


def work(rank: int, folder: Path) -> None:
    """Compute on the half of process `rank`."""
    store = dist.FileStore(str(folder / "store"), PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    half = STUDIES // PROCESSES
    mine = {name: tensor[rank * half : (rank + 1) * half] for name, tensor in batch().items()}
    save_file(gradients(DistributedDataParallel(training_network()), mine), folder / f"{rank}.safetensors")
    dist.destroy_process_group()


def main() -> None:
    """Fork after the imports, which take longer than the work."""
    torch.set_num_threads(1)
    children = []
    for rank in range(PROCESSES):
        child = os.fork()
        if child == 0:
            work(rank, Path(sys.argv[1]))
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    main()
