"""The whole network: every part matters, the losses add up, generation is consistent, checkpoints swap."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_network import FINDINGS, NEIGHBOURS, random_batch, tiny_config, tiny_network

from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.fam import FlexiRouteAggregation
from diffrgen.model.language import token_weights
from diffrgen.model.router import Router


def logits_of(network, batch):
    with torch.no_grad():
        return network(**batch).logits


def zero_image(batch):
    return {**batch, "pixel_values": torch.zeros_like(batch["pixel_values"])}


def zero_retrieval(batch):
    return {**batch, "retrieved": torch.zeros_like(batch["retrieved"])}


@pytest.mark.parametrize("change", [zero_image, zero_retrieval])
def test_image_and_retrieval_change_the_report(change):
    network, batch = tiny_network(), random_batch()
    assert (logits_of(network, batch) - logits_of(network, change(batch))).abs().max() > 1e-2


def test_difference_features_change_the_report(monkeypatch):
    network, batch = tiny_network(), random_batch()
    before = logits_of(network, batch)
    forward = network.difference.forward
    monkeypatch.setattr(network.difference, "forward", lambda *inputs: torch.zeros_like(forward(*inputs)))
    assert (logits_of(network, batch) - before).abs().max() > 1e-2


def test_routing_changes_the_report(monkeypatch):
    network, batch = tiny_network(), random_batch()
    before = logits_of(network, batch)
    forward = Router.forward

    def only_the_last_mask(self, *given):
        alpha = torch.zeros_like(forward(self, *given))
        alpha[:, -1] = 1.0
        return alpha

    monkeypatch.setattr(Router, "forward", only_the_last_mask)
    assert (logits_of(network, batch) - before).abs().max() > 1e-3


@pytest.mark.parametrize("queries", [False, True])
def test_every_parameter_receives_a_gradient(queries):
    network, batch = tiny_network(finding_queries=queries).train(), random_batch()
    network(**batch).loss.backward()
    # Everything but position embeddings beyond the sequence is in use.
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    router = network.fam.layers[0].mhcar.router.mlp[2].weight
    assert router.grad.abs().max() > 1e-7


def test_loss_is_the_weighted_sum_and_its_terms_are_independent_of_padding():
    network, batch = tiny_network(disease_weight=4.0, contrast_weight=0.1), random_batch()
    with torch.no_grad():
        output = network(**batch)
        padded = network(**{**batch, "labels": F.pad(batch["labels"], (0, 3), value=-100)})
    expected = output.language_loss + 4.0 * output.disease_loss + 0.1 * output.contrast_loss
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(padded.loss, output.loss)


def test_language_loss_scores_report_tokens_only_after_the_true_prompt():
    """The loss equals one computed from the decoder called by hand on [start, prompt, report]."""
    network, batch = tiny_network(), random_batch(size=2)
    with torch.no_grad():
        encoded = network.encode(StudyInputs.of(batch))
        prompt = torch.tensor(network.config.prompt_token_ids)[batch["states"]]
        tokens = torch.cat([torch.full((2, 1), 1), prompt, batch["labels"].clamp_min(0)], dim=1)
        logits = network.decoder(
            input_ids=tokens,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=encoded.memory_mask,
        ).logits
        losses = [
            -logits[b, FINDINGS + t].log_softmax(-1)[token]
            for b in range(2)
            for t, token in enumerate(batch["labels"][b].tolist())
            if token != -100
        ]
        torch.testing.assert_close(network(**batch).language_loss, torch.stack(losses).mean())


def test_words_of_findings_weigh_more_in_training_alone():
    """By hand: the mean over tokens, those of the list counting three times."""
    changes = {"finding_weight": 3.0, "label_smoothing": 0.0, "dropout": 0.0, "masks_per_layer": (1, 1)}
    batch = random_batch(size=2)
    listed = tuple({int(batch["labels"][0, 1]), int(batch["labels"][1, 4])})
    network = tiny_network(finding_token_ids=listed, **changes)
    network.config.decoder.hidden_dropout_prob = network.config.decoder.attention_probs_dropout_prob = 0.0
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        plain = network(**batch)
        # The image encoder stays as in evaluation: its batch statistics would change the logits.
        network.training = network.classifier.training = network.contrast.training = True
        weighted = network(**batch)
    total = weights = 0.0
    for row, logits in zip(batch["labels"].tolist(), plain.logits.log_softmax(-1), strict=True):
        for token, scores in zip(row, logits, strict=True):
            if token != -100:
                weight = 3.0 if token in listed else 1.0
                total, weights = total - weight * float(scores[token]), weights + weight
    torch.testing.assert_close(weighted.logits, plain.logits)
    assert float(weighted.language_loss) == pytest.approx(total / weights, rel=1e-5)
    plain_mean = F.cross_entropy(plain.logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    torch.testing.assert_close(plain.language_loss, plain_mean)


def test_what_training_does_not_teach_has_no_weight():
    """Labels that are marks count as if they were not there."""
    labels = torch.tensor([[7, 9, 8, -100], [9, 7, 7, 8]])
    expected = torch.tensor([[1.0, 0.0, 3.0, 0.0], [0.0, 1.0, 1.0, 3.0]])
    torch.testing.assert_close(token_weights(labels, (8,), 3.0, (9,)), expected)


def test_absent_neighbours_do_not_matter_and_none_at_all_is_finite():
    network, batch = tiny_network(), random_batch()
    batch["retrieved_mask"][:, 3:] = False
    other = {**batch, "retrieved": batch["retrieved"].clone()}
    other["retrieved"][:, 3:] = 7.0
    torch.testing.assert_close(logits_of(network, batch), logits_of(network, other))
    alone = {**batch, "retrieved_mask": torch.zeros(3, NEIGHBOURS, dtype=torch.bool)}
    assert logits_of(network, alone).isfinite().all()


def test_evaluation_is_deterministic_and_training_draws_noise():
    network, batch = tiny_network(dropout=0.0), random_batch()
    network.config.decoder.hidden_dropout_prob = 0.0
    torch.testing.assert_close(network(**batch).routing, network(**batch).routing)
    network.train()
    assert not torch.equal(network(**batch).routing[0], network(**batch).routing[0])


@pytest.mark.parametrize("queries", [False, True])
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_does_not_depend_on_batch_size_or_cache(beams, queries):
    network, batch = tiny_network(finding_queries=queries), random_batch(size=4)
    inputs = StudyInputs.of(batch)
    settings = {"num_beams": beams, "max_new_tokens": 12}
    together = network.generate(inputs, **settings)
    without_cache = network.generate(inputs, use_cache=False, **settings)
    assert torch.equal(together, without_cache)
    for row in range(4):
        study = StudyInputs.of({name: tensor[row : row + 1] for name, tensor in batch.items()})
        alone = network.generate(study, **settings)[0]
        assert torch.equal(alone, together[row, : len(alone)])
        assert (together[row, len(alone) :] == network.config.pad_token_id).all()


@pytest.mark.parametrize("queries", [False, True])
def test_greedy_generation_is_the_argmax_of_forward(queries):
    """Token by token, the generated report is what the teacher-forced network finds most likely after it."""
    network, batch = tiny_network(finding_queries=queries), random_batch(size=2)
    inputs = StudyInputs.of(batch)
    with torch.no_grad():
        written = network.write_reports(inputs, num_beams=1, max_new_tokens=10)
        output = network(**inputs.tensors(), states=written.states, labels=written.sequences)
    for row, tokens in enumerate(written.sequences.tolist()):
        length = tokens.index(2) + 1 if 2 in tokens else len(tokens)
        assert output.logits[row, :length].argmax(-1).tolist() == tokens[:length]


def test_reports_are_prompted_by_the_most_likely_states():
    network, batch = tiny_network(), random_batch(size=2)
    written = network.write_reports(StudyInputs.of(batch), num_beams=1, max_new_tokens=3)
    logits = network.encode(StudyInputs.of(batch)).disease_logits
    assert torch.equal(written.states, logits.argmax(1))
    torch.testing.assert_close(written.positive_probability, logits.softmax(1)[:, 1])
    ids = network.config.prompt_token_ids
    expected = [[network.config.decoder_start_token_id, *(ids[s] for s in row)] for row in written.states.tolist()]
    assert network.prompt_ids(written.states).tolist() == expected


@pytest.mark.parametrize(
    "changes",
    [{}, {"share_fam": False}, {"share_projections": True, "masking": "exclusive"}, {"routing": "straight_through"}],
)
def test_checkpoint_round_trip_also_into_the_other_operator(tmp_path, changes):
    network, batch = tiny_network(**changes), random_batch()
    network.set_temperature(0.3)
    network.classifier.class_prior.fill_(0.25)
    network.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".safetensors"]
    for backend in ("auto", "reference"):
        loaded = DiffRGenForReportGeneration.from_pretrained(tmp_path, operator_backend=backend).eval()
        torch.testing.assert_close(logits_of(loaded, batch), logits_of(network, batch), rtol=1e-4, atol=1e-4)
        assert loaded.fam.temperature.item() == pytest.approx(0.3)
        assert loaded.classifier.class_prior.tolist() == [0.25] * FINDINGS


def test_checkpoint_of_version_0_1_loads_under_its_former_names(tmp_path):
    network = tiny_network()
    network.classifier.class_prior.fill_(0.25)
    network.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["classifier.prior"] = weights.pop("classifier.class_prior")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = DiffRGenForReportGeneration.from_pretrained(tmp_path)
    assert loaded.classifier.class_prior.tolist() == [0.25] * FINDINGS


def test_a_configuration_of_version_0_1_means_the_scalars_of_eq_1(tmp_path, caplog):
    """As config.json was written when there was no such choice: the same weights give the same logits."""
    network, batch = tiny_network(difference="scalars"), random_batch()
    network.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    assert stored.pop("difference") == "scalars"
    path.write_text(json.dumps(stored))
    loaded = DiffRGenForReportGeneration.from_pretrained(tmp_path).eval()
    assert (loaded.config.difference, tiny_config().difference) == ("scalars", "content")
    torch.testing.assert_close(logits_of(loaded, batch), logits_of(network, batch))
    assert "newly initialized" not in caplog.text


def test_own_fam_for_differences_adds_its_routing():
    network, batch = tiny_network(share_fam=False), random_batch()
    assert [alpha.shape[1] for alpha in network(**batch).routing] == [2, 3, 2, 3]
    assert isinstance(network.difference_fam, FlexiRouteAggregation)


def test_keys_and_values_of_the_image_are_projected_once(monkeypatch):
    """S and D attend to one image through one FAM, so its keys are computed once a layer."""
    network, batch = tiny_network(), random_batch()
    calls = []
    for layer in network.fam.layers:
        layer.mhcar.key.register_forward_hook(lambda *_: calls.append(1))
    network.encode(StudyInputs.of(batch))
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 15}, "multiple of heads, got 15 and 2"),
        ({"masks_per_layer": (2, 0)}, "of at least 1, got \\(2, 0\\)"),
        ({"difference_metrics": (), "contrast_form": "printed"}, "whose negatives are D"),
        ({"difference_metrics": ("l3",)}, "got \\('l3',\\)"),
        ({"contrast_form": "other"}, "got 'other'"),
        ({"centres": "middle"}, "centres: expected one of rank, attention, got 'middle'"),
        ({"finding_weight": 0.0}, "finding_weight: expected a number above 0, got 0.0"),
        ({"difference": "both"}, "difference: expected one of scalars, content, got 'both'"),
    ],
)
def test_configuration_errors_say_what_came(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)
