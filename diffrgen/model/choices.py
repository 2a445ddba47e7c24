"""The choices of the network that have names, apart from the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from diffrgen.errors import DataError
from diffrgen.ranges import spelled

# The operator's largest head dimension.
MOST_HEAD_WIDTH = 256

NetworkVariant = Literal["diffrgen", "promptmrg"]
Retrieved = Literal["embeddings", "tokens"]
Metric = Literal["l2", "cosine", "dot"]
Difference = Literal["scalars", "content"]
DifferenceNorm = Literal["batch", "layer", "none"]
Masking = Literal["multiplicative", "exclusive"]
RoutingChoice = Literal["soft", "straight_through"]
Centres = Literal["rank", "attention"]
ContrastForm = Literal["supervised", "printed"]
ContextName = Literal["indication", "history", "comparison", "technique"]
DIFFERENCE_METRICS: tuple[Metric, ...] = ("l2", "cosine", "dot")


class Choices(Protocol):
    """The fields shared by the options and the network's configuration whose choices depend on each other."""

    @property
    def width(self) -> int:
        """d."""

    @property
    def heads(self) -> int:
        """H."""

    @property
    def masks_per_layer(self) -> Sequence[int]:
        """p_k of each layer."""

    @property
    def finding_queries(self) -> bool:
        """Whether a learned row for each finding joins the references."""

    @property
    def context(self) -> Sequence[ContextName]:
        """The sections that are known before the images are read."""

    @property
    def contrast_form(self) -> ContrastForm:
        """The form of Eq. 8."""

    @property
    def difference_metrics(self) -> Sequence[Metric]:
        """The metrics of Eq. 1."""


def check_choices(choices: Choices, prefix: str = "") -> None:
    """Raise DataError if two choices are incompatible; `prefix` precedes the name of the first one."""
    width, heads = choices.width, choices.heads
    if width % heads:
        raise DataError(f"{spelled(prefix, 'width')}: expected width to be a multiple of heads, got {width} and {heads}")
    if choices.masks_per_layer and width // heads > MOST_HEAD_WIDTH:
        raise DataError(
            f"{spelled(prefix, 'heads')}: expected heads of a width of at most {MOST_HEAD_WIDTH}, got {width // heads} "
            f"from width {width} and {heads} heads"
        )
    if choices.finding_queries and not choices.masks_per_layer:
        raise DataError(
            f"{spelled(prefix, 'finding_queries')}: expected layers of the aggregation module for finding_queries to join, "
            "got masks_per_layer ()"
        )
    if len(set(choices.context)) < len(choices.context):
        raise DataError(f"{spelled(prefix, 'context')}: expected each section once, got {' '.join(choices.context)}")
    if choices.contrast_form == "printed" and not choices.difference_metrics:
        raise DataError(
            f"{spelled(prefix, 'contrast_form')}: expected difference metrics for contrast_form 'printed', whose negatives "
            "are D, got none"
        )
