"""Eq. 1 explained: the distance of each retrieved report from the image, compared with the other retrieved reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffrgen.model.choices import DIFFERENCE_METRICS, Metric
from diffrgen.model.difference import difference_metrics

# Closer means a smaller l2, and a larger value of the other two metrics.
SMALLER_IS_CLOSER = frozenset({"l2"})


@dataclass(frozen=True)
class MetricDifference:
    """One metric of Eq. 1 for one retrieved report.

    rank: 1 is the closest of `count`; closeness: 1 for the closest, 0 for the furthest, linear in the value between;
    words: the rank in words; used: whether the model was trained with this metric.
    """

    metric: Metric
    value: float
    rank: int
    count: int
    closeness: float
    words: str
    used: bool


def neighbour_metrics(z: Tensor, f: Tensor, mask: Tensor) -> Tensor:
    """Return the three metrics (B, N, 3) float32 of reports z against images f (B, d).

    z: (B, N T, d), mask (B, N, T): where a report is T tokens (T = 1 otherwise) its metrics are the means over them.
    """
    values = difference_metrics(z.float(), f.float(), DIFFERENCE_METRICS).unflatten(1, mask.shape[1:])  # (B, N, T, 3)
    weights = mask.to(values).unsqueeze(-1)
    return (values * weights).sum(2) / weights.sum(2).clamp_min(1)


def compare_prior(rows: Tensor, metrics: Tensor, used: tuple[str, ...]) -> list[tuple[MetricDifference, ...]]:
    """Return the differences of the prior's rows from their metrics (R, 3), each ranked among those of N neighbours."""
    return [compare_neighbours(torch.cat([row[None], metrics]), used)[0] for row in rows]


def compare_neighbours(metrics: Tensor, used: tuple[str, ...]) -> list[tuple[MetricDifference, ...]]:
    """Return the three differences of each of N neighbours from their metrics (N, 3)."""
    columns = [
        _ranked(name, metrics[:, column], used=name in used) for column, name in enumerate(DIFFERENCE_METRICS)
    ]
    return list(zip(*columns, strict=True))


def _ranked(metric: Metric, values: Tensor, *, used: bool) -> list[MetricDifference]:
    towards = -values if metric in SMALLER_IS_CLOSER else values
    count = len(values)
    ranks = torch.empty(count, dtype=torch.int64)
    ranks[torch.argsort(towards, descending=True, stable=True)] = torch.arange(1, count + 1)
    low, span = float(towards.min()), float(towards.max() - towards.min())
    return [
        MetricDifference(
            metric=metric,
            value=float(value),
            rank=int(rank),
            count=count,
            closeness=(float(near) - low) / span if span > 0 else 1.0,
            words=rank_words(int(rank), count),
            used=used,
        )
        for value, near, rank in zip(values, towards, ranks, strict=True)
    ]


def rank_words(rank: int, count: int) -> str:
    """Return the place `rank` (1 = closest) among `count` in words.

    >>> [rank_words(rank, 21) for rank in (1, 5, 11, 17, 21)]
    ['closest of 21', 'closer than most', 'as usual', 'further than most', 'furthest of 21']
    """
    if count == 1:
        return "the only one"
    if rank in (1, count):
        return f"{'closest' if rank == 1 else 'furthest'} of {count}"
    share = (rank - 1) / (count - 1)
    if share <= 0.25:
        return "closer than most"
    return "further than most" if share >= 0.75 else "as usual"
