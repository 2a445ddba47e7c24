"""Additions of the site to the pages of docs/: the first page, the options, and the files that pages link to."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from options_page import options_page  # noqa: E402

# Pages outside docs/, by their names in the site.
BESIDE = {"index.md": "README.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
LINK = re.compile(r"\]\(([^)#:\s]+)([)#])")
# Folder of the site for files of the repository that pages link to.
REPOSITORY = "repository"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and every file of the repository that a page links to."""
    for name, source in BESIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "options.md", content=options_page()))
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / name for name in BESIDE.values())]
    for path in sorted({linked for page in pages for linked in _outside(page)}):
        name = _site_name(path)
        if path.suffix in (".png", ".md"):
            files.append(File.generated(config, name, abs_src_path=str(path)))
        else:
            files.append(File.generated(config, name, content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page from paths in the repository to paths in the site."""
    source = ROOT / BESIDE[page.file.src_uri] if page.file.src_uri in BESIDE else ROOT / "docs" / page.file.src_uri
    if page.file.src_uri.startswith((REPOSITORY, "options.md")):
        return markdown
    up = "../" * page.file.src_uri.count("/")

    def moved(link: re.Match[str]) -> str:
        return f"]({up}{_place((source.parent / link[1]).resolve())}{link[2]}"

    return LINK.sub(moved, markdown)


def _outside(page: Path) -> Iterator[Path]:
    """Yield the files outside docs/ that a page links to, except pages of the site."""
    for link, _ in LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / link).resolve()
        if path.is_file() and _place(path).startswith(REPOSITORY):
            yield path


def _place(path: Path) -> str:
    """Return the path in the site of a file of the repository."""
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    name = path.relative_to(ROOT).as_posix()
    return {source: page for page, source in BESIDE.items()}.get(name) or _site_name(path)


def _site_name(path: Path) -> str:
    name = f"{REPOSITORY}/{path.relative_to(ROOT).as_posix().lstrip('.')}"
    return name if path.suffix else f"{name}.txt"
