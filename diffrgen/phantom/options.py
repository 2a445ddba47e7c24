"""The options of a phantom data set: its size, seed and difficulty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from diffrgen.ranges import Share, check_fields

# Version of the data set's contents: 2 since reports list findings in one order, 3 since records have an impression.
FORMAT_VERSION = 3


@dataclass(frozen=True, slots=True)
class PhantomOptions:
    """Options of a phantom data set; two data sets with equal options hold the same bytes.

    `studies` is their exact number, `follow_ups` the expected share of them that are a patient's later
    study. `size` is the side of the square images in pixels (64..1024). `contrast` scales how strongly
    findings change the image (1 is the default, smaller is harder), `noise` scales quantum noise and lung
    texture. `variety` is the share of all wordings that reports are written with (1 is all of them, smaller is easier to
    learn). DataError for a value outside its range.
    """

    studies: Annotated[int, Ge(3), Le(1_000_000)] = 2000
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    size: Annotated[int, Ge(64), Le(1024)] = 256
    follow_ups: Annotated[float, Ge(0), Le(0.5)] = 0.35
    contrast: Annotated[float, Ge(0.1), Le(3)] = 1.0
    noise: Annotated[float, Ge(0), Le(5)] = 1.0
    variety: Share = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
