"""What a phantom data set is made of: its size, seed and difficulty."""

from __future__ import annotations

from dataclasses import dataclass

# Of what options mean: 2 since reports tell findings in one order.
FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class PhantomOptions:
    """Options of a phantom data set; two data sets with equal options hold the same bytes.

    `studies` is their exact number, `follow_ups` the expected share of them that are a patient's later
    study. `size` is the side of the square images in pixels (64..1024). `contrast` scales how strongly
    findings change the film (1 is the default, smaller is harder), `noise` scales quantum noise and lung
    texture. `variety` is the share of all wordings that reports are written with (1 is all of them, smaller is easier to
    learn). ValueError for a value outside its range.
    """

    studies: int = 2000
    seed: int = 0
    size: int = 256
    follow_ups: float = 0.35
    contrast: float = 1.0
    noise: float = 1.0
    variety: float = 1.0

    def __post_init__(self) -> None:
        _require("studies", self.studies, 3, 1_000_000)
        _require("seed", self.seed, 0, 2**63 - 1)
        _require("size", self.size, 64, 1024)
        _require("follow_ups", self.follow_ups, 0.0, 0.5)
        _require("contrast", self.contrast, 0.1, 3.0)
        _require("noise", self.noise, 0.0, 5.0)
        _require("variety", self.variety, 0.0, 1.0)


def _require(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"PhantomOptions.{name} must lie between {low} and {high}, got {value}")
