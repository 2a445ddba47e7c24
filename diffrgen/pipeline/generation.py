"""How reports are decoded: the options, the published presets, and the arguments of transformers' `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Gt, Le

from diffrgen.errors import DataError
from diffrgen.ranges import Count, CountOrZero, Positive, check_fields

DecodingPreset = Literal["promptmrg-mimic", "promptmrg-iu"]


class TokenLimits(NamedTuple):
    """Fewest tokens of a report before its end token, and most tokens with it."""

    least: int
    most: int


# PromptMRG's release gives a minimum length of 100 (MIMIC-CXR) or 60 (IU X-Ray) that counts its 19 prompt tokens, and a
# maximum of 150 or 110 new tokens.
PRESETS: Mapping[DecodingPreset, TokenLimits] = MappingProxyType(
    {"promptmrg-mimic": TokenLimits(100 - 19, 150), "promptmrg-iu": TokenLimits(60 - 19, 110)}
)


@dataclass(frozen=True)
class GenerationOptions:
    """How reports are generated."""

    preset: DecodingPreset | None = None
    """Token limits of a published system: `promptmrg-mimic` (81 to 150 tokens) or `promptmrg-iu` (41 to 110). min-tokens
    and max-tokens, where given, take precedence."""
    beams: Count = 3
    """Beam width; 1: greedy search."""
    min_tokens: CountOrZero | None = None
    """Tokens of a report before the end token is allowed; default: the preset's, else 0."""
    max_tokens: Count | None = None
    """Most tokens of a report, the end token included; default: the preset's, else --text.max-tokens of the run."""
    length_penalty: float = 1.0
    """Exponent of the length that a beam's log-probability is divided by; above 0 longer reports win, below 0 shorter
    ones. Without effect for one beam."""
    no_repeat_ngram: CountOrZero = 0
    """No sequence of so many tokens occurs twice in a report; 0: no limit."""
    repetition_penalty: Positive = 1.0
    """Logits of tokens that the report already holds are divided by this (multiplied where negative); 1: no penalty."""
    sample: bool = False
    """Draw tokens at random, by --generation.temperature and --generation.top-p, instead of taking the most likely."""
    temperature: Positive = 1.0
    """Divides the logits before sampling; below 1 is more conservative. Requires --generation.sample."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Sample from the most likely tokens whose probabilities sum to this share. Requires --generation.sample."""
    seed: CountOrZero = 0
    """Of sampling. The same seed, batch size and order of studies give the same reports."""
    suppress_marks: bool = True
    """Never generate a de-identification mark (XXXX or ___); --generation.no-suppress-marks allows them."""
    batch_size: Count = 16
    """Studies decoded at once."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: the network's products in bfloat16; reports may differ from those in fp32 in a word."""

    def __post_init__(self) -> None:
        """Raise DataError for a value out of range, or an option of sampling without sampling."""
        check_fields(self, "--generation.")
        if self.limits.most is not None and self.limits.least >= self.limits.most:
            raise DataError(_no_room(self.limits.least, self.limits.most))
        if not self.sample and (self.temperature, self.top_p) != (1.0, 1.0):
            raise DataError(
                "--generation.temperature and --generation.top-p require --generation.sample, got no --generation.sample"
            )

    @property
    def limits(self) -> _Limits:
        """The limits given here or by the preset, as `TokenLimits`; the upper one is None where the run's applies."""
        least, most = (0, None) if self.preset is None else PRESETS[self.preset]
        return _Limits(
            least if self.min_tokens is None else self.min_tokens, most if self.max_tokens is None else self.max_tokens
        )

    def decoding(self, *, run_tokens: int, room: int) -> Decoding:
        """Return the decoding for a run.

        Args:
            run_tokens: the run's own limit, --text.max-tokens.
            room: tokens that the decoder has positions for after the prompt.

        Raises:
            DataError: the limits leave no report, or exceed the decoder's positions.
        """
        least, most = self.limits.least, self.limits.most or run_tokens
        if least >= most:
            raise DataError(_no_room(least, most))
        if most > room:
            raise DataError(
                f"--generation.max-tokens: expected at most {room}, the positions that this run's decoder has after the "
                f"prompt, got {most}"
            )
        return Decoding(
            beams=self.beams,
            min_tokens=least,
            max_tokens=most,
            length_penalty=self.length_penalty,
            no_repeat_ngram=self.no_repeat_ngram,
            repetition_penalty=self.repetition_penalty,
            sample=self.sample,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            suppress_marks=self.suppress_marks,
            precision=self.precision,
            preset=self.preset,
        )


class _Limits(NamedTuple):
    least: int
    most: int | None


def _no_room(least: int, most: int) -> str:
    return (
        f"--generation.min-tokens: expected fewer than the {most} tokens of --generation.max-tokens, which counts the end "
        f"token, got {least}"
    )


@dataclass(frozen=True)
class Decoding:
    """The decoding that reports were generated with; fields as in `GenerationOptions`, every value resolved."""

    beams: int
    min_tokens: int
    max_tokens: int
    length_penalty: float
    no_repeat_ngram: int
    repetition_penalty: float
    sample: bool
    temperature: float
    top_p: float
    seed: int
    suppress_marks: bool
    precision: Literal["fp32", "bf16"]
    preset: DecodingPreset | None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `GenerationMixin.generate`, without what suppresses marks, which needs the tokenizer."""
        arguments: dict[str, Any] = {
            "num_beams": self.beams,
            "min_new_tokens": self.min_tokens,
            "max_new_tokens": self.max_tokens,
            "no_repeat_ngram_size": self.no_repeat_ngram,
            "repetition_penalty": self.repetition_penalty,
            "do_sample": self.sample,
        }
        if self.beams > 1:
            arguments["length_penalty"] = self.length_penalty
        if self.sample:
            # top_k 0: no limit, where transformers' default is 50.
            arguments |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return arguments

    def __str__(self) -> str:
        """Return the decoding in words, as the model card prints it."""
        words = [f"beam {self.beams}", f"{self.min_tokens} to {self.max_tokens} tokens"]
        if self.preset is not None:
            words.append(f"preset {self.preset}")
        if self.sample:
            words.append(f"sampled at temperature {self.temperature:g} and top-p {self.top_p:g}, seed {self.seed}")
        for name in ("length_penalty", "repetition_penalty"):
            if getattr(self, name) != 1:
                words.append(f"{name.replace('_', ' ')} {getattr(self, name):g}")
        if self.no_repeat_ngram:
            words.append(f"no {self.no_repeat_ngram}-gram twice")
        words.append("de-identification marks " + ("suppressed" if self.suppress_marks else "allowed"))
        return ", ".join(words)
