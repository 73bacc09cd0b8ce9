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


def partials(frequency_hz: float, numbers: range, falling: bool) -> np.ndarray:
    """One second of partials of a pitch, as far as 16 kHz carries them, of equal or falling amplitude."""
    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    carried = [n for n in numbers if n * frequency_hz < SAMPLE_RATE_HZ / 2]
    sound = sum(np.sin(2 * np.pi * n * frequency_hz * time) / (n if falling else 1) for n in carried)
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


@pytest.mark.parametrize("frequency_hz", [300, 440, 1_000, 2_500, 4_200, 4_333, 5_000, 5_500, 6_000, 6_500, 7_500])
def test_a_sine_up_to_7500_hz_is_within_half_a_semitone(frequency_hz: float) -> None:
    pitch = measure_pitch(partials(frequency_hz, range(1, 2), falling=True), SAMPLE_RATE_HZ)
    assert pitch.median_hz is not None and compare_pitch(pitch.median_hz, frequency_hz).verdict == "right"


@pytest.mark.parametrize("frequency_hz", [50, 100, 440, 600, 800, 1_000, 1_100, 1_500, 2_000, 3_000, 5_000, 7_000])
def test_a_sawtooth_is_within_half_a_semitone(frequency_hz: float) -> None:
    pitch = measure_pitch(partials(frequency_hz, range(1, 200), falling=True), SAMPLE_RATE_HZ)
    assert pitch.median_hz is not None and compare_pitch(pitch.median_hz, frequency_hz).verdict == "right"


@pytest.mark.parametrize("frequency_hz", [50, 100, 440, 800, 1_000, 1_500, 1_800, 2_000, 2_500])
def test_a_missing_fundamental_is_within_half_a_semitone(frequency_hz: float) -> None:
    pitch = measure_pitch(partials(frequency_hz, range(2, 10), falling=False), SAMPLE_RATE_HZ)
    assert pitch.median_hz is not None and compare_pitch(pitch.median_hz, frequency_hz).verdict == "right"


@pytest.mark.parametrize("frequency_hz", [20, 50, 100, 150, 200, 7_900])
def test_a_sine_out_of_range_has_no_pitch(frequency_hz: float) -> None:
    assert measure_pitch(partials(frequency_hz, range(1, 2), falling=True), SAMPLE_RATE_HZ).median_hz is None


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


@pytest.mark.parametrize("band_khz", [(0, 0.5), (2, 8), (3, 5), (5, 7), (6, 8)])
def test_a_band_of_noise_has_no_pitch(band_khz: tuple[float, float]) -> None:
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(SAMPLE_RATE_HZ))
    low, high = (round(1000 * edge) for edge in band_khz)  # bins of 1 Hz
    spectrum[:low] = spectrum[high:] = 0
    noise = (0.1 * np.fft.irfft(spectrum)).astype(np.float32)
    assert measure_pitch(noise, SAMPLE_RATE_HZ).median_hz is None


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
