"""Encode clips window by window with an Audio Spectrogram Transformer of a size that a laptop trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import ASTConfig, ASTModel

from audiobert.audio import MEL_BINS
from audiobert.encoders.encoder import AudioEncoder
from audiobert.features import LogMel

# Mean and standard deviation of log-mel energies over AudioSet, as published with AST (`ASTFeatureExtractor`).
LOG_MEL_MEAN, LOG_MEL_STD = -4.2677393, 4.5689974


@dataclass(frozen=True)
class AudioTowerConfig:
    """Size of an `AudioTower`.

    `window_frames` of 10 ms go through the transformer at a time, up to `max_windows` of them per clip. A clip's
    vector is the mean over its windows; a clip shorter than a window is repeated until it fills one.
    """

    window_frames: int = 256
    max_windows: int = 4
    patch_size: int = 16
    hidden_size: int = 192
    layers: int = 4
    heads: int = 3

    @property
    def frames(self) -> int:
        """Spectrogram frames that are used of a clip."""
        return self.window_frames * self.max_windows

    @property
    def features(self) -> LogMel:
        """The features that the tower takes."""
        return LogMel(self.frames)


class AudioTower(AudioEncoder):
    """AST over windows of a log-mel spectrogram `(frames, 128)`, mean over patches and windows."""

    def __init__(self, config: AudioTowerConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config, self.features, self.hidden_size = config, config.features, config.hidden_size
        self.ast = ASTModel(
            ASTConfig(
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.hidden_size,
                patch_size=config.patch_size,
                frequency_stride=config.patch_size,
                time_stride=config.patch_size,
                max_length=config.window_frames,
                num_mel_bins=MEL_BINS,
                hidden_dropout_prob=dropout,
                attn_implementation="eager",  # type: ignore[call-arg]
            )
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Encode normalised windows `(windows, window_frames, 128)` to vectors `(windows, hidden_size)`."""
        return self.ast(input_values=windows).last_hidden_state.mean(dim=1)

    def windows(self, spectrogram: np.ndarray) -> np.ndarray:
        """Cut a log-mel spectrogram `(frames, 128)` into normalised windows `(windows, window_frames, 128)`.

        The last window is completed with frames from before it; a clip that is shorter than one window is repeated.
        """
        size = self.config.window_frames
        used = normalise(spectrogram[: self.config.frames])
        if len(used) < size:
            return np.resize(used, (size, used.shape[1]))[None]  # np.resize repeats the array
        starts = list(range(0, len(used) - size + 1, size))
        if starts[-1] + size + size // 4 < len(used):
            starts.append(len(used) - size)
        return np.stack([used[start : start + size] for start in starts])

    def encode_batch(self, features: Sequence[np.ndarray]) -> Tensor:
        """Encode clips, given by their spectrograms, to vectors `(clips, hidden_size)`: the mean over windows."""
        cut = [self.windows(spectrogram) for spectrogram in features]
        device = next(self.parameters()).device
        vectors = self(torch.from_numpy(np.concatenate(cut)).float().to(device)).float()  # (windows, hidden_size)
        return torch.stack([part.mean(dim=0) for part in vectors.split([len(windows) for windows in cut])])


def normalise(spectrogram: np.ndarray) -> np.ndarray:
    """Return a spectrogram with zero mean and a standard deviation of one half, as `ASTFeatureExtractor` makes it."""
    return (spectrogram - LOG_MEL_MEAN) / (2.0 * LOG_MEL_STD)
