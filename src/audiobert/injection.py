"""Inject knowledge vectors into the language model; another way is another class here, chosen by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from audiobert.bank.names import name_start
from audiobert.settings import Settings

# Retrieval score of a place without a clip: its weight is zero.
NO_CLIP = -1e4
_LEAST_PROBABILITY = 1e-4
_DROPPED_CLIP = 8.0  # what a clip that is dropped in training loses of its log-odds


class InjectionSettings(Settings):
    """Settings of how knowledge vectors enter the language model.

    Attributes
    ----------
    kind
        `add` the knowledge to the embedding of a span's first token (the paper), or `replace` that embedding (the
        published code).
    at
        Which token that is: the `first` of the span (the paper), or the first of its `name`, behind "the sound of a".
    gate
        Scale the knowledge by a learned function of the best clip's retrieval score, so that clips that do not fit add
        little.
    log_odds
        Weigh clips and set the gate by the log-odds of the score, where the score is a probability.
    clip_dropout, relatives_dropout
        In training, the share of a span's clips, and of all kinds among its relatives, that are left out.
    """

    kind: Literal["add", "replace"] = "add"
    at: Literal["first", "name"] = "first"
    gate: bool = True
    log_odds: bool = False
    clip_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    relatives_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    def places(self, text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the character offsets in a text at whose first token the knowledge of each span goes in."""
        if self.at == "first":
            return list(spans)
        return [(start + name_start(text[start:end]), end) for start, end in spans]


@dataclass
class SpanKnowledge:
    """Knowledge of the spans of a batch; spans and clips are padded to the largest number in it.

    Attributes
    ----------
    starts
        `(rows, spans)` int64, first token of each span; -1 where there is no span.
    vectors
        `(rows, spans, clips, hidden_size)` knowledge vectors.
    scores
        `(rows, spans, clips)` retrieval scores; `NO_CLIP` where there is no clip.
    relatives
        `(rows, spans, hidden_size)` weighted sum of the knowledge of the names that are nearest to the query, zero
        where there is none; or None.
    relatives_weight
        `(rows, spans)` sum of those weights; or None.
    """

    starts: Tensor
    vectors: Tensor
    scores: Tensor
    relatives: Tensor | None = None
    relatives_weight: Tensor | None = None


class Injection(nn.Module):
    """Base of the ways to inject: pools the clips of a span; a subclass puts the result among the embeddings."""

    def __init__(self, settings: InjectionSettings, hidden_size: int, relatives: bool) -> None:
        super().__init__()
        self.settings = settings
        sharpness, slope, offset = (1.0, 1.0, -1.0) if settings.log_odds else (10.0, 4.0, 0.3)
        self.score_sharpness = nn.Parameter(torch.tensor(sharpness))
        self.gate_slope = nn.Parameter(torch.tensor(slope), requires_grad=settings.gate)
        self.gate_offset = nn.Parameter(torch.tensor(offset), requires_grad=settings.gate)
        # What relatives are measured from: the weights of names that are all far away sum to little.
        self.relatives_centre = nn.Parameter(torch.zeros(hidden_size)) if relatives else None

    def gated(self, knowledge: SpanKnowledge) -> tuple[Tensor, Tensor]:
        """Return the clips' weighted mean `(rows, spans, hidden_size)` and the gate `(rows, spans, 1)`."""
        if not knowledge.scores.shape[-1]:
            return knowledge.vectors.sum(dim=2), knowledge.vectors.new_zeros(*knowledge.scores.shape[:2], 1)
        there = knowledge.scores > NO_CLIP / 2
        scores = knowledge.scores
        if self.settings.log_odds:
            scores = scores.clamp(_LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY).logit()
        best = scores.masked_fill(~there, NO_CLIP).amax(dim=-1, keepdim=True)
        if self.training and self.settings.clip_dropout:
            dropped = torch.rand_like(scores) < self.settings.clip_dropout
            scores = torch.where(dropped, scores - _DROPPED_CLIP, scores)
        weights = (scores * self.score_sharpness).masked_fill(~there, NO_CLIP).softmax(dim=-1)  # (rows, spans, clips)
        pooled = (weights.unsqueeze(-1) * knowledge.vectors).sum(dim=2)
        gate = there.any(dim=-1, keepdim=True).to(pooled.dtype)
        if self.settings.gate:
            gate = gate * torch.sigmoid(self.gate_slope * (best - self.gate_offset))
        return pooled, gate

    def pool(self, knowledge: SpanKnowledge) -> Tensor:
        """Return one vector per span, `(rows, spans, hidden_size)`: its clips as far as they fit, and its relatives."""
        pooled, gate = self.gated(knowledge)
        vectors = pooled * gate
        if self.relatives_centre is None or knowledge.relatives is None or knowledge.relatives_weight is None:
            return vectors
        return vectors + knowledge.relatives - knowledge.relatives_weight.unsqueeze(-1) * self.relatives_centre

    def forward(self, embeddings: Tensor, knowledge: SpanKnowledge) -> Tensor:
        """Return word embeddings `(rows, tokens, hidden_size)` with knowledge at the first token of each span."""
        rows, spans = (knowledge.starts >= 0).nonzero(as_tuple=True)
        vectors = self.pool(knowledge)[rows, spans].to(embeddings.dtype)
        return self.put(embeddings, (rows, knowledge.starts[rows, spans]), vectors)

    def put(self, embeddings: Tensor, at: tuple[Tensor, Tensor], vectors: Tensor) -> Tensor:
        """Put vectors `(found, hidden_size)` at (row, token) positions."""
        raise NotImplementedError


class AddToFirstToken(Injection):
    """Add the knowledge to the embedding of the span's first token (section II-B3)."""

    def put(self, embeddings: Tensor, at: tuple[Tensor, Tensor], vectors: Tensor) -> Tensor:
        """Add the vectors at the given positions."""
        return embeddings.index_put(at, vectors, accumulate=True)


class ReplaceFirstToken(Injection):
    """Put the knowledge in the place of the first token's embedding, as the published code does."""

    def put(self, embeddings: Tensor, at: tuple[Tensor, Tensor], vectors: Tensor) -> Tensor:
        """Write the vectors to the given positions."""
        return embeddings.index_put(at, vectors)


INJECTIONS: dict[str, type[Injection]] = {"add": AddToFirstToken, "replace": ReplaceFirstToken}


def new_injection(settings: InjectionSettings, hidden_size: int, *, relatives: bool = False) -> Injection:
    """Return the injection that the settings name, untrained.

    Parameters
    ----------
    hidden_size
        Width of the language model.
    relatives
        Whether it takes what the names nearest to a query sound like.
    """
    return INJECTIONS[settings.kind](settings, hidden_size, relatives)
