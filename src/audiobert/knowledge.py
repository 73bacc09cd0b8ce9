"""Compute a clip's knowledge vector: audio encoder, measured attributes, projection (section II-B3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from audiobert.audio import Attributes
from audiobert.encoders import AudioEncoder
from audiobert.settings import Settings

ATTRIBUTE_FEATURES = ("pitch", "pitched", "voiced", "level", "duration", "centroid", "flatness")


class KnowledgeSettings(Settings):
    """Settings of how a clip becomes a knowledge vector.

    Attributes
    ----------
    attributes
        Concatenate measured attributes (pitch, duration, ...) with the audio encoder's vector.
    dropout
        In training, of the audio encoder's vector.
    projection
        `mlp` with one hidden layer on normalised vectors, or one `linear` layer.
    pooling
        How a published audio encoder's states become one vector: their `mean`, or the `first` (AST's class token).
    trained_encoder
        The audio encoder was trained with the projection, so its weights belong to the model's own.
    """

    attributes: bool = True
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    projection: Literal["mlp", "linear"] = "mlp"
    pooling: Literal["mean", "first"] = "mean"
    trained_encoder: bool = True


def attribute_features(attributes: Sequence[Attributes]) -> np.ndarray:
    """Return measured attributes on scales of about one, `(clips, 7)` float32; frequencies and durations in octaves."""
    rows = [
        (
            math.log2(a.pitch_hz / 440.0) if a.pitch_hz else 0.0,
            float(a.pitch_hz is not None),
            a.voiced_ratio,
            (a.loudness_dbfs + 25.0) / 15.0,
            math.log2(max(a.duration_s, 0.05) / 3.0),
            math.log2(max(a.spectral_centroid_hz, 20.0) / 1500.0),
            a.spectral_flatness,
        )
        for a in attributes
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, len(ATTRIBUTE_FEATURES))


class KnowledgeEncoder(nn.Module):
    """Audio encoder and projection to the language model's width.

    The projection's last layer starts at zero: an untrained encoder injects nothing.
    """

    def __init__(self, tower: AudioEncoder, hidden_size: int, settings: KnowledgeSettings) -> None:
        super().__init__()
        self.tower, self.settings = tower, settings
        width = tower.hidden_size
        joined = width + settings.attributes * len(ATTRIBUTE_FEATURES)
        self.norm = nn.LayerNorm(width) if settings.projection == "mlp" else nn.Identity()
        self.inner = nn.Linear(joined, hidden_size) if settings.projection == "mlp" else None
        self.outer = nn.Linear(joined if self.inner is None else hidden_size, hidden_size)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)
        self.hidden_size = hidden_size

    def project(self, features: Tensor, attributes: Tensor) -> Tensor:
        """Compute knowledge vectors `(clips, hidden_size)` of tower vectors `(clips, width)` and attribute features."""
        joined = functional.dropout(self.norm(features), self.settings.dropout, self.training)
        if self.settings.attributes:
            joined = torch.cat([joined, attributes], dim=-1)
        return self.outer(joined if self.inner is None else functional.gelu(self.inner(joined)))

    @torch.no_grad()
    def encode(self, features: Sequence[np.ndarray], attributes: Sequence[Attributes]) -> np.ndarray:
        """Return knowledge vectors `(clips, hidden_size)` float32 of clips, from their features and attributes."""
        device = self.outer.weight.device
        measured = torch.from_numpy(attribute_features(attributes)).to(device)
        return self.project(self.tower.encode(features).to(device), measured).float().cpu().numpy()

    def saved_state(self) -> dict[str, Tensor]:
        """Return the weights that belong to the model's own file: without an audio encoder that was not trained."""
        state = self.state_dict()
        if self.settings.trained_encoder:
            return state
        tower = {f"tower.{name}" for name in self.tower.state_dict()}
        return {name: value for name, value in state.items() if name not in tower}
