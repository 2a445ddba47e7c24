"""The studies: which options each variant changes, and what the paper printed for it."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from tiny_network import tiny_config

from diffrgen.errors import DataError
from diffrgen.experiments.__main__ import parse_options
from diffrgen.experiments.job import Scoring
from diffrgen.experiments.options import ExperimentOptions
from diffrgen.experiments.runner import jobs_of
from diffrgen.experiments.variants import STUDIES
from diffrgen.pipeline.options import DataOptions
from diffrgen.training.presets import preset_options

FULL = preset_options("tiny")
VARIANTS = {row.variant.name: row.variant for study in STUDIES.values() for row in study.rows}


def changed(name: str) -> dict:
    before, after = asdict(FULL.model), asdict(VARIANTS[name].of(FULL).model)
    return {option: value for option, value in after.items() if value != before[option]}


def test_variants_differ_from_the_full_network_in_what_they_say():
    assert {name: changed(name) for name in VARIANTS} == {
        "full": {},
        "without-difference": {"difference_metrics": ()},
        "transformer": {"masks_per_layer": (1, 1)},
        "without-contrast": {"contrast_weight": 0.0},
        "cosine": {"difference_metrics": ("cosine",)},
        "l2": {"difference_metrics": ("l2",)},
        "dot": {"difference_metrics": ("dot",)},
        "without-l2": {"difference_metrics": ("cosine", "dot")},
        "without-cosine": {"difference_metrics": ("l2", "dot")},
        "without-dot": {"difference_metrics": ("l2", "cosine")},
        "trar": {"share_projections": True, "masking": "exclusive"},
        "concatenation": {"masks_per_layer": ()},
        "layers-1": {"masks_per_layer": (2,)},
        "layers-3": {"masks_per_layer": (2, 3, 3)},
        "layers-4": {"masks_per_layer": (2, 3, 3, 3)},
        "layers-5": {"masks_per_layer": (2, 3, 3, 3, 3)},
        "without-earlier-study": {"prior": False},
        "straight-through": {"routing": "straight_through"},
        "exclusive": {"masking": "exclusive"},
        "shared-projections": {"share_projections": True},
        "printed-contrast": {"contrast_form": "printed"},
        "without-prior-of-eq-9": {"logit_adjustment": False},
        "lambda-1": {"disease_weight": 1.0},
        "scalar-difference": {"difference": "scalars"},
        "finding-queries": {"finding_queries": True},
        "severities": {"severities": True},
        "finding-weight-3": {"finding_weight": 3.0},
        "indication": {"context": ("indication",)},
    }


def test_one_name_is_one_network_in_every_study():
    for study in STUDIES.values():
        assert study.rows[0].variant.name == "full"
        assert all(VARIANTS[row.variant.name] == row.variant for row in study.rows)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_valid_network(name):
    tiny_config(**VARIANTS[name].changes)


def test_published_values_are_those_of_the_paper():
    """Tables 2, 3 and A, and the three values that the text of Appendix A names."""
    printed = {(s.name, r.variant.name): r.published for s in STUDIES.values() for r in s.rows if r.published}
    assert printed["table2", "without-contrast"] == {
        **{"bleu_1": 0.386, "bleu_4": 0.107, "meteor": 0.148},
        **{"rouge_l": 0.277, "f1": 0.382},
    }
    assert printed["table3", "l2"] == {"bleu_4": 0.118, "meteor": 0.162, "rouge_l": 0.271, "f1": 0.483}
    assert printed["table_a", "concatenation"]["f1"] == 0.267
    assert {key[1]: row["f1"] for key, row in printed.items() if key[0] == "figure_a"} == {
        **{"layers-1": 0.46, "full": 0.48, "layers-5": 0.43},
    }
    assert {study for study, _ in printed} == {"table2", "table3", "table_a", "figure_a"}


def test_jobs_go_seed_by_seed_and_studies_share_the_full_networks(tmp_path):
    options = parse_options(["table2", "--variants", "transformer", "--seeds", "2"])
    jobs = jobs_of(options.chosen, options.training(), seeds=options.trainings, output=tmp_path)
    assert [job.name for job in jobs] == ["full-0", "transformer-0", "full-1", "transformer-1"]
    assert [job.options.seed for job in jobs] == [0, 0, 1, 1]
    assert jobs[3].options.model.masks_per_layer == (1, 1)
    others = parse_options(["table_a", "--seeds", "2"])
    shared = {job.record: job.options for job in jobs_of(others.chosen, others.training(), seeds=2, output=tmp_path)}
    assert all(shared[job.record] == job.options for job in jobs)


def test_seeds_and_size():
    assert parse_options(["table3"]).trainings == 5
    assert parse_options(["table3", "--quick"]).trainings == 2
    assert parse_options(["table3", "--epochs", "4"]).training().optimiser.epochs == 4
    larger = parse_options(["table3", "--studies", "6000"]).training()
    assert (larger.phantom.studies, larger.optimiser.epochs) == (6000, 3)
    assert parse_options(["table3", "--quick"]).folder != parse_options(["table3"]).folder


def test_a_preset_is_trained_at_its_full_size_and_scored_as_asked(tmp_path):
    command = ["table2", "--preset", "iu", "--data", "iu.json", "--split", "val", "--protocol", "r2gen-iu"]
    options = parse_options(command)
    iu = preset_options("iu")
    assert options.training() == replace(iu, data=DataOptions(data="iu.json"))
    assert parse_options([*command, "--epochs", "8"]).training().optimiser == replace(iu.optimiser, epochs=8)
    jobs = jobs_of(options.chosen, options.training(), seeds=1, output=tmp_path, scoring=options.scoring)
    assert {job.scoring for job in jobs} == {Scoring("val", "r2gen-iu")}
    assert [job.options.model.contrast_weight for job in jobs] == [iu.model.contrast_weight] * 3 + [0]
    assert parse_options(["table2"]).scoring == Scoring("test", "promptmrg")


def test_unusable_options_are_named():
    with pytest.raises(DataError, match=r"needed either --quick or --preset, got both \(--preset iu\)"):
        ExperimentOptions("table2", quick=True, preset="iu")
    with pytest.raises(DataError, match="--seeds: expected a whole number of at least 1 or none, got 0"):
        ExperimentOptions("table2", seeds=0)
    with pytest.raises(DataError, match="--studies: expected a whole number of at least 3 or none, got 2"):
        ExperimentOptions("table2", studies=2)
    with pytest.raises(DataError, match=r"--studies is the size of the phantom, got it with --data mine\.json"):
        ExperimentOptions("table2", studies=100, data=DataOptions(data="mine.json"))
    with pytest.raises(DataError, match="out of without-difference, transformer, without-contrast for table2, got trar"):
        ExperimentOptions("table2", variants=("trar",))
