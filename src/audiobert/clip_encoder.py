"""From clips to the two vectors that a bank holds of each: CLAP's, and the knowledge vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from audiobert.audio import Attributes
from audiobert.clap import ClapModel
from audiobert.modeling import KnowledgeEncoder


class MiniClipEncoder:
    """The audio side of a model, as `audiobert.bank.build_bank` wants it.

    Attributes
    ----------
    clap_dim, hidden_size
        Lengths of the CLAP vector and of the knowledge vector.
    frames
        Spectrogram frames of 10 ms that are heard of a clip.
    """

    def __init__(self, clap: ClapModel, knowledge_encoder: KnowledgeEncoder, identity: dict[str, Any]) -> None:
        self._clap, self._knowledge_encoder, self._identity = clap, knowledge_encoder.eval(), identity
        self.clap_dim = clap.clap_dim
        self.hidden_size = knowledge_encoder.hidden_size
        self.frames = max(
            clap.projections.audio_tower.config.frames,
            knowledge_encoder.tower.config.frames,
        )

    def identity(self) -> dict[str, Any]:
        """Ids and SHA-256 of the CLAP model and the audio encoder; a bank of others is refused."""
        return self._identity

    def encode(
        self, spectrograms: Sequence[np.ndarray], attributes: Sequence[Attributes]
    ) -> tuple[np.ndarray, np.ndarray]:
        """CLAP vectors `(clips, clap_dim)` and knowledge vectors `(clips, hidden_size)`, float32."""
        return self._clap.embed_audio(spectrograms), self._knowledge_encoder.encode(spectrograms, attributes)
