"""The studies of the paper, and ours: which networks each compares, and what the paper printed for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from diffrgen.training.options import TrainOptions

StudyName = Literal["table2", "table3", "table_a", "figure_a", "ours"]
PUBLISHED = ("bleu_1", "bleu_4", "meteor", "rouge_l", "f1")


@dataclass(frozen=True)
class Variant:
    """A network that differs from the full one in `changes`, options of `ModelOptions` by name."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def of(self, full: TrainOptions) -> TrainOptions:
        """Return the options `full` with the changes of this variant."""
        return replace(full, model=replace(full.model, **self.changes))


@dataclass(frozen=True)
class Row:
    """A variant in a study's table: its name there, and what the paper printed for it on MIMIC-CXR."""

    variant: Variant
    label: str
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A table or figure: its first row is the network that all others are compared with."""

    name: StudyName
    title: str
    rows: tuple[Row, ...]


FULL = Variant("full")
TRANSFORMER = Variant("transformer", {"masks_per_layer": (1, 1)})


def _row(variant: Variant, label: str, *values: float | None) -> Row:
    """Return a row whose published values are those of PUBLISHED, in order."""
    pairs = zip(PUBLISHED, values, strict=False)
    return Row(variant, label, {name: value for name, value in pairs if value is not None})


def _layers(count: int) -> Variant:
    # Layer k routes over its first k + 1 masks, three at most: on 7 x 7 patches A^3 is nearly the whole grid.
    return Variant(f"layers-{count}", {"masks_per_layer": tuple(min(k + 1, 3) for k in range(1, count + 1))})


STUDIES: dict[StudyName, Study] = {
    study.name: study
    for study in (
        Study(
            "table2",
            "Table 2: each module removed",
            (
                _row(FULL, "DiffRGenNet", 0.402, 0.119, 0.163, 0.275, 0.483),
                _row(
                    Variant("without-difference", {"difference_metrics": ()}),
                    "without feature difference",
                    *(0.401, 0.115, 0.160, 0.269, 0.481),
                ),
                _row(TRANSFORMER, "Transformer for FAM", 0.400, 0.112, 0.159, 0.268, 0.477),
                _row(Variant("without-contrast", {"contrast_weight": 0.0}), "without SCL", 0.386, 0.107, 0.148, 0.277, 0.382),
            ),
        ),
        Study(
            "table3",
            "Table 3: the metrics of the feature difference (Eq. 1)",
            (
                _row(FULL, "L2, cosine and dot", None, 0.119, 0.163, 0.275, 0.483),
                _row(Variant("cosine", {"difference_metrics": ("cosine",)}), "cosine alone", None, 0.115, 0.160, 0.270, 0.481),
                _row(Variant("l2", {"difference_metrics": ("l2",)}), "L2 alone", None, 0.118, 0.162, 0.271, 0.483),
                _row(Variant("dot", {"difference_metrics": ("dot",)}), "dot alone", None, 0.116, 0.160, 0.273, 0.480),
                _row(Variant("without-l2", {"difference_metrics": ("cosine", "dot")}), "without L2"),
                _row(Variant("without-cosine", {"difference_metrics": ("l2", "dot")}), "without cosine"),
                _row(Variant("without-dot", {"difference_metrics": ("l2", "cosine")}), "without dot"),
            ),
        ),
        Study(
            "table_a",
            "Table A: the routing module",
            (
                _row(FULL, "FAM", 0.402, 0.119, 0.163, 0.275, 0.483),
                _row(TRANSFORMER, "Transformer", 0.399, 0.113, 0.160, 0.269, 0.476),
                _row(
                    Variant("trar", {"share_projections": True, "masking": "exclusive"}),
                    "TRAR",
                    *(0.400, 0.116, 0.161, 0.272, 0.478),
                ),
                _row(Variant("concatenation", {"masks_per_layer": ()}), "concatenation", 0.313, 0.101, 0.140, 0.265, 0.267),
            ),
        ),
        Study(
            "figure_a",
            "Figure A: one to five routing layers",
            (
                _row(FULL, "2 layers", *[None] * 4, 0.48),
                _row(_layers(1), "1 layer", *[None] * 4, 0.46),
                _row(_layers(3), "3 layers"),
                _row(_layers(4), "4 layers"),
                _row(_layers(5), "5 layers", *[None] * 4, 0.43),
            ),
        ),
        Study(
            "ours",
            "What the paper leaves open",
            (
                _row(FULL, "as configured"),
                _row(Variant("without-earlier-study", {"prior": False}), "without the prior study"),
                _row(Variant("straight-through", {"routing": "straight_through"}), "straight-through routing"),
                _row(Variant("exclusive", {"masking": "exclusive"}), "exclusive masks"),
                _row(Variant("shared-projections", {"share_projections": True}), "shared projections"),
                _row(Variant("printed-contrast", {"contrast_form": "printed"}), "Eq. 8 as printed"),
                _row(Variant("without-prior-of-eq-9", {"logit_adjustment": False}), "without the prior of Eq. 9"),
                _row(Variant("lambda-1", {"disease_weight": 1.0}), "lambda 1"),
                _row(Variant("scalar-difference", {"difference": "scalars"}), "D of scalars alone"),
                _row(Variant("finding-queries", {"finding_queries": True}), "finding queries"),
                _row(Variant("severities", {"severities": True}), "severities in the prompt"),
                _row(Variant("finding-weight-3", {"finding_weight": 3.0}), "finding words with weight 3"),
                _row(Variant("indication", {"context": ("indication",)}), "with the indication"),
            ),
        ),
    )
}
