"""Indexes studies and finds their neighbours in two processes, then in one: `python index_of_two_processes.py FOLDER`.

Writes FOLDER/two-N and FOLDER/one-N, the indices with batches of N reports; 64 are more than there are.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch.distributed as dist
from barred_studies import ENCODER, OPTIONS, TRANSFORM, draw_studies
from two_processes import PROCESSES, in_two_processes

from diffrgen.retrieval import DualRetriever, ProcessGroup, build_dual_encoder, build_index, neighbours_of_studies
from diffrgen.text import train_tokenizer

SIZES = (8, 64)


def index(folder: Path, name: str, rank: int | None = None) -> int:
    """Write the indices of this process, or of two; the retriever has random weights."""
    if rank is not None:
        dist.init_process_group("gloo")
        assert ProcessGroup.of_processes() == ProcessGroup(rank, PROCESSES)
    studies = draw_studies(folder / f"images-{rank}", 28)
    tokenizer = train_tokenizer([study.report for study in studies], vocab_size=200, min_frequency=1)
    encoder = build_dual_encoder(tokenizer, encoder=ENCODER, transform=TRANSFORM, options=OPTIONS)
    retriever, group = DualRetriever(encoder, tokenizer), ProcessGroup.of_processes()
    for size in SIZES:
        options = replace(OPTIONS, batch_size=size, index_factory="IVF2,Flat", index_search="nprobe=2")
        shared = {"options": options, "group": group, "progress": False}
        made = build_index(folder / f"{name}-{size}", retriever, studies, rules="plain", **shared)
        found = neighbours_of_studies(retriever, made, studies, split="train", **shared)
        assert len(found) == len(studies)
    return 0


def main(folder: Path) -> None:
    """Do both; what has computed cannot be forked."""
    assert in_two_processes(partial(index, folder, "two")) == [0, 0]
    index(folder, "one")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
