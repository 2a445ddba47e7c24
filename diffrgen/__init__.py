"""DiffRGenNet: difference-aware chest X-ray report generation (MIDL 2025).

    from diffrgen import Reporter

    reporter = Reporter("runs/tiny")
    for generated in reporter.write(["radiograph.png"]):
        print(generated.report)

The names below are imported when they are first used: `import diffrgen` alone loads no library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.explanation import Explainer
    from diffrgen.metrics import corpus_scores
    from diffrgen.pipeline.options import GenerationOptions
    from diffrgen.release import __version__
    from diffrgen.reporting.prior_study import PriorStudy
    from diffrgen.reporting.reporter import Reporter

__all__ = ["Explainer", "GenerationOptions", "PriorStudy", "Reporter", "__version__", "corpus_scores"]

__getattr__ = on_first_use(__name__, __file__)
