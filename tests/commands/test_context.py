"""The sections that are known before the images are read: rows of the memory, the phantom's indications, and the commands."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training
import torch
from tiny_network import FINDINGS, RETRIEVED_WIDTH, random_batch, tiny_network

from diffrgen import evaluate, generate
from diffrgen.errors import DataError
from diffrgen.evaluation.options import ReXrankOptions
from diffrgen.evaluation.result import CONTEXT_ROW, MODEL_ROW
from diffrgen.evaluation.rexrank import context_sections, write_rexrank
from diffrgen.evaluation.scoring import INDICATION_ROW
from diffrgen.labels import FINDINGS as NAMES
from diffrgen.metrics import score_corpus
from diffrgen.model import StudyInputs
from diffrgen.phantom import PhantomOptions
from diffrgen.phantom.language.indications import COMPLAINTS, write_indication
from diffrgen.phantom.patients.patient import patient_rng, sample_patient
from diffrgen.pipeline.contexts import Contexts, context_texts, hide_sections, nearest_contexts
from diffrgen.pipeline.options import GenerationOptions
from diffrgen.records import NO_SECTIONS, Sections
from diffrgen.reporting.reporter import Reporter
from diffrgen.reporting.writer import write_reports
from diffrgen.text import apply_protocol

SECTIONS = 2
PROJECTION = tuple(f"projection.{layer}.{name}" for layer in (0, 1) for name in ("weight", "bias"))


def with_context(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add two sections to the three studies of `batch`: both, the first alone, and none."""
    draw = torch.Generator().manual_seed(5)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    return {**batch, "context": torch.randn(3, SECTIONS, RETRIEVED_WIDTH, generator=draw), "context_mask": mask}


def test_rows_of_the_memory_and_of_the_classifier_are_those_of_the_equations() -> None:
    network = tiny_network(context=("indication", "history"))
    batch = with_context(random_batch())
    draw = torch.Generator().manual_seed(6)
    mean, std = torch.randn(2, SECTIONS, RETRIEVED_WIDTH, generator=draw)
    std = std.abs() + 0.1
    std[1, 3] = 0.0
    assert not network.context.is_standardised
    network.context.standardise(mean, std)
    assert network.context.is_standardised
    with torch.no_grad():
        encoded = network.encode(StudyInputs.of(batch))
        without = network.encode(StudyInputs.of(random_batch()))
    linear, norm = network.context.projection
    weight, bias, mark, readout = (
        part.detach().double() for part in (linear.weight, linear.bias, network.context.mark, network.context.readout)
    )
    divisor = std.double()
    divisor[1, 3] = 1.0  # a component that does not vary
    projected = (batch["context"].double() - mean.double()) / divisor @ weight.T + bias
    centred = projected - projected.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
    rows = scaled * norm.weight.detach().double() + norm.bias.detach().double() + mark  # (3, 2, d)
    memory = network.memory_projection
    expected = rows @ memory.weight.detach().double().T + memory.bias.detach().double()

    assert torch.allclose(encoded.last_hidden_state[:, -SECTIONS:].double(), expected, atol=1e-5)
    assert encoded.memory_mask[:, -SECTIONS:].tolist() == batch["context_mask"].tolist()
    assert torch.equal(encoded.last_hidden_state[:, :-SECTIONS], without.last_hidden_state[:, :-SECTIONS])
    assert not without.memory_mask[:, -SECTIONS:].any()
    means = torch.stack([rows[0].mean(0), rows[1, 0], torch.zeros_like(rows[2, 0])])
    added = torch.zeros(3, 4, FINDINGS, dtype=torch.float64)
    for study in range(3):
        for finding in range(FINDINGS):
            added[study, :, finding] = readout[finding] @ means[study]
    difference = encoded.disease_logits - without.disease_logits
    assert torch.allclose(difference.double(), added, atol=1e-4)
    assert added[:2].abs().min() > 1e-3


def test_absent_sections_leave_the_network_that_takes_none() -> None:
    plain, taking = tiny_network(), tiny_network(context=("indication", "history"))
    shared = plain.state_dict()
    assert not any("context" in name for name in shared)
    assert set(taking.state_dict()) - set(shared) == {
        f"context.{name}" for name in ("mark", "readout", "mean", "std", *PROJECTION)
    }
    taking.load_state_dict(shared, strict=False)
    batch = with_context(random_batch())
    batch["context_mask"][:] = False
    with torch.no_grad():
        expected = plain(**random_batch())
        for given in (batch, random_batch()):
            assert torch.allclose(taking(**given).logits, expected.logits, atol=1e-6)
            assert torch.equal(taking(**given).disease_logits, expected.disease_logits)
    with pytest.raises(ValueError, match=r"expected no context, for the network was made without that input"):
        plain(**batch)
    with pytest.raises(DataError, match="context: expected each section once, got history history"):
        tiny_network(context=("history", "history"))


def test_texts_are_embedded_once_and_hidden_three_times_in_ten() -> None:
    contexts = Contexts(np.eye(3, dtype=np.float32), np.array([[0, 1], [-1, 2], [-1, -1]]))
    features, mask = contexts.gather(1)
    assert features.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert mask.tolist() == [False, True]
    # The second section's are the second and the third row of the identity.
    mean, std = contexts.moments()
    assert mean.tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
    assert std.tolist() == [[0, 0, 0], [0, 0.5, 0.5]]
    asked = Contexts(np.eye(3, dtype=np.float32), np.array([[0, 2], [-1, 2], [0, 1], [-1, -1]]))
    # Cosines to the three studies: 1/2, 1/sqrt(2) and 0; then 0, 1, 0; 1, 0, 0; and nothing at all.
    assert nearest_contexts(contexts, asked).tolist() == [1, 1, 0, 0]
    generator = torch.Generator().manual_seed(0)
    kept = hide_sections(torch.tensor([True, False]).repeat(20_000, 1), generator)
    assert kept[:, 0].float().mean().item() == pytest.approx(0.7, abs=0.015)
    assert not kept[:, 1].any()
    told = Sections(indication="Cough, fever.", history="")
    assert context_texts(told, ("history", "indication"), rules="mimic") == ["", "cough fever ."]


def test_half_of_the_phantoms_indications_name_a_disease_that_is_there() -> None:
    options = PhantomOptions(studies=3, seed=4)
    named = diseased = 0
    for index in range(1500):
        study = sample_patient(options, index, 1).studies[0]
        text = write_indication(study, patient_rng(options, index, stream=2))
        complaint, _, disease = text.partition(" Evaluate for ")
        assert complaint in COMPLAINTS
        present = {state.finding for state in study.present}
        diseased += bool(present)
        if disease:
            named += 1
            assert disease.removesuffix(".") in present
    assert named / diseased == pytest.approx(0.5, abs=0.05)


@pytest.fixture(scope="module")
def told_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of twelve steps that takes indication and history, which half of its studies have."""
    folder = tmp_path_factory.mktemp("told")
    data = tiny_training.write_studies(folder / "studies")
    splits = json.loads(data.read_text())
    for studies in splits.values():
        for number, study in enumerate(studies):
            study["indication"] = f"Evaluate for {NAMES[number % len(NAMES)]}."
            study |= {"history": "Known fracture."} if number % 2 else {}
    data.write_text(json.dumps(splits))
    assert tiny_training.start(data, folder / "run", "--model.context", "indication", "history") == 0
    return folder / "run"


def test_an_indication_changes_the_report_and_is_attended_to(
    told_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = told_run.parent / "studies" / "0.png"
    arguments = [str(told_run), str(image), "--json", "--generation.beams", "1"]
    assert generate.main(arguments) == 0
    plain = json.loads(capsys.readouterr().out)
    assert generate.main([*arguments, "--indication", "Evaluate for edema.", "--history", "Known fracture."]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["positive_probability"] != plain["positive_probability"]
    for before, after in zip(plain["sentences"], told["sentences"], strict=False):
        assert before["attention"]["context"] == 0
        assert after["attention"]["context"] > 0
        assert sum(after["attention"].values()) == pytest.approx(1, abs=1e-3)


def test_what_a_run_does_not_take_is_refused(told_run: Path, finished_run: Path) -> None:
    image = told_run.parent / "studies" / "0.png"
    with pytest.raises(DataError, match=r"trained without the indication of a study and accepts no such text; remove it"):
        generate.main([str(finished_run), str(image), "--indication", "Cough."])
    with pytest.raises(DataError, match="trained without the technique of a study and accepts indication and history"):
        list(Reporter(told_run).write([image], context=[Sections(technique="PA.")]))
    with pytest.raises(DataError, match="--history requires a text with a word, got ' '"):
        generate.main([str(told_run), str(image), "--history", " "])
    with pytest.raises(DataError, match="--indication and --history require one image or study, got 20"):
        generate.main([str(told_run), str(image.parent), "--history", "COPD."])
    with pytest.raises(DataError, match=r"needed a run that was trained with --model\.context for --shuffled-context"):
        evaluate.main([str(finished_run), "--split", "val", "--shuffled-context"])


def test_evaluation_shuffles_the_context_and_scores_it_alone(told_run: Path, tmp_path: Path, no_java: None) -> None:
    out = tmp_path / "scores"
    # With candidates, which every row chooses among, as the preset iu does.
    decoding = ["--generation.beams", "1", "--generation.candidates", "2"]
    command = [str(told_run), "--split", "val", "--shuffled-context", *decoding, "--output", str(out)]
    assert evaluate.main([*command, "--resamples", "0"]) == 0
    rows = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert {MODEL_ROW, CONTEXT_ROW, INDICATION_ROW} <= rows.keys()
    # The contexts of val are those of the first training studies, word for word, so that theirs are the nearest.
    splits = json.loads((told_run.parent / "studies" / "annotation.json").read_text())
    references = [study["report"] for study in splits["val"]]
    copied = [study["report"] for study in splits["train"][: len(references)]]
    expected = score_corpus(*apply_protocol("promptmrg", copied, references), resamples=0)
    assert rows[INDICATION_ROW]["nlg"] == pytest.approx(expected.values)


def test_a_changed_indication_and_one_that_no_study_has_are_named(told_run: Path, tmp_path: Path) -> None:
    data = told_run.parent / "studies" / "annotation.json"
    before = data.read_text()
    try:
        splits = json.loads(before)
        splits["val"][1]["indication"] = "Another one."
        data.write_text(json.dumps(splits))
        with pytest.raises(DataError, match=r"report, labels or images changed in val: '17'"):
            evaluate.main([str(told_run), "--split", "val"])
    finally:
        data.write_text(before)
    with pytest.raises(DataError, match=r"needed training studies with the field 'technique', which --model\.context asks"):
        tiny_training.start(data, tmp_path / "run", "--model.context", "technique")


TOKEN = "a-token-of-nobody"
KNOWN = Sections(indication="Evaluate for edema.", history="Known fracture.")


def probabilities(run: Path, image: Path, *contexts: Sections) -> list[dict[str, float]]:
    """The classifier's probabilities of a positive finding with each context, as the model gives them when asked directly."""
    reporter = Reporter(run)
    return [next(reporter.write([image], context=[context])).positive_probability for context in contexts]


def test_the_api_takes_what_is_known_before_the_images_are_read(
    told_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="the API needs the extra diffrgen[api]")
    httpx = pytest.importorskip("httpx", reason="a client of the API needs httpx")
    from diffrgen.serving.api.application import made_application
    from diffrgen.serving.options import ServeOptions

    monkeypatch.setenv("DIFFRGEN_API_TOKEN", TOKEN)
    image = told_run.parent / "studies" / "0.png"

    async def asked(application: object) -> list[Any]:
        transport = httpx.ASGITransport(application)
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            answers = [await client.get("/openapi.json")]
            for data in ({}, KNOWN.to_record(), {"history": KNOWN.history}, {"technique": "PA."}, {"indication": "x" * 5001}):
                files = {"images": ("image.png", image.read_bytes())}
                answers.append(await client.post("/v1/reports", files=files, data=data))
            return answers

    with made_application(ServeOptions(told_run, api=True), tmp_path) as application:
        description, *answers = asyncio.run(asked(application))
    body = description.json()["paths"]["/v1/reports"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(body["properties"]) == {"images", "prior_image", "prior_report", "indication", "history"}
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422, 413], [answer.text for answer in answers]
    told = [{name: each["probability"] for name, each in answer.json()["findings"].items()} for answer in answers[:3]]
    assert told == probabilities(told_run, image, NO_SECTIONS, KNOWN, Sections(history=KNOWN.history))
    assert told[0] != told[1] != told[2] != told[0]


def test_the_page_asks_for_what_its_run_takes_and_passes_it_on(told_run: Path, finished_run: Path) -> None:
    blocks = pytest.importorskip("diffrgen.serving.blocks", reason="the web page needs the extra diffrgen[serve]")
    from diffrgen.explanation import Explainer
    from diffrgen.serving.gallery import Example
    from diffrgen.serving.options import ServeOptions, UploadLimits
    from diffrgen.serving.service import ReportService

    image = told_run.parent / "studies" / "0.png"

    def service(run: Path) -> ReportService:
        examples = (Example(image, "An image", "", ""),)
        return ReportService(Explainer(Reporter(run)), examples, UploadLimits(), GenerationOptions(beams=1))

    def page(takes: tuple[str, ...]) -> str:
        options = ServeOptions(Path("run"))
        return str(blocks.make_page(None, (), options, takes_prior=False, takes_context=takes).get_config_file())

    def answer(asked: ReportService, **request: str) -> str:
        return asyncio.run(asked.answer({"example": 0, **request}, "client"))

    told = service(told_run)
    for context in (NO_SECTIONS, KNOWN):
        (expected,) = probabilities(told_run, image, context)
        shown = answer(told, **context.to_record())
        for name, probability in expected.items():
            assert f"probability that {name} is present: {probability:.2f}" in shown
    assert "The history is too long: at most 5000 characters are accepted." in answer(told, history="x" * 5001)
    refused = answer(service(finished_run), indication="Cough.")
    assert "This model was trained without the indication of a study; please remove it." in refused
    asks = [(f'id="{name}"' in page(("indication",))) for name in ("indication", "history")]
    assert asks == [True, False]
    assert 'id="known-title"' not in page(("technique",))


def test_rexranks_records_bring_the_context(told_run: Path, tmp_path: Path) -> None:
    assert context_sections("Age:60-70.Gender:M.INDICATION: cough, ___. History: COPD. Comparison: None.") == Sections(
        indication="cough, ___.", history="COPD.", comparison="None."
    )
    assert context_sections(None) == context_sections("No label.") == NO_SECTIONS
    contexts = {"a": "Indication: Evaluate for edema.History: Known fracture.", "b": "Age:60-70.", "c": 3}
    content = {name: {"image_path": ["0.png"], "context": context} for name, context in contexts.items()}
    (tmp_path / "in.json").write_text(json.dumps(content))
    written = []

    def kept(*given: Any, **more: Any) -> Any:
        written.extend(write_reports(*given, **more))
        return written

    options = ReXrankOptions(told_run, tmp_path / "in.json", tmp_path / "out.json", told_run.parent / "studies", workers=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffrgen.evaluation.rexrank.write_reports", kept)
        assert write_rexrank(options) == 3
    image = told_run.parent / "studies" / "0.png"
    known, plain = probabilities(told_run, image, KNOWN, NO_SECTIONS)
    for report, expected in zip(written, (known, plain, plain), strict=True):
        assert report.positive_probability == pytest.approx(expected, abs=1e-4)
    assert known != plain
    (tmp_path / "in.json").write_text(json.dumps({"b": content["b"]}))
    with pytest.warns(RuntimeWarning, match="no record's context has the indication and history that the run takes"):
        write_rexrank(replace(options, save_json=tmp_path / "other.json"))
