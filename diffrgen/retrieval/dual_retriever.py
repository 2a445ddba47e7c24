"""The retriever fitted by `fit_dual_encoder`: a dual encoder with its tokenizer and image transform."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerFast

from diffrgen.errors import DataError
from diffrgen.fingerprint import weights_fingerprint
from diffrgen.images import ImageTransform
from diffrgen.retrieval.dual_encoder import DualEncoder
from diffrgen.retrieval.retriever import TokenFeatures
from diffrgen.text import load_tokenizer
from diffrgen.weights import load_checked


class DualRetriever:
    """A `Retriever` over a `DualEncoder`; see the protocol for each method."""

    def __init__(self, model: DualEncoder, tokenizer: PreTrainedTokenizerFast) -> None:
        if model.config.image_transform is None:
            raise ValueError(
                "expected a dual encoder whose config holds image_transform (build_dual_encoder sets it), got None"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.image_transform = ImageTransform(**model.config.image_transform)

    @classmethod
    def load(cls, folder: str | Path) -> DualRetriever:
        """Load what `save` wrote; DataError, by file and field, for anything else."""
        folder = Path(folder)
        model = load_checked(DualEncoder, folder)
        tokenizer = load_tokenizer(folder)
        words = model.config.text_config.vocab_size
        if len(tokenizer) != words:
            raise DataError(f"{folder / 'tokenizer.json'}: needed the {words} tokens of config.json, got {len(tokenizer)}")
        try:
            return cls(model, tokenizer)
        except (TypeError, ValueError) as error:
            raise DataError(f"{folder / 'config.json'}: image_transform: {error}") from error

    @property
    def embedding_width(self) -> int:
        """Width E of an embedding."""
        return self.model.config.embedding_width

    @property
    def token_width(self) -> int:
        """Width E_token of a token feature."""
        return self.model.config.text_config.hidden_size

    @property
    def max_tokens(self) -> int:
        """Tokens of a report that the text tower reads."""
        return self.model.config.text_config.max_position_embeddings

    @property
    def fingerprint(self) -> str:
        """A hash of the weights."""
        return weights_fingerprint(self.model)

    def to(self, device: torch.device | str) -> DualRetriever:
        """Move the towers to `device` and return the retriever."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Embed images, (B, C, S, S) -> (B, E)."""
        return self.model.encode_images(pixel_values.to(self.model.device))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed reports, n texts -> (n, E)."""
        tokens = self._tokenise(texts)
        return self.model.encode_texts(tokens["input_ids"], tokens["attention_mask"])

    @torch.inference_mode()
    def encode_text_tokens(self, texts: Sequence[str]) -> TokenFeatures:
        """Return the token features of n reports, (n, T, E_token) and their mask."""
        tokens = self._tokenise(texts)
        features = self.model.encode_text_tokens(tokens["input_ids"], tokens["attention_mask"])
        return TokenFeatures(features, tokens["attention_mask"].bool())

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors and the tokenizer to `folder`."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _tokenise(self, texts: Sequence[str]) -> BatchEncoding:
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return tokens.to(self.model.device)
