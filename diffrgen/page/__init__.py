"""An explained report as one self-contained HTML page: images and style inside, no script, nothing fetched."""

from diffrgen.page.folder import PageFolder
from diffrgen.page.render import render_fragment, render_page
from diffrgen.page.terminal import print_report
from diffrgen.page.words import NOTICE

__all__ = ["NOTICE", "PageFolder", "print_report", "render_fragment", "render_page"]
