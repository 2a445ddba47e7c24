"""The dual encoder: an image tower and a text tower that meet in one embedding space (CLIP-style)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn
from transformers import AutoConfig, BertConfig, BertModel, PretrainedConfig, PreTrainedModel

from diffrgen.images.encoder import PatchEncoder, layout_of
from diffrgen.ranges import Count, check_values, types_of
from diffrgen.retrieval.info_nce import info_nce, same_text

if TYPE_CHECKING:
    from typing_extensions import Self

HEAD_WIDTH = 64
MAX_SCALE = 100.0


class DualEncoderConfig(PretrainedConfig):
    """Both towers' layouts, the embedding width and the image size that the tower was fitted at.

    `image_transform` holds the keyword arguments of `ImageTransform` for evaluation (None in a bare model).
    """

    model_type = "diffrgen_dual_encoder"
    sub_configs = {"image_config": AutoConfig, "text_config": BertConfig}  # noqa: RUF012 (the library's own convention)

    def __init__(
        self,
        image_config: PretrainedConfig | dict[str, Any] | None = None,
        text_config: BertConfig | dict[str, Any] | None = None,
        embedding_width: Count = 128,
        initial_temperature: Annotated[float, Gt(0), Le(1)] = 0.07,
        image_transform: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(text_config, BertConfig):
            text_config = BertConfig(**(text_config or {}))
        self.image_config = layout_of(image_config)
        self.text_config = text_config
        self.embedding_width = embedding_width
        self.initial_temperature = initial_temperature
        self.image_transform = image_transform
        super().__init__(**kwargs)
        types = types_of(DualEncoderConfig.__init__)
        check_values(vars(self), {name: kind for name, kind in types.items() if name in vars(self)})


def text_tower_config(
    *, vocab_size: int, pad_token_id: int, width: int = 128, layers: int = 2, max_tokens: int = 100
) -> BertConfig:
    """Return the layout of a small BERT encoder for reports of up to `max_tokens` tokens."""
    return BertConfig(
        vocab_size=vocab_size,
        pad_token_id=pad_token_id,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
        intermediate_size=4 * width,
        max_position_embeddings=max_tokens,
        type_vocab_size=1,
        # Dropout on attention weights took 15 % of the tower's time on a CPU.
        attention_probs_dropout_prob=0.0,
    )


class DualEncoder(PreTrainedModel):
    """e_image = unit(W_i mean(patches)), e_text = unit(W_t mean(tokens)); similarity = e_image . e_text.

    Embeddings are float32 under every autocast. `scale` = 1 / temperature is learned and clamped to [1, 100] as CLIP's.
    """

    config: DualEncoderConfig
    config_class = DualEncoderConfig
    base_model_prefix = "dual_encoder"
    main_input_name = "pixel_values"

    if TYPE_CHECKING:
        # A decorator hides the signature of transformers' own method.
        def to(self, *arguments: Any, **options: Any) -> Self: ...  # type: ignore[override]  # noqa: D102

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__(config)
        self.image_tower = PatchEncoder(config.image_config)
        self.text_tower = BertModel(config.text_config, add_pooling_layer=False)
        self.image_projection = nn.Linear(self.image_tower.width, config.embedding_width, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.embedding_width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.initial_temperature)))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
        elif module is self:
            nn.init.constant_(self.log_scale, -math.log(self.config.initial_temperature))

    @property
    def scale(self) -> Tensor:
        """Inverse temperature, a scalar in [1, 100]."""
        return self.log_scale.clamp(0.0, math.log(MAX_SCALE)).exp()

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Embed images, (B, C, S, S) -> (B, E) unit-length float32."""
        pooled = self.image_tower(pixel_values).pooled
        return F.normalize(self.image_projection(pooled).float(), dim=-1)

    def encode_text_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return each token's feature, (B, T) ids and mask -> (B, T, E_token)."""
        return self.text_tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed reports, (B, T) ids and mask -> (B, E) unit-length float32: the mean over tokens, padding left out."""
        tokens = self.encode_text_tokens(input_ids, attention_mask)
        mask = attention_mask.to(tokens.dtype)[..., None]  # (B, T, 1)
        mean = (tokens * mask).sum(1) / mask.sum(1)
        return F.normalize(self.text_projection(mean).float(), dim=-1)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the symmetric InfoNCE loss of a batch of pairs; identical reports are positives of each other."""
        return info_nce(
            self.encode_images(pixel_values),
            self.encode_texts(input_ids, attention_mask),
            scale=self.scale,
            positives=same_text(input_ids),
        )
