"""CheXbert's network (Smit 2020) and its published weights: tensors checked by name and shape, nothing else loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from diffrgen.errors import DataError, reason_of
from diffrgen.labels.findings import FINDINGS, NO_FINDING, State

WEIGHTS = "model_state_dict"
# The release was trained by nn.DataParallel.
PREFIX = "module."
# Tensors that the labeler does not use: the pooler, and a counter that older transformers versions stored.
UNUSED = ("bert.pooler.", "bert.embeddings.position_ids")
HEAD_WIDTH = 64
_EMBEDDINGS = "bert.embeddings.{}_embeddings.weight"


class CheXbert(nn.Module):
    """BERT with one linear head a finding on the [CLS] token, in the order of `FINDINGS`.

    The classes of a head are the values of `State`; that of "no finding" has blank and positive alone.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        # The labeler uses neither the release's pooler nor, outside training, its dropout.
        self.bert = BertModel(config, add_pooling_layer=False)
        self.linear_heads = nn.ModuleList(
            nn.Linear(config.hidden_size, 2 if finding == NO_FINDING else len(State))
            for finding in range(len(FINDINGS))
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
        """Return the logits of each finding, (B, 4) and for "no finding" (B, 2), of tokens and their mask (B, T)."""
        first = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]  # (B, E)
        return [head(first) for head in self.linear_heads]


def load_chexbert(path: Path) -> CheXbert:
    """Return the network of a checkpoint in evaluation mode; its layout is read off the tensors.

    The file is a dictionary with "model_state_dict"; names may start with "module.". Only tensors and plain containers
    are unpickled. Raises DataError if the file is no such dictionary, or a tensor is missing, unknown or of another
    shape.
    """
    weights = _weights(path, _load(path))
    sizes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    network = CheXbert(_layout(path, sizes)).eval()
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(expected.keys() | sizes.keys()):
        if sizes.get(name) != expected.get(name):
            raise _misfit(path, name, sizes.get(name), f"{expected.get(name, 'no such tensor')}")
    network.load_state_dict(weights)
    return network


def _load(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: needed CheXbert's checkpoint (chexbert.pth), got: {reason_of(error)}") from error
    # For a file that is no checkpoint, the restricted unpickler's exception depends on the bytes.
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{path}: needed a PyTorch checkpoint of tensors alone, such as chexbert.pth, got: {reason}"
        ) from error


def _weights(path: Path, content: object) -> dict[str, Tensor]:
    """Return the tensors that the labeler uses by name, without the prefix."""
    if not isinstance(content, Mapping) or not isinstance(content.get(WEIGHTS), Mapping):
        got = f"the keys {', '.join(map(repr, list(content)[:5]))}" if isinstance(content, Mapping) else type(content)
        raise DataError(f"{path}: needed a dictionary with {WEIGHTS!r}, got {got}")
    weights = {str(name).removeprefix(PREFIX): value for name, value in content[WEIGHTS].items()}
    wrong = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
    if wrong is not None:
        raise DataError(f"{path}: {wrong}: expected a tensor, got {type(weights[wrong]).__name__}")
    return {name: value for name, value in weights.items() if not name.startswith(UNUSED)}


def _layout(path: Path, sizes: Mapping[str, tuple[int, ...]]) -> BertConfig:
    """Return the BERT configuration implied by these sizes; heads are 64 wide as in every BERT."""

    def size(name: str) -> tuple[int, int]:
        shape = sizes.get(name)
        if shape is None or len(shape) != 2:
            raise _misfit(path, name, shape, "a matrix")
        return shape[0], shape[1]

    words, width = size(_EMBEDDINGS.format("word"))
    if width % HEAD_WIDTH:
        raise DataError(f"{path}: expected a BERT of a width that {HEAD_WIDTH} divides, got width {width}")
    numbers = {int(found[1]) for name in sizes if (found := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))}
    return BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=len(numbers),
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=size("bert.encoder.layer.0.intermediate.dense.weight")[0],
        max_position_embeddings=size(_EMBEDDINGS.format("position"))[0],
        type_vocab_size=size(_EMBEDDINGS.format("token_type"))[0],
    )


def _misfit(path: Path, name: str, shape: tuple[int, ...] | None, expected: str) -> DataError:
    got = "no such tensor" if shape is None else shape
    return DataError(f"{path}: {PREFIX}{name}: expected {expected}, got {got}; give CheXbert's published weights")
