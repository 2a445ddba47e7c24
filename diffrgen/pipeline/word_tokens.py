"""The tokens of finding words in a vocabulary, by class."""

from __future__ import annotations

import numpy as np
from transformers import PreTrainedTokenizerFast

from diffrgen.labels import CLASSES, OTHER, word_class


def token_classes(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Return the class of each token as its place in CLASSES, (vocabulary,) int64.

    A token counts where it is a complete word; of a word that the tokenizer splits, no part does.
    """
    classes = np.full(len(tokenizer), CLASSES.index(OTHER), dtype=np.int64)
    for token, number in tokenizer.get_vocab().items():
        classes[number] = CLASSES.index(word_class(token))
    return classes


def finding_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """Return the numbers of the tokens of every class but OTHER, in order."""
    return tuple(np.flatnonzero(token_classes(tokenizer) != CLASSES.index(OTHER)).tolist())
