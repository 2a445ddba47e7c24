"""Statistics of a trained network's routing (Eq. 7): entropy, dependence on the image, and weights by finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffrgen.labels import DISEASES, FINDINGS, State


@dataclass(frozen=True)
class RoutingStatistics:
    """Of each layer with more than one mask, by its place: weights of A^0 .. A^(p-1) over the test studies.

    mean: the mean weights; entropy: the mean entropy of a study's weights over log p, 0 (one mask alone) to 1 (all alike);
    spread: the entropy of the mean weights over log p, less `entropy`: 0 where every study is routed alike;
    by_finding: the mean weights of studies with a finding less those of studies without, for findings of both kinds.
    """

    layers: tuple[int, ...]
    mean: tuple[tuple[float, ...], ...]
    entropy: tuple[float, ...]
    spread: tuple[float, ...]
    by_finding: dict[str, tuple[tuple[float, ...], ...]]


def routing_statistics(routing: Sequence[Sequence[Sequence[float]]], states: np.ndarray) -> RoutingStatistics | None:
    """Summarise the weights of each study's layers; states (n, C >= 14) are the studies' true ones.

    Returns None if no layer has more than one mask.
    """
    layers = [np.array(alphas, dtype=np.float64) for alphas in zip(*routing, strict=True)]  # (n, p) each
    routed = {place: alphas for place, alphas in enumerate(layers) if alphas.shape[1] > 1}
    if not routed:
        return None
    entropy = [float(normalised_entropy(alphas).mean()) for alphas in routed.values()]
    overall = [float(normalised_entropy(alphas.mean(0))) for alphas in routed.values()]
    by_finding = {}
    for name in DISEASES:
        has = states[:, FINDINGS.index(name)] == State.POSITIVE
        if has.any() and not has.all():
            by_finding[name] = tuple(_rounded(a[has].mean(0) - a[~has].mean(0)) for a in routed.values())
    return RoutingStatistics(
        layers=tuple(routed),
        mean=tuple(_rounded(alphas.mean(0)) for alphas in routed.values()),
        entropy=_rounded(entropy),
        spread=_rounded(np.array(overall) - np.array(entropy)),
        by_finding=by_finding,
    )


def normalised_entropy(weights: np.ndarray) -> np.ndarray:
    """Return -sum_j w_j log w_j / log p (...) of weights (..., p) that sum to one, p > 1; 0 log 0 is 0."""
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return -(weights * logs).sum(-1) / np.log(weights.shape[-1])


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
