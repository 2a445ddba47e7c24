"""A folder of pages: one per study, named after its image, and an index of them."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from diffrgen.errors import DataError
from diffrgen.explanation import ExplainedReport
from diffrgen.page.figures import picture
from diffrgen.page.render import IndexEntry, render_index, render_page
from diffrgen.text import printable

INDEX = "index.html"
LONGEST_NAME = 60


class PageFolder:
    """Writes pages into a new or empty folder; DataError if it holds something or cannot be written."""

    def __init__(self, path: Path, *, abstain: float | None = None) -> None:
        """`abstain`: as in `render_page`."""
        if path.suffix.lower() in {".html", ".htm"}:
            raise DataError(f"{path}: needed the name of a folder, which gets a page for each study, got that of a page")
        try:
            occupied = path.exists() and any(path.iterdir())
        except OSError as error:
            raise DataError(f"{path}: needed a folder to write pages to, got: {error.strerror}") from error
        if occupied:
            raise DataError(f"{path}: needed a new or empty folder, got one that holds files; choose another")
        self.path, self.abstain = path, abstain
        self._names = {INDEX}
        self._entries: list[IndexEntry] = []

    def write(self, explained: ExplainedReport, *images: Path) -> Path:
        """Write the page of the report of the files `images`, named after the first; those of one name get numbers."""
        page = self.path / self._new_name(images[0])
        title = printable(", ".join(image.name for image in images))
        self._write(page, render_page(explained, title=title, abstain=self.abstain))
        states = explained.written.states
        present = tuple(finding for finding, state in states.items() if state == "positive")
        small = picture(explained.image, inches=1.0)
        self._entries.append(
            IndexEntry(printable(", ".join(map(str, images))), quote(page.name), small, explained.written.report, present)
        )
        return page

    def write_index(self, faults: list[str]) -> Path | None:
        """Write the index if there are several pages; faults: messages for images without a page."""
        if len(self._entries) < 2:
            return None
        page = self.path / INDEX
        self._write(page, render_index(self._entries, [printable(fault) for fault in faults]))
        return page

    def _new_name(self, image: Path) -> str:
        """Return a file name that no page has, not even on a system that takes upper and lower case for the same."""
        stem = re.sub(r"[^\w.-]+", "_", printable(image.stem)).strip("._")[:LONGEST_NAME] or "study"
        number, name = 1, f"{stem}.html"
        while name.lower() in self._names:
            number += 1
            name = f"{stem}-{number}.html"
        self._names.add(name.lower())
        return name

    def _write(self, page: Path, content: str) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with page.open("x", encoding="utf-8") as file:
                file.write(content)
        except OSError as error:
            raise DataError(f"{page}: the page cannot be written: {error.strerror}") from error

