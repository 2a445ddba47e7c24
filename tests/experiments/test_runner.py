"""The runner: a study end to end, trainings that were killed go on, finished ones are not done again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_runs import write_split_studies
from tiny_training import arguments, write_studies
from warm_process import WarmProcess

from diffrgen import train as train_command
from diffrgen.errors import DataError
from diffrgen.experiments import runner
from diffrgen.experiments.__main__ import main
from diffrgen.experiments.job import Job, Scoring
from diffrgen.experiments.record import RunRecord
from diffrgen.experiments.runner import Runner, jobs_of
from diffrgen.experiments.shared import make_shared, open_job_folder
from diffrgen.experiments.variants import STUDIES
from diffrgen.training.checkpoints import list_checkpoints, newest_complete
from diffrgen.training.options import TrainOptions

PATIENCE = 200


@pytest.fixture(scope="module", autouse=True)
def quiet(no_java):
    """One thread a training, without Java."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory, quiet) -> Path:
    return write_split_studies(tmp_path_factory.mktemp("data") / "studies")


@pytest.fixture(scope="module")
def options(data) -> TrainOptions:
    parsed = train_command.parse_options(arguments(data, Path("full-0")))
    return replace(parsed, decoded=replace(parsed.decoded, image_cache=False))


@pytest.fixture(scope="module")
def shared(options, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("experiments") / "shared"
    assert make_shared(options, folder) == 9  # three epochs of 12 studies in batches of 4
    return folder


@pytest.fixture(scope="module")
def unbroken(options, shared) -> RunRecord:
    return run_one(options, shared, shared.parent / "unbroken")


def one_job(options: TrainOptions, output: Path, scoring: Scoring | None = None) -> Job:
    study = replace(STUDIES["table2"], rows=STUDIES["table2"].rows[:1])
    return jobs_of(study, options, seeds=1, output=output, scoring=scoring)[0]


def run_one(options: TrainOptions, shared: Path, output: Path, scoring: Scoring | None = None) -> RunRecord:
    """Train in a process that has imported torch before; those of the test of a study begin as a user's do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "Popen", WarmProcess)
        (record,) = Runner(output, shared, processes=1, steps=9).run([one_job(options, output, scoring)], progress=False)
    return record


def same(record: RunRecord, other: RunRecord) -> bool:
    """Whether two runs found the same, to the last digit that is kept."""
    return (record.scores, record.per_study, record.routing) == (other.scores, other.per_study, other.routing)


def test_a_study_end_to_end_and_once_only(data, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    command = ["table2", "--quick", "--variants", "without-difference", "--seeds", "1", "--output", str(output)]
    command += ["--data", str(data), "--images", str(data.parent), "--no-image-cache", "--epochs", "1"]
    assert main(command) == 0
    assert "| without feature difference |" in capsys.readouterr().out
    runs = {path.parent.name: RunRecord.load(path) for path in output.glob("runs/*/seed-0.json")}
    assert set(runs) == {"full", "without-difference"}
    assert runs["full"].parameters > runs["without-difference"].parameters
    assert runs["without-difference"].options.model.difference_metrics == ()
    # A study's numbers are those of the metrics: here the sum of true positives over all 13 diseases.
    found = runs["full"].numbers("clinical_13")[:, 0].sum()
    per_finding = runs["full"].scores["clinical_13"]["per_finding"]
    assert found == sum(round((f["recall"] or 0.0) * f["support"]) for f in per_finding)
    results = json.loads((output / "table2.json").read_text())
    # The truth of statements is known of the phantom alone.
    assert results["scores"]["full"]["change_f1"] is None
    assert not any((output / "work").iterdir())

    before = (output / "runs" / "full" / "seed-0.json").stat().st_mtime_ns
    monkeypatch.setattr(Runner, "_start", lambda *_: pytest.fail("a finished training was started again"))
    assert main(command) == 0
    assert (output / "runs" / "full" / "seed-0.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="other options than those asked for"):
        main([*command, "--epochs", "2"])


def test_a_killed_training_is_named_and_gone_on_with(options, shared, unbroken, tmp_path, monkeypatch):
    started = []
    start, sleep = Runner._start, time.sleep
    monkeypatch.setattr(Runner, "_start", lambda self, job: started.append(start(self, job)) or started[-1])

    def sleep_and_kill(_: float) -> None:
        sleep(0.02)
        if len(started) == 1 and list_checkpoints(started[0].folder / "checkpoints"):
            started[0].process.kill()

    with monkeypatch.context() as patch:
        patch.setattr("diffrgen.experiments.runner.time.sleep", sleep_and_kill)
        with pytest.raises(DataError, match="ended with status -9"):
            run_one(options, shared, tmp_path)
    folder = started[0].folder
    stopped_at = newest_complete(folder / "checkpoints")
    assert stopped_at is not None
    log = (folder / "log.txt").stat().st_size

    kept = []
    monkeypatch.setattr("diffrgen.experiments.runner.discard", kept.append)
    assert same(run_one(options, shared, tmp_path), unbroken)
    assert kept == [folder]
    assert len(started) == 2
    # The bar of the second start begins where the first was killed.
    done = int(stopped_at.name.split("-")[1])
    said = (folder / "log.txt").read_bytes()[log:].decode()
    assert f"{done}/9 " in said
    assert "0/9 " not in said


def test_a_training_stops_with_its_runner(options, shared, unbroken, tmp_path):
    job = one_job(options, tmp_path)
    folder = tmp_path / "work" / job.name
    open_job_folder(job, folder, shared)
    command = [sys.executable, "-m", "diffrgen.experiments.worker", str(folder)]
    # As many threads as a runner of one process gives its worker: with others, sums are rounded in another order.
    environment = {"OMP_NUM_THREADS": str(os.cpu_count() or 1), **os.environ}
    with (tmp_path / "said.txt").open("wb") as log:
        process = WarmProcess(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment)
        until = time.monotonic() + PATIENCE
        while not list_checkpoints(folder / "checkpoints") and time.monotonic() < until:
            time.sleep(0.02)
        # What the end of the runner does to the pipe that it holds.
        process.stdin.close()
        process.wait(PATIENCE)
    said = (tmp_path / "said.txt").read_text()
    assert process.returncode == 143, said
    assert "which is saved" in said
    assert not job.record.exists()
    assert same(run_one(options, shared, tmp_path), unbroken)


def test_a_training_that_fails_is_named_with_its_last_words(options, shared, tmp_path):
    job = one_job(options, tmp_path)
    open_job_folder(job, tmp_path / "work" / job.name, shared)
    (tmp_path / "work" / job.name / "index" / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"status 2; its last words \(log.txt\):(?s:.*)manifest"):
        run_one(options, shared, tmp_path)


def test_an_interrupted_training_with_other_options_is_not_gone_on_with(options, shared, tmp_path):
    job = one_job(options, tmp_path)
    open_job_folder(job, tmp_path / "work" / job.name, shared)
    with pytest.raises(DataError, match="holds a training with other options"):
        run_one(replace(options, validation_studies=1), shared, tmp_path)


def test_shared_parts_belong_to_their_options(options, shared):
    with pytest.raises(DataError, match="was made with other options"):
        make_shared(replace(options, validation_studies=1), shared)


def test_data_without_a_test_split_are_refused_before_anything_is_made(tmp_path):
    data = write_studies(tmp_path / "data")
    options = train_command.parse_options(arguments(data, tmp_path / "unused"))
    with pytest.raises(DataError, match="needed studies in the split 'test', got none"):
        make_shared(options, tmp_path / "study" / "shared")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_frozen_encoder_is_trained_once_and_networks_are_scored_on_the_split_that_is_asked_for(
    data, tmp_path, monkeypatch
):
    parsed = train_command.parse_options(
        arguments(data, Path("full-0"), "--pretrain.epochs", "1", "--freeze", "encoder", "--stored-crops", "1")
    )
    options = replace(parsed, decoded=replace(parsed.decoded, image_cache_folder=tmp_path / "cache"))
    shared = tmp_path / "shared"
    make_shared(options, shared)  # with the retrieved reports of the test split
    monkeypatch.setattr(runner, "discard", lambda _: None)
    folder = tmp_path / "out"
    record = run_one(options, shared, folder, Scoring("val", "r2gen-iu"))
    assert record.studies == tuple(study["id"] for study in json.loads(data.read_text())["val"])
    assert "training the encoder on labels" not in (folder / "work" / "full-0" / "log.txt").read_text()
    with pytest.raises(DataError, match="other options than those asked for"):
        run_one(options, shared, folder, Scoring("test", "r2gen-iu"))
    assert run_one(options, shared, tmp_path / "other").scoring == Scoring("test", "promptmrg")
