"""From clips to the two vectors that a bank holds of each: CLAP's, and the knowledge vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from audiobert.audio import Attributes
from audiobert.clap import ClapModel
from audiobert.clap_hub import Clap
from audiobert.features import AUDIO_ENCODER, CLAP, Features, Makers
from audiobert.modeling import KnowledgeEncoder

Precision = Literal["fp32", "bf16"]


class ModelClipEncoder:
    """The audio side of a model, as `audiobert.bank.build_bank` wants it.

    Attributes
    ----------
    clap_dim, hidden_size
        Lengths of the CLAP vector and of the knowledge vector.
    makers
        What makes of a waveform what each of the two models hears, by role.
    precision
        What the models compute in. `bf16` is about twice as fast where the processor has it (AVX-512 BF16, AMX, GPUs),
        with a cosine to the vectors of `fp32` above 0.999.
    """

    def __init__(
        self,
        clap: Clap,
        knowledge_encoder: KnowledgeEncoder,
        identity: dict[str, Any],
        precision: Precision = "fp32",
    ) -> None:
        self._clap, self._knowledge_encoder, self._identity = clap, knowledge_encoder.eval(), identity
        self.precision = precision
        self.clap_dim = clap.clap_dim
        self.hidden_size = knowledge_encoder.hidden_size
        self.text_dim = 0
        self.makers: Makers = {CLAP: clap.features, AUDIO_ENCODER: knowledge_encoder.tower.features}

    def identity(self) -> dict[str, Any]:
        """Ids and SHA-256 of the CLAP model and the audio encoder; a bank of others is refused."""
        return self._identity

    def embed_names(self, names: Sequence[str]) -> np.ndarray:
        """Return the vectors of names, `(names, text_dim)`: none yet, since `text_dim` is 0."""
        return np.zeros((len(names), self.text_dim), np.float32)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: the side that hears, without the backbone that reads."""
        hearing = self._clap.without_text() if isinstance(self._clap, ClapModel) else self._clap
        return {**self.__dict__, "_clap": hearing}

    def encode(self, features: Sequence[Features], attributes: Sequence[Attributes]) -> tuple[np.ndarray, np.ndarray]:
        """CLAP vectors `(clips, clap_dim)` and knowledge vectors `(clips, hidden_size)`, float32."""
        device = next(self._knowledge_encoder.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            clap = self._clap.embed_audio([clip[CLAP] for clip in features])
            knowledge = self._knowledge_encoder.encode([clip[AUDIO_ENCODER] for clip in features], attributes)
        if self.precision == "bf16":
            clap /= np.linalg.norm(clap, axis=1, keepdims=True)
        return clap, knowledge
