"""Every reader of users' files with healthy inputs for it, to be damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from iu_archive import write_kaggle, write_openi, write_r2gen
from mimic_archive import write_archive
from PIL import Image

from diffrgen.errors import DataError

DICOMS = ("JPEG2000", "SC_rgb_jpeg_gdcm", "MR_small_RLE", "MR_small_implicit", "MR_small_jpeg_ls_lossless", "CT_small")


@dataclass(frozen=True)
class Reader:
    """make(folder) writes healthy files and returns those to be damaged; load(folder, path) reads the damaged `path`."""

    name: str
    make: Callable[[Path], list[Path]]
    load: Callable[[Path, Path], object]
    warm_up: Callable[[], object]


def nothing() -> None:
    """No module is loaded lazily."""


def make_pictures(folder: Path) -> list[Path]:
    ramp = np.add.outer(np.arange(40), np.arange(30) * 3).astype(np.uint8)
    grey = Image.fromarray(ramp)
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "grey.png": (grey, {}),
        "wide.png": (Image.fromarray(ramp.astype(np.uint16) * 200), {}),
        "palette.png": (grey.convert("P"), {"transparency": 3}),
        "alpha.png": (Image.merge("LA", (grey, grey)), {"optimize": True}),
        "grey.jpg": (grey, {"exif": exif}),
        "progressive.jpg": (Image.merge("RGB", (grey,) * 3), {"progressive": True}),
        "cmyk.jpg": (Image.merge("CMYK", (grey,) * 4), {}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(folder / name, **options)
    return [folder / name for name in pictures]


def load_picture(folder: Path, path: Path) -> None:
    from diffrgen.images import probe_grey, read_grey

    probe_grey(path)
    assert read_grey(path, at_least=16).mode == "L"


def make_dicoms(folder: Path) -> list[Path]:
    import pydicom

    samples = Path(pydicom.__file__).parent / "data" / "test_files"
    paths = [folder / f"{name}.dcm" for name in DICOMS]
    for path in paths:
        path.write_bytes((samples / path.name).read_bytes())
    return [*paths, *make_odd_dicoms(folder)]


def make_odd_dicoms(folder: Path) -> list[Path]:
    """Files with each attribute of the display: tables, a window, padding, float pixels, colours of 12 bits."""
    from dicom_files import lookup_table, write_dicom

    stored = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16
    table = lookup_table(0, np.arange(4096) * 16)
    tags = {"WindowCenter": "1000", "WindowWidth": "2001", "VOILUTFunction": "SIGMOID", "PixelPaddingValue": 0}
    floats = {"FloatPixelData": stored.astype("<f4").tobytes(), "PixelData": None}
    return [
        write_dicom(
            folder / "tables.dcm", stored, ModalityLUTSequence=lookup_table(0, np.arange(4096)), VOILUTSequence=table
        ),
        write_dicom(folder / "window.dcm", stored, RescaleSlope="-1", RescaleIntercept="4095", **tags),
        write_dicom(folder / "floats.dcm", stored.astype(np.uint32), bits=32, **floats),
        write_dicom(folder / "colours.dcm", np.repeat(stored[..., None], 3, axis=2), PresentationLUTShape="INVERSE"),
    ]


def warm_up_dicom() -> None:
    import pydicom.pixels.decoders  # noqa: F401


RECORD = {
    "id": "a",
    "report": "The heart is \u00e4 large.",
    "image_path": ["a/0.png", "a/1.png"],
    "labels": [0, 1, 2, 3] + [0] * 10,
    "patient_id": 17,
    "days": 17.25,
    "study_date": "2150-02-28",
    "view": "PA",
}


def make_annotation(folder: Path) -> list[Path]:
    records = [RECORD | {"id": name, "days": day} for day, name in enumerate("abcd")]
    path = folder / "annotation.json"
    path.write_text(json.dumps({"train": records[:2], "val": records[2:3], "test": records[3:]}, indent=1))
    return [path]


def load_annotation(folder: Path, path: Path) -> None:
    from diffrgen.records import read_annotation

    for study in read_annotation(folder / "annotation.json", check_files=False):
        # What was accepted can be written and opened.
        study.report.encode()
        study.id.encode()
        study.images[0].is_file()


def make_dumps(folder: Path) -> list[Path]:
    records = [{"id": name, "reference": "no edema", "hypothesis": "ede\u00fcma, mild"} for name in "abc"]
    files = {
        "a.jsonl": "\n".join(map(json.dumps, records)),
        "b.json": json.dumps(records),
        "c.json": json.dumps({record["id"]: [record["hypothesis"]] for record in records}),
        "e.ndjson": "\r\n".join(map(json.dumps, records)),
        "f.json": json.dumps({"images": [], "annotations": [{"image_id": 1, "caption": "edema"}]}),
        "g.tsv": "id\treference\treport\n" + "".join(f'{name}\t"no\nedema"\tedema\n' for name in "abc"),
        "d.csv": "id,reference,report\n" + "".join(f'{name},"no, edema","edema"\n' for name in "abc"),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def load_dump(folder: Path, path: Path) -> None:
    from diffrgen.evaluation.predictions import read_predictions

    for prediction in read_predictions(path):
        f"{prediction.id} {prediction.hypothesis} {prediction.reference}".encode()


def prepared(folder: Path, options: object) -> None:
    """Prepare into a new folder; what is written must be read back, what is refused must leave no file."""
    from diffrgen.prepare import prepare
    from diffrgen.records import read_annotation

    try:
        prepare(options)
    except DataError:
        assert not options.out.exists() or not list(options.out.iterdir())
        raise
    read_annotation(options.out / "annotation.json", check_files=False)


NUMBERS = count()


def load_mimic(folder: Path, path: Path) -> None:
    from diffrgen.preparation import MimicCxrOptions

    prepared(folder, MimicCxrOptions(folder / "archive", folder / f"out-{next(NUMBERS)}"))


def load_iu(folder: Path, path: Path) -> None:
    from diffrgen.preparation import IuXrayOptions

    archive, out = folder / "archive", folder / f"out-{next(NUMBERS)}"
    prepared(folder, IuXrayOptions(archive, out, section="both", min_images=1))


def files_of(root: Path, *suffixes: str) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.name.endswith(suffixes))


def make_mimic(folder: Path) -> list[Path]:
    return files_of(write_archive(folder / "archive"), ".csv.gz", ".zip")


def make_openi(folder: Path) -> list[Path]:
    return files_of(write_openi(folder / "archive"), ".tgz")


def make_xml(folder: Path) -> list[Path]:
    return files_of(write_openi(folder / "archive", packed=False), ".xml")


def make_kaggle(folder: Path) -> list[Path]:
    archive = write_kaggle(folder / "archive")
    (archive / "split.csv").write_text("id,split\n1,train\n2,val\nCXR4,test\n", encoding="utf-8")
    return files_of(archive, ".csv")


def make_r2gen(folder: Path) -> list[Path]:
    return files_of(write_r2gen(folder / "archive"), ".json")


def load_r2gen(folder: Path, path: Path) -> None:
    from diffrgen.preparation import IuXrayOptions

    prepared(folder, IuXrayOptions(folder / "archive", folder / f"out-{next(NUMBERS)}", check_images=False))


def make_settings(folder: Path) -> list[Path]:
    from diffrgen.phantom import PhantomOptions
    from diffrgen.pipeline.options import DataOptions, ImageOptions
    from diffrgen.pipeline.run_settings import RunSettings
    from diffrgen.pipeline.settings import save_json
    from diffrgen.retrieval import RetrieverOptions

    settings = RunSettings(
        data=DataOptions(),
        phantom=PhantomOptions(),
        image=ImageOptions(),
        rules="mimic",
        max_tokens=100,
        labeler="rule",
        retriever=RetrieverOptions(),
        seed=0,
    )
    save_json(settings, folder / "run.json")
    return [folder / "run.json"]


def load_settings(folder: Path, path: Path) -> None:
    from diffrgen.pipeline.run_folder import RunFolder

    RunFolder(folder).settings()


def warm_up_settings() -> None:
    import diffrgen.pipeline.run_folder  # noqa: F401


def make_index_texts(folder: Path) -> list[Path]:
    from diffrgen.retrieval import IndexedStudies
    from diffrgen.retrieval.manifest import IndexManifest

    names = ("manifest.json", "studies.json", "neighbours.npz")
    IndexManifest("Flat", "", 3, 2, 8, 0, 0, "0f", "1e", 1.0).save(folder)
    IndexedStudies.of(ids="abc", reports=["one", "two", "one"], patients=["p", None, "q"]).save(folder / names[1])
    rows = np.arange(6).reshape(2, 3)
    np.savez(folder / names[2], key=np.array("k"), rows=rows, similarity=rows.astype(np.float32), valid=rows > 0)
    return [folder / name for name in names]


def load_index_texts(folder: Path, path: Path) -> None:
    from diffrgen.retrieval import IndexedStudies, neighbours
    from diffrgen.retrieval.manifest import IndexManifest

    IndexManifest.load(folder)
    studies = IndexedStudies.load(folder / "studies.json")
    [studies.report(row).encode() for row in range(len(studies))]
    neighbours._load(folder / "neighbours.npz", "k")


def write_nine(folder: Path, factory: str) -> None:
    from diffrgen.retrieval import IndexedStudies, write_index

    draw = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    studies = IndexedStudies.of(ids="abcdefghi", reports=[f"report {n} ." for n in range(9)], patients=[None] * 9)
    write_index(folder, studies, draw / np.linalg.norm(draw, axis=1, keepdims=True), factory=factory)


def make_approximate(folder: Path) -> list[Path]:
    """A kind that FAISS itself does not survive when it is forged."""
    write_nine(folder, "IVF2,SQ8")
    return [folder / "index.faiss"]


def make_index(folder: Path) -> list[Path]:
    write_nine(folder, "Flat")
    return [folder / name for name in ("index.faiss", "embeddings.npy", "studies.json", "manifest.json")]


def load_index(folder: Path, path: Path) -> None:
    """A file that is damaged is refused by its digest; then, as whoever forges a folder would, the manifest is made to fit."""
    from diffrgen.retrieval import RetrievalIndex
    from diffrgen.staging import file_digest

    manifest = folder / "manifest.json"
    if path == manifest:
        RetrievalIndex.load(folder).search(np.ones((1, 8), np.float32), 3)
        return
    whole = manifest.read_text()
    content = json.loads(whole)
    if content["files"][path.name] == file_digest(path):
        return
    with pytest.raises(DataError, match=f"{re.escape(str(path))}: is not the file that manifest.json was written with"):
        RetrievalIndex.load(folder)
    content["files"][path.name] = file_digest(path)
    manifest.write_text(json.dumps(content))
    try:
        RetrievalIndex.load(folder).search(np.ones((1, 8), np.float32), 3)
    finally:
        manifest.write_text(whole)


def make_one(folder: Path) -> list[Path]:
    (folder / "one").write_bytes(b"1")
    return [folder / "one"]


def load_badly(folder: Path, path: Path) -> None:
    """Fail on every damaged file, the one way or the other."""
    content = path.read_bytes()
    if content != b"1":
        raise DataError("bad") if len(content) % 2 else ZeroDivisionError("division")


READERS = {
    reader.name: reader
    for reader in (
        Reader("pictures", make_pictures, load_picture, nothing),
        Reader("dicom", make_dicoms, load_picture, warm_up_dicom),
        Reader("annotation", make_annotation, load_annotation, nothing),
        Reader("dumps", make_dumps, load_dump, nothing),
        Reader("mimic-cxr", make_mimic, load_mimic, nothing),
        Reader("openi", make_openi, load_iu, nothing),
        Reader("openi-xml", make_xml, load_iu, nothing),
        Reader("kaggle", make_kaggle, load_iu, nothing),
        Reader("r2gen", make_r2gen, load_r2gen, nothing),
        Reader("settings", make_settings, load_settings, warm_up_settings),
        Reader("broken", make_one, load_badly, nothing),
        Reader("index", make_index_texts, load_index_texts, warm_up_settings),
        Reader("faiss", make_index, load_index, warm_up_settings),
        Reader("approximate", make_approximate, load_index, warm_up_settings),
    )
}
