"""The network with several views of a study."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_network import FINDINGS, NEIGHBOURS, random_batch, random_batch_with_prior, tiny_network

from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.model.views import recognition_loss

FRONTAL, LATERAL = 1, 2
PATCHES = 16


def with_views(batch, counts, seed=5):
    """The batch with so many random views a study, frontal first, then lateral ones; padding is NaN."""
    most, generator = max(counts), torch.Generator().manual_seed(seed)
    pixels = torch.randn(len(counts), most, 1, 64, 64, generator=generator)
    mask = torch.arange(most) < torch.tensor(counts)[:, None]
    kinds = torch.full((len(counts), most), LATERAL)
    kinds[:, 0] = FRONTAL
    pixels[~mask] = torch.nan
    return {**batch, "pixel_values": pixels, "view_mask": mask, "view_kinds": kinds.masked_fill(~mask, 0)}


def network_of_views(**changes):
    """A network whose marks are not 0."""
    network = tiny_network(views=4, **changes)
    with torch.no_grad():
        network.view_marks.kind.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(3)))
    return network


def of_study(batch, study, views):
    """One study of the batch, its first `views` views, without a mask."""
    one = {name: tensor[study : study + 1] for name, tensor in batch.items() if name != "view_mask"}
    return {**one, "pixel_values": one["pixel_values"][:, :views], "view_kinds": one["view_kinds"][:, :views]}


def output_of(network, batch):
    with torch.no_grad():
        return network(**batch)


def in_float64(network, batch):
    batch = {name: t.double() if t.is_floating_point() else t for name, t in batch.items() if name != "states"}
    return network.double(), batch


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_one_view_gives_the_numbers_of_before_to_the_bit(training):
    """Of a network without marks, and of one whose marks are still 0; with and without the axis of views."""
    batch = random_batch_with_prior()
    one = {**batch, "pixel_values": batch["pixel_values"].unsqueeze(1), "view_kinds": torch.full((3, 1), LATERAL)}
    outputs = []
    for views, given in ((1, batch), (1, one), (4, batch), (4, one)):
        network = tiny_network(prior=True, views=views).train(training)
        if views > 1:
            torch.nn.init.zeros_(network.view_marks.kind)
            network.load_state_dict(tiny_network(prior=True).state_dict(), strict=False)
        torch.manual_seed(0)
        output = network(**given)
        output.loss.backward()
        gradient = network.image_encoder.model.embedder.embedder.convolution.weight.grad
        outputs.append((output.loss, output.logits, output.disease_logits, *output.routing, gradient))
    for other in outputs[1:]:
        assert all(map(torch.equal, outputs[0], other))


def test_marks_are_zero_in_a_new_network_and_absent_in_one_for_one_image():
    torch.manual_seed(0)
    network = DiffRGenForReportGeneration(tiny_network(views=2).config)
    assert network.view_marks.kind.count_nonzero() == 0
    assert tiny_network().view_marks is None
    assert not [name for name in tiny_network().state_dict() if "view" in name]


@pytest.mark.parametrize("changes", [{}, {"share_fam": False}, {"difference": "scalars"}, {"masking": "exclusive"}])
def test_a_study_does_not_depend_on_the_padding_of_its_batch(changes):
    """Each study alone, with its own number of views and no mask, gives what it gives in the padded batch."""
    network, batch = in_float64(network_of_views(prior=True, **changes), with_views(random_batch_with_prior(), [1, 3, 2]))
    together = output_of(network, batch)
    for study, views in enumerate([1, 3, 2]):
        alone = output_of(network, of_study(batch, study, views))
        torch.testing.assert_close(alone.logits[0], together.logits[study], rtol=0, atol=1e-10)
        torch.testing.assert_close(alone.disease_logits[0], together.disease_logits[study], rtol=0, atol=1e-10)
        for one, all_of_them in zip(alone.routing, together.routing, strict=True):
            torch.testing.assert_close(one[0], all_of_them[study], rtol=0, atol=1e-10)


def test_the_order_of_the_views_does_not_matter_and_their_kinds_do():
    network, batch = in_float64(network_of_views(), with_views(random_batch(), [2, 2, 2]))
    del batch["view_mask"]
    turned = {**batch, **{name: batch[name].flip(1) for name in ("pixel_values", "view_kinds")}}
    exchanged = {**batch, "view_kinds": batch["view_kinds"].flip(1)}
    unknown = {**batch, "view_kinds": torch.zeros_like(batch["view_kinds"])}
    logits = output_of(network, batch).logits
    torch.testing.assert_close(output_of(network, turned).logits, logits, rtol=0, atol=1e-10)
    for other in (exchanged, unknown):
        assert (output_of(network, other).logits - logits).abs().max() > 1e-3
    del batch["view_kinds"]
    torch.testing.assert_close(output_of(network, batch).logits, output_of(network, unknown).logits)


@pytest.mark.parametrize("part", ["logits", "disease_logits"])
def test_every_view_changes_the_output(part):
    network, batch = network_of_views(), with_views(random_batch(), [3, 2, 3])
    before = output_of(network, batch)[part]
    for view in range(3):
        pixels = batch["pixel_values"].clone()
        pixels[:, view] += 1.0
        changed = (output_of(network, {**batch, "pixel_values": pixels})[part] - before).flatten(1).abs().amax(1) > 1e-4
        assert changed.tolist() == batch["view_mask"][:, view].tolist()


def test_memory_holds_the_grids_one_after_the_other_with_their_marks():
    network, batch = network_of_views(), with_views(random_batch(size=2), [2, 1])
    with torch.no_grad():
        encoded = network.encode(StudyInputs.of(batch))
        for view, kind in ((0, FRONTAL), (1, LATERAL)):
            features = network.image_encoder(batch["pixel_values"][:1, view])
            marked = network.patch_projection(features.patches) + network.view_marks.kind[kind]
            rows = encoded.last_hidden_state[0, view * PATCHES : (view + 1) * PATCHES]
            torch.testing.assert_close(rows, network.memory_projection(marked)[0], rtol=1e-4, atol=1e-5)
    expected = [True] * PATCHES + [False] * PATCHES + [True] * 2 * NEIGHBOURS
    assert encoded.memory_mask[1].tolist() == expected
    pooled = network.image_encoder(batch["pixel_values"][0]).pooled.mean(0)
    torch.testing.assert_close(encoded.pooled[0], pooled, rtol=1e-4, atol=1e-5)


def test_batch_statistics_are_of_the_real_images_alone():
    network, batch = network_of_views().train(), with_views(random_batch(), [2, 1, 2])
    alone = network_of_views().train()
    network(**batch).loss.backward()
    alone.image_encoder(batch["pixel_values"][batch["view_mask"]])
    for (name, one), (_, other) in zip(
        network.image_encoder.named_buffers(), alone.image_encoder.named_buffers(), strict=True
    ):
        assert torch.equal(one, other), name
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    assert network.view_marks.kind.grad.abs().amax(1)[1:].min() > 0


@pytest.mark.parametrize("counts", [[2, 2, 2], [2, 1, 3]], ids=["all there", "masked"])
@pytest.mark.parametrize("masking", ["multiplicative", "exclusive"])
def test_the_fused_operator_and_the_reference_agree_with_several_views(counts, masking):
    batch, outputs = with_views(random_batch(), counts), []
    for backend in ("auto", "reference"):
        network = network_of_views(operator_backend=backend, masking=masking)
        output = network(**batch)
        output.loss.backward()
        layer = network.fam.layers[0].mhcar
        outputs.append((output.logits, output.disease_logits, layer.key.weight.grad, layer.value.weight.grad))
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)


def test_reports_are_generated_from_several_views():
    network, batch = network_of_views(), with_views(random_batch(), [2, 1, 3])
    inputs, settings = StudyInputs.of(batch), {"num_beams": 2, "max_new_tokens": 9}
    written = network.write_reports(inputs, **settings)
    assert written.states.shape == (3, FINDINGS)
    for study, views in enumerate([2, 1, 3]):
        alone = network.generate(StudyInputs.of(of_study(batch, study, views)), **settings)[0]
        assert torch.equal(alone, written.sequences[study, : len(alone)])


def test_the_recogniser_learns_from_known_views_alone():
    logits = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    kinds = torch.tensor([[LATERAL, 0, FRONTAL], [0, LATERAL, 0]])
    expected = -sum(F.log_softmax(logits[place], -1)[kinds[place] - 1] for place in ((0, 0), (0, 2), (1, 1))) / 3
    torch.testing.assert_close(recognition_loss(logits, kinds), expected)
    assert recognition_loss(logits, torch.zeros(2, 3, dtype=torch.int64)) == 0


def test_unknown_views_are_recognised_outside_training():
    network, batch = network_of_views(view_recogniser=True), with_views(random_batch(), [2, 2, 2])
    del batch["view_mask"]
    batch["view_kinds"] = torch.tensor([[0, FRONTAL], [LATERAL, 0], [0, 0]])
    with torch.no_grad():
        pooled, head = network.image_encoder(batch["pixel_values"].flatten(0, 1)).pooled, network.view_marks.recogniser
        pooled = F.layer_norm(pooled, (32,))
        # Half of the views are on each side.
        head.bias[0] += (head(pooled) @ torch.tensor([-1.0, 1.0])).median() + 1e-4
        encoded = network.encode(StudyInputs.of(batch))
        found = 1 + network.view_marks.recogniser(pooled).argmax(-1).view(3, 2)
        known = network.encode(StudyInputs.of({**batch, "view_kinds": encoded.view_kinds}))
        written = network.write_reports(StudyInputs.of(batch), max_new_tokens=3)
    assert {FRONTAL, LATERAL} == set(found.flatten().tolist())
    assert torch.equal(encoded.view_kinds, torch.where(batch["view_kinds"] == 0, found, batch["view_kinds"]))
    assert torch.equal(encoded.last_hidden_state, known.last_hidden_state)
    assert torch.equal(written.view_kinds, encoded.view_kinds)
    assert torch.equal(network.train().encode(StudyInputs.of(batch)).view_kinds, batch["view_kinds"])


def test_the_recogniser_gives_nothing_else_a_gradient():
    batch, gradients = with_views(random_batch(), [2, 1, 3]), []
    for recogniser in (False, True):
        network = network_of_views(view_recogniser=recogniser).eval()
        if recogniser:
            network.load_state_dict(network_of_views().state_dict(), strict=False)
        output = network(**batch)
        output.loss.backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    head = {name: gradients[1].pop(name) for name in list(gradients[1]) if "recogniser" in name}
    assert len(head) == 2
    assert all(gradient.abs().max() > 0 for gradient in head.values())
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
    parts = output.language_loss + 4 * output.disease_loss + 0.1 * output.contrast_loss + 0.1 * output.view_loss
    torch.testing.assert_close(output.loss, parts)


def test_wrong_views_are_refused():
    with pytest.raises(ValueError, match="expected no view_recogniser for a network of one view"):
        tiny_network(view_recogniser=True)
    network, batch = tiny_network(views=2), with_views(random_batch(), [2, 1, 2])
    batch["view_mask"][1] = False
    with pytest.raises(ValueError, match="expected at least one view a study, got view_mask"):
        network(**batch)
    with pytest.raises(ValueError, match=r"expected at most 2 views a study \(config.views\), got 3"):
        network(**with_views(random_batch(), [3, 3, 3]))
    inputs = StudyInputs.of(with_views(random_batch(), [2, 2, 2]))
    with pytest.raises(ValueError, match="expected at most 1 views a study"):
        tiny_network().encode(replace(inputs, view_mask=None))
    with pytest.raises(ValueError, match="views: expected a whole number of at least 1, got 0"):
        tiny_network(views=0)
