"""Decode and resample recordings, measure their attributes, compute log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy.fft
import soxr

from audiobert.decoding import MIX_SECONDS, SILENCE_DBFS, decode_samples
from audiobert.errors import InputError
from audiobert.pitch import Estimator, measure_pitch

SAMPLE_RATE_HZ = 16_000
HOP_LENGTH = 160  # 10 ms between spectrogram frames
FRAME_LENGTH = 400  # 25 ms, one spectrogram frame
FFT_LENGTH = 512  # the next power of two
MEL_BINS = 128
MEL_MIN_HZ = 20.0
MEL_FLOOR = 1.192092955078125e-07  # Kaldi's: the smallest step of a float32 at 1.0
PREEMPHASIS = 0.97

# Attributes are measured over the first so many seconds of sound, whatever a clip's encoders use of it.
MEASURED_SECONDS = MIX_SECONDS

# The resampler looks a little past the end; with this much more decoded, a cut clip equals the start of the whole one.
_RESAMPLER_MARGIN_S = 0.05
# Frames turned into spectra at once: small enough to stay in the cache of the processor.
_SPECTROGRAM_BLOCK = 512


def seconds_heard(frames: int) -> float:
    """Return the seconds of sound that a spectrogram of `frames` frames is made from.

    >>> seconds_heard(1024)
    10.255
    """
    return ((frames - 1) * HOP_LENGTH + FRAME_LENGTH) / SAMPLE_RATE_HZ


def _name_of(source: str | Path | BinaryIO) -> str:
    return str(getattr(source, "name", source))


def _resampled(waveform: np.ndarray, native_rate_hz: int, rate_hz: int, max_seconds: float | None) -> np.ndarray:
    if native_rate_hz != rate_hz:
        waveform = soxr.resample(waveform, native_rate_hz, rate_hz)
    if max_seconds is not None:
        waveform = waveform[: round(max_seconds * rate_hz)]
    return np.ascontiguousarray(waveform, dtype=np.float32)


def load_audio(
    path: str | Path | BinaryIO,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    max_seconds: float | None = None,
    name: str | None = None,
) -> np.ndarray:
    """Decode a sound file that libsndfile reads to a mono waveform, `(samples,)` float32 within [-1, 1].

    Parameters
    ----------
    sample_rate_hz
        Rate of the result; resampled with soxr when the file has another.
    max_seconds
        Decode only the first so many seconds; all when None.
    name
        What error messages call the source; its path by default.

    AudioFileError (an `InputError`) if the file is missing, is no sound file, is damaged, holds no samples, or holds
    values that are no numbers.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise InputError(f"max_seconds is {max_seconds}; it must be greater than 0")
    longest = None if max_seconds is None else max_seconds + _RESAMPLER_MARGIN_S
    decoded = decode_samples(path, name or _name_of(path), max_seconds=longest)
    return _resampled(decoded.waveform, decoded.sample_rate_hz, sample_rate_hz, max_seconds)


@dataclass(frozen=True)
class Attributes:
    """Measured attributes of a clip.

    Attributes
    ----------
    duration_s
        Length of the whole recording in seconds.
    loudness_dbfs
        RMS level in dBFS, at least -120: 20 log10 of the root mean square, without weighting for the ear (not LUFS).
    peak_dbfs
        Level of the highest sample in dBFS, at least -120. A constant offset counts for neither level.
    pitch_hz, pitch_mean_hz
        Median and mean over the voiced frames, 23 Hz to 8 kHz; None when the clip has no pitch.
    voiced_ratio
        Share of the frames that have a pitch.
    spectral_centroid_hz
        Centre of the spectrum's energy. 0 for digital silence.
    spectral_flatness
        Geometric over arithmetic mean of the power spectrum: near 0 for a tone, near 1 for white noise.
    """

    duration_s: float
    loudness_dbfs: float
    peak_dbfs: float
    pitch_hz: float | None
    pitch_mean_hz: float | None
    voiced_ratio: float
    spectral_centroid_hz: float
    spectral_flatness: float

    @property
    def silent(self) -> bool:
        """Return True if no sample reaches -80 dBFS."""
        return self.peak_dbfs < SILENCE_DBFS


def _dbfs(amplitude: float) -> float:
    return 20.0 * float(np.log10(max(amplitude, 1e-6)))


def measure(
    waveform: np.ndarray, sample_rate_hz: int, *, duration_s: float | None = None, estimator: Estimator = "swiftf0"
) -> Attributes:
    """Measure pitch, RMS level, duration and spectrum of a waveform.

    Parameters
    ----------
    duration_s
        Length of the whole recording when the waveform is only its start.
    """
    if waveform.ndim != 1 or not waveform.size:
        raise InputError(f"the waveform has shape {waveform.shape}; give one axis of samples, at least one")
    waveform = waveform - np.float32(waveform.mean(dtype=np.float64))  # a constant offset is no sound
    pitch = measure_pitch(waveform, sample_rate_hz, estimator=estimator)
    padded = np.pad(waveform, (0, max(0, FFT_LENGTH - waveform.size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_LENGTH)[:: FFT_LENGTH // 2]
    spectrum = scipy.fft.rfft(frames * np.hanning(FFT_LENGTH).astype(np.float32), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0, dtype=np.float64)[1:]  # without the direct current
    bins_hz = np.arange(1, len(power) + 1) * sample_rate_hz / FFT_LENGTH
    energy = power.sum()
    return Attributes(
        duration_s=waveform.size / sample_rate_hz if duration_s is None else duration_s,
        loudness_dbfs=_dbfs(float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))),
        peak_dbfs=_dbfs(float(np.abs(waveform).max())),
        pitch_hz=pitch.median_hz,
        pitch_mean_hz=pitch.mean_hz,
        voiced_ratio=pitch.voiced_ratio,
        spectral_centroid_hz=float((bins_hz * power).sum() / energy) if energy > 0 else 0.0,
        spectral_flatness=float(np.exp(np.log(power + 1e-12).mean()) / (power.mean() + 1e-12)),
    )


@dataclass(frozen=True)
class MeasuredClip:
    """A decoded clip with its attributes."""

    waveforms: dict[int, np.ndarray]  # by rate in Hz, (samples,) float32, mono, from the first sound on, without offset
    attributes: Attributes  # over the first `MEASURED_SECONDS` of sound; `duration_s` is that of the whole file
    native_sample_rate_hz: int
    channels: int  # of the file


def measure_clip(
    source: str | Path | BinaryIO,
    *,
    rates_hz: Iterable[int] = (),
    seconds: float = MEASURED_SECONDS,
    estimator: Estimator = "swiftf0",
    name: str | None = None,
) -> MeasuredClip:
    """Decode a clip for its encoders and measure its attributes, which do not depend on what the encoders need.

    Parameters
    ----------
    seconds
        Length of the waveforms; a shorter clip gives shorter ones.
    name
        What error messages call the source; its path by default.
    """
    longest = max(seconds, MEASURED_SECONDS) + _RESAMPLER_MARGIN_S
    decoded = decode_samples(source, name or _name_of(source), max_seconds=longest, skip_silence=True)
    native_rate_hz = decoded.sample_rate_hz
    stretch = decoded.waveform[: round((MEASURED_SECONDS + _RESAMPLER_MARGIN_S) * native_rate_hz)]
    waveform = decoded.waveform - np.float32(stretch.mean(dtype=np.float64))
    measured = _resampled(waveform[: len(stretch)], native_rate_hz, SAMPLE_RATE_HZ, MEASURED_SECONDS)
    attributes = measure(measured, SAMPLE_RATE_HZ, duration_s=decoded.duration_s, estimator=estimator)
    used = waveform[: round((seconds + _RESAMPLER_MARGIN_S) * native_rate_hz)]
    waveforms = {
        rate_hz: measured[: round(seconds * rate_hz)]
        if rate_hz == SAMPLE_RATE_HZ and seconds <= MEASURED_SECONDS
        else _resampled(used, native_rate_hz, rate_hz, seconds)
        for rate_hz in rates_hz
    }
    return MeasuredClip(waveforms, attributes, native_rate_hz, decoded.channels)


def _to_mel(frequency_hz: np.ndarray | float) -> np.ndarray:
    return 1127.0 * np.log(1.0 + np.asarray(frequency_hz) / 700.0)  # Kaldi's mel scale


@cache
def _mel_filters() -> np.ndarray:
    """Compute Kaldi's triangles in mel space, `(FFT_LENGTH // 2 + 1, MEL_BINS)` float32."""
    corners = np.linspace(_to_mel(MEL_MIN_HZ), _to_mel(SAMPLE_RATE_HZ / 2), MEL_BINS + 2)
    left, center, right = corners[:-2], corners[1:-1], corners[2:]
    bins = _to_mel(np.arange(FFT_LENGTH // 2 + 1) * SAMPLE_RATE_HZ / FFT_LENGTH)[:, None]
    triangles = np.minimum((bins - left) / (center - left), (right - bins) / (right - center))
    return np.maximum(triangles, 0.0).astype(np.float32)


@cache
def _window() -> np.ndarray:
    return np.hanning(FRAME_LENGTH).astype(np.float32)


def log_mel_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """Compute Kaldi's log-mel filter bank energies, as the Audio Spectrogram Transformer takes them, not normalised.

    Each frame of 25 ms (10 ms apart) loses its mean, is pre-emphasised and windowed (Hann); the power spectrum is
    summed under 128 mel triangles from 20 Hz to 8 kHz; natural logarithm. The numbers are those of transformers'
    `ASTFeatureExtractor` before it pads and normalises.

    Parameters
    ----------
    waveform
        `(samples,)` at 16 kHz. One that is shorter than a frame is extended with silence to one frame.

    Returns
    -------
    np.ndarray
        `(frames, 128)` float32, `frames = 1 + (samples - 400) // 160`.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1 or not waveform.size:
        raise InputError(f"the waveform has shape {waveform.shape}; give one axis of samples, at least one")
    if waveform.size < FRAME_LENGTH:
        waveform = np.pad(waveform, (0, FRAME_LENGTH - waveform.size))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, FRAME_LENGTH)[::HOP_LENGTH]  # (frames, 400), a view
    log_mel = np.empty((len(frames), MEL_BINS), dtype=np.float32)
    for start in range(0, len(frames), _SPECTROGRAM_BLOCK):
        block = frames[start : start + _SPECTROGRAM_BLOCK]
        block = block - block.mean(axis=1, keepdims=True)
        emphasised = np.empty_like(block)
        np.multiply(block[:, :-1], -PREEMPHASIS, out=emphasised[:, 1:])
        emphasised[:, 1:] += block[:, 1:]
        emphasised[:, 0] = block[:, 0] * (1.0 - PREEMPHASIS)
        emphasised *= _window()
        spectrum = scipy.fft.rfft(emphasised, FFT_LENGTH, axis=1, overwrite_x=True)
        power = spectrum.real**2 + spectrum.imag**2  # (block, 257)
        mel = power @ _mel_filters()
        np.maximum(mel, MEL_FLOOR, out=mel)
        np.log(mel, out=log_mel[start : start + _SPECTROGRAM_BLOCK])
    return log_mel
