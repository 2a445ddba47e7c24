"""De-identification marks: the words XXXX (IU X-Ray) and ___ (MIMIC-CXR) that stand for what was removed."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerFast

MARK_LENGTH = 4  # of "xxxx"
CONTINUED = "##"


class MarkSuppressor(LogitsProcessor):
    """Forbids every token that would write "xxxx", in any case and any pieces, or an underscore.

    A run of x is followed over the pieces of a word ("xx", "##xx"), so that no way to spell the mark is left; a piece such
    as "x" of "x-ray" stays allowed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        words = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        special = set(tokenizer.all_special_tokens)
        pieces = ["" if word in special else word.lower().removeprefix(CONTINUED) for word in words]
        continued = [word.startswith(CONTINUED) for word in words]
        leading = torch.tensor([_run(piece) for piece in pieces])
        self.marks = torch.tensor(["x" * MARK_LENGTH in piece or "_" in piece for piece in pieces])
        self.continued = torch.tensor(continued)
        self.trailing = torch.tensor([_run(piece[::-1]) for piece in pieces])
        self.only_x = torch.tensor([bool(piece) and set(piece) == {"x"} for piece in pieces])
        # Row t: the tokens forbidden after a run of t x.
        self.forbidden = torch.stack(
            [self.marks | (self.continued & (leading > 0) & (t + leading >= MARK_LENGTH)) for t in range(MARK_LENGTH)]
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) with -inf where a token would complete a mark after input_ids (B, T)."""
        self._move_to(scores.device)
        forbidden = self.forbidden[self._run_so_far(input_ids)]  # (B, V)
        width = min(scores.shape[1], forbidden.shape[1])
        # The decoder's vocabulary may be larger than the tokenizer's.
        return torch.cat([scores[:, :width].masked_fill(forbidden[:, :width], float("-inf")), scores[:, width:]], dim=1)

    def _run_so_far(self, input_ids: Tensor) -> Tensor:
        """Return how many x end the word that each sequence is in, (B,), at most MARK_LENGTH - 1."""
        run = input_ids.new_zeros(len(input_ids))
        for token in input_ids[:, -MARK_LENGTH:].unbind(1):
            joined = torch.where(self.continued[token] & self.only_x[token], run, 0)
            run = joined + self.trailing[token]
        return run.clamp_max(MARK_LENGTH - 1)

    def _move_to(self, device: torch.device) -> None:
        if self.forbidden.device != device:
            for name in ("forbidden", "continued", "trailing", "only_x"):
                setattr(self, name, getattr(self, name).to(device))


def mark_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Return the numbers of the tokens that are a mark, or a part of a word that holds one, by themselves."""
    return tuple(mark_suppressor(tokenizer).marks.nonzero().flatten().tolist())


@lru_cache(maxsize=2)
def mark_suppressor(tokenizer: PreTrainedTokenizerFast) -> MarkSuppressor:
    """Return the suppressor for `tokenizer`, made once."""
    return MarkSuppressor(tokenizer)


def _run(piece: str) -> int:
    """Return how many x begin `piece`."""
    return len(piece) - len(piece.lstrip("x"))
