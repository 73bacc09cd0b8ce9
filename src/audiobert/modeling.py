"""`AudioBertForMaskedLM`: language model + LoRA + injection; forward and loss (section II-B3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from audiobert.audio import Attributes
from audiobert.comparison import SpanScorer
from audiobert.encoders import AudioEncoder
from audiobert.errors import InputError
from audiobert.missing_word import WordScorer
from audiobert.text_features import TextFeatures

IGNORED = -100
ATTRIBUTE_FEATURES = ("pitch", "pitched", "voiced", "loudness", "duration", "centroid", "flatness")


@dataclass(frozen=True)
class InjectionSettings:
    """How knowledge vectors enter the language model.

    Attributes
    ----------
    mode
        `add` the knowledge to the embedding of a span's first token (the paper), or `replace` it (the published code).
    clips_per_span
        How many retrieved clips speak for a span; their knowledge vectors are averaged with weights that grow with the
        CLAP score.
    gate
        Scale the knowledge by a learned function of the best clip's CLAP score, so that clips that do not fit add
        little.
    attributes
        Let measured attributes (pitch, loudness, ...) of a clip be part of its knowledge vector.
    comparison
        Score each span by itself (`audiobert.comparison`) and let the difference of the first two speak for "higher"
        against "lower" at the masks.
    comparison_hears
        Let that score depend on what is heard of the span, too, and not on its words alone.
    lexicon
        Words that a scorer of whole words knows (`audiobert.missing_word`); none: the language model alone fills masks.
    """

    mode: Literal["add", "replace"] = "add"
    clips_per_span: int = 4
    gate: bool = True
    attributes: bool = True
    comparison: bool = True
    comparison_hears: bool = False
    lexicon: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Injection:
    """What is injected into a batch of sentences; spans are padded to the largest number in the batch.

    Attributes
    ----------
    starts, ends
        `(rows, spans)` int64, first token of each span and the token behind its last; -1 where there is no span.
    knowledge
        `(rows, spans, clips, hidden_size)` knowledge vectors of the retrieved clips; None to inject nothing.
    scores
        `(rows, spans, clips)` their CLAP scores.
    words
        `(rows, spans, ...)`, what the spans are scored by; None to compare nothing.
    """

    starts: Tensor
    ends: Tensor
    knowledge: Tensor | None = None
    scores: Tensor | None = None
    words: TextFeatures | None = None


def attribute_features(attributes: Sequence[Attributes]) -> np.ndarray:
    """Measured attributes on scales of about one, `(clips, 7)` float32: octaves for frequencies and durations."""
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
    """From a clip to its knowledge vector: audio encoder, measured attributes, projection to the model's width.

    The projection is an `mlp` with one hidden layer on normalised features, or one `linear` layer. Its last layer
    starts at zero: an untrained encoder injects nothing.

    Parameters
    ----------
    longest
        Length that a knowledge vector comes near to and never has: what is to be added to a word would else drown it.
        None: any.
    """

    def __init__(
        self,
        tower: AudioEncoder,
        hidden_size: int,
        *,
        attributes: bool = True,
        projection: Literal["mlp", "linear"] = "mlp",
        longest: float | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.longest = longest
        self.use_attributes = attributes
        width = tower.config.hidden_size
        joined = width + attributes * len(ATTRIBUTE_FEATURES)
        self.norm = nn.LayerNorm(width) if projection == "mlp" else nn.Identity()
        self.inner = nn.Linear(joined, hidden_size) if projection == "mlp" else None
        self.outer = nn.Linear(joined if self.inner is None else hidden_size, hidden_size)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    @property
    def hidden_size(self) -> int:
        return self.outer.out_features

    def project(self, features: Tensor, attributes: Tensor) -> Tensor:
        """Knowledge vectors `(clips, hidden_size)` from tower features `(clips, width)` and attribute features."""
        parts = [self.norm(features), attributes] if self.use_attributes else [self.norm(features)]
        joined = torch.cat(parts, dim=-1)
        vectors = self.outer(joined if self.inner is None else functional.gelu(self.inner(joined)))
        if self.longest is None:
            return vectors
        return vectors / (1.0 + vectors.square().sum(dim=-1, keepdim=True) / self.longest**2).sqrt()

    @torch.no_grad()
    def encode(self, heard: Sequence[np.ndarray], attributes: Sequence[Attributes]) -> np.ndarray:
        """Knowledge vectors `(clips, hidden_size)` float32 of what the audio encoder hears and what was measured."""
        features = self.tower.encode(heard)
        device = self.outer.weight.device
        measured = torch.from_numpy(attribute_features(attributes)).to(device)
        return self.project(features.to(device), measured).float().cpu().numpy()


def masked_lm_head(language_model: Any) -> Callable[[Tensor], Tensor]:
    """The part of a masked language model from hidden states to logits, so that it can run at the masks alone.

    Raises
    ------
    InputError
        The model's head is of no known form.
    """
    for name in ("cls", "lm_head"):  # BERT, DeBERTa; RoBERTa, XLM-R, Camembert
        head = getattr(language_model, name, None)
        if isinstance(head, nn.Module) and not isinstance(head, nn.Linear):
            return head
    if hasattr(language_model, "head") and hasattr(language_model, "decoder"):  # ModernBERT
        return lambda hidden: language_model.decoder(language_model.head(hidden))
    if hasattr(language_model, "vocab_transform"):  # DistilBERT
        return lambda hidden: language_model.vocab_projector(
            language_model.vocab_layer_norm(language_model.activation(language_model.vocab_transform(hidden)))
        )
    raise InputError(
        f"{type(language_model).__name__} has no masked-LM head that is known; give a BERT, RoBERTa, DeBERTa,"
        " ModernBERT or DistilBERT"
    )


def head_parameters(language_model: nn.Module) -> dict[str, nn.Parameter]:
    """The masked-LM head of a BERT by name, without the decoder, which is tied to the word embeddings."""
    return {
        name: parameter
        for name, parameter in language_model.named_parameters()
        if name.startswith("cls.predictions.") and "decoder" not in name
    }


class AudioBertForMaskedLM(nn.Module):
    """A masked language model that takes knowledge vectors at the first token of each span.

    The language model comes with its adapters; which of them are on is the caller's business (`audiobert.adapters`).
    Positions, token types and LayerNorm are applied once: what is injected goes into the word embeddings, before the
    model's own embedding layer adds the rest.
    """

    def __init__(self, language_model: PreTrainedModel, settings: InjectionSettings) -> None:
        super().__init__()
        self.language_model = language_model
        self.settings = settings
        hidden_size = language_model.config.hidden_size
        self.score_sharpness = nn.Parameter(torch.tensor(10.0))
        self.gate_slope = nn.Parameter(torch.tensor(4.0))
        self.gate_offset = nn.Parameter(torch.tensor(0.3))
        self.span_scorer = SpanScorer(hidden_size, hears=settings.comparison_hears) if settings.comparison else None
        if settings.comparison:
            output_size = language_model.get_output_embeddings().weight.shape[1]
            self.comparison_direction = nn.Parameter(torch.zeros(output_size))
        self.word_scorer = WordScorer(hidden_size, len(settings.lexicon)) if settings.lexicon else None

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters beside the language model's, by name."""
        return {k: p for k, p in self.named_parameters() if not k.startswith("language_model.")}

    def pooled_knowledge(self, injection: Injection) -> Tensor:
        """One knowledge vector a span, `(rows, spans, hidden_size)`: the clips' weighted mean, times the gate."""
        assert injection.knowledge is not None and injection.scores is not None
        weights = (injection.scores * self.score_sharpness).softmax(dim=-1)  # (rows, spans, clips)
        pooled = (weights.unsqueeze(-1) * injection.knowledge).sum(dim=2)
        if self.settings.gate:
            best = injection.scores.amax(dim=-1, keepdim=True)
            pooled = pooled * torch.sigmoid(self.gate_slope * (best - self.gate_offset))
        return pooled

    def embeddings(self, input_ids: Tensor, injection: Injection | None) -> Tensor:
        """Word embeddings `(rows, tokens, hidden_size)` with knowledge at the spans' first tokens."""
        words = self.language_model.get_input_embeddings()(input_ids)
        if injection is None or injection.knowledge is None:
            return words
        rows, spans = (injection.starts >= 0).nonzero(as_tuple=True)
        knowledge = self.pooled_knowledge(injection)[rows, spans].to(words.dtype)
        at = injection.starts[rows, spans]
        if self.settings.mode == "replace":
            return words.index_put((rows, at), knowledge)
        return words.index_put((rows, at), knowledge, accumulate=True)

    def point(self, higher: int, lower: int) -> None:
        """Let the comparison speak for one word against another at first, by their token ids: one logit a score."""
        output = self.language_model.get_output_embeddings().weight.detach()
        apart = (output[higher] - output[lower]).float()
        self.comparison_direction.data.copy_(apart / apart.dot(apart))

    def span_scores(self, words: TextFeatures, knowledge: Tensor | None) -> Tensor:
        """Deep and wide scores `(..., 2)` of spans; `knowledge` is pooled, `(..., hidden_size)`."""
        assert self.span_scorer is not None
        return self.span_scorer(words.sentence_vectors, knowledge, words.ngrams)

    def compared(self, injection: Injection, masks: Tensor) -> Tensor:
        """How much higher than its counterpart is what stands before the first mask, `(rows,)`.

        Several spans on one side speak by their mean; where all are on one side, the first is compared with the rest.
        Zero where there are fewer than two spans.
        """
        if injection.words is None or injection.starts.shape[1] < 2:
            return torch.zeros(len(injection.starts), device=injection.starts.device)
        hears = injection.knowledge is not None and self.settings.comparison_hears
        knowledge = self.pooled_knowledge(injection) if hears else None
        scores = self.span_scores(injection.words, knowledge).mean(dim=-1)  # (rows, spans)
        there = injection.starts >= 0
        before = there & (injection.starts < masks.int().argmax(dim=1, keepdim=True))
        one_sided = (before == there).all(dim=1, keepdim=True) | ~before.any(dim=1, keepdim=True)
        first = there & (there.cumsum(dim=1) == 1)
        before = torch.where(one_sided, first, before)
        sides = [(scores * side).sum(dim=1) / side.sum(dim=1).clamp(min=1) for side in (before, there & ~before)]
        return torch.where(there.sum(dim=1) > 1, sides[0] - sides[1], torch.zeros_like(sides[0]))

    def mask_hidden(
        self, input_ids: Tensor, attention_mask: Tensor, masks: Tensor, injection: Injection | None = None
    ) -> Tensor:
        """Hidden states `(masks, hidden_size)` at the positions where `masks` (rows, tokens) is true."""
        encoder = self.language_model.base_model
        if injection is None:
            return encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[masks]
        embeddings = self.embeddings(input_ids, injection)
        return encoder(inputs_embeds=embeddings, attention_mask=attention_mask).last_hidden_state[masks]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, masks: Tensor, injection: Injection | None = None
    ) -> Tensor:
        """Logits `(masks, vocabulary)` at the marked tokens, row by row from left to right.

        Parameters
        ----------
        input_ids, attention_mask : Tensor
            `(rows, tokens)`.
        masks : Tensor
            `(rows, tokens)` bool, where to predict.
        injection : Injection, optional
            Without it this is the language model as it is.
        """
        logits = masked_lm_head(self.language_model)(self.mask_hidden(input_ids, attention_mask, masks, injection))
        if injection is None or injection.words is None or not self.settings.comparison:
            return logits
        words = self.language_model.get_output_embeddings().weight.float() @ self.comparison_direction.float()
        # The span scorer learns from its own loss (`comparison_loss`), not from the language model's.
        difference = self.compared(injection, masks).detach()[masks.nonzero(as_tuple=True)[0]]
        return logits + difference.unsqueeze(-1) * words
