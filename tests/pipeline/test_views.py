"""Studies of several images as examples, queries and pairs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from diffrgen.images import ImageTransform, read_grey
from diffrgen.images.cache import CachePlan
from diffrgen.images.cache_writer import open_image_cache
from diffrgen.labels import FINDINGS
from diffrgen.pipeline.dataset import ExampleSettings, StudyDataset, collate
from diffrgen.records import VIEW_KINDS, Study
from diffrgen.retrieval import Neighbours, RetrieverOptions, neighbours_of_studies
from diffrgen.retrieval.neighbours import embed_images, embed_views
from diffrgen.retrieval.pairs import StudyPairs
from diffrgen.text import train_tokenizer

TRANSFORM = ImageTransform(size=16, resize=18)
REPORT = "the lungs are clear ."


@pytest.fixture
def studies(tmp_path) -> tuple[Study, ...]:
    """Studies of 2, 1 and 3 images, each image of one grey level."""
    made, level = [], 20
    for number, kinds in enumerate((("lateral", "frontal"), ("unknown",), ("frontal", "lateral", "lateral"))):
        paths = []
        for place in range(len(kinds)):
            paths.append(tmp_path / f"{number}-{place}.png")
            pixels = np.random.default_rng(level).integers(0, 60, (20, 20)) + level
            Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
            level += 30
        labels = (0,) * len(FINDINGS)
        made.append(Study(f"s{number}", REPORT, tuple(paths), "train", labels=labels, views=kinds))
    return tuple(made)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([REPORT], vocab_size=120, min_frequency=1)


def make_dataset(studies, tokenizer, transform=TRANSFORM, **changes):
    rows = (len(studies), 2)
    neighbours = Neighbours(np.zeros(rows, np.int64), np.ones(rows, np.float32), np.ones(rows, bool))
    index = SimpleNamespace(gather=lambda rows: np.zeros((len(rows), 4), np.float32))
    sources = ExampleSettings(
        transform=transform, tokenizer=tokenizer, rules="plain", max_tokens=9, index=index, **changes
    )
    return StudyDataset(studies, neighbours, sources)


class MeanRetriever:
    """Embeds an image by a fixed product of its pixels."""

    fingerprint = "mean"
    image_transform = TRANSFORM

    def __init__(self):
        self.weights = torch.randn(16 * 16, 4, generator=torch.Generator().manual_seed(0))

    def encode_images(self, pixel_values):
        return F.normalize(pixel_values.flatten(1) @ self.weights, dim=-1)


def test_an_example_holds_every_view_and_its_kind(studies, tokenizer):
    dataset = make_dataset(studies, tokenizer)
    for row, study in enumerate(studies):
        expected = torch.stack([TRANSFORM(read_grey(path)) for path in study.images])
        assert torch.equal(dataset[row]["pixel_values"], expected)
        assert [VIEW_KINDS[kind] for kind in dataset[row]["view_kinds"]] == list(study.views)


def test_a_batch_is_padded_to_the_most_views_and_masked_where_they_differ(studies, tokenizer):
    dataset = make_dataset(studies, tokenizer)
    examples = [dataset[row] for row in range(3)]
    batch = collate(examples)
    assert batch["pixel_values"].shape == (3, 3, 1, 16, 16)
    assert batch["view_mask"].tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert batch["view_kinds"].tolist() == [[2, 1, 0], [0, 0, 0], [1, 2, 2]]
    for row, example in enumerate(examples):
        assert torch.equal(batch["pixel_values"][row, : len(example["view_kinds"])], example["pixel_values"])
    assert "view_mask" not in collate([examples[2], examples[2]])
    assert collate([examples[1]])["pixel_values"].shape == (1, 1, 1, 16, 16)


def test_the_first_view_is_augmented_as_before_and_every_view_by_draws_of_its_own(studies, tokenizer):
    augmented = replace(TRANSFORM, rotation=20.0, train=True)
    twice = replace(studies[0], images=studies[0].images[:1] * 2)
    alone = replace(studies[0], images=studies[0].images[:1], views=("lateral",))
    dataset, single = (make_dataset([study], tokenizer, transform=augmented) for study in (twice, alone))
    for epoch in range(2):
        dataset.epoch = single.epoch = epoch
        first, second = dataset[0]["pixel_values"]
        assert torch.equal(first, single[0]["pixel_values"][0])
        assert not torch.equal(first, second)
        # What training gave before a study could have several images.
        draw = torch.Generator().manual_seed(hash((0, epoch, 0)) % 2**63)
        assert torch.equal(first, augmented(read_grey(alone.images[0]), draw))


def test_training_shows_a_single_view_as_often_as_asked_and_evaluation_never(studies, tokenizer):
    train = replace(TRANSFORM, train=True)
    dataset = make_dataset(studies, tokenizer, transform=train, single_view=0.3)
    shown = {row: Counter() for row in range(3)}
    for epoch in range(400):
        dataset.epoch = epoch
        for row in range(3):
            example = dataset[row]
            kinds = tuple(VIEW_KINDS[kind] for kind in example["view_kinds"])
            assert len(example["pixel_values"]) == len(kinds)
            shown[row][kinds] += 1
    assert set(shown[0]) == {("lateral", "frontal"), ("lateral",), ("frontal",)}
    # 120 of 400 expected, standard deviation 9; the frontal view is one of two, then one of three.
    assert 80 < 400 - shown[0]["lateral", "frontal"] < 160
    assert 30 < shown[0]["frontal",] < 90
    assert 15 < shown[2]["frontal",] < 70
    assert shown[1] == {("unknown",): 400}
    dataset.epoch = 7
    again = make_dataset(studies, tokenizer, transform=train, single_view=0.3)
    again.epoch = 7
    assert all(torch.equal(dataset[row]["pixel_values"], again[row]["pixel_values"]) for row in range(3))
    evaluated = make_dataset(studies, tokenizer, single_view=1.0)
    assert [len(evaluated[row]["view_kinds"]) for row in range(3)] == [2, 1, 3]


def test_one_view_of_each_study_is_its_first_frontal_one_where_known_and_only_within_the_block(studies, tokenizer):
    dataset = make_dataset(studies, tokenizer)
    with dataset.one_view():
        shown = [dataset[row] for row in range(3)]
    for study, example, place in zip(studies, shown, (1, 0, 0), strict=True):
        assert torch.equal(example["pixel_values"], TRANSFORM(read_grey(study.images[place]))[None])
        assert VIEW_KINDS[example["view_kinds"].item()] == study.views[place]
    assert [len(dataset[row]["pixel_values"]) for row in range(3)] == [2, 1, 3]


def test_the_view_shown_is_the_image_of_its_kind(studies, tokenizer):
    class Central:
        """The evaluation transform, in training."""

        train, resize = True, TRANSFORM.resize

        def __call__(self, picture, generator):
            return TRANSFORM(picture)

    dataset = make_dataset(studies, tokenizer, transform=Central(), single_view=1.0)
    images = [TRANSFORM(read_grey(path)) for path in studies[0].images]
    for epoch in range(8):
        dataset.epoch = epoch
        example = dataset[0]
        place = studies[0].views.index(VIEW_KINDS[example["view_kinds"].item()])
        assert torch.equal(example["pixel_values"][0], images[place])


def test_all_views_are_read_from_the_cache(studies, tokenizer, tmp_path):
    expected = [make_dataset(studies, tokenizer)[row]["pixel_values"] for row in range(3)]
    cache = open_image_cache(tmp_path / "cache", CachePlan.of(studies, resize=18), progress=False)
    dataset = make_dataset(studies, tokenizer, read=cache.read)
    for study in studies:
        for path in study.images:
            path.unlink()
    assert all(torch.equal(dataset[row]["pixel_values"], expected[row]) for row in range(3))


def test_the_query_is_the_unit_mean_of_the_views(studies):
    retriever = MeanRetriever()
    options = RetrieverOptions(batch_size=2)
    found = embed_images(retriever, studies, options=options, progress=False, label="")
    for study, query in zip(studies, found, strict=True):
        views = [retriever.encode_images(TRANSFORM(read_grey(path))[None])[0].double() for path in study.images]
        total = sum(views)
        np.testing.assert_allclose(query, total / total.norm(), atol=1e-6)
    pixels = TRANSFORM(read_grey(studies[1].images[0]))[None]
    assert torch.equal(embed_views(retriever, [pixels]), retriever.encode_images(pixels))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_another_second_image_means_other_neighbours(studies, tmp_path):
    searched = []

    class Index:
        folder, manifest = tmp_path, SimpleNamespace(retriever="mean", fingerprint="index")

        def search(self, queries, count, **_):
            searched.append(queries)
            rows = (len(queries), count)
            return Neighbours(np.zeros(rows, np.int64), np.ones(rows, np.float32), np.ones(rows, bool))

    def look_up():
        options = RetrieverOptions(neighbours=2)
        neighbours_of_studies(MeanRetriever(), Index(), studies, split="train", options=options, progress=False)

    look_up()
    look_up()
    assert len(searched) == 1
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(studies[0].images[1])
    look_up()
    assert len(searched) == 2
    assert not np.array_equal(searched[0][0], searched[1][0])
    assert np.array_equal(searched[0][1:], searched[1][1:])


def test_training_pairs_draw_a_view_and_others_show_the_main_one(studies, tokenizer):
    options = {"tokenizer": tokenizer, "rules": "plain", "max_tokens": 9}
    still = {"size": 18, "resize": 18}
    pairs = StudyPairs(studies, transform=ImageTransform(**still, train=True), **options)
    images = [[ImageTransform(**still)(read_grey(path)) for path in study.images] for study in studies]

    def drawn(row):
        return next(place for place, view in enumerate(images[row]) if torch.equal(pairs[row]["pixel_values"], view))

    counts = Counter()
    for epoch in range(60):
        pairs.set_epoch(epoch)
        assert drawn(0) == drawn(0)
        counts.update((row, drawn(row)) for row in range(3))
    assert counts[1, 0] == 60
    assert all(counts[0, view] > 15 for view in range(2))
    assert all(counts[2, view] > 8 for view in range(3))
    pairs = StudyPairs(studies, transform=ImageTransform(**still), **options)
    assert [drawn(row) for row in range(3)] == [1, 0, 0]
