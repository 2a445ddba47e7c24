"""The thresholds of the prompts: by hand, and what the network makes of them."""

from __future__ import annotations

import pytest
import torch
from tiny_network import tiny_config, tiny_network

from diffrgen.labels import FINDINGS, NO_FINDING, State
from diffrgen.model.disease import thresholded_states
from diffrgen.training.calibration import NEVER, calibrate_prompts


def logits_of(probability: dict[int, dict[State, float]], studies: int = 1) -> torch.Tensor:
    """Log-probabilities (studies, 4, 14): as given, and blank for sure elsewhere."""
    given = torch.full((studies, 4, len(FINDINGS)), 1e-6)
    given[:, State.BLANK] = 1.0
    for finding, states in probability.items():
        given[:, :, finding] = torch.tensor([states.get(state, 1e-6) for state in State])
    return given.log()


def test_a_finding_is_positive_from_its_threshold_on_and_else_its_likeliest_other_state():
    logits = logits_of(
        {
            1: {State.BLANK: 0.6, State.POSITIVE: 0.4},
            2: {State.NEGATIVE: 0.2, State.POSITIVE: 0.7, State.UNCERTAIN: 0.1},
            3: {State.BLANK: 0.1, State.UNCERTAIN: 0.8, State.POSITIVE: 0.1},
        }
    )
    thresholds = torch.full((len(FINDINGS),), 0.5)
    thresholds[1], thresholds[2] = 0.3, 0.9
    states = thresholded_states(logits, thresholds)[0].tolist()
    assert states[1:4] == [State.POSITIVE, State.NEGATIVE, State.UNCERTAIN]
    assert states[NO_FINDING] == State.BLANK


@pytest.mark.parametrize(("state", "normal"), [(State.NEGATIVE, True), (State.UNCERTAIN, False), (State.POSITIVE, False)])
def test_no_finding_is_positive_where_no_disease_is_positive_or_uncertain(state, normal):
    states = thresholded_states(logits_of({4: {state: 1.0}}), torch.full((len(FINDINGS),), 0.5))
    assert (states[0, NO_FINDING].item() == State.POSITIVE) is normal


def test_thresholds_let_the_training_frequency_times_the_best_rate_through():
    # 10 studies; finding 0 is true for the two most probable and frequent in a tenth of training: rate 2 finds both.
    probability = torch.zeros(10, len(FINDINGS))
    probability[:, 0] = torch.arange(10) / 10
    states = torch.zeros(10, len(FINDINGS), dtype=torch.int64)
    states[8:, 0] = State.POSITIVE
    frequency = torch.zeros(len(FINDINGS))
    frequency[0] = 0.1
    found = calibrate_prompts(probability, states, frequency)
    assert found.micro_f1 == 1.0
    # rounding lets 1.5 to 2.5 studies be two: the first such rate is kept
    assert found.rate == pytest.approx(1.5)
    assert found.thresholds[0] == pytest.approx(0.75)
    assert found.thresholds[1:] == (NEVER,) * 13


def test_the_network_prompts_by_its_thresholds_and_keeps_them_in_its_configuration(tmp_path):
    network = tiny_network()
    logits = logits_of({1: {State.BLANK: 0.6, State.POSITIVE: 0.4}})
    assert network.predicted_states(logits)[0, 1] == State.BLANK
    # A finding that never prompts as positive keeps its threshold too.
    network.config.prompt_thresholds = (0.3,) * 13 + (NEVER,)
    assert network.predicted_states(logits)[0, 1] == State.POSITIVE
    network.config.save_pretrained(tmp_path)
    assert type(network.config).from_pretrained(tmp_path).prompt_thresholds == (0.3,) * 13 + (NEVER,)
    with pytest.raises(ValueError, match="expected 14 prompt_thresholds, one a finding, or none, got 3"):
        tiny_config(prompt_thresholds=(0.1, 0.2, 0.3))
