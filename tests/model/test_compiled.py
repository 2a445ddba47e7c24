"""torch.compile takes the whole training step in one graph, once for every length of report."""

from __future__ import annotations

import pytest
import torch
from tiny_network import random_batch, tiny_network
from torch._dynamo.testing import CompileCounterWithBackend


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_training_step_is_one_graph_for_all_lengths() -> None:
    """One graph for the first length and one for any length: fullgraph=True refuses a break."""
    network = tiny_network(dropout=0.0).train()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    for tokens in (7, 9, 12, 8, 5, 7):
        batch = random_batch(tokens=tokens)
        torch.manual_seed(tokens)
        loss = compiled(**batch).loss
        torch.manual_seed(tokens)
        expected = network(**batch).loss
        torch.testing.assert_close(loss, expected)
        loss.backward()
    assert counter.frame_count == 2
