"""Hold what is returned for a text: its spans with their clips, and the answers with and without sound."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Prediction:
    """A token for a mask with its probability; `score` is not rounded, so that equal means equal."""

    token: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"token": self.token, "score": self.score}


@dataclass(frozen=True)
class MaskPredictions:
    """The best tokens for one mask: AudioBERT's, and those of the plain language model."""

    predictions: tuple[Prediction, ...]
    base_predictions: tuple[Prediction, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "predictions": [prediction.to_json() for prediction in self.predictions],
            "base_predictions": [prediction.to_json() for prediction in self.base_predictions],
        }


@dataclass(frozen=True)
class FillMask:
    """The answer to one text; `to_json` gives the documented form."""

    text: str
    auditory: bool
    spans: tuple[AuditorySpan, ...]
    masks: tuple[MaskPredictions, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that `fill-mask --json` prints."""
        return {
            "text": self.text,
            "auditory": self.auditory,
            "spans": [span.to_json() for span in self.spans],
            "masks": [mask.to_json() for mask in self.masks],
        }


@dataclass(frozen=True)
class Completion:
    """The text that a causal language model generates behind a prompt, with sound and as the plain language model."""

    text: str
    auditory: bool
    spans: tuple[AuditorySpan, ...]
    completion: str
    base_completion: str | None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "text": self.text,
            "auditory": self.auditory,
            "spans": [span.to_json() for span in self.spans],
            "completion": self.completion,
            "base_completion": self.base_completion,
        }


@dataclass(frozen=True)
class MaskScores:
    """Log-probabilities `(masks, vocabulary)` float32 of one text, with the spans that were used."""

    log_probs: Tensor
    auditory: bool
    spans: tuple[AuditorySpan, ...] = field(default=())
