"""Every option refuses a wrong word, a number out of range and NaN, before any work and with what was expected."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt

import diffrgen
from diffrgen import evaluate, generate, serve, train
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.evaluation.columns import ColumnOptions
from diffrgen.images.encoder import encoder_config
from diffrgen.model import DiffRGenConfig
from diffrgen.ranges import Count, Share, allows, described, types_of
from diffrgen.retrieval.dual_encoder import DualEncoderConfig

ROOT = Path(diffrgen.__file__).parent
OPTIONS = re.compile(r"^class (\w*Options|UploadLimits|Command)\b", re.MULTILINE)


def option_classes() -> list[type]:
    """The dataclasses that options of commands are read into: those named ...Options, and two others."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        names = OPTIONS.findall(path.read_text())
        module = ".".join(("diffrgen", *path.relative_to(ROOT).with_suffix("").parts))
        found += [getattr(importlib.import_module(module), name) for name in names]
    return found


def wrong_values(kind: Any) -> list[Any]:
    """Values that a field of the type must refuse: a wrong word, numbers beyond each bound, NaN, infinity, a fraction."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        beyond = {Ge: lambda x: x - 1, Gt: lambda x: x, Le: lambda x: x + 1, Lt: lambda x: x}
        bounds = [bound for bound in arguments[1:] if type(bound) in beyond]
        return [beyond[type(bound)](value_of(bound)) for bound in bounds] + wrong_values(arguments[0])
    if origin is Literal:
        return ["no such word", f" {arguments[0]}"]
    if origin is tuple:
        return [(wrong,) * (1 if Ellipsis in arguments else len(arguments)) for wrong in wrong_values(arguments[0])]
    if kind is int:
        return [1.5, math.nan, "3", True]
    if kind is float:
        return [math.nan, math.inf, -math.inf, "0.5", False]
    if kind is bool:
        return ["yes", 1]
    if arguments:
        return wrong_values(next(one for one in arguments if one is not type(None)))
    return []


def value_of(bound: Any) -> Any:
    """The number that a bound holds."""
    return getattr(bound, type(bound).__name__.lower())


def numbers_without_bounds(kind: Any) -> bool:
    """Whether a whole number has no least value."""
    if get_origin(kind) is Annotated:
        return get_args(kind)[0] is int and not any(isinstance(bound, Ge | Gt) for bound in get_args(kind)[1:])
    return kind is int or any(numbers_without_bounds(one) for one in get_args(kind) if get_origin(kind) is not Literal)


CLASSES = option_classes()


def test_all_options_are_found() -> None:
    names = {kind.__name__ for kind in CLASSES}
    assert {"TrainOptions", "GenerationOptions", "RetrieverOptions", "PhantomOptions", "ServeOptions", "Command"} <= names
    assert len(names) == len(CLASSES) > 20


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_refuses_what_its_type_does_not_allow(kind: type) -> None:
    given = {field.name: Path(field.name) for field in fields(kind) if field.default is field.default_factory is MISSING}
    given |= {"study": "table2"} if kind.__name__ == "ExperimentOptions" else {}
    kind(**given)
    for name, field_type in types_of(kind).items():
        assert not numbers_without_bounds(field_type), name
        for wrong in wrong_values(field_type):
            with pytest.raises(DataError) as refused:
                kind(**{**given, name: wrong})
            text = str(refused.value)
            shown = name.replace("_", "-") if text.startswith("--") else name
            assert f"{shown}: expected " in text, text
            assert f"got {wrong!r}" in text, text


@pytest.mark.parametrize("kind", [DiffRGenConfig, DualEncoderConfig])
def test_configurations_refuse_what_their_types_do_not_allow(kind: type) -> None:
    types = {name: one for name, one in types_of(kind.__init__).items() if wrong_values(one)}
    layouts = {"encoder": encoder_config("tiny")} if kind is DiffRGenConfig else {"image_config": encoder_config("tiny")}
    refusals = 0
    for name, field_type in types.items():
        assert not numbers_without_bounds(field_type), name
        # Tuples of tuples: the rows are checked by hand below.
        for wrong in () if name == "prior_prompt_token_ids" else wrong_values(field_type):
            with pytest.raises(ValueError, match=f"{name}: expected .* got "):
                kind(**layouts, **{name: wrong})
            refusals += 1
    assert refusals > 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"routing": "straight-through"}, "routing: expected one of soft, straight_through, got 'straight-through'"),
        ({"retrieved": "token"}, "retrieved: expected one of embeddings, tokens, got 'token'"),
        ({"masking": "exclusiv"}, "masking: expected one of multiplicative, exclusive, got 'exclusiv'"),
        ({"operator_backend": "cuda"}, "operator_backend: expected one of auto, reference, triton, native, got 'cuda'"),
        ({"difference_norm": "group"}, "difference_norm: expected one of batch, layer, none, got 'group'"),
        ({"difference_metrics": ("l2", "l3")}, "each one of l2, cosine, dot, got"),
        ({"prompt_token_ids": (1, 2, 3)}, "prompt_token_ids: expected 4 values"),
        ({"prior_prompt_token_ids": ((-1,),)}, "prior_prompt_token_ids: expected"),
        ({"width": 100, "heads": 8}, "expected width to be a multiple of heads, got 100 and 8"),
        ({"width": 1024, "heads": 2}, "expected heads of a width of at most 256, got 512"),
    ],
)
def test_the_network_refuses_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        DiffRGenConfig(encoder=encoder_config("tiny"), **changes)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--generation.beams", "0"], "--generation.beams: expected a whole number of at least 1 or none, got 0"),
        (["--optimiser.batch-size", "0"], "--optimiser.batch-size: expected a whole number of at least 1, got 0"),
        (["--model.heads", "3"], "expected width to be a multiple of heads, got 128 and 3"),
        (["--text.max-tokens", "0"], "--text.max-tokens: expected a whole number of at least 2, got 0"),
        (["--optimiser.learning-rate", "-1"], "--optimiser.learning-rate: expected a number above 0, got -1.0"),
        (["--optimiser.learning-rate", "nan"], "--optimiser.learning-rate: expected a number above 0, got nan"),
        (["--model.masks-per-layer", "2", "0"], "--model.masks-per-layer: expected a tuple, each a whole number"),
        (["--image.size", "300"], "--image.size: expected at most the 120 pixels of --image.resize, got 300"),
        (["--model.finding-queries", "--model.masks-per-layer"], "--model.finding-queries: expected layers of the"),
        (["--workers", "-1"], "--workers: expected a whole number of at least 0, got -1"),
    ],
)
def test_training_refuses_before_any_work(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(lambda: train.main(["--output", str(tmp_path / "run"), *arguments])) == 2
    assert named in one_line(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        (evaluate, ["RUN", "--resamples", "-1"], "--resamples: expected a whole number of at least 0, got -1"),
        (generate, ["RUN", "x.png", "--generation.top-p", "2"], "expected a number above 0 and of at most 1 or none, got 2.0"),
        (serve, ["RUN", "--port", "70000"], "--port: expected a whole number of at least 0 and of at most 65535, got 70000"),
    ],
)
def test_other_commands_refuse_before_any_work(
    command: Any, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(lambda: command.main(arguments)) == 2
    assert named in one_line(capsys.readouterr().err)


def refused(main: Callable[[], int]) -> object:
    """The exit status of a command: tyro itself ends it, or an early tyro lets the error through to `run_command`."""
    try:
        return run_command(main)
    except SystemExit as left:
        return left.code


def one_line(text: str) -> str:
    """The words of a box that was drawn for a terminal."""
    return " ".join(text.replace("│", " ").replace("|", " ").split())


def test_a_type_says_what_it_takes() -> None:
    assert described(Count | None) == "a whole number of at least 1 or none"
    assert described(Share) == "a number of at least 0 and of at most 1"
    assert described(tuple[Share, ...]) == "a tuple, each a number of at least 0 and of at most 1"
    assert described(Literal["a", "b"]) == "one of a, b"
    assert allows(Count | None, None)
    assert allows(tuple[Share, Share], [0, 1.0])
    assert not allows(tuple[Share, Share], (0.5,))
    assert not allows(Literal[1], True)


def test_a_word_of_columns_is_refused() -> None:
    with pytest.raises(DataError, match="--sections: expected one of findings, impression, both or none, got 'all'"):
        ColumnOptions(sections="all")  # type: ignore[arg-type]
