"""A procedural chest radiograph phantom: images, exact states and changes, reports by a grammar, a parser."""

from __future__ import annotations

from diffrgen.phantom.options import PhantomOptions
from diffrgen.phantom.parser import FindingReading, GrammarParser, ParsedReport
from diffrgen.phantom.write import write_phantom

__all__ = ["FindingReading", "GrammarParser", "ParsedReport", "PhantomOptions", "write_phantom"]
