"""The index against brute-force NumPy: exactness, exclusion, repeated reports, storage and its errors."""

from __future__ import annotations

import json
import re
import warnings

import faiss
import numpy as np
import pytest
from indexed_studies import WIDTH, make_studies, unit

from diffrgen.errors import DataError
from diffrgen.retrieval import IndexedStudies, RetrievalIndex, TokenStore, faiss_index, write_index
from diffrgen.staging import file_digest


def brute_force(studies, embeddings, query, count, *, study=None, patient=None):
    """Return the rows of the most similar studies, walking over all of them in float64."""
    order = sorted(
        range(len(studies)),
        key=lambda row: (-float(embeddings[studies.text_of[row]].astype(np.float64) @ query.astype(np.float64)), row),
    )
    rows, seen = [], set()
    for row in order:
        forbidden = studies.ids[row] == study or (patient is not None and studies.patients[row] == patient)
        if not forbidden and studies.report(row) not in seen:
            seen.add(studies.report(row))
            rows.append(row)
    return (rows + [-1] * count)[:count]


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW16", "SQ8", "IVF4,PQ4x4"])
@pytest.mark.parametrize("texts", [200, 60])
def test_search_equals_brute_force(tmp_path, factory, texts):
    studies, embeddings, queries = make_studies(200, texts=texts, patients=40), unit(texts), unit(30, seed=1)
    index = write_index(tmp_path, studies, embeddings, factory=factory, search="nprobe=8" if "IVF" in factory else "")
    own = [f"s{row}" for row in range(30)]
    patients = [f"p{row % 40}" for row in range(30)]
    for exclude in ({}, {"exclude_study": own}, {"exclude_study": own, "exclude_patient": patients}):
        found = index.search(queries, 7, **exclude)
        exact = 0
        for query in range(30):
            study = own[query] if "exclude_study" in exclude else None
            patient = patients[query] if "exclude_patient" in exclude else None
            expected = brute_force(studies, embeddings, queries[query], 7, study=study, patient=patient)
            exact += found.rows[query].tolist() == expected
            assert studies.ids[found.rows[query, 0]] != study
            assert patient is None or patient not in [studies.patients[row] for row in found.rows[query]]
            reports = [studies.report(row) for row in found.rows[query]]
            assert len(set(reports)) == 7
        assert found.valid.all()
        if factory in ("Flat", "IVF8,Flat"):
            assert exact == 30
        for query, rows in enumerate(found.rows):
            similarity = embeddings[studies.text_of[rows]].astype(np.float64) @ queries[query].astype(np.float64)
            np.testing.assert_allclose(found.similarity[query], similarity, atol=1e-6)
            assert (np.diff(found.similarity[query]) <= 0).all()


def test_approximate_indices_find_most_of_the_exact_neighbours(tmp_path):
    studies, embeddings, queries = make_studies(500), unit(500), unit(40, seed=1)
    exact = write_index(tmp_path / "flat", studies, embeddings).search(queries, 10)
    graph = write_index(tmp_path / "graph", studies, embeddings, factory="HNSW32").search(queries, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(exact.rows.tolist(), graph.rows.tolist(), strict=True)]
    assert np.mean(shared) > 9.5


def test_a_query_that_visits_too_few_lists_is_answered_exactly(tmp_path):
    studies, embeddings, queries = make_studies(64), unit(64), unit(5, seed=1)
    index = write_index(tmp_path, studies, embeddings, factory="IVF16,Flat", search="nprobe=1")
    found = index.search(queries, 60)
    assert found.valid.all()
    for query in range(5):
        assert found.rows[query].tolist() == brute_force(studies, embeddings, queries[query], 60)


def test_index_made_in_batches_is_that_of_the_whole(tmp_path, monkeypatch):
    """Rows are added 64 at a time, and the quantiser is trained on a sample of them."""
    monkeypatch.setattr(faiss_index, "ROWS_AT_ONCE", 64)
    monkeypatch.setattr(faiss_index, "LEAST_TRAINING_ROWS", 350)
    studies, embeddings, queries = make_studies(500), unit(500), unit(20, seed=1)
    batches = (embeddings[start : start + 90] for start in range(0, 500, 90))
    parts = write_index(tmp_path / "parts", studies, batches, factory="IVF4,Flat", search="nprobe=4")
    whole = write_index(tmp_path / "whole", studies, embeddings, factory="Flat")
    assert np.array_equal(parts.embeddings, embeddings)
    assert np.array_equal(parts.search(queries, 9).rows, whole.search(queries, 9).rows)
    assert (parts.manifest.recall, whole.manifest.recall) == (1.0, 1.0)


def test_sample_is_of_as_many_distinct_rows_as_asked_for():
    assert faiss_index.sample_rows(5, 9).tolist() == [0, 1, 2, 3, 4]
    sample = faiss_index.sample_rows(1000, 100)
    assert len(set(sample.tolist())) == 100
    assert (np.diff(sample) > 0).all()
    assert sample[0] < 100 < 900 < sample[-1]
    wide, flat = faiss.index_factory(8, "IVF2048,Flat"), faiss.index_factory(8, "SQ8")
    assert (faiss_index.training_rows(wide), faiss_index.training_rows(flat)) == (64 * 2048, 65_536)


def test_recall_is_measured_and_a_low_one_is_warned_of(tmp_path, monkeypatch):
    """The share of the 21 nearest other rows, by sorting every similarity, that FAISS's own answer holds."""
    monkeypatch.setattr(faiss_index, "ROWS_AT_ONCE", 50)
    studies, embeddings = make_studies(300), unit(300)
    with pytest.warns(RuntimeWarning, match=r"'IVF16,Flat' \(search 'nprobe=2'\) finds 0\.\d\d of the 21"):
        index = write_index(tmp_path, studies, embeddings, factory="IVF16,Flat", search="nprobe=2")
    similarity = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    np.fill_diagonal(similarity, -2)
    exact = np.argsort(-similarity, axis=1)[:, :21]
    _, found = index.faiss_index.search(embeddings, 22)
    hits = [
        len(set(near[near != row][:21]) & set(true)) for row, (near, true) in enumerate(zip(found, exact, strict=True))
    ]
    assert index.manifest.recall == pytest.approx(sum(hits) / (300 * 21), abs=1e-12)
    assert 0.1 < index.manifest.recall < 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert write_index(tmp_path, make_studies(1), unit(1)).manifest.recall == 1.0


def test_own_study_is_represented_by_another_of_the_same_text(tmp_path):
    studies = IndexedStudies.of(
        ids=["a", "b", "c"], reports=["normal .", "normal .", "edema ."], patients=["x", "y", "x"]
    )
    embeddings = np.eye(2, WIDTH, dtype=np.float32)
    index = write_index(tmp_path, studies, embeddings)
    query = np.repeat(embeddings[:1], 4, axis=0)
    found = index.search(query, 2, exclude_study=[None, "a", "b", "unknown"])
    assert found.rows.tolist() == [[0, 2], [1, 2], [0, 2], [0, 2]]
    found = index.search(query[:2], 2, exclude_study=["a", "b"], exclude_patient=["x", "y"])
    assert found.rows.tolist() == [[1, -1], [0, 2]]
    assert found.valid.tolist() == [[True, False], [True, True]]
    assert found.similarity.tolist() == [[1.0, 0.0], [1.0, 0.0]]


def test_fewer_reports_than_asked_for_are_padded_and_gather_gives_zeros(tmp_path):
    studies = make_studies(6, texts=2)
    embeddings = unit(2)
    index = write_index(tmp_path, studies, embeddings)
    found = index.search(embeddings[:1], 4)
    assert found.rows.tolist() == [[0, 1, -1, -1]]
    gathered = index.gather(found.rows)
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered[0], np.concatenate([embeddings, np.zeros((2, WIDTH), np.float32)]))
    np.testing.assert_array_equal(index.gather(np.array([5, -1]))[0], embeddings[1])


def test_equal_similarities_come_in_order_of_rows_whatever_the_batch(tmp_path):
    studies = make_studies(40)
    embeddings = np.repeat(unit(4), 10, axis=0)
    index = write_index(tmp_path, studies, embeddings)
    queries = unit(50, seed=1)
    together = index.search(queries, 10)
    assert (np.diff(together.rows, axis=1) == 1).all()
    for query in range(50):
        alone = index.search(queries[query : query + 1], 10)
        np.testing.assert_array_equal(alone.rows[0], together.rows[query])
        np.testing.assert_array_equal(alone.similarity[0], together.similarity[query])


def test_round_trip_is_memory_mapped_and_equal(tmp_path):
    studies, embeddings, queries = make_studies(50, texts=30, patients=7), unit(30), unit(9, seed=1)
    written = write_index(tmp_path, studies, embeddings)
    index = RetrievalIndex.load(tmp_path)
    assert isinstance(index.embeddings.base, np.memmap)
    assert not index.embeddings.flags.writeable
    assert (index.studies.ids, index.studies.patients) == (studies.ids, studies.patients)
    assert [index.studies.report(row) for row in range(50)] == [studies.report(row) for row in range(50)]
    np.testing.assert_array_equal(index.search(queries, 5).rows, written.search(queries, 5).rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "embeddings.npy",
        "index.faiss",
        "manifest.json",
        "studies.json",
    ]


def test_token_features_are_cut_padded_and_memory_mapped(tmp_path):
    studies = make_studies(4, texts=3)
    rng = np.random.default_rng(0)
    batches = [
        (rng.standard_normal((2, 5, 3)).astype(np.float32), np.array([5, 2])),
        (rng.standard_normal((1, 2, 3)).astype(np.float32), np.array([1])),
    ]
    index = write_index(tmp_path, studies, unit(3), tokens=TokenStore(batches, length=4, width=3))
    features, mask = index.gather_tokens(np.array([[0, 1], [2, -1]]))
    assert (features.dtype, features.shape) == (np.float16, (2, 2, 4, 3))
    assert mask.sum(-1).tolist() == [[4, 2], [1, 0]]
    np.testing.assert_allclose(features[0, 0], batches[0][0][0, :4], atol=2e-3)
    np.testing.assert_allclose(features[0, 1, :2], batches[0][0][1, :2], atol=2e-3)
    assert (features[~mask] == 0).all()
    assert isinstance(index.tokens.base, np.memmap)
    with pytest.raises(ValueError, match="token features of 3 texts, got 2"):
        write_index(tmp_path / "short", studies, unit(3), tokens=TokenStore(batches[:1], length=4, width=3))
    assert not (tmp_path / "short").exists()
    assert not list(tmp_path.glob(".*"))


def test_an_index_that_is_open_survives_being_replaced(tmp_path):
    first = write_index(tmp_path, make_studies(300), unit(300))
    before = first.search(unit(3, seed=1), 5).rows
    second = write_index(tmp_path, make_studies(4), unit(4, seed=9))
    np.testing.assert_array_equal(first.search(unit(3, seed=1), 5).rows, before)
    assert first.manifest.fingerprint != second.manifest.fingerprint


@pytest.fixture
def folder(tmp_path):
    write_index(tmp_path, make_studies(8), unit(8))
    return tmp_path


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def accept(folder, name):
    """Have the manifest name the file as it now is, as whoever forges a folder would."""
    files = json.loads((folder / "manifest.json").read_text())["files"]
    edit_manifest(folder, files={**files, name: file_digest(folder / name)})


def test_asking_for_more_than_there_are_says_how_many_there_are(folder):
    index = RetrievalIndex.load(folder)
    with pytest.raises(DataError, match="asked for 21 neighbours but the index holds 8 studies"):
        index.search(unit(1), 21)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (np.zeros((2, 5), np.float32), r"expected queries of shape \(Q >= 1, 16\), got \(2, 5\)"),
        (np.zeros((0, WIDTH), np.float32), r"got \(0, 16\)"),
        (np.full((1, WIDTH), np.nan, np.float32), "NaN"),
    ],
)
def test_unusable_queries_are_refused(folder, queries, message):
    with pytest.raises(ValueError, match=message):
        RetrievalIndex.load(folder).search(queries, 2)


def test_exclusions_must_match_the_queries(folder):
    with pytest.raises(ValueError, match="one exclude_study for each of 2 queries, got 1"):
        RetrievalIndex.load(folder).search(unit(2), 2, exclude_study=["s0"])


def test_another_format_version_is_refused(folder):
    edit_manifest(folder, format=99)
    with pytest.raises(DataError, match=r"manifest\.json: needed index format 3, got 99"):
        RetrievalIndex.load(folder)


@pytest.mark.parametrize("damage", ["manifest.json", "studies.json", "embeddings.npy", "index.faiss"])
def test_missing_and_damaged_files_are_named(folder, damage):
    path = folder / damage
    path.write_bytes(b"\x80\x04}.")
    with pytest.raises(DataError, match=damage):
        RetrievalIndex.load(folder)
    path.unlink()
    with pytest.raises(DataError, match=damage):
        RetrievalIndex.load(folder)


def test_files_that_do_not_fit_together_are_named(folder):
    edit_manifest(folder, width=32)
    with pytest.raises(
        DataError, match=r"embeddings\.npy: needed float32 of shape \(8, 32\) .* got float32 of shape \(8, 16\)"
    ):
        RetrievalIndex.load(folder)
    edit_manifest(folder, width=WIDTH, studies=9)
    with pytest.raises(DataError, match=r"studies\.json: needed 9 studies .* got 8"):
        RetrievalIndex.load(folder)
    write_index(folder, make_studies(8), unit(8))
    small = write_index(folder / "small", make_studies(3), unit(3))
    (small.folder / "index.faiss").replace(folder / "index.faiss")
    with pytest.raises(DataError, match=r"index\.faiss: is not the file that manifest\.json was written with"):
        RetrievalIndex.load(folder)
    accept(folder, "index.faiss")
    with pytest.raises(DataError, match=r"index\.faiss: needed a FAISS index of 8 rows of width 16 .* got 3"):
        RetrievalIndex.load(folder)


def test_pickled_arrays_are_never_loaded(folder):
    np.save(folder / "embeddings.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    accept(folder, "embeddings.npy")
    with pytest.raises(DataError, match=r"embeddings\.npy: needed a NumPy array"):
        RetrievalIndex.load(folder)


def test_what_the_writer_is_given_is_checked(tmp_path):
    studies = make_studies(8)
    with pytest.raises(ValueError, match="embeddings of 8 texts, got 7"):
        write_index(tmp_path, studies, unit(7))
    wrong = [[unit(8), unit(1)], [unit(4), unit(4)[:, :5]], [unit(8).astype(np.float64)], [unit(8)[0]]]
    for batches, got in zip(wrong, ["(1, 16) after 8", "(4, 5) after 4", "float64", "(16,) after 0"], strict=True):
        with pytest.raises(ValueError, match=rf"float32 embeddings of 8 texts, .* got .*{re.escape(got)}"):
            write_index(tmp_path, studies, batches)
    with pytest.raises(ValueError, match="unit-length rows, got lengths from 2"):
        write_index(tmp_path, studies, 2 * unit(8))
    for factory in ("Flatt", "IVF64,Flat"):
        with pytest.raises(DataError, match=f"index_factory '{factory}'"):
            write_index(tmp_path, studies, unit(8), factory=factory)
    with pytest.raises(DataError, match="'s1' comes more than once"):
        IndexedStudies.of(ids=["s0", "s1", "s1"], reports=["a", "b", "c"])
    with pytest.raises(DataError, match="at least one training study"):
        IndexedStudies.of(ids=[], reports=[])
    with pytest.raises(ValueError, match="one report and patient an id, got 2, 1, 2"):
        IndexedStudies.of(ids=["a", "b"], reports=["x"])
    with pytest.raises(DataError, match="needed token features"):
        write_index(tmp_path, studies, unit(8)).gather_tokens(np.array([[0]]))
