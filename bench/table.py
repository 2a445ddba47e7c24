"""Results of a comparison as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from comparison import Missing, Row
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

COLUMNS = ("contender", "median", "quartiles", "speed-up", "quartiles", "GFLOP/s", "% gemm", "GB/s", "% copy")
MEMORY = ("saved MB", "peak MB", "worst error", "")


def print_rows(rows: Sequence[Row], missing: Sequence[Missing], console: Console) -> None:
    """A table for each case and direction: the contenders in their order, then who is missing and why."""
    for case, direction in dict.fromkeys((row.case, row.direction) for row in rows):
        chosen = [row for row in rows if (row.case, row.direction) == (case, direction)]
        title = f"{case}, {direction.replace('_', ' + ')}: {chosen[0].rate.dense_gflop:.3g} dense GFLOP"
        table = Table(title=f"{title}, {chosen[0].rate.compulsory_mb:.3g} MB", box=SIMPLE_HEAD, title_justify="left")
        for column in (*COLUMNS, *MEMORY):
            table.add_column(column, justify="left" if column in ("contender", "") else "right", no_wrap=True)
        for row in chosen:
            table.add_row(*_cells(row))
        console.print(table)
    places: dict[tuple[str, str], list[str]] = {}
    for gap in missing:
        places.setdefault((gap.contender, gap.reason), []).append(f"{gap.case} {gap.direction}")
    for (contender, reason), where in places.items():
        console.print(f"{contender} is missing in {', '.join(where)}: {reason}", markup=False, highlight=False)


def _cells(row: Row) -> list[str]:
    seconds, speedup = row.seconds, row.speedup
    return [
        row.contender,
        duration(seconds.median),
        f"{duration(seconds.first_quartile)} .. {duration(seconds.third_quartile)}",
        "" if speedup is None else f"{speedup.median:.2f}",
        "" if speedup is None else f"{speedup.first_quartile:.2f} .. {speedup.third_quartile:.2f}",
        f"{row.rate.gflop_per_second:.0f}",
        f"{row.rate.percent_gemm:.1f}",
        f"{row.rate.gb_per_second:.1f}",
        f"{row.rate.percent_copy:.1f}",
        "" if row.saved_mb is None else f"{row.saved_mb:.1f}",
        "" if row.peak_mb is None else f"{row.peak_mb:.1f}",
        f"{max(row.errors.values()):.0e}",
        escape(", ".join(note for note in (row.note, "" if row.windowed else "yardstick", _how(row)) if note)),
    ]


def _how(row: Row) -> str:
    return "" if row.timed_by in ("clock", "graph") else row.timed_by


def duration(seconds: float) -> str:
    """Seconds with a unit that suits them.

    >>> duration(0.000123), duration(0.0123), duration(12.3)
    ('123 us', '12.3 ms', '12.3 s')
    """
    unit, factor = ("us", 1e6) if seconds < 1e-3 else ("ms", 1e3) if seconds < 1 else ("s", 1.0)
    return f"{seconds * factor:.3g} {unit}"
