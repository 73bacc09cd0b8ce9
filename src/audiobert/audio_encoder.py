"""The door to published audio encoders: from what `hub_features` makes of clips to one vector a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, AutoModel, PreTrainedModel

from audiobert.backbone import Identity, find_model, load_extractor, load_weights, weights_checksums
from audiobert.clap import AudioTower
from audiobert.errors import InputError
from audiobert.features import FeatureMaker
from audiobert.hub_features import (
    WHISPER_TAIL_FRAMES,
    AstFeatures,
    ClapFeatures,
    WaveformFeatures,
    WhisperFeatures,
    maker_of,
)

Pooling = Literal["mean", "first"]


class HubAudioEncoder(nn.Module):
    """A transformers audio model with a `last_hidden_state`, pooled to one vector a clip.

    Padding does not count: the Wav2Vec2 family gets an attention mask where it was trained with one, and clips of equal
    length together where it was not; of Whisper's window of 30 s those positions are pooled that hold the clip. AST is
    given its window as it was trained, padding and all.

    Parameters
    ----------
    model : PreTrainedModel
        With an encoder alone (for Whisper: the encoder).
    features : FeatureMaker
        Made by `maker_of` from the model's feature extractor.
    pooling : str
        `mean` over the positions, or the `first` (the class token of AST).
    """

    def __init__(
        self, model: PreTrainedModel, features: FeatureMaker, identity: Identity, pooling: Pooling = "mean"
    ) -> None:
        super().__init__()
        self.model, self.identity, self.pooling = model, identity, pooling
        self.config: Any = model.config
        self._features = features

    @property
    def features(self) -> FeatureMaker:
        return self._features

    def hear(self, features: Sequence[np.ndarray]) -> Tensor:
        """Vectors `(clips, hidden_size)` float32 of clips in one batch, with gradients."""
        if isinstance(self._features, WaveformFeatures) and not self._features.masked:
            return self._hear_by_length(features)
        return self._pooled(features)

    forward = hear

    @torch.no_grad()
    def encode(self, features: Sequence[np.ndarray], *, batch_size: int = 8) -> Tensor:
        """Vectors `(clips, hidden_size)` float32 on the CPU, without gradients; each independent of its neighbours."""
        if not len(features):
            return torch.zeros(0, self.config.hidden_size)
        hear = self._hear_by_length if isinstance(self._features, WaveformFeatures) else self._pooled
        starts = range(0, len(features), batch_size)
        return torch.cat([hear(features[start : start + batch_size]).cpu() for start in starts])

    def _hear_by_length(self, features: Sequence[np.ndarray]) -> Tensor:
        by_length: dict[int, list[int]] = {}
        for index, clip in enumerate(features):
            by_length.setdefault(len(clip), []).append(index)
        pooled = [self._pooled([features[i] for i in members]) for members in by_length.values()]
        order = torch.tensor([i for members in by_length.values() for i in members])
        return torch.cat(pooled)[order.argsort()]

    def _pooled(self, features: Sequence[np.ndarray]) -> Tensor:
        maker, device = self._features, next(self.model.parameters()).device
        valid: Tensor | None = None  # (clips, positions), where the clip is
        if isinstance(maker, AstFeatures):
            values = _padded(features, maker.frames, maker.padding).to(device)
            hidden = self.model(input_values=values).last_hidden_state
        elif isinstance(maker, WhisperFeatures):
            window = maker.window_frames
            filled = [np.pad(clip, ((0, window - len(clip)), (0, 0)), mode="edge") for clip in features]
            hidden = self.model(input_features=_tensor(filled).mT.to(device)).last_hidden_state
            stride = window // hidden.shape[1]
            frames = [len(clip) - WHISPER_TAIL_FRAMES if len(clip) < window else window for clip in features]
            valid = _first([-(-n // stride) for n in frames], hidden)
        else:
            lengths = [len(clip) for clip in features]
            values = _padded(features, max(lengths), 0.0).to(device)
            if min(lengths) < max(lengths):
                mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
                hidden = self.model(input_values=values, attention_mask=mask.long().to(device)).last_hidden_state
                positions: Any = self.model._get_feat_extract_output_lengths  # type: ignore[operator]
                valid = _first(positions(torch.tensor(lengths)).tolist(), hidden)
            else:
                hidden = self.model(input_values=values).last_hidden_state
        hidden = hidden.float()
        if self.pooling == "first":
            return hidden[:, 0]
        if valid is None:
            return hidden.mean(dim=1)
        weights = valid.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


# What a knowledge encoder stands on. Both have `features`, which makes of a waveform what they hear, `hear` (a batch,
# with gradients), `encode` (any number of clips, without), and `config.hidden_size`, the width of what comes out.
AudioEncoder = AudioTower | HubAudioEncoder


def load_audio_encoder(
    name: str, *, revision: str | None = None, pooling: Pooling = "mean", attention: str | None = None
) -> HubAudioEncoder:
    """Load a published audio encoder by hub id or folder, with its own feature extractor.

    Raises
    ------
    ArtefactError
        It cannot be found, or its weights are missing, damaged or of another model.
    RemoteError
        The hub could not be reached or refused.
    InputError
        It is no audio encoder of a kind that is known.
    """
    folder, origin, commit = find_model(name, revision)
    maker = maker_of(load_extractor(AutoFeatureExtractor, folder, name), name)
    if isinstance(maker, ClapFeatures):
        raise InputError(f"{name} is a CLAP; give it as clap, and as audio_encoder a model such as AST or Whisper")
    model = load_weights(AutoModel, folder, name, whole=True, attn_implementation=attention)
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if getattr(model.config, "apply_spec_augment", False):
        model.config.apply_spec_augment = False  # a clip's vector does not depend on chance, in training either
    if getattr(model.config, "layerdrop", 0.0):
        model.config.layerdrop = 0.0
    identity = Identity(name, origin, commit, weights_checksums(folder))
    return HubAudioEncoder(model, maker, identity, pooling)


def _tensor(clips: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(clips)).float()


def _padded(clips: Sequence[np.ndarray], length: int, value: float) -> Tensor:
    """Clips `(time, ...)` cut or padded at the end to one length, `(clips, length, ...)`."""
    batch = np.full((len(clips), length, *clips[0].shape[1:]), value, dtype=np.float32)
    for place, clip in zip(batch, clips, strict=True):
        place[: len(clip)] = clip[:length]
    return torch.from_numpy(batch)


def _first(counts: Sequence[int], hidden: Tensor) -> Tensor:
    """Bool mask `(clips, positions)` of the first positions of each clip, at least one."""
    return torch.arange(hidden.shape[1], device=hidden.device) < torch.tensor(
        [max(1, n) for n in counts], device=hidden.device
    ).unsqueeze(-1)
