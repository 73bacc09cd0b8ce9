"""How knowledge vectors enter the language model; another way of using clips is another class here, chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from audiobert.settings import Settings

# Retrieval score of a place without a clip: its weight is zero.
NO_CLIP = -1e4


class InjectionSettings(Settings):
    """How knowledge vectors enter the language model.

    Attributes
    ----------
    kind
        `add` the knowledge to the embedding of a span's first token (the paper), or `replace` that embedding (the
        published code).
    gate
        Scale the knowledge by a learned function of the best clip's retrieval score, so that clips that do not fit add
        little.
    """

    kind: Literal["add", "replace"] = "add"
    gate: bool = True


@dataclass
class SpanKnowledge:
    """The retrieved clips of the spans of a batch; spans and clips are padded to the largest number in it.

    Attributes
    ----------
    starts
        `(rows, spans)` int64, first token of each span; -1 where there is no span.
    vectors
        `(rows, spans, clips, hidden_size)` knowledge vectors.
    scores
        `(rows, spans, clips)` retrieval scores; `NO_CLIP` where there is no clip.
    """

    starts: Tensor
    vectors: Tensor
    scores: Tensor

    def without_knowledge(self) -> SpanKnowledge:
        """Return the same spans with no clip."""
        return SpanKnowledge(self.starts, self.vectors[:, :, :0], self.scores[:, :, :0])


class Injection(nn.Module):
    """Base of the ways to inject: pools the clips of a span; a subclass puts the result among the embeddings."""

    def __init__(self, settings: InjectionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.score_sharpness = nn.Parameter(torch.tensor(10.0))
        self.gate_slope = nn.Parameter(torch.tensor(4.0), requires_grad=settings.gate)
        self.gate_offset = nn.Parameter(torch.tensor(0.3), requires_grad=settings.gate)

    def pool(self, knowledge: SpanKnowledge) -> Tensor:
        """Return one vector per span, `(rows, spans, hidden_size)`: the clips' weighted mean times the gate."""
        if not knowledge.scores.shape[-1]:
            return knowledge.vectors.sum(dim=2)
        weights = (knowledge.scores * self.score_sharpness).softmax(dim=-1)  # (rows, spans, clips)
        pooled = (weights.unsqueeze(-1) * knowledge.vectors).sum(dim=2)
        best = knowledge.scores.amax(dim=-1, keepdim=True)
        found = (best > NO_CLIP / 2).to(pooled.dtype)
        if self.settings.gate:
            found = found * torch.sigmoid(self.gate_slope * (best - self.gate_offset))
        return pooled * found

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
        return embeddings.index_put(at, vectors, accumulate=True)


class ReplaceFirstToken(Injection):
    """Put the knowledge in the place of the first token's embedding, as the published code does."""

    def put(self, embeddings: Tensor, at: tuple[Tensor, Tensor], vectors: Tensor) -> Tensor:
        return embeddings.index_put(at, vectors)


INJECTIONS: dict[str, Callable[[InjectionSettings], Injection]] = {"add": AddToFirstToken, "replace": ReplaceFirstToken}


def new_injection(settings: InjectionSettings) -> Injection:
    """Return the injection that the settings name, untrained."""
    return INJECTIONS[settings.kind](settings)
