"""Bounds of option values: a type contains the bounds, which are checked here before any work.

    @dataclass(frozen=True)
    class Options:
        beams: Count = 3                                   # a whole number of at least 1
        top_p: Annotated[float, Gt(0), Le(1)] = 1.0        # any other bounds
        precision: Literal["fp32", "bf16"] = "fp32"        # a word of a list

        def __post_init__(self) -> None:
            check_fields(self, "--generation.")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from diffrgen.errors import DataError

Count = Annotated[int, Ge(1)]
CountOrZero = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # of NumPy, the narrowest of the generators
Positive = Annotated[float, Gt(0)]
PositiveOrZero = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]

BOUNDS: Mapping[type, tuple[str, Callable[[Any, Any], bool], str]] = MappingProxyType(
    {
        Gt: ("gt", lambda value, bound: value > bound, "above {}"),
        Ge: ("ge", lambda value, bound: value >= bound, "of at least {}"),
        Lt: ("lt", lambda value, bound: value < bound, "below {}"),
        Le: ("le", lambda value, bound: value <= bound, "of at most {}"),
    }
)


def check_fields(options: Any, prefix: str = "") -> None:
    """Raise DataError if a number of the dataclass `options` is out of its range, or a word is none of its type's.

    Floats must be finite. The message names the field behind `prefix`, as the command line spells it where that is
    dashes ("--model."), with the value that was expected and the one that came.
    """
    types = types_of(options.__class__)
    check_values({name: getattr(options, name) for name in types}, types, prefix)


def check_values(values: Mapping[str, object], types: Mapping[str, Any], prefix: str = "") -> None:
    """Raise DataError as `check_fields` for the first of `values` that its entry in `types` does not allow."""
    for name, kind in types.items():
        if not allows(kind, values[name]):
            raise DataError(f"{spelled(prefix, name)}: expected {described(kind)}, got {values[name]!r}")


def spelled(prefix: str, name: str) -> str:
    """Return the field `name` behind `prefix`, as the command line spells it where `prefix` is that of an option."""
    return prefix + (name.replace("_", "-") if prefix.startswith("--") else name)


@lru_cache
def types_of(what: Callable[..., Any]) -> Mapping[str, Any]:
    """The types of a dataclass's fields, or of a function's arguments, with their bounds."""
    hints = get_type_hints(what, include_extras=True)
    hints.pop("return", None)
    return MappingProxyType(hints)


def allows(kind: Any, value: object) -> bool:
    """Return whether a field of the type `kind` may hold `value`; of types other than numbers, booleans, words of a
    list and their tuples, everything is allowed.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return allows(arguments[0], value) and all(_within(bound, value) for bound in arguments[1:])
    if origin is Literal:
        return value in arguments and type(value) in map(type, arguments)
    if origin in (Union, UnionType):
        return any(allows(one, value) for one in arguments)
    if origin is tuple:
        return _allows_tuple(arguments, value)
    if kind is NoneType:
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    # Any value but None is accepted as a text or path.
    return value is not None


def described(kind: Any) -> str:
    """The values that `allows` accepts for `kind`, as text for an error message."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = [words.format(getattr(bound, name)) for bound, (name, _, words) in _bounds(arguments[1:])]
        finite = not bounds or arguments[0] is not float
        return f"{described(arguments[0]) if finite else 'a number'} {' and '.join(bounds)}".rstrip()
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(map(described, arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a tuple, each {described(arguments[0])}"
        return f"{len(arguments)} values, {', '.join(map(described, arguments))}"
    words = {NoneType: "none", bool: "True or False", int: "a whole number", float: "a finite number"}
    words |= {str: "text", Path: "a path"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _bounds(metadata: tuple[Any, ...]) -> list[tuple[Any, tuple[str, Callable[[Any, Any], bool], str]]]:
    """The bounds among what `Annotated` holds, each with its row of `BOUNDS`."""
    return [(one, BOUNDS[type(one)]) for one in metadata if type(one) in BOUNDS]


def _within(bound: object, value: object) -> bool:
    return all(holds(value, getattr(one, name)) for one, (name, holds, _) in _bounds((bound,)))


def _allows_tuple(arguments: tuple[Any, ...], value: object) -> bool:
    if not isinstance(value, tuple | list):
        return False
    kinds = arguments[:1] * len(value) if arguments[-1:] == (Ellipsis,) else arguments
    return len(kinds) == len(value) and all(allows(kind, one) for kind, one in zip(kinds, value, strict=True))
