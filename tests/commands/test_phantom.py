"""The commands as a user meets them: a small phantom is drawn, trained on, evaluated, resumed and asked for reports."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diffrgen import evaluate as evaluate_command
from diffrgen import generate as generate_command
from diffrgen import train as train_command
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.evaluation.options import EvaluateOptions
from diffrgen.evaluation.run import evaluate
from diffrgen.images import read_resized
from diffrgen.labels import FINDINGS
from diffrgen.model import DiffRGenForReportGeneration, StudyInputs
from diffrgen.pipeline.cached_images import cache_root
from diffrgen.pipeline.dataset import StudyDataset, collate
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import load_source
from diffrgen.records import StudySplits
from diffrgen.reporting.reporter import Reporter
from diffrgen.retrieval import Neighbours, neighbours_of_studies, priors_of_studies
from diffrgen.retrieval.neighbours import QueryImages
from diffrgen.text import decode_report
from diffrgen.training.checkpoints import list_checkpoints
from diffrgen.training.run import train

SMALL = [
    *("--phantom.studies", "60", "--phantom.size", "64", "--image.size", "64", "--image.resize", "68"),
    *("--retriever.max-steps", "4", "--retriever.batch-size", "8", "--retriever.neighbours", "5"),
    *("--optimiser.batch-size", "8", "--optimiser.epochs", "12", "--text.max-tokens", "24", "--generation.beams", "2"),
]


@pytest.fixture(scope="module", autouse=True)
def cache(no_java, tmp_path_factory):
    """Keep what these tests cache apart: one looks at what is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFRGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def parse(output: Path, *more: str):
    return train_command.parse_options([*SMALL, "--output", str(output), *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache) -> Path:
    """A run of 8 steps, with its evaluation."""
    output = tmp_path_factory.mktemp("runs") / "small"
    summary, evaluation = train(parse(output, "--max-steps", "8"))
    assert summary.steps == 8
    assert evaluation.folder == output / "evaluation" / "test"
    return output


def load_studies(run: Path) -> StudySplits:
    settings = RunFolder(run).settings()
    return load_source(settings.data, settings.phantom).splits


def log_lines(run: Path, phase: str) -> list[dict]:
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [record for record in records if record["phase"] == phase]


def predictions(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_run_folder_is_self_contained(run, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    names = {path.name for path in moved.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "index", "retriever", "run.json"} <= names
    assert {"metrics.jsonl", "tensorboard", "checkpoints", "evaluation", "train.json"} <= names
    assert any((moved / "tensorboard").iterdir())
    image = load_studies(run).test[0].images[0]
    assert next(Reporter(moved).write([image], GenerationOptions(beams=1))).report


def test_log_holds_every_loss_the_temperature_and_the_validation(run):
    last = log_lines(run, "train")[-1]
    assert last["step"] == 8
    total = last["language_loss"] + 4.0 * last["disease_loss"] + 0.1 * last["contrast_loss"]
    assert last["loss"] == pytest.approx(total, abs=1e-4)
    # 48 studies in batches of 8, 12 epochs: step 7 of 0..71 on the way from 10 to 0.1.
    assert last["temperature"] == pytest.approx(10 * 0.01 ** (7 / 71), rel=1e-4)
    assert {"loss", "micro_f1"} <= set(log_lines(run, "val")[-1])


def test_metrics_hold_the_model_the_control_and_both_blind_baselines(run):
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert list(metrics) == [
        "DiffRGenNet",
        "DiffRGenNet, images shuffled",
        "blind: most frequent report",
        "blind: random training report",
    ]
    for scores in metrics.values():
        assert {"bleu_1", "bleu_4", "rouge_l", "cider"} <= set(scores["nlg"])
        assert [len(scores[f"clinical_{n}"]["per_finding"]) for n in (14, 13, 5)] == [14, 13, 5]
        # Of the phantom the truth is known.
        assert scores["statements"]["studies"] == scores["clinical_14"]["studies"]
        assert scores["statements"]["counts"]["change_true"] > 0
    assert metrics["DiffRGenNet"]["statements"]["counts"]["finding_offered"] > 0
    assert metrics["blind: random training report"]["statements"]["counts"]["finding_offered"] == 0


def test_predictions_explain_themselves(run):
    studies = load_studies(run).test
    records = predictions(run / "evaluation" / "test")
    assert [record["id"] for record in records] == [study.id for study in studies]
    for record in records:
        assert tuple(record["states"]) == FINDINGS
        assert len(record["neighbours"]) == 5
        assert record["id"] not in {neighbour["id"] for neighbour in record["neighbours"]}
        assert [len(weights) for weights in record["routing"]] == [2, 3]
        assert all(sum(weights) == pytest.approx(1.0, abs=1e-3) for weights in record["routing"])


def test_from_pretrained_and_generate_give_the_reports_of_evaluate(run, tmp_path):
    folder, settings = RunFolder(run), RunFolder(run).settings()
    studies = load_studies(run).test
    model = DiffRGenForReportGeneration.from_pretrained(run).eval()
    sources = folder.example_settings(model.config, settings)
    neighbours = neighbours_of_studies(
        folder.retriever(), sources.index, studies, split="test", options=settings.retriever, progress=False
    )
    priors = priors_of_studies(
        folder.retriever(),
        studies,
        load_studies(run).by_id(),
        folder=tmp_path,
        split="test",
        rules=settings.rules,
        options=settings.retriever,
        progress=False,
    )
    assert (priors.prior >= 0).any()
    dataset = StudyDataset(studies, neighbours, sources, priors=priors)
    batch = collate([dataset[row] for row in range(len(dataset))])
    ids = model.generate(StudyInputs.of(batch))
    written = [decode_report(sources.tokenizer, row) for row in ids]
    assert written == [record["hypothesis"] for record in predictions(run / "evaluation" / "test")]


def test_generate_command_gives_the_report_of_evaluate(run, capsys):
    study = load_studies(run).test[0]
    assert generate_command.main([str(run), str(study.images[0]), "--json", "--generation.beams", "2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["report"] == predictions(run / "evaluation" / "test")[0]["hypothesis"]
    assert generate_command.main([str(run), str(study.images[0]), "--generation.beams", "2"]) == 0
    assert "P(positive)" in capsys.readouterr().out


def test_reports_in_bf16_rest_on_nearly_the_same_probabilities(run, capsys):
    image = str(load_studies(run).test[0].images[0])
    found = {}
    for precision in ("fp32", "bf16"):
        assert generate_command.main([str(run), image, "--json", "--generation.precision", precision]) == 0
        found[precision] = json.loads(capsys.readouterr().out)
    assert found["bf16"]["report"]
    full, narrow = (list(found[precision]["positive_probability"].values()) for precision in ("fp32", "bf16"))
    assert narrow != full
    assert narrow == pytest.approx(full, abs=0.02)


def test_evaluating_again_keeps_the_earlier_results(run, capsys):
    before = (run / "evaluation" / "test" / "metrics.json").read_bytes()
    assert evaluate_command.main([str(run), "--generation.beams", "2"]) == 0
    assert (run / "evaluation" / "test" / "metrics.json").read_bytes() == before
    again = predictions(run / "evaluation" / "test-2")
    assert [r["hypothesis"] for r in again] == [r["hypothesis"] for r in predictions(run / "evaluation" / "test")]
    with pytest.raises(DataError, match="new or empty folder"):
        evaluate(EvaluateOptions(run, output=run / "evaluation" / "test"))


def test_reference_operator_writes_the_same_reports(run, tmp_path):
    folder = evaluate(
        EvaluateOptions(run, output=tmp_path / "out", fused_kernels=False, generation=GenerationOptions(beams=2))
    ).folder
    fused = [r["hypothesis"] for r in predictions(run / "evaluation" / "test")]
    assert [r["hypothesis"] for r in predictions(folder)] == fused


def test_shuffled_images_move_every_study(run):
    settings = RunFolder(run).settings()
    studies = load_studies(run).val
    folder = RunFolder(run)
    sources = folder.example_settings(folder.model().config, settings)
    neighbours = neighbours_of_studies(
        folder.retriever(), sources.index, studies, split="val", options=settings.retriever, progress=False
    )
    dataset = StudyDataset(studies, neighbours, sources)
    plain = [dataset[row]["pixel_values"] for row in range(len(dataset))]
    dataset.shuffle_images(0)
    assert sorted(dataset.image_rows) == list(range(len(studies)))
    assert all(shown != row for row, shown in enumerate(dataset.image_rows))
    for row, shown in enumerate(dataset.image_rows):
        assert torch.equal(dataset[row]["pixel_values"], plain[shown])
        assert torch.equal(dataset[row]["states"], dataset.states[row])


def test_resumed_training_equals_unbroken_training(run, tmp_path):
    """Stopped in the middle of an epoch and resumed, the last losses and weights are those of a run without a stop."""
    output = tmp_path / "stopped"
    options = parse(output, "--max-steps", "3")
    assert train(options)[0].steps == 3
    resumed = train_command.parse_options(["--resume", "--output", str(output), "--max-steps", "8"])
    assert replace(resumed, resume=False, max_steps=3) == options
    assert train(resumed)[0].steps == 8
    assert log_lines(output, "train")[-1] == log_lines(run, "train")[-1]
    newest = [list_checkpoints(folder / "checkpoints")[-1] for folder in (run, output)]
    weights = [load_file(checkpoint / "model.safetensors") for checkpoint in newest]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_resuming_before_the_first_checkpoint_starts_at_the_first_step(run, tmp_path):
    output = tmp_path / "early"
    shutil.copytree(run, output, ignore=shutil.ignore_patterns("checkpoints", "evaluation"))
    for name in ("metrics.jsonl", "model.safetensors"):
        (output / name).unlink()
    summary, _ = train(train_command.parse_options(["--resume", "--output", str(output), "--max-steps", "8"]))
    assert summary.steps == 8
    assert log_lines(output, "train")[-1] == log_lines(run, "train")[-1]


def test_training_without_kept_images_and_workers_gives_the_same_losses_and_reports(run, tmp_path):
    """Two epochs on images decoded each time, in this process, and two on the kept ones, read by a worker."""
    kept = [path.name for path in cache_root().iterdir()]
    assert sum(name.startswith("images-68-") for name in kept) == 1
    output = tmp_path / "decoded"
    train(parse(output, "--max-steps", "8", "--no-image-cache", "--workers", "0"))
    for phase in ("train", "val"):
        assert log_lines(output, phase) == log_lines(run, phase)
    assert predictions(output / "evaluation" / "test") == predictions(run / "evaluation" / "test")
    neighbours = [np.load(folder / "index" / "neighbours-train.npz")["similarity"] for folder in (output, run)]
    np.testing.assert_array_equal(*neighbours)


def test_the_wait_for_data_is_told(run):
    assert 0 < json.loads((run / "training.json").read_text())["waiting_for_data"] < 1


def test_reporter_shows_the_network_the_pixels_that_training_does(run, tmp_path, monkeypatch):
    """Of a JPEG large enough to be decoded at an eighth."""
    path, shown = tmp_path / "large.jpg", []
    noise = np.random.default_rng(0).integers(0, 256, (600, 700), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    reporter = Reporter(run)
    write = reporter.model.write_reports
    monkeypatch.setattr(
        reporter.model, "write_reports", lambda inputs, **given: shown.append(inputs.pixel_values) or write(inputs, **given)
    )
    next(reporter.write([path], GenerationOptions(beams=1)))
    study = replace(load_studies(run).test[0], images=(path,))
    neighbours = Neighbours(np.zeros((1, 5), np.int64), np.ones((1, 5), np.float32), np.ones((1, 5), bool))
    assert torch.equal(shown[0][0], StudyDataset([study], neighbours, reporter.example_settings)[0]["pixel_values"])
    assert torch.equal(shown[0][0], QueryImages([study], reporter.retriever.image_transform, read_resized)[0])


def test_fp16_without_a_gpu_is_a_clear_error(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, where fp16 runs")
    with pytest.raises(DataError, match="precision fp16 needs a GPU"):
        train(parse(tmp_path / "run", "--precision", "fp16"))
    assert not (tmp_path / "run").exists()


def test_output_that_holds_something_is_not_overwritten(run, tmp_path):
    with pytest.raises(DataError, match="already holds a run; pass --resume"):
        train(parse(run))
    (tmp_path / "notes.txt").write_text("mine")
    for flags in ((), ("--overwrite",)):
        with pytest.raises(DataError, match="holds files other than a run"):
            train(parse(tmp_path, *flags))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_presets_and_flags():
    tiny, paper = (train_command.parse_options(["--preset", name]) for name in ("tiny", "paper"))
    assert (tiny.image.size, tiny.model.encoder) == (112, "tiny")
    assert (paper.image.size, paper.model.encoder, paper.model.width) == (224, "paper", 512)
    assert paper.retriever.neighbours == 21
    assert (paper.optimiser.learning_rate, paper.optimiser.epochs, paper.optimiser.batch_size) == (5e-5, 10, 16)
    plain = train_command.parse_options(["--no-fused-kernels", "--data", "a.json", "--images", "b"])
    assert (plain.fused_kernels, plain.data.data, plain.data.images) == (False, "a.json", Path("b"))


def test_more_neighbours_than_training_studies_is_an_error(tmp_path):
    with pytest.raises(DataError, match="asked for 59 neighbours but the index holds"):
        train(parse(tmp_path / "run", "--retriever.neighbours", "59", "--max-steps", "1"))


def write_annotation(folder: Path, **splits) -> Path:
    path = folder / "annotation.json"
    path.write_text(json.dumps(splits))
    return path


@pytest.fixture
def studies(run, tmp_path) -> list[dict]:
    """Records of 12 studies with real image files, to be damaged."""
    images = tmp_path / "images"
    images.mkdir()
    records = []
    for study in load_studies(run).train[:12]:
        shutil.copy(study.images[0], images / f"{study.id}.png")
        records.append({"id": study.id, "report": study.report, "image_path": [f"{study.id}.png"]})
    return records


def damage_missing(records, images):
    (images / records[3]["image_path"][0]).unlink()


def damage_truncated(records, images):
    path = images / records[3]["image_path"][0]
    path.write_bytes(path.read_bytes()[:200])


def damage_text(records, images):
    (images / records[3]["image_path"][0]).write_text("this is not a picture")


def damage_report(records, images):
    records[3]["report"] = "  "


@pytest.mark.parametrize("damage", [damage_missing, damage_truncated, damage_text, damage_report])
def test_broken_records_are_named_or_skipped_and_counted(damage, studies, tmp_path, capsys):
    damage(studies, tmp_path / "images")
    data = write_annotation(tmp_path, train=studies[:8], val=studies[8:10], test=studies[10:])
    arguments = ["--data", str(data), "--output", str(tmp_path / "run"), *SMALL[4:], "--max-steps", "1"]
    assert run_command(lambda: train_command.main(arguments)) == 2
    message = capsys.readouterr().err
    assert studies[3]["id"] in message
    assert "--skip-broken" in message
    assert not (tmp_path / "run" / "model.safetensors").exists()
    arguments += ["--skip-broken", "--overwrite"]
    with pytest.warns(UserWarning, match="skipped 1 broken record"):
        assert train_command.main(arguments) == 0
    assert len(RunFolder(tmp_path / "run").index()) == 7


def test_annotation_errors_reach_the_user(studies, tmp_path, capsys):
    cases = {
        "needs the key 'train', got the keys: 'test'": {"test": studies},
        "this id is also that of": {"train": [studies[0], studies[0]]},
        "needed studies in the split 'val'": {"train": studies},
    }
    for message, splits in cases.items():
        data = write_annotation(tmp_path, **splits)
        arguments = ["--data", str(data), "--output", str(tmp_path / f"run-{len(message)}"), *SMALL[4:]]
        status = run_command(partial(train_command.main, arguments))
        error = capsys.readouterr().err
        assert status == 2
        assert message in error
        assert "Traceback" not in error


def test_generate_names_what_is_no_image(run, tmp_path, capsys):
    path = tmp_path / "text.png"
    path.write_text("not a picture")
    assert run_command(lambda: generate_command.main([str(run), str(path)])) == 2
    assert str(path) in capsys.readouterr().err
    assert run_command(lambda: generate_command.main([str(tmp_path), str(path)])) == 2
    assert "folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes", [("--model.retrieved", "tokens"), ("--model.routing", "straight_through", "--model.no-share-fam")]
)
def test_other_settings_train_and_evaluate(changes, tmp_path):
    summary, evaluation = train(parse(tmp_path / "run", "--max-steps", "2", "--no-fused-kernels", *changes))
    assert summary.steps == 2
    assert np.isfinite(evaluation.model.corpus["bleu_1"])


def test_real_x_rays_train_and_evaluate(shared, tmp_path):
    """A few real X-rays with their notes go from an annotation without labels to scored reports."""
    source = shared / "covid_cxr" / "annotation.json"
    splits = {split: studies[:12] for split, studies in json.loads(source.read_text()).items()}
    data = write_annotation(tmp_path, **splits)
    arguments = ["--data", str(data), "--images", str(source.parent / "images"), *SMALL[4:], "--max-steps", "3"]
    arguments += ["--output", str(tmp_path / "run")]
    summary, evaluation = train(train_command.parse_options(arguments))
    assert summary.steps == 3
    assert len(predictions(evaluation.folder)) == 12
    image = shared / "nih_starter" / "images"
    written = Reporter(tmp_path / "run").write(sorted(image.iterdir())[:2], GenerationOptions(beams=1))
    assert len(list(written)) == 2
