"""A procedural chest radiograph phantom: images, exact states and changes, reports by a grammar, a parser.

`patients` draws the truth; `drawing` makes an image from it and `language` a report, independently of each other; `write` puts
the data set on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.phantom.boxes import Box, finding_boxes
    from diffrgen.phantom.language.parser import FindingReading, GrammarParser, ParsedReport
    from diffrgen.phantom.options import FORMAT_VERSION, PhantomOptions
    from diffrgen.phantom.write import write_phantom

__all__ = [
    "FORMAT_VERSION",
    "Box",
    "FindingReading",
    "GrammarParser",
    "ParsedReport",
    "PhantomOptions",
    "finding_boxes",
    "write_phantom",
]

__getattr__ = on_first_use(__name__, __file__)
