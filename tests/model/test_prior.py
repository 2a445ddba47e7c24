"""The earlier study as a reference: what it changes, what an absent one does not, and Eq. 1 of its rows by hand."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from tiny_network import NEIGHBOURS, PRIOR_ROWS, random_batch, random_batch_with_prior, tiny_config, tiny_network
from torch._dynamo.testing import CompileCounterWithBackend

from diffrgen.labels import NO_STUDY
from diffrgen.model import DiffRGenConfig, DiffRGenForReportGeneration, StudyInputs

IMAGE, REPORT = slice(0, 1), slice(1, None)


def output_of(network, batch):
    with torch.no_grad():
        return network(**batch)


def in_float64(network, batch):
    """Where next to no rounding is allowed, there is next to none; Eq. 8, computed in float32 always, is left out."""
    given = {name: x.double() if x.is_floating_point() else x for name, x in batch.items() if name != "states"}
    return network.double(), given


def without_prior(batch):
    return {name: tensor for name, tensor in batch.items() if not name.startswith("prior")}


@pytest.mark.parametrize("part", [IMAGE, REPORT], ids=["image", "report"])
def test_each_part_of_a_prior_changes_the_report(part):
    network, batch = tiny_network(prior=True), random_batch_with_prior()
    batch["prior_mask"][:] = False
    nothing = output_of(network, batch).logits
    batch["prior_mask"][:, part] = True
    alone = output_of(network, batch).logits
    assert (alone - nothing).abs().max() > 1e-2
    batch["prior"][:, part] += 1.0
    assert (output_of(network, batch).logits - alone).abs().max() > 1e-2


@pytest.mark.parametrize("changes", [{}, {"share_fam": False}, {"difference_metrics": ()}, {"masks_per_layer": ()}])
def test_an_absent_prior_is_no_prior(changes):
    network, batch = in_float64(tiny_network(prior=True, **changes), random_batch_with_prior())
    batch["prior_mask"][:] = False
    batch["prior_states"][:] = NO_STUDY
    batch["prior"] *= 100.0
    absent, none = output_of(network, batch), output_of(network, without_prior(batch))
    for name in ("logits", "disease_logits", "loss"):
        torch.testing.assert_close(absent[name], none[name], rtol=0, atol=1e-6)
    given = [StudyInputs.of(some) for some in (batch, without_prior(batch))]
    written = [network.generate(some, num_beams=2, max_new_tokens=9) for some in given]
    assert torch.equal(*written)


def test_a_prior_of_one_study_does_not_touch_the_others_in_evaluation():
    network, batch = in_float64(tiny_network(prior=True), random_batch_with_prior())
    batch["prior_mask"][1:] = False
    batch["prior_states"][1:] = NO_STUDY
    logits, none = output_of(network, batch).logits, output_of(network, without_prior(batch)).logits
    assert (logits[0] - none[0]).abs().max() > 1e-2
    torch.testing.assert_close(logits[1:], none[1:], rtol=0, atol=1e-6)


def test_absent_rows_do_not_touch_training_either():
    """Batch normalisation of Eq. 1 sees the retrieved reports alone: loss and gradients stay, whatever absent rows hold."""
    found = []
    for scale in (1.0, 50.0):
        network, batch = tiny_network(prior=True, dropout=0.0).train(), random_batch_with_prior()
        network.config.decoder.hidden_dropout_prob = network.config.decoder.attention_probs_dropout_prob = 0.0
        batch["prior_mask"][:, 2:] = False
        batch["prior"][:, 2:] *= scale
        torch.manual_seed(0)
        loss = network(**batch).loss
        loss.backward()
        found.append((loss.detach(), network.report_projection[0].weight.grad, network.difference.norm.running_var))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_means_of_similar_and_difference_are_those_of_the_retrieved_reports():
    """Their rows stand first in S and D: with one retrieved report the mean is that row of the FAM's output."""
    network, batch = tiny_network(prior=True), random_batch_with_prior(size=2)
    batch["retrieved_mask"][:, 1:] = False
    rows = []
    network.fam.register_forward_hook(lambda _, given, out: rows.append(out))
    encoded = network.encode(StudyInputs.of(batch))
    similar, difference = rows
    assert similar.shape[1] == difference.shape[1] == NEIGHBOURS + PRIOR_ROWS
    torch.testing.assert_close(encoded.similar, similar[:, 0])
    torch.testing.assert_close(encoded.difference, difference[:, 0])


def test_memory_holds_the_rows_of_the_prior_in_s_and_d_and_their_mask():
    network, batch = tiny_network(prior=True), random_batch_with_prior(size=2)
    batch["prior_mask"][1, 2:] = False
    encoded = network.encode(StudyInputs.of(batch))
    patches = encoded.last_hidden_state.shape[1] - 2 * (NEIGHBOURS + PRIOR_ROWS)
    assert patches == 16
    expected = [True] * patches + ([True] * NEIGHBOURS + [True, True, False, False]) * 2
    assert encoded.memory_mask[1].tolist() == expected
    assert encoded.memory_mask[0].all()


def test_eq_1_of_a_prior_is_computed_by_hand():
    """l2, cosine and dot of each row with the mean patch, standardised by the running statistics, through the MLP."""
    network, batch = tiny_network(prior=True, difference="scalars"), random_batch_with_prior(size=2)
    norm = network.difference.norm
    norm.running_mean.copy_(torch.tensor([1.0, 0.1, -0.5]))
    norm.running_var.copy_(torch.tensor([4.0, 0.5, 9.0]))
    given = []
    network.fam.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    with torch.no_grad():
        network.encode(StudyInputs.of(batch))
        patches = network.patch_projection(network.image_encoder(batch["pixel_values"]).patches)
        z = network.report_projection(batch["prior"])
        first, second, last = network.difference.mlp[0], network.difference.mlp[2], network.prior.kind
    for study in range(2):
        f = patches[study].double().mean(0).tolist()
        for row in range(PRIOR_ROWS):
            r = z[study, row].double().tolist()
            dot = sum(a * b for a, b in zip(r, f, strict=True))
            lengths = [math.sqrt(sum(a * a for a in vector)) for vector in (r, f)]
            distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(r, f, strict=True)))
            metrics = torch.tensor([distance, dot / lengths[0] / lengths[1], dot], dtype=torch.float64)
            statistics = [norm.running_mean.double(), norm.running_var.double()]
            scaled = (metrics - statistics[0]) / (statistics[1] + norm.eps).sqrt() * norm.weight + norm.bias
            hidden = (first.weight.double() @ scaled + first.bias).clamp_min(0)
            expected = second.weight.double() @ hidden + second.bias + last[min(row, 1)]
            torch.testing.assert_close(given[1][study, NEIGHBOURS + row].double(), expected, rtol=1e-4, atol=1e-4)
            marked = z[study, row] + last[min(row, 1)]
            torch.testing.assert_close(given[0][study, NEIGHBOURS + row], marked)


def test_the_prompt_tells_the_states_before_and_now():
    """A token for each pair of states; the four of the paper where there is no earlier study."""
    network = tiny_network(prior=True)
    before, now = torch.tensor([[NO_STUDY, 0, 1, 2, 3]]), torch.tensor([[3, 0, 2, 1, 3]])
    start = network.config.decoder_start_token_id
    assert network.prompt_ids(now, before).tolist() == [[start, 8, 9, 15, 18, 24]]
    for plain in (network.prompt_ids(now), tiny_network(prior=True, prior_prompt_token_ids=()).prompt_ids(now, before)):
        assert plain.tolist() == [[start, 8, 5, 7, 6, 8]]


def test_the_states_before_prompt_training_and_writing_and_nothing_else():
    network, batch = in_float64(tiny_network(prior=True), random_batch_with_prior())
    told, given = output_of(network, batch), StudyInputs.of(batch)
    written = network.write_reports(given, num_beams=1, max_new_tokens=5)
    ids = torch.cat([network.prompt_ids(written.states, batch["prior_states"]), written.sequences[:, :-1]], dim=1)
    encoded = network.encode(given)
    with torch.no_grad():
        logits = network.decoder(
            input_ids=ids,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=encoded.memory_mask,
            logits_to_keep=5,
        ).logits
    ended = (written.sequences == network.config.eos_token_id).cumsum(1) > 0
    assert torch.equal(logits.argmax(-1)[~ended], written.sequences[~ended])
    batch["prior_states"][0] = (batch["prior_states"][0] + 1) % 4
    other = output_of(network, batch)
    assert (other.logits[0] - told.logits[0]).abs().max() > 1e-2
    torch.testing.assert_close(other.logits[1:], told.logits[1:], rtol=0, atol=1e-6)
    torch.testing.assert_close(other.disease_logits, told.disease_logits)


def test_token_features_and_a_prior_have_projections_of_their_own():
    network = tiny_network(prior=True, retrieved="tokens", prior_width=6)
    batch = random_batch_with_prior(width=6)
    before = output_of(network, batch).logits
    batch["prior"][:, 0] += 1.0
    assert (output_of(network, batch).logits - before).abs().max() > 1e-2
    assert network.prior.projection[0].in_features == 6
    assert tiny_network(prior=True).prior.projection is None


def test_every_parameter_of_the_prior_receives_a_gradient():
    for changes in ({}, {"retrieved": "tokens", "prior_width": 6}):
        network = tiny_network(prior=True, **changes).train()
        network(**random_batch_with_prior(width=network.config.prior_width)).loss.backward()
        silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert silent == []


def test_a_network_without_the_input_refuses_a_prior():
    with pytest.raises(ValueError, match="expected no prior"):
        tiny_network()(**random_batch_with_prior())
    with pytest.raises(ValueError, match=r"4 x 4 prompt tokens.*got \(\(9, 10\),\)"):
        tiny_config(prior=True, prior_prompt_token_ids=((9, 10),))
    with pytest.raises(ValueError, match="as wide as the retrieved ones, got 5 and 12"):
        tiny_config(prior=True, prior_width=5)


def test_a_configuration_from_before_means_no_prior(tmp_path):
    """As config.json was written when there was no such field; the weights load without a word about missing ones."""
    network, batch = tiny_network(), random_batch()
    network.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    assert stored.pop("prior") is False
    stored.pop("prior_width")
    stored.pop("prior_prompt_token_ids")
    path.write_text(json.dumps(stored))
    assert DiffRGenConfig.from_pretrained(tmp_path).prior is False
    loaded, info = DiffRGenForReportGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert loaded.prior is None
    torch.testing.assert_close(output_of(loaded.eval(), batch).logits, output_of(network, batch).logits)


def test_a_network_with_priors_survives_its_checkpoint(tmp_path):
    network, batch = tiny_network(prior=True), random_batch_with_prior()
    network.save_pretrained(tmp_path)
    loaded = DiffRGenForReportGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(output_of(loaded, batch).logits, output_of(network, batch).logits)


def test_a_training_step_with_priors_is_one_graph():
    torch._dynamo.reset()
    network, batch = tiny_network(prior=True, dropout=0.0).train(), random_batch_with_prior()
    counter = CompileCounterWithBackend("eager")
    # A twin, for the statistics that Eq. 1 standardises a prior by move with every call.
    twin, compiled = copy.deepcopy(network), torch.compile(network, backend=counter, fullgraph=True)
    for draw in range(3):
        batch["prior_mask"] = torch.rand(3, PRIOR_ROWS, generator=torch.Generator().manual_seed(draw)) < 0.5
        torch.manual_seed(draw)
        loss = compiled(**batch).loss
        torch.manual_seed(draw)
        torch.testing.assert_close(loss, twin(**batch).loss)
        loss.backward()
    torch._dynamo.reset()
    assert counter.frame_count == 1
