"""Encode clips with the Wav2Vec2 family (Wav2Vec2, HuBERT, WavLM, Data2VecAudio), from the waveform itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audiobert.encoders.family import ExtractorFeatures, register

if TYPE_CHECKING:
    from torch import Tensor

MAX_SECONDS = 10.0  # these models set no limit themselves: as much as AST and CLAP use


@register("Wav2Vec2FeatureExtractor")
@dataclass(frozen=True)
class SpeechFamily(ExtractorFeatures):
    """Wav2Vec2 and its relatives; clips of one length form a batch.

    Nothing is padded: some of these models were trained with an attention mask over padding and some without (group
    normalisation of wav2vec2-base runs over the padding, too), and the vectors of a clip alone are right for both.
    """

    @staticmethod
    def max_seconds(extractor: Any) -> float:  # noqa: ARG004
        """Return the longest clip that is used, in seconds."""
        return MAX_SECONDS

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return the waveform `(samples,)`, normalised if the extractor does so."""
        return np.asarray(self.extract(waveform)[1]["input_values"][0], dtype=np.float32)

    def encode(self, model: Any, clips: Sequence[np.ndarray]) -> list[Tensor]:
        """Return the hidden states `(positions, hidden_size)` of each clip; clips of one length form a batch."""
        import torch

        shortest = receptive_field(model.config.conv_kernel, model.config.conv_stride)
        clips = [np.pad(clip, (0, max(0, shortest - len(clip)))) for clip in clips]
        states: dict[int, Tensor] = {}
        for length in {len(clip) for clip in clips}:
            members = [index for index, clip in enumerate(clips) if len(clip) == length]
            values = torch.from_numpy(np.stack([clips[index] for index in members])).float().to(model.device)
            states.update(zip(members, model(input_values=values).last_hidden_state, strict=True))
        return [states[index] for index in range(len(clips))]


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return the samples that one position of a stack of convolutions covers.

    >>> receptive_field((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))  # wav2vec2: 25 ms
    400
    """
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples
