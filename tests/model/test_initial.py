"""Initial weights: their sizes, what they depend on, and that the decoder hears every part from the first step on."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny_network import random_batch, tiny_config
from torch import nn
from transformers import BertConfig

from diffrgen.images.encoder import encoder_config
from diffrgen.model import DiffRGenConfig, DiffRGenForReportGeneration
from diffrgen.model.initial import draw_initial_weights
from diffrgen.model.inputs import StudyInputs
from diffrgen.training.build import BUILD_ONLY, DECODERS
from diffrgen.training.presets import preset_options

WORDS, NEIGHBOURS, STUDIES, TOKENS = 200, 21, 4, 8


def new_network(seed=0, **changes):
    torch.manual_seed(seed)
    return DiffRGenForReportGeneration(tiny_config(**changes))


def preset_network(preset, seed=0, **changes):
    """Return the network of a preset for 200 words, without dropout, as the first step of a training finds it."""
    options = preset_options(preset)
    model = replace(options.model, dropout=0.0, **changes)
    decoder = BertConfig(
        vocab_size=WORDS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        type_vocab_size=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **DECODERS[model.decoder],
    )
    torch.manual_seed(seed)
    config = DiffRGenConfig(
        encoder=encoder_config(model.encoder),
        decoder=decoder,
        retrieved_width=options.retriever.embedding_width,
        prior_prompt_token_ids=tuple(tuple(range(first, first + 4)) for first in (9, 13, 17, 21)),
        **{name: value for name, value in asdict(model).items() if name not in BUILD_ONLY},
    )
    network = DiffRGenForReportGeneration(config).train()
    network.set_temperature(options.optimiser.temperature[0])
    return network


@torch.no_grad()
def changes_of_logits(network):
    """Return how much the report's logits change, of their spread over the words, as studies swap a part of the memory."""
    config, draw = network.config, torch.Generator().manual_seed(1)
    coarse = torch.randn(STUDIES, config.encoder.num_channels, 4, 4, generator=draw)
    images = F.interpolate(coarse, size=(96, 96), mode="bilinear")
    retrieved = F.normalize(torch.randn(STUDIES, NEIGHBOURS, config.retrieved_width, generator=draw), dim=-1)
    states = torch.randint(0, 4, (STUDIES, config.findings), generator=draw)
    report = torch.randint(30, WORDS, (STUDIES, TOKENS), generator=draw)
    study = network.encode(StudyInputs(pixel_values=images, retrieved=retrieved))
    ids = torch.cat([network.prompt_ids(states), report], dim=1)

    def logits(memory):
        return of_inputs(network.decoder_inputs(ids, study.prompt_rows), memory)

    def of_inputs(inputs, memory):
        return network.decoder(**inputs, encoder_hidden_states=memory).logits[:, -TOKENS:]

    def size(x):
        return x.pow(2).mean().sqrt()

    memory = study.last_hidden_state
    before = logits(memory)
    spread = size(before - before.mean(-1, keepdim=True))
    patches = memory.shape[1] - 2 * NEIGHBOURS
    ends = {"patches": (0, patches), "S": (patches, patches + NEIGHBOURS), "D": (patches + NEIGHBOURS, memory.shape[1])}
    found = {}
    for part, (start, end) in ends.items():
        swapped = memory.clone()
        swapped[:, start:end] = memory[:, start:end].roll(1, 0)
        found[part] = float(size(logits(swapped) - before) / spread)
    if study.prompt_rows is not None:
        swapped = network.decoder_inputs(ids, study.prompt_rows.roll(1, 0))
        found["findings"] = float(size(of_inputs(swapped, memory) - before) / spread)
    return found


@pytest.mark.parametrize(("preset", "difference"), [("tiny", "scalars"), ("tiny", "content"), ("paper", "content")])
def test_before_the_first_step_every_part_of_the_memory_moves_the_logits(preset, difference):
    found = changes_of_logits(preset_network(preset, difference=difference))
    assert found["patches"] >= 0.05
    assert found["S"] >= 0.05
    assert found["D"] >= 0.03


def test_before_the_first_step_the_rows_of_the_findings_move_the_logits_too():
    found = changes_of_logits(preset_network("tiny", finding_queries=True))
    assert min(found.values()) >= 0.03
    assert set(found) == {"patches", "S", "D", "findings"}


def test_sizes_follow_from_the_width():
    network = preset_network("tiny")
    expected = {
        # width 128, 3 x 128 -> 256, 192 -> 768 -> 192 of the decoder, 32 channels of 3 x 3
        "fam.layers.0.ffn.0.weight": 128**-0.5,
        "fam.layers.0.ffn.2.weight": 512**-0.5,
        "difference.content.mlp.0.weight": 384**-0.5,
        "memory_projection.weight": 128**-0.5,
        "decoder.bert.encoder.layer.0.crossattention.self.key.weight": (3 * 192) ** -0.5,
        "decoder.bert.encoder.layer.0.output.dense.weight": (3 * 768) ** -0.5,
        "decoder.bert.embeddings.word_embeddings.weight": (3 * 192) ** -0.5,
        "image_encoder.model.encoder.stages.0.layers.0.layer.1.convolution.weight": (2 / (32 * 9)) ** 0.5,
        "prior.kind": 1.0,
    }
    weights = dict(network.named_parameters())
    for name, std in expected.items():
        count = weights[name].numel()
        # four standard errors of a standard deviation
        assert float(weights[name].detach().std()) == pytest.approx(std, rel=4 * (2 * count) ** -0.5), name
    assert not weights["decoder.bert.embeddings.word_embeddings.weight"][0].any()
    for name, weight in weights.items():
        assert not (name.endswith("bias") and weight.any()), name
        assert not ("norm" in name.lower() and name.endswith("weight") and (weight != 1).any()), name


def test_variants_start_alike_in_what_they_share():
    networks = [
        new_network(**changes)
        for changes in (
            {},
            {"difference": "scalars", "prior": True},
            {"difference_metrics": (), "masks_per_layer": (2,)},
            {"masks_per_layer": (2, 3, 4), "share_fam": False},
        )
    ]
    first = networks[0].state_dict()
    for other in networks[1:]:
        same = {name: value for name, value in other.state_dict().items() if name in first}
        same = {name: value for name, value in same.items() if value.shape == first[name].shape}
        assert len(same) > 80
        assert all(torch.equal(value, first[name]) for name, value in same.items())


def test_the_seed_and_the_name_decide():
    first, same, other = new_network(0).state_dict(), new_network(0).state_dict(), new_network(1).state_dict()
    drawn = [name for name, value in first.items() if value.is_floating_point() and value.std(correction=0) > 0]
    assert len(drawn) > 50
    assert all(torch.equal(first[name], same[name]) for name in drawn)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    layers = [first[f"fam.layers.{layer}.ffn.0.weight"] for layer in range(2)]
    assert not torch.equal(*layers)
    torch.manual_seed(0)
    one, two = (DiffRGenForReportGeneration(tiny_config()).memory_projection.weight for _ in range(2))
    assert not torch.equal(one, two)


def test_only_the_names_that_are_asked_for_are_drawn():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    draw_initial_weights(module, 3, names={"1.weight"})
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["1.weight"]
    whole = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    draw_initial_weights(whole, 3)
    assert torch.equal(whole[1].weight, module[1].weight)


def test_what_a_checkpoint_lacks_is_drawn_and_the_rest_is_kept(tmp_path):
    network = new_network(prior=True)
    network.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    lacking = ("prior.kind", "memory_projection.weight")
    save_file({name: value for name, value in weights.items() if name not in lacking}, path, {"format": "pt"})
    loaded = DiffRGenForReportGeneration.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items() if name not in lacking)
    for name, std in zip(lacking, (1.0, 16**-0.5), strict=True):
        assert float(loaded[name].std()) == pytest.approx(std, rel=0.6)


def test_a_network_on_another_device_or_in_another_precision_has_the_same_weights():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        precise = DiffRGenForReportGeneration(tiny_config())
    finally:
        torch.set_default_dtype(torch.float32)
    for (name, value), other in zip(new_network().named_parameters(), precise.parameters(), strict=True):
        torch.testing.assert_close(value.double(), other.double(), msg=name)
    with torch.device("meta"):
        assert DiffRGenForReportGeneration(tiny_config()).device.type == "meta"


def test_the_first_loss_is_near_that_of_a_guess():
    """Logits of the size that BERT starts with: log of the vocabulary, and a little more."""
    network = new_network().eval()
    with torch.no_grad():
        loss = float(network(**random_batch()).language_loss)
    assert loss == pytest.approx(torch.tensor(float(network.config.decoder.vocab_size)).log().item(), abs=0.4)
