"""Guided decoding against its formula, and the log-probability of a report against the loss of training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_network import FINDINGS, random_batch, tiny_network
from transformers import DynamicCache, EncoderDecoderCache

from diffrgen.labels import NO_FINDING, State
from diffrgen.model import StudyInputs
from diffrgen.model.beam_cache import CACHE
from diffrgen.model.guidance import without_positives
from diffrgen.model.outputs import Prompt

END, LENGTH = 2, 9
# So low a threshold prompts with positive findings in every study.
NETWORK, INPUTS = tiny_network(prompt_thresholds=(0.1,) * FINDINGS), StudyInputs.of(random_batch(size=3))
BLANK, POSITIVE, NEGATIVE, UNCERTAIN = State


def generate(guidance: float, **more: Any) -> torch.Tensor:
    return NETWORK.generate(INPUTS, guidance=guidance, max_new_tokens=LENGTH, **{"num_beams": 1, **more})


def greedy_by_hand(guidance: float) -> list[list[int]]:
    """Decode a study and a token at a time from the two decoders' logits, without any cache."""
    written = []
    for row in range(3):
        inputs = StudyInputs.of({name: tensor[row : row + 1] for name, tensor in random_batch(size=3).items()})
        encoded = NETWORK.encode(inputs)
        states = NETWORK.predicted_states(encoded)
        prompts = [NETWORK.prompt_ids(each) for each in (states, without_positives(states))]
        tokens: list[int] = []
        while len(tokens) < LENGTH and END not in tokens:
            prompted, base = (
                NETWORK.decoder(
                    input_ids=torch.cat([prompt, torch.tensor([tokens], dtype=torch.int64)], dim=1),
                    encoder_hidden_states=encoded.last_hidden_state,
                    encoder_attention_mask=encoded.memory_mask,
                ).logits[0, -1]
                for prompt in prompts
            )
            tokens.append(int((base + guidance * (prompted - base)).argmax()))
        written.append(tokens)
    return written


@torch.no_grad()
@pytest.mark.parametrize("guidance", [0.0, 30.0, 300.0])
def test_guided_reports_are_those_of_the_formula(guidance: float) -> None:
    states = NETWORK.predicted_states(NETWORK.encode(INPUTS))
    assert (states[:, :NO_FINDING] == POSITIVE).any(1).all()
    found = [[token for token in row if token] for row in generate(guidance).tolist()]
    assert found == greedy_by_hand(guidance)
    assert guidance < 300 or not torch.equal(generate(guidance), generate(1.0))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(beams=st.integers(1, 4), guidance=st.sampled_from([0.0, 2.0, 300.0]), sample=st.booleans())
def test_cached_and_plain_guided_decoding_agree(beams: int, guidance: float, sample: bool) -> None:
    def drawn(**more: Any) -> torch.Tensor:
        torch.manual_seed(4)
        return generate(guidance, num_beams=beams, do_sample=sample, **more)

    assert torch.equal(drawn(), drawn(use_cache=False))


def test_guidance_of_one_is_ordinary_decoding() -> None:
    plain = NETWORK.generate(INPUTS, max_new_tokens=LENGTH, num_beams=3)
    assert torch.equal(generate(1.0, num_beams=3), plain)


def test_studies_without_a_positive_finding_are_decoded_as_ever() -> None:
    network = tiny_network(prompt_thresholds=(2.0,) * FINDINGS)
    written = [network.write_reports(INPUTS, guidance=g, max_new_tokens=LENGTH, num_beams=1) for g in (1.0, 4.0)]
    assert not (written[0].states[:, :NO_FINDING] == POSITIVE).any()
    assert torch.equal(written[0].sequences, written[1].sequences)


def test_base_prompt_by_hand() -> None:
    rest = [BLANK] * (NO_FINDING - 3)
    states = [
        [POSITIVE, NEGATIVE, POSITIVE, *rest, BLANK],
        [POSITIVE, UNCERTAIN, NEGATIVE, *rest, BLANK],  # what is uncertain stays, and so no normal study
        [NEGATIVE, BLANK, BLANK, *rest, BLANK],  # nothing positive: as it is
        [BLANK, BLANK, BLANK, *rest, POSITIVE],
    ]
    assert without_positives(torch.tensor(states)).tolist() == [
        [BLANK, NEGATIVE, BLANK, *rest, POSITIVE],
        [BLANK, UNCERTAIN, NEGATIVE, *rest, BLANK],
        *states[2:],
    ]
    # With 18 findings, the auxiliary ones are not positive any more either.
    wide = torch.tensor([[BLANK] * (NO_FINDING + 1) + [POSITIVE, NEGATIVE, BLANK, BLANK]])
    assert without_positives(wide)[0, NO_FINDING:].tolist() == [POSITIVE, BLANK, NEGATIVE, BLANK, BLANK]


def test_a_cache_of_the_callers_is_refused() -> None:
    with pytest.raises(ValueError, match="no cache of the caller's"):
        generate(2.0, **{CACHE: EncoderDecoderCache(DynamicCache(), DynamicCache())})


@torch.no_grad()
def test_log_probability_is_the_loss_of_training() -> None:
    """Reports of 7, 6 and 5 tokens; what is behind the end token or padded counts nothing."""
    batch = random_batch(size=3)
    labels = batch["labels"]
    labels[1, 5] = END
    sequences = labels.masked_fill(labels == -100, 0)
    encoded = NETWORK.encode(INPUTS)
    found = NETWORK.log_probability(encoded, Prompt(batch["states"]), sequences)
    for row in range(3):
        loss = NETWORK(**{name: tensor[row : row + 1] for name, tensor in batch.items()}).language_loss
        assert found[row].item() == pytest.approx(-loss.item(), rel=1e-5)
    longer = torch.cat([sequences, torch.zeros(3, 2, dtype=torch.int64)], dim=1)
    assert torch.allclose(NETWORK.log_probability(encoded, Prompt(batch["states"]), longer), found, rtol=1e-5)
