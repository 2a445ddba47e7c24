"""From studies on disk to neighbours: fit, index, the cache beside it, and who is never retrieved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from barred_studies import ENCODER, OPTIONS, TRANSFORM, draw_studies
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import read_grey
from diffrgen.records import Study
from diffrgen.retrieval import (
    DualRetriever,
    Retriever,
    RetrieverOptions,
    StudyPairs,
    build_dual_encoder,
    build_index,
    fit_retriever,
    load_retriever,
    neighbours_of_studies,
)
from diffrgen.text import train_tokenizer


@dataclass(frozen=True)
class Room:
    """A fitted retriever, its index and the studies that they were made from."""

    folder: Path
    retriever: DualRetriever
    studies: tuple[Study, ...]

    def index(self, folder: Path, options: RetrieverOptions = OPTIONS):
        return build_index(folder, self.retriever, self.studies, rules="plain", options=options, progress=False)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    root = tmp_path_factory.mktemp("retrieval")
    studies = draw_studies(root / "images", 28)
    tokenizer = train_tokenizer([study.report for study in studies], vocab_size=200, min_frequency=1)
    model = build_dual_encoder(tokenizer, encoder=ENCODER, transform=TRANSFORM, options=OPTIONS)
    train, validation = (
        StudyPairs(
            of, transform=replace(TRANSFORM, train=augment), tokenizer=tokenizer, rules="plain", max_tokens=OPTIONS.max_tokens
        )
        for of, augment in ((studies, True), (studies[:8], False))
    )
    retriever, report = fit_retriever(root / "retriever", model, tokenizer, train, validation, options=OPTIONS, progress=False)
    assert report.steps == 4 * (28 // 8)
    assert (root / "retriever" / "fit.json").is_file()
    return Room(root, retriever, studies)


@pytest.fixture
def counted(room, monkeypatch):
    """Return the list of batch sizes that the retriever was asked to embed."""
    batches, encode = [], room.retriever.encode_images

    def count(pixel_values):
        batches.append(len(pixel_values))
        return encode(pixel_values)

    monkeypatch.setattr(room.retriever, "encode_images", count)
    return batches


def neighbours(room, index, studies=None, **changes):
    options = replace(OPTIONS, **changes)
    return neighbours_of_studies(
        room.retriever, index, studies or room.studies, split="train", options=options, progress=False
    )


def test_neighbours_are_the_reports_most_similar_to_the_image(room, tmp_path):
    index = room.index(tmp_path)
    found = neighbours(room, index)
    transform = replace(TRANSFORM, train=False)
    for number in (0, 7, 25):
        pixels = transform(read_grey(room.studies[number].images[0]))[None]
        similarity = (room.retriever.encode_images(pixels) @ room.retriever.encode_texts(index.studies.texts).T)[0]
        own = index.studies.text_of[number]
        shared = (index.studies.text_of == own).sum() > 1
        order = [text for text in similarity.argsort(descending=True).tolist() if text != own or shared][:5]
        assert index.studies.text_of[found.rows[number]].tolist() == order
        np.testing.assert_allclose(found.similarity[number], similarity[order], atol=1e-5)


def test_a_study_never_retrieves_itself_nor_on_request_its_patient(room, tmp_path):
    index = room.index(tmp_path)
    assert len(index.studies.texts) == 24
    patients = np.array([study.patient_id for study in room.studies])
    found = neighbours(room, index, neighbours=23)
    assert found.valid.all()
    assert (found.rows != np.arange(28)[:, None]).all()
    assert (patients[found.rows] == patients[:, None]).any()
    strict = neighbours(room, index, neighbours=23, exclude_patient=True)
    assert not ((patients[strict.rows] == patients[:, None]) & strict.valid).any()
    # Each of the first six patients wrote three texts that nobody else wrote.
    assert strict.valid[:18].sum(1).tolist() == [21] * 18


def test_the_cache_is_used_again_and_dropped_when_anything_changed(room, tmp_path, counted):
    index = room.index(tmp_path)
    first = neighbours(room, index)
    assert sum(counted) == 28
    assert (tmp_path / "neighbours-train.npz").is_file()
    again = neighbours(room, index)
    assert sum(counted) == 28
    for name in ("rows", "similarity", "valid"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert getattr(first, name).dtype == getattr(again, name).dtype
    asked = 28
    for change in ({"neighbours": 4}, {"exclude_patient": True}, {"studies": room.studies[:20]}):
        neighbours(room, index, **change)
        asked += len(change.get("studies", room.studies))
        assert sum(counted) == asked, change
    neighbours(room, room.index(tmp_path, replace(OPTIONS, index_factory="HNSW8")))
    assert sum(counted) == asked + 28


def test_the_cache_notices_another_image_of_the_same_name(room, tmp_path, counted):
    index = room.index(tmp_path / "index")
    neighbours(room, index)
    other = tmp_path / room.studies[0].images[0].name
    Image.fromarray(np.zeros((50, 50), np.uint8)).save(other)
    neighbours(room, index, (replace(room.studies[0], images=(other,)), *room.studies[1:]))
    assert sum(counted) == 56


def test_an_index_of_another_retriever_is_refused(room, tmp_path):
    index = room.index(tmp_path)
    other = build_dual_encoder(
        room.retriever.tokenizer, encoder=ENCODER, transform=TRANSFORM, options=replace(OPTIONS, seed=5)
    )
    with pytest.raises(DataError, match="build the index again with this retriever"):
        neighbours_of_studies(
            DualRetriever(other, room.retriever.tokenizer), index, room.studies, split="val", options=OPTIONS
        )


def test_a_saved_retriever_embeds_the_same(room):
    loaded: Retriever = load_retriever(room.folder / "retriever")
    assert isinstance(loaded, DualRetriever)
    assert loaded.image_transform == replace(TRANSFORM, train=False)
    assert loaded.fingerprint == room.retriever.fingerprint
    texts = [study.report for study in room.studies]
    torch.testing.assert_close(loaded.encode_texts(texts), room.retriever.encode_texts(texts), rtol=0, atol=0)


def test_the_index_holds_each_reports_embedding_and_tokens(room, tmp_path):
    index = room.index(tmp_path)
    rows = np.array([[3, 22], [27, -1]])
    gathered = index.gather(rows)
    features, mask = index.gather_tokens(rows)
    for at, row in (((0, 0), 3), ((0, 1), 22), ((1, 0), 27)):
        text = [room.studies[row].report]
        np.testing.assert_allclose(gathered[at], room.retriever.encode_texts(text)[0], atol=1e-5)
        expected = room.retriever.encode_text_tokens(text).features[0, :6]
        np.testing.assert_allclose(features[at], expected, atol=3e-3)
        assert mask[at].all()
    assert not mask[1, 1].any()


def test_augmentation_depends_on_seed_epoch_and_study_alone(room):
    def pairs(seed: int) -> StudyPairs:
        return StudyPairs(
            room.studies,
            transform=TRANSFORM,
            tokenizer=room.retriever.tokenizer,
            rules="plain",
            max_tokens=8,
            seed=seed,
        )

    one, two = pairs(0), pairs(0)
    two[5]
    assert torch.equal(one[3]["pixel_values"], two[3]["pixel_values"])
    assert not torch.equal(one[3]["pixel_values"], pairs(1)[3]["pixel_values"])
    two.set_epoch(1)
    assert not torch.equal(one[3]["pixel_values"], two[3]["pixel_values"])
    tokenizer = room.retriever.tokenizer
    assert one[3]["input_ids"] == [*tokenizer(room.studies[3].report).input_ids[:7], tokenizer.sep_token_id]


def test_a_study_without_an_image_is_named(room):
    with pytest.raises(DataError, match="study 's0': needed an image, got none"):
        neighbours_of_studies(
            room.retriever,
            room.index(room.folder / "index"),
            [replace(room.studies[0], images=(), views=())],
            split="val",
            options=OPTIONS,
        )
