"""Extract features from a waveform: one array, time first; runs in workers and imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from audiobert.audio import SAMPLE_RATE_HZ, log_mel_spectrogram, seconds_heard


class FeatureMaker(Protocol):
    """Settings and code of one model's features: a small picklable value; equal makers make equal features."""

    @property
    def rate_hz(self) -> int:
        """Sample rate of the waveforms that it takes."""

    @property
    def seconds(self) -> float:
        """Length of a clip's start that it uses, in seconds; the rest is not decoded."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that a bank records, ready for JSON."""
        ...

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Extract features `(time, ...)` float32 of a mono waveform `(samples,)` at `rate_hz`; longer ones are cut."""
        ...


# The two models that encode a clip, by role.
CLAP, AUDIO_ENCODER = "clap", "audio_encoder"
Makers = Mapping[str, FeatureMaker]
Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class LogMel:
    """Kaldi's log-mel energies of up to `frames` frames of 10 ms, `(frames, 128)`; a shorter clip gives fewer."""

    frames: int = 1024
    rate_hz: int = SAMPLE_RATE_HZ

    @property
    def seconds(self) -> float:
        """Length of sound that the frames are made from."""
        return seconds_heard(self.frames)

    def settings(self) -> dict[str, Any]:
        """Return the settings that a bank records."""
        return {"frames": self.frames}

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Compute log-mel energies `(frames, 128)`."""
        return log_mel_spectrogram(waveform[: round(self.seconds * self.rate_hz)])


def make_features(makers: Makers, waveforms: Mapping[int, np.ndarray]) -> Features:
    """Compute the features of a clip by role from its waveforms by rate in Hz; equal makers share one array."""
    made: dict[FeatureMaker, np.ndarray] = {}
    for maker in makers.values():
        if maker not in made:
            made[maker] = maker(waveforms[maker.rate_hz])
    return {role: made[maker] for role, maker in makers.items()}


def rates_hz(makers: Makers) -> list[int]:
    """Return the rates of the waveforms that the makers take, each once."""
    return sorted({maker.rate_hz for maker in makers.values()})


def settings_of(makers: Makers) -> dict[str, Any]:
    """Return the settings of the makers for a bank: those of one if all roles share it, else by role."""
    if len(set(makers.values())) == 1:
        return next(iter(makers.values())).settings()
    return {role: maker.settings() for role, maker in makers.items()}
