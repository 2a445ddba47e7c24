"""The page of all options, generated from the dataclasses of the commands."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, get_args, get_origin

import tyro

from diffrgen.ranges import described, types_of

# The dataclass with the options of each command.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "train": "diffrgen.training.options.TrainOptions",
        "evaluate": "diffrgen.evaluation.options.EvaluateOptions",
        "calibrate": "diffrgen.evaluation.options.CalibrateOptions",
        "score": "diffrgen.evaluation.options.ScoreOptions",
        "rexrank": "diffrgen.evaluation.options.ReXrankOptions",
        "reinforce": "diffrgen.reinforcement.options.ReinforceOptions",
        "generate": "diffrgen.generate.GenerateOptions",
        "serve": "diffrgen.serving.options.ServeOptions",
        "prepare mimic-cxr": "diffrgen.preparation.options.MimicCxrOptions",
        "prepare iu-xray": "diffrgen.preparation.options.IuXrayOptions",
        "prepare chexpert-plus": "diffrgen.preparation.options.ChexpertPlusOptions",
        "prepare rexgradient": "diffrgen.preparation.options.RexGradientOptions",
        "prepare padchest-gr": "diffrgen.preparation.options.PadchestGrOptions",
        "prepare rexrank": "diffrgen.preparation.options.ReXrankInputOptions",
        "experiments": "diffrgen.experiments.options.ExperimentOptions",
        "mechanisms": "diffrgen.mechanisms.options.MechanismOptions",
        "phantom": "diffrgen.phantom.__main__.Command",
        "share": "diffrgen.sharing.options.ShareOptions",
        "index": "diffrgen.sharing.options.ReindexOptions",
        "clinical.poll": "diffrgen.clinical.poll.PollOptions",
    }
)

# Commands whose dataclass marks its positional options; in all other commands every required option is positional.
OWN_POSITIONS = ("rexrank", "generate", "serve", "index", "clinical.poll")


def options_page() -> str:
    """Return the page as Markdown: one section per command, one row per option."""
    parts = [
        "# Options",
        "This page lists every option of every command with its valid values and its default. The defaults of `train` are "
        "those without a preset (`--help` shows those of a preset). A command is called as `python -m diffrgen.COMMAND` or, if "
        "its name has no dot, as `diffrgen COMMAND`. A value out of range is rejected before any work, with exit status 2.",
    ]
    for command, path in COMMANDS.items():
        module, _, name = path.rpartition(".")
        required = command not in OWN_POSITIONS
        rows = [_row(*option, all_required=required) for option in _options(getattr(import_module(module), name))]
        table = ["| option | takes | default | |", "|---|---|---|---|", *rows]
        parts += [f"## {command}", "\n".join(table)]
    return "\n\n".join(parts) + "\n"


def _options(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any, Field[Any], str]]:
    """Yield name, type, field and description of each option of a dataclass; options of its groups follow."""
    groups = []
    for field in fields(kind):
        field_type = types_of(kind)[field.name]
        inner = get_args(field_type)[0] if get_origin(field_type) is not None and get_args(field_type) else field_type
        if is_dataclass(inner):
            flat = "omit" in str(field_type).lower()
            groups.append((inner, prefix if flat else f"{prefix}{field.name.replace('_', '-')}."))
        else:
            yield f"{prefix}{field.name.replace('_', '-')}", field_type, field, _docstrings(kind).get(field.name, "")
    for inner, inner_prefix in groups:
        yield from _options(inner, inner_prefix)


def _row(name: str, field_type: Any, field: Field[Any], text: str, *, all_required: bool) -> str:
    positional = tyro.conf.Positional[Any].__metadata__[0] in getattr(field_type, "__metadata__", ())
    positional |= all_required and field.default is field.default_factory is MISSING
    default = "" if field.default is MISSING else "none" if field.default in (None, ()) else f"`{field.default}`"
    cells = [f"`{name.upper() if positional else '--' + name}`", described(field_type), default, text]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _docstrings(kind: type) -> dict[str, str]:
    """Return the docstrings of the fields of a dataclass and of its bases."""
    if kind is object:
        return {}
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found = {name: text for base in kind.__bases__ for name, text in _docstrings(base).items()}
    for line, below in zip(body.body, body.body[1:], strict=False):
        text = getattr(getattr(below, "value", None), "value", None)
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(text, str):
            found[line.target.id] = text
    return found
