"""Decoding options: ranges, presets, minimum length, marks, sampling, and what evaluation records of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_network import FINDINGS, random_batch, tiny_network

from diffrgen import evaluate as evaluate_command
from diffrgen import train as train_command
from diffrgen.errors import DataError
from diffrgen.evaluation.result import MARKS_ROW, MODEL_ROW, SHUFFLED_ROW
from diffrgen.model import StudyInputs
from diffrgen.pipeline.generation import GenerationOptions
from diffrgen.reporting.reporter import Reporter
from diffrgen.text import train_tokenizer
from diffrgen.text.marks import MarkSuppressor, mark_tokens

END = 2
NETWORK, BATCH = tiny_network(), random_batch(size=3)
INPUTS = StudyInputs.of(BATCH)


@contextmanager
def liking_the_end() -> Iterator[None]:
    """Make the end token the most likely one everywhere, so that only a minimum holds it back."""

    def add(_: torch.nn.Module, __: Any, output: Any) -> None:
        output.logits[..., END] += 50

    hook = NETWORK.decoder.register_forward_hook(add)
    yield
    hook.remove()


def generate(options: GenerationOptions, **more: Any) -> torch.Tensor:
    arguments = options.decoding(run_tokens=12, room=49).arguments()
    torch.manual_seed(options.seed)
    return NETWORK.generate(INPUTS, **arguments, **more)


def written_before_the_end(row: torch.Tensor) -> int:
    """Tokens before the first end token of a generated row."""
    ends = (row == END).nonzero()
    return int(ends[0]) if len(ends) else len(row)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    beams=st.integers(1, 4),
    least=st.integers(0, 11),
    more=st.integers(1, 6),
    length_penalty=st.sampled_from([-1.0, 1.0]),
)
def test_no_report_ends_before_the_minimum(beams: int, least: int, more: int, length_penalty: float) -> None:
    options = GenerationOptions(beams=beams, min_tokens=least, max_tokens=least + more, length_penalty=length_penalty)
    with liking_the_end():
        rows = generate(options)
    # Beam search may prefer a longer report of another beam; greedy search ends as soon as it may.
    for row in rows:
        assert least <= written_before_the_end(row) <= least + more
    if beams == 1:
        assert {written_before_the_end(row) for row in rows} == {least}


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    beams=st.integers(1, 4),
    least=st.integers(0, 9),
    length_penalty=st.sampled_from([0.0, 0.7, 2.0]),
    ngram=st.integers(0, 3),
    penalty=st.sampled_from([1.0, 1.3]),
    sample=st.booleans(),
)
def test_cached_and_plain_decoding_agree(
    beams: int, least: int, length_penalty: float, ngram: int, penalty: float, sample: bool
) -> None:
    options = GenerationOptions(
        beams=beams,
        min_tokens=least,
        length_penalty=length_penalty,
        no_repeat_ngram=ngram,
        repetition_penalty=penalty,
        sample=sample,
        temperature=0.8 if sample else 1.0,
        top_p=0.9 if sample else 1.0,
        seed=3,
    )
    assert torch.equal(generate(options), generate(options, use_cache=False))


def test_no_ngram_comes_twice() -> None:
    for row in generate(GenerationOptions(beams=2, no_repeat_ngram=2, max_tokens=30)):
        words = row[: written_before_the_end(row)].tolist()
        pairs = list(pairwise(words))
        assert len(pairs) == len(set(pairs))


def test_sampling_follows_its_seed_and_top_p() -> None:
    drawn = [generate(GenerationOptions(beams=1, sample=True, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0][:, :5], drawn[2][:, :5])
    # Of a share that one token has alone, the most likely one is left: greedy search.
    narrow = generate(GenerationOptions(beams=1, sample=True, top_p=1e-6))
    assert torch.equal(narrow, generate(GenerationOptions(beams=1)))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"beams": 0}, "beams: expected a whole number of at least 1 or none, got 0"),
        ({"batch_size": 0}, "batch-size: expected a whole number of at least 1, got 0"),
        ({"min_tokens": -1}, "min-tokens: expected a whole number of at least 0 or none, got -1"),
        ({"max_tokens": 0}, "max-tokens: expected a whole number of at least 1 or none, got 0"),
        ({"min_tokens": 10, "max_tokens": 10}, "expected fewer than the 10 tokens"),
        ({"preset": "promptmrg-iu", "max_tokens": 41}, "expected fewer than the 41 tokens"),
        ({"preset": "r2gen"}, "preset: expected one of promptmrg-mimic, promptmrg-iu or none, got 'r2gen'"),
        ({"precision": "fp8"}, "precision: expected one of fp32, bf16, got 'fp8'"),
        ({"length_penalty": float("inf")}, "length-penalty: expected a finite number or none, got inf"),
        ({"no_repeat_ngram": -2}, "no-repeat-ngram: expected a whole number of at least 0 or none, got -2"),
        ({"repetition_penalty": 0.0}, "repetition-penalty: expected a number above 0 or none, got 0.0"),
        ({"candidates": 0}, "candidates: expected a whole number of at least 1 or none, got 0"),
        ({"guidance": -1.0}, "guidance: expected a number of at least 0 or none, got -1.0"),
        ({"agreement": float("nan")}, "agreement: expected a number of at least 0 or none, got nan"),
        ({"candidates": 1, "top_p": 0.5}, "require --generation.sample or --generation.candidates"),
        ({"sample": True, "temperature": 0.0}, "temperature: expected a number above 0 or none, got 0.0"),
        ({"sample": True, "temperature": float("nan")}, "temperature: expected a number above 0 or none, got nan"),
        ({"sample": True, "top_p": 0.0}, "top-p: expected a number above 0 and of at most 1 or none, got 0.0"),
        ({"sample": True, "top_p": 1.5}, "top-p: expected a number above 0 and of at most 1 or none, got 1.5"),
        ({"sample": True, "seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"temperature": 0.5}, "require --generation.sample"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match="--generation") as refused:
        GenerationOptions(**changes)
    assert named in str(refused.value)


def test_command_refuses_a_wrong_option_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["--output", str(tmp_path / "run")], ["--output", str(tmp_path / "run"), "--preset", "paper"]):
        with pytest.raises(SystemExit) as left:
            train_command.main([*command, "--generation.beams", "0"])
        assert left.value.code == 2
        assert "--generation.beams: expected a whole number" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_training_refuses_limits_that_its_reports_cannot_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The preset iu writes at least 30 tokens; reports of 24 at most leave no room for them."""
    command = ["--preset", "iu", "--output", str(tmp_path / "run"), "--text.max-tokens", "24"]
    with pytest.raises(SystemExit) as left:
        train_command.main(command)
    assert left.value.code == 2
    assert "expected fewer than the 24 tokens" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("preset", "least", "most"), [("promptmrg-mimic", 81, 150), ("promptmrg-iu", 41, 110)])
def test_presets_are_promptmrgs(preset: Any, least: int, most: int) -> None:
    decoding = GenerationOptions(preset=preset).decoding(run_tokens=60, room=500)
    assert (decoding.min_tokens, decoding.max_tokens, decoding.beams) == (least, most, 3)
    # A given limit takes precedence.
    assert GenerationOptions(preset=preset, min_tokens=5).decoding(run_tokens=60, room=500).min_tokens == 5
    with pytest.raises(DataError, match=f"at most 109, the positions .* got {most}"):
        GenerationOptions(preset=preset).decoding(run_tokens=60, room=109)


def test_limits_of_the_run_hold_where_none_is_given() -> None:
    assert GenerationOptions().decoding(run_tokens=60, room=100).max_tokens == 60
    with pytest.raises(DataError, match="expected fewer than the 60 tokens"):
        GenerationOptions(min_tokens=60).decoding(run_tokens=60, room=100)


def spelled(pieces: tuple[str, ...]) -> str:
    """The text of word pieces, as BERT joins them."""
    return "".join(piece[2:] if piece.startswith("##") else f" {piece}" for piece in pieces)


def test_no_spelling_of_a_mark_is_left_and_nothing_else_is_taken() -> None:
    """All sequences of four pieces: a piece is forbidden just where the text would hold a mark with it."""
    tokenizer = train_tokenizer(["xxxx year old x-ray xx xxx axx a_ ___"], vocab_size=400, min_frequency=1)
    pieces = ("x", "##x", "xx", "##xx", "xxx", "##xxx", "xxxx", "##xxxx", "a", "##a", "_", "axx", "##-")
    pieces = [piece for piece in pieces if piece in tokenizer.get_vocab()]
    assert {"x", "##x", "xx", "##xx", "a", "##a", "_"} <= set(pieces)
    ids = tokenizer.convert_tokens_to_ids(pieces)
    suppressor = MarkSuppressor(tokenizer)
    start = tokenizer.cls_token_id
    histories = [h for n in range(4) for h in product(pieces, repeat=n)]
    for history in histories:
        text = spelled(history)
        if "xxxx" in text or "_" in text:
            continue
        tokens = torch.tensor([[start, *tokenizer.convert_tokens_to_ids(list(history))]])
        scores = suppressor(tokens, torch.zeros(1, len(tokenizer)))[0, ids]
        for piece, score in zip(pieces, scores.tolist(), strict=True):
            after = spelled((*history, piece))
            assert (score == 0) == ("xxxx" not in after and "_" not in after), (history, piece)


def test_special_tokens_and_a_wider_vocabulary_are_left_alone() -> None:
    tokenizer = train_tokenizer(["xxxx lungs"], min_frequency=1)
    scores = torch.randn(2, len(tokenizer) + 3)
    kept = MarkSuppressor(tokenizer)(torch.tensor([[1, 2], [3, 4]]), scores)
    forbidden = {word for word, token in tokenizer.get_vocab().items() if kept[0, token] == float("-inf")}
    assert forbidden == {word for word in tokenizer.get_vocab() if "xxxx" in word.lower()}
    finite = kept > float("-inf")
    assert torch.equal(kept[finite], scores[finite])
    assert finite[:, len(tokenizer) :].all()
    marks = {word for word, token in tokenizer.get_vocab().items() if token in mark_tokens(tokenizer)}
    assert marks == forbidden


@pytest.mark.usefixtures("no_java_once")
def test_evaluation_records_how_it_decoded(own_run: Path, tmp_path: Path) -> None:
    command = [str(own_run), "--split", "val", "--both-marks", "--shuffled-images", "--resamples", "0"]
    options = ["--generation.beams", "2", "--generation.min-tokens", "3", "--generation.no-repeat-ngram", "3"]
    options += ["--generation.guidance", "1.5", "--generation.candidates", "2"]
    assert evaluate_command.main([*command, *options]) == 0
    folder = own_run / "evaluation" / "val-2"
    metrics = json.loads((folder / "metrics.json").read_text())
    decoding = metrics[MODEL_ROW]["decoding"]
    assert (decoding["beams"], decoding["min_tokens"], decoding["max_tokens"]) == (2, 3, 12)
    assert (decoding["guidance"], decoding["candidates"], decoding["agreement"]) == (1.5, 2, 1.0)
    assert metrics[SHUFFLED_ROW]["decoding"] == decoding
    assert metrics[MARKS_ROW]["decoding"] == decoding | {"suppress_marks": False}
    assert "decoding" not in metrics["blind: most frequent report"]
    assert json.loads((folder / "evaluation.json").read_text())["decoding"] == decoding
    card = (own_run / "README.md").read_text()
    assert "beam 2, 3 to 12 tokens, guidance 1.5, the best of 2 candidates at agreement 1, sampled at temperature 1" in card
    assert "no 3-gram twice, de-identification marks suppressed" in card


def test_reporter_samples_by_seed_and_refuses_limits_that_the_run_lacks(tiny_run: Path) -> None:
    reporter, images = Reporter(tiny_run), [tiny_run.parent / "studies" / f"{number}.png" for number in range(3)]

    def reports(**changes: Any) -> list[str]:
        options = GenerationOptions(**{"beams": 1, "batch_size": 2, "sample": True, **changes})
        return [written.report for written in reporter.write(images, options)]

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = reports(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == reports(seed=1)
    assert first != reports(seed=2)
    room = reporter.model.config.decoder.max_position_embeddings - 1 - FINDINGS
    with pytest.raises(DataError, match=f"expected at most {room}"):
        reports(max_tokens=room + 1)
    with pytest.warns(UserWarning, match=f"up to {room} tokens were requested, but this run was trained on at most 12"):
        assert len(reports(max_tokens=room, min_tokens=room - 1)) == 3


def test_training_makes_room_for_longer_reports(tmp_path: Path) -> None:
    from diffrgen.training.build import decoder_config

    tokenizer = train_tokenizer(["no effusion"], min_frequency=1)
    options = train_command.parse_options(["--generation.preset", "promptmrg-mimic"])
    longest = max(options.text.max_tokens, options.generation.limits.most or 0)
    config = decoder_config("tiny", tokenizer, positions=15 + longest, dropout=0.0)
    assert config.max_position_embeddings == 165
