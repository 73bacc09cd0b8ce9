"""Embed text and sound in one space (section II-B2). The text tower is the frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from audiobert.bert import hidden_states
from audiobert.encoders import AudioTower, AudioTowerConfig
from audiobert.errors import InputError
from audiobert.features import FeatureMaker
from audiobert.sentence import check_text, query_tokens, shortened

MAX_QUERY_TOKENS = 64


@dataclass(frozen=True)
class QueryVectors:
    """Vectors of query texts, float32 of unit norm, from one pass of CLAP's text model."""

    sentence: np.ndarray  # (texts, text_dim), the text model's sentence vectors
    clap: np.ndarray  # (texts, clap_dim), the same texts in the space of CLAP


def mean_pooled(encoder: Any, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Compute sentence vectors `(texts, hidden_size)`, unit norm: the mean over the tokens' last hidden states."""
    input_ids, attention = (part.to(encoder.device) for part in query_tokens(tokenizer, texts, MAX_QUERY_TOKENS))
    hidden = hidden_states(encoder, attention, input_ids=input_ids)
    mask = attention.unsqueeze(-1).to(hidden.dtype)
    return functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=-1)


def contrastive_loss(audio_vectors: Tensor, text_vectors: Tensor, temperature: Tensor) -> Tensor:
    """Compute the symmetric contrastive loss of equations (1) to (3).

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
    """The trained part of `mini`'s CLAP: the audio tower, one projection per tower, and the temperature."""

    def __init__(self, tower: AudioTowerConfig, text_size: int, clap_dim: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.audio_tower = AudioTower(tower, dropout=dropout)
        self.audio_projection = nn.Sequential(
            nn.Linear(tower.hidden_size, clap_dim), nn.GELU(), nn.Linear(clap_dim, clap_dim)
        )
        self.text_projection = nn.Linear(text_size, clap_dim, bias=False)
        nn.init.orthogonal_(self.text_projection.weight)
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())
        self.text_dim, self.clap_dim = text_size, clap_dim

    def audio_vectors(self, features: Tensor) -> Tensor:
        """Project to CLAP vectors `(clips, clap_dim)`, unit norm, the audio tower's features."""
        return functional.normalize(self.audio_projection(features), dim=-1)

    def text_vectors(self, sentence_vectors: Tensor) -> Tensor:
        """Project to CLAP vectors `(texts, clap_dim)`, unit norm, the backbone's sentence vectors."""
        return functional.normalize(self.text_projection(sentence_vectors), dim=-1)

    def forward(self, windows: Tensor, sentence_vectors: Tensor) -> Tensor:
        """Compute the contrastive loss of windows `(pairs, frames, 128)` and sentence vectors `(pairs, text_size)`."""
        audio = self.audio_vectors(self.audio_tower(windows))
        return contrastive_loss(audio, self.text_vectors(sentence_vectors), self.log_temperature.exp())


def check_queries(queries: Sequence[str]) -> None:
    """Refuse what cannot be looked up: one text where several are wanted, no valid text, or one without words."""
    if isinstance(queries, str):
        raise InputError(f"the queries are one text, {shortened(queries)!r}; give a list of texts")
    for query in queries:
        check_text(query)
        if not query.strip():
            raise InputError("a query is empty; give some words for a sound")


class ClapModel:
    """The CLAP that is trained here, on the backbone without any LoRA: texts and clips to unit vectors of one space."""

    def __init__(self, projections: ClapProjections, encoder: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.projections = projections.eval()
        self.encoder, self.tokenizer = encoder, tokenizer
        self.features: FeatureMaker = projections.audio_tower.features
        self.text_dim, self.clap_dim = projections.text_dim, projections.clap_dim

    def without_text(self) -> ClapModel:
        """Return the audio side alone, which can be pickled; it embeds no texts."""
        return ClapModel(self.projections, None, None)  # type: ignore[arg-type]

    @torch.no_grad()
    def embed_query(self, texts: Sequence[str], *, batch_size: int = 128) -> QueryVectors:
        """Embed texts as queries: the backbone's sentence vectors, and their projection into the space of CLAP."""
        check_queries(texts)
        sentence = [np.zeros((0, self.text_dim), dtype=np.float32)]
        clap = [np.zeros((0, self.clap_dim), dtype=np.float32)]
        for start in range(0, len(texts), batch_size):
            pooled = mean_pooled(self.encoder, self.tokenizer, texts[start : start + batch_size])
            sentence.append(pooled.float().cpu().numpy())
            clap.append(self.projections.text_vectors(pooled).float().cpu().numpy())
        return QueryVectors(np.concatenate(sentence), np.concatenate(clap))

    @torch.no_grad()
    def embed_audio(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Embed log-mel spectrograms `(frames, 128)` as CLAP vectors `(clips, clap_dim)` float32, unit norm."""
        encoded = self.projections.audio_tower.encode(features)
        device = self.projections.text_projection.weight.device
        return self.projections.audio_vectors(encoded.to(device)).float().cpu().numpy()
