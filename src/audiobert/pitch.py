"""Measure the pitch of a recording: median and mean over its voiced frames, or none."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

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
# SwiftF0 covers 46.9 to 2,093.75 Hz. A pitch beyond appears as an overtone or a subharmonic, or not at all.
_MODEL_MIN_HZ, _MODEL_MAX_HZ = 46.875, 2_093.75
_SUSPECT_LOW_HZ = 4 * _MODEL_MIN_HZ
_SUSPECT_VOICED_RATIO = 0.5
# Share of the energy of all partials that those at odd multiples of the pitch have at least.
_MIN_ODD_SHARE = 0.02
# Of several supported tracks, one with less than this of the highest voiced ratio is not considered.
_MIN_RELATIVE_VOICED = 0.7
# Spectra of 64 ms every 32 ms, in which partials are searched for.
_SPECTRUM_SAMPLES = 1024
_SPECTRUM_HOP_S = _SPECTRUM_SAMPLES / 2 / _MODEL_RATE_HZ
_BIN_HZ = _MODEL_RATE_HZ / _SPECTRUM_SAMPLES
_RESOLVED_HZ = 16 * _BIN_HZ  # below, the spectra do not separate partials from what lies between them
# Half-width of the search for a partial, as shares of its frequency and of the pitch.
_PARTIAL_WIDTH, _PARTIAL_MAX_WIDTH = 0.04, 0.1
# Above this share of the highest pitch of one speed, the next speed is tried, too.
_NEAR_CEILING = 0.9
_AT_CEILING = 0.98
# A band of noise is narrow at half or quarter speed, and its lower edge is taken for an overtone. In a tone, the
# highest bin around the strongest partial has more than so many times the median power there: at most 20% of the pitch
# away, and at most 320 Hz, so that a narrow band of noise fills most of it.
_MIN_PEAK_TO_MEDIAN = 13.0
_TONAL_SHARE, _TONAL_HZ = 0.2, 320.0
# A sound that is not tonal has at its pitch at least this share of the energy at its strongest partial.
_MIN_FUNDAMENTAL = 1e-3


@dataclass(frozen=True)
class Pitch:
    """Pitch of one recording over its voiced frames; median and mean are None when the sound has no pitch."""

    median_hz: float | None
    mean_hz: float | None
    voiced_ratio: float  # share of the frames that are voiced, 0 to 1


@dataclass(frozen=True)
class _Track:
    """Pitch and time of the voiced frames, and the number of all frames."""

    voiced_hz: np.ndarray  # (voiced,)
    voiced_s: np.ndarray  # (voiced,)
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


def _track_of(pitch_hz: np.ndarray, voiced: np.ndarray, hop_seconds: float) -> _Track:
    return _Track(pitch_hz[voiced], np.flatnonzero(voiced) * hop_seconds, len(pitch_hz), hop_seconds)


def _swiftf0_track(waveform: np.ndarray, speed: float) -> _Track:
    """Track a 16 kHz waveform played `speed` times as fast; the range of the model is divided by `speed`."""
    played = waveform if speed == 1 else soxr.resample(waveform, _MODEL_RATE_HZ * speed, _MODEL_RATE_HZ)
    if not played.size:
        return _track_of(np.zeros(0), np.zeros(0, bool), _HOP_SECONDS * speed)
    result = _swiftf0().detect(played, _MODEL_RATE_HZ)
    return _track_of(result.pitch_hz / speed, result.confidence >= _VOICED, _HOP_SECONDS * speed)


def _power_spectra(waveform: np.ndarray) -> np.ndarray:
    """Compute power spectra `(frames, 513)` of a 16 kHz waveform, centred on every 32 ms."""
    half = _SPECTRUM_SAMPLES // 2
    padded = np.pad(waveform, (half, _SPECTRUM_SAMPLES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _SPECTRUM_SAMPLES)[::half]
    spectrum = scipy.fft.rfft(frames * np.hanning(_SPECTRUM_SAMPLES).astype(np.float32), axis=1)
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def _is_octave_low(track: _Track, power: np.ndarray) -> bool:
    """Return True if a track has no partials at odd multiples of its pitch, that is, its sound is an octave higher.

    Odd multiples count if they have 2% of the energy of all partials, and more than the noise between them; even ones
    if they have more than the noise. Noise is measured at two places, since partials may lie in one of them: those of a
    sound that is an octave or a twelfth lower.
    """
    if track.median_hz < _RESOLVED_HZ:
        return False
    rows = _rows(track, power)
    multiples = range(1, int(_MODEL_RATE_HZ / 2 / track.voiced_hz.min()) + 1)

    def energy(offset: float, chosen: range) -> float:
        return sum(_peak_energy(track, power, rows, multiple + offset) for multiple in chosen)

    odd, even = energy(0.0, multiples[::2]), energy(0.0, multiples[1::2])
    noise = min(energy(-1 / 2, multiples), energy(-1 / 3, multiples))
    return odd < max(_MIN_ODD_SHARE * (odd + even), noise) and even > noise


def _peak_energy(track: _Track, power: np.ndarray, rows: np.ndarray, multiple: float) -> float:
    """Return the energy of the highest bins near a multiple of the pitch, summed over the voiced frames."""
    width = math.ceil(min(_PARTIAL_WIDTH * multiple, _PARTIAL_MAX_WIDTH) * track.median_hz / _BIN_HZ)
    centres = np.rint(multiple * track.voiced_hz / _BIN_HZ).astype(int)
    bins = centres[:, None] + np.arange(-width, width + 1)  # (voiced, 2 * width + 1)
    inside = (bins >= 0) & (bins < power.shape[1])
    return float(np.where(inside, power[rows[:, None], np.clip(bins, 0, power.shape[1] - 1)], 0.0).max(axis=1).sum())


def _is_tonal(track: _Track, power: np.ndarray, *, fundamental: bool = False) -> bool:
    """Return True if the strongest partial is a peak in most of the voiced frames, not a part of a band of noise.

    With `fundamental`, also if there is energy at the pitch itself: below a band of noise there is none.
    """
    if not track.pitched:
        return False
    pitch_hz = track.median_hz
    if pitch_hz < _RESOLVED_HZ:
        return True
    voiced = power[np.unique(_rows(track, power))]  # (frames, bins)

    def around(multiple: int, width_hz: float) -> np.ndarray:
        low, high = (round((multiple * pitch_hz + side) / _BIN_HZ) for side in (-width_hz, width_hz))
        return voiced[:, low : high + 1]

    partials = range(1, int(_MODEL_RATE_HZ / 2 / pitch_hz) + 1)
    energies = [float(around(multiple, _PARTIAL_MAX_WIDTH * pitch_hz).sum()) for multiple in partials]
    if fundamental and energies[0] >= _MIN_FUNDAMENTAL * max(energies):
        return True
    band = around(1 + int(np.argmax(energies)), min(_TONAL_SHARE * pitch_hz, _TONAL_HZ))
    ratios = band.max(axis=1) / np.maximum(np.median(band, axis=1), np.finfo(np.float32).tiny)
    return bool(np.median(ratios) > _MIN_PEAK_TO_MEDIAN)


def _without_pitch(track: _Track) -> _Track:
    return replace(track, voiced_hz=np.zeros(0), voiced_s=np.zeros(0))


def _rows(track: _Track, power: np.ndarray) -> np.ndarray:
    """Return the indices of the spectra at the voiced frames, `(voiced,)`."""
    return np.minimum(np.rint(track.voiced_s / _SPECTRUM_HOP_S).astype(int), len(power) - 1)


def _lowest_supported(tracks: list[_Track], power: np.ndarray) -> _Track:
    """Return the lowest pitched track that is not an octave low, else the most voiced one, an octave up."""
    pitched = [track for track in tracks if track.pitched]
    if not pitched:
        return tracks[0]
    supported = [track for track in pitched if not _is_octave_low(track, power)]
    if not supported:
        best = max(pitched, key=lambda track: track.voiced_ratio)
        higher = replace(best, voiced_hz=2 * best.voiced_hz)
        return higher if _is_tonal(higher, power) else _without_pitch(best)
    least = _MIN_RELATIVE_VOICED * max(track.voiced_ratio for track in supported)
    return min((track for track in supported if track.voiced_ratio >= least), key=lambda track: track.median_hz)


def _estimate_swiftf0(waveform: np.ndarray) -> _Track:
    """Track the pitch at 16 kHz with SwiftF0 (arXiv 2508.18440), extended by one octave downwards and two upwards.

    Sounds near an end of the model's range are tracked again at double, half or quarter speed. Of the tracks upwards,
    the lowest whose partials are those of its pitch is taken.
    """
    track = _swiftf0_track(waveform, 1.0)
    doubtful = track.voiced_ratio < _SUSPECT_VOICED_RATIO
    if doubtful or track.median_hz < _SUSPECT_LOW_HZ:
        low = _swiftf0_track(waveform, 2.0)
        if low.pitched and low.median_hz < _MODEL_MIN_HZ and low.voiced_ratio >= track.voiced_ratio:
            return low
    doubtful = doubtful or track.median_hz > _MODEL_MAX_HZ / 3
    power = _power_spectra(waveform)
    strongest_hz = float(np.argmax(power.sum(axis=0))) * _BIN_HZ
    tracks = [track]
    for speed in (0.5, 0.25):
        last, ceiling_hz = tracks[-1], _MODEL_MAX_HZ / (2 * speed)
        near = max(strongest_hz, last.median_hz if last.pitched else 0.0) > _NEAR_CEILING * ceiling_hz
        if not near and not (doubtful and last.pitched and _is_octave_low(last, power)):
            break
        higher = _swiftf0_track(waveform, speed)
        if not _is_tonal(higher, power):
            continue
        if last.median_hz > _AT_CEILING * ceiling_hz:
            tracks.pop()  # a pitch above the range of a speed may appear at its upper end
        tracks.append(higher)
    found = tracks[0] if len(tracks) == 1 else _lowest_supported(tracks, power)
    return found if _is_tonal(found, power, fundamental=True) else _without_pitch(found)


def _estimate_pyin(waveform: np.ndarray) -> _Track:
    """Track pitch by probabilistic YIN (Mauch and Dixon, ICASSP 2014) as librosa does: no network, far slower."""
    try:
        import librosa
    except ImportError:
        raise MissingExtraError("librosa", "construct") from None
    pitch_hz, voiced, probability = librosa.pyin(
        waveform, sr=_MODEL_RATE_HZ, fmin=PITCH_MIN_HZ, fmax=PITCH_MAX_HZ, frame_length=2048, hop_length=256
    )
    voiced &= probability >= _PYIN_MIN_PROBABILITY
    return _track_of(pitch_hz, voiced, _HOP_SECONDS)


ESTIMATOR_NAMES: tuple[Estimator, ...] = get_args(Estimator)


def measure_pitch(waveform: np.ndarray, sample_rate_hz: int, *, estimator: Estimator = "swiftf0") -> Pitch:
    """Measure the pitch of a mono recording `(samples,)` over its voiced frames.

    The estimator is `swiftf0` (fast), `pyin` (MissingExtraError without librosa), or `none`: nothing is measured.
    InputError if it is unknown or the waveform is empty.
    """
    if estimator not in ESTIMATOR_NAMES:
        raise InputError(f"pitch estimator {estimator!r} is unknown; give one of {', '.join(ESTIMATOR_NAMES)}")
    if waveform.ndim != 1 or not waveform.size:
        raise InputError(f"the waveform has shape {waveform.shape}; give one axis of samples, at least one")
    if estimator == "none":
        return Pitch(None, None, 0.0)
    waveform = waveform.astype(np.float32, copy=False)
    if sample_rate_hz != _MODEL_RATE_HZ:
        waveform = soxr.resample(waveform, sample_rate_hz, _MODEL_RATE_HZ)
    track = (_estimate_swiftf0 if estimator == "swiftf0" else _estimate_pyin)(waveform)
    if not track.pitched:
        return Pitch(None, None, track.voiced_ratio)
    return Pitch(track.median_hz, float(track.voiced_hz.mean()), track.voiced_ratio)


@dataclass(frozen=True)
class Agreement:
    """A measured pitch beside a written one."""

    octaves: int  # whole ones that the measured pitch lies above the written one (negative: below)
    cents: float  # that remain, -600 to 600; 100 cents are a semitone

    @property
    def verdict(self) -> Literal["right", "octave", "wrong"]:
        """`right` within 50 cents, `octave` when that holds after a whole number of octaves, else `wrong`."""
        if abs(self.cents) > TOLERANCE_CENTS:
            return "wrong"
        return "octave" if self.octaves else "right"


def compare_pitch(measured_hz: float, written_hz: float) -> Agreement:
    """Compare a measured pitch with the written note, whole octaves apart from the rest.

    >>> compare_pitch(442.0, 440.0).verdict, compare_pitch(220.0, 440.0)
    ('right', Agreement(octaves=-1, cents=0.0))
    """
    if not (measured_hz > 0 and written_hz > 0):
        raise InputError(f"pitches are {measured_hz} and {written_hz} Hz; both must be greater than 0")
    semitones = 12 * math.log2(measured_hz / written_hz)
    octaves = math.floor(semitones / 12 + 0.5)
    return Agreement(octaves, 100 * (semitones - 12 * octaves))
