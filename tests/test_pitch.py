"""The pitch of synthetic tones, of noise, and of real instruments whose note is written."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from audiobert.audio import SAMPLE_RATE_HZ, load_audio
from audiobert.errors import InputError
from audiobert.pitch import compare_pitch, measure_pitch


def note(frequency_hz: float, seconds: float = 1.0, rate: int = SAMPLE_RATE_HZ) -> np.ndarray:
    """A tone with falling overtones, as an instrument has."""
    time = np.arange(round(seconds * rate)) / rate
    overtones = [n for n in range(1, 13) if n * frequency_hz < rate / 2]
    return sum(0.3 / n * np.sin(2 * np.pi * n * frequency_hz * time) for n in overtones).astype(np.float32)


@pytest.mark.parametrize("frequency_hz", [30.9, 41.2, 65.4, 110.0, 261.6, 440.0, 1046.5, 1975.5, 2637.0, 3520.0])
def test_notes_from_the_contrabassoon_to_the_piccolo_are_within_half_a_semitone(frequency_hz: float) -> None:
    pitch = measure_pitch(note(frequency_hz), SAMPLE_RATE_HZ)
    assert pitch.median_hz is not None and pitch.mean_hz is not None
    assert compare_pitch(pitch.median_hz, frequency_hz).verdict == "right"
    assert pitch.voiced_ratio > 0.8


def test_the_sample_rate_does_not_change_the_pitch() -> None:
    pitch = measure_pitch(note(330.0, rate=44_100), 44_100)
    assert pitch.median_hz == pytest.approx(330.0, rel=0.01)


def test_only_voiced_frames_count() -> None:
    half_silent = np.concatenate([note(440.0), np.zeros(SAMPLE_RATE_HZ, np.float32)])
    pitch = measure_pitch(half_silent, SAMPLE_RATE_HZ)
    assert pitch.median_hz == pytest.approx(440.0, rel=0.01)
    assert 0.35 < pitch.voiced_ratio < 0.65


@pytest.mark.parametrize("estimator", ["swiftf0", "pyin"])
def test_noise_and_silence_have_no_pitch(estimator: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE_HZ // 2).astype(np.float32)
    for waveform in (noise, np.zeros(SAMPLE_RATE_HZ // 2, np.float32), np.ones(7, np.float32)):
        pitch = measure_pitch(waveform, SAMPLE_RATE_HZ, estimator=estimator)  # type: ignore[arg-type]
        assert pitch.median_hz is None and pitch.mean_hz is None


def test_both_estimators_agree() -> None:
    fast, slow = (measure_pitch(note(196.0, 0.4), SAMPLE_RATE_HZ, estimator=name) for name in ("swiftf0", "pyin"))
    assert fast.median_hz is not None and slow.median_hz is not None
    assert abs(compare_pitch(fast.median_hz, slow.median_hz).cents) < 20


def test_compare_pitch_names_exact_octaves() -> None:
    assert compare_pitch(440.0, 440.0).verdict == "right"
    assert compare_pitch(450.0, 440.0).verdict == "right"  # 39 cents
    assert compare_pitch(455.0, 440.0).verdict == "wrong"  # 58 cents
    assert (compare_pitch(885.0, 440.0).verdict, compare_pitch(885.0, 440.0).octaves) == ("octave", 1)
    assert (compare_pitch(109.0, 440.0).verdict, compare_pitch(109.0, 440.0).octaves) == ("octave", -2)
    assert compare_pitch(660.0, 440.0).verdict == "wrong"  # a fifth
    with pytest.raises(InputError, match="greater than 0"):
        compare_pitch(0.0, 440.0)


def test_an_unknown_estimator_is_refused() -> None:
    with pytest.raises(InputError, match="swiftf0, pyin, none"):
        measure_pitch(note(440.0), SAMPLE_RATE_HZ, estimator="guess")  # type: ignore[arg-type]


def test_written_notes_of_real_instruments(shared: Path) -> None:
    """Every sixth of the 360 notes; those neither right nor exact octaves are recordings that are out of tune."""
    with (shared / "audio" / "clips.csv").open(encoding="utf-8") as file:
        notes = [row for row in csv.DictReader(file) if row["target_pitch_hz"]][::6]
    verdicts: Counter[str] = Counter()
    for row in notes:
        pitch = measure_pitch(load_audio(shared / "audio" / row["path"]), SAMPLE_RATE_HZ)
        assert pitch.median_hz is not None, row["path"]
        verdicts[compare_pitch(pitch.median_hz, float(row["target_pitch_hz"])).verdict] += 1
    assert (verdicts["right"] + verdicts["octave"]) / len(notes) >= 0.95
    assert verdicts["right"] / len(notes) >= 0.85
