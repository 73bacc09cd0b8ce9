"""Encode clips with Audio Spectrogram Transformers: log-mel energies, one window per clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audiobert.audio import MEL_BINS, SAMPLE_RATE_HZ
from audiobert.encoders.family import register
from audiobert.errors import InputError
from audiobert.features import LogMel

if TYPE_CHECKING:
    from torch import Tensor


@register("ASTFeatureExtractor")
@dataclass(frozen=True)
class AstFamily:
    """AST in its window of `frames` frames of 10 ms; the padding is part of the window, as it was in its training."""

    frames: int
    mean: float
    std: float
    normalise: bool = True
    rate_hz: int = SAMPLE_RATE_HZ

    @classmethod
    def of(cls, extractor: Any, name: str) -> AstFamily:
        """Read the settings of the family from a model's feature extractor."""
        if (extractor.num_mel_bins, extractor.sampling_rate) != (MEL_BINS, SAMPLE_RATE_HZ):
            raise InputError(
                f"{name} takes {extractor.num_mel_bins} mel bins at {extractor.sampling_rate} Hz; an Audio Spectrogram"
                f" Transformer with {MEL_BINS} at {SAMPLE_RATE_HZ} Hz is wanted"
            )
        return cls(extractor.max_length, extractor.mean, extractor.std, extractor.do_normalize)

    @property
    def seconds(self) -> float:
        """Length of a window in seconds."""
        return LogMel(self.frames).seconds

    @property
    def padding(self) -> float:
        """The value that the extractor pads with: zero before it normalises."""
        return -self.mean / (2.0 * self.std) if self.normalise else 0.0

    def settings(self) -> dict[str, Any]:
        """Return the settings that a bank records."""
        return {"kind": "ast", "frames": self.frames, "mean": self.mean, "std": self.std, "normalise": self.normalise}

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Compute the frames of `ASTFeatureExtractor` before it pads: normalised log-mel energies `(frames, 128)`."""
        log_mel = LogMel(self.frames)(waveform)[: self.frames]
        return (log_mel - np.float32(self.mean)) / np.float32(2.0 * self.std) if self.normalise else log_mel

    def encode(self, model: Any, clips: Sequence[np.ndarray]) -> list[Tensor]:
        """Return the hidden states `(positions, hidden_size)` of each clip."""
        import torch

        windows = np.full((len(clips), self.frames, MEL_BINS), self.padding, dtype=np.float32)
        for window, clip in zip(windows, clips, strict=True):
            window[: len(clip)] = clip
        return list(model(input_values=torch.from_numpy(windows).to(model.device)).last_hidden_state)
