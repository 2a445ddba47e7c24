"""Where findings are seen: by hand for a small network, and in a run's explained reports and pages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from explained_reports import explained_report
from tiny_network import FINDINGS as COUNT
from tiny_network import NEIGHBOURS, random_batch, tiny_network

from diffrgen.explanation import Explainer, SeenFinding
from diffrgen.explanation.recording import recorded
from diffrgen.explanation.seen import attention_to_images, centre_of_mass, seen_findings
from diffrgen.labels import DISEASES, FINDINGS
from diffrgen.model import StudyInputs
from diffrgen.page.render import render_page
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.reporter import Reporter

OPTIONS = GenerationOptions(beams=1, batch_size=3)


def test_attention_is_that_of_the_findings_rows_to_the_patches_of_present_views():
    """Two views of which the second study lacks one: softmax of q . k / sqrt(8), the mean of two heads and two layers."""
    network, batch = tiny_network(finding_queries=True, views=2), random_batch(size=2)
    images = torch.randn(2, 2, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    view_mask = torch.tensor([[True, True], [True, False]])
    inputs = StudyInputs(
        pixel_values=images,
        retrieved=batch["retrieved"],
        view_mask=view_mask,
        view_kinds=torch.zeros(2, 2, dtype=torch.int64),
    )
    got = attention_to_images(network, inputs)
    layers = [layer.mhcar for layer in network.fam.layers]
    with torch.no_grad(), recorded(*layers) as calls:
        network.encode(inputs)
    for study, patches in enumerate((32, 16)):
        expected = np.zeros((COUNT, 32))
        for layer, own in zip(layers, calls, strict=True):
            z, route = own[0].inputs
            query = (z[study, NEIGHBOURS:] @ layer.query.weight[:16].T).detach().double().numpy()
            key = route.key[study, :patches, 0].detach().double().numpy()  # (patches, heads, 8)
            for head in range(2):
                weights = np.exp(query[:, 8 * head : 8 * head + 8] @ key[:, head].T / math.sqrt(8))
                expected[:, :patches] += weights / weights.sum(1, keepdims=True) / 4
        np.testing.assert_allclose(got[study].numpy(), expected, atol=1e-5)


def test_a_network_without_queries_has_no_such_attention():
    with pytest.raises(ValueError, match="expected a network with finding queries"):
        attention_to_images(tiny_network(), StudyInputs.of(random_batch()))


def test_places_by_hand():
    weights = torch.zeros(14, 8)
    weights[:, 1] = 0.5  # row 0, column 1 of 2 x 2
    weights[:, 4:6] = 0.25  # another view's
    seen = seen_findings(weights, (2, 2))
    assert seen_findings(weights, (2, 2), view=1)[0].heat.tolist() == [[0.5, 0.5], [0.0, 0.0]]
    assert tuple(finding.finding for finding in seen) == DISEASES
    assert seen[0].heat.tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert seen[0].centre == (0.25, 0.75)
    assert centre_of_mass(np.array([[1.0, 1.0, 2.0]])) == pytest.approx((0.5, (0.5 + 1.5 + 2 * 2.5) / 12))


def test_explained_reports_hold_where_each_finding_is_seen(tiny_run):
    images = [tiny_run.parent / "studies" / f"{number}.png" for number in range(16, 20)]
    reporter = Reporter(tiny_run)
    assert all(not report.seen for report in Explainer(reporter).explain(images, OPTIONS))
    torch.manual_seed(0)
    config = type(reporter.model.config)(**{**reporter.model.config.to_dict(), "finding_queries": True})
    reporter.model = type(reporter.model)(config).eval()
    reports = list(Explainer(reporter).explain(images, OPTIONS))
    for positions, batch in reporter.write_batches(images, OPTIONS):
        for position, weights in zip(positions, attention_to_images(reporter.model, batch.inputs), strict=True):
            seen = {finding.finding: finding for finding in reports[position].seen}
            plain = reports[position].to_dict()["findings_seen"]
            assert set(seen) == set(plain) == set(DISEASES)
            for name, finding in seen.items():
                expected = weights[FINDINGS.index(name)].view(finding.heat.shape).cpu().numpy()
                np.testing.assert_allclose(finding.heat, expected, atol=1e-5)
                np.testing.assert_allclose(plain[name]["heat"], expected, atol=1e-4)


def test_the_page_shows_present_and_uncertain_findings_alone():
    heat = np.array([[0.1, 0.7], [0.1, 0.1]])
    report = explained_report()
    assert "Location of each finding" not in render_page(report, title="chest")
    seen = tuple(SeenFinding(name, heat, (0.3, 0.7)) for name in ("edema", "fracture", "lung lesion"))
    html = render_page(type(report)(**{**vars(report), "seen": seen}), title="chest")
    assert "Location of edema: mostly in the upper right of the image" in html
    assert "Location of lung lesion:" in html
    assert "Location of fracture" not in html
