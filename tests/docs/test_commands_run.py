"""The commands of README and guide, run one after the other in one folder as a reader would, at a tiny budget.

A command runs as it is shown, with options of size alone behind it (`size_of`): fewer and smaller studies, narrower layers,
fewer steps. Small invented data lie where the pages have the reader's own. The trainings of a study, each a process of its
own otherwise, run in this one. Installing is left to continuous integration, which does it by the same lines, and a test in
test_readme.py compares the two.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path

import chexbert_files
import numpy as np
import promptmrg_files
import pytest
import tiny_training
import torch
from documented_commands import ROOT, ShownCommand, shown_commands
from page_server import serving
from PIL import Image
from small_mimic import draw_chest, mimic_content

from diffrgen.experiments import runner
from diffrgen.experiments.job import Job
from diffrgen.experiments.worker import run_job
from diffrgen.pipeline.settings import load_json

pytest.importorskip("pydicom", reason="the README's DICOM file needs the extra diffrgen[dicom]")
from dicom_files import write_dicom
from mimic_archive import write_archive

pytestmark = pytest.mark.usefixtures("no_java")

PAGES = (ROOT / "README.md", ROOT / "docs" / "guide.md")
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
STEPS = ("--max-steps", "2", "--workers", "0", "--validation-studies", "2", "--generation.beams", "1")
DATA = (
    *("--image.size", "32", "--image.resize", "34", "--text.min-frequency", "1", "--text.max-tokens", "12"),
    *("--phantom.studies", "24", "--phantom.size", "64", "--optimiser.batch-size", "4"),
    *("--retriever.max-steps", "1", "--retriever.batch-size", "8", "--retriever.neighbours", "3"),
    *("--retriever.embedding-width", "16", "--model.width", "16", "--model.heads", "2"),
)
NETWORK = ("--model.encoder", "tiny", "--model.decoder", "nano")
# What the small checkpoint of PromptMRG's format was made with, in place of ResNet-101 and BERT-base.
PROMPTMRG = ("--model.encoder", "resnet", "--model.decoder", "bert")
STUDY = ("--quick", "--variants", "without-difference", "--seeds", "1", "--studies", "24", "--epochs", "1", "--processes", "1")


def size_of(command: ShownCommand) -> tuple[str, ...]:
    """The options that make a command small; what a start brings is not given again, and no number of steps is raised."""
    shown = command.arguments
    if command.module == "experiments":
        return STUDY
    if command.module == "evaluate":
        return () if "--predictions" in shown else ("--generation.beams", "1", "--resamples", "20")
    if command.module == "generate":
        return ("--generation.beams", "1")
    if command.module != "train":
        return ()
    steps = STEPS[2:] if "--max-steps" in shown else STEPS
    if "promptmrg.pth" in shown:
        return (*steps, *DATA, *PROMPTMRG)
    return steps if "--init" in shown else (*steps, *DATA, *NETWORK)


def lay_out(folder: Path) -> None:
    """Write what the pages expect of the reader: archives, images, an annotation of one's own, published checkpoints."""
    write_archive(folder, content=mimic_content(), picture=lambda row: draw_chest(row.dicom), version="2.1.0")
    for name in ("chest.png", "first.png"):
        draw_chest(name).save(folder / name)
    (folder / "more" / "patient").mkdir(parents=True)
    stored = (16 * np.asarray(draw_chest("stored"), dtype=np.uint16)).clip(0, 4095)
    for path in (folder / "second.dcm", folder / "more" / "patient" / "third.dcm"):
        write_dicom(path, stored)
    own = tiny_training.write_studies(folder / "images")
    shutil.copy(own, folder / "own.json")
    promptmrg_files.write_promptmrg(folder)
    chexbert_files.write_chexbert(folder)


def name_vocabulary(command: ShownCommand, folder: Path) -> None:
    """Put the vocabulary of the command's checkpoint where the pages have that of BERT-base."""
    vocabulary = folder / "vocab.txt" if "chexbert.pth" in command.arguments else folder / "bert" / "vocab.txt"
    (folder / "bert-base-uncased").mkdir(exist_ok=True)
    shutil.copy(vocabulary, folder / "bert-base-uncased")


class Training:
    """Stands for the process of a study's training, which is over when it has begun."""

    stdin, returncode = None, 0

    def __init__(self, command: list[str], **_: object) -> None:
        job_folder = Path(command[-1])
        run_job(load_json(Job, Job.path(job_folder)), job_folder)

    def poll(self) -> int:
        return self.returncode

    wait = poll


def run(command: ShownCommand, folder: Path) -> None:
    """Run it in this process; the page is served by another one, asked for once, and ended as by Ctrl-C."""
    if command.module == "serve":
        pytest.importorskip("gradio", reason="the web page needs the extra diffrgen[serve]")
        httpx = pytest.importorskip("httpx", reason="asking the page needs httpx")
        (served,) = command.arguments
        with serving(folder / served, folder / "service") as server:
            assert httpx.get(server.url, timeout=300).status_code == 200
        return
    name_vocabulary(command, folder)
    module = command.module + (".__main__" if command.module in {"experiments", "mechanisms"} else "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "Popen", Training)
        assert importlib.import_module(f"diffrgen.{module}").main([*command.arguments, *size_of(command)]) == 0


def run_python(code: str) -> dict[str, object]:
    """Run a Python block where the names that it takes as given are there; return what it defines."""
    rows, patches, masks, heads, width = 3, 49, 3, 2, 4
    q = torch.randn(1, rows, masks, heads, width)
    k, v = (torch.randn(1, patches, masks, heads, width) for _ in "kv")
    names: dict[str, object] = {"q": q, "k": k, "v": v, "alpha": torch.full((1, masks), 1 / masks)}
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, no_java: None) -> Path:
    """The folder in which every command of both pages ran."""
    folder = tmp_path_factory.mktemp("reader")
    lay_out(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for page in PAGES:
            for command in shown_commands(page):
                run(command, folder)
    return folder


def test_each_run_is_trained_and_scored_on_its_own_data(folder: Path) -> None:
    scored = {"tiny": "test", "mimic": "test", "promptmrg": "test"}
    for name in ("tiny", "mimic", "own", "promptmrg"):
        assert (folder / "runs" / name / "model.safetensors").is_file()
        split = scored.get(name)
        if split is not None:
            rows = json.loads((folder / "runs" / name / "evaluation" / split / "metrics.json").read_text())
            assert 0 <= rows["DiffRGenNet"]["nlg"]["bleu_1"] <= 1
    counts = {split: len(records) for split, records in json.loads((folder / "mimic" / "annotation.json").read_text()).items()}
    assert counts == {"train": 20, "val": 4, "test": 6}


def test_every_image_has_its_page(folder: Path) -> None:
    pages = {path.stem for path in (folder / "pages").glob("*.html")}
    assert {"first", "second", "third"} <= pages


def test_the_last_evaluation_used_chexbert(folder: Path) -> None:
    found = (folder / "runs" / "mimic" / "evaluation" / "test" / "metrics.json").read_text()
    assert "chexbert" in found.lower()


def test_the_study_compares_what_was_asked_for(folder: Path) -> None:
    results = json.loads(next((folder / "runs").glob("experiments*/table2.json")).read_text())
    assert "without-difference" in json.dumps(results)


def test_python_blocks_of_the_readme_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    report, operator = (run_python(block) for block in PYTHON.findall(PAGES[0].read_text(encoding="utf-8")))
    assert report["report"].report
    assert Image.open(folder / "chest.png").size == (80, 72)
    assert operator["out"].shape == (1, 3, 2, 4)
    assert torch.isfinite(operator["out"]).all()
