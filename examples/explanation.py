"""Why a report says what it says, from Python: where the decoder looked, and what it took from retrieved reports.

    python examples/explanation.py runs/tiny radiograph.png pages

Prints each sentence with the place that the decoder looked at and the retrieved reports that hold the same words, and writes
the page that `diffrgen generate --html` writes. Research use only, not for diagnosis.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffrgen import Explainer, GenerationOptions, Reporter
from diffrgen.page import PageFolder


def main(arguments: Sequence[str] | None = None) -> None:
    """Explain the report of an image."""
    run, image, pages = map(Path, sys.argv[1:] if arguments is None else arguments)
    explainer = Explainer(Reporter(run))
    (explained,) = explainer.explain([image], GenerationOptions(beams=1))
    for sentence in explained.sentences:
        (heat,) = sentence.heat  # (gh, gw) of the one view; sums to 1
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        shared = [explained.written.neighbours[place].id for place in sentence.shared_with]
        print(sentence.text)
        print(f"  looked at patch ({row}, {column}) of {heat.shape}; also in: {', '.join(shared) or 'no retrieved report'}")
    present = [finding for finding, state in explained.written.states.items() if state == "positive"]
    print(f"findings that prompted the report: {', '.join(present) or 'none'}")
    print(f"page: {PageFolder(pages).write(explained, image)}")


if __name__ == "__main__":
    main()
