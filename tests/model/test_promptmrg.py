"""PromptMRG's network as a variant of ours: logits by its own equations in float64, from weights in its own layout."""

from __future__ import annotations

import math

import promptmrg_files as files
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffrgen.model import DiffRGenConfig, DiffRGenForReportGeneration, StudyInputs
from diffrgen.text import load_tokenizer
from diffrgen.training.initial_record import take_tensors
from diffrgen.training.promptmrg_checkpoint import fitted, name_in_network, read_promptmrg

Weights = dict[str, Tensor]
STUDIES, REPORTS, TOKENS = 3, 5, 6


def batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
    return (x - w[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + w[f"{name}.bias"][:, None, None]


def resnet(w: Weights, x: Tensor) -> Tensor:
    """torchvision's ResNet with bottlenecks, without pooling and classifier: (B, 3, S, S) -> (B, width, gh, gw)."""
    x = F.conv2d(x, w["visual_encoder.model.0.weight"], stride=2, padding=3)
    x = F.max_pool2d(batch_norm(w, "visual_encoder.model.1", x).clamp_min(0), 3, stride=2, padding=1)
    for number, depth in enumerate(files.DEPTHS, start=4):
        for layer in range(depth):
            name, stride = f"visual_encoder.model.{number}.{layer}", 2 if number > 4 and layer == 0 else 1
            y = batch_norm(w, f"{name}.bn1", F.conv2d(x, w[f"{name}.conv1.weight"])).clamp_min(0)
            y = batch_norm(w, f"{name}.bn2", F.conv2d(y, w[f"{name}.conv2.weight"], stride=stride, padding=1)).clamp_min(0)
            y = batch_norm(w, f"{name}.bn3", F.conv2d(y, w[f"{name}.conv3.weight"]))
            if layer == 0:
                x = batch_norm(w, f"{name}.downsample.1", F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride))
            x = (x + y).clamp_min(0)
    return x


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def layer_norm(w: Weights, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    deviation = x - x.mean(-1, keepdim=True)
    return deviation / (deviation.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, *, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, head by head, (B, n, d) and (B, m, d) -> (B, n, d)."""
    out = []
    for q, k, v in zip(*(x.chunk(heads, dim=-1) for x in (query, key, value)), strict=True):
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        out.append(scores.softmax(-1) @ v)
    return torch.cat(out, dim=-1)


def detr_attention(w: Weights, name: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    projected = [
        x @ weight.T + bias
        for x, weight, bias in zip(
            (query, key, value), w[f"{name}.in_proj_weight"].chunk(3), w[f"{name}.in_proj_bias"].chunk(3), strict=True
        )
    ]
    return linear(w, f"{name}.out_proj", attend(*projected, files.MEMORY_HEADS))


def read_memory(w: Weights, pooled: Tensor, reports: Tensor) -> Tensor:
    """DETR's transformer with the image as its one query: (B, E) and (B, N, d) -> (B, d)."""
    x = reports
    for layer in range(2):
        name = f"memory.encoder.layers.{layer}"
        x = layer_norm(w, f"{name}.norm1", x + detr_attention(w, f"{name}.self_attn", x, x, x))
        x = layer_norm(w, f"{name}.norm2", x + linear(w, f"{name}.linear2", linear(w, f"{name}.linear1", x).clamp_min(0)))
    query = linear(w, "vision_proj", pooled)[:, None]
    y = torch.zeros_like(query)
    for layer in range(2):
        name = f"memory.decoder.layers.{layer}"
        y = layer_norm(w, f"{name}.norm1", y + detr_attention(w, f"{name}.self_attn", y + query, y + query, y))
        y = layer_norm(w, f"{name}.norm2", y + detr_attention(w, f"{name}.multihead_attn", y + query, x, x))
        y = layer_norm(w, f"{name}.norm3", y + linear(w, f"{name}.linear2", linear(w, f"{name}.linear1", y).clamp_min(0)))
    return layer_norm(w, "memory.decoder.norm", y)[:, 0]


def bert_logits(w: Weights, ids: Tensor, patches: Tensor) -> Tensor:
    """BERT without token types as a decoder whose cross-attention reads the patches (B, m, E): (B, T) -> (B, T, words)."""
    embeddings = "text_decoder.bert.embeddings"
    x = w[f"{embeddings}.word_embeddings.weight"][ids] + w[f"{embeddings}.position_embeddings.weight"][: ids.shape[1]]
    x = layer_norm(w, f"{embeddings}.LayerNorm", x, 1e-12)
    for layer in range(files.LAYERS):
        for kind in ("attention", "crossattention"):
            name = f"text_decoder.bert.encoder.layer.{layer}.{kind}"
            source = x if kind == "attention" else patches
            q, k, v = (linear(w, f"{name}.self.{n}", y) for n, y in (("query", x), ("key", source), ("value", source)))
            mixed = linear(w, f"{name}.output.dense", attend(q, k, v, files.HEADS, causal=kind == "attention"))
            x = layer_norm(w, f"{name}.output.LayerNorm", mixed + x, 1e-12)
        name = f"text_decoder.bert.encoder.layer.{layer}"
        hidden = linear(w, f"{name}.intermediate.dense", x)
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        x = layer_norm(w, f"{name}.output.LayerNorm", linear(w, f"{name}.output.dense", hidden) + x, 1e-12)
    head = "text_decoder.cls.predictions"
    x = linear(w, f"{head}.transform.dense", x)
    x = layer_norm(w, f"{head}.transform.LayerNorm", x * (1 + torch.erf(x / math.sqrt(2))) / 2, 1e-12)
    return x @ w[f"{head}.decoder.weight"].T + w[f"{head}.bias"]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return files.random_weights()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    (folder / "vocab.txt").write_text("\n".join(files.WORDS))
    return load_tokenizer(folder)


def network(tokenizer, **changes) -> DiffRGenForReportGeneration:
    decoder = files.BERT.to_dict() | {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    absent = {"masks_per_layer": (), "difference_metrics": (), "contrast_weight": 0.0}
    config = DiffRGenConfig(
        encoder=files.RESNET,
        decoder=decoder,
        **{
            **({} if changes.get("variant") == "diffrgen" else absent),
            "variant": "promptmrg",
            "findings": files.ALL_FINDINGS,
            "image_size": 64,
            "width": files.MEMORY,
            "heads": files.MEMORY_HEADS,
            "neighbours": REPORTS,
            "retrieved_width": files.MEMORY,
            "prompt_token_ids": tuple(tokenizer.convert_tokens_to_ids(["[BLA]", "[POS]", "[NEG]", "[UNC]"])),
            **changes,
        },
    )
    torch.manual_seed(4)
    return DiffRGenForReportGeneration(config).double().eval()


def loaded(weights: Weights, tokenizer, **changes):
    """Return a network with PromptMRG's weights and what `take_tensors` says of it."""
    model = network(tokenizer, **changes)
    by_our_names = {name_in_network(name) or name: tensor for name, tensor in weights.items() if "position_ids" not in name}
    tensors, parts = fitted(by_our_names, model, tokenizer)
    return model, take_tensors(model, tensors), parts


def random_inputs() -> StudyInputs:
    generator = torch.Generator().manual_seed(3)
    return StudyInputs(
        pixel_values=torch.randn(STUDIES, 3, 64, 64, generator=generator, dtype=torch.float64),
        retrieved=torch.randn(STUDIES, REPORTS, files.MEMORY, generator=generator, dtype=torch.float64),
    )


def test_logits_are_those_of_the_originals_equations(weights, tokenizer):
    model, (taken, new, unused), _ = loaded(weights, tokenizer)
    assert (new, unused) == ((), ())
    assert sum(taken.values()) == len(model.state_dict()) - 1  # all but the prior of Eq. 9
    inputs = random_inputs()
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(5, len(files.WORDS), (STUDIES, TOKENS), generator=generator)
    states = torch.randint(0, 4, (STUDIES, files.ALL_FINDINGS), generator=generator)
    with torch.no_grad():
        output = model(**inputs.tensors(), states=states, labels=labels)

    feature_map = resnet(weights, inputs.pixel_values)
    patches, pooled = feature_map.flatten(2).mT, feature_map.mean((2, 3))
    memory = read_memory(weights, pooled, inputs.retrieved)
    classes = linear(weights, "cls_head", torch.cat([pooled, memory], dim=1)).view(STUDIES, 4, files.ALL_FINDINGS)
    torch.testing.assert_close(output.disease_logits, classes, rtol=1e-9, atol=1e-9)

    # [DEC] and the four prompt tokens follow the words of BERT.
    start = torch.full((STUDIES, 1), len(files.WORDS))
    ids = torch.cat([start, len(files.WORDS) + 1 + states, labels[:, :-1]], dim=1)
    expected = bert_logits(weights, ids, patches)[:, -TOKENS:]
    words = [number for number in range(len(files.WORDS)) if number != tokenizer.cls_token_id]
    torch.testing.assert_close(output.logits[..., words], expected[..., words], rtol=1e-9, atol=1e-9)
    # Ours has [DEC] in the place of [CLS], and the prompt tokens one place earlier.
    ours = [tokenizer.cls_token_id, *range(len(files.WORDS), len(files.WORDS) + 4)]
    theirs = range(len(files.WORDS), len(files.WORDS) + 5)
    torch.testing.assert_close(output.logits[..., ours], expected[..., list(theirs)], rtol=1e-9, atol=1e-9)
    assert output.contrast_loss == 0


def test_an_absent_report_is_not_read(weights, tokenizer):
    model, *_ = loaded(weights, tokenizer)
    inputs = random_inputs()
    mask = torch.ones(STUDIES, REPORTS, dtype=torch.bool)
    mask[1, 3:] = False
    with torch.no_grad():
        masked = model.encode(StudyInputs(**inputs.tensors(), retrieved_mask=mask))
    pooled = resnet(weights, inputs.pixel_values).mean((2, 3))
    expected = read_memory(weights, pooled[1:2], inputs.retrieved[1:2, :3])
    torch.testing.assert_close(masked.similar[1:2], expected, rtol=1e-9, atol=1e-9)


def test_generation_with_the_cache_writes_what_the_logits_say(weights, tokenizer):
    model, *_ = loaded(weights, tokenizer)
    inputs = random_inputs()
    reports = model.write_reports(inputs, num_beams=1, max_new_tokens=5)
    patches = resnet(weights, inputs.pixel_values).flatten(2).mT
    start = torch.full((STUDIES, 1), len(files.WORDS))
    ids = torch.cat([start, len(files.WORDS) + 1 + reports.states], dim=1)
    # Ours to theirs: [DEC] for [CLS], and the prompt tokens one further; theirs has none of the prompts behind.
    numbers = torch.arange(len(files.WORDS) + 4)
    numbers[tokenizer.cls_token_id] = len(files.WORDS)
    numbers[len(files.WORDS) :] += 1
    for step in range(3):
        written = reports.sequences[:, : step + 1]
        alive = (written[:, :step] != tokenizer.sep_token_id).all(1) & (written < len(numbers)).all(1)
        assert alive.any()
        logits = bert_logits(weights, ids[alive], patches[alive])[:, -1]
        logits[:, tokenizer.cls_token_id] = -torch.inf
        assert torch.equal(numbers[written[alive, step]], logits.argmax(-1))
        ids = torch.cat([ids, numbers[written[:, step] % len(numbers)][:, None]], dim=1)


def test_our_own_network_takes_what_fits_and_names_the_rest(weights, tokenizer):
    model, (taken, new, unused), parts = loaded(weights, tokenizer, variant="diffrgen", findings=14)
    head = model.classifier.head
    width = files.STAGES[-1]
    expected = weights["cls_head.weight"].view(4, 18, -1)[:, :14, :width].flatten(0, 1)
    assert torch.equal(head.weight[:, :width], expected)
    assert torch.equal(head.bias, weights["cls_head.bias"].view(4, 18)[:, :14].flatten())
    assert torch.equal(
        model.image_encoder.model.encoder.stages[1].layers[1].layer[2].convolution.weight,
        weights["visual_encoder.model.5.1.conv3.weight"],
    )
    words = weights["text_decoder.bert.embeddings.word_embeddings.weight"]
    assert torch.equal(model.get_input_embeddings().weight[tokenizer.cls_token_id], words[len(files.WORDS)])
    assert not model.decoder.bert.embeddings.token_type_embeddings.weight.any()
    cross = {name for one in new if one.reason == "shape (32, 128), needed (32, 32)" for name in one.names}
    assert cross == {
        f"decoder.bert.encoder.layer.{layer}.crossattention.self.{part}.weight" for layer in (0, 1) for part in ("key", "value")
    }
    assert {one.part for one in new if one.reason == "absent"} >= {"patch_projection", "fam", "contrast", "memory_projection"}
    assert any("mean S" in one.reason for one in parts)
    assert all(name.startswith("memory.") for name in unused)
    assert taken["image_encoder"] == len(model.image_encoder.state_dict())


def test_the_variant_refuses_parts_that_it_does_not_have(tokenizer):
    with pytest.raises(ValueError, match="expected none of prior for variant 'promptmrg'"):
        network(tokenizer, prior=True)
    with pytest.raises(ValueError, match="expected retrieved embeddings of width 16 for variant 'promptmrg'"):
        network(tokenizer, retrieved_width=12)
    with pytest.raises(ValueError, match="variant: expected one of diffrgen, promptmrg, got 'blip'"):
        network(tokenizer, variant="blip")


def test_a_saved_network_loads_with_the_same_logits(weights, tokenizer, tmp_path):
    model, *_ = loaded(weights, tokenizer)
    model.float().save_pretrained(tmp_path)
    again = DiffRGenForReportGeneration.from_pretrained(tmp_path).eval()
    inputs = StudyInputs(**{name: tensor.float() for name, tensor in random_inputs().tensors().items()})
    assert torch.equal(again.encode(inputs).disease_logits, model.encode(inputs).disease_logits)


def test_a_published_checkpoint_is_read_as_tensors_alone(tmp_path, weights):
    path = files.write_promptmrg(tmp_path)
    tensors = read_promptmrg(path)
    assert len(tensors) == len(weights) - 1
    assert torch.equal(tensors["memory.decoder.norm.bias"], weights["memory.decoder.norm.bias"].float())
