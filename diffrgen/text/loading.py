"""A tokenizer read from a folder: this project's own, or a local BERT's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from diffrgen.errors import DataError
from diffrgen.text.vocabulary import ALL_PROMPT_TOKENS, ROLES, bracket_with, wrap_tokenizer


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the folder `path`, with the prompt tokens added at its end where it lacks them.

    The folder holds `tokenizer.json`, or a BERT `vocab.txt` (lower case unless `tokenizer_config.json` says
    otherwise). Where tokens are added, `len(tokenizer)` has grown: resize the model's embeddings. The special
    tokens have BERT's names or those that `tokenizer_config.json` gives. DataError if the folder holds
    neither file, one is damaged, or a special token is missing.
    """
    folder = Path(path)
    config = _config(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").is_file():
        tokenizer = _from_json(folder / "tokenizer.json")
    elif (folder / "vocab.txt").is_file():
        tokenizer = _from_vocabulary(folder / "vocab.txt", lower=bool(config.get("do_lower_case", True)))
    else:
        what = "has neither" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise DataError(f"expected a tokenizer folder with tokenizer.json or vocab.txt, got {folder}, which {what}")
    roles = {role: _named(config.get(role)) or token for role, token in ROLES.items()}
    missing = [token for token in roles.values() if tokenizer.token_to_id(token) is None]
    if missing:
        raise DataError(f"the tokenizer in {folder} lacks the special tokens {', '.join(missing)}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.add_special_tokens([*roles.values(), *ALL_PROMPT_TOKENS])
    bracket_with(tokenizer, roles["cls_token"], roles["sep_token"])
    return wrap_tokenizer(tokenizer, roles)


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected an object, got {type(content).__name__}")
    return content


def _named(token: object) -> str | None:
    """Return the text of a token as tokenizer_config.json writes it: a text or an object with `content`."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else None


def _from_json(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    # The tokenizers library raises bare Exception for a file that it cannot parse.
    except Exception as error:
        raise DataError(f"{file} is not a tokenizer.json that the tokenizers library reads: {error}") from error


def _from_vocabulary(file: Path, *, lower: bool) -> Tokenizer:
    """Return a BERT tokenizer with the vocabulary `file`, one token a line."""
    try:
        # Not str.splitlines: a token may be U+2028 or another line separator, which would shift all later ids.
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not a vocabulary: {error}") from error
    vocabulary = {line.strip(): index for index, line in enumerate(lines) if line.strip()}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=ROLES["unk_token"], max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return tokenizer
