"""The model card: every figure in it is one of the run's files, and a person's own words are never overwritten."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file

from diffrgen import evaluate as evaluate_command
from diffrgen.errors import DataError
from diffrgen.sharing.card import card_message, write_card
from diffrgen.sharing.facts import RunFacts
from diffrgen.sharing.limits import limits

pytestmark = pytest.mark.usefixtures("no_java")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_metadata_hold_the_scores_of_the_run(finished_run):
    card = ModelCard.load(finished_run / "README.md")
    scores = read(finished_run / "evaluation" / "val" / "metrics.json")["DiffRGenNet"]
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found["BLEU-4"] == pytest.approx(scores["nlg"]["bleu_4"], abs=5e-5)
    assert found["ROUGE-L"] == pytest.approx(scores["nlg"]["rouge_l"], abs=5e-5)
    assert found["recall (example-based, 14 findings)"] == pytest.approx(
        scores["clinical_14"]["example"]["recall"], abs=5e-5
    )
    assert "METEOR" not in found  # no Java: absent, never zero
    assert {result.dataset_split for result in card.data.eval_results} == {"val"}
    assert (card.data.license, card.data.license_name) == ("other", "terms-of-the-training-data")
    assert card.data.pipeline_tag == "image-to-text"


def test_text_holds_data_training_and_the_table_with_intervals(finished_run):
    card = (finished_run / "README.md").read_text()
    training = read(finished_run / "training.json")
    weights = sum(tensor.size for tensor in load_file(finished_run / "model.safetensors").values())
    manifest = read(finished_run / "index" / "manifest.json")
    assert "| train | 16 | 16 | 8 | 16 | 8 | data |" in card
    assert "| val | 4 | 4 | 2 | 4 | 2 | data |" in card
    assert f"{weights:,} parameters" in card
    assert f"holds {manifest['texts']} distinct reports of 16 training studies" in card
    assert f"{training['steps']} steps of 4 studies, fp32, seed 0" in card
    assert all(f"{name} {version}" in card for name, version in training["versions"].items())
    assert training["machine"] in card
    table = (finished_run / "evaluation" / "val" / "table.md").read_text()
    assert "95 % intervals" in table
    assert table.rstrip() in card
    assert "- `model.width`: 16" in card
    assert "- `max-steps`: 6" in card
    assert "Research use only" in card


def test_card_tells_no_folder_of_this_machine(finished_run):
    card = (finished_run / "README.md").read_text()
    assert str(finished_run.parent) not in card
    assert "`data`: annotation.json" in card
    assert "data/annotation.json" in card


def test_command_of_the_card_parses():
    import tyro

    from diffrgen.generate import GenerateOptions

    template = Path(write_card.__code__.co_filename).with_name("card.md.jinja").read_text()
    (command,) = re.findall(r"python -m diffrgen.generate (.*)", template)
    assert tyro.cli(GenerateOptions, args=command.split()).images


def test_an_unedited_card_is_written_again_and_an_edited_one_never(own_run, capsys):
    path = own_run / "README.md"
    first = path.read_bytes()
    assert write_card(own_run)
    assert path.read_bytes() == first
    for edited in (first.replace(b"## Limits", b"## Limits and more"), first + b"more\n", b"", b"# mine\n"):
        path.write_bytes(edited)
        assert not write_card(own_run)
        assert path.read_bytes() == edited
        assert "has been edited and is left as it is" in card_message(own_run)


def test_evaluating_again_renews_the_card(own_run):
    before = (own_run / "README.md").read_text()
    assert "### val-2" not in before
    assert evaluate_command.main([str(own_run), "--split", "val", "--generation.beams", "1"]) == 0
    after = (own_run / "README.md").read_text()
    assert after.index("### val-2") < after.index("### val\n")


def test_scores_of_other_weights_are_left_out(own_run):
    record = own_run / "evaluation" / "val" / "evaluation.json"
    record.write_text(json.dumps({**read(record), "weights": "0" * 64}))
    facts = RunFacts.read(own_run)
    assert facts.evaluations == ()
    assert "Its reports have not been scored" in limits(facts)[-1]
    assert write_card(own_run)
    assert "The run has no evaluation" in (own_run / "README.md").read_text()


def test_scores_on_other_data_are_named_and_not_in_the_metadata(own_run):
    record = own_run / "evaluation" / "val" / "evaluation.json"
    record.write_text(json.dumps({**read(record), "data": "elsewhere.json"}))
    assert write_card(own_run)
    card = ModelCard.load(own_run / "README.md")
    assert card.data.eval_results is None
    assert "of the split val of elsewhere.json" in card.text


def test_limits_follow_from_the_scores(own_run):
    path = own_run / "evaluation" / "val" / "metrics.json"
    metrics = read(path)

    def finding(name, support, predicted, recall):
        return {"finding": name, "support": support, "predicted": predicted, "recall": recall}

    model = metrics["DiffRGenNet"]["clinical_13"]
    model["per_finding"] = [
        finding("fracture", 40, 0, 0.0),
        finding("edema", 40, 9, 0.2),
        finding("pneumonia", 3, 4, 1.0),
        finding("cardiomegaly", 40, 40, 0.9),
        finding("lung lesion", 0, 2, None),
    ]
    model["micro"]["f1"], model["micro_f1_interval"] = 0.5, [0.4, 0.6]
    others = [name for name in metrics if name != "DiffRGenNet"]
    for name, score in zip(others, (0.41, 0.39), strict=True):
        metrics[name]["clinical_13"]["micro"]["f1"] = score
    path.write_text(json.dumps(metrics))
    data = read(own_run / "data.json")
    data["splits"]["train"]["followed"] = 0
    (own_run / "data.json").write_text(json.dumps(data))
    said = " ".join(limits(RunFacts.read(own_run)))
    assert "never mention these findings, although studies have them: fracture (of 40)." in said
    assert "more than half of the studies that have them: edema (of 40), 0.20 found." in said
    assert "Nothing is known about lung lesion" in said
    assert "unreliable: pneumonia (of 3)." in said
    assert f"is not clearly above these: {others[0]} (0.41)." in said
    assert "learned nothing about change" in said
    assert "cardiomegaly" not in said


def test_an_evaluation_names_the_weights_that_it_scored(finished_run):
    record = read(finished_run / "evaluation" / "val" / "evaluation.json")
    assert record["weights"] == hashlib.sha256((finished_run / "model.safetensors").read_bytes()).hexdigest()
    assert (record["split"], record["data"], record["beams"], record["protocol"]) == ("val", None, 1, "promptmrg")


def test_a_retriever_that_was_not_fitted_here_and_missing_curves_are_left_out(own_run):
    assert "steps of the retriever" in (own_run / "README.md").read_text()
    assert "(curves.png)" in (own_run / "README.md").read_text()
    (own_run / "retriever" / "fit.json").unlink()
    (own_run / "curves.png").unlink()
    assert write_card(own_run)
    assert "steps of the retriever" not in (own_run / "README.md").read_text()
    assert "(curves.png)" not in (own_run / "README.md").read_text()


def test_a_folder_that_is_no_finished_run_is_named(own_run, tmp_path):
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "none"))):
        write_card(tmp_path / "none")
    (own_run / "training.json").unlink()
    with pytest.raises(DataError, match=r"training\.json"):
        write_card(own_run)
