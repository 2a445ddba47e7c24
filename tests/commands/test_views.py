"""The commands on studies of several images: training, evaluation, reports of studies and folders of them."""

from __future__ import annotations

import asyncio
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from PIL import Image

from diffrgen import evaluate as evaluate_command
from diffrgen import generate as generate_command
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.explanation import Explainer
from diffrgen.images import ResizedImages, read_resized
from diffrgen.model import StudyInputs
from diffrgen.pipeline.dataset import collate
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.source import load_source
from diffrgen.reporting.reporter import Reporter
from diffrgen.reporting.study_images import StudyImages
from diffrgen.serving import ServeOptions, UploadLimits
from diffrgen.serving.service import ReportService


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Studies of one, two and three images."""
    return tiny_training.write_studies(tmp_path_factory.mktemp("views") / "data", views=["LATERAL", "LAO"])


@pytest.fixture(scope="module", autouse=True)
def _cache(no_java, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFRGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    """A training of an epoch on all views, of some studies on a single one."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert tiny_training.start(data, run, "--optimiser.epochs", "1", "--image.single-view", "0.3") == 0
    return run


def test_a_training_takes_all_views_and_evaluates_on_them(data, run, tmp_path):
    folder = RunFolder(run)
    model, settings = folder.model(), folder.settings()
    assert model.config.views == 4
    assert model.view_marks.kind.abs().amax(1).min() > 0
    assert settings.data_options(model.config).views == "all"
    assert evaluate_command.main([str(run), "--split", "val", "--resamples", "0"]) == 0
    lines = (run / "evaluation" / "val" / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == 4

    # The third view of a study is of unknown kind, which is recognised.
    views = [json.loads(line)["views"] for line in lines]
    assert [len(kinds) for kinds in views] == [2, 3, 1, 2]
    assert {tuple(kinds[:2]) for kinds in views} == {("frontal",), ("frontal", "lateral")}
    assert "unknown" not in views[1]


def studies_of(folder: Path) -> list[Path]:
    """The images of study 17, of three views, and of study 18, of one."""
    return [folder / f"17{name}.png" for name in ("", "-LATERAL", "-LAO")]


def generate(*arguments: object) -> int:
    return run_command(partial(generate_command.main, [*map(str, arguments), "--generation.beams", "1"]))


def reports(printed: str) -> list[dict]:
    return [json.loads(line) for line in printed.splitlines()]


def test_a_study_is_reported_from_all_its_images_as_in_evaluation(data, run):
    """Its views are recognised or named; with those of the annotation the report is that of the dataset's example."""
    reporter, folder = Reporter(run), RunFolder(run)
    settings = folder.settings()
    source = load_source(settings.data_options(reporter.model.config), settings.phantom, cache=None)
    dataset = folder.dataset(reporter.model.config, settings, source, source.splits.val, key="val", priors=False)
    inputs = StudyInputs.of(collate([dataset[row] for row in range(4)]))
    expected = reporter.model.write_reports(inputs, num_beams=1, max_new_tokens=settings.max_tokens)
    given = [StudyImages(study.images, study.views) for study in source.splits.val]
    written = list(reporter.write(given, GenerationOptions(beams=1, batch_size=4)))
    for row, report in enumerate(written):
        torch.testing.assert_close(
            torch.tensor(list(report.positive_probability.values())), expected.positive_probability[row], atol=1e-4, rtol=0
        )
        assert len(report.views) == len(given[row].images)
    alone = [next(reporter.write([study], GenerationOptions(beams=1))) for study in given]
    assert [report.report for report in alone] == [report.report for report in written]


def test_study_makes_one_report_of_several_images(data, run, capsys, tmp_path):
    images = studies_of(data.parent)
    assert generate(run, "--study", *images, "--json", "--html", tmp_path / "pages") == 0
    (study,) = reports(capsys.readouterr().out)
    assert (study["image"], study["images"]) == (str(images[0]), [str(image) for image in images])
    assert len(study["views"]) == 3
    assert all(len(sentence["heat"]) == 3 for sentence in study["sentences"])
    page = (tmp_path / "pages" / "17.html").read_text()
    assert "17.png, 17-LATERAL.png, 17-LAO.png" in page
    assert generate(run, *images, "--json") == 0
    assert [len(one["views"]) for one in reports(capsys.readouterr().out)] == [1, 1, 1]
    assert generate(run, "--study", *images[:2]) == 0
    assert "17.png, " in capsys.readouterr().out


def test_each_folder_is_a_study(data, run, capsys, tmp_path):
    for name, images in {"one": studies_of(data.parent), "two/below": studies_of(data.parent)[:1], "five": []}.items():
        (tmp_path / "studies" / name).mkdir(parents=True)
        for image in images:
            (tmp_path / "studies" / name / image.name).write_bytes(image.read_bytes())
    for number in range(5):
        Image.fromarray(np.zeros((34, 34), np.uint8)).save(tmp_path / "studies" / "five" / f"{number}.png")
    assert generate(run, "--study", tmp_path / "studies", "--json") == 1
    output = capsys.readouterr()
    failed, *found = sorted(reports(output.out), key=lambda one: len(one.get("images", [1])) if "error" not in one else 0)
    assert "needed 1 to 4 images of a study, got 5" in failed["error"]
    assert "needed 1 to 4 images of a study, got 5" in output.err
    assert [len(one["views"]) for one in found] == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needed at least one image (PNG, JPG or DICOM), folder or pattern, or --study, got none"),
        (["a.png", "--study", "b.png"], "needed either IMAGES or --study, got both"),
        (["--study", "absent.png"], "expected an image file, got absent.png, which does not exist"),
        (["--study", "0.png", "1.png", "2.png", "3.png", "4.png"], "needed 1 to 4 images of a study, got 5: "),
    ],
)
def test_what_is_no_study_is_an_error(data, run, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(data.parent)
    assert generate(run, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_study_with_a_broken_image_is_named_and_the_others_go_on(data, run, tmp_path):
    images, told = studies_of(data.parent), []
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    studies = [StudyImages((images[0], bad)), StudyImages(tuple(images))]
    found = list(Reporter(run).write(studies, GenerationOptions(beams=1), unreadable=lambda *fault: told.append(fault)))
    assert len(found) == 1
    assert told[0][0] == 0
    assert "bad.png" in str(told[0][1])


def held(service: ReportService, path: Path) -> dict[str, str]:
    """Hold an image as the receiver does, and return what names it in a request."""
    sizes = service._reporter.image_sizes
    return {"token": service.held.put(ResizedImages({size: read_resized(path, size) for size in sizes}), "client")}


def ask(service: ReportService, **request: object) -> str:
    return asyncio.run(service.answer(request, "client"))


def test_the_page_reports_an_image_with_its_second_view(data, run):
    frontal, lateral, _ = studies_of(data.parent)
    options = GenerationOptions(beams=1)
    service = ReportService(Explainer(Reporter(run)), (), UploadLimits(), options)
    alone = ask(service, image=held(service, frontal))
    both = ask(service, image=held(service, frontal), second_image=held(service, lateral))
    pictures = [answer.count('as the network input: grey, scaled and cropped"') for answer in (alone, both)]
    assert pictures == [1, 2]
    assert len(service.held) == 0
    assert "A second view requires a first image" in ask(service, example=0, second_image=held(service, lateral))


def test_the_page_of_a_run_of_one_image_refuses_a_second_view(data, one_image_run):
    frontal, lateral, _ = studies_of(data.parent)
    service = ReportService(Explainer(Reporter(one_image_run)), (), UploadLimits(), GenerationOptions())
    answer = ask(service, image=held(service, frontal), second_image=held(service, lateral))
    assert "This model accepts one image per study; please remove the second view." in answer
    assert len(service.held) == 0


@pytest.mark.parametrize(("most", "asked"), [(1, False), (4, True)])
def test_the_form_asks_for_a_second_view_where_the_model_takes_it(most, asked):
    blocks = pytest.importorskip("diffrgen.serving.blocks", reason="the web page needs the extra diffrgen[serve]")
    page = blocks.make_page(None, (), ServeOptions(Path("run")), takes_prior=False, takes_views=most)
    assert ('id="second-image"' in str(page.get_config_file())) == asked


@pytest.fixture(scope="module")
def one_image_run(data, tmp_path_factory) -> Path:
    """A training on the first images alone, of an annotation that has no others."""
    content = json.loads(data.read_text())
    for record in [*content["train"], *content["val"]]:
        record["image_path"], record["views"] = record["image_path"][:1], record["views"][:1]
    single = data.with_name("single.json")
    single.write_text(json.dumps(content))
    run = tmp_path_factory.mktemp("runs") / "first"
    assert tiny_training.start(single, run, "--optimiser.epochs", "1", "--views", "first") == 0
    return run


def test_one_image_a_study_is_the_same_training_whatever_views_are_asked_for(data, one_image_run, tmp_path):
    run = tmp_path / "all"
    assert tiny_training.start(data.with_name("single.json"), run, "--optimiser.epochs", "1") == 0
    assert tiny_training.differences(run, one_image_run) == []
    assert not [name for name in RunFolder(run).model().state_dict() if "view" in name]


def test_a_run_of_one_image_is_evaluated_on_the_first_of_several(data, one_image_run):
    options = ["--split", "val", "--resamples", "0", "--images", str(data.parent)]
    files = data, data.with_name("single.json")
    for file in files:
        assert evaluate_command.main([str(one_image_run), *options, "--data", str(file)]) == 0
    several, one = (one_image_run / "evaluation" / f"val-of-{file.stem}" / "predictions.jsonl" for file in files)
    assert several.read_text() == one.read_text()


def test_a_run_from_before_there_were_views_takes_one_image(data, one_image_run, tmp_path):
    run = Path(shutil.copytree(one_image_run, tmp_path / "run"))
    for name, fields in (("run.json", ("views", "view_index")), ("config.json", ("views", "view_recogniser"))):
        content = json.loads((run / name).read_text())
        for field in fields:
            del (content["data"] if name == "run.json" else content)[field]
        (run / name).write_text(json.dumps(content))
    reporter, settings = Reporter(run), RunFolder(run).settings()
    assert settings.data.views == "all"
    assert settings.data_options(reporter.model.config).views == "first"
    assert len(next(reporter.write([studies_of(data.parent)[0]], GenerationOptions(beams=1))).report) > 0
    several = StudyImages(tuple(studies_of(data.parent)))
    with pytest.raises(DataError, match=r"this run's network accepts 1 image\(s\) per study, got 3: .*17.png, .*17-LATERAL.png"):
        list(reporter.write([several], GenerationOptions()))
