"""An explained report as one self-contained HTML page: images and style inside, no script, nothing fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffrgen.lazy import on_first_use

if TYPE_CHECKING:
    from diffrgen.page.folder import PageFolder
    from diffrgen.page.render import render_fragment, render_page
    from diffrgen.page.terminal import print_report
    from diffrgen.page.words import NOTICE

__all__ = ["NOTICE", "PageFolder", "print_report", "render_fragment", "render_page"]

__getattr__ = on_first_use(__name__, __file__)
