"""The network is built from layouts, or from checkpoints in the formats of the published ResNet-101 and BERT-base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, ResNetConfig, ResNetModel

from diffrgen.errors import DataError
from diffrgen.images.encoder import encoder_config
from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.retrieval import DualRetriever, RetrieverOptions, build_dual_encoder
from diffrgen.text import load_tokenizer
from diffrgen.text.vocabulary import ALL_PROMPT_TOKENS
from diffrgen.training.build import DataShape, build_model, model_config, pretrained_encoder
from diffrgen.training.options import TrainOptions
from diffrgen.training.presets import preset_options

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "left", "pleural", "effusion", ".", "##s"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A small BERT in the layout of bert-base-uncased: config.json, model.safetensors, vocab.txt."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=160,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> Path:
    """A small ResNet in the layout of resnet-101: config.json, model.safetensors."""
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(1)
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 32, 32, 64], "depths": [1, 1, 2, 1]}
    ResNetModel(ResNetConfig(num_channels=3, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def retriever(bert) -> DualRetriever:
    options = preset_options("tiny")
    tokenizer = load_tokenizer(bert)
    transform = options.image.transform(1)
    small = RetrieverOptions(embedding_width=8, text_width=64, text_layers=1)
    return DualRetriever(
        build_dual_encoder(tokenizer, encoder=encoder_config("tiny"), transform=transform, options=small), tokenizer
    )


def with_model(**changes) -> TrainOptions:
    options = preset_options("tiny")
    return replace(options, model=replace(options.model, warm_start=False, **changes))


def built(options, tokenizer, retriever) -> DiffRGenForReportGeneration:
    return build_model(options, tokenizer, retriever, pretrained_encoder(options), DataShape(14))


def test_pretrained_weights_arrive_and_the_vocabulary_grows_by_the_prompt_tokens(bert, resnet, retriever):
    options = with_model(encoder=str(resnet), decoder=str(bert))
    tokenizer = load_tokenizer(bert)
    model = built(options, tokenizer, retriever)
    expected = ResNetModel.from_pretrained(resnet).state_dict()
    assert all(torch.equal(model.image_encoder.model.state_dict()[name], value) for name, value in expected.items())
    source = BertForMaskedLM.from_pretrained(bert)
    words = model.decoder.get_input_embeddings().weight
    assert words.shape == (len(WORDS) + len(ALL_PROMPT_TOKENS), 16)
    assert torch.equal(words[: len(WORDS)], source.bert.embeddings.word_embeddings.weight)
    layer = model.decoder.bert.encoder.layer[1].attention.self.query.weight
    assert torch.equal(layer, source.bert.encoder.layer[1].attention.self.query.weight)
    assert model.decoder.get_output_embeddings().weight is words
    assert model.config.decoder.vocab_size == len(tokenizer)


def test_what_a_pretrained_decoder_lacks_is_drawn_by_width_and_new_words_like_the_known_ones(bert, retriever):
    tokenizer = load_tokenizer(bert)
    networks = [built(with_model(decoder=str(bert)), tokenizer, retriever) for _ in range(2)]
    decoder = networks[0].decoder
    key = decoder.bert.encoder.layer[0].crossattention.self.key.weight
    assert float(key.detach().std()) == pytest.approx((3 * 16) ** -0.5, rel=0.2)
    words = decoder.get_input_embeddings().weight.detach()
    known, new = words[: len(WORDS)], words[len(WORDS) :]
    # 4 tokens that tell the state now, 16 that start as these; 10 known words, one of them padding
    assert float(new[:4].std()) == pytest.approx(float(known.std()), rel=0.5)
    assert torch.equal(key, networks[1].decoder.bert.encoder.layer[0].crossattention.self.key.weight)
    assert torch.equal(words, networks[1].get_input_embeddings().weight)


def test_a_network_from_checkpoints_saves_and_loads(bert, resnet, retriever, tmp_path):
    options = with_model(encoder=str(resnet), decoder=str(bert))
    model = built(options, load_tokenizer(bert), retriever).eval()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    inputs = StudyInputs(pixel_values=torch.randn(2, 3, 64, 64), retrieved=torch.randn(2, 21, 8))
    ids = [network.generate(inputs, num_beams=2, max_new_tokens=5) for network in (model, loaded)]
    assert torch.equal(*ids)


def test_warm_start_copies_the_retrievers_tower(bert, retriever):
    options = preset_options("tiny")
    model = built(options, load_tokenizer(bert), retriever)
    tower = retriever.model.image_tower.state_dict()
    assert all(torch.equal(model.image_encoder.state_dict()[name], value) for name, value in tower.items())


def test_warm_start_from_another_tower_is_an_error(bert, resnet, retriever):
    options = preset_options("tiny")
    options = replace(options, model=replace(options.model, encoder=str(resnet)))
    with pytest.raises(DataError, match="warm_start needs a retriever fitted with the encoder"):
        built(options, load_tokenizer(bert), retriever)


def test_paper_preset_is_resnet101_bert_base_and_21_neighbours(bert, retriever):
    config = model_config(preset_options("paper"), load_tokenizer(bert), retriever, encoder_config("paper"), DataShape(14))
    assert (config.encoder.depths, config.encoder.hidden_sizes) == ([3, 4, 23, 3], [256, 512, 1024, 2048])
    assert (config.decoder.hidden_size, config.decoder.num_hidden_layers) == (768, 12)
    assert (config.width, config.heads, config.masks_per_layer, config.neighbours) == (512, 8, (2, 3), 21)
    assert (config.disease_weight, config.contrast_weight) == (4.0, 0.1)


def test_a_bert_too_short_for_prompt_and_report_is_an_error(bert, retriever):
    options = with_model(decoder=str(bert))
    options = replace(options, text=replace(options.text, max_tokens=200))
    with pytest.raises(DataError, match="at least 215 positions"):
        built(options, load_tokenizer(bert), retriever)


def test_the_tokens_of_findings_are_listed_where_they_weigh_more(bert, retriever):
    tokenizer = load_tokenizer(bert)
    plain, heavy = (
        model_config(with_model(finding_weight=weight), tokenizer, retriever, encoder_config("tiny"), DataShape(14))
        for weight in (1.0, 2.0)
    )
    assert (plain.finding_token_ids, heavy.finding_weight) == ((), 2.0)
    assert tokenizer.convert_ids_to_tokens(list(heavy.finding_token_ids)) == ["left"]
