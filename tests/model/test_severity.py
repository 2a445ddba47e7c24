"""Severities: what the classifier learns of them, and where the decoder's prompt says them."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_network import FINDINGS, random_batch, random_batch_with_prior, tiny_config, tiny_network

from diffrgen.errors import DataError
from diffrgen.labels import Severity, State
from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.outputs import Prompt
from diffrgen.reporting.candidates import studies_of

MILD, SEVERE = int(Severity.MILD), int(Severity.SEVERE)


def batch_with_severities(**more: int) -> dict[str, torch.Tensor]:
    batch = random_batch(**more)
    drawn = torch.randint(0, len(Severity), batch["states"].shape, generator=torch.Generator().manual_seed(5))
    return {**batch, "severities": drawn * (batch["states"] == State.POSITIVE)}


def test_logits_are_linear_in_the_pooled_image_and_the_similar_features():
    network, batch = tiny_network(severities=True), random_batch()
    with torch.no_grad():
        study = network.encode(StudyInputs.of(batch))
        seen = torch.cat([study.pooled, study.similar], dim=1)
        for severity in Severity:
            for finding in range(FINDINGS):
                row = severity * FINDINGS + finding
                expected = seen @ network.severity.head.weight[row] + network.severity.head.bias[row]
                torch.testing.assert_close(study.severity_logits[:, severity, finding], expected)
    assert torch.equal(study.severities, study.severity_logits.argmax(1))


def test_only_the_prompt_tokens_of_positive_findings_with_a_severity_change():
    network, batch = tiny_network(severities=True), random_batch_with_prior(size=2)
    states = torch.full((2, FINDINGS), int(State.BLANK))
    states[:, 3], states[0, 5], states[:, 7] = int(State.POSITIVE), int(State.POSITIVE), int(State.UNCERTAIN)
    severities = torch.zeros_like(states)
    severities[0, 3], severities[0, 7], severities[1, 3], severities[1, 5] = MILD, SEVERE, SEVERE, MILD
    ids = torch.cat([network.prompt_ids(states), batch["labels"][:, :3].clamp_min(0)], dim=1)
    with torch.no_grad():
        words = network.get_input_embeddings()(ids)
        added = network.decoder_inputs(ids, None, severities)["inputs_embeds"] - words
    expected = torch.zeros_like(words)
    # Study 0 says no severity of finding 5, finding 7 is uncertain, and finding 5 of study 1 is not mentioned.
    expected[0, 1 + 3] = network.severity.words.weight[MILD]
    expected[1, 1 + 3] = network.severity.words.weight[SEVERE]
    torch.testing.assert_close(added, expected)
    assert list(network.decoder_inputs(ids, None, severities, past=15)) == ["input_ids"]


def test_with_a_prior_every_token_of_a_positive_finding_says_its_severity():
    network = tiny_network(severities=True, prior=True)
    for before in range(-1, 4):
        states = torch.tensor([[int(State.POSITIVE)] * FINDINGS])
        ids = network.prompt_ids(states, torch.full_like(states, before))
        with torch.no_grad():
            inputs = network.decoder_inputs(ids, None, torch.full_like(states, MILD))["inputs_embeds"]
            added = inputs - network.get_input_embeddings()(ids)
        torch.testing.assert_close(added[0, 1:], network.severity.words.weight[MILD].expand(FINDINGS, -1))


def test_the_loss_is_the_mean_over_positive_findings():
    network, batch = tiny_network(severities=True), batch_with_severities()
    with torch.no_grad():
        output, plain = network(**batch), network(**{k: v for k, v in batch.items() if k != "severities"})
        logits = network.encode(StudyInputs.of(batch)).severity_logits.double()
    places = (batch["states"] == State.POSITIVE).nonzero().tolist()
    terms = [-logits[b, :, c].log_softmax(0)[batch["severities"][b, c]] for b, c in places]
    torch.testing.assert_close(output.severity_loss.double(), sum(terms) / len(terms))
    weighted = output.language_loss + 4 * output.disease_loss + 0.1 * output.contrast_loss + 0.1 * output.severity_loss
    torch.testing.assert_close(output.loss, weighted)
    assert plain.severity_loss is None
    nothing = batch | {"states": torch.zeros_like(batch["states"]), "severities": torch.zeros_like(batch["severities"])}
    assert network(**nothing).severity_loss.item() == 0


def test_the_reference_severities_prompt_training_and_the_most_probable_ones_generation():
    network, batch = tiny_network(severities=True), batch_with_severities()
    with torch.no_grad():
        study = network.encode(StudyInputs.of(batch))
        first, second = network(**batch), network(**{**batch, "severities": study.severities})
        without = network(**{k: v for k, v in batch.items() if k != "severities"})
    torch.testing.assert_close(second.logits, without.logits)
    assert not torch.allclose(first.logits, second.logits)
    generated = network.write_reports(StudyInputs.of(batch), max_new_tokens=4)
    positive = generated.states == State.POSITIVE
    assert torch.equal(generated.severities, study.severities * positive)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_generation_with_and_without_a_cache_is_the_same(guidance):
    network, batch = tiny_network(severities=True), random_batch()
    # So that some findings are positive, and their severities differ.
    network.config.prompt_thresholds = (0.2,) * FINDINGS
    inputs = StudyInputs.of(batch)
    reports = [
        network.write_reports(inputs, guidance=guidance, max_new_tokens=6, num_beams=2, use_cache=cache).sequences
        for cache in (True, False)
    ]
    assert torch.equal(*reports)
    assert (network.write_reports(inputs, max_new_tokens=1).severities > 0).any()


def test_some_studies_of_a_batch_keep_their_severities():
    network, batch = tiny_network(severities=True), random_batch()
    with torch.no_grad():
        study = network.encode(StudyInputs.of(batch))
    rows = torch.tensor([2, 0])
    kept, _ = studies_of(study, Prompt(batch["states"]), rows)
    assert torch.equal(kept.severities, study.severities[rows])


def test_a_network_without_severities_has_none_and_one_with_them_keeps_them(tmp_path):
    plain, network = tiny_network(), tiny_network(severities=True)
    names = set(dict(network.named_parameters())) - set(dict(plain.named_parameters()))
    assert names == {"severity.head.weight", "severity.head.bias", "severity.words.weight"}
    assert plain.encode(StudyInputs.of(random_batch())).severities is None
    network.save_pretrained(tmp_path / "with")
    loaded = DiffRGenForReportGeneration.from_pretrained(tmp_path / "with").eval()
    batch = batch_with_severities()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, network(**batch).logits)
    plain.save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    stored = json.loads(path.read_text())
    del stored["severities"]
    path.write_text(json.dumps(stored))
    assert not DiffRGenForReportGeneration.from_pretrained(tmp_path / "old").config.severities


def test_promptmrg_has_no_severities():
    with pytest.raises(DataError, match="expected none of severities for variant 'promptmrg'"):
        tiny_config(
            variant="promptmrg",
            retrieved_width=16,
            **{"masks_per_layer": (), "difference_metrics": (), "contrast_weight": 0.0, "severities": True},
        )
