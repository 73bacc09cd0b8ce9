"""Adapt AudioBERT to the benchmark: detected or gold spans; with sound, other clips, unheard, or switched off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from audiobert.auditorybench.models.causal import MAX_NEW_TOKENS, answers_behind, first_line, prompt_of
from audiobert.auditorybench.models.masked import Vocabulary
from audiobert.auditorybench.protocol import (
    Evidence,
    MaskBatch,
    MaskQuery,
    Prediction,
    ProtocolName,
    score_continuations,
    score_masked,
)
from audiobert.auditorybench.pseudo_likelihood import QUESTIONS_AT_ONCE
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError

if TYPE_CHECKING:
    from audiobert.answers import AuditorySpan, Hit
    from audiobert.auditorybench.models.other_clips import AnswerClips
    from audiobert.continuations import Prompts
    from audiobert.pipeline import AudioBert
    from audiobert.prediction import Sound

Spans = Literal["detected", "gold"]
Clips = Literal["retrieved", "random", "shuffled", "answer"]
BATCH_SIZE = 64


class AudioBertModel:
    """An adapter for `audiobert.pipeline.AudioBert`, saved or still in training.

    Spans are found once, in the sentence as a user writes it, with one mask; the text with as many masks as the
    protocol wants is then scored with these spans. A causal language model gets the task's prompt, in which the spans
    are where the sentence is, or with `chat` its words for a chat inside the model's chat template. Instead of what is
    retrieved, `hits` may give the clips of each span of each question, by the question's row; clips with the ids
    `exclude` are not retrieved.
    """

    kind = "audiobert"

    def __init__(
        self,
        pipeline: AudioBert,
        name: str,
        *,
        sound: Sound = "on",
        spans: Spans = "detected",
        batch_size: int = BATCH_SIZE,
        exclude: Sequence[str] | None = None,
        hits: Sequence[Sequence[tuple[Hit, ...]]] | None = None,
        chat: bool = False,
        artefacts: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.pipeline, self.sound, self.span_source = name, pipeline, sound, spans
        self.exclude, self.hits, self.chat = exclude, hits, chat
        self.batch_size = batch_size
        self.artefacts = {"sound": sound, "spans": spans, "chat": chat, **(artefacts or {})}
        if chat and not pipeline.causal:
            raise InputError(f"'{name}' has a masked language model, which has no chat template; run without --chat")
        if not pipeline.causal:
            vocabulary = Vocabulary(pipeline.tokenizer, name)
            self.pieces, self.variants, self.decode = vocabulary.pieces, vocabulary.variants, vocabulary.decode
        self._spans: dict[str, list[tuple[int, int]]] = {}
        self._answer_clips: AnswerClips | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        sound: Sound = "on",
        spans: Spans = "detected",
        bank: str | None = None,
        device: str | None = None,
        batch_size: int = BATCH_SIZE,
        label: str | None = None,
        chat: bool = False,
        clips: Clips = "retrieved",
        retrieval: Mapping[str, Any] | None = None,
    ) -> AudioBertModel:
        """Load a model by the name of a preset or folder; `bank` is searched instead of its own.

        `clips` gives spans other clips than those retrieved, `retrieval` changes settings of the retrieval.
        """
        from audiobert.auditorybench.models.other_clips import AnswerClips, OtherClips, changed_retriever
        from audiobert.pipeline import AudioBert

        pipeline = AudioBert.from_pretrained(name, bank=bank, only_bank=bank is not None, device=device)
        pipeline.retriever = changed_retriever(pipeline.retriever, retrieval or {})
        if clips in ("random", "shuffled"):
            pipeline.retriever = OtherClips(pipeline.retriever, clips)
        artefacts = {**pipeline.describe(), "clips": clips, "retrieval": pipeline.retriever.settings.model_dump()}
        model = cls(
            pipeline, label or name, sound=sound, spans=spans, batch_size=batch_size, chat=chat, artefacts=artefacts
        )
        if clips == "answer":
            model._answer_clips = AnswerClips(pipeline.retriever)
        return model

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        """Answer all questions; yield (position, prediction) in any order."""
        if not self.pipeline.causal:
            yield from score_masked(self, questions, protocol)
            return
        for start in range(0, len(questions), QUESTIONS_AT_ONCE):
            some = questions[start : start + QUESTIONS_AT_ONCE]
            prompts, spans = self._prompts_with_spans(some)
            for index, prediction in score_continuations(_Asked(self, some, prompts, spans), some, protocol):
                evidence = self._evidence(some[index], spans[index])
                yield (
                    start + index,
                    replace(prediction, auditory=evidence.auditory, spans=evidence.spans, clips=evidence.clips),
                )

    def _prompts_with_spans(self, questions: Sequence[Question]) -> tuple[list[str], list[tuple[AuditorySpan, ...]]]:
        """Return the prompt of each question, and its spans where they stand there, with their clips."""
        self._find_spans(questions)
        pipeline, room = self.pipeline, self.pipeline.max_tokens - MAX_NEW_TOKENS
        prompts, places = [], []
        for question in questions:
            prompt, spans = prompt_of(
                pipeline.tokenizer, question, self._spans[question.text], room, chat=self.chat, name=self.name
            )
            prompts.append(prompt)
            places.append(spans)
        hits = [self._given(question) for question in questions]
        return prompts, pipeline.clips_of(prompts, places, hits, self.exclude)

    def _given(self, question: Question) -> Sequence[tuple[Hit, ...]] | None:
        """Return the clips that are given for each span of a question, None where they are retrieved."""
        if self.hits is not None:
            return self.hits[question.row]
        clips = None if self._answer_clips is None else self._answer_clips(question)
        return None if clips is None else [clips] * len(self._spans[question.text])

    def _find_spans(self, questions: Sequence[Question]) -> None:
        """Remember the spans of each sentence: none where sound is off, the row's own, or the detected ones."""
        for question in questions:
            if self.sound == "off":
                self._spans[question.text] = []
            elif self.span_source == "gold":
                self._spans[question.text] = list(question.span_offsets)
        texts = list(dict.fromkeys(question.text for question in questions if question.text not in self._spans))
        if texts:
            for text, spans in zip(texts, self.pipeline.detect(texts), strict=True):
                self._spans[text] = [(span.start, span.end) for span in spans]

    def _masked_text(self, query: MaskQuery) -> tuple[str, list[tuple[int, int]]]:
        """Return the text with the query's pieces and masks in the mask's place, and the spans where they now stand."""
        from audiobert.sentence import fill_mask

        known = [self.decode(query.known)] if query.known else []
        inserted = " ".join([*known, *[self.pipeline.mask_token] * query.masks])
        return fill_mask(query.question.text, self._spans[query.question.text], inserted)

    def mask_logits(self, queries: Sequence[MaskQuery]) -> Iterator[MaskBatch]:
        """Yield log-probabilities at the masks, in batches sorted by length."""
        import torch

        self._find_spans([query.question for query in queries])
        prepared = [self._masked_text(query) for query in queries]
        order = sorted(range(len(queries)), key=lambda i: -len(prepared[i][0]))
        for at in range(0, len(order), self.batch_size):
            part = order[at : at + self.batch_size]
            scored = self.pipeline.score_masks(
                [prepared[i][0] for i in part],
                sound=self.sound,
                spans=[prepared[i][1] for i in part],
                hits=[self._given(queries[i].question) for i in part],
                batch_size=self.batch_size,
                exclude=self.exclude,
            )
            logits = torch.cat([scores.log_probs[: queries[i].read] for i, scores in zip(part, scored, strict=True)])
            yield MaskBatch(
                part,
                logits.float(),
                [self._evidence(queries[i].question, s.spans) for i, s in zip(part, scored, strict=True)],
            )

    def _evidence(self, question: Question, used: Sequence[AuditorySpan]) -> Evidence:
        """Return what was used, with the spans where they stand in the row's own text."""
        spans = [
            {"text": question.text[start:end], "start": start, "end": end} for start, end in self._spans[question.text]
        ]
        return Evidence(bool(used), spans, [str(hit.clip.id) for span in used for hit in span.clips])


class _Asked:
    """Some questions with the clips of their spans, as the protocols of a causal model take them."""

    def __init__(
        self,
        model: AudioBertModel,
        questions: Sequence[Question],
        prompts: Sequence[str],
        spans: Sequence[tuple[AuditorySpan, ...]],
    ) -> None:
        self._model = model
        self._known = {one: known for one, *known in zip(questions, prompts, spans, strict=True)}

    def _prompts(self, questions: Sequence[Question]) -> Prompts:
        model = self._model
        prompts, spans = zip(*(self._known[question] for question in questions), strict=True)
        return model.pipeline.prompts(prompts, spans, model.sound, chat=model.chat, batch_size=model.batch_size)

    def log_likelihoods(self, questions: Sequence[Question], words: Sequence[Sequence[str]]) -> list[list[float]]:
        return self._prompts(questions).log_likelihoods(answers_behind(words, chat=self._model.chat))

    def complete(self, questions: Sequence[Question]) -> list[str]:
        return [first_line(text) for text in self._prompts(questions).complete(MAX_NEW_TOKENS)]
