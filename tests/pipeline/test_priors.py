"""Earlier studies from the annotation to the report: examples, hiding, training, evaluation, the reporter."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_training import TRAINING, arguments, write_studies

from diffrgen import evaluate as evaluate_command
from diffrgen import lock
from diffrgen import train as train_command
from diffrgen.errors import DataError
from diffrgen.labels import FINDINGS, NO_STUDY, State
from diffrgen.pipeline.dataset import StudyDataset, prior_states
from diffrgen.pipeline.hiding import hide_rows
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.references import References, find_references
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import load_source
from diffrgen.reporting.prior_study import PriorStudy
from diffrgen.reporting.reporter import Reporter
from diffrgen.retrieval import neighbours
from diffrgen.text import PROMPT_TOKENS
from diffrgen.training.build import DataShape, build_model
from diffrgen.training.presets import preset_options

pytestmark = pytest.mark.usefixtures("no_java")

GREEDY = GenerationOptions(beams=1)
STEPS = ("--max-steps", "4", "--optimiser.learning-rate", "0.01")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_studies(tmp_path_factory.mktemp("data") / "studies")


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> Path:
    """A run of one epoch."""
    output = tmp_path_factory.mktemp("runs") / "run"
    assert train_command.main(arguments(data, output, *STEPS)) == 0
    return output


def make_dataset(run: Path, split: str, *, train: bool = False, seed: int = 0, prior: bool = True) -> StudyDataset:
    folder, settings = RunFolder(run), RunFolder(run).settings()
    source = load_source(settings.data, settings.phantom)
    dataset = folder.dataset(folder.model().config, settings, source, source.splits[split], key=split, priors=prior)
    sources = dataset.settings
    if train:
        sources = replace(sources, transform=settings.image.transform(sources.transform.channels, train=True))
    return StudyDataset(dataset.studies, dataset.neighbours, sources, priors=dataset.priors, seed=seed)


def predicted(folder: Path, what: str = "hypothesis") -> list:
    return [json.loads(line)[what] for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_examples_hold_the_rows_of_the_earlier_study(run):
    dataset = make_dataset(run, "val")

    def rows_of(earlier: int) -> int:
        return 1 + len(dataset.studies[earlier].report.split(" . "))

    for row, study in enumerate(dataset.studies):
        example = dataset[row]
        assert example["prior"].shape == (13, 16)
        if study.prior_id is None:
            assert not example["prior_mask"].any()
            assert example["prior_states"].tolist() == [NO_STUDY] * 14
        else:
            rows = example["prior"][example["prior_mask"]]
            assert len(rows) == rows_of(row - 1)
            assert torch.equal(example["prior_states"], dataset.states[row - 1])
            torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)), atol=1e-4, rtol=0)
    assert "prior" not in make_dataset(run, "val", prior=False)[0]


def test_commands_that_look_up_references_at_once_take_turns(run, tmp_path, monkeypatch):
    folder = RunFolder(Path(shutil.copytree(run, tmp_path / "run")))
    settings, retriever, index = folder.settings(), folder.retriever(), folder.index()
    source = load_source(settings.data, settings.phantom)
    (index.folder / "neighbours-val.npz").unlink()
    waits, embedded, notices = threading.Event(), [], []
    embed = neighbours.embed_images

    def slow(*arguments, **options):
        embedded.append(1)
        # Two that are here at once are the fault; otherwise one goes on when the other one waits.
        if len(embedded) == 1:
            waits.wait(60)
        waits.set()
        return embed(*arguments, **options)

    def note(notice, *_, **__):
        notices.append(str(notice))
        waits.set()

    monkeypatch.setattr(neighbours, "embed_images", slow)
    monkeypatch.setattr(lock.warnings, "warn", note)

    def look_up(_: int) -> References:
        return find_references(
            retriever,
            index,
            source,
            source.splits["val"],
            split="val",
            settings=settings,
            prior=True,
            progress=False,
        )

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(look_up, range(2))
    assert embedded == [1]
    assert any("another process looks up references in" in notice for notice in notices)
    np.testing.assert_array_equal(first.neighbours.rows, second.neighbours.rows)
    assert not list(index.folder.glob("*.partial*"))


def test_labels_of_another_width_are_cut_or_filled_with_blanks():
    assert prior_states([1, 2, 3], 5).tolist() == [1, 2, 3, State.BLANK, State.BLANK]
    assert prior_states([1, 2, 3], 2).tolist() == [1, 2]
    assert prior_states(None, 2).tolist() == [NO_STUDY] * 2


def test_shuffled_images_take_their_earlier_study_along(run):
    dataset = make_dataset(run, "train")
    plain = [dataset[row] for row in range(len(dataset))]
    dataset.shuffle_images(0)
    for row, shown in enumerate(dataset.image_rows):
        for name in ("prior", "prior_mask", "prior_states", "pixel_values"):
            assert torch.equal(dataset[row][name], plain[shown][name])


def test_hiding_hides_the_image_or_the_report_and_never_both():
    mask = torch.tensor([True, True, True, False])
    found = [hide_rows(mask, torch.Generator().manual_seed(draw)).tolist() for draw in range(500)]
    kinds = {"image": [False, True, True, False], "report": [True, False, False, False], "neither": mask.tolist()}
    counts = {name: found.count(kind) for name, kind in kinds.items()}
    assert sum(counts.values()) == 500
    assert counts["image"] == pytest.approx(100, abs=30)
    assert counts["report"] == pytest.approx(100, abs=30)
    for alone in ([True, False, False], [False, True, True], [False, False, False]):
        kept = torch.tensor(alone)
        assert all(torch.equal(hide_rows(kept, torch.Generator().manual_seed(draw)), kept) for draw in range(50))


def test_what_is_hidden_depends_on_seed_epoch_and_study_alone(run):
    def masks(dataset: StudyDataset, order: list[int]) -> dict[int, list[bool]]:
        return {row: dataset[row]["prior_mask"].tolist() for row in order}

    one, other = make_dataset(run, "train", train=True), make_dataset(run, "train", train=True)
    rows = list(range(TRAINING))
    first = masks(one, rows)
    assert first == masks(other, rows[::-1])
    assert first != masks(make_dataset(run, "train", train=True, seed=5), rows)
    other.epoch = 1
    assert first != masks(other, rows)
    assert all(torch.equal(one[row]["prior"], other[row]["prior"]) for row in rows)
    evaluation = masks(make_dataset(run, "train"), rows)
    assert all(evaluation[row][:2] == [row % 2 == 1] * 2 for row in rows)


def test_evaluating_without_priors_changes_what_is_found_where_there_is_one(run, tmp_path):
    for name, more in (("with", []), ("without", ["--no-priors"])):
        status = evaluate_command.main(
            [str(run), "--split", "val", "--output", str(tmp_path / name), "--generation.beams", "1", *more]
        )
        assert status == 0
    told, untold = (predicted(tmp_path / name, "positive_probability") for name in ("with", "without"))
    for row, (one, other) in enumerate(zip(told, untold, strict=True)):
        assert (one == other) == (row % 2 == 0)


def test_the_reporter_writes_what_evaluation_does(run, tmp_path):
    assert evaluate_command.main(
        [str(run), "--split", "val", "--output", str(tmp_path / "e"), "--generation.beams", "1"]
    ) == 0
    studies = make_dataset(run, "val").studies
    by_id = {study.id: study for study in studies}
    priors = [by_id.get(study.prior_id) for study in studies]
    given = [prior and PriorStudy(prior.images[0], prior.report) for prior in priors]
    reporter = Reporter(run)
    assert reporter.takes_priors
    images = [study.images[0] for study in studies]
    written = [report.positive_probability for report in reporter.write(images, GREEDY, given)]
    assert written == predicted(tmp_path / "e", "positive_probability")
    pairs = zip(images, given, strict=True)
    assert [next(reporter.write([image], GREEDY, [prior])).positive_probability for image, prior in pairs] == written
    pictures = [Image.open(image) for image in images]
    given = [prior and PriorStudy(Image.open(prior.images[0]), prior.report) for prior in priors]
    assert [report.positive_probability for report in reporter.write(pictures, GREEDY, given)] == written


def test_the_reporter_takes_an_image_or_a_report_alone(run, monkeypatch):
    reporter, given = Reporter(run), []
    write = reporter.model.write_reports
    monkeypatch.setattr(reporter.model, "write_reports", lambda inputs, **how: given.append(inputs) or write(inputs, **how))
    study = make_dataset(run, "val").studies[0]
    picture = study.images[0]
    list(reporter.write([picture] * 3, GREEDY, [PriorStudy(picture), PriorStudy(report="No edema. Heart large."), None]))
    assert given[0].prior_mask.sum(1).tolist() == [1, 2, 0]
    assert given[0].prior_mask[0, 0]
    assert not given[0].prior_mask[1, 0]
    expected = reporter.retriever.encode_texts(["no edema .", "heart large ."])
    torch.testing.assert_close(given[0].prior[1, 1:3], expected)
    told = dict(zip(FINDINGS, given[0].prior_states[1].tolist(), strict=True))
    assert {finding for finding, state in told.items() if state != State.BLANK} == {"edema", "cardiomegaly"}
    assert (told["edema"], told["cardiomegaly"]) == (State.NEGATIVE, State.POSITIVE)
    # Of the image alone: what the network says of it as the image to report.
    seen = [State[state.upper()] for state in next(reporter.write([picture], GREEDY)).states.values()]
    assert given[0].prior_states[0].tolist() == seen
    assert given[0].prior_states[2].tolist() == [NO_STUDY] * 14
    list(reporter.write([picture], GREEDY))
    assert given[-1].prior is None


def test_what_cannot_be_a_prior_is_told(run):
    for nothing in ({}, {"report": " \n"}):
        with pytest.raises(DataError, match="needs its image, its report or both"):
            PriorStudy(**nothing)
    with pytest.raises(ValueError, match="one prior or None an image, got 2 for 1"):
        list(Reporter(run).write(["x.png"], GREEDY, [None, None]))
    picture = make_dataset(run, "val").studies[0].images[0]
    with pytest.raises(DataError, match=r"missing\.png"):
        list(Reporter(run).write([picture], GREEDY, [PriorStudy(Path("missing.png"))]))


def test_a_run_without_the_input_refuses_a_prior(data, tmp_path):
    assert train_command.main(arguments(data, tmp_path / "run", *STEPS, "--model.no-prior")) == 0
    folder = RunFolder(tmp_path / "run")
    assert not any(name.startswith("prior.") for name in load_file(folder.path / "model.safetensors"))
    assert not list(folder.index_path.glob("priors-*"))
    reporter = Reporter(folder.path)
    assert not reporter.takes_priors
    with pytest.raises(DataError, match="trained without prior studies"):
        list(reporter.write(["x.png"], GREEDY, [PriorStudy(report="Large.")]))


def test_data_without_earlier_studies_make_a_network_without_that_input(data, tmp_path, capsys):
    content = json.loads(data.read_text())
    for record in content["train"] + content["val"]:
        record.pop("patient_id")
    alone = data.parent / "alone.json"
    alone.write_text(json.dumps(content))
    assert train_command.main(arguments(alone, tmp_path / "run", *STEPS)) == 0
    assert "0 of 16 training studies have a prior" in capsys.readouterr().out
    assert not RunFolder(tmp_path / "run").model().config.prior


def test_options_from_before_there_were_priors_mean_none(run):
    """A train.json without the field, as a run is resumed from."""
    stored = json.loads((run / "train.json").read_text())
    assert stored["model"].pop("prior") is True
    (run.parent / "old").mkdir()
    path = run.parent / "old" / "train.json"
    path.write_text(json.dumps(stored))
    assert not train_command.parse_options(["--resume", "--output", str(path.parent)]).model.prior
    assert all(preset_options(preset).model.prior for preset in ("tiny", "paper"))


@pytest.mark.parametrize("retrieved", ["embeddings", "tokens"])
def test_build_gives_the_prior_the_width_of_an_embedding(run, retrieved):
    output = str(run)
    options = train_command.parse_options(["--resume", "--output", output, "--model.retrieved", retrieved])
    folder = RunFolder(run)
    model = build_model(options, folder.tokenizer(), folder.retriever(), None, DataShape(14))
    assert model.config.prior_width == 16
    assert model.config.retrieved_width == (16 if retrieved == "embeddings" else folder.retriever().token_width)
    assert np.prod(model.prior.kind.shape) == 2 * model.config.width
    words, config = model.get_input_embeddings().weight, model.config
    for before, row in zip(PROMPT_TOKENS, config.prior_prompt_token_ids, strict=True):
        expected = [f"{before[:-1]}>{now[1:]}" for now in PROMPT_TOKENS]
        assert folder.tokenizer().convert_ids_to_tokens(row) == expected
        assert torch.equal(words[list(row)], words[list(config.prompt_token_ids)])
