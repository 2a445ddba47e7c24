"""Results of a comparison as tables in the terminal, without any package for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comparison import Missing, Row
from diffrgen_kernels.inspect import table


def print_rows(rows: Sequence[Row], missing: Sequence[Missing]) -> None:
    """A table for each case and direction: the contenders in their order, then who is missing and why."""
    for case, direction in dict.fromkeys((row.case, row.direction) for row in rows):
        chosen = [row for row in rows if (row.case, row.direction) == (case, direction)]
        title = f"{case}, {direction.replace('_', ' + ')}: {chosen[0].rate.dense_gflop:.3g} dense GFLOP"
        print(f"{title}, {chosen[0].rate.compulsory_mb:.3g} MB\n\n{table([_cells(row) for row in chosen])}\n", flush=True)
    places: dict[tuple[str, str], list[str]] = {}
    for gap in missing:
        places.setdefault((gap.contender, gap.reason), []).append(f"{gap.case} {gap.direction}")
    for (contender, reason), where in places.items():
        print(f"{contender} is missing in {', '.join(where)}: {reason}", flush=True)


def _cells(row: Row) -> dict[str, Any]:
    seconds, speedup = row.seconds, row.speedup
    return {
        "contender": row.contender,
        "median": duration(seconds.median),
        "quartiles": f"{duration(seconds.first_quartile)} .. {duration(seconds.third_quartile)}",
        "speed-up": "" if speedup is None else f"{speedup.median:.2f}",
        "its quartiles": "" if speedup is None else f"{speedup.first_quartile:.2f} .. {speedup.third_quartile:.2f}",
        "GFLOP/s": f"{row.rate.gflop_per_second:.0f}",
        "% gemm": f"{row.rate.percent_gemm:.1f}",
        "GB/s": f"{row.rate.gb_per_second:.1f}",
        "% copy": f"{row.rate.percent_copy:.1f}",
        "saved MB": "" if row.saved_mb is None else f"{row.saved_mb:.1f}",
        "peak MB": "" if row.peak_mb is None else f"{row.peak_mb:.1f}",
        "worst error": f"{max(row.errors.values()):.0e}",
        "note": ", ".join(note for note in (row.note, "" if row.windowed else "yardstick", _how(row)) if note),
    }


def _how(row: Row) -> str:
    return "" if row.timed_by in ("clock", "processor", "graph") else row.timed_by


def duration(seconds: float) -> str:
    """Seconds with a unit that suits them.

    >>> duration(0.000123), duration(0.0123), duration(12.3)
    ('123 us', '12.3 ms', '12.3 s')
    """
    unit, factor = ("us", 1e6) if seconds < 1e-3 else ("ms", 1e3) if seconds < 1 else ("s", 1.0)
    return f"{seconds * factor:.3g} {unit}"
