"""Building, opening and searching banks against the plain way, from a thousand clips to LAION-Audio-630K's size.

`AUDIOBERT_BENCH_FULL=1` adds the approximate index at full size (several minutes of clustering).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from audiobert.bank import AudioBank
from audiobert.bank.batches import batched
from audiobert.bank.build import BATCH_SIZE
from audiobert.bank.clips import MEASURED_COLUMNS
from audiobert.bank.journal import Journal, Record
from audiobert.bank.search import tuning_queries
from audiobert.bank.store import open_vectors, write_bank
from benchmarks import bank_build
from benchmarks.bench_audio import row

_SIZES = (1_000, 10_000, 100_000, 630_000)
_CLAP_DIM = 512
_HIDDEN_SIZE = 64  # the knowledge vectors take no part in a search
_BATCHES = (1, 16, 256)  # queries at once
_TOP_K = 10


def run() -> list[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        return [*bank_build.run(Path(folder)), *_search_and_open(Path(folder))]


# --------------------------------------------------------------------------------------------------- search and open


def _vectors(clips: int) -> np.ndarray:
    """Unit vectors around a thousand centres, `(clips, 512)` float16."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1_000, _CLAP_DIM), dtype=np.float32)
    vectors = np.empty((clips, _CLAP_DIM), np.float16)
    for start in range(0, clips, 1 << 15):
        count = min(1 << 15, clips - start)
        block = centres[random.integers(0, len(centres), count)]
        block += random.standard_normal((count, _CLAP_DIM), dtype=np.float32)
        vectors[start : start + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def _rows(vectors: np.ndarray) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    knowledge = np.zeros(_HIDDEN_SIZE, np.float16)
    for number, vector in enumerate(vectors):
        metadata = {
            "id": f"freesound/{number}.flac",
            "path": f"freesound/{number}.flac",
            "caption": f"a recording of something, number {number}, in a street with birds and distant traffic",
            "title": f"field recording {number}",
            "tags": ["field-recording", "city", "birds"],
            "author": f"author{number % 9973}",
            "license": "CC0" if number % 2 else "http://creativecommons.org/licenses/by/3.0/",
            "url": f"https://freesound.org/s/{number}/",
            "source": "freesound",
            "duration_s": 5.0 + number % 20,
            "pitch_hz": 100.0 + number % 900,
            "loudness_dbfs": -20.0,
            "content_sha256": f"{number:064x}",
        }
        yield metadata, vector, knowledge


def _records(vectors: np.ndarray) -> Iterator[Record]:
    """What a build knows of clips once they are heard and encoded."""
    for row_, vector, knowledge in _rows(vectors):
        measured = {name: row_[name] for name in MEASURED_COLUMNS if name in row_}
        given = {name: value for name, value in row_.items() if name != "id" and name not in measured}
        yield Record(row_["id"], row_["content_sha256"], given, "1:1", None, measured, False, vector, knowledge)


def _bank(folder: Path, vectors: np.ndarray) -> Path:
    """A bank as a build puts it together: through the journal, without hearing anything."""
    folder.mkdir()
    with closing(Journal(folder.parent / f"{folder.name}.sqlite", {})) as journal:
        for number, some in enumerate(batched(_records(vectors), BATCH_SIZE)):
            journal.known([one.id for one in some])
            places = [(number * BATCH_SIZE + place, one.id) for place, one in enumerate(some)]
            journal.commit(some, places=places)
        write_bank(
            folder,
            clips=journal.count_clips(),
            rows=journal.clips(),
            rejected=journal.rejected(),
            clap_dim=_CLAP_DIM,
            hidden_size=_HIDDEN_SIZE,
            manifest={"identity": {}, "settings": {}, "audio_root": None},
        )
    for path in folder.parent.glob(f"{folder.name}.sqlite*"):
        path.unlink()
    return folder


def _search_and_open(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    everything = _vectors(_SIZES[-1])
    first_rate = None
    for clips in _SIZES:
        started = time.perf_counter()
        path = _bank(folder / str(clips), everything[:clips])
        rate = clips / (time.perf_counter() - started)
        first_rate = first_rate or rate
        note = f"plain: the rate at {_SIZES[0]:,}"
        rows.append(row(f"journal and files of {clips:,} clips", rate, first_rate, "clips/s", note))
        opening = min(_opening(path) for _ in range(5))
        whole = _reading_all(path)
        rows.append(row(f"open a bank of {clips:,}", opening, whole, "ms", "reading all of it", more_is_better=False))
        rows += _search(AudioBank.open(path))
        if clips == _SIZES[-1]:
            if Path("/proc/self/status").exists():
                rows.append(_memory(path))
            if os.environ.get("AUDIOBERT_BENCH_FULL"):
                bank = AudioBank.open(path)
                rows += _approximate(folder, bank, tuning_queries(bank.clap_vectors, _BATCHES[-1], seed=1))
        shutil.rmtree(path)
    return rows


def _opening(path: Path) -> float:
    started = time.perf_counter()
    bank = AudioBank.open(path)
    bank.clip(len(bank) // 2)
    return 1000 * (time.perf_counter() - started)


def _reading_all(path: Path) -> float:
    started = time.perf_counter()
    np.array(open_vectors(path / "vectors.safetensors")["clap_vectors"])
    AudioBank.open(path).table.combine_chunks()
    return 1000 * (time.perf_counter() - started)


def _search(bank: AudioBank) -> list[dict[str, Any]]:
    from sklearn.metrics.pairwise import cosine_similarity

    matrix = bank.clap_vectors.astype(np.float32)
    queries = tuning_queries(bank.clap_vectors, _BATCHES[-1])
    started = time.perf_counter()
    bank.search(queries, _TOP_K)
    first = time.perf_counter() - started
    rows = []
    for count in (one for one in _BATCHES if one <= len(queries)):
        our_seconds, (_, ours) = _fastest(lambda some=queries[:count]: bank.search(some, _TOP_K))  # type: ignore[misc]
        started = time.perf_counter()
        similarities = cosine_similarity(queries[:count], matrix)
        plain = np.argsort(-similarities, axis=1)[:, :_TOP_K]
        plain_seconds = time.perf_counter() - started
        places = np.arange(count)[:, None]
        tie = np.abs(similarities[places, ours] - similarities[places, plain]).max()
        same = np.mean([len(set(a) & set(b)) / _TOP_K for a, b in zip(ours, plain, strict=True)])
        note = f"sklearn cosine_similarity + argsort; {same:.2%} of the same top-10, the rest ties within {tie:.0e}"
        if count == _BATCHES[-1]:
            note += f"; the bank's first {count} took {first:.2f} s"
        name = f"search {len(bank):,} x {_CLAP_DIM}, {count} at once"
        rows.append(row(name, count / our_seconds, count / plain_seconds, "queries/s", note))
    return rows


def _fastest(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the fastest of three runs, and what it gave."""
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - started)
    return best, result


_PEAK = """
import sys
from pathlib import Path
import numpy as np
from audiobert.bank import AudioBank
from audiobert.bank.search import tuning_queries
bank = AudioBank.open(sys.argv[2])
queries = tuning_queries(bank.clap_vectors, {queries})
if sys.argv[1] == "ours":
    bank.search(queries, {top_k}, method="exact")
elif sys.argv[1] == "plain":
    from sklearn.metrics.pairwise import cosine_similarity
    matrix = bank.clap_vectors.astype(np.float32)
    np.argsort(-cosine_similarity(queries, matrix), axis=1)[:, :{top_k}]
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def _memory(path: Path) -> dict[str, Any]:
    """Peak resident memory of a process that opens the bank and answers one batch."""
    script = _PEAK.format(queries=_BATCHES[-1], top_k=_TOP_K)
    peak = {}
    for what in ("open", "ours", "plain"):
        run = subprocess.run([sys.executable, "-c", script, what, path], capture_output=True, text=True, check=True)
        peak[what] = float(run.stdout) / 1024
    mapped = np.prod(AudioBank.open(path).clap_vectors.shape) * 2 / 2**20
    note = f"peak resident; {peak['open']:.0f} before the search, {mapped:.0f} of ours is the mapped file"
    name = f"memory, {_BATCHES[-1]} queries, whole process"
    return row(name, peak["ours"], peak["plain"], "MiB", note, more_is_better=False)


def _approximate(folder: Path, bank: AudioBank, queries: np.ndarray) -> list[dict[str, Any]]:
    from audiobert.bank.search import ApproximateIndex, build_index

    started = time.perf_counter()
    told = build_index(bank.clap_vectors, folder / "index.faiss")
    built = time.perf_counter() - started
    index = ApproximateIndex(folder / "index.faiss", len(bank))
    index.search(queries, _TOP_K)
    _, truth = bank.search(queries, _TOP_K, method="exact")
    ours, (_, found) = _fastest(lambda: index.search(queries, _TOP_K))
    plain = _fastest(lambda: bank.search(queries, _TOP_K, method="exact"))[0]
    recall = np.mean([len(set(a) & set(b)) / _TOP_K for a, b in zip(found, truth, strict=True)])
    note = f"against our exact search; recall@10 {recall:.4f} on these queries, nprobe {told['nprobe']}, "
    note += f"built in {built:.0f} s"
    name = f"approximate search {len(bank):,}, {len(queries)} at once"
    return [row(name, len(queries) / ours, len(queries) / plain, "queries/s", note)]
