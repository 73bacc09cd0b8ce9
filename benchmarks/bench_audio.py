"""Decoding, spectrogram and pitch, each against the usual library on the same clips in the same run, on one core."""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiobert.audio import MEASURED_SECONDS, SAMPLE_RATE_HZ, load_audio, log_mel_spectrogram
from audiobert.pitch import compare_pitch, measure_pitch
from benchmarks.measure import row

_CLIPS = 40
_NOTES = 24


def shared_folder() -> Path | None:
    """Return the folder with real audio, where there is one."""
    folder = Path(os.environ.get("AUDIOBERT_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    return folder if (folder / "audio" / "clips.csv").is_file() else None


def some_clips(count: int, folder: Path) -> list[Path]:
    """Real clips at their own rates where there are any, else noise written to `folder`."""
    shared = shared_folder()
    if shared:
        with (shared / "audio" / "clips.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [shared / "audio" / row["path"] for row in rows[:: max(1, len(rows) // count)]][:count]
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{number}.flac"
        soundfile.write(path, random.uniform(-0.3, 0.3, 44_100 * 5), 44_100)
        paths.append(path)
    return paths


def run() -> Iterator[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        clips = some_clips(_CLIPS, Path(folder))
        for part in (lambda: _decode(clips), lambda: _spectrogram(clips), _pitch, _synthetic_tones, _written_notes):
            yield from part()


def _decode(clips: list[Path]) -> list[dict[str, Any]]:
    import librosa

    started = time.perf_counter()
    seconds = sum(len(load_audio(path)) for path in clips) / SAMPLE_RATE_HZ
    ours = seconds / (time.perf_counter() - started)
    librosa.load(clips[0], sr=SAMPLE_RATE_HZ)  # its imports are lazy
    started = time.perf_counter()
    for path in clips:
        librosa.load(path, sr=SAMPLE_RATE_HZ)
    plain = seconds / (time.perf_counter() - started)
    return [row("decode and resample", ours, plain, "audio s/s", f"librosa.load, {len(clips)} clips")]


def _spectrogram(clips: list[Path]) -> list[dict[str, Any]]:
    from transformers import ASTFeatureExtractor

    extractor = ASTFeatureExtractor(do_normalize=False)
    waveforms = [load_audio(path, max_seconds=10.0) for path in clips]
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE_HZ
    log_mel_spectrogram(waveforms[0])
    started = time.perf_counter()
    for waveform in waveforms:
        log_mel_spectrogram(waveform)
    ours = seconds / (time.perf_counter() - started)
    started = time.perf_counter()
    for waveform in waveforms:
        extractor(waveform, sampling_rate=SAMPLE_RATE_HZ)
    plain = seconds / (time.perf_counter() - started)
    return [row("log-mel spectrogram", ours, plain, "audio s/s", "transformers' ASTFeatureExtractor")]


def _pitch() -> list[dict[str, Any]]:
    shared = shared_folder()
    if not shared:
        return []
    with (shared / "audio" / "clips.csv").open(encoding="utf-8") as file:
        notes = [one for one in csv.DictReader(file) if one["target_pitch_hz"]]
    notes = notes[:: len(notes) // _NOTES][:_NOTES]
    waveforms = [load_audio(shared / "audio" / note["path"], max_seconds=2.0) for note in notes]
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE_HZ
    speed: dict[str, float] = {}
    share: dict[str, float] = {}
    for estimator in ("swiftf0", "pyin"):
        measure_pitch(waveforms[0][:8_000], SAMPLE_RATE_HZ, estimator=estimator)  # type: ignore[arg-type]
        started = time.perf_counter()
        found = [measure_pitch(one, SAMPLE_RATE_HZ, estimator=estimator) for one in waveforms]  # type: ignore[arg-type]
        speed[estimator] = seconds / (time.perf_counter() - started)
        verdicts = Counter(
            compare_pitch(pitch.median_hz, float(note["target_pitch_hz"])).verdict if pitch.median_hz else "none"
            for pitch, note in zip(found, notes, strict=True)
        )
        share[estimator] = (verdicts["right"] + verdicts["octave"]) / len(notes)
    note = f"SwiftF0 against pYIN, {len(notes)} written notes"
    return [
        row("pitch", speed["swiftf0"], speed["pyin"], "audio s/s", note),
        row("pitch: within 50 cents or an exact octave", share["swiftf0"], share["pyin"], "share", note),
    ]


@cache
def _swiftf0() -> Any:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1, spin=False)


def _plain_swiftf0(waveform: np.ndarray) -> float | None:
    """Return the median pitch of SwiftF0 by itself, over its own range."""
    found = _swiftf0().detect(waveform, SAMPLE_RATE_HZ)
    voiced = found.pitch_hz[found.confidence >= 0.5]
    return float(np.median(voiced)) if len(voiced) >= 3 else None


def _verdict(measured_hz: float | None, written_hz: float) -> str:
    return compare_pitch(measured_hz, written_hz).verdict if measured_hz else "none"


def _verdict_rows(name: str, cases: Iterable[tuple[np.ndarray, float]]) -> list[dict[str, Any]]:
    """Compare measured with true pitches, SwiftF0 alone being the plain way; one row per verdict."""
    ours: Counter[str] = Counter()
    plain: Counter[str] = Counter()
    for waveform, true_hz in cases:
        ours[_verdict(measure_pitch(waveform, SAMPLE_RATE_HZ).median_hz, true_hz)] += 1
        plain[_verdict(_plain_swiftf0(waveform), true_hz)] += 1
    total = ours.total()
    note = f"SwiftF0 alone, {total} pitches"
    rows = [row(f"{name}: within 50 cents", ours["right"] / total, max(plain["right"], 1) / total, "share", note)]
    for verdict, meaning in (("octave", "octaves off"), ("wrong", "wrong"), ("none", "no pitch")):
        # one case is the least that a ratio can be taken of
        counts = (max(ours[verdict], 1) / total, max(plain[verdict], 1) / total)
        rows.append(row(f"{name}: {meaning}", *counts, "share", note, more_is_better=False))
    return rows


def _synthetic_tones() -> list[dict[str, Any]]:
    """Sines, sawtooths tones without fundamental, six per octave from 50 Hz to 7.2 kHz; bands of noise."""
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    random = np.random.default_rng(0)

    def tones(numbers: range, power: int) -> Iterator[tuple[np.ndarray, float]]:
        for frequency_hz in 50.0 * 2.0 ** (np.arange(44) / 6):
            carried = [n for n in numbers if n * frequency_hz < SAMPLE_RATE_HZ / 2]
            if len(carried) < min(2, len(numbers)) and numbers[0] > 1:
                return  # a single partial is a sine of its own
            phases = random.uniform(0, 2 * np.pi, len(carried))
            partials = [
                np.sin(2 * np.pi * n * frequency_hz * time_s + phase) / n**power
                for n, phase in zip(carried, phases, strict=True)
            ]
            sound = np.sum(partials, axis=0)
            yield (0.3 * sound / np.abs(sound).max()).astype(np.float32), float(frequency_hz)

    return [
        *_verdict_rows("sine", tones(range(1, 2), 1)),
        *_verdict_rows("sawtooth", tones(range(1, 161), 1)),
        *_verdict_rows("missing fundamental", tones(range(2, 10), 0)),
        *_false_pitches(random),
    ]


def _false_pitches(random: np.random.Generator) -> list[dict[str, Any]]:
    noises = []
    for low_hz, high_hz in ((0, 8_000), (0, 500), (2_000, 8_000), (3_000, 5_000), (5_000, 7_000), (6_000, 8_000)) * 4:
        spectrum = np.fft.rfft(random.standard_normal(SAMPLE_RATE_HZ))
        spectrum[:low_hz] = spectrum[high_hz:] = 0  # bins of 1 Hz
        noises.append((0.1 * np.fft.irfft(spectrum)).astype(np.float32))
    ours = sum(measure_pitch(one, SAMPLE_RATE_HZ).median_hz is not None for one in noises)
    plain = sum(_plain_swiftf0(one) is not None for one in noises)
    counts = (max(ours, 1) / len(noises), max(plain, 1) / len(noises))
    return [row("noise: false pitches", *counts, "share", f"SwiftF0 alone, {len(noises)}", more_is_better=False)]


def _written_notes() -> list[dict[str, Any]]:
    shared = shared_folder()
    if not shared:
        return []
    with (shared / "audio" / "clips.csv").open(encoding="utf-8") as file:
        notes = [one for one in csv.DictReader(file) if one["target_pitch_hz"]]
    cases = (
        (load_audio(shared / "audio" / note["path"], max_seconds=MEASURED_SECONDS), float(note["target_pitch_hz"]))
        for note in notes
    )
    return _verdict_rows("written notes", cases)
