"""What explains a report: sentences, differences and routes by hand, and all of it for a run's own reports."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.explanation import Explainer
from diffrgen.explanation.differences import compare_neighbours, compare_prior, neighbour_metrics, rank_words
from diffrgen.explanation.routes import layer_routes
from diffrgen.explanation.sentences import mark_shared
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.reporter import Reporter
from diffrgen.text import clean_report, report_sentences, token_spans, train_tokenizer

OPTIONS = GenerationOptions(beams=2, batch_size=2)


def spans_of(text: str) -> list[str]:
    tokenizer = train_tokenizer([text], min_frequency=1)
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.sep_token_id, tokenizer.pad_token_id]
    return [tokenizer.decode(ids[start:end]) for start, end in token_spans(tokenizer, ids)]


def test_sentences_are_cut_after_their_stops():
    assert spans_of("no effusion . the heart is normal .") == ["no effusion .", "the heart is normal ."]
    assert spans_of("no effusion . the heart is") == ["no effusion .", "the heart is"]
    assert spans_of("clear lungs. normal heart.") == ["clear lungs.", "normal heart."]
    assert spans_of(". . no effusion .") == ["no effusion ."]


def test_a_stop_within_a_number_ends_no_sentence():
    assert spans_of("a nodule of 1.5 cm . stable .") == ["a nodule of 1.5 cm .", "stable ."]


def test_a_sentence_is_shared_whatever_its_case_and_spacing_and_not_if_a_word_differs():
    told = ["No effusion.", "the HEART is  normal ."]
    marked = mark_shared("the heart is normal . effusion . no effusion . no effusion on the left .", told)
    assert [(sentence.text, sentence.shared) for sentence in marked] == [
        ("the heart is normal .", True),
        ("effusion .", False),
        ("no effusion .", True),
        ("no effusion on the left .", False),
    ]


def test_metrics_of_reports_given_as_tokens_are_means_over_the_real_ones():
    draw = np.random.default_rng(0)
    z, f = draw.normal(size=(1, 6, 4)), draw.normal(size=(1, 4))  # two reports of three tokens
    mask = np.array([[[True, True, False], [True, True, True]]])
    by_hand = np.array(
        [
            np.mean(
                [
                    [
                        np.sqrt(((token - f[0]) ** 2).sum()),
                        token @ f[0] / np.sqrt((token @ token) * (f[0] @ f[0])),
                        token @ f[0],
                    ]
                    for token in tokens[real]
                ],
                axis=0,
            )
            for tokens, real in zip(z.reshape(2, 3, 4), mask[0], strict=True)
        ]
    )
    metrics = neighbour_metrics(*(torch.from_numpy(array) for array in (z, f, mask)))
    np.testing.assert_allclose(metrics[0], by_hand, rtol=1e-5)


def test_ranks_and_closeness_by_hand():
    """Of l2 the smallest is closest, of the others the greatest."""
    metrics = torch.tensor([[3.0, 0.5, 9.0], [1.0, 0.1, 4.0], [2.0, 0.9, 5.0]])
    first, second, third = compare_neighbours(metrics, ("l2", "dot"))
    assert [d.metric for d in first] == ["l2", "cosine", "dot"]
    assert [[d.rank for d in row] for row in (first, second, third)] == [[3, 2, 1], [1, 3, 3], [2, 1, 2]]
    assert [d.closeness for d in first] == pytest.approx([0.0, 0.5, 1.0])
    assert [d.closeness for d in third] == pytest.approx([0.5, 1.0, 0.2])
    assert [d.words for d in second] == ["closest of 3", "furthest of 3", "furthest of 3"]
    assert [d.used for d in first] == [True, False, True]
    (prior,) = compare_prior(torch.tensor([[0.5, 0.2, 6.0]]), metrics, ("l2",))
    assert [(d.rank, d.count) for d in prior] == [(1, 4), (3, 4), (2, 4)]


def test_equal_values_and_a_lone_neighbour_have_words_too():
    (lone,) = compare_neighbours(torch.ones(1, 3), ())
    assert {d.words for d in lone} == {"the only one"}
    assert {d.closeness for d in lone} == {1.0}
    assert [d.rank for d in np.array(compare_neighbours(torch.ones(3, 3), ()), dtype=object)[:, 0]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        *((1, "closest of 9"), (2, "closer than most"), (3, "closer than most"), (4, "as usual"), (6, "as usual")),
        *((7, "further than most"), (9, "furthest of 9")),
    ],
)
def test_words_of_a_rank(rank, words):
    assert rank_words(rank, 9) == words


def test_the_window_drawn_is_that_of_eq_6():
    """3 x 4 patches, 9 reports: report 5 has patch 5, row 1, column 1, and its window is the first to be whole."""
    whole, windowed = layer_routes(((0.7, 0.3), (0.2, 0.5, 0.3)), layers=2, grid=(3, 4), reports=9)
    assert (whole.layer, whole.chosen, whole.orders, whole.stream) == (1, 0, (0, 1), "similar and differing")
    assert whole.window.all()
    assert (windowed.layer, windowed.chosen, windowed.report, windowed.centre) == (2, 1, 5, (1, 1))
    assert windowed.window.astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]


def test_a_fam_of_its_own_for_differences_is_named():
    routes = layer_routes(((1.0,), (0.5, 0.5), (1.0,), (0.1, 0.9)), layers=2, grid=(2, 2), reports=3)
    assert [(r.stream, r.layer) for r in routes] == [
        ("similar", 1),
        ("similar", 2),
        ("differing", 1),
        ("differing", 2),
    ]
    assert layer_routes((), layers=0, grid=(2, 2), reports=3) == ()


@pytest.fixture(scope="module")
def reporter(tiny_run):
    return Reporter(tiny_run)


@pytest.fixture(scope="module")
def images(tiny_run):
    return [tiny_run.parent / "studies" / f"{number}.png" for number in range(16, 20)]


@pytest.fixture(scope="module")
def explained(reporter, images):
    return list(Explainer(reporter).explain(images, OPTIONS))


def test_explained_reports_are_those_that_the_reporter_writes(reporter, images, explained):
    assert [report.written for report in explained] == list(reporter.write(images, OPTIONS))
    assert [report.position for report in explained] == [0, 1, 2, 3]


def test_sentences_are_the_report(explained):
    for report in explained:
        # A stop without a word before it is no sentence.
        expected = re.sub(r"( \.)+", " .", report.written.report).removeprefix(". ")
        assert " ".join(sentence.text for sentence in report.sentences) == expected
        for sentence in report.sentences:
            assert sentence.heat.shape == (1, 2, 2)  # 32 px, stride 16
            assert sentence.heat.sum() == pytest.approx(1.0, abs=1e-5)
            shares = sentence.shares
            assert shares.patches + shares.similar + shares.difference == pytest.approx(1.0, abs=1e-5)
            assert min(shares.patches, shares.similar, shares.difference) > 0.01
            assert shares.prior == 0.0


def test_shared_sentences_are_marked_in_both_places(explained):
    pairs = 0
    for report in explained:
        for sentence in report.sentences:
            for place, neighbour in enumerate(report.written.neighbours):
                holds = sentence.text in report_sentences(neighbour.report)
                assert (place in sentence.shared_with) == holds
                marked = {told.text for told in report.neighbour_sentences[place] if told.shared}
                assert (sentence.text in marked) == holds
                pairs += holds
    assert pairs > 0


def test_the_image_is_the_crop_that_the_network_saw(images, explained):
    """34 px, resize 34, crop 32: one pixel off on each side, bilinear resizing to the same size changes nothing."""
    for path, report in zip(images, explained, strict=True):
        np.testing.assert_array_equal(report.image, np.asarray(Image.open(path))[1:33, 1:33])


def test_differences_are_those_of_eq_1_recomputed(reporter, images, explained):
    model, sources = reporter.model.double(), reporter.example_settings
    try:
        with torch.no_grad():
            for path, report in zip(images, explained, strict=True):
                pixels = reporter.pixel_values(path)[None].double()
                f = model.patch_projection(model.image_encoder(pixels).patches).mean(1)[0].numpy()
                rows = [list(sources.index.studies.ids).index(n.id) for n in report.written.neighbours]
                z = model.report_projection(torch.from_numpy(sources.index.gather(np.array(rows))).double()).numpy()
                by_hand = [np.linalg.norm(z - f, axis=1), z @ f / np.linalg.norm(z, axis=1) / np.linalg.norm(f), z @ f]
                values = np.array([[d.value for d in neighbour] for neighbour in report.differences])
                np.testing.assert_allclose(values.T, by_hand, rtol=1e-4, atol=1e-4)
    finally:
        model.float()


def test_one_bad_file_is_told_and_the_rest_go_on_in_full_batches(reporter, images, explained, tmp_path, monkeypatch):
    bad = tmp_path / "text.png"
    bad.write_text("not a picture")
    told, sizes = [], []
    write = reporter.model.write_reports
    monkeypatch.setattr(
        reporter.model, "write_reports", lambda inputs, **given: sizes.append(len(inputs)) or write(inputs, **given)
    )
    given = [bad, images[0], bad, images[1], images[2], tmp_path / "absent.png"]
    reports = list(
        Explainer(reporter).explain(given, OPTIONS, unreadable=lambda place, error: told.append((place, str(error))))
    )
    assert sizes == [2, 1]
    assert [report.position for report in reports] == [1, 3, 4]
    assert [r.written.report for r in reports] == [r.written.report for r in explained[:3]]
    assert [place for place, _ in told] == [0, 2, 5]
    assert all(str(given[place]) in error for place, error in told)
    with pytest.raises(DataError, match=r"text\.png"):
        next(Explainer(reporter).explain(given, OPTIONS))


def test_pictures_give_what_their_files_give(reporter, images, explained):
    pictures = [Image.open(path).convert("L") for path in images]
    assert [r.written for r in Explainer(reporter).explain(pictures, OPTIONS)] == [r.written for r in explained]


def test_a_prior_is_explained_for_its_own_image_alone(reporter, images):
    told = "The lungs are clear. No edema."
    priors = [None, PriorStudy(images[0], told), PriorStudy(None, told), PriorStudy(images[1])]
    reports = list(Explainer(reporter).explain(images, GenerationOptions(beams=1, batch_size=4), priors))
    assert reports[0].prior is None
    assert [len(report.prior.differences) for report in reports[1:]] == [3, 2, 1]  # the image, a row a sentence
    assert {d.count for report in reports[1:] for row in report.prior.differences for d in row} == {4}
    np.testing.assert_array_equal(reports[1].prior.image, np.asarray(Image.open(images[0]))[1:33, 1:33])
    assert reports[2].prior.image is None
    told_states = {name: state for name, state in reports[2].prior.states.items() if state != "blank"}
    assert told_states == {"edema": "negative", "no finding": "positive"}
    assert reports[3].prior.states == next(reporter.write([images[1]], OPTIONS)).states
    cleaned = report_sentences(clean_report(told, rules="mimic"))
    assert [s.text for s in reports[2].prior.sentences] == cleaned
    for sentence in reports[0].sentences:
        assert sentence.shares.prior == 0.0
    for report in reports[1:]:
        assert all(sentence.shares.prior > 0.0 for sentence in report.sentences)


def test_an_unreadable_prior_fails_its_image_alone(reporter, images, tmp_path):
    told = []
    priors = [PriorStudy(tmp_path / "absent.png"), None]
    reports = Explainer(reporter).explain(
        images[:2], OPTIONS, priors, unreadable=lambda place, error: told.append((place, str(error)))
    )
    assert [report.position for report in reports] == [1]
    assert told[0][0] == 0
    assert "absent.png" in told[0][1]


def test_values_for_json_hold_the_reasons(explained):
    values = explained[0].to_dict()
    sentence = values["sentences"][0]
    assert values["report"] == explained[0].written.report
    assert np.array(sentence["heat"]).shape == (1, 2, 2)
    assert sum(sentence["attention"].values()) == pytest.approx(1.0, abs=1e-3)
    assert values["differences"][0]["cosine"]["of"] == 3
    assert [route["orders"] for route in values["routes"]] == [[0, 1], [0, 1, 2]]
