"""`python kernels/hub.py FOLDER`: lay out the tree that the Hugging Face hub's kernel-builder builds.

It is build.toml, flake.nix, CARD.md, csrc/ and torch-ext/ with the Python package: real files, where this folder has
links, without `_ops.py`, which kernel-builder writes, and without what a build left behind.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "diffrgen_kernels"
LEFT_OUT = shutil.ignore_patterns("_ops.py", "_native*", "__pycache__")


def lay_out(folder: Path) -> None:
    """Write the tree; FileExistsError if there is such a folder."""
    folder.mkdir(parents=True)
    for name in ("build.toml", "flake.nix"):
        shutil.copy(HERE / name, folder)
    shutil.copy(HERE / "README.md", folder / "CARD.md")
    shutil.copytree(HERE / "csrc", folder / "csrc")
    shutil.copytree(HERE / "torch-ext", folder / "torch-ext")
    shutil.copytree(HERE / PACKAGE, folder / "torch-ext" / PACKAGE, ignore=LEFT_OUT)


def main(arguments: list[str]) -> int:
    """Run the command."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        lay_out(Path(arguments[0]))
    except FileExistsError:
        print(f"{arguments[0]}: expected a folder that does not exist yet", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
