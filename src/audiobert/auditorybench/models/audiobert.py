"""AudioBERT itself: with the spans that it detects, with the row's own (gold) spans, or with its audio off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from audiobert.auditorybench.align import MASK
from audiobert.auditorybench.models.masked import Vocabulary
from audiobert.auditorybench.protocol import Evidence, MaskBatch, MaskQuery, Prediction, ProtocolName, score_masked
from audiobert.auditorybench.questions import Question

if TYPE_CHECKING:
    from audiobert.pipeline import AudioBert

Spans = Literal["detected", "gold"]
BATCH_SIZE = 64


class AudioBertModel:
    """An adapter for `audiobert.pipeline.AudioBert`.

    Spans are found once, in the sentence as a user writes it, with one mask; the text with as many masks as the
    protocol wants is then scored with these spans.
    """

    kind = "audiobert"

    def __init__(
        self,
        pipeline: AudioBert,
        name: str,
        *,
        audio: bool = True,
        spans: Spans = "detected",
        batch_size: int = BATCH_SIZE,
        artefacts: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.pipeline = pipeline
        self.audio = audio
        self.span_source = spans
        self.batch_size = batch_size
        self.artefacts = {"audio": audio, "spans": spans, **(artefacts or {})}
        self.vocabulary = Vocabulary(pipeline.tokenizer, name)
        self.pieces = self.vocabulary.pieces
        self.variants = self.vocabulary.variants
        self.decode = self.vocabulary.decode
        self._spans: dict[str, list[tuple[int, int]]] = {}

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        audio: bool = True,
        spans: Spans = "detected",
        bank: str | None = None,
        device: str | None = None,
        batch_size: int = BATCH_SIZE,
        label: str | None = None,
    ) -> AudioBertModel:
        from audiobert.pipeline import AudioBert

        pipeline = AudioBert.from_pretrained(name, bank=bank, device=device)
        artefacts = pipeline.describe()
        return cls(pipeline, label or name, audio=audio, spans=spans, batch_size=batch_size, artefacts=artefacts)

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        yield from score_masked(self, questions, protocol)

    def _find_spans(self, questions: Sequence[Question]) -> None:
        for question in questions:
            if self.span_source == "gold":
                self._spans[question.text] = list(question.span_offsets)
        texts = list(dict.fromkeys(question.text for question in questions if question.text not in self._spans))
        if texts:
            for text, spans in zip(texts, self.pipeline.detect(texts), strict=True):
                self._spans[text] = [(span.start, span.end) for span in spans]

    def _masked_text(self, query: MaskQuery) -> tuple[str, list[tuple[int, int]]]:
        """The text with the query's pieces and masks in the mask's place, and the spans where they now stand."""
        question = query.question
        mask = self.pipeline.mask_token
        known = [self.decode(query.known)] if query.known else []
        inserted = " ".join([*known, *[mask] * query.masks])
        at, end = len(question.before), len(question.before) + len(MASK)
        shift = len(inserted) - len(MASK)
        spans = []
        for start, stop in self._spans[question.text]:
            if stop <= at:
                spans.append((start, stop))
            elif start >= end:
                spans.append((start + shift, stop + shift))
            else:  # a span over the mask grows with it
                spans.append((min(start, at), stop + shift))
        return question.before + inserted + question.after, spans

    def mask_logits(self, queries: Sequence[MaskQuery]) -> Iterator[MaskBatch]:
        """Log-probabilities at the masks, in batches sorted by length."""
        import torch

        if self.audio:
            self._find_spans([query.question for query in queries])
        else:
            self._spans.update({query.question.text: [] for query in queries})
        prepared = [self._masked_text(query) for query in queries]
        order = sorted(range(len(queries)), key=lambda i: -len(prepared[i][0]))
        for at in range(0, len(order), self.batch_size):
            part = order[at : at + self.batch_size]
            texts = [prepared[i][0] for i in part]
            spans = [prepared[i][1] for i in part] if self.audio else None
            begun = [bool(queries[i].known) for i in part]
            scored = self.pipeline.score_masks(
                texts, audio=self.audio, spans=spans, batch_size=self.batch_size, begun=begun
            )
            logits = torch.cat([scores.log_probs[: queries[i].read] for i, scores in zip(part, scored, strict=True)])
            yield MaskBatch(
                part, logits.float(), [self._evidence(queries[i], s) for i, s in zip(part, scored, strict=True)]
            )

    def _evidence(self, query: MaskQuery, scores: Any) -> Evidence:
        """What was used, with the spans where they stand in the row's own text."""
        question = query.question
        spans = [
            {"text": question.text[start:end], "start": start, "end": end} for start, end in self._spans[question.text]
        ]
        clips = [str(hit.clip.id) for span in scores.spans for hit in (getattr(span, "clips", None) or [])]
        return Evidence(bool(scores.auditory), spans, clips)
