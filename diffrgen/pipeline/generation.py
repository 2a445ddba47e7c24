"""Decoding of reports: the options, the published presets, and the arguments of transformers' `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Gt, Le

from diffrgen.errors import DataError
from diffrgen.ranges import Count, CountOrZero, Positive, PositiveOrZero, check_fields

DecodingPreset = Literal["promptmrg-mimic", "promptmrg-iu"]


class TokenLimits(NamedTuple):
    """Minimum number of tokens of a report before its end token, and maximum number including it."""

    least: int
    most: int


# PromptMRG's release gives a minimum length of 100 (MIMIC-CXR) or 60 (IU X-Ray) that counts its 19 prompt tokens, and a
# maximum of 150 or 110 new tokens.
PRESETS: Mapping[DecodingPreset, TokenLimits] = MappingProxyType(
    {"promptmrg-mimic": TokenLimits(100 - 19, 150), "promptmrg-iu": TokenLimits(60 - 19, 110)}
)


# Defaults if neither the options nor the run's decoding set a value.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "beams": 3,
        "length_penalty": 1.0,
        "no_repeat_ngram": 0,
        "repetition_penalty": 1.0,
        "guidance": 1.0,
        "candidates": 1,
        "agreement": 1.0,
        "temperature": 1.0,
        "top_p": 1.0,
    }
)


@dataclass(frozen=True)
class GenerationOptions:
    """How reports are generated; None selects the value of the training, else the default."""

    preset: DecodingPreset | None = None
    """Token limits of a published system: `promptmrg-mimic` (81 to 150 tokens) or `promptmrg-iu` (41 to 110). If given,
    min-tokens and max-tokens take precedence."""
    beams: Count | None = None
    """Beam width; 1: greedy search. Default: the run's, else 3."""
    min_tokens: CountOrZero | None = None
    """Minimum number of tokens before the end token; default: the preset's, the run's, else 0."""
    max_tokens: Count | None = None
    """Maximum number of tokens of a report, including the end token; default: the preset's, the run's, else its
    --text.max-tokens."""
    length_penalty: float | None = None
    """A beam's log-probability is divided by its length to this power: values above 0 favour longer reports, below 0
    shorter ones. No effect with one beam. Default: the run's, else 1."""
    no_repeat_ngram: CountOrZero | None = None
    """No sequence of this many tokens occurs twice in a report; 0: no limit. Default: the run's, else 0."""
    repetition_penalty: Positive | None = None
    """Logits of tokens already in the report are divided by this value (multiplied if negative); 1: no penalty.
    Default: the run's, else 1."""
    guidance: PositiveOrZero | None = None
    """Guidance scale: factor of the change in logits due to the prompt's positive findings; 1: no guidance. With
    candidates, applies only to sampled reports. Default: the run's, else 1."""
    candidates: Count | None = None
    """Candidate reports for a study whose report disagrees with its prompt according to the labeler: this report and
    sampled ones. The candidate with the highest mean token log-probability minus --generation.agreement times its
    disagreements is selected. 1: no candidates. Default: the run's, else 1."""
    agreement: PositiveOrZero | None = None
    """Penalty for each finding on which a candidate disagrees with its prompt, in nats per token. No effect with one
    candidate. Default: the run's, else 1."""
    sample: bool = False
    """Sample tokens with --generation.temperature and --generation.top-p instead of taking the most probable token."""
    temperature: Positive | None = None
    """Divides the logits before sampling; below 1 is more conservative. Requires --generation.sample or candidates. Default:
    the run's, else 1."""
    top_p: Annotated[float, Gt(0), Le(1)] | None = None
    """Sample from the most likely tokens whose probabilities sum to this share. Requires --generation.sample or candidates.
    Default: the run's, else 1."""
    seed: CountOrZero = 0
    """Seed of sampling. The same seed, batch size and order of studies give the same reports."""
    suppress_marks: bool = True
    """Never generate a de-identification mark (XXXX or ___); --generation.no-suppress-marks allows them."""
    batch_size: Count = 16
    """Studies decoded at once."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products in bfloat16; reports may differ from those in fp32 by a word."""

    def __post_init__(self) -> None:
        """Raise DataError for a value out of range, or an option of sampling without sampling."""
        check_fields(self, "--generation.")
        if self.limits.most is not None and self.limits.least >= self.limits.most:
            raise DataError(_no_room(self.limits.least, self.limits.most))
        if not (self.sample or (self.candidates or 1) > 1) and {self.temperature, self.top_p} - {None, 1.0}:
            raise DataError(
                "--generation.temperature and --generation.top-p require --generation.sample or --generation.candidates of at "
                "least 2, got neither"
            )

    @property
    def limits(self) -> _Limits:
        """The limits given here or by the preset, as `TokenLimits`; the upper one is None if the run's applies."""
        least, most = (0, None) if self.preset is None else PRESETS[self.preset]
        return _Limits(
            least if self.min_tokens is None else self.min_tokens, most if self.max_tokens is None else self.max_tokens
        )

    def token_limits(self, run_tokens: int) -> TokenLimits:
        """Return the limits for a run of --text.max-tokens `run_tokens`; DataError if they leave no report."""
        least, most = self.limits.least, self.limits.most or run_tokens
        if least >= most:
            raise DataError(_no_room(least, most))
        return TokenLimits(least, most)

    def over(self, own: GenerationOptions | None) -> GenerationOptions:
        """Return these options, with what they leave open taken from a run's own; None: the run has none.

        A preset is a published system's decoding, and nothing of the run's joins it. Token limits are taken together: those of
        the run apply where none is given here. Whether tokens are sampled, the seed, the batch size, the precision and the
        marks are never taken from the run.
        """
        if own is None or self.preset is not None:
            return self
        taken = {name: getattr(own, name) for name in DEFAULTS if getattr(self, name) is None}
        if self.min_tokens is None and self.max_tokens is None:
            taken |= {"preset": own.preset, "min_tokens": own.min_tokens, "max_tokens": own.max_tokens}
        if (self.candidates or own.candidates or 1) == 1 and not self.sample:
            taken |= {"temperature": None, "top_p": None}
        return replace(self, **taken)

    def decoding(self, *, run_tokens: int, room: int) -> Decoding:
        """Return the decoding for a run.

        Args:
            run_tokens: the run's own limit, --text.max-tokens.
            room: tokens that the decoder has positions for after the prompt.

        Raises:
            DataError: the limits leave no report, or exceed the decoder's positions.
        """
        least, most = self.token_limits(run_tokens)
        if most > room:
            raise DataError(
                f"--generation.max-tokens: expected at most {room}, the positions that this run's decoder has after the "
                f"prompt, got {most}"
            )
        given = {name: getattr(self, name) for name in DEFAULTS}
        return Decoding(
            min_tokens=least,
            max_tokens=most,
            sample=self.sample,
            seed=self.seed,
            suppress_marks=self.suppress_marks,
            precision=self.precision,
            preset=self.preset,
            **{name: DEFAULTS[name] if value is None else value for name, value in given.items()},
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
    # Fields since 0.2; earlier records lack them.
    guidance: float = 1.0
    candidates: int = 1
    agreement: float = 1.0

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
        if self.guidance != 1:
            arguments["guidance"] = self.guidance
        return arguments | self.sampling() if self.sample else arguments

    def sampling(self) -> dict[str, Any]:
        """Return the arguments by which tokens are drawn at random."""
        # top_k 0: no limit, where transformers' default is 50.
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}

    def __str__(self) -> str:
        """Return the decoding as text for the model card."""
        words = [f"beam {self.beams}", f"{self.min_tokens} to {self.max_tokens} tokens"]
        if self.preset is not None:
            words.append(f"preset {self.preset}")
        if self.guidance != 1:
            words.append(f"guidance {self.guidance:g}")
        if self.candidates > 1:
            words.append(f"the best of {self.candidates} candidates at agreement {self.agreement:g}")
        if self.sample or self.candidates > 1:
            words.append(f"sampled at temperature {self.temperature:g} and top-p {self.top_p:g}, seed {self.seed}")
        for name in ("length_penalty", "repetition_penalty"):
            if getattr(self, name) != 1:
                words.append(f"{name.replace('_', ' ')} {getattr(self, name):g}")
        if self.no_repeat_ngram:
            words.append(f"no {self.no_repeat_ngram}-gram twice")
        words.append("de-identification marks " + ("suppressed" if self.suppress_marks else "allowed"))
        return ", ".join(words)
