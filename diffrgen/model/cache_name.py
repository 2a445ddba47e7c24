"""The name that transformers gives to the decoder's keys and values: `cache` from 5.24 on, `past_key_values` before."""

from __future__ import annotations

from dataclasses import fields, make_dataclass

from transformers import Cache
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.utils import ModelOutput

NAMES = ("cache", "past_key_values")
CACHE = next(name for name in NAMES if name in {field.name for field in fields(CausalLMOutputWithCrossAttentions)})

# The one field of an output that has a name of transformers' choosing: generation finds the cache by it.
OutputWithCache = make_dataclass(
    "OutputWithCache", [(CACHE, Cache | None, None)], bases=(ModelOutput,), namespace={"__module__": __name__}
)
