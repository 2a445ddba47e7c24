"""Sharing a run: what goes up is exactly the allow-list, nothing of a data set unasked, no folder of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_hub import Repository, used_hub

from diffrgen import index as index_command
from diffrgen import share as share_command
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.sharing.upload import ShareOptions, share

pytestmark = pytest.mark.usefixtures("no_java")

CORE = {
    *("README.md", "curves.png", "run.json", "train.json", "training.json", "data.json", "metrics.jsonl"),
    *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("retriever/config.json", "retriever/model.safetensors", "retriever/tokenizer.json"),
    *("retriever/tokenizer_config.json", "retriever/fit.json"),
    *("evaluation/val/metrics.json", "evaluation/val/table.md", "evaluation/val/evaluation.json"),
}
INDEX = {"index/manifest.json", "index/studies.json", "index/embeddings.npy", "index/index.faiss"}


@pytest.fixture
def hub(tmp_path):
    with used_hub(str(tmp_path / "hub")) as hub:
        yield hub


def call(*arguments: object) -> int:
    return run_command(lambda: share_command.main([*map(str, arguments)]))


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def as_phantom(run: Path) -> Path:
    settings = json.loads((run / "run.json").read_text())
    change(run / "run.json", data={**settings["data"], "data": "phantom"})
    return run


def test_other_data_than_the_phantom_are_refused_before_anything_is_sent(finished_run, hub, capsys):
    card = (finished_run / "README.md").read_bytes()
    assert call(finished_run, "me/run") == 2
    message = capsys.readouterr().err
    assert "16 training studies" in message
    assert "--i-may-share-the-reports" in message
    assert "--without-reports" in message
    assert "MIMIC-CXR" in message
    assert hub.requests == []
    assert (finished_run / "README.md").read_bytes() == card


def test_exactly_the_allowed_files_go_up(own_run, hub):
    """Whatever else lies in the folder, a pickle or a data set among it, stays."""
    for stray in ("weights.bin", "index/notes.json", "retriever/deep/config.json", "images/1.png", ".env", "model.pkl"):
        (own_run / stray).parent.mkdir(parents=True, exist_ok=True)
        (own_run / stray).write_text("mine")
    assert (own_run / "evaluation" / "val" / "predictions.jsonl").is_file()
    assert any((own_run / "checkpoints").rglob("*.pkl"))
    assert call(own_run, "me/run", "--i-may-share-the-reports") == 0
    repository = hub.repositories["me/run"]
    assert set(repository.files) == CORE | INDEX
    assert repository.private
    assert len(repository.messages) == 1
    for name in ("model.safetensors", "tokenizer.json", "index/studies.json", "README.md", "curves.png"):
        assert repository.files[name] == (own_run / name).read_bytes()


def test_the_phantom_may_be_shared(own_run, hub, capsys):
    assert call(as_phantom(own_run), "me/run", "--public") == 0
    assert set(hub.repositories["me/run"].files) == CORE | INDEX
    assert not hub.repositories["me/run"].private
    assert f"shared: {hub.url}/me/run/commit/" in capsys.readouterr().out
    assert b"license: mit" in hub.repositories["me/run"].files["README.md"]


def test_without_reports_no_report_goes_up(finished_run, hub, capsys):
    reports = json.loads((finished_run / "index" / "studies.json").read_text())["texts"]
    assert call(finished_run, "me/run", "--without-reports") == 0
    assert "left out: the retrieval index" in capsys.readouterr().out
    files = hub.repositories["me/run"].files
    assert set(files) == CORE
    assert [name for name, data in files.items() for text in reports if text.encode() in data] == []


def test_no_folder_of_this_machine_goes_up(own_run, hub):
    change(own_run / "config.json", _name_or_path="C:\\Users\\me\\resnet", other=["/home/me/weights"])
    train = json.loads((own_run / "train.json").read_text())
    change(own_run / "train.json", model={**train["model"], "encoder": "/home/me/resnet-101"})
    assert call(own_run, "me/run", "--without-reports") == 0
    files = hub.repositories["me/run"].files
    told = str(own_run.parent).encode()
    assert [name for name, data in files.items() if told in data or b"/home/me" in data or b"Users" in data] == []
    assert json.loads(files["run.json"])["data"]["data"] == "annotation.json"
    assert json.loads(files["train.json"])["model"]["encoder"] == "resnet-101"
    assert json.loads(files["config.json"])["other"] == ["weights"]


def test_a_public_repository_is_not_taken_for_a_private_upload(own_run, hub):
    hub.repositories["me/run"] = Repository(private=False, files={"kept": b""})
    with pytest.raises(DataError, match="this repository is public; pass --public"):
        share(ShareOptions(as_phantom(own_run), "me/run"))
    assert set(hub.repositories["me/run"].files) == {"kept"}


def test_dry_run_lists_what_would_go_up(finished_run, hub, capsys):
    assert call(finished_run, "me/run", "--without-reports", "--dry-run") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "  " in line]
    assert {name for _, name in lines} == CORE
    sizes = {name: int(size.replace(",", "")) for size, name in lines}
    assert sizes["model.safetensors"] == (finished_run / "model.safetensors").stat().st_size
    assert hub.requests == []


def test_an_edited_card_goes_up_as_it_is(own_run, hub):
    (own_run / "README.md").write_text("# mine\n")
    assert call(as_phantom(own_run), "me/run") == 0
    assert hub.repositories["me/run"].files["README.md"] == b"# mine\n"


@pytest.mark.parametrize("name", ["run", "me/run@v1", "a/b/c", "me/../run", "me/run--x"])
def test_a_wrong_name_is_an_error(finished_run, name, hub, capsys):
    assert call(finished_run, name, "--without-reports") == 2
    assert "owner/name" in capsys.readouterr().err
    assert hub.requests == []


def test_an_unreachable_hub_and_a_folder_that_is_no_run_are_errors(own_run, tmp_path, hub, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert call(as_phantom(own_run), "me/run") == 2
    assert "the hub did not take the run" in capsys.readouterr().err
    assert call(tmp_path / "none", "me/run") == 2
    assert "none" in capsys.readouterr().err


def test_index_is_made_again_from_ones_own_data(finished_run, hub, tmp_path, capsys):
    """A run shared without its reports, with the same data elsewhere, has the index that it was trained with."""
    assert call(finished_run, "me/run", "--without-reports") == 0
    with pytest.raises(DataError, match=r"python -m diffrgen\.index RUN --data annotation\.json"):
        RunFolder.open("me/run").index()
    data, output = finished_run.parent / "data" / "annotation.json", tmp_path / "again"
    arguments = ["me/run", "--data", str(data), "--images", str(data.parent), "--output", str(output)]
    assert index_command.main(arguments) == 0
    assert "an index of 16 training studies" in capsys.readouterr().out
    for name in INDEX:
        assert (output / name).read_bytes() == (finished_run / name).read_bytes(), name
    assert RunFolder(output).settings().data.data == str(data)
    with pytest.raises(DataError, match="needed a new folder"):
        index_command.main(arguments)


def test_every_pattern_of_the_allow_list_is_a_file_of_a_run_or_known_not_to_be():
    """A pattern that nothing matches is a mistake, unless it is for another kind of retriever, decoder or index."""
    from diffrgen.pipeline.hub import NEEDED
    from diffrgen.sharing.upload import TOLD

    concrete = {pattern for pattern in (*NEEDED, *TOLD) if "*" not in pattern}
    others = {"model.safetensors.index.json", "retriever/model.safetensors.index.json", "index/tokens.npy"}
    others |= {"index/lengths.npy", "retriever/special_tokens_map.json", "retriever/vocab.txt", "retriever/vocab.json"}
    others |= {f"retriever/{name}" for name in ("merges.txt", "preprocessor_config.json", "processor_config.json")}
    # Of a run with another's start, of one trained on rewards, and of a calibrated one.
    others |= {"retriever/spiece.model", "initialisation.json", "lineage.json", "confidence.json"}
    assert concrete - others == {name for name in CORE | INDEX if not name.startswith("evaluation/")}
