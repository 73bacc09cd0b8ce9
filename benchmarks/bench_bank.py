"""Building, opening and searching banks against the plain way, from a thousand clips to LAION-Audio-630K's size.

`AUDIOBERT_BENCH_FULL=1` adds the approximate index at full size (several minutes of clustering).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from audiobert.audio import SAMPLE_RATE_HZ, Attributes, load_audio, log_mel_spectrogram, measure, seconds_heard
from audiobert.bank import AudioBank, build_bank
from audiobert.bank.search import exact_search, tuning_queries
from audiobert.bank.store import open_vectors, write_bank
from audiobert.features import AUDIO_ENCODER, CLAP, Features, LogMel, Makers
from benchmarks.bench_audio import row, some_clips

_SIZES = (1_000, 100_000, 630_000)
_CLAP_DIM = 512
_HIDDEN_SIZE = 64  # the knowledge vectors take no part in a search
_CLIPS = 48
_QUERIES = 16
_TOP_K = 10


def run() -> list[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        return [*_build(Path(folder)), *_search_and_open(Path(folder))]


# ------------------------------------------------------------------------------------------------------------- build


class _RandomEncoder:
    """An AST of the size of mini's towers with random weights: speed does not depend on what it has learnt."""

    clap_dim = 128
    hidden_size = 192
    frames = 512
    makers: ClassVar[Makers] = {CLAP: LogMel(512), AUDIO_ENCODER: LogMel(512)}

    def __init__(self) -> None:
        import torch
        from transformers import ASTConfig, ASTModel

        torch.manual_seed(0)
        config = ASTConfig(
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=3,
            intermediate_size=768,
            max_length=self.frames,
            frequency_stride=16,
            time_stride=16,
        )
        self._tower = ASTModel(config).eval()

    def identity(self) -> dict[str, Any]:
        return {"clap": "random", "audio_encoder": "random"}

    def encode(self, features: list[Features], attributes: list[Attributes]) -> tuple[np.ndarray, np.ndarray]:
        import torch

        spectrograms = [one[CLAP] for one in features]
        assert len(spectrograms) == len(attributes)
        batch = np.zeros((len(spectrograms), self.frames, spectrograms[0].shape[1]), np.float32)
        for place, spectrogram in zip(batch, spectrograms, strict=True):
            place[: len(spectrogram)] = (spectrogram[: self.frames] + 4.27) / 9.14
        with torch.inference_mode():
            pooled = self._tower(torch.from_numpy(batch)).pooler_output
        clap = torch.nn.functional.normalize(pooled[:, : self.clap_dim], dim=1)
        return clap.numpy(), pooled.numpy()


def _build(folder: Path) -> list[dict[str, Any]]:
    import librosa
    from transformers import ASTFeatureExtractor

    clips = some_clips(_CLIPS, folder)
    encoder = _RandomEncoder()
    source = folder / "clips.csv"
    source.write_text("\n".join(["path", *map(str, clips)]))
    limit = seconds_heard(encoder.frames)

    started = time.perf_counter()
    report = build_bank(source, folder / "without-pitch", encoder, workers=0, estimator="none")
    ours = time.perf_counter() - started
    started = time.perf_counter()
    build_bank(source, folder / "with-pitch", encoder, workers=0)
    with_pitch = time.perf_counter() - started

    extractor = ASTFeatureExtractor(max_length=encoder.frames, do_normalize=False)
    librosa.load(clips[0], sr=SAMPLE_RATE_HZ)
    spent = {"decode": 0.0, "features": 0.0, "encoder": 0.0}
    seconds = 0.0
    for path in clips:
        times = [time.perf_counter()]
        waveform, _ = librosa.load(path, sr=SAMPLE_RATE_HZ)
        times.append(time.perf_counter())
        features = extractor(waveform, sampling_rate=SAMPLE_RATE_HZ)["input_values"][0]
        times.append(time.perf_counter())
        encoder.encode([{CLAP: features}], [measure(waveform, SAMPLE_RATE_HZ, estimator="none")])
        times.append(time.perf_counter())
        for name, start, end in zip(spent, times, times[1:], strict=False):
            spent[name] += end - start
        seconds += min(len(waveform) / SAMPLE_RATE_HZ, limit)
    plain = sum(spent.values())
    split = _our_split(clips, encoder, limit)
    note = f"librosa.load + ASTFeatureExtractor + one at a time; {report.clips} clips, one process"
    rows = [row("bank build, without pitch", seconds / ours, seconds / plain, "audio s/s", note)]
    rows += [
        row(f"bank build: {name}", seconds / split[name], seconds / spent[name], "audio s/s", note) for name in spent
    ]
    return [*rows, row("bank build, with pitch", seconds / with_pitch, seconds / plain, "audio s/s", "plain has none")]


def _our_split(clips: list[Path], encoder: _RandomEncoder, limit: float) -> dict[str, float]:
    times = [time.perf_counter()]
    waveforms = [load_audio(path, max_seconds=limit) for path in clips]
    times.append(time.perf_counter())
    spectrograms = [log_mel_spectrogram(waveform) for waveform in waveforms]
    times.append(time.perf_counter())
    attributes = [measure(waveform, SAMPLE_RATE_HZ, estimator="none") for waveform in waveforms]
    times.append(time.perf_counter())
    for start in range(0, len(spectrograms), 32):
        encoder.encode([{CLAP: one} for one in spectrograms[start : start + 32]], attributes[start : start + 32])
    times.append(time.perf_counter())
    return {"decode": times[1] - times[0], "features": times[2] - times[1], "encoder": times[4] - times[3]}


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


def _bank(folder: Path, vectors: np.ndarray) -> Path:
    folder.mkdir()
    write_bank(
        folder,
        clips=len(vectors),
        rows=_rows(vectors),
        rejected=[],
        clap_dim=_CLAP_DIM,
        hidden_size=_HIDDEN_SIZE,
        manifest={"identity": {}, "settings": {}, "audio_root": None},
    )
    return folder


def _search_and_open(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    everything = _vectors(_SIZES[-1])
    for clips in _SIZES:
        path = _bank(folder / str(clips), everything[:clips])
        opening = min(_opening(path) for _ in range(5))
        whole = _reading_all(path)
        rows.append(row(f"open a bank of {clips:,}", opening, whole, "ms", "reading all of it", more_is_better=False))
        bank = AudioBank.open(path)
        queries = tuning_queries(bank.clap_vectors, _QUERIES)
        rows += _search(bank, queries)
        if clips == _SIZES[-1] and os.environ.get("AUDIOBERT_BENCH_FULL"):
            rows += _approximate(folder, bank, queries)
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


def _search(bank: AudioBank, queries: np.ndarray) -> list[dict[str, Any]]:
    from sklearn.metrics.pairwise import cosine_similarity

    matrix = bank.clap_vectors.astype(np.float32)
    bank.search(queries[:1], _TOP_K)
    rows = []
    for count in (1, _QUERIES):
        repeats = 1 if len(bank) > 50_000 else 5
        started = time.perf_counter()
        for _ in range(repeats):
            _, ours = bank.search(queries[:count], _TOP_K)
        our_seconds = (time.perf_counter() - started) / repeats
        started = time.perf_counter()
        plain = np.argsort(-cosine_similarity(queries[:count], matrix), axis=1)[:, :_TOP_K]
        plain_seconds = time.perf_counter() - started
        same = np.mean([len(set(a) & set(b)) / _TOP_K for a, b in zip(ours, plain, strict=True)])
        note = f"sklearn cosine_similarity + argsort, {same:.0%} of the same top-10"
        name = f"search {len(bank):,} x {_CLAP_DIM}, {count} at once"
        rows.append(row(name, count / our_seconds, count / plain_seconds, "queries/s", note))
    return rows


def _approximate(folder: Path, bank: AudioBank, queries: np.ndarray) -> list[dict[str, Any]]:
    from audiobert.bank.search import ApproximateIndex, build_index

    started = time.perf_counter()
    told = build_index(bank.clap_vectors, folder / "index.faiss")
    built = time.perf_counter() - started
    index = ApproximateIndex(folder / "index.faiss", len(bank))
    index.search(queries, _TOP_K)
    started = time.perf_counter()
    index.search(queries, _TOP_K)
    ours = len(queries) / (time.perf_counter() - started)
    started = time.perf_counter()
    exact_search(bank.clap_vectors, queries, _TOP_K)
    plain = len(queries) / (time.perf_counter() - started)
    note = (
        f"against our exact search; recall@10 {told['recall_at_10']}, nprobe {told['nprobe']}, built in {built:.0f} s"
    )
    return [row(f"approximate search {len(bank):,}, {len(queries)} at once", ours, plain, "queries/s", note)]
