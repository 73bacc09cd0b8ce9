"""Decoding, spectrogram and pitch, each against the usual library on the same clips in the same run, on one core."""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from audiobert.audio import SAMPLE_RATE_HZ, load_audio, log_mel_spectrogram
from audiobert.pitch import compare_pitch, measure_pitch

_CLIPS = 40
_NOTES = 24


def shared_folder() -> Path | None:
    """The folder with real audio, where there is one."""
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


def row(name: str, ours: float, plain: float, unit: str, note: str, *, more_is_better: bool = True) -> dict[str, Any]:
    """A line of the report; the ratio is above 1 where ours is better."""
    ratio = ours / plain if more_is_better else plain / ours
    return {"name": name, "ours": ours, "plain": plain, "ratio": ratio, "unit": unit, "note": note}


def run() -> list[dict[str, Any]]:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        clips = some_clips(_CLIPS, Path(folder))
        return [*_decode(clips), *_spectrogram(clips), *_pitch()]


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
