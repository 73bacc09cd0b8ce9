"""Hold what is returned for a text: its spans with their clips, and the answers with and without sound."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from torch import Tensor

from audiobert.bank import Clip
from audiobert.relatives import Relatives
from audiobert.sentence import Span


@dataclass(frozen=True)
class Hit:
    """A clip that was found.

    Attributes
    ----------
    score
        The retrieval score: a probability, or a cosine in [-1, 1] where a model retrieves by sound alone.
    row
        Where the clip stands in its bank; -1 for a recording that is in none.
    knowledge
        Its knowledge vector `(hidden_size,)`.
    """

    clip: Clip
    score: float
    row: int = -1
    knowledge: np.ndarray | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the clip's fields of the documented JSON."""
        clip = self.clip
        return {
            "id": clip.id,
            "caption": clip.caption,
            "score": round(self.score, 4),
            "source": clip.source,
            "license": clip.license,
            "url": clip.url,
            "path": clip.path,
            "pitch_hz": clip.pitch_hz,
            "loudness_dbfs": clip.loudness_dbfs,
            "duration_s": clip.duration_s,
        }


@dataclass(frozen=True)
class AuditorySpan(Span):
    """A span with the clips that were retrieved for it, the best first, and what the nearest names sound like."""

    clips: tuple[Hit, ...] = ()
    relatives: Relatives | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, object]:
        """Return the span with its clips as JSON."""
        return {**super().to_json(), "clips": [hit.to_json() for hit in self.clips]}


class Answer:
    """Base of the dataclasses that are answers; each field is a key of the documented JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]
        return {
            name: [inner.to_json() for inner in value] if isinstance(value, tuple) else value
            for name, value in values.items()
        }


@dataclass(frozen=True)
class Prediction(Answer):
    """A token for a mask with its probability; `score` is not rounded, so that equal means equal."""

    token: str
    score: float


@dataclass(frozen=True)
class MaskPredictions(Answer):
    """The best tokens for one mask: AudioBERT's, and those of the plain language model."""

    predictions: tuple[Prediction, ...]
    base_predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class FillMask(Answer):
    """The answer to one text; `to_json` gives what `fill-mask --json` prints."""

    text: str
    auditory: bool
    spans: tuple[AuditorySpan, ...]
    masks: tuple[MaskPredictions, ...]


@dataclass(frozen=True)
class Completion(Answer):
    """The text that a causal language model generates behind a prompt, with sound and as the plain language model."""

    text: str
    auditory: bool
    spans: tuple[AuditorySpan, ...]
    completion: str
    base_completion: str | None


@dataclass(frozen=True)
class MaskScores:
    """Log-probabilities `(masks, vocabulary)` float32 of one text, with the spans that were used."""

    log_probs: Tensor
    auditory: bool
    spans: tuple[AuditorySpan, ...] = ()
