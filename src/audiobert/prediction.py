"""Predict the masks of sentences, or what follows a prompt, with the clips of the spans that are about sound."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from audiobert.answers import AuditorySpan, Hit, MaskScores
from audiobert.arguments import checked_count, checked_sounds, checked_texts
from audiobert.bank import AudioBank, check_identity
from audiobert.clip_encoder import ModelClipEncoder
from audiobert.continuations import Continuations, Prompts
from audiobert.errors import InputError
from audiobert.injection import NO_CLIP, SpanKnowledge
from audiobert.model_folder import ModelSettings
from audiobert.modeling import AudioBertForCausalLM, AudioBertForMaskedLM, with_injection
from audiobert.parts import Parts
from audiobert.prompts import read_blank
from audiobert.recordings import encode_recording
from audiobert.retrieve import Retriever
from audiobert.sentence import MASK, Offsets, Sentence, Span, encode_prompts, encode_texts, read_sentence

Sound = Literal["on", "unheard", "off"]
Recording = str | Path
Spans = Sequence[tuple[AuditorySpan, ...]]


class Predictor:
    """Base of `AudioBert`: from sentences to spans, from spans to clips, and with both to log-probabilities."""

    def __init__(
        self,
        parts: Parts,
        model: AudioBertForMaskedLM,
        clip_encoder: ModelClipEncoder,
        banks: Sequence[AudioBank],
        settings: ModelSettings,
        folder: Path | None = None,
        name: str = "",
    ) -> None:
        for bank in banks:
            check_identity(bank, clip_encoder.identity())
        self.parts, self.model, self.settings = parts, model.eval(), settings
        self.plain = with_injection(parts.language_model).eval()
        self.tokenizer, self.name = parts.tokenizer, name
        self._clip_encoder, self._folder = clip_encoder, folder
        self.retriever = Retriever(parts.clap, banks, settings.retrieval)
        encoder_limit = int(parts.language_model.config.max_position_embeddings)
        self.max_tokens = min(int(self.tokenizer.model_max_length), encoder_limit)

    @property
    def causal(self) -> bool:
        """Whether the language model predicts what follows, not what is masked."""
        return isinstance(self.plain, AudioBertForCausalLM)

    @property
    def mask_token(self) -> str:
        """How the language model spells a mask; `[MASK]` is understood as well."""
        return str(self.tokenizer.mask_token or MASK)

    def score_masks(
        self,
        texts: Sequence[str],
        *,
        sound: Sound = "on",
        spans: Sequence[Sequence[Offsets]] | None = None,
        hits: Sequence[Sequence[tuple[Hit, ...]] | None] | None = None,
        batch_size: int = 64,
        exclude: Iterable[str] | None = None,
    ) -> list[MaskScores]:
        """Return log-probabilities of the whole vocabulary at every mask, for evaluation.

        Parameters
        ----------
        sound : str
            `on`; `unheard`: LoRA on, no knowledge; `off`: the plain language model.
        spans : sequence of sequences of (int, int), optional
            Character spans of each text instead of the detected ones; an empty sequence switches that text off.
        hits : sequence of sequences of tuples of Hit, optional
            The clips of each of these spans, instead of what is retrieved; None for a text whose clips are retrieved.
        exclude : iterable of str, optional
            Ids of clips that retrieval must not use.
        """
        if sound not in get_args(Sound):
            raise InputError(f"sound is {sound!r}; give {', '.join(get_args(Sound))}")
        sentences = self._read(checked_texts(texts))
        found: Spans = [()] * len(sentences)
        if sound != "off":
            chosen = self._detected(sentences) if spans is None else _given_spans(sentences, spans, hits)
            found = self._with_clips(chosen, exclude=exclude)
        scored = self._predict(sentences, found, sound, base=False, batch_size=batch_size)
        return [
            MaskScores(log_probs, bool(own), in_original(sentence, own))
            for sentence, own, (log_probs, _) in zip(sentences, found, scored, strict=True)
        ]

    def prompts(
        self, texts: Sequence[str], spans: Spans, sound: Sound = "on", *, chat: bool = False, batch_size: int = 32
    ) -> Prompts:
        """Return prompts of a causal language model with the clips of their spans, to be scored or completed."""
        name = self.name or self.parts.identity.name
        plain, with_sound = (
            Continuations(model, self.tokenizer, name, self.max_tokens, batch_size, special=not chat)  # type: ignore[arg-type]
            for model in (self.plain, self.model)
        )

        def knowledge(starts: Tensor, rows: Sequence[int]) -> SpanKnowledge:
            return self._knowledge(starts, [spans[row] for row in rows])

        return Prompts(plain, with_sound, texts, self._places(texts, spans), knowledge if sound == "on" else None)

    def clips_of(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Offsets]],
        hits: Sequence[Sequence[tuple[Hit, ...]] | None] | None = None,
        exclude: Iterable[str] | None = None,
    ) -> list[tuple[AuditorySpan, ...]]:
        """Return given character spans of texts with their clips: those in `hits`, or what is retrieved."""
        whole = [Sentence(text, text, ((0, 0, len(text)),), 0) for text in texts]
        return self._with_clips(_given_spans(whole, spans, hits), exclude=exclude)

    # --- spans and their clips ----------------------------------------------------------------------------------------

    def _read(self, texts: Sequence[str]) -> list[Sentence]:
        """Find the masks of texts; the one mask of each makes it a prompt for a causal language model."""
        read = read_blank if self.causal else read_sentence
        return [read(self.tokenizer, text, self.max_tokens) for text in texts]

    def _auditory_spans(
        self, sentences: Sequence[Sentence], sounds: Mapping[str, Recording] | None, clips: int | None, *, audio: bool
    ) -> list[tuple[AuditorySpan, ...]]:
        """Return the spans of each sentence with their clips or the recordings given for them; none without audio."""
        if clips is not None:
            checked_count("clips_per_span", clips)
        files = checked_sounds(sounds)
        recordings = {piece: encode_recording(self._clip_encoder, file)[0] for piece, file in files.items()}
        if not audio:
            return [()] * len(sentences)
        return self._with_clips(self._detected(sentences, recordings), clips)

    def _detected(
        self, sentences: Sequence[Sentence], recordings: Mapping[str, Hit] | None = None
    ) -> list[Sequence[Span]]:
        """Return the detected spans of each sentence; a piece with a recording of its own is one, too.

        What a prompt puts around a user's words is no part of what is searched.
        """
        read = [sentence.original if self.causal else sentence.text for sentence in sentences]
        found: list[Sequence[Span]] = []
        for sentence, text, spans in zip(sentences, read, self.parts.detector.detect(read), strict=True):
            given = [_span_of_piece(text, self.mask_token, piece, hit) for piece, hit in (recordings or {}).items()]
            rest = [span for span in spans if all(span.end <= g.start or span.start >= g.end for g in given)]
            ordered = sorted([*given, *rest], key=lambda span: span.start)
            found.append([_moved(sentence, span) for span in ordered] if self.causal else ordered)
        return found

    def _with_clips(
        self, spans: Sequence[Sequence[Span]], clips: int | None = None, exclude: Iterable[str] | None = None
    ) -> list[tuple[AuditorySpan, ...]]:
        """Retrieve the clips of the spans that have none yet."""
        texts = sorted({span.text for row in spans for span in row if not isinstance(span, AuditorySpan)})
        results = self.retriever.find(texts, clips, exclude=exclude) if texts else []
        found = dict(zip(texts, results, strict=True))

        def with_clips(span: Span) -> AuditorySpan:
            if isinstance(span, AuditorySpan):
                return span
            known = found[span.text]
            return AuditorySpan(span.text, span.start, span.end, span.score, known.hits, known.relatives)

        return [tuple(map(with_clips, row)) for row in spans]

    # --- passes of the language model ---------------------------------------------------------------------------------

    def _predict(
        self, sentences: Sequence[Sentence], spans: Spans, sound: Sound, *, base: bool, batch_size: int = 64
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Return log-probabilities `(masks, vocabulary)` per sentence, and those of the plain language model.

        A sentence with spans is predicted with LoRA and knowledge; with `base` by the plain language model as well.
        """
        order = sorted(range(len(sentences)), key=lambda row: len(sentences[row].text))
        result: dict[int, tuple[Tensor, Tensor | None]] = {}
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            scored = self._forward([sentences[i] for i in members], [spans[i] for i in members], sound, base=base)
            result |= zip(members, scored, strict=True)
        return [result[row] for row in range(len(sentences))]

    @torch.inference_mode()
    def _forward(
        self, sentences: Sequence[Sentence], spans: Spans, sound: Sound, *, base: bool
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Run one batch; a sentence without spans passes the plain language model alone."""
        encode = encode_prompts if self.causal else encode_texts
        texts = [sentence.text for sentence in sentences]
        inputs = encode(self.tokenizer, texts, self._places(texts, spans)).to(self.parts.language_model.device)
        plain_rows = [row for row, own in enumerate(spans) if base or not own]
        sound_rows = [row for row, own in enumerate(spans) if own]
        knowledge = None
        if sound == "on" and sound_rows:
            knowledge = self._knowledge(inputs.starts[sound_rows], [spans[row] for row in sound_rows])
        passes = [
            (model, (inputs.input_ids[rows], inputs.attention_mask[rows], inputs.masks[rows], known))
            for model, rows, known in ((self.plain, plain_rows, None), (self.model, sound_rows, knowledge))
            if rows
        ]
        log_probs = self._logits(passes).float().log_softmax(dim=-1).cpu()
        of_rows = log_probs.split([sentences[row].masks for row in (*plain_rows, *sound_rows)])
        plain = dict(zip(plain_rows, of_rows[: len(plain_rows)], strict=True))
        with_sound = dict(zip(sound_rows, of_rows[len(plain_rows) :], strict=True))
        return [(with_sound[row] if own else plain[row], plain.get(row)) for row, own in enumerate(spans)]

    def _logits(self, passes: Sequence[tuple[AudioBertForMaskedLM, tuple[Any, ...]]]) -> Tensor:
        """Compute the logits `(masks, vocabulary)` of passes of the language model without and with its LoRA.

        A LoRA leaves a masked language model's head as it is, so that one product serves both: it reads the weights of
        the whole vocabulary.
        """
        if self.causal:
            return torch.cat([model(*given) for model, given in passes])
        return self.plain.head(torch.cat([model.states(*given) for model, given in passes]))

    def _places(self, texts: Sequence[str], spans: Spans) -> list[list[Offsets]]:
        """Return where the knowledge of each span goes in, per text."""
        places = self.settings.injection.places
        return [places(text, [(s.start, s.end) for s in row]) for text, row in zip(texts, spans, strict=True)]

    def _knowledge(self, starts: Tensor, spans: Spans) -> SpanKnowledge:
        """Gather what is known of a batch's spans: knowledge vectors and scores of their clips, and their relatives."""
        clips = max(len(span.clips) for row in spans for span in row)
        vectors = np.zeros((*starts.shape, clips, self._clip_encoder.hidden_size), np.float32)
        scores = np.full((*starts.shape, clips), NO_CLIP, np.float32)
        relatives = np.zeros((*starts.shape, self._clip_encoder.hidden_size), np.float32)
        weights = np.zeros(starts.shape, np.float32)
        for row, row_spans in enumerate(spans):
            for column, span in enumerate(row_spans):
                if span.relatives is not None:
                    relatives[row, column] = span.relatives.vector
                    weights[row, column] = span.relatives.weight
                for place, hit in enumerate(span.clips):
                    if hit.knowledge is not None:
                        vectors[row, column, place] = hit.knowledge
                        scores[row, column, place] = hit.score
        tensors = (torch.from_numpy(one).to(starts.device) for one in (vectors, scores, relatives, weights))
        return SpanKnowledge(starts, *tensors)


def in_original(sentence: Sentence, spans: Sequence[AuditorySpan]) -> tuple[AuditorySpan, ...]:
    """Return spans where they stand in the text as it was given."""
    moved = []
    for span in spans:
        start, end = sentence.to_original(span.start, span.end)
        moved.append(replace(span, text=sentence.original[start:end], start=start, end=end))
    return tuple(moved)


def _given_spans(
    sentences: Sequence[Sentence],
    spans: Sequence[Sequence[Offsets]],
    hits: Sequence[Sequence[tuple[Hit, ...]] | None] | None,
) -> list[list[Span]]:
    """Return spans given by their offsets in the original texts, in the order of the text, with clips if given."""
    found: list[list[Span]] = []
    for row, (sentence, offsets) in enumerate(zip(sentences, spans, strict=True)):
        clips = None if hits is None else hits[row]
        own: list[Span] = []
        for place, span in enumerate(offsets):
            start, end = sentence.to_text(*span)
            text = sentence.text[start:end]
            if text:
                own.append(
                    Span(text, start, end) if clips is None else AuditorySpan(text, start, end, 1.0, clips[place])
                )
        found.append(sorted(own, key=lambda one: one.start))
    return found


def _moved(sentence: Sentence, span: Span) -> Span:
    """Return a span of the user's words where it stands in the prompt."""
    start, end = sentence.to_text(span.start, span.end)
    return replace(span, start=start, end=end)


def _span_of_piece(read: str, mask_token: str, piece: str, hit: Hit) -> AuditorySpan:
    """Return the first place of a piece of text as a span whose clip is a given recording.

    Whole words come before pieces of words; the letters of a mask are no words.
    """
    text = read.replace(mask_token, "\0" * len(mask_token))
    words = re.search(rf"(?<!\w){re.escape(piece)}(?!\w)", text) if piece else None
    at = words.start() if words else (text.find(piece) if piece else -1)
    if at < 0:
        raise InputError(f"{piece!r} is not in the text {read[:60]!r}; give a recording for words that stand there")
    return AuditorySpan(piece, at, at + len(piece), 1.0, (hit,))
