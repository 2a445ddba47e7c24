"""A CLIP checkpoint by path as the retriever: transforms, embeddings, storage and errors, on tiny random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel, CLIPConfig, CLIPImageProcessorPil, CLIPModel

from diffrgen.errors import DataError
from diffrgen.retrieval import ClipRetriever, load_retriever
from diffrgen.text import train_tokenizer

TEXTS = ["the heart is large .", "no effusion .", "a left effusion and the heart is large ."]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = train_tokenizer(TEXTS, vocab_size=200, min_frequency=1)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id, "pad_token_id": 0}
    text = {**layers, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 8}
    vision = {**layers, "image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def retriever(checkpoint):
    return load_retriever(checkpoint)


def test_a_clip_folder_is_recognised(retriever):
    assert isinstance(retriever, ClipRetriever)
    assert (retriever.embedding_width, retriever.token_width) == (24, 32)


def test_the_transform_is_the_checkpoints_own(retriever):
    pixels = retriever.image_transform(Image.fromarray(np.full((40, 50), 128, np.uint8)))
    assert pixels.shape == (3, 32, 32)
    for channel in range(3):
        expected = (128 / 255 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(pixels[channel], torch.full((32, 32), expected), atol=1e-5, rtol=0)


def test_embeddings_are_clips_own_made_unit_length(retriever, checkpoint):
    reference = CLIPModel.from_pretrained(checkpoint).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        vision = reference.visual_projection(reference.vision_model(pixels).pooler_output)
        ids = retriever.tokenizer(TEXTS[1], return_tensors="pt")
        text = reference.text_projection(reference.text_model(**ids).pooler_output)
    torch.testing.assert_close(retriever.encode_images(pixels), vision / vision.norm(dim=1, keepdim=True))
    # The other two texts make the batch longer, and the last is longer than the tower reads.
    torch.testing.assert_close(retriever.encode_texts(TEXTS)[1:2], text / text.norm(dim=1, keepdim=True))


def test_token_features_leave_padding_out(retriever):
    features, mask = retriever.encode_text_tokens(TEXTS)
    assert features.shape == (3, 8, 32)
    assert mask.sum(1).tolist() == [7, 5, 8]
    alone = retriever.encode_text_tokens(TEXTS[1:2])
    torch.testing.assert_close(features[1:2, :5], alone.features)


def test_saved_and_loaded_back_equal(retriever, tmp_path):
    retriever.save(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    loaded = load_retriever(tmp_path)
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(loaded.encode_images(pixels), retriever.encode_images(pixels), rtol=0, atol=0)
    torch.testing.assert_close(loaded.encode_texts(TEXTS), retriever.encode_texts(TEXTS), rtol=0, atol=0)
    assert loaded.fingerprint == retriever.fingerprint


def test_unusable_checkpoints_say_what_was_needed(tmp_path, checkpoint):
    with pytest.raises(DataError, match=r"found no config\.json"):
        load_retriever(tmp_path)
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    ).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="CLIP-style checkpoint"):
        load_retriever(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    with pytest.raises(DataError, match="BertModel has no get_image_features and no get_text_features"):
        load_retriever(tmp_path)
