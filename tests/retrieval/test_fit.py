"""The dual encoder: its embeddings, storage and fit on pictures of bars with matching words."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import ResNetConfig

from diffrgen.errors import DataError
from diffrgen.retrieval import DualEncoder, DualEncoderConfig, PairCollator, RetrieverOptions, fit_dual_encoder
from diffrgen.retrieval.dual_encoder import text_tower_config
from diffrgen.retrieval.fit import _Fit, validation_recall
from diffrgen.retrieval.recall import distinct_rows, recall_at

SIZE = 32
OPTIONS = RetrieverOptions(
    epochs=30, batch_size=16, learning_rate=3e-3, embedding_width=32, text_layers=1, text_width=64, max_tokens=6
)


class Bars(Dataset):
    """Bars at 8 heights or 8 columns, thin or thick, with noise; the words say which. 32 different pairs."""

    def __init__(self, seed: int) -> None:
        self.pairs = []
        generator = torch.Generator().manual_seed(seed)
        for number in range(32):
            place, upright, thick = number % 8, number // 8 % 2, number // 16
            image = 0.1 * torch.randn(1, SIZE, SIZE, generator=generator)
            image[:, 4 * place : 4 * place + (4 if thick else 2)] += 2.0
            image = image.transpose(1, 2).contiguous() if upright else image
            words = [2, 10 + place, 20 + upright] + [30] * thick + [3]
            self.pairs.append({"pixel_values": image, "input_ids": words})

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position):
        return self.pairs[position]


def tiny_model(seed: int = 0) -> DualEncoder:
    image = ResNetConfig(num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")
    text = text_tower_config(vocab_size=40, pad_token_id=0, width=64, layers=1, max_tokens=6)
    torch.manual_seed(seed)
    return DualEncoder(DualEncoderConfig(image, text, embedding_width=32, initial_temperature=0.07))


@pytest.fixture(scope="module")
def fitted():
    model, reports = tiny_model(), []
    before = validation_recall(model.eval(), Bars(1), options=OPTIONS)[0]
    reports.append(fit_dual_encoder(model, Bars(0), validation=Bars(1), options=OPTIONS, progress=False))
    return model, before, reports[0]


def test_the_fit_learns_which_words_belong_to_which_bar(fitted):
    _, before, report = fitted
    assert before["recall@1"] < 0.2
    assert report.recall["recall@1"] > 0.9
    assert report.recall["recall@5"] >= report.recall["recall@1"]
    assert report.recall["recall@21"] == 1.0
    assert (report.steps, len(report.losses), report.candidates) == (60, 60, 32)
    # Before learning a loss is about the log of the batch size.
    assert report.losses[0] == pytest.approx(np.log(16), rel=0.5)
    assert np.mean(report.losses[-5:]) < 0.3


def test_the_report_of_a_fit_is_a_json_file(fitted, tmp_path):
    fitted[2].save(tmp_path / "fit.json")
    content = json.loads((tmp_path / "fit.json").read_text())
    assert content["steps"] == 60
    assert content["recall"] == fitted[2].recall


def test_embeddings_are_unit_length_float32_also_under_autocast(fitted):
    model = fitted[0]
    batch = PairCollator(0)([Bars(1)[i] for i in range(20)])
    for enabled in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            rows = [
                model.encode_images(batch["pixel_values"]),
                model.encode_texts(batch["input_ids"], batch["attention_mask"]),
            ]
        for embeddings in rows:
            assert (embeddings.dtype, embeddings.shape) == (torch.float32, (20, 32))
            torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(20))


def test_padding_does_not_change_a_text_embedding(fitted):
    model = fitted[0]
    ids = torch.tensor([[2, 11, 20, 3]])
    padded = torch.tensor([[2, 11, 20, 3, 0, 0]])
    with torch.inference_mode():
        alone = model.encode_texts(ids, torch.ones_like(ids))
        among = model.encode_texts(padded, (padded != 0).long())
        tokens = model.encode_text_tokens(ids, torch.ones_like(ids))
    torch.testing.assert_close(alone, among)
    by_hand = model.text_projection(tokens[0].mean(0))
    torch.testing.assert_close(alone[0], by_hand / by_hand.norm())


def test_saved_as_safetensors_and_loaded_back_equal(fitted, tmp_path):
    model = fitted[0]
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = DualEncoder.from_pretrained(tmp_path).eval()
    assert loaded.config.image_config.hidden_sizes == [16, 32]
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_the_temperature_is_learned_and_stays_in_range(fitted):
    model = fitted[0]
    assert model.scale.item() != pytest.approx(1 / 0.07)
    fresh = tiny_model()
    assert fresh.scale.item() == pytest.approx(1 / 0.07)
    for value, expected in ((9.0, 100.0), (-3.0, 1.0)):
        fresh.log_scale.data.fill_(value)
        assert fresh.scale.item() == pytest.approx(expected)


def test_a_seed_decides_the_fit_and_max_steps_ends_it():
    options = replace(OPTIONS, max_steps=3)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(
            fit_dual_encoder(tiny_model(), Bars(0), options=replace(options, seed=seed), progress=False).losses
        )
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert len(losses[0]) == 3


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_follows_float32(precision):
    options = replace(OPTIONS, max_steps=4)
    low, full = (
        fit_dual_encoder(tiny_model(), Bars(0), options=replace(options, precision=name), progress=False).losses
        for name in (precision, "fp32")
    )
    assert low[0] == pytest.approx(full[0], rel=0.02)
    assert low[-1] == pytest.approx(full[-1], rel=0.2)


def test_one_pair_is_too_few():
    with pytest.raises(DataError, match=r"at least 2 image-report pairs .* got 1"):
        fit_dual_encoder(tiny_model(), torch.utils.data.Subset(Bars(0), [0]), options=OPTIONS, progress=False)


def test_collator_pads_and_masks():
    pairs = [{"pixel_values": torch.full((1, 2, 2), float(n)), "input_ids": [2] + [9] * n + [3]} for n in (1, 3)]
    batch = PairCollator(7)(pairs)
    assert batch["input_ids"].tolist() == [[2, 9, 3, 7, 7], [2, 9, 9, 9, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [1.0, 3.0]


def test_recall_counts_distinct_texts_and_ties_against_the_image():
    text = torch.eye(3)
    image = torch.tensor([[1.0, 0, 0], [0.9, 0.5, 0], [0.5, 0.6, 0.7], [1.0, 0, 0]])
    text_of = torch.tensor([0, 1, 0, 0])
    # Ranks of the own text: 0, 1, 2, 0.
    assert recall_at(image, text, text_of, ranks=(1, 2, 3)) == {"recall@1": 0.5, "recall@2": 0.75, "recall@3": 1.0}
    assert recall_at(torch.ones(4, 3), torch.ones(3, 3), text_of, ranks=(2,)) == {"recall@2": 0.0}


def test_distinct_rows_name_the_first_of_each():
    ids = torch.tensor([[5, 1], [2, 2], [5, 1], [0, 3], [2, 2]])
    first, text_of = distinct_rows(ids)
    assert sorted(first.tolist()) == [0, 1, 3]
    assert first[text_of].tolist() == [0, 1, 0, 3, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_width": 100}, "multiple of 64"),
        ({"batch_size": 1}, "--retriever.batch-size: expected a whole number of at least 2, got 1"),
        ({"epochs": 0}, "--retriever.epochs: expected a whole number of at least 1, got 0"),
    ],
)
def test_options_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **change)


def test_rates_of_the_fit_rise_and_fall_as_its_options_say():
    """Twenty steps of two a pass: one of warm-up, then half a cosine over nineteen."""
    options = replace(OPTIONS, epochs=10, warmup=0.05)
    fit = _Fit(tiny_model(), Bars(0), options, "cpu")
    rates = []
    for batch in fit.batches():
        rates.append(fit.optimiser.param_groups[0]["lr"])
        fit.take(batch)
    expected = [0.0, *(1.5e-3 * (1 + math.cos(math.pi * step / 19)) for step in range(19))]
    assert rates == pytest.approx(expected, abs=1e-9)
