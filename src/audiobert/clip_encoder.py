"""From clips to the two vectors that a bank holds of each: CLAP's, and the knowledge vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from audiobert.audio import Attributes
from audiobert.clap import ClapModel
from audiobert.features import AUDIO_ENCODER, CLAP, Features, Makers
from audiobert.modeling import KnowledgeEncoder


class ModelClipEncoder:
    """The audio side of a model, as `audiobert.bank.build_bank` wants it.

    Attributes
    ----------
    clap_dim, hidden_size
        Lengths of the CLAP vector and of the knowledge vector.
    makers
        What makes of a waveform what each of the two models hears, by role.
    """

    def __init__(self, clap: ClapModel, knowledge_encoder: KnowledgeEncoder, identity: dict[str, Any]) -> None:
        self._clap, self._knowledge_encoder, self._identity = clap, knowledge_encoder.eval(), identity
        self.clap_dim = clap.clap_dim
        self.hidden_size = knowledge_encoder.hidden_size
        self.makers: Makers = {CLAP: clap.features, AUDIO_ENCODER: knowledge_encoder.tower.features}

    def identity(self) -> dict[str, Any]:
        """Ids and SHA-256 of the CLAP model and the audio encoder; a bank of others is refused."""
        return self._identity

    def encode(self, features: Sequence[Features], attributes: Sequence[Attributes]) -> tuple[np.ndarray, np.ndarray]:
        """CLAP vectors `(clips, clap_dim)` and knowledge vectors `(clips, hidden_size)`, float32."""
        clap = self._clap.embed_audio([clip[CLAP] for clip in features])
        return clap, self._knowledge_encoder.encode([clip[AUDIO_ENCODER] for clip in features], attributes)
