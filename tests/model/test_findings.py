"""Finding queries: what their rows see, and how the classifier and the decoder learn from them."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from tiny_network import FINDINGS, NEIGHBOURS, random_batch, tiny_config, tiny_network

from diffrgen.explanation.recording import recorded
from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.fam import FlexiRouteAggregation
from diffrgen.model.findings import FindingQueries

PATCHES, WIDTH = 16, 16


def encoded(network, batch):
    return network.encode(StudyInputs.of(batch))


@torch.no_grad()
def rows_of(network, batch):
    """Return [z ; queries] and what the aggregation makes of it, (B, N + C, d) each, by hand."""
    patches = network.patch_projection(network.image_encoder(batch["pixel_values"]).patches)
    z = network.report_projection(batch["retrieved"])
    queries = network.finding_queries.queries.expand(len(z), -1, -1)
    rows = torch.cat([z, queries], dim=1)
    mask = torch.ones(rows.shape[:2], dtype=torch.bool)
    return rows, network.fam(rows, network.fam.route(patches, (4, 4)), mask)


def test_similar_features_are_the_reports_rows_and_the_classifier_reads_the_findings_rows():
    network, batch = tiny_network(finding_queries=True), random_batch()
    _, routed = rows_of(network, batch)
    with torch.no_grad():
        study = encoded(network, batch)
        torch.testing.assert_close(study.similar, routed[:, :NEIGHBOURS].mean(1))
        expected = network.classifier(study.pooled, study.similar)
        for finding in range(FINDINGS):
            row = routed[:, NEIGHBOURS + finding]
            expected[:, :, finding] += row @ network.finding_queries.readout[finding].T
    torch.testing.assert_close(study.disease_logits, expected)
    assert study.last_hidden_state.shape[1] == PATCHES + 2 * NEIGHBOURS


def test_a_row_joins_the_embedding_of_its_own_prompt_token():
    network, batch = tiny_network(finding_queries=True), random_batch(size=2)
    queries = network.finding_queries
    with torch.no_grad():
        queries.gate.copy_(torch.linspace(-2.0, 2.0, FINDINGS))
        study = encoded(network, batch)
        ids = torch.cat([network.prompt_ids(batch["states"]), batch["labels"][:, :3].clamp_min(0)], dim=1)
        (name, given), *others = network.decoder_inputs(ids, study.prompt_rows).items()
        assert (name, others) == ("inputs_embeds", [])
        rows = rows_of(network, batch)[1][:, NEIGHBOURS:] @ queries.projection.weight.T + queries.projection.bias
        words = network.get_input_embeddings().weight[ids]
    for b in range(2):
        for place, got in enumerate(given[b]):
            expected = words[b, place].double()
            if 1 <= place <= FINDINGS:
                row = rows[b, place - 1].double()
                standardised = (row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt()
                share = 1 / (1 + math.exp(-queries.gate[place - 1].item()))
                expected = expected + share * expected.pow(2).mean().sqrt() * standardised
            torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)
    assert list(network.decoder_inputs(ids[:, -1:], study.prompt_rows, past=17)) == ["input_ids"]


def test_the_loss_is_that_of_a_decoder_that_is_given_the_joined_embeddings():
    network, batch = tiny_network(finding_queries=True), random_batch(size=2)
    with torch.no_grad():
        study = encoded(network, batch)
        tokens = torch.cat([network.prompt_ids(batch["states"]), batch["labels"].clamp_min(0)], dim=1)
        logits = network.decoder(
            inputs_embeds=network.finding_queries.join(network.get_input_embeddings()(tokens), study.prompt_rows),
            encoder_hidden_states=study.last_hidden_state,
            encoder_attention_mask=study.memory_mask,
        ).logits[:, FINDINGS:-1]
        expected = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
        torch.testing.assert_close(network(**batch).language_loss, expected)
        study.prompt_rows = study.prompt_rows.flip(0)
        other = network(encoder_outputs=study, states=batch["states"], labels=batch["labels"])
    assert (other.logits - network(**batch).logits).abs().max() > 1e-2


def test_before_the_first_step_the_classifier_is_that_without_queries():
    torch.manual_seed(0)
    network, batch = DiffRGenForReportGeneration(tiny_config(finding_queries=True)).eval(), random_batch()
    with torch.no_grad():
        study = encoded(network, batch)
        torch.testing.assert_close(study.disease_logits, network.classifier(study.pooled, study.similar))


def test_where_a_row_looks_is_the_attention_of_the_first_mask():
    network, batch = tiny_network(finding_queries=True).double(), random_batch(size=2)
    batch = {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}
    layer = network.fam.layers[1].mhcar
    with torch.no_grad(), recorded(layer) as (calls,):
        encoded(network, batch)
        z, route = calls[0].inputs
        got = layer.attention(z[:, NEIGHBOURS:], route)
        query = layer.query(z)[:, NEIGHBOURS:, :WIDTH].unflatten(-1, (2, 8))
        for b in range(2):
            for c in range(FINDINGS):
                logits = [
                    torch.stack([query[b, c, h] @ route.key[b, patch, 0, h] for patch in range(PATCHES)]) / 8**0.5
                    for h in range(2)
                ]
                expected = sum(x.exp() / x.exp().sum() for x in logits) / 2
                torch.testing.assert_close(got[b, c], expected)


def test_without_queries_nothing_is_different_and_old_configurations_have_none(tmp_path):
    plain, network = tiny_network(), tiny_network(finding_queries=True)
    assert set(dict(network.named_parameters())) - set(dict(plain.named_parameters())) == {
        f"finding_queries.{name}" for name, _ in FindingQueries(tiny_config()).named_parameters()
    }
    plain.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["finding_queries"]
    path.write_text(json.dumps(stored))
    assert not DiffRGenForReportGeneration.from_pretrained(tmp_path).config.finding_queries


def test_a_checkpoint_keeps_the_queries(tmp_path):
    network, batch = tiny_network(finding_queries=True), random_batch()
    network.save_pretrained(tmp_path)
    loaded = DiffRGenForReportGeneration.from_pretrained(tmp_path).eval()
    assert isinstance(loaded.fam, FlexiRouteAggregation)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, network(**batch).logits)


def test_queries_without_an_aggregation_module_are_an_error():
    with pytest.raises(ValueError, match="expected layers of the aggregation module"):
        tiny_config(finding_queries=True, masks_per_layer=())
