"""The decoder's cache holds what a plain list of tokens a sequence holds, and beams of transformers' own cache agree."""

from __future__ import annotations

import pytest
import torch
from tiny_network import random_batch, tiny_network
from transformers import BertConfig, DynamicCache, EncoderDecoderCache

from diffrgen.model import StudyInputs
from diffrgen.model.beam_cache import CACHE, BeamCache, BeamLayer

SEQUENCES, HEADS, WIDTH = 6, 2, 3


def test_layer_keeps_each_sequence_with_its_own_history() -> None:
    """Against sequences held as lists of tokens, which an order of beams is a plain choice of."""
    layer, generator = BeamLayer(12), torch.Generator().manual_seed(0)
    histories: list[list[torch.Tensor]] = [[] for _ in range(SEQUENCES)]
    for tokens in (4, 1, 1, 3, 1):
        new = torch.randn(2, SEQUENCES, HEADS, tokens, WIDTH, generator=generator)
        keys, values = layer.update(*new)
        for sequence, history in enumerate(histories):
            history += new[:, sequence].unbind(2)  # (2, HEADS, WIDTH) each
        expected = torch.stack([torch.stack(history, dim=2) for history in histories], dim=1)
        assert torch.equal(torch.stack([keys, values]), expected)
        assert layer.get_seq_length() == expected.shape[3]
        assert layer.get_mask_sizes(2) == (expected.shape[3] + 2, 0)

        order = torch.randint(SEQUENCES, (SEQUENCES,), generator=generator)
        layer.reorder_cache(order)
        histories = [list(histories[i]) for i in order]
    assert layer.get_max_length() == 12


def test_no_step_allocates_or_moves_what_is_held() -> None:
    layer = BeamLayer(8)
    layer.update(*torch.randn(2, SEQUENCES, HEADS, 2, WIDTH))
    buffers = {layer.held.data_ptr(), layer.spare.data_ptr()}
    for _ in range(3):
        layer.reorder_cache(torch.tensor([1, 0, 2, 2, 5, 4]))
        keys, _ = layer.update(*torch.randn(2, SEQUENCES, HEADS, 1, WIDTH))
        assert {layer.held.data_ptr(), layer.spare.data_ptr()} == buffers
        assert keys.data_ptr() == layer.held.data_ptr()


def test_memory_of_a_study_is_not_reordered() -> None:
    config = BertConfig(num_hidden_layers=1, hidden_size=HEADS * WIDTH, num_attention_heads=HEADS)
    cache = BeamCache(config, 4)
    own, memory = torch.randn(2, SEQUENCES, HEADS, 1, WIDTH), torch.randn(2, SEQUENCES, HEADS, 5, WIDTH)
    cache.self_attention_cache.update(*own, 0)
    cache.cross_attention_cache.update(*memory, 0)
    order = torch.tensor([1, 0, 1, 3, 3, 4])
    cache.reorder_cache(order)
    kept = cache.cross_attention_cache.layers[0]
    assert torch.equal(torch.stack([kept.keys, kept.values]), memory)
    keys, values = cache.self_attention_cache.update(*own, 0)
    assert torch.equal(keys, torch.cat([own[0][order], own[0]], dim=2))
    assert torch.equal(values, torch.cat([own[1][order], own[1]], dim=2))


@pytest.mark.parametrize("beams", [1, 3, 5])
def test_reports_are_those_of_transformers_own_cache(beams: int) -> None:
    network, batch = tiny_network(), random_batch(size=4)
    inputs, settings = StudyInputs.of(batch), {"num_beams": beams, "max_new_tokens": 14}
    plain = EncoderDecoderCache(DynamicCache(), DynamicCache())
    assert torch.equal(
        network.generate(inputs, **settings), network.generate(inputs, **{CACHE: plain}, **settings)
    )
