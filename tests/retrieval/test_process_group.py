"""An index made by two processes is the file of one, and every batch is computed once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from index_of_two_processes import SIZES
from warm_process import run_warm

from diffrgen.retrieval import ProcessGroup

FILES = ["embeddings.npy", "index.faiss", "lengths.npy", "manifest.json", "studies.json", "tokens.npy"]
NEIGHBOURS = "neighbours-train.npz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("group")
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "index_of_two_processes.py"), str(folder)]
    done = run_warm(command, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_two_processes_write_the_index_of_one(folder, size):
    one, two = (folder / f"{name}-{size}" for name in ("one", "two"))
    assert sorted(path.name for path in two.iterdir()) == sorted([*FILES, NEIGHBOURS])
    for name in FILES:
        assert (two / name).read_bytes() == (one / name).read_bytes(), name
    with np.load(one / NEIGHBOURS) as alone, np.load(two / NEIGHBOURS) as together:
        assert alone["rows"].shape == (28, 5)
        for name in alone.files:
            np.testing.assert_array_equal(alone[name], together[name])


def test_nothing_else_is_left(folder):
    assert not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 14])
def test_shares_in_order_of_ranks_are_everything(size, count):
    shares = [ProcessGroup(rank, size).share(range(count)) for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_alone_gathers_its_own_and_writes_nothing(tmp_path):
    assert ProcessGroup.of_processes() == ProcessGroup(0, 1)
    batches = [(np.arange(3), np.ones(2)), (np.zeros((1, 2)),)]
    gathered = list(ProcessGroup().gather(batches, tmp_path / "index"))
    assert [[array.tolist() for array in batch] for batch in gathered] == [[[0, 1, 2], [1, 1]], [[[0, 0]]]]
    assert not list(tmp_path.iterdir())
