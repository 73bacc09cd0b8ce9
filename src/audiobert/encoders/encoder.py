"""Encode the features of clips to one vector per clip; published encoders are loaded by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel, PreTrainedModel

from audiobert.backbone import Identity, find_model, load_extractor, load_weights, weights_checksums
from audiobert.encoders.family import EncoderFamily, find_family
from audiobert.features import FeatureMaker
from audiobert.hub import HubAccess

Pooling = Literal["mean", "first"]


class AudioEncoder(nn.Module):
    """Base of the audio encoders: features of clips to one vector `(hidden_size,)` per clip."""

    features: FeatureMaker  # that `encode_batch` takes
    hidden_size: int

    def encode_batch(self, features: Sequence[np.ndarray]) -> Tensor:
        """Encode clips, given by their features, to vectors `(clips, hidden_size)`."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, features: Sequence[np.ndarray], *, batch_size: int = 8) -> Tensor:
        """Encode any number of clips without gradients, `(clips, hidden_size)` float32 on the CPU."""
        starts = range(0, len(features), batch_size)
        batches = [self.encode_batch(features[start : start + batch_size]).cpu() for start in starts]
        return torch.cat([torch.zeros(0, self.hidden_size), *batches])


class PublishedAudioEncoder(AudioEncoder):
    """A transformers audio model of a registered family, pooled to one vector per clip.

    Pooling is the `mean` over the positions, or the `first` (the class token of AST).
    """

    def __init__(
        self, model: PreTrainedModel, family: EncoderFamily, identity: Identity, pooling: Pooling = "mean"
    ) -> None:
        super().__init__()
        self.model, self.identity, self.pooling = model, identity, pooling
        self.config: Any = model.config
        self.features = self._family = family
        self.hidden_size = int(self.config.hidden_size)

    def encode_batch(self, features: Sequence[np.ndarray]) -> Tensor:
        """Encode clips, given by their features, to vectors `(clips, hidden_size)`."""
        states = [clip.float() for clip in self._family.encode(self.model, features)]  # each (positions, hidden_size)
        return torch.stack([clip[0] if self.pooling == "first" else clip.mean(dim=0) for clip in states])


def load_audio_encoder(
    name: str,
    *,
    revision: str | None = None,
    pooling: Pooling = "mean",
    attention: str | None = None,
    hub: HubAccess | None = None,
) -> PublishedAudioEncoder:
    """Load a published audio encoder by hub id or folder, with its own feature extractor."""
    folder, origin, commit = find_model(name, revision, hub=hub)
    family = find_family(load_extractor(AutoFeatureExtractor, folder, name), name)
    model = load_weights(AutoModel, folder, name, whole=True, attn_implementation=attention)
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    for setting, off in (("apply_spec_augment", False), ("layerdrop", 0.0)):
        if hasattr(model.config, setting):
            setattr(model.config, setting, off)  # a clip's vector is not random, in training either
    return PublishedAudioEncoder(model, family, Identity(name, origin, commit, weights_checksums(folder)), pooling)
