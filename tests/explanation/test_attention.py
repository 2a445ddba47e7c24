"""The attention of the report's tokens: against loops in float64, against transformers' own weights, and its shares."""

from __future__ import annotations

import copy
import math
import threading

import numpy as np
import pytest
import torch
from tiny_network import NEIGHBOURS, random_batch, tiny_network
from torch import nn

from diffrgen.explanation.attention import AttentionShares, attention_shares, cross_attention
from diffrgen.explanation.recording import recorded
from diffrgen.model import StudyInputs

SEQUENCES = torch.tensor([[9, 10, 11, 12, 2], [13, 14, 2, 0, 0], [15, 9, 16, 2, 0]])
PATCHES = 16


def study(**changes):
    """A network, an encoded batch in which neighbours are absent, and the states that prompt."""
    network, batch = tiny_network(**changes), random_batch()
    batch["retrieved_mask"][1, 3:] = False
    with torch.no_grad():
        encoded = network.encode(StudyInputs.of(batch))
    return network, encoded, batch["states"]


def written_by_hand(network, encoded, states):
    """softmax(q k / sqrt D) in float64, query by query and head by head, averaged over the heads of the last layer."""
    attention = network.decoder.bert.encoder.layer[-1].crossattention.self
    hidden = []
    hook = attention.register_forward_pre_hook(
        lambda _, arguments, named: hidden.append(arguments[0] if arguments else named["hidden_states"]),
        with_kwargs=True,
    )
    ids = torch.cat([network.prompt_ids(states), SEQUENCES], dim=1)
    with torch.no_grad():
        network.decoder(
            input_ids=ids, encoder_hidden_states=encoded.last_hidden_state, encoder_attention_mask=encoded.memory_mask
        )
    hook.remove()
    memory, mask = encoded.last_hidden_state.double().numpy(), encoded.memory_mask.numpy()
    (wq, bq), (wk, bk) = (
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in (attention.query, attention.key)
    )
    heads, prompt = attention.num_attention_heads, network.prompt_ids(states).shape[1]
    width = len(wq) // heads
    weights = np.zeros((*SEQUENCES.shape, memory.shape[1]))
    for row, token, head in np.ndindex(*SEQUENCES.shape, heads):
        part = slice(head * width, (head + 1) * width)
        query = (wq @ hidden[0][row, prompt - 1 + token].double().numpy() + bq)[part]
        logits = [query @ (wk @ entry + bk)[part] / math.sqrt(width) for entry in memory[row]]
        exponentials = np.where(mask[row], np.exp(logits), 0.0)
        weights[row, token] += exponentials / exponentials.sum() / heads
    return weights


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_weights_are_those_of_the_softmax_by_hand(implementation):
    network, encoded, states = study()
    network.decoder.set_attn_implementation(implementation)
    with torch.no_grad():
        weights = cross_attention(network, encoded, states, SEQUENCES)
    np.testing.assert_allclose(weights.numpy(), written_by_hand(network, encoded, states), atol=2e-6)
    assert weights[1, :, PATCHES + 3 : PATCHES + NEIGHBOURS].max() == 0
    assert network.decoder.config._attn_implementation == implementation


def test_weights_are_those_that_transformers_gives_when_asked():
    network, encoded, states = study()
    eager = copy.deepcopy(network.decoder)
    eager.set_attn_implementation("eager")
    prompt = network.prompt_ids(states)
    with torch.no_grad():
        given = eager(
            input_ids=torch.cat([prompt, SEQUENCES], dim=1),
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=encoded.memory_mask,
            output_attentions=True,
        ).cross_attentions[-1]
        weights = cross_attention(network, encoded, states, SEQUENCES)
    torch.testing.assert_close(weights, given.mean(1)[:, prompt.shape[1] - 1 : -1], atol=2e-6, rtol=1e-5)


def test_the_recorded_query_is_the_one_that_predicts_the_token():
    """A token's weights do not change with the token itself, nor with those behind it; they do with those before."""
    network, encoded, states = study()
    other = SEQUENCES.clone()
    other[:, 2] = 20
    with torch.no_grad():
        weights, changed = (cross_attention(network, encoded, states, ids) for ids in (SEQUENCES, other))
    assert torch.equal(weights[:, :3], changed[:, :3])
    assert (weights[:, 3] - changed[:, 3]).abs().max() > 1e-4


def test_no_hook_stays_and_other_threads_are_not_recorded():
    module = nn.Linear(2, 2)
    with recorded(module) as (calls,):
        other = threading.Thread(target=lambda: module(torch.ones(1, 2)))
        other.start()
        other.join()
        assert calls == []
        output = module(torch.zeros(1, 2))
    assert not module._forward_hooks
    module(torch.ones(1, 2))
    assert len(calls) == 1
    assert torch.equal(calls[0].output, output)
    assert torch.equal(calls[0].inputs[0], torch.zeros(1, 2))


def test_shares_by_hand():
    """Two patches; S and D of two retrieved reports and one row of a prior each; weights that sum to 2."""
    weights = torch.tensor([0.2, 0.4, 0.1, 0.1, 0.3, 0.2, 0.4, 0.3])
    with_prior = attention_shares(weights, patches=2, retrieved=2, rows=3)
    expected = AttentionShares(patches=0.3, similar=0.1, difference=0.3, prior=0.3)
    for name in ("patches", "similar", "difference", "prior"):
        assert getattr(with_prior, name) == pytest.approx(getattr(expected, name), abs=1e-6), name
    without = attention_shares(weights, patches=2, retrieved=3, rows=3)
    assert (without.similar, without.difference, without.prior) == pytest.approx((0.25, 0.45, 0.0), abs=1e-6)
    without_difference = attention_shares(weights, patches=5, retrieved=2, rows=3)
    assert without_difference.difference == 0.0
    assert without_difference.prior == pytest.approx(0.15, abs=1e-6)
