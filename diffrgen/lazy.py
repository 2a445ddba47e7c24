"""Packages whose names are imported when they are first used, so that `--help` waits for no network library."""

from __future__ import annotations

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def on_first_use(package: str, file: str) -> Callable[[str], object]:
    """Return the `__getattr__` of a package: it imports a name when that is first asked for.

    package, file: `__name__` and `__file__` of the package. The names are those that its `if TYPE_CHECKING:` block
    imports, which is therefore what type checkers, editors and the interpreter all follow. A name must not be that of a
    submodule: importing the submodule would put the module in its place.

    Raises:
        ValueError: a name is also a submodule's.
    """
    sources = _sources(Path(file))
    for name in sources:
        if Path(file).with_name(f"{name}.py").exists():
            raise ValueError(f"{package}: {name} is a name and a submodule; import it outside of the TYPE_CHECKING block")

    def getattr_on_first_use(name: str) -> object:
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(sources[name]), name)
        vars(import_module(package))[name] = value
        return value

    return getattr_on_first_use


def _sources(file: Path) -> dict[str, str]:
    """The module of each name that the `if TYPE_CHECKING:` blocks of `file` import."""
    blocks = [
        node
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names}
