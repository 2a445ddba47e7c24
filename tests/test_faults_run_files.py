"""A run folder is checked before it is used: each file against the others, its values, its digests; no code is run."""

from __future__ import annotations

import ast
import builtins
import json
import random
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import damaged
from indexed_studies import make_studies, unit
from safetensors.torch import load_file, save_file

import diffrgen
from diffrgen import evaluate, generate
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.retrieval import RetrievalIndex, load_retriever, write_index
from diffrgen.staging import file_digest


def fault(run: Path, part: str = "model") -> str:
    """Return why a part of the run, or what all parts make together, is refused."""
    with pytest.raises(DataError) as caught:
        load(RunFolder(run), part)
    return str(caught.value)


def load(folder: RunFolder, part: str) -> None:
    """Load a part of a run, or with `sources` all that its network needs to fit."""
    settings = folder.settings()
    if part == "sources":
        folder.example_settings(folder.model().config, settings)
    else:
        getattr(folder, part)()


def change(path: Path, **fields: object) -> None:
    """Set fields, whose inner names are joined by two underscores, in a JSON file."""
    content = json.loads(path.read_text())
    for name, value in fields.items():
        *outer, last = name.split("__")
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = value
    path.write_text(json.dumps(content))


def rewrite(path: Path, action) -> None:
    tensors = load_file(path)
    action(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def halve(tensors: dict) -> None:
    for name in sorted(tensors)[::2]:
        del tensors[name]


def put_nan(tensors: dict) -> None:
    tensors["classifier.class_prior"][3] = float("nan")


def cut(tensors: dict) -> None:
    tensors["classifier.class_prior"] = tensors["classifier.class_prior"][:5].clone()


@pytest.mark.parametrize(
    ("action", "named"),
    [
        (halve, "is missing"),
        (dict.clear, "is missing"),
        (lambda tensors: tensors.update(other=torch.ones(2)), "other is of no part of the network"),
        (cut, "classifier.class_prior: needed shape (14,), got (5,)"),
        (put_nan, "classifier.class_prior: needed numbers, got NaN or infinity"),
    ],
)
def test_weights_are_the_networks_own_and_finite(action, named, own_run):
    rewrite(own_run / "model.safetensors", action)
    message = fault(own_run)
    assert str(own_run / "model.safetensors") in message
    assert named in message


@pytest.mark.parametrize(
    ("file", "fields", "named"),
    [
        ("config.json", {"image_size": 10**6}, "image_size: needed a number from 1 to 8192, got 1e+06"),
        ("config.json", {"contrast_temperature": -1.0}, "contrast_temperature: needed a number from 1e-06"),
        ("config.json", {"decoder__num_hidden_layers": -3}, "decoder.num_hidden_layers: needed a number from 1"),
        ("config.json", {"encoder__hidden_sizes": [10**9]}, "encoder.hidden_sizes: needed a number from 1"),
        ("config.json", {"width": "wide"}, "needed"),
        ("config.json", {"decoder": 3}, "needed"),
        ("config.json", {"heads": 3}, "needed the configuration of a diffrgen: width: expected width to be a multiple"),
        ("config.json", {"width": 32}, "needed shape"),
        ("config.json", {"dropout": float("nan")}, "dropout: needed a number from 0 to 1, got nan"),
        ("config.json", {"model_type": "bert"}, "model_type: needed 'diffrgen', got 'bert'"),
        ("config.json", {"auto_map": {"AutoModel": "evil.Evil"}}, "auto_map: refers to custom code, which is never executed"),
        ("generation_config.json", {"num_beams": 0}, "num_beams: needed a number from 1"),
        ("generation_config.json", {"max_new_tokens": -5}, "max_new_tokens: needed a number from 1"),
        ("generation_config.json", {"max_new_tokens": 2.5}, "max_new_tokens: needed a whole number"),
        ("generation_config.json", {"temperature": -1.0}, "temperature: needed a number"),
        ("generation_config.json", {"do_sample": True}, "do_sample: is no setting of a run, got True"),
        ("generation_config.json", {"eos_token_id": "x"}, "eos_token_id: needed the number of a token"),
        ("run.json", {"image__size": 10**6}, "image.size: needed less than or equal to 8192, got 1000000"),
        ("run.json", {"image__std": 0.0}, "image.std: needed greater than 0, got 0.0"),
        ("run.json", {"retriever__neighbours": -1}, "retriever"),
        ("run.json", {"phantom__studies": 10**12}, "phantom"),
        ("run.json", {"max_tokens": 0}, "max_tokens: needed a number from 1"),
    ],
)
def test_a_value_that_is_odd_is_refused_by_file_and_field(file, fields, named, own_run):
    change(own_run / file, **fields)
    message = fault(own_run)
    assert str(own_run / ("model.safetensors" if named == "needed shape" else file)) in message
    assert named in message


@pytest.mark.parametrize(
    ("file", "fields", "named"),
    [
        ("run.json", {"image__size": 30}, "image.size: needed 32 as config.json says, got 30"),
        ("run.json", {"max_tokens": 5000}, "max_tokens: needed at most"),
        ("run.json", {"retriever__neighbours": 99}, "retriever.neighbours: needed at most the 16 studies"),
        ("index/manifest.json", {"texts": 7}, "needed 7 texts"),
        ("index/manifest.json", {"width": -7}, "width: needed a number from 1"),
    ],
)
def test_the_parts_of_a_run_fit_each_other(file, fields, named, own_run):
    change(own_run / file, **fields)
    message = fault(own_run, "sources")
    assert named in message or "texts as" in message


def test_a_missing_config_is_named_before_anything_is_built(own_run, monkeypatch):
    (own_run / "config.json").unlink()
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda *_: pytest.fail("a network was built"))
    assert fault(own_run) == f"{own_run / 'config.json'}: needed this file of a run, got: No such file or directory"


def test_shards_are_read_in_their_own_folder_only(own_run, tmp_path):
    shutil.copy(own_run / "model.safetensors", tmp_path / "other.safetensors")
    names = load_file(own_run / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../other.safetensors")}
    (own_run / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "weight_map: needed names of safetensors files in this folder, got ['../other.safetensors']" in fault(own_run)


EVIL = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\nclass Evil:\n    pass\n"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("kind", ["own", "clip"])
def test_code_that_a_retriever_names_is_never_asked_for_and_never_run(file, kind, own_run, monkeypatch):
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("the user was asked whether to run code"))
    folder = own_run / "retriever"
    (folder / "evil.py").write_text(EVIL)
    if not (folder / file).is_file():
        (folder / file).write_text("{}")
    classes = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoImageProcessor")
    change(folder / file, auto_map=dict.fromkeys(classes, "evil.Evil"))
    if kind == "clip":
        change(folder / "config.json", model_type="evil")
    assert "auto_map: refers to custom code, which is never executed" in fault(own_run, "retriever")
    assert not list(own_run.rglob("executed"))


def test_every_class_that_transformers_chooses_is_told_to_run_no_code():
    """AutoX.from_pretrained alone may load code; each call in the package says that it may not."""
    calls = 0
    for path in Path(diffrgen.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr == "from_pretrained":
                kind = ast.unparse(called.value)
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert not kind.startswith("Auto") or words.get("trust_remote_code") == "False", f"{path}: {kind}"
                calls += kind.startswith("Auto")
    assert calls >= 5


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def swap_rows(path: Path) -> None:
    array = np.load(path)
    array[[0, 1]] = array[[1, 0]]
    np.save(path, array)


@pytest.mark.parametrize(
    ("file", "damage"),
    [("index.faiss", flip), ("embeddings.npy", flip), ("embeddings.npy", swap_rows), ("studies.json", flip)],
)
def test_a_file_of_an_index_that_is_another_is_refused_before_it_is_read(file, damage, own_run, monkeypatch):
    import faiss

    damage(own_run / "index" / file)
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS was given the file"))
    assert f"{own_run / 'index' / file}: is not the file that manifest.json was written with" in fault(own_run, "index")


@pytest.mark.parametrize(("offset", "form", "value"), [(8, "<q", 2**40), (4, "<i", 2**30), (8, "<q", -1), (0, "4s", b"XXXX")])
def test_a_faiss_file_whose_header_lies_is_not_given_to_faiss(offset, form, value, own_run, monkeypatch):
    """A hostile run may bring the digest of its hostile file."""
    import faiss

    path = own_run / "index" / "index.faiss"
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, value)
    path.write_bytes(content)
    manifest = json.loads((own_run / "index" / "manifest.json").read_text())
    manifest["files"]["index.faiss"] = file_digest(path)
    (own_run / "index" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS was given the file"))
    assert f"{path}: needed a FAISS index of" in fault(own_run, "index")


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "SQ8", "IVF4,PQ4x4", "PQ4x4", "HNSW16", "PCA8,Flat"])
def test_faiss_is_given_no_byte_of_an_approximate_index_from_elsewhere(factory, tmp_path, monkeypatch):
    """Forged behind the header together with their digest, some of these would end the process within FAISS."""
    import faiss

    embeddings, queries = unit(120), unit(9, seed=1)
    write_index(tmp_path / "index", make_studies(120), embeddings, factory=factory)
    path, rng = tmp_path / "index" / "index.faiss", random.Random(factory)
    healthy, manifest = path.read_bytes(), json.loads((tmp_path / "index" / "manifest.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RetrievalIndex.load(tmp_path / "index").search(queries, 5)  # one's own
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("FAISS was given the file"))
    exact = np.argsort(-(queries.astype(np.float64) @ embeddings.T.astype(np.float64)), axis=1)[:, :5]
    for _ in range(20):
        path.write_bytes(healthy[:16] + damaged(healthy[16:], "index.faiss", rng) + bytes(64))
        manifest["files"]["index.faiss"] = file_digest(path)
        (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest))
        with pytest.warns(RuntimeWarning, match=r"index\.faiss: was not written here, so embeddings\.npy is searched exactly"):
            index = RetrievalIndex.load(tmp_path / "index")
        assert index.search(queries, 5).rows.tolist() == exact.tolist()


def test_an_index_is_ones_own_on_this_machine_alone(tmp_path, monkeypatch):
    embeddings = unit(60)
    write_index(tmp_path / "index", make_studies(60), embeddings, factory="SQ8")
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIFFRGEN_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="cannot be written .*, so an approximate index is not known as your own"):
        write_index(tmp_path / "other", make_studies(60), embeddings, factory="SQ8")
    monkeypatch.setenv("DIFFRGEN_CACHE", str(tmp_path / "another"))
    with pytest.warns(RuntimeWarning, match="was not written here"):
        RetrievalIndex.load(tmp_path / "index")
    monkeypatch.setattr("diffrgen.retrieval.index.MOST_EXACT_BYTES", embeddings.nbytes - 1)
    with pytest.raises(DataError, match=r"index\.faiss: an approximate index from elsewhere is not opened, .* again"):
        RetrievalIndex.load(tmp_path / "index")


def test_the_index_of_another_retriever_is_refused(own_run, finished_run):
    rewrite(own_run / "retriever" / "model.safetensors", lambda tensors: tensors["log_scale"].add_(1))
    from diffrgen.reporting.reporter import Reporter

    with pytest.raises(DataError, match=r"its reports were embedded by retriever .*; build the index again"):
        Reporter(own_run)
    assert load_retriever(finished_run / "retriever").fingerprint == RetrievalIndex.load(own_run / "index").manifest.retriever


@pytest.mark.usefixtures("no_java")
def test_no_escape_sequence_of_a_run_reaches_the_terminal(own_run, finished_run, capsys):
    """Study ids and reports of an index are whatever the run's author wrote."""
    studies = own_run / "index" / "studies.json"
    content = json.loads(studies.read_text())
    content["ids"] = [f"\x1b]0;title\x07{name}\x9b2J" for name in content["ids"]]
    content["texts"] = [f"{text} \x1b[31m \u202e" for text in content["texts"]]
    studies.write_text(json.dumps(content))
    manifest = json.loads((own_run / "index" / "manifest.json").read_text())
    manifest["files"]["studies.json"] = file_digest(studies)
    (own_run / "index" / "manifest.json").write_text(json.dumps(manifest))
    image = str(finished_run.parent / "data" / "0.png")
    assert run_command(lambda: generate.main([str(own_run), image])) == 0
    change(own_run / "run.json", labeler="\x1b[2Jx")
    assert run_command(lambda: evaluate.main([str(own_run), "--split", "val"])) == 2
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert not set("\x1b\x9b\x07\u202e") & set(text)
    assert "similar (" in printed.out
