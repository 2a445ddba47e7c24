"""A folder of config.json and safetensors, checked before anything is built from it: ranges, names, shapes, values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig, PreTrainedModel

from diffrgen.errors import DataError
from diffrgen.finite import first_not_finite

Model = TypeVar("Model", bound=PreTrainedModel)
CONFIG, WEIGHTS, PARTS = "config.json", "model.safetensors", "model.safetensors.index.json"
SHOWN = 3

# Smallest and largest value of a field, anywhere in a configuration; far above any real network.
WIDTH, COUNT, SHARE = (1, 65_536), (1, 4_096), (0, 1)
RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("image_size", "size", "resize"), (1, 8_192)),
    **dict.fromkeys(("width", "embedding_width", "retrieved_width", "prior_width", "contrast_width", "text_width"), WIDTH),
    **dict.fromkeys(("difference_hidden", "embedding_size", "hidden_sizes", "hidden_size", "intermediate_size"), WIDTH),
    **dict.fromkeys(("heads", "num_attention_heads", "depths", "num_hidden_layers", "masks_per_layer", "findings"), COUNT),
    **dict.fromkeys(("channels", "num_channels", "text_layers", "type_vocab_size", "num_beams", "beams"), COUNT),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "max_tokens", "max_new_tokens", "neighbours"), (1, 10**7)),
    **dict.fromkeys(("batch_size", "studies", "epochs"), (1, 10**7)),
    **dict.fromkeys(("dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "label_smoothing"), SHARE),
    **dict.fromkeys(("layer_norm_eps", "warmup"), SHARE),
    **dict.fromkeys(("contrast_temperature", "initial_temperature", "temperature", "std"), (1e-6, 1e6)),
    **dict.fromkeys(("disease_weight", "contrast_weight", "learning_rate", "weight_decay", "initializer_range"), (0, 1e6)),
    **dict.fromkeys(("prompt_token_ids", "prior_prompt_token_ids", "tokens_per_report", "workers"), (0, 10**7)),
    "rotation": (0, 360),
}
# Any other number: an id, a seed, a field of a later version.
OTHERS = (-(2.0**63), 2.0**64)


def check_ranges(content: object, path: Path, field: str = "") -> None:
    """Raise DataError with file and field where a number of `content`, as JSON gives it, is out of its range."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            check_ranges(value, path, f"{field}.{name}" if field else str(name))
    elif isinstance(content, list | tuple):
        if len(content) > 100_000:
            raise DataError(f"{path}: {field}: needed at most 100,000 values, got {len(content)}")
        for value in content:
            check_ranges(value, path, field)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        low, high = RANGES.get(field.rpartition(".")[2], OTHERS)
        if not (math.isfinite(content) and low <= content <= high):
            raise DataError(f"{path}: {field}: needed a number from {low:g} to {high:g}, got {content:g}")


def load_checked(
    kind: type[Model], folder: Path, *, renamed: Mapping[str, str] | None = None, **changes: Any
) -> Model:
    """Return the model of type `kind` in `folder`, in evaluation mode; `changes` replace fields of its configuration.

    renamed: patterns of the names that tensors had before, and what these are now.

    Nothing is built before config.json is found and its numbers are in range, no memory is taken before every tensor of
    the network is found in the file with its shape, and no tensor holds NaN or infinity.

    Raises DataError by file and field or tensor.
    """
    assert kind.config_class is not None  # a network of our own
    config = read_config(kind.config_class, folder)
    for name, value in changes.items():
        setattr(config, name, value)
    _check_tensors(kind, config, folder, renamed or {})
    try:
        model = kind.from_pretrained(folder, config=config, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: needed the config.json and model.safetensors of a run: {error}") from error
    broken = first_not_finite(model.state_dict().items())
    if broken is not None:
        raise DataError(f"{folder / WEIGHTS}: {broken}: needed numbers, got NaN or infinity; train again")
    return model.eval()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in the JSON file `path`; DataError if it is missing or holds something else."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: needed this file of a run, got: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: needed JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: needed an object, got {type(content).__name__}")
    return content


def refuse_code(content: Mapping[str, Any], path: Path) -> None:
    """Raise DataError if a configuration names code of its own: it is never asked for, fetched or run."""
    named = [name for name in ("auto_map", "custom_pipelines") if content.get(name)]
    if named:
        raise DataError(f"{path}: {named[0]}: refers to custom code, which is never executed; use a run without custom code")


def read_config(kind: type[PretrainedConfig], folder: Path) -> PretrainedConfig:
    """Return the configuration of type `kind` in `folder`; DataError if it is missing, of another type or out of range."""
    path = folder / CONFIG
    content = read_json(path)
    if content.get("model_type") != kind.model_type:
        raise DataError(f"{path}: model_type: needed {kind.model_type!r}, got {content.get('model_type')!r}")
    refuse_code(content, path)
    check_ranges(content, path)
    try:
        return kind.from_dict(content)
    # The library may raise any exception for a field of the wrong type.
    except Exception as error:
        raise DataError(f"{path}: needed the configuration of a {kind.model_type}: {error}") from error


def _check_tensors(
    kind: type[PreTrainedModel], config: PretrainedConfig, folder: Path, renamed: Mapping[str, str]
) -> None:
    """Compare the names and shapes of the file with those of the network, built without any memory for its weights."""
    try:
        with torch.device("meta"):
            model = kind(config)
    # Sizes that do not match fail deep in a layer, with any exception.
    except Exception as error:
        raise DataError(f"{folder / CONFIG}: needed sizes that fit each other, got: {error}") from error
    found = {}
    for name, shape in _shapes(folder):
        for former, now in renamed.items():
            name = re.sub(former, now, name)
        found[name] = shape
    needed: dict[int, list[str]] = {}
    shapes = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        needed.setdefault(id(tensor), []).append(name)
        shapes[name] = tuple(tensor.shape)
    # For shared weights, one of the names is enough.
    faults = [f"{names[0]} is missing" for names in needed.values() if not any(name in found for name in names)]
    faults += [f"{name} is of no part of the network" for name in found if name not in shapes]
    faults += [
        f"{name}: needed shape {shapes[name]}, got {shape}"
        for name, shape in found.items()
        if name in shapes and shapes[name] != shape
    ]
    if faults:
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(
            f"{folder / WEIGHTS}: needed the {len(needed)} tensors of the network that config.json describes: "
            f"{', '.join(faults[:SHOWN])}{more}"
        )


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the name and shape of each tensor in the weights of `folder`."""
    for path in weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    yield name, tuple(file.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: needed weights as safetensors: {error}") from error


def weight_files(folder: Path) -> list[Path]:
    """Return the files of the weights in `folder`: one, or those that the index names, which lie in the folder itself."""
    if not (folder / PARTS).is_file():
        if not (folder / WEIGHTS).is_file():
            raise DataError(f"{folder / WEIGHTS}: needed the weights of a run, got no such file")
        return [folder / WEIGHTS]
    named = read_json(folder / PARTS).get("weight_map")
    names = sorted(set(named.values())) if isinstance(named, dict) and all(map(_is_text, named.values())) else []
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise DataError(f"{folder / PARTS}: weight_map: needed names of safetensors files in this folder, got {names[:3]}")
    return [folder / name for name in names]


def _is_text(value: object) -> bool:
    return isinstance(value, str)
