"""`AudioBert`: the one object a user holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiobert.adapters import AUDIO, LANGUAGE, LoraSettings, copy_tensors
from audiobert.answers import AuditorySpan, FillMask, Hit, MaskPredictions, MaskScores, Prediction
from audiobert.artefacts import whole_folder
from audiobert.bank import AudioBank, check_identity
from audiobert.clip_encoder import ModelClipEncoder, Precision
from audiobert.errors import InputError
from audiobert.inputs import Offsets, Prepared, encode_texts, prepare
from audiobert.missing_word import Lexicon, blank_sentence, join_rows
from audiobert.modeling import AudioBertForMaskedLM, Injection, InjectionSettings
from audiobert.parts import (
    BANK_FOLDER,
    Parts,
    encoder_identity,
    load_part,
    load_parts,
    model_folder,
    new_audio_encoder,
    new_knowledge_encoder,
    part_of,
    trained_knowledge,
)
from audiobert.spans import Span
from audiobert.text_features import ScoredTexts, TextFeatures, sentence_vectors


class AudioBert:
    """A masked language model that looks up what things sound like.

    Use `from_pretrained`. One object may serve several threads; they take turns on the backbone.

    Attributes
    ----------
    tokenizer
        The language model's.
    bank : AudioBank
        The clips that spans are looked up in.

    Examples
    --------
    >>> model = AudioBert.from_pretrained("mini")                                  # doctest: +SKIP
    >>> answer = model.fill_mask("Meow is the sound a [MASK] makes.")              # doctest: +SKIP
    >>> answer.masks[0].predictions[0].token, answer.spans[0].clips[0].clip.caption  # doctest: +SKIP
    ('cat', 'a cat meowing')
    """

    def __init__(
        self,
        parts: Parts,
        model: AudioBertForMaskedLM,
        clip_encoder: ModelClipEncoder,
        bank: AudioBank,
        query: str = "{span}",
        folder: Path | None = None,
        name: str = "",
    ) -> None:
        check_identity(bank, clip_encoder.identity())
        self.parts, self.model, self.bank = parts, model.eval(), bank
        self.tokenizer = parts.tokenizer
        self.name = name
        self._clip_encoder, self._query, self._folder = clip_encoder, query, folder
        self._lexicon = Lexicon(model.settings.lexicon, parts.tokenizer)
        encoder_limit = int(parts.language_model.config.max_position_embeddings)
        self.max_tokens = min(int(self.tokenizer.model_max_length), encoder_limit)

    @classmethod
    def from_pretrained(
        cls, name: str = "mini", *, bank: str | Path | None = None, device: str | None = None
    ) -> AudioBert:
        """Load a model.

        Parameters
        ----------
        name : str
            `mini`, or a folder written by `save_pretrained` or by `audiobert train audiobert`.
        bank : str or Path, optional
            A bank to search instead of the one that comes with the model; it must have been built with this model.
        device : str, optional
            A torch device; by default the accelerator if there is one, else the CPU.

        Raises
        ------
        ArtefactError
            A part or the bank is missing, damaged, or belongs to another model.
        """
        folder = model_folder(name)
        parts, model, clip_encoder = load_model(folder, device)
        opened = AudioBank.open(bank if bank is not None else folder / BANK_FOLDER)
        query = parts.records["audiobert"]["settings"]["query"]
        return cls(parts, model, clip_encoder, opened, query, folder, name)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model with its bank's vectors and metadata into a folder that `from_pretrained` takes."""
        assert self._folder is not None
        with whole_folder(folder) as part:
            for file in sorted(self._folder.iterdir()):
                if file.is_file() and file.suffix in (".json", ".safetensors"):
                    shutil.copyfile(file, part / file.name)
            shutil.copytree(self.bank.folder, part / BANK_FOLDER)

    @property
    def mask_token(self) -> str:
        """How the language model spells a mask; `[MASK]` is understood as well."""
        return str(self.tokenizer.mask_token)

    def clip_encoder(self) -> ModelClipEncoder:
        """What turns clips into vectors for a bank of this model."""
        return self._clip_encoder

    def describe(self) -> dict[str, Any]:
        """What the model is made of: backbone, parts with their checksums, bank."""
        return {
            "name": self.name,
            "backbone": self.parts.identity.to_json(),
            "parts": {name: record["sha256"] for name, record in self.parts.records.items()},
            "bank": {"clips": len(self.bank), "identity": self.bank.identity},
        }

    def detect(self, texts: Any) -> Any:
        """The spans that are about sound, in the order of the text.

        Parameters
        ----------
        texts : str or sequence of str

        Returns
        -------
        list of Span, or list of list of Span for a sequence
        """
        if isinstance(texts, str):
            return self.parts.detector.detect([texts])[0]
        return self.parts.detector.detect(texts)

    def search(self, query: str, top_k: int = 10, **filters: Any) -> list[Hit]:
        """The clips whose sound fits the words best.

        Parameters
        ----------
        query : str
            Words for a sound.
        top_k : int
            How many clips.
        **filters
            Whatever `AudioBank.search` takes: `exclude`, licences, sources, durations.
        """
        scores, indices = self.bank.search(self.parts.clap.embed_text([query]), top_k, **filters)
        return self._hits(indices[0], scores[0])

    def _hits(self, rows: np.ndarray, scores: np.ndarray) -> list[Hit]:
        """Clips by their rows in the bank; -1 fills up where fewer were found."""
        return [
            Hit(self.bank.clip(row), float(score), int(row))
            for row, score in zip(rows, scores, strict=True)
            if row >= 0
        ]

    def fill_mask(
        self,
        texts: Any,
        *,
        top_k: int = 5,
        audio: bool = True,
        clips_per_span: int | None = None,
    ) -> Any:
        """Predict the masks of one text or several, with sound and without.

        Where no span is found, or with `audio=False`, the predictions are those of the plain language model, to the
        last bit. A text longer than the model's window is cut around its masks.

        Parameters
        ----------
        texts : str or sequence of str
            With `[MASK]` once or more.
        top_k : int
            Predictions a mask.
        audio : bool
            False leaves out detector, retrieval, injection and LoRA.
        clips_per_span : int, optional
            Clips that speak for a span; by default as many as in training.

        Returns
        -------
        FillMask, or list of FillMask for a sequence

        Raises
        ------
        InputError
            A text is empty or has no mask, or `top_k` is not between 1 and the size of the vocabulary.
        """
        vocabulary = int(self.parts.language_model.config.vocab_size)
        if not 1 <= top_k <= vocabulary:
            raise InputError(f"top_k is {top_k}; give a number from 1 to {vocabulary:,}")
        if clips_per_span is not None and clips_per_span < 1:
            raise InputError(f"clips_per_span is {clips_per_span}; give 1 or more, or switch audio off")
        single = isinstance(texts, str)
        given: Sequence[str] = [texts] if single else texts
        prepared = [prepare(self.tokenizer, text, self.max_tokens) for text in given]
        spans = self._look_up(prepared, None, clips_per_span, None) if audio else [()] * len(prepared)
        answers = []
        base = self._plain(prepared, 64)
        heard = self._auditory(prepared, spans, 64)
        for row, (text, row_spans) in enumerate(zip(prepared, spans, strict=True)):
            plain = self._best(base[row], top_k)
            best = self._best(heard[row], top_k) if row in heard else plain
            masks = tuple(MaskPredictions(p, b) for p, b in zip(best, plain, strict=True))
            answers.append(FillMask(text.original, bool(row_spans), self._in_original(text, row_spans), masks))
        return answers[0] if single else answers

    def score_masks(
        self,
        texts: Sequence[str],
        *,
        audio: bool = True,
        spans: Sequence[Sequence[Offsets]] | None = None,
        batch_size: int = 64,
        exclude: Iterable[str] | None = None,
        begun: Sequence[bool] | None = None,
    ) -> list[MaskScores]:
        """Log-probabilities of the whole vocabulary at every mask, for evaluation.

        Parameters
        ----------
        spans : sequence of sequences of (int, int), optional
            Character spans of each text instead of the detected ones; an empty sequence switches that text off.
        exclude : iterable of str, optional
            Ids of clips that retrieval must not use.
        begun : sequence of bool, optional
            Texts whose masks complete a word that has begun before them: the word scorer, which knows whole words, is
            not asked there.
        """
        prepared = [prepare(self.tokenizer, text, self.max_tokens) for text in texts]
        found = self._look_up(prepared, spans, None, exclude) if audio else [()] * len(prepared)
        heard = self._auditory(prepared, found, batch_size, begun)
        silent = [row for row in range(len(prepared)) if row not in heard]
        base = dict(zip(silent, self._plain([prepared[row] for row in silent], batch_size), strict=True))
        return [
            MaskScores(heard[row] if row in heard else base[row], row in heard, self._in_original(text, found[row]))
            for row, text in enumerate(prepared)
        ]

    def _look_up(
        self,
        prepared: Sequence[Prepared],
        spans: Sequence[Sequence[Offsets]] | None,
        clips_per_span: int | None,
        exclude: Iterable[str] | None,
    ) -> list[tuple[AuditorySpan, ...]]:
        """Spans of the prepared texts, detected or given, with the clips of each."""
        if spans is None:
            found = self.parts.detector.detect([text.text for text in prepared])
        else:
            found = [
                [Span(p.text[a:b], a, b) for a, b in sorted(p.to_text(*span) for span in row) if b > a]
                for p, row in zip(prepared, spans, strict=True)
            ]
        distinct = sorted({span.text for row in found for span in row})
        if not distinct:
            return [()] * len(prepared)
        top_k = min(clips_per_span or self.model.settings.clips_per_span, len(self.bank))
        queries = self.parts.clap.embed_text([self._query.format(span=text) for text in distinct])
        scores, indices = self.bank.search(queries, top_k, exclude=exclude)
        hits = {
            text: tuple(self._hits(row, row_scores))
            for text, row, row_scores in zip(distinct, indices, scores, strict=True)
        }
        return [tuple(AuditorySpan(s.text, s.start, s.end, s.score, hits[s.text]) for s in row) for row in found]

    def _plain(self, prepared: Sequence[Prepared], batch_size: int) -> list[Tensor]:
        """Log-probabilities `(masks, vocabulary)` of the plain language model."""
        result: dict[int, Tensor] = {}
        order = sorted(range(len(prepared)), key=lambda row: len(prepared[row].text))
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            result |= self._forward(prepared, members, None)
        return [result[row] for row in range(len(prepared))]

    def _auditory(
        self,
        prepared: Sequence[Prepared],
        spans: Sequence[tuple[AuditorySpan, ...]],
        batch_size: int,
        begun: Sequence[bool] | None = None,
    ) -> dict[int, Tensor]:
        """Log-probabilities of the texts that have spans, by row: knowledge injected, LoRA on."""
        result: dict[int, Tensor] = {}
        order = sorted((row for row in range(len(prepared)) if spans[row]), key=lambda row: len(prepared[row].text))
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            heard = self._forward(prepared, members, [spans[row] for row in members])
            result |= self._with_words(prepared, heard, begun)
        return result

    @torch.no_grad()
    def _with_words(
        self, prepared: Sequence[Prepared], heard: dict[int, Tensor], begun: Sequence[bool] | None
    ) -> dict[int, Tensor]:
        """The same joined with what the word scorer says of the texts that ask for one whole word."""
        scorer = self.model.word_scorer
        rows = [row for row in heard if not (begun and begun[row])] if scorer is not None else []
        blanks = ((row, blank_sentence(prepared[row].text, self.mask_token)) for row in rows)
        sentences = {row: sentence for row, sentence in blanks if sentence is not None}
        if scorer is None or not sentences:
            return heard
        texts = self._scored_by(sentences.values()).of_texts(list(sentences.values()))
        return join_rows(scorer, self._lexicon, heard, list(sentences), texts.to(self.parts.language_model.device))

    @torch.no_grad()
    def _forward(
        self,
        prepared: Sequence[Prepared],
        members: Sequence[int],
        spans: Sequence[tuple[AuditorySpan, ...]] | None,
    ) -> dict[int, Tensor]:
        texts = [prepared[row].text for row in members]
        offsets = None if spans is None else [[(span.start, span.end) for span in row] for row in spans]
        inputs = encode_texts(self.tokenizer, texts, offsets).to(self.parts.language_model.device)
        injection = None if spans is None else self._injection(inputs.starts, inputs.ends, spans)
        with self.parts.adapters.on(*((LANGUAGE,) if spans is None else (LANGUAGE, AUDIO))):
            logits = self.model(inputs.input_ids, inputs.attention_mask, inputs.masks, injection)
        log_probs = logits.float().log_softmax(dim=-1).cpu()
        counts = [prepared[row].masks for row in members]
        return dict(zip(members, log_probs.split(counts), strict=True))

    def _injection(self, starts: Tensor, ends: Tensor, spans: Sequence[tuple[AuditorySpan, ...]]) -> Injection:
        width = starts.shape[1]
        clips = max(len(span.clips) for row in spans for span in row)
        hidden = self.bank.knowledge_vectors.shape[1]
        knowledge = np.zeros((len(spans), width, clips, hidden), dtype=np.float32)
        scores = np.full((len(spans), width, clips), -1e4, dtype=np.float32)
        for row, row_spans in enumerate(spans):
            for column, span in enumerate(row_spans):
                count = len(span.clips)
                knowledge[row, column, :count] = self.bank.knowledge_vectors[[hit.row for hit in span.clips]]
                scores[row, column, :count] = [hit.score for hit in span.clips]
        device = starts.device
        words = self._words([[span.text for span in row] for row in spans])
        return Injection(
            starts, ends, torch.from_numpy(knowledge).to(device), torch.from_numpy(scores).to(device), words
        )

    def _words(self, spans: Sequence[Sequence[str]]) -> TextFeatures | None:
        """What the spans of rows are scored by, where there are two to compare; None where no row has two."""
        rows = [row if len(row) > 1 else () for row in spans]
        if not self.model.settings.comparison or not any(rows):
            return None
        return self._scored_by(chain.from_iterable(rows)).of(rows).to(self.parts.language_model.device)

    def _scored_by(self, texts: Iterable[str]) -> ScoredTexts:
        """What spans and sentences are scored by."""
        names = sorted({text.lower() for text in texts})
        with self.parts.adapters.on():
            return ScoredTexts(names, sentence_vectors(self.parts.language_model.base_model, self.tokenizer, names))

    def _best(self, log_probs: Tensor, top_k: int) -> list[tuple[Prediction, ...]]:
        scores, ids = log_probs.exp().topk(top_k, dim=-1)
        return [
            tuple(
                Prediction(str(self.tokenizer.decode([token])).strip(), score)
                for token, score in zip(row_ids, row_scores, strict=True)
            )
            for row_ids, row_scores in zip(ids.tolist(), scores.tolist(), strict=True)
        ]

    @staticmethod
    def _in_original(prepared: Prepared, spans: Sequence[AuditorySpan]) -> tuple[AuditorySpan, ...]:
        moved = []
        for span in spans:
            start, end = prepared.to_original(span.start, span.end)
            moved.append(AuditorySpan(prepared.original[start:end], start, end, span.score, span.clips))
        return tuple(moved)


def load_model(folder: Path, device: str | None = None) -> tuple[Parts, AudioBertForMaskedLM, ModelClipEncoder]:
    """Load what a folder holds beside its bank: the parts, AudioBERT's own weights, and the audio side.

    Raises
    ------
    ArtefactError
        A part is missing or damaged.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    parts = load_parts(folder, device=chosen)
    weights, record = load_part(folder, "audiobert")
    settings = InjectionSettings(**record["injection"])
    parts.adapters.add(AUDIO, LoraSettings(**record["lora"]))
    parts.adapters.load(AUDIO, part_of(weights, "lora."))
    model = AudioBertForMaskedLM(parts.language_model, settings)
    where = str(folder / "audiobert.safetensors")
    copy_tensors(model.own_parameters(), part_of(weights, "model."), where)
    audio_encoder = new_audio_encoder(parts, pooling=record["settings"].get("pooling", "mean"))
    encoder = new_knowledge_encoder(parts, audio_encoder, record["settings"])
    copy_tensors(trained_knowledge(encoder, record["settings"]), part_of(weights, "knowledge."), where)
    for module in (model, encoder):
        module.requires_grad_(False).eval().to(chosen)
    parts.records["audiobert"] = record
    return parts, model, ModelClipEncoder(parts.clap, encoder, encoder_identity(parts.records))


def load_clip_encoder(name: str = "mini", device: str | None = None, precision: Precision = "fp32") -> ModelClipEncoder:
    """What turns clips into vectors for a bank of a model, which need not have a bank yet."""
    encoder = load_model(model_folder(name), device)[2]
    encoder.precision = precision
    return encoder
