"""A retriever over any transformers checkpoint with image and text features in one space (CLIP, SigLIP, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BaseImageProcessor,
    BatchEncoding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import ModelOutput

from diffrgen.errors import DataError
from diffrgen.fingerprint import weights_fingerprint
from diffrgen.finite import first_not_finite
from diffrgen.retrieval.retriever import TokenFeatures


@dataclass(frozen=True)
class ProcessorTransform:
    """The checkpoint's own image processor on a grey image repeated over three channels."""

    processor: BaseImageProcessor
    resize: None = None

    def __call__(self, image: Image.Image) -> Tensor:
        """Return (3, S, S) float32."""
        return self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]


class ClipRetriever:
    """A `Retriever` over a CLIP-style checkpoint; see the protocol for each method."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, processor: BaseImageProcessor
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.image_transform = ProcessorTransform(processor)
        self.embedding_width = self.encode_texts(["normal"]).shape[1]

    @classmethod
    def load(cls, path: str | Path) -> ClipRetriever:
        """Load a checkpoint by local folder or hub name (safetensors only).

        Raises DataError when a part is missing or the model offers no image and text features.
        """
        try:
            model = AutoModel.from_pretrained(
                path, use_safetensors=True, dtype=torch.float32, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            # The PIL-based processor, because the other one requires torchvision.
            processor = AutoImageProcessor.from_pretrained(path, backend="pil", trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}: needed a CLIP-style checkpoint (folder or hub name) with config.json, model.safetensors, a "
                f"tokenizer and preprocessor_config.json: {error}"
            ) from error
        missing = [name for name in ("get_image_features", "get_text_features") if not hasattr(model, name)]
        if missing:
            raise DataError(
                f"{path}: needed a model that embeds images and texts in one space, but {type(model).__name__} has no "
                f"{' and no '.join(missing)}"
            )
        broken = first_not_finite(model.state_dict().items())
        if broken is not None:
            raise DataError(f"{path}: {broken}: needed numbers, got NaN or infinity")
        return cls(model, tokenizer, processor)

    @property
    def token_width(self) -> int:
        """Width E_token of a token feature."""
        return self.model.config.text_config.hidden_size

    @property
    def fingerprint(self) -> str:
        """A hash of the weights."""
        return weights_fingerprint(self.model)

    def to(self, device: torch.device | str) -> ClipRetriever:
        """Move the towers to `device` and return the retriever."""
        self.model.to(device)
        return self

    @torch.inference_mode()
    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Embed images, (B, 3, S, S) -> (B, E)."""
        return _unit(self.model.get_image_features(pixel_values=pixel_values.to(self.model.device)))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed reports, n texts -> (n, E)."""
        return _unit(self.model.get_text_features(**self._tokenise(texts)))

    @torch.inference_mode()
    def encode_text_tokens(self, texts: Sequence[str]) -> TokenFeatures:
        """Return the token features of n reports, (n, T, E_token) and their mask."""
        tokens = self._tokenise(texts)
        features = self.model.text_model(**tokens).last_hidden_state
        mask = tokens.get("attention_mask")
        mask = tokens["input_ids"] != self.tokenizer.pad_token_id if mask is None else mask.bool()
        return TokenFeatures(features.float(), mask)

    def save(self, folder: Path) -> None:
        """Write a copy of the checkpoint to `folder`."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_transform.processor.save_pretrained(folder)

    def _tokenise(self, texts: Sequence[str]) -> BatchEncoding:
        config = self.model.config
        # SigLIP reads the last position, so it must be padded to its full length as in its training.
        padding = "max_length" if config.model_type.startswith("siglip") else "longest"
        tokens = self.tokenizer(
            list(texts),
            padding=padding,
            truncation=True,
            max_length=config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return tokens.to(self.model.device)


def _unit(features: Tensor | ModelOutput) -> Tensor:
    """Return unit-length float32 rows of what get_*_features returns (an output object in transformers 5)."""
    pooled = features if isinstance(features, Tensor) else features["pooler_output"]
    return F.normalize(pooled.float(), dim=-1)
