"""Encode clips to the vectors that a bank holds of each: CLAP's, the knowledge vector, and that of its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from audiobert.audio import Attributes
from audiobert.clap import ClapModel
from audiobert.clap_hub import Clap
from audiobert.features import AUDIO_ENCODER, CLAP, Features, Makers
from audiobert.knowledge import KnowledgeEncoder

Precision = Literal["fp32", "bf16"]


class ModelClipEncoder:
    """The encoders of a model, in the form that `audiobert.bank.build_bank` takes.

    Attributes
    ----------
    clap_dim, hidden_size, text_dim
        Lengths of the CLAP vector, the knowledge vector and the vector of a name.
    makers
        What makes the features of each of the two audio models from a waveform, by role.
    precision
        What the audio models compute in. `bf16` is about twice as fast where the processor has it (AVX-512 BF16, AMX,
        GPUs), with a cosine to the vectors of `fp32` above 0.999.
    """

    def __init__(self, clap: Clap, knowledge_encoder: KnowledgeEncoder, identity: dict[str, Any]) -> None:
        self._clap, self._knowledge_encoder, self._identity = clap, knowledge_encoder.eval(), identity
        self.precision: Precision = "fp32"
        self.clap_dim, self.text_dim = clap.clap_dim, clap.text_dim
        self.hidden_size = knowledge_encoder.hidden_size
        self.makers: Makers = {CLAP: clap.features, AUDIO_ENCODER: knowledge_encoder.tower.features}

    def identity(self) -> dict[str, Any]:
        """Return ids and SHA-256 of the models; a bank of others is refused."""
        return self._identity

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels to another process: the audio side, without the backbone."""
        audio_side = self._clap.without_text() if isinstance(self._clap, ClapModel) else self._clap
        return {**self.__dict__, "_clap": audio_side}

    def encode(self, features: Sequence[Features], attributes: Sequence[Attributes]) -> tuple[np.ndarray, np.ndarray]:
        """Return CLAP vectors `(clips, clap_dim)` and knowledge vectors `(clips, hidden_size)`, float32."""
        device = next(self._knowledge_encoder.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            clap = self._clap.embed_audio([clip[CLAP] for clip in features])
            knowledge = self._knowledge_encoder.encode([clip[AUDIO_ENCODER] for clip in features], attributes)
        if self.precision == "bf16":
            clap /= np.linalg.norm(clap, axis=1, keepdims=True)
        return clap, knowledge

    def embed_names(self, names: Sequence[str]) -> np.ndarray:
        """Return sentence vectors `(names, text_dim)` float32, unit norm, of what clips are known by."""
        return self._clap.embed_query(names).sentence
