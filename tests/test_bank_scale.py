"""The approximate index, opening large banks, the Ray engine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from audiobert.artefacts import sha256_of
from audiobert.bank import AudioBank, build_bank, ray_engine
from audiobert.bank.search import build_index, exact_search, tuning_queries
from audiobert.bank.sources import Entry, Source
from audiobert.bank.store import ClipTable
from audiobert.errors import ArtefactError
from bank_fakes import DeadlyEntry, FakeEncoder, clustered, synthetic_bank, write_tones


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> AudioBank:
    pytest.importorskip("faiss")
    return synthetic_bank(tmp_path_factory.mktemp("scale") / "bank", 20_000, index=True)


def test_exact_search_is_the_argsort_of_all_scores_whatever_the_block_and_mask() -> None:
    vectors = clustered(20_000, 16)
    queries = tuning_queries(vectors, 5)
    truth = queries @ vectors.astype(np.float32).T
    scores, rows = exact_search(vectors, queries, 10)
    np.testing.assert_allclose(scores, -np.sort(-truth, axis=1)[:, :10], rtol=1e-4)
    mask = np.zeros(20_000, bool)
    mask[[3, 9_000, 19_999]] = True
    _, rows = exact_search(vectors, queries, 3, mask)
    assert [set(row) for row in rows.tolist()] == [{3, 9_000, 19_999}] * 5


def test_the_index_reaches_the_recall_that_it_promises(indexed: AudioBank) -> None:
    assert indexed.manifest["index"]["recall_at_10"] >= 0.985
    queries = tuning_queries(indexed.clap_vectors, 300, seed=1)  # others than it was tuned on
    _, truth = indexed.search(queries, 10, method="exact")
    _, found = indexed.search(queries, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth, found, strict=True)])
    assert recall >= 0.98


def test_the_index_obeys_filters_and_exclusions(indexed: AudioBank) -> None:
    query = indexed.clap_vectors[7]
    scores, rows = indexed.search(query, 10, exclude=["0000007"], method="approximate")
    assert 7 not in rows and (np.diff(scores) <= 0).all()
    _, rows = indexed.search(query, 10, sources=["s1"])
    assert (rows % 4 == 1).all()
    _, few = indexed.search(query, 10, mask=np.arange(20_000) < 4)  # too few for the index: exact
    assert set(few[0].tolist()) == {0, 1, 2, 3}


def test_a_damaged_index_is_named(indexed: AudioBank, tmp_path: Path) -> None:
    shutil.copytree(indexed.folder, tmp_path / "bank")
    path = tmp_path / "bank" / "index.faiss"
    path.write_bytes(path.read_bytes()[:1000])
    bank = AudioBank.open(tmp_path / "bank")
    assert any("index.faiss" in problem for problem in bank.verify().problems)
    with pytest.raises(ArtefactError, match=r"index\.faiss"):
        bank.search(bank.clap_vectors[0])


def test_small_banks_get_no_index(tmp_path: Path) -> None:
    bank = synthetic_bank(tmp_path / "bank", 50)
    assert "index" not in bank.manifest and not (bank.folder / "index.faiss").exists()


def test_an_index_of_a_few_clips_still_works(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    vectors = clustered(60, 8)
    assert build_index(vectors, tmp_path / "index.faiss")["recall_at_10"] == 1.0


def test_opening_reads_neither_vectors_nor_rows(indexed: AudioBank, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: ClipTable) -> None:
        raise AssertionError("all rows were read")

    for method in ("table", "rows", "batches"):
        monkeypatch.setattr(ClipTable, method, read)
    bank = AudioBank.open(indexed.folder)
    assert isinstance(bank.clap_vectors, np.memmap) and bank.clip(12_345).caption == "sound 12345"


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_ray_workers_give_the_same_bank_whatever_kills_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # where the workers find the fake encoder
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or they starve on a busy machine
    monkeypatch.setattr(ray_engine, "_RETRIES", 1)
    entries: list[Entry] = [
        Entry(path.name, {"path": path.name}, path) for path in write_tones(tmp_path / "source", 18)
    ]
    entries.insert(7, DeadlyEntry("deadly"))  # kills every process that decodes it
    source = Source("sounds", None, len(entries), lambda: iter(entries))
    build_bank(source, tmp_path / "local", FakeEncoder(), workers=1, batch_size=4)
    killer = FakeEncoder(kill_once=tmp_path / "killed")
    build_bank(source, tmp_path / "ray", killer, workers=2, batch_size=4, engine="ray")
    assert (tmp_path / "killed").exists()  # a worker did die midway
    assert "deadly" in (tmp_path / "local" / "rejected.jsonl").read_text()
    for name in ("clips.arrow", "vectors.safetensors", "rejected.jsonl"):
        assert sha256_of(tmp_path / "ray" / name) == sha256_of(tmp_path / "local" / name)
