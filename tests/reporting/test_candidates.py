"""Candidate reports: disagreements by hand, the choice against each candidate's own loss, and the doors that offer it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_network import VOCABULARY, random_batch, tiny_network

from diffrgen.labels import FINDINGS, Labeler, RuleLabeler, State
from diffrgen.model import StudyInputs
from diffrgen.pipeline.generation import GenerationOptions
from diffrgen.reporting.candidates import agreeing_candidates, disagreements
from diffrgen.reporting.reporter import Reporter
from diffrgen.reporting.writer import GeneratedReport
from diffrgen.text import train_tokenizer

BLANK, POSITIVE, NEGATIVE, UNCERTAIN = State
NETWORK, BATCH = tiny_network(prompt_thresholds=(0.1,) * len(FINDINGS)), random_batch(size=3)
INPUTS = StudyInputs.of(BATCH)
TOKENIZER = train_tokenizer([" ".join(f"w{number}" for number in range(VOCABULARY))], vocab_size=200, min_frequency=1)


def states(*numbers: int) -> list[int]:
    return [*numbers, *[BLANK] * (len(FINDINGS) - len(numbers))]


@pytest.mark.parametrize(
    ("prompt", "said", "count"),
    [
        ([POSITIVE, POSITIVE, NEGATIVE], [POSITIVE, POSITIVE, BLANK], 0),
        ([POSITIVE, POSITIVE, NEGATIVE], [POSITIVE, BLANK, NEGATIVE], 1),
        ([POSITIVE, POSITIVE, NEGATIVE], [POSITIVE, UNCERTAIN, NEGATIVE], 1),
        ([POSITIVE, POSITIVE, NEGATIVE], [POSITIVE, NEGATIVE, NEGATIVE], 2),  # denied
        ([BLANK, NEGATIVE, UNCERTAIN], [POSITIVE, POSITIVE, POSITIVE], 2),  # a doubt may be settled
        ([BLANK] * 13 + [POSITIVE], [BLANK] * 13 + [BLANK], 0),  # "no finding" is none of the 13
    ],
)
def test_disagreements_by_hand(prompt: list[int], said: list[int], count: int) -> None:
    assert disagreements(np.array(states(*prompt)), np.array([states(*said)] * 2)).tolist() == [count] * 2


class CountingLabeler:
    """Says that a report has the finding whose number is the count of its words, and remembers what it read."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.calls.append(list(texts))
        said = np.zeros((len(texts), len(FINDINGS)), dtype=np.int64)
        said[range(len(texts)), [len(text.split()) % 13 for text in texts]] = POSITIVE
        return said


def write(labeler: Labeler | None, **options: Any) -> torch.Tensor:
    decoding = GenerationOptions(**{"beams": 1, **options}).decoding(run_tokens=8, room=40)
    arguments = decoding.arguments()
    if decoding.candidates > 1:
        arguments["candidates"] = agreeing_candidates(decoding, TOKENIZER, labeler)
    torch.manual_seed(decoding.seed)
    return NETWORK.write_reports(INPUTS, **arguments).sequences


@torch.no_grad()
@pytest.mark.parametrize(("agreement", "beams"), [(0.0, 1), (0.3, 2), (1000.0, 1)])
def test_choice_is_the_best_by_the_score_of_each_candidate(agreement: float, beams: int) -> None:
    labeler, drafts, guidances = CountingLabeler(), [], []
    decode = NETWORK.decode

    def watched(*arguments: Any, **more: Any) -> torch.Tensor:
        drafts.append(decode(*arguments, **more))
        guidances.append(more["guidance"])
        return drafts[-1]

    NETWORK.decode = watched
    try:
        chosen = write(labeler, candidates=5, agreement=agreement, beams=beams, temperature=1.5, guidance=2.0)
    finally:
        del NETWORK.decode
    first, drawn = drafts
    assert guidances == [1.0, 2.0]
    assert torch.equal(first, write(None, beams=beams))
    prompts = NETWORK.write_reports(INPUTS, num_beams=1, max_new_tokens=2).states
    differ = 0
    for row in range(3):
        candidates = [first[row], *drawn[4 * row : 4 * row + 4]]
        scores = []
        for place, tokens in enumerate(candidates):
            kept = tokens[tokens != 0]
            study = {name: tensor[row : row + 1] for name, tensor in BATCH.items()}
            loss = NETWORK(**{**study, "states": prompts[row : row + 1], "labels": kept[None]}).language_loss.item()
            text = labeler.calls[1][5 * row + place]
            said = CountingLabeler()([text])[0]
            wrong = sum(int(p == POSITIVE) != int(s == POSITIVE) for p, s in zip(prompts[row][:13], said, strict=False))
            doubted = sum(p == UNCERTAIN and s == POSITIVE for p, s in zip(prompts[row][:13], said, strict=False))
            scores.append(-loss - agreement * (wrong - doubted))
        best = int(np.argmax(scores))
        differ += best != 0
        assert chosen[row][chosen[row] != 0].tolist() == candidates[best][candidates[best] != 0].tolist()
    assert differ or agreement < 1000


def test_samples_are_drawn_only_for_reports_that_disagree() -> None:
    """The labeler agrees with the prompt of study 1 alone, whose report stays as it is; the samples are of studies 0 and 2."""
    prompts = NETWORK.write_reports(INPUTS, num_beams=1, max_new_tokens=2).states.numpy()
    reads: list[int] = []

    def labeler(texts: Sequence[str]) -> np.ndarray:
        reads.append(len(texts))
        said = np.zeros((len(texts), len(FINDINGS)), dtype=np.int64)
        if len(reads) == 1:
            said[1] = prompts[1]
        else:
            # Of each study's candidates only the last one agrees.
            said[3], said[7] = prompts[0], prompts[2]
        return said

    # The ordinary report is not guided, the samples are.
    first, chosen = write(None), write(labeler, candidates=4, agreement=1000.0, temperature=3.0, guidance=50.0)
    assert reads == [3, 8]
    assert torch.equal(chosen[1], first[1])
    assert not torch.equal(chosen[0], first[0])
    assert not torch.equal(chosen[2], first[2])
    # Where all agree, nothing is drawn.
    everyone = write(lambda texts: prompts[: len(texts)], candidates=4)
    assert torch.equal(everyone, first)


def test_samples_follow_the_seed_and_need_a_labeler() -> None:
    def reports(seed: int) -> list[list[int]]:
        return write(CountingLabeler(), candidates=4, agreement=1000.0, temperature=2.0, seed=seed).tolist()

    assert reports(1) == reports(1)
    assert any(reports(1) != reports(seed) for seed in range(2, 6))
    with pytest.raises(ValueError, match="expected a labeler that reads the 4 candidates of a study, got None"):
        write(None, candidates=4)


def test_reporter_drafts_candidates_and_one_candidate_changes_nothing(tiny_run: Path) -> None:
    reporter, images = Reporter(tiny_run), [tiny_run.parent / "studies" / f"{number}.png" for number in range(3)]

    def written(**changes: Any) -> list[GeneratedReport]:
        return list(reporter.write(images, GenerationOptions(**{"beams": 1, "batch_size": 2, **changes})))

    def wrong(reports: list[GeneratedReport]) -> np.ndarray:
        said = RuleLabeler()([each.report for each in reports])
        return disagreements(np.array([each.prompt for each in reports]), said)

    ordinary = written()
    assert written(candidates=1, guidance=1.0, agreement=5.0) == ordinary
    before = torch.get_rng_state()
    chosen = written(candidates=6, agreement=1000.0, temperature=2.0, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert chosen == written(candidates=6, agreement=1000.0, temperature=2.0, seed=1)
    assert (wrong(chosen) <= wrong(ordinary)).all()


def test_run_decodes_as_it_was_trained_to_unless_asked() -> None:
    own = GenerationOptions(beams=1, candidates=8, temperature=0.7, guidance=2.0, min_tokens=5, sample=False, batch_size=32)
    merged = GenerationOptions(seed=3).over(own)
    assert (merged.beams, merged.candidates, merged.temperature, merged.guidance) == (1, 8, 0.7, 2.0)
    assert (merged.min_tokens, merged.seed, merged.batch_size) == (5, 3, 16)
    asked = GenerationOptions(beams=2, candidates=1, max_tokens=9).over(own)
    # Without candidates nothing is drawn, and limits are taken together.
    assert (asked.beams, asked.candidates, asked.temperature, asked.guidance) == (2, 1, None, 2.0)
    assert (asked.min_tokens, asked.max_tokens) == (None, 9)
    # A published system's decoding is taken as it is.
    assert GenerationOptions(preset="promptmrg-iu").over(own) == GenerationOptions(preset="promptmrg-iu")
    assert GenerationOptions().over(GenerationOptions(preset="promptmrg-iu")).limits == (41, 110)
    assert GenerationOptions().over(None) == GenerationOptions()
    decoding = GenerationOptions().decoding(run_tokens=60, room=100)
    assert (decoding.beams, decoding.guidance, decoding.candidates) == (3, 1.0, 1)
