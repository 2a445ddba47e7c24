"""The table of results: numbers in their columns, reasons where there are none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from diffrgen.metrics import (
    clinical_scores,
    markdown_table,
    published_rows,
    report_diversity,
    table_row,
    terminal_table,
)

CORPUS = {"bleu_1": 0.4, "bleu_2": 0.3, "bleu_3": 0.2, "bleu_4": 0.1234, "rouge_l": 0.25, "cider": 0.5}


@pytest.fixture
def row():
    states = np.array([[1, 0], [1, 1]])
    clinical = clinical_scores(states, np.array([[1, 1], [0, 1]]), findings=("a", "b"))
    return table_row(CORPUS, clinical, clinical, report_diversity(["a", "a", "b", "c"]))


def test_markdown(row):
    lines = markdown_table({"ours": row}).splitlines()
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == [
        "Model", "Precision", "Recall", "F1", "BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "micro-F1", "distinct",
    ]  # fmt: skip
    # Per study precision 1, 1/2; recall 1/2, 1; F1 2/3, 2/3; in all 2 hits, 1 false positive, 1 false negative.
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == [
        "ours", "0.750", "0.750", "0.667", "0.400", "0.123", "- (1)", "0.250", "0.667", "0.750",
    ]  # fmt: skip
    assert lines[3] == ""
    assert lines[4].startswith("- (1) METEOR requires a Java runtime")
    assert len(lines) == 5


def test_all_numbers_need_no_footnote(row):
    assert markdown_table({"ours": {**row, "meteor": 0.2}}).count("\n") == 3


def test_terminal_shows_the_same(row):
    out = io.StringIO()
    Console(file=out, width=160).print(terminal_table({"[ours]": row}, title="Table 1"))
    text = out.getvalue()
    for piece in ("Table 1", "[ours]", "METEOR", "0.123", "- (1)", "(1) METEOR requires a Java runtime"):
        assert piece in text


def test_row_without_labels():
    row = table_row(CORPUS | {"meteor": 0.15})
    assert row["meteor"] == 0.15
    text = markdown_table({"ours": row})
    assert "(1) no labels to compare" in text
    assert "(2) not computed" in text


def test_published_rows_are_marked():
    rows = published_rows("mimic-cxr")
    assert list(rows) == ["R2Gen (published)", "PromptMRG (published)", "DiffRGenNet (published)"]
    ours = rows["DiffRGenNet (published)"]
    assert [ours[key] for key in ("precision", "recall", "f1", "bleu_1", "bleu_4", "meteor", "rouge_l")] == [
        0.512, 0.513, 0.483, 0.402, 0.119, 0.163, 0.275,
    ]  # fmt: skip
    assert published_rows("iu-xray")["PromptMRG (published)"]["rouge_l"] == 0.281
    assert "not in the paper's Table 1" in markdown_table(rows)
    with pytest.raises(ValueError, match="got 'mimic'"):
        published_rows("mimic")


def test_rows_for_iu_x_ray_say_that_their_models_were_trained_on_mimic_cxr():
    note = "whose IU X-Ray rows evaluate models trained on MIMIC-CXR on all of IU X-Ray"
    assert note in markdown_table(published_rows("iu-xray"))
    assert "trained on MIMIC-CXR" not in markdown_table(published_rows("mimic-cxr"))
    with Console(width=80, record=True, file=io.StringIO()) as console:
        console.print(terminal_table(published_rows("iu-xray")))
    assert "trained on MIMIC-CXR" in " ".join(console.export_text().split())
