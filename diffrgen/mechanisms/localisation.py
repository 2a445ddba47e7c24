"""Localisation of findings: whether the centre of a finding's attention lies in its box in the phantom's image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from diffrgen.explanation.seen import SeenFinding, attention_to_images, seen_findings
from diffrgen.labels import DISEASES
from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.phantom import Box, PhantomOptions, finding_boxes
from diffrgen.pipeline.dataset import StudyDataset, example_loader
from diffrgen.pipeline.options import ImageOptions
from diffrgen.records import Study

# By finding, for each study with it: whether the centre of its attention lies in its box, and whether another study's does.
Hits = Mapping[str, Sequence[tuple[bool, bool]]]


def localisation(
    model: DiffRGenForReportGeneration,
    dataset: StudyDataset,
    studies: Sequence[Study],
    *,
    phantom: PhantomOptions,
    image: ImageOptions,
    batch_size: int,
) -> dict[str, Any]:
    """Return how often the centre of a present finding's attention lies within its box, by finding and over all.

    `studies`: how many have the finding; `inside`: the share of them whose own centre lies in the box; `another`: that of the
    study half the list away, what a place that is always the same would get. Requires a network with finding queries.
    """
    seen: list[Mapping[str, SeenFinding]] = []
    for batch in example_loader(dataset, batch_size=batch_size, workers=0):
        inputs = StudyInputs.of(batch).to(model.device)
        grid = model.image_encoder.grid(*inputs.pixel_values.shape[-2:])
        for weights in attention_to_images(model, inputs):
            seen.append({finding.finding: finding for finding in seen_findings(weights, grid)})
    hits: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for place, study in enumerate(studies):
        other = seen[(place + len(seen) // 2) % len(seen)]
        for finding, box in finding_boxes(phantom, study.id).items():
            shown = cropped(box, image)
            hits[finding].append((shown.holds(*seen[place][finding].centre), shown.holds(*other[finding].centre)))
    return shares(hits)


def cropped(box: Box, image: ImageOptions) -> Box:
    """Return a box of a square image in shares of what the network sees of it: its centre, `size` of `resize` pixels."""
    margin, scale = (image.resize - image.size) / 2 / image.resize, image.resize / image.size
    return Box(*((end - margin) * scale for end in box))


def shares(hits: Hits) -> dict[str, Any]:
    """Return the shares of each finding in `hits`, and those over all findings, each as often as it is present."""

    def share(own: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
        count = len(own)
        return {
            "studies": count,
            "inside": sum(inside for inside, _ in own) / count if count else None,
            "another": sum(another for _, another in own) / count if count else None,
        }

    everything = [hit for own in hits.values() for hit in own]
    return {**share(everything), "findings": {name: share(hits[name]) for name in DISEASES if hits.get(name)}}
