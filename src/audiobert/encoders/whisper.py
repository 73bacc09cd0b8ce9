"""Encode clips with Whisper's encoder: a window of 30 s, of which the positions of the clip are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audiobert.encoders.family import ExtractorFeatures, register

if TYPE_CHECKING:
    from torch import Tensor

# Behind the last frame that holds sound Whisper's log-mel is constant: the last of these frames stands for all.
TAIL_FRAMES = 3


@register("WhisperFeatureExtractor")
@dataclass(frozen=True)
class WhisperFamily(ExtractorFeatures):
    """Whisper; the features of a clip are its own frames and the first few of the constant padding."""

    @staticmethod
    def max_seconds(extractor: Any) -> float:
        """Return the longest clip that the extractor uses, in seconds."""
        return float(extractor.chunk_length)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Compute log-mel energies `(frames, bins)`."""
        used, extracted = self.extract(waveform)
        frames = -(-len(used) // self.extractor.hop_length) + TAIL_FRAMES
        return np.ascontiguousarray(extracted["input_features"][0].T[:frames], dtype=np.float32)

    def encode(self, model: Any, clips: Sequence[np.ndarray]) -> list[Tensor]:
        """Return the hidden states `(positions, hidden_size)` that cover each clip."""
        import torch

        window = int(self.extractor.nb_max_frames)  # 3000 frames of 10 ms for the published models
        filled = np.stack([np.pad(clip, ((0, window - len(clip)), (0, 0)), mode="edge") for clip in clips])
        states = model(input_features=torch.from_numpy(filled).float().mT.to(model.device)).last_hidden_state
        stride = window // states.shape[1]
        own = [len(clip) - TAIL_FRAMES if len(clip) < window else window for clip in clips]  # frames of the clip
        return [clip[: max(1, -(-frames // stride))] for clip, frames in zip(states, own, strict=True)]
