"""How high a recording sounds: the median and mean pitch of its voiced frames, or that it has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.fft
import soxr

from audiobert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from swift_f0 import SwiftF0

Estimator = Literal["swiftf0", "pyin", "none"]

# From below the lowest note of the contrabassoon (29 Hz) to above the highest of the piccolo (about 4,190 Hz).
PITCH_MIN_HZ = 25.0
PITCH_MAX_HZ = 4_200.0
TOLERANCE_CENTS = 50.0  # half a semitone: nearer to the written note than to its neighbours

_MODEL_RATE_HZ = 16_000
_HOP_SECONDS = 256 / _MODEL_RATE_HZ
_VOICED = 0.5  # SwiftF0's calibrated threshold
# Fewer voiced frames than this, or a smaller share of the sound, are taken for accidents of noise.
_MIN_VOICED_SECONDS = 0.048
_MIN_VOICED_RATIO = 0.02
# pYIN calls about half the frames of noise voiced, each with a probability of 0.01.
_PYIN_MIN_PROBABILITY = 0.05
# SwiftF0 hears 46.9 to 2,093.75 Hz. A sound beyond shows as one of its harmonics or subharmonics, or not at all.
_MODEL_MIN_HZ, _MODEL_MAX_HZ = 46.875, 2_093.75
_SUSPECT_LOW_HZ = 4 * _MODEL_MIN_HZ
_SUSPECT_HIGH_HZ = _MODEL_MAX_HZ / 3
_SUSPECT_VOICED_RATIO = 0.5
# A sound that high has its strongest partial there or above; looked for in spectra of 64 ms.
_SUSPECT_STRONGEST_HZ = 0.9 * _MODEL_MAX_HZ
_SPECTRUM_SAMPLES = 1024


@dataclass(frozen=True)
class Pitch:
    """Pitch of one recording.

    Attributes
    ----------
    median_hz, mean_hz
        Over the voiced frames; both None when the sound has no pitch.
    voiced_ratio
        Share of the frames that are voiced, 0 to 1.
    """

    median_hz: float | None
    mean_hz: float | None
    voiced_ratio: float


@dataclass(frozen=True)
class _Track:
    """Pitch of the voiced frames and how many frames there were."""

    voiced_hz: np.ndarray
    frames: int
    hop_seconds: float

    @property
    def voiced_ratio(self) -> float:
        return len(self.voiced_hz) / self.frames if self.frames else 0.0

    @property
    def median_hz(self) -> float:
        return float(np.median(self.voiced_hz)) if len(self.voiced_hz) else math.nan

    @property
    def pitched(self) -> bool:
        enough = len(self.voiced_hz) * self.hop_seconds >= _MIN_VOICED_SECONDS - 1e-9
        return enough and self.voiced_ratio >= _MIN_VOICED_RATIO


@cache
def _swiftf0() -> SwiftF0:
    from swift_f0 import SwiftF0

    return SwiftF0(threads=1, spin=False)


def _swiftf0_track(waveform: np.ndarray, speed: float) -> _Track:
    """Track of a 16 kHz waveform played `speed` times as fast, which moves the range of the model down by that."""
    heard = waveform if speed == 1 else soxr.resample(waveform, _MODEL_RATE_HZ * speed, _MODEL_RATE_HZ)
    if not heard.size:
        return _Track(np.zeros(0), 0, _HOP_SECONDS * speed)
    result = _swiftf0().detect(heard, _MODEL_RATE_HZ)
    voiced_hz = result.pitch_hz[result.confidence >= _VOICED] / speed
    return _Track(voiced_hz, len(result.pitch_hz), _HOP_SECONDS * speed)


def _strongest_hz(waveform: np.ndarray) -> float:
    """Frequency with the most energy over a whole 16 kHz waveform."""
    padded = np.pad(waveform, (0, max(0, _SPECTRUM_SAMPLES - waveform.size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _SPECTRUM_SAMPLES)[::_SPECTRUM_SAMPLES]
    spectrum = scipy.fft.rfft(frames * np.hanning(_SPECTRUM_SAMPLES).astype(np.float32), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
    return float(np.argmax(power)) * _MODEL_RATE_HZ / _SPECTRUM_SAMPLES


def _estimate_swiftf0(waveform: np.ndarray, sample_rate_hz: int) -> _Track:
    """SwiftF0 (arXiv 2508.18440), widened by an octave at both ends.

    Where its answer could be an overtone of a sound below its range, or the undertone of one above, it listens again at
    double or half speed, and believes what it hears there only beyond its own range.
    """
    waveform = waveform if sample_rate_hz == _MODEL_RATE_HZ else soxr.resample(waveform, sample_rate_hz, _MODEL_RATE_HZ)
    track = _swiftf0_track(waveform, 1.0)
    doubtful = track.voiced_ratio < _SUSPECT_VOICED_RATIO
    if doubtful or track.median_hz < _SUSPECT_LOW_HZ:
        low = _swiftf0_track(waveform, 2.0)
        if low.pitched and low.median_hz < _MODEL_MIN_HZ and low.voiced_ratio >= track.voiced_ratio:
            return low
    if (doubtful or track.median_hz > _SUSPECT_HIGH_HZ) and _strongest_hz(waveform) > _SUSPECT_STRONGEST_HZ:
        high = _swiftf0_track(waveform, 0.5)
        if high.pitched and high.median_hz > _MODEL_MAX_HZ and high.voiced_ratio >= track.voiced_ratio:
            return high
    return track


def _estimate_pyin(waveform: np.ndarray, sample_rate_hz: int) -> _Track:
    """librosa's probabilistic YIN (Mauch and Dixon, ICASSP 2014): no network, about a hundred times slower."""
    try:
        import librosa
    except ImportError:
        raise MissingExtraError("librosa", "construct") from None
    waveform = waveform if sample_rate_hz == _MODEL_RATE_HZ else soxr.resample(waveform, sample_rate_hz, _MODEL_RATE_HZ)
    pitch_hz, voiced, probability = librosa.pyin(
        waveform, sr=_MODEL_RATE_HZ, fmin=PITCH_MIN_HZ, fmax=PITCH_MAX_HZ, frame_length=2048, hop_length=256
    )
    voiced &= probability >= _PYIN_MIN_PROBABILITY
    return _Track(pitch_hz[voiced], len(pitch_hz), _HOP_SECONDS)


def _no_estimate(_waveform: np.ndarray, _sample_rate_hz: int) -> _Track:
    return _Track(np.zeros(0), 0, _HOP_SECONDS)


_ESTIMATORS: dict[str, Callable[[np.ndarray, int], _Track]] = {
    "swiftf0": _estimate_swiftf0,
    "pyin": _estimate_pyin,
    "none": _no_estimate,
}


ESTIMATOR_NAMES = tuple(_ESTIMATORS)


def measure_pitch(waveform: np.ndarray, sample_rate_hz: int, *, estimator: Estimator = "swiftf0") -> Pitch:
    """Pitch of a recording over its voiced frames.

    Parameters
    ----------
    waveform
        `(samples,)` float32, mono.
    sample_rate_hz
        Its rate; resampled to 16 kHz when it has another.
    estimator
        `swiftf0` (fast; the default), `pyin` (needs the extra `construct`), or `none`: nothing is measured.

    Raises
    ------
    InputError
        When the estimator is unknown or the waveform is empty.
    MissingExtraError
        When pYIN is asked for and librosa is not installed.
    """
    if estimator not in _ESTIMATORS:
        raise InputError(f"pitch estimator {estimator!r} is unknown; give one of {', '.join(_ESTIMATORS)}")
    if waveform.ndim != 1 or not waveform.size:
        raise InputError(f"the waveform has shape {waveform.shape}; give one axis of samples, at least one")
    track = _ESTIMATORS[estimator](waveform.astype(np.float32, copy=False), sample_rate_hz)
    if not track.pitched:
        return Pitch(None, None, track.voiced_ratio)
    return Pitch(track.median_hz, float(track.voiced_hz.mean()), track.voiced_ratio)


@dataclass(frozen=True)
class Agreement:
    """A measured pitch beside a written one.

    Attributes
    ----------
    octaves
        Whole octaves that the measured pitch lies above the written one (negative: below).
    cents
        What remains, -600 to 600; 100 cents are a semitone.
    """

    octaves: int
    cents: float

    @property
    def verdict(self) -> Literal["right", "octave", "wrong"]:
        """`right` within 50 cents, `octave` when that holds after a whole number of octaves, else `wrong`."""
        if abs(self.cents) > TOLERANCE_CENTS:
            return "wrong"
        return "octave" if self.octaves else "right"


def compare_pitch(measured_hz: float, written_hz: float) -> Agreement:
    """How far a measured pitch is from the written note, whole octaves apart from the rest.

    >>> compare_pitch(442.0, 440.0).verdict, compare_pitch(220.0, 440.0)
    ('right', Agreement(octaves=-1, cents=0.0))
    """
    if not (measured_hz > 0 and written_hz > 0):
        raise InputError(f"pitches are {measured_hz} and {written_hz} Hz; both must be greater than 0")
    semitones = 12 * math.log2(measured_hz / written_hz)
    octaves = math.floor(semitones / 12 + 0.5)
    return Agreement(octaves, 100 * (semitones - 12 * octaves))
