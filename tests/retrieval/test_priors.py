"""The embedded earlier studies: which rows, whose, kept beside the index, dropped when anything changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig

from diffrgen.errors import DataError
from diffrgen.images import ImageTransform, read_grey
from diffrgen.records import Study
from diffrgen.retrieval import DualRetriever, Priors, RetrieverOptions, build_dual_encoder, priors_of_studies
from diffrgen.retrieval.priors import MAX_SENTENCES, prior_sentences
from diffrgen.text import report_sentences, train_tokenizer

TRANSFORM = ImageTransform(size=32, resize=36)
OPTIONS = RetrieverOptions(embedding_width=16, text_layers=1, text_width=64, max_tokens=16)
REPORTS = (
    "The heart is large. No effusion. A 3.5 cm mass is seen.",
    "No effusion. The heart has become smaller.",
    "First film of another patient. No effusion.",
    "Second film of it; unchanged.",
)


@pytest.fixture(scope="module")
def retriever() -> DualRetriever:
    encoder = ResNetConfig(num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    tokenizer = train_tokenizer(REPORTS, vocab_size=200, min_frequency=1)
    return DualRetriever(
        build_dual_encoder(tokenizer, encoder=encoder, transform=TRANSFORM, options=OPTIONS), tokenizer
    )


@pytest.fixture
def studies(tmp_path) -> tuple[Study, ...]:
    """Two patients of two studies each; the second study of each names the first."""
    rng, found = np.random.default_rng(0), []
    for number, report in enumerate(REPORTS):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(path)
        found.append(Study(str(number), report, (path,), "train", prior_id=str(number - 1) if number % 2 else None))
    return tuple(found)


@pytest.fixture
def asked(retriever, monkeypatch) -> list[int]:
    """The sizes of the batches of texts and images that the retriever was asked to embed."""
    batches: list[int] = []
    for name in ("encode_images", "encode_texts"):
        encode = getattr(retriever, name)
        monkeypatch.setattr(retriever, name, lambda given, encode=encode: batches.append(len(given)) or encode(given))
    return batches


def priors(retriever, studies, folder: Path, known=None, rules="mimic") -> Priors:
    by_id = {study.id: study for study in (studies if known is None else known)}
    return priors_of_studies(
        retriever, studies, by_id, folder=folder, split="train", rules=rules, options=OPTIONS, progress=False
    )


def test_rows_are_the_image_and_each_sentence_of_the_earlier_study(retriever, studies, tmp_path):
    found = priors(retriever, studies, tmp_path)
    assert found.prior.tolist() == [-1, 0, -1, 1]
    assert [found.before(row) for row in range(4)] == [None, studies[0], None, studies[2]]
    for row in (0, 2):
        features, mask = found.gather(row)
        assert features.shape == (1 + MAX_SENTENCES, 16)
        assert not mask.any()
        assert not features.any()
    sentences = {
        1: ["the heart is large .", "no effusion .", "a 35 cm mass is seen ."],
        3: ["first film of another patient .", "no effusion ."],
    }
    for row, told in sentences.items():
        features, mask = found.gather(row)
        assert mask.tolist() == [True] * (1 + len(told)) + [False] * (MAX_SENTENCES - len(told))
        pixels = TRANSFORM(read_grey(studies[row - 1].images[0]))[None]
        expected = torch.cat([retriever.encode_images(pixels), *(retriever.encode_texts([text]) for text in told)])
        np.testing.assert_allclose(features[mask], expected, atol=1e-5)
        assert not features[~mask].any()


def test_what_is_kept_is_used_again_and_mapped_and_a_repeated_sentence_is_embedded_once(
    retriever, studies, tmp_path, asked
):
    first = priors(retriever, studies, tmp_path)
    assert sum(asked) == 2 + 4
    again = priors(retriever, studies, tmp_path)
    assert sum(asked) == 6
    assert isinstance(again.images, np.memmap)
    for row in range(4):
        for one, other in zip(first.gather(row), again.gather(row), strict=True):
            np.testing.assert_array_equal(one, other)


def test_what_is_kept_is_dropped_when_anything_changed(retriever, studies, tmp_path, asked):
    def made(*arguments, **changes) -> bool:
        before = len(asked)
        priors(*arguments, **changes)
        return len(asked) > before

    assert made(retriever, studies, tmp_path / "index")
    assert made(retriever, (replace(studies[0], report="Another text."), *studies[1:]), tmp_path / "index")
    assert made(retriever, studies, tmp_path / "index")
    assert made(retriever, studies, tmp_path / "index", rules="plain")
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(studies[0].images[0])
    assert made(retriever, studies, tmp_path / "index", rules="plain")
    assert not made(retriever, studies, tmp_path / "index", rules="plain")
    # A later study's own report is not part of it: nobody's prior.
    assert not made(retriever, (*studies[:3], replace(studies[3], report="Now large.")), tmp_path / "index", rules="plain")
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["priors-train"]


def test_an_earlier_study_of_another_split_counts_and_an_unknown_one_does_not(retriever, studies, tmp_path):
    later = tuple(replace(study, split="test") for study in studies if study.prior_id)
    assert priors(retriever, later, tmp_path / "a", known=studies).prior.tolist() == [0, 1]
    left = priors(retriever, later, tmp_path / "b", known=(studies[2], *later))
    assert left.prior.tolist() == [-1, 0]
    none = priors(retriever, later, tmp_path / "c", known=later)
    assert none.prior.tolist() == [-1, -1]
    assert not none.gather(0)[1].any()


def test_a_study_is_never_its_own_earlier_one(retriever, studies, tmp_path):
    wrong = (replace(studies[0], prior_id="0"), *studies[1:])
    with pytest.raises(DataError, match="study '0': needed another study as its prior, got itself"):
        priors(retriever, wrong, tmp_path)


@pytest.mark.parametrize("name", ["key.json", "images.npy", "rows.npy", "sentences.npy"])
def test_a_damaged_file_is_named(retriever, studies, tmp_path, name):
    priors(retriever, studies, tmp_path)
    path = tmp_path / "priors-train" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged; delete"):
        priors(retriever, studies, tmp_path)


def test_arrays_that_do_not_fit_each_other_are_refused(retriever, studies, tmp_path):
    priors(retriever, studies, tmp_path)
    path = tmp_path / "priors-train" / "rows.npy"
    np.save(path, np.load(path) + 100)
    with pytest.raises(DataError, match="damaged; delete"):
        priors(retriever, studies, tmp_path)


def test_sentences_end_at_full_stops_that_end_them():
    report = "heart of 3.5 cm, normal . no effusion .\n\n ... see above"
    assert report_sentences(report) == ["heart of 3.5 cm, normal .", "no effusion .", "see above ."]
    assert report_sentences(" . ") == []
    assert len(prior_sentences("One. " * 40, rules="mimic")) == MAX_SENTENCES
