"""The thresholds of the prompts: by hand, and what the network makes of them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from tiny_network import random_batch, tiny_config, tiny_network
from torch.utils.data import Dataset

from diffrgen.labels import FINDINGS, NO_FINDING, State
from diffrgen.model import EncodedStudy, StudyInputs
from diffrgen.model.disease import thresholded_states
from diffrgen.training.calibration import NEVER, calibrate_prompts
from diffrgen.training.validation import set_thresholds, single_view_probability


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
    encoded = EncodedStudy(last_hidden_state=logits, disease_logits=logits)
    assert network.predicted_states(encoded)[0, 1] == State.BLANK
    # A finding that never prompts as positive keeps its threshold too.
    network.config.prompt_thresholds = (0.3,) * 13 + (NEVER,)
    assert network.predicted_states(encoded)[0, 1] == State.POSITIVE
    network.config.save_pretrained(tmp_path)
    assert type(network.config).from_pretrained(tmp_path).prompt_thresholds == (0.3,) * 13 + (NEVER,)
    with pytest.raises(ValueError, match="expected 14 prompt_thresholds, one a finding, or none, got 3"):
        tiny_config(prompt_thresholds=(0.1, 0.2, 0.3))


def test_a_study_of_one_view_is_prompted_by_thresholds_of_its_own(tmp_path):
    network = tiny_network(views=2, prompt_thresholds=(0.3,) * 14, single_view_thresholds=(0.5,) * 14)
    logits = logits_of({1: {State.BLANK: 0.6, State.POSITIVE: 0.4}}, studies=3)
    encoded = EncodedStudy(last_hidden_state=logits, disease_logits=logits, view_counts=torch.tensor([1, 2, 1]))
    assert network.predicted_states(encoded)[:, 1].tolist() == [State.BLANK, State.POSITIVE, State.BLANK]
    network.config.save_pretrained(tmp_path)
    assert type(network.config).from_pretrained(tmp_path).single_view_thresholds == (0.5,) * 14
    network.config.single_view_thresholds = ()
    assert network.predicted_states(encoded)[:, 1].tolist() == [State.POSITIVE] * 3
    with pytest.raises(ValueError, match="expected 14 single_view_thresholds, one a finding, or none, got 2"):
        tiny_config(prompt_thresholds=(0.3,) * 14, single_view_thresholds=(0.1, 0.2))
    with pytest.raises(ValueError, match="expected prompt_thresholds beside single_view_thresholds, got none"):
        tiny_config(single_view_thresholds=(0.5,) * 14)


def test_the_network_counts_the_views_that_are_there():
    network, batch = tiny_network(views=2), random_batch(size=3)
    pixels = torch.stack([batch["pixel_values"], batch["pixel_values"]], dim=1)
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    inputs = StudyInputs.of({**batch, "pixel_values": pixels})
    assert network.encode(replace(inputs, view_mask=mask)).view_counts.tolist() == [2, 1, 2]
    assert network.encode(inputs).view_counts.tolist() == [2, 2, 2]
    assert network.encode(replace(inputs, pixel_values=pixels[:, :1])).view_counts.tolist() == [1, 1, 1]
    assert tiny_network().encode(StudyInputs.of(batch)).view_counts is None


class TwoViews(Dataset):
    """The studies of a random batch with two images each, of which `one_view` shows the second."""

    def __init__(self, size):
        self.batch, self.places = random_batch(size), (0, 1)
        self.states = self.batch["states"]
        self.other = torch.randn(self.batch["pixel_values"].shape, generator=torch.Generator().manual_seed(5))

    @contextmanager
    def one_view(self):
        self.places = (1,)
        yield
        self.places = (0, 1)

    def __len__(self):
        return len(self.states)

    def __getitem__(self, row):
        views = torch.stack([self.batch["pixel_values"][row], self.other[row]])
        places = list(self.places)
        return {
            **{name: self.batch[name][row] for name in ("retrieved", "retrieved_mask", "states", "labels")},
            "pixel_values": views[places],
            "view_kinds": torch.tensor([1, 2])[places],
        }


def test_single_view_thresholds_let_the_same_share_of_single_views_through():
    network, dataset = tiny_network(views=2), TwoViews(10)
    given, kinds = dataset.other[:, None], torch.full((10, 1), 2)
    inputs = StudyInputs.of({**dataset.batch, "pixel_values": given, "view_kinds": kinds})
    with torch.no_grad():
        positive = network.encode(inputs).disease_logits.softmax(1)[:, State.POSITIVE]
    torch.testing.assert_close(single_view_probability(network, dataset, batch_size=4), positive)
    both = torch.stack([dataset.batch["pixel_values"], dataset.other], dim=1)
    with torch.no_grad():
        whole = network.encode(
            StudyInputs.of({**dataset.batch, "pixel_values": both, "view_kinds": torch.tensor([[1, 2]] * 10)})
        ).disease_logits.softmax(1)[:, State.POSITIVE]
    set_thresholds(network, dataset, whole, torch.full((14,), 0.3), batch_size=4)
    config = network.config
    shares = [
        (probability >= torch.tensor(thresholds)).sum(0).tolist()
        for probability, thresholds in ((whole, config.prompt_thresholds), (positive, config.single_view_thresholds))
    ]
    assert shares[0] == shares[1]
    assert shares[0][0] >= 1
