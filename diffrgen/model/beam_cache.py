"""The decoder's keys and values in beam search, held so that no step copies more than it must."""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import BertConfig, Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import CacheLayerMixin
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions
from transformers.utils import ModelOutput

# transformers' name for the decoder's keys and values: `cache` from 5.24 on, `past_key_values` before.
NAMES = ("cache", "past_key_values")
CACHE = next(name for name in NAMES if name in {field.name for field in fields(CausalLMOutputWithCrossAttentions)})

if TYPE_CHECKING:

    class OutputWithCache(ModelOutput):
        """An output with the cache."""
else:
    # transformers names this field, and `generate` looks the cache up by that name.
    OutputWithCache = make_dataclass(
        "OutputWithCache", [(CACHE, Cache | None, None)], bases=(ModelOutput,), namespace={"__module__": __name__}
    )


class BeamLayer(CacheLayerMixin):
    """Self-attention keys and values of one layer, (sequences, heads, tokens, head dim), for at most `max_tokens` tokens.

    A token is written into memory that is there already, and beams are reordered into a second buffer of the same
    size: transformers' own layers allocate both anew at every step, which takes longer than the copying itself.
    """

    def __init__(self, max_tokens: int) -> None:
        super().__init__()
        self.max_tokens, self.tokens = max_tokens, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers for sequences like these."""
        sequences, heads, _, width = key_states.shape
        self.dtype, self.device = key_states.dtype, key_states.device
        # tokens before heads, so that the tokens of a sequence so far are one run of memory
        self.held = key_states.new_empty(2, sequences, self.max_tokens, heads, width)
        self.spare = torch.empty_like(self.held)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add tokens; return the keys and values of all tokens so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.tokens + key_states.shape[2]
        for held, new in zip(self.held, (key_states, value_states), strict=True):
            held[:, self.tokens : end] = new.transpose(1, 2)
        self.tokens = end
        self.keys, self.values = (held[:, :end].transpose(1, 2) for held in self.held)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let sequence i go on from sequence beam_idx[i]."""
        for held, spare in zip(self.held, self.spare, strict=True):
            torch.index_select(held[:, : self.tokens], 0, beam_idx, out=spare[:, : self.tokens])
        self.held, self.spare = self.spare, self.held

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys that `query_length` more tokens see, and the first one."""
        return self.tokens + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of tokens so far."""
        return self.tokens

    def get_max_length(self) -> int:
        """Return the number of tokens that there is memory for."""
        return self.max_tokens

    # The method's name in older transformers versions.
    get_max_cache_shape = get_max_length


class BeamCache(EncoderDecoderCache):
    """Keys and values of the decoder's tokens, and of the memory that it attends to.

    The beams of a study attend to the same memory, so that its keys and values are computed once and never reordered.
    """

    def __init__(self, config: BertConfig, max_tokens: int, *, copies: int = 1) -> None:
        """`max_tokens`: of a sequence, the prompt included; copies: of all sequences, one behind the other, that go on alike."""
        layers: list[Any] = [BeamLayer(max_tokens) for _ in range(config.num_hidden_layers)]
        super().__init__(Cache(layers=layers), DynamicCache())
        self.copies = copies

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let sequence i of each copy go on from its sequence beam_idx[i], of the same study."""
        order = torch.cat([beam_idx + copy * len(beam_idx) for copy in range(self.copies)])
        self.self_attention_cache.reorder_cache(cast("torch.LongTensor", order))
