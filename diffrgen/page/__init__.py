"""An explained report as one self-contained HTML page: images and style inside, no script, nothing fetched."""

from diffrgen.page.render import NOTICE, render_fragment, render_page

__all__ = ["NOTICE", "render_fragment", "render_page"]
