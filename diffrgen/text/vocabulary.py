"""The WordPiece vocabulary of a data set's reports, with the prompt tokens of the disease states."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable
from itertools import chain

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from diffrgen.errors import DataError

# Index = state (diffrgen.labels.State): blank, positive, negative, uncertain.
PROMPT_TOKENS: tuple[str, ...] = ("[BLA]", "[POS]", "[NEG]", "[UNC]")
# Row = state in the patient's prior study, column = current state.
PRIOR_PROMPT_TOKENS: tuple[tuple[str, ...], ...] = tuple(
    tuple(f"{before[:-1]}>{now[1:]}" for now in PROMPT_TOKENS) for before in PROMPT_TOKENS
)
ALL_PROMPT_TOKENS: tuple[str, ...] = (*PROMPT_TOKENS, *chain.from_iterable(PRIOR_PROMPT_TOKENS))
# Begins the impression of a run that writes findings and impression; other runs have no such token.
IMPRESSION_TOKEN = "[IMPRESSION]"
ROLES: dict[str, str] = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
SPECIAL_TOKENS = (*ROLES.values(), *ALL_PROMPT_TOKENS)

# Every character of these is in the vocabulary, even if it is absent from the training texts.
ALPHABET = string.ascii_lowercase + string.digits + "-."


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 8000, min_frequency: int = 2) -> PreTrainedTokenizerFast:
    """Return a BERT WordPiece tokenizer, lower case, trained on `texts`; the same texts give the same.

    Words are what white space separates: a hyphen, dot or slash inside a word is a piece of it ("x", "##-",
    "##ray"), so that decoding restores a text to the letter. The ids are those of [PAD] 0, [UNK] 1, [CLS] 2,
    [SEP] 3, [MASK] 4, the prompt tokens 5..24, the characters, then the learned pieces. `tokenizer(text)`
    gives [CLS] pieces [SEP].

    vocab_size: the most tokens, special ones included. min_frequency: how often a pair of pieces must stand
    together to become one. ValueError if `texts` hold no word, DataError if `vocab_size` has no room for
    the characters.
    """
    words = Counter(word for text in texts for word in text.lower().split())
    if not words:
        raise ValueError("expected texts with words to train a tokenizer on, got none")
    fixed = [*SPECIAL_TOKENS, *_characters(words)]
    if vocab_size < len(fixed):
        raise DataError(
            f"--text.vocab-size: expected at least {len(fixed)}, the special tokens and the characters of the texts, got "
            f"{vocab_size}"
        )
    pieces = _learned_pieces(words, fixed, vocab_size=vocab_size, min_frequency=min_frequency)
    return wrap_tokenizer(_word_piece({piece: index for index, piece in enumerate(pieces)}))


def wrap_tokenizer(tokenizer: Tokenizer, roles: dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    """Return `tokenizer` for transformers; `roles` names its special tokens, by default as BERT does."""
    more = [IMPRESSION_TOKEN] if tokenizer.token_to_id(IMPRESSION_TOKEN) is not None else []
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **(roles or ROLES),
        extra_special_tokens=[*ALL_PROMPT_TOKENS, *more],
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def bracket_with(tokenizer: Tokenizer, cls_token: str, sep_token: str) -> None:
    """Make `tokenizer` put [CLS] before a text and [SEP] after it."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls_token} $A {sep_token}",
        pair=f"{cls_token} $A {sep_token} $B:1 {sep_token}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls_token, sep_token)],
    )


def _characters(words: Counter[str]) -> list[str]:
    seen = set(ALPHABET).union(*words)
    return [prefix + character for prefix in ("", "##") for character in sorted(seen)]


def _learned_pieces(words: Counter[str], fixed: list[str], *, vocab_size: int, min_frequency: int) -> list[str]:
    """Return `fixed`, then the pieces that the WordPiece trainer finds, in the order of its merges."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=ROLES["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer numbers the characters in the order of a hash table, new in each process, and breaks ties
    # between pairs by these numbers. Given as special tokens the characters are numbered first, in this
    # order: the result is the same always.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, show_progress=False, special_tokens=fixed
    )
    tokenizer.train_from_iterator((" ".join([word] * count) for word, count in sorted(words.items())), trainer)
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=lambda piece: vocabulary[piece])


def _word_piece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=ROLES["unk_token"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    bracket_with(tokenizer, ROLES["cls_token"], ROLES["sep_token"])
    return tokenizer
