"""The generate command: what it takes, what it prints, what it leaves with, and that no DICOM tag gets out."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffrgen import generate as generate_command
from diffrgen.command import run_command
from diffrgen.errors import DataError
from diffrgen.images import collect_images, read_grey
from diffrgen.page import NOTICE
from diffrgen.reporting.prior_study import read_prior

MARKER = "DOE^JANE"


def generate(*arguments: object) -> int:
    return run_command(partial(generate_command.main, [*map(str, arguments), "--generation.beams", "1"]))


@pytest.fixture
def images(tiny_run) -> Path:
    return tiny_run.parent / "studies"


@pytest.fixture
def mixed(tmp_path, images) -> Path:
    """A folder with images of all kinds, in it and below, and other files."""
    folder = tmp_path / "mixed"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in ("b.png", "a.JPG", "below/c.jpeg", "below/[1].png", ".hidden/d.png"):
        Image.open(images / "16.png").save(folder / name, format="PNG")
    (folder / "notes.txt").write_text("no image")
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM")
    (folder / "README").write_text("no image")
    return folder


def names(found, folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in found.files]


def test_folders_files_and_patterns_give_images_once_and_in_order(mixed):
    assert names(collect_images([mixed]), mixed) == ["IM0001", "a.JPG", "b.png", "below/[1].png", "below/c.jpeg"]
    found = collect_images([mixed / "b.png", mixed / "*.png", mixed / "below", mixed / "**/*.png"])
    assert names(found, mixed) == ["b.png", "below/[1].png", "below/c.jpeg"]
    assert found.faults == {}
    assert names(collect_images([mixed / "below" / "[1].png"]), mixed) == ["below/[1].png"]  # a name before a pattern
    assert names(collect_images([mixed / "notes.txt"]), mixed) == ["notes.txt"]


def test_what_gives_no_image_is_told(mixed, tmp_path):
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "empty", tmp_path / "absent.png", mixed / "*.tif"]
    faults = collect_images(given).faults
    assert list(faults) == given
    for name, reason in zip(given, ("a folder with PNG", "does not exist", "matches nothing"), strict=True):
        assert reason in str(faults[name])
        assert str(name) in str(faults[name])


def test_text_tells_the_report_and_the_reasons(tiny_run, images, capsys):
    assert generate(tiny_run, images / "16.png") == 0
    printed = capsys.readouterr().out
    for words in ("16.png", "P(positive)", "attention: image", "similar (", "beside the other", "routing of", "layer 2"):
        assert words in printed


def test_a_line_of_json_for_each_image_in_order_and_errors_among_them(tiny_run, images, tmp_path, capsys):
    bad = tmp_path / "text.png"
    bad.write_text("not a picture")
    given = [tmp_path / "absent.png", images / "16.png", bad, images / "17.png", bad.with_name("*.bmp")]
    assert generate(tiny_run, *given, "--json", "--generation.batch-size", "1") == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    # what is no file first, then every file in its place
    assert [line["image"] for line in lines] == [str(given[place]) for place in (0, 4, 1, 2, 3)]
    assert ["error" in line for line in lines] == [True, True, False, True, False]
    assert {"report", "states", "sentences", "differences", "routes", "neighbours"} <= set(lines[2])
    for line in lines:
        assert ("error: " + line.get("error", "")) in printed.err or "report" in line
    assert "Traceback" not in printed.err


def test_status_tells_none_some_and_all(tiny_run, images, tmp_path, capsys):
    good, bad = images / "16.png", tmp_path / "text.png"
    bad.write_text("not a picture")
    assert [generate(tiny_run, *given) for given in ([good], [good, bad], [bad], [tmp_path / "*.png", bad])] == [0, 1, 2, 2]
    assert generate(tiny_run, tmp_path / "absent.png") == 2
    assert generate(tiny_run) == 2
    assert "needed at least one image" in capsys.readouterr().err


def test_progress_is_on_standard_error_for_several(tiny_run, images, capsys):
    assert generate(tiny_run, images / "16.png", images / "17.png", "--json") == 0
    printed = capsys.readouterr()
    assert "writing reports" in printed.err
    assert len(printed.out.splitlines()) == 2
    assert generate(tiny_run, images / "16.png", "--json") == 0
    assert "writing reports" not in capsys.readouterr().err


def test_pages_and_an_index(tiny_run, images, tmp_path, capsys):
    bad, out = tmp_path / "text.png", tmp_path / "out" / "pages"
    bad.write_text("not a picture")
    assert generate(tiny_run, images / "16.png", bad, images / "17.png", "--html", out) == 1
    assert sorted(path.name for path in out.iterdir()) == ["16.html", "17.html", "index.html"]
    for path in out.iterdir():
        assert NOTICE in path.read_text(encoding="utf-8")
    assert "text.png" in (out / "index.html").read_text(encoding="utf-8")
    assert str(out / "index.html") in capsys.readouterr().err
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert generate(tiny_run, images / "16.png", "--html", out) == 2
    assert "needed a new or empty folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_reader_that_has_enough_ends_the_command_quietly(tiny_run, images):
    command = [sys.executable, "-m", "diffrgen.generate", tiny_run, *sorted(images.glob("1*.png")), "--json"]
    command += ["--generation.batch-size", "1"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "report" in json.loads(process.stdout.readline())
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(timeout=200) == 141
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


def test_a_name_cannot_steer_the_terminal(tiny_run, images, tmp_path, capsys, monkeypatch):
    # Wide enough for the whole name, wherever the temporary folder is.
    monkeypatch.setenv("COLUMNS", "400")
    good, bad = tmp_path / "\x1b[2Ja.png", tmp_path / "\x1b[2Jb.png"
    good.write_bytes((images / "16.png").read_bytes())
    bad.write_text("not a picture")
    assert generate(tiny_run, good, bad) == 1
    printed = capsys.readouterr()
    # Of the name: progress bars move the cursor by sequences of their own.
    assert "\x1b[2J" not in printed.out + printed.err
    assert "[2Ja.png" in printed.out
    assert "[2Jb.png" in printed.err


def test_a_prior_belongs_to_one_image(tiny_run, images, tmp_path, capsys):
    told = tmp_path / "earlier.txt"
    told.write_text("The lungs are clear. No edema.", encoding="utf-8")
    image, earlier = images / "17.png", images / "16.png"
    assert generate(tiny_run, image, "--json", "--prior", earlier, told) == 0
    prior = json.loads(capsys.readouterr().out)["prior"]
    assert [sentence["text"] for sentence in prior["sentences"]] == ["the lungs are clear .", "no edema ."]
    assert len(prior["differences"]) == 3
    assert prior["states"]["edema"] == "negative"
    assert generate(tiny_run, image, "--html", tmp_path / "pages", "--prior", told) == 0
    assert "Prior study" in (tmp_path / "pages" / "17.html").read_text(encoding="utf-8")
    assert generate(tiny_run, image, earlier, "--prior", told) == 2
    assert "--prior requires one image" in capsys.readouterr().err
    assert generate(tiny_run, image, "--prior", tmp_path / "absent.png") == 2
    assert "absent.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty file"), (b"\xff\xfe\x00", "another encoding"), (b"a" * 1_000_001, "more than 1000000"), (None, "cannot be")],
)
def test_a_prior_that_is_no_report_is_told(tmp_path, content, message):
    path = tmp_path / "earlier.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_prior([path])


def test_a_prior_is_an_image_a_report_or_one_of_each(tmp_path):
    told = tmp_path / "earlier.TXT"
    told.write_text("\ufeffclear .", encoding="utf-8")
    assert read_prior([told]).report == "clear ."
    both = read_prior([Path("a.png"), told])
    assert (both.image, both.report) == (Path("a.png"), "clear .")
    for files in ([Path("a.png"), Path("b.png")], [told, told], [told, told, Path("a.png")]):
        with pytest.raises(DataError, match="or both, got"):
            read_prior(files)


def marked_dicoms(folder: Path) -> list[Path]:
    """DICOM files whose every text tag is the marker: one that can be read, others broken in ways that quote a value."""
    pydicom = pytest.importorskip("pydicom", reason="DICOM needs the extra diffrgen[dicom]")
    from dicom_files import write_dicom

    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 4096, (40, 40)).astype(np.uint16)
    texts = {"PatientName", "PatientID", "InstitutionName", "StudyDescription", "PatientComments", "AccessionNumber"}
    tags = dict.fromkeys(sorted(texts), MARKER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks while the test writes what it should not
        paths = [write_dicom(folder / "good.dcm", values, **tags)]
        whole = paths[0].read_bytes()
        for name in ("PhotometricInterpretation", "PatientBirthDate", "StudyTime", "PatientAge", "RescaleSlope"):
            dataset = pydicom.dcmread(paths[0])
            element = pydicom.DataElement(pydicom.tag.Tag(name), "LO", MARKER)
            dataset[name] = element
            paths.append(folder / f"{name}.dcm")
            dataset.save_as(paths[-1])
        for name in ("NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "Rows", "WindowCenter", "PixelRepresentation"):
            dataset = pydicom.dcmread(paths[0])
            if name in dataset:
                del dataset[name]
            dataset.add(pydicom.DataElement(pydicom.tag.Tag(name), "LO", MARKER))
            paths.append(folder / f"{name}.dcm")
            dataset.save_as(paths[-1])
    name_at = whole.index(MARKER.encode())
    damaged = {
        "cut": whole[: name_at + 40],
        "length": whole[: name_at - 2] + b"\xff\xff" + whole[name_at:],
        "representation": whole[: name_at - 4] + b"??" + whole[name_at - 2 :],
        "syntax": whole.replace(b"1.2.840.10008.1.2.1\0", MARKER.encode().ljust(20, b"\0")),
        "headless": whole[name_at - 8 :],
    }
    for name, content in damaged.items():
        for suffix in (".dcm", ".png"):
            paths.append(folder / f"{name}{suffix}")
            paths[-1].write_bytes(content)
    assert all(MARKER.encode() in path.read_bytes() for path in paths)
    return paths


def test_no_tag_of_a_dicom_file_gets_out(tiny_run, tmp_path, capfd, caplog):
    """Not by a page, JSON, text, a message, a warning or a log, of files that can be read and of broken ones."""
    paths = marked_dicoms(tmp_path / "scans")
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert generate(tiny_run, *paths, "--json", "--html", tmp_path / "pages") == 1
        assert generate(tiny_run, *paths) == 1
    printed = capfd.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines() if line.startswith("{")]
    assert len(lines) == len(paths)
    assert sum("error" in line for line in lines) >= 8
    assert (tmp_path / "pages" / "good.html").is_file()
    written = [path.read_text(encoding="utf-8") for path in (tmp_path / "pages").iterdir()]
    told = [printed.out, printed.err, caplog.text, *(str(warning.message) for warning in seen), *written]
    assert not [text for text in told if MARKER in text or "DOE" in text or "JANE" in text]


def test_no_error_of_a_dicom_file_is_chained_to_what_quotes_it(tmp_path):
    for path in marked_dicoms(tmp_path / "scans"):
        with contextlib.suppress(DataError):
            read_grey(path)
            continue
        with pytest.raises(DataError) as caught:
            read_grey(path)
        error: BaseException | None = caught.value
        while error is not None:
            assert MARKER not in str(error)
            error = error.__cause__ or error.__context__
