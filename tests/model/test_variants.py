"""The networks of the paper's ablations: each lacks what it says, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_network import FINDINGS, NEIGHBOURS, random_batch, tiny_network

from diffrgen.model import StudyInputs
from diffrgen.model.contrast import supervised_contrast

PATCHES, WIDTH, HEADS, SETS = 16, 16, 2, 2 + 3
# Of D: query and key, value, 3 x 16 -> 32 -> 16
CONTENT = 2 * WIDTH * WIDTH + (WIDTH + 1) * WIDTH + (3 * WIDTH + 1) * 2 * WIDTH + (2 * WIDTH + 1) * WIDTH


def parameters(network, part: str = "") -> int:
    return sum(p.numel() for name, p in network.named_parameters() if name.startswith(part))


def encoded(network, batch):
    return network.encode(StudyInputs.of(batch))


def test_without_difference_the_memory_has_no_rows_of_d():
    batch = random_batch()
    full, without = tiny_network(), tiny_network(difference_metrics=())
    without.load_state_dict({name: full.state_dict()[name] for name in without.state_dict()})
    study, bare = encoded(full, batch), encoded(without, batch)
    rows = PATCHES + NEIGHBOURS
    assert bare.last_hidden_state.shape[1] == bare.memory_mask.shape[1] == rows
    assert study.last_hidden_state.shape[1] == rows + NEIGHBOURS
    torch.testing.assert_close(bare.last_hidden_state, study.last_hidden_state[:, :rows])
    torch.testing.assert_close(bare.disease_logits, study.disease_logits)
    assert bare.difference is None
    # 3 metrics: the norm's scale and shift, 3 -> 128 -> 16
    assert parameters(full) - parameters(without) == 2 * 3 + (3 * 128 + 128) + (128 * WIDTH + WIDTH) + CONTENT


def test_without_difference_eq_8_contrasts_with_other_studies_alone():
    draw = torch.Generator().manual_seed(0)
    image, similar = (torch.randn(3, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    same = torch.eye(3, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    loss = supervised_contrast(image, similar, similar[:0], same, temperature=0.5)

    def f(a, b):
        return math.exp(float(F.cosine_similarity(a, b, dim=0)) / 0.5)

    expected = 0.0
    for i in range(3):
        everything = [f(image[i], image[j]) for j in range(3) if j != i] + [f(image[i], similar[j]) for j in range(3)]
        positives = [f(image[i], similar[j]) for j in range(3) if same[i, j]]
        positives += [f(image[i], image[j]) for j in range(3) if same[i, j] and j != i]
        expected -= sum(math.log(p / sum(everything)) for p in positives) / len(positives) / 3
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("difference", ["scalars", "content"])
@pytest.mark.parametrize("metrics", [("l2", "cosine", "dot"), ("dot",), ()])
def test_every_variant_of_eq_1_trains(metrics, difference):
    network = tiny_network(difference=difference, difference_metrics=metrics).train()
    network(**random_batch()).loss.backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without <= {"decoder.cls.predictions.bias"}
    of_scalars = 2 * len(metrics) + 128 * len(metrics) + 128 + 129 * WIDTH
    of_content = CONTENT if difference == "content" else 0
    assert parameters(network, "difference.") == (of_scalars + of_content) * bool(metrics)


def test_layers_of_one_mask_are_plain_cross_attention():
    network = tiny_network(masks_per_layer=(1, 1)).double()
    mhcar = network.fam.layers[0].mhcar
    draw = torch.Generator().manual_seed(0)
    z = torch.randn(2, NEIGHBOURS, WIDTH, generator=draw, dtype=torch.float64)
    patches = torch.randn(2, PATCHES, WIDTH, generator=draw, dtype=torch.float64)
    route = mhcar.route(patches, (4, 4), network.fam.temperature)
    assert route.alpha.tolist() == [[1.0], [1.0]]
    q, k, v = (
        part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for part, x in ((mhcar.query, z), (mhcar.key, patches), (mhcar.value, patches))
    )
    expected = mhcar.output(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))
    torch.testing.assert_close(mhcar(z, route), expected)


def test_parameters_of_the_router_variants():
    own, shared, plain, none = (
        parameters(tiny_network(**changes), "fam.")
        for changes in ({}, {"share_projections": True}, {"masks_per_layer": (1, 1)}, {"masks_per_layer": ()})
    )
    projections, routers = 3 * WIDTH * WIDTH, sum(WIDTH * 8 + 8 + 8 * masks + masks for masks in (2, 3))
    assert own - shared == (SETS - 2) * projections
    assert shared - plain == routers
    assert none == 0


def test_concatenation_hands_the_decoder_what_was_retrieved():
    batch = random_batch()
    network = tiny_network(masks_per_layer=())
    reports = network.report_projection(batch["retrieved"])
    patches = network.patch_projection(network.image_encoder(batch["pixel_values"]).patches)
    difference = network.difference(reports, patches)
    study = encoded(network, batch)
    expected = network.memory_projection(torch.cat([patches, reports, difference], dim=1))
    torch.testing.assert_close(study.last_hidden_state, expected)
    torch.testing.assert_close(study.similar, reports.mean(1))
    assert study.routing == ()
    assert network.write_reports(StudyInputs.of(batch), max_new_tokens=3, num_beams=2).states.shape == (3, FINDINGS)


def test_without_the_contrast_its_loss_moves_nothing():
    batch = random_batch()
    network = tiny_network(contrast_weight=0.0).train()
    output = network(**batch)
    assert float(output.contrast_loss.detach()) > 0
    total = output.language_loss + 4.0 * output.disease_loss
    assert float(output.loss.detach()) == pytest.approx(float(total.detach()))
    output.loss.backward()
    assert all(not p.grad.any() for name, p in network.named_parameters() if name.startswith("contrast."))
