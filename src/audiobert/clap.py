"""CLAP: text and sound in one space (section II-B2). The text tower stands on the frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ASTConfig, ASTModel, PreTrainedTokenizerBase

from audiobert.audio import MEL_BINS
from audiobert.errors import InputError
from audiobert.features import FeatureMaker, LogMel

# Mean and standard deviation of log-mel energies over AudioSet, as published with AST (`ASTFeatureExtractor`).
LOG_MEL_MEAN, LOG_MEL_STD = -4.2677393, 4.5689974
MAX_QUERY_TOKENS = 64


@dataclass(frozen=True)
class AudioTowerConfig:
    """An Audio Spectrogram Transformer of a size that a laptop trains; it hears a clip window by window.

    `window_frames` of 10 ms go through the transformer at a time, up to `max_windows` of them; a clip's vector is the
    mean over its windows, and a clip shorter than a window is repeated until it fills one.
    """

    window_frames: int = 256
    max_windows: int = 4
    patch_size: int = 16
    hidden_size: int = 192
    layers: int = 4
    heads: int = 3

    @property
    def frames(self) -> int:
        """Spectrogram frames that are heard of a clip."""
        return self.window_frames * self.max_windows

    @property
    def features(self) -> LogMel:
        """What is heard of a clip."""
        return LogMel(self.frames)


class AudioTower(nn.Module):
    """AST over windows of a log-mel spectrogram, mean over patches and windows."""

    def __init__(self, config: AudioTowerConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
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

    @property
    def features(self) -> FeatureMaker:
        """What makes of a waveform what `hear` and `encode` take."""
        return self.config.features

    def forward(self, windows: Tensor) -> Tensor:
        """From normalised windows `(windows, window_frames, 128)` to features `(windows, hidden_size)`."""
        return self.ast(input_values=windows).last_hidden_state.mean(dim=1)

    def windows(self, spectrogram: np.ndarray) -> np.ndarray:
        """Cut a log-mel spectrogram `(frames, 128)` into normalised windows `(windows, window_frames, 128)`.

        The last window is completed with frames from before it; a clip that is shorter than one window is repeated.
        """
        size = self.config.window_frames
        heard = normalise(spectrogram[: self.config.frames])
        if len(heard) < size:
            return np.resize(heard, (size, heard.shape[1]))[None]  # np.resize repeats the array
        starts = list(range(0, len(heard) - size + 1, size))
        if starts[-1] + size + size // 4 < len(heard):
            starts.append(len(heard) - size)
        return np.stack([heard[start : start + size] for start in starts])

    def hear(self, spectrograms: Sequence[np.ndarray]) -> Tensor:
        """Features `(clips, hidden_size)` of log-mel spectrograms `(frames, 128)` in one batch, with gradients."""
        cut = [self.windows(spectrogram) for spectrogram in spectrograms]
        device = next(self.parameters()).device
        features = self(torch.from_numpy(np.concatenate(cut)).float().to(device)).float()
        return torch.stack([part.mean(dim=0) for part in features.split([len(windows) for windows in cut])])

    def encode(self, spectrograms: Sequence[np.ndarray], *, batch_size: int = 64) -> Tensor:
        """Features `(clips, hidden_size)` of log-mel spectrograms `(frames, 128)`, without gradients."""
        cut = [self.windows(spectrogram) for spectrogram in spectrograms]
        device = next(self.parameters()).device
        flat = torch.from_numpy(np.concatenate(cut)).float()
        with torch.no_grad():
            features = torch.cat([self(part.to(device)).float().cpu() for part in flat.split(batch_size)])
        means = [part.mean(dim=0) for part in features.split([len(windows) for windows in cut])]
        return torch.stack(means)


def normalise(spectrogram: np.ndarray) -> np.ndarray:
    """Zero mean and a standard deviation of one half, as `ASTFeatureExtractor` does."""
    return (spectrogram - LOG_MEL_MEAN) / (2.0 * LOG_MEL_STD)


def mean_pooled(encoder: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Sentence vectors `(texts, hidden_size)`, unit norm: the mean over the tokens' last hidden states."""
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_QUERY_TOKENS, return_tensors="pt")
    tokens = tokens.to(encoder.device)
    hidden = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)


def contrastive_loss(audio_vectors: Tensor, text_vectors: Tensor, temperature: Tensor) -> Tensor:
    """Symmetric contrastive loss of equations (1) to (3).

    Parameters
    ----------
    audio_vectors, text_vectors : Tensor
        `(pairs, clap_dim)`, unit norm; row i of one belongs to row i of the other.
    temperature : Tensor
        The scalar τ by which cosines are divided.

    >>> vectors = torch.eye(4)
    >>> float(contrastive_loss(vectors, vectors, torch.tensor(0.01))) < 1e-6
    True
    """
    logits = audio_vectors @ text_vectors.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


class ClapProjections(nn.Module):
    """What is trained of `mini`'s CLAP: the audio tower, a projection a tower, and the temperature."""

    def __init__(self, tower: AudioTowerConfig, text_size: int, clap_dim: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.audio_tower = AudioTower(tower, dropout=dropout)
        self.audio_projection = nn.Sequential(
            nn.Linear(tower.hidden_size, clap_dim), nn.GELU(), nn.Linear(clap_dim, clap_dim)
        )
        self.text_projection = nn.Linear(text_size, clap_dim, bias=False)
        nn.init.orthogonal_(self.text_projection.weight)
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())

    @property
    def clap_dim(self) -> int:
        return self.text_projection.out_features

    def audio_vectors(self, features: Tensor) -> Tensor:
        """CLAP vectors `(clips, clap_dim)`, unit norm, of the audio tower's features."""
        return functional.normalize(self.audio_projection(features), dim=-1)

    def text_vectors(self, sentence_vectors: Tensor) -> Tensor:
        """CLAP vectors `(texts, clap_dim)`, unit norm, of the backbone's sentence vectors."""
        return functional.normalize(self.text_projection(sentence_vectors), dim=-1)

    def forward(self, windows: Tensor, sentence_vectors: Tensor) -> Tensor:
        """Contrastive loss of one batch of pairs: windows `(pairs, frames, 128)` and `(pairs, text_size)`."""
        audio = self.audio_vectors(self.audio_tower(windows))
        return contrastive_loss(audio, self.text_vectors(sentence_vectors), self.log_temperature.exp())


def refuse_empty(queries: Sequence[str]) -> None:
    """Raise InputError when a query has no words."""
    if any(not query.strip() for query in queries):
        raise InputError("a query is empty; give some words for a sound")


class ClapModel:
    """The door to CLAP: text and sound to unit vectors of one space.

    Parameters
    ----------
    projections : ClapProjections
        The trained part.
    encoder
        The backbone, shared with the other rooms; adapters must be off while it is called (`adapters_off`).
    tokenizer : PreTrainedTokenizerBase
        The backbone's.
    adapters_off : callable
        Gives a context in which the backbone runs without any adapter.
    """

    def __init__(
        self,
        projections: ClapProjections,
        encoder: Any,
        tokenizer: PreTrainedTokenizerBase,
        adapters_off: Any,
    ) -> None:
        self.projections = projections.eval()
        self.encoder, self.tokenizer, self._adapters_off = encoder, tokenizer, adapters_off

    @property
    def features(self) -> FeatureMaker:
        """What makes of a waveform what `embed_audio` takes."""
        return self.projections.audio_tower.features

    def without_text(self) -> ClapModel:
        """The audio side alone, which can be pickled; `embed_text` is not to be called."""
        return ClapModel(self.projections, None, None, None)  # type: ignore[arg-type]

    @property
    def clap_dim(self) -> int:
        """Length of a CLAP vector."""
        return self.projections.clap_dim

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str], *, batch_size: int = 128) -> np.ndarray:
        """CLAP vectors of texts, `(texts, clap_dim)` float32, unit norm.

        Raises
        ------
        InputError
            A text is empty.
        """
        refuse_empty(texts)
        if not texts:
            return np.zeros((0, self.clap_dim), dtype=np.float32)
        parts = []
        with self._adapters_off():
            for start in range(0, len(texts), batch_size):
                pooled = mean_pooled(self.encoder, self.tokenizer, texts[start : start + batch_size])
                parts.append(self.projections.text_vectors(pooled).float().cpu().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def embed_audio(self, spectrograms: Sequence[np.ndarray]) -> np.ndarray:
        """CLAP vectors of log-mel spectrograms `(frames, 128)`: `(clips, clap_dim)` float32, unit norm."""
        if not spectrograms:
            return np.zeros((0, self.clap_dim), dtype=np.float32)
        features = self.projections.audio_tower.encode(spectrograms)
        device = self.projections.text_projection.weight.device
        return self.projections.audio_vectors(features.to(device)).float().cpu().numpy()
