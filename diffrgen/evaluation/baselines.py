"""Image-free baselines: reports that do not depend on the image."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence


def most_frequent_report(training: Sequence[str], count: int) -> list[str]:
    """Return the most frequent training report `count` times; of several equally frequent ones the first."""
    report, _ = Counter(training).most_common(1)[0]
    return [report] * count


def random_training_reports(training: Sequence[str], count: int, *, seed: int = 0) -> list[str]:
    """Return `count` training reports drawn with replacement."""
    return random.Random(seed).choices(training, k=count)
