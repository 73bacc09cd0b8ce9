"""Writing, opening and searching banks of 100,000 and 630,000 clips (LAION-Audio-630K's size).

CPU seconds; run it with OMP_NUM_THREADS=1, so that both sides have one thread. `AUDIOBERT_BENCH_FULL=1` adds the
approximate index at full size (several minutes of clustering).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from audiobert.bank import AudioBank
from audiobert.bank.batches import batched
from audiobert.bank.build import BATCH_SIZE
from audiobert.bank.clips import MEASURED_COLUMNS
from audiobert.bank.journal import Journal, Record
from audiobert.bank.search import ApproximateIndex, build_index, exact_search, tuning_queries
from audiobert.bank.store import open_vectors, write_bank
from benchmarks.measure import row

_SIZES = (100_000, 630_000)
_CLAP_DIM = 256
_HIDDEN_SIZE = 64  # the knowledge vectors take no part in a search
_TEXT_DIM = 64
_BATCHES = (1, 16, 64)  # queries at once
_TOP_K = 10
_REFINE = 4  # candidates per result that FAISS scores again in float32


def run() -> Iterator[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        yield from search_and_open(Path(folder))


def search_and_open(folder: Path) -> Iterator[dict[str, Any]]:
    """Measure search in, and opening of, banks of two sizes."""
    everything = _vectors(_SIZES[-1])
    for clips in _SIZES:
        vectors = everything[:clips]
        started = time.process_time()
        path = _bank(folder / str(clips), vectors)
        rate = clips / (time.process_time() - started)
        yield row(f"journal and files of {clips:,} clips", rate, rate, "clips/s", "with names, nothing decoded")
        opening, whole = _fastest(lambda: _open(path))[0], _fastest(lambda: _read_all(path))[0]  # noqa: B023
        name = f"open a bank of {clips:,}"
        yield row(name, 1000 * opening, 1000 * whole, "ms", "reading all of it", more_is_better=False)
        started = time.process_time()
        distinct = len(AudioBank.open(path).names)
        yield row("its names, first use", time.process_time() - started, 1.0, "s", f"{distinct:,} distinct")
        yield from _search(vectors)
        if clips == _SIZES[-1] and os.environ.get("AUDIOBERT_BENCH_FULL"):
            yield _approximate(folder, vectors)
        shutil.rmtree(path)


def _vectors(clips: int) -> np.ndarray:
    """Return unit vectors around a thousand centres, `(clips, clap_dim)` float16."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1_000, _CLAP_DIM), dtype=np.float32)
    vectors = np.empty((clips, _CLAP_DIM), np.float16)
    for start in range(0, clips, 1 << 15):
        count = min(1 << 15, clips - start)
        block = centres[random.integers(0, len(centres), count)]
        block += random.standard_normal((count, _CLAP_DIM), dtype=np.float32)
        vectors[start : start + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def _records(vectors: np.ndarray) -> Iterator[Record]:
    """Yield what a build knows of clips once they are decoded and encoded."""
    knowledge = np.zeros(_HIDDEN_SIZE, np.float16)
    for number, vector in enumerate(vectors):
        given = {
            "path": f"freesound/{number}.flac",
            "caption": f"a recording of something, number {number}, in a street with birds and distant traffic",
            "title": f"field recording {number}",
            "tags": ["field-recording", "city", "birds"],
            "author": f"author{number % 9973}",
            "license": "CC0" if number % 2 else "http://creativecommons.org/licenses/by/3.0/",
            "url": f"https://freesound.org/s/{number}/",
            "source": "freesound",
        }
        measured = dict.fromkeys(MEASURED_COLUMNS) | {"duration_s": 5.0 + number % 20, "pitch_hz": 100.0 + number % 900}
        sha256 = f"{number:064x}"
        measured["content_sha256"] = sha256
        yield Record(given["path"], sha256, given, None, measured, False, vector, knowledge)


def _bank(folder: Path, vectors: np.ndarray) -> Path:
    """Write a bank as a build does, through the journal, without decoding anything."""
    folder.mkdir()
    work = folder / "journal.sqlite"

    def name_vectors(texts: Sequence[str]) -> np.ndarray:
        return np.full((len(texts), _TEXT_DIM), _TEXT_DIM**-0.5)

    with closing(Journal(work, {})) as journal:
        for number, some in enumerate(batched(_records(vectors), BATCH_SIZE)):
            journal.known([one.id for one in some])
            journal.place([(number * BATCH_SIZE + place, one.id) for place, one in enumerate(some)], ())
            journal.commit(some)
        write_bank(
            folder,
            clips=journal.count_clips(),
            rows=journal.clips(),
            rejected=journal.rejected(),
            clap_dim=_CLAP_DIM,
            hidden_size=_HIDDEN_SIZE,
            manifest={"identity": {}, "settings": {}, "audio_root": None},
            text_dim=_TEXT_DIM,
            name_vectors=name_vectors,
        )
    return folder


def _open(path: Path) -> None:
    bank = AudioBank.open(path)
    bank.clip(len(bank) // 2)


def _read_all(path: Path) -> None:
    np.array(open_vectors(path / "vectors.safetensors")["clap_vectors"])
    AudioBank.open(path).table.combine_chunks()


def _search(vectors: np.ndarray) -> Iterator[dict[str, Any]]:
    """Compare the exact search with FAISS's flat indexes: float32, float16, and 8 bits refined in float32."""
    import faiss

    queries = tuning_queries(vectors, _BATCHES[-1])
    matrix = vectors.astype(np.float32)
    flat = faiss.IndexFlatIP(_CLAP_DIM)
    flat.add(matrix)
    quantizer = faiss.ScalarQuantizer
    half = faiss.IndexScalarQuantizer(_CLAP_DIM, quantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    byte = faiss.IndexScalarQuantizer(_CLAP_DIM, quantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    for index in (half, byte):
        index.train(matrix[: 1 << 16])
        index.add(matrix)
    refined = faiss.IndexRefine(byte, flat)
    refined.k_factor = _REFINE
    for count in _BATCHES:
        some = queries[:count]
        ours, (_, truth) = _fastest(lambda: exact_search(vectors, some, _TOP_K))  # noqa: B023
        for name, index in (("IndexFlatIP", flat), ("SQ fp16", half), ("SQ 8bit", byte), ("SQ 8bit + refine", refined)):
            plain, (_, found) = _fastest(lambda: index.search(some, _TOP_K))  # noqa: B023
            title = f"exact search {len(vectors):,} x {_CLAP_DIM}, {count} at once"
            note = f"FAISS {name}, which finds {_recall(truth, found):.2%} of the ten"
            yield row(title, count / ours, count / plain, "queries/s", note)


def _approximate(folder: Path, vectors: np.ndarray) -> dict[str, Any]:
    queries = tuning_queries(vectors, _BATCHES[-1], seed=1)
    started = time.process_time()
    entry = build_index(vectors, folder / "index.faiss")
    built = time.process_time() - started
    index = ApproximateIndex(folder / "index.faiss", len(vectors))
    plain, (_, truth) = _fastest(lambda: exact_search(vectors, queries, _TOP_K))
    ours, (_, found) = _fastest(lambda: index.search(queries, _TOP_K))
    note = f"exact search; recall@10 {_recall(truth, found):.4f}, nprobe {entry['nprobe']}, built in {built:.0f} s"
    name = f"approximate search {len(vectors):,}, {len(queries)} at once"
    return row(name, len(queries) / ours, len(queries) / plain, "queries/s", note)


def _recall(truth: np.ndarray, found: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(truth, found, strict=True)]))


def _fastest(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of the fastest of three runs, and the result."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        result = work()
        best = min(best, time.process_time() - started)
    return best, result
