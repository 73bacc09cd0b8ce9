"""Offer `AudioBert`, the one object that a user holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
from torch import Tensor

from audiobert.answers import AuditorySpan, Completion, FillMask, Hit, MaskPredictions, MaskScores, Prediction
from audiobert.arguments import checked_count, checked_path, checked_paths, checked_sounds, checked_texts
from audiobert.bank import AudioBank, check_identity
from audiobert.clip_encoder import ModelClipEncoder
from audiobert.continuations import Continuations, Prompts
from audiobert.errors import InputError
from audiobert.hub import HubAccess
from audiobert.injection import NO_CLIP, SpanKnowledge
from audiobert.loading import load_model
from audiobert.model_folder import BANK_FOLDER, ModelSettings, model_folder
from audiobert.modeling import AudioBertForCausalLM, AudioBertForMaskedLM, with_injection
from audiobert.parts import Parts
from audiobert.prompts import read_blank, read_prompt
from audiobert.recordings import recorded_hit
from audiobert.retrieve import Retriever
from audiobert.saving import push_model, save_model
from audiobert.sentence import MASK, Offsets, Sentence, Span, encode_prompts, encode_texts, read_sentence

Sound = Literal["on", "unheard", "off"]
Recording = str | Path


class AudioBert:
    """A masked or causal language model that looks up how things sound.

    Use `from_pretrained`. One object may serve several threads at once.

    Attributes
    ----------
    tokenizer
        The language model's.
    banks : tuple of AudioBank
        The clips that spans are looked up in.
    settings : ModelSettings
        How clips are retrieved, encoded and injected.

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

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "mini",
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        bank: str | Path | Sequence[str | Path] | None = None,
        only_bank: bool = False,
        device: str | None = None,
    ) -> AudioBert:
        """Load a model.

        Parameters
        ----------
        name : str or Path
            `mini`, a folder written by `save_pretrained` or by `audiobert train audiobert`, or a hub id.
        revision : str, optional
            Commit, tag or branch of a hub id.
        cache_dir : str or Path, optional
            Folder for what is fetched from the hub; by default the one of `HF_HOME`.
        local_files_only : bool
            Use what was fetched before and no network.
        token : str or bool, optional
            The hub's access token; by default the one of `hf auth login`. False sends none.
        bank : str, Path or sequence of them, optional
            Banks to search beside the one that comes with the model; they must have been built with this model.
        only_bank : bool
            Leave the model's own bank out.
        device : str, optional
            A torch device; by default the accelerator if there is one, else the CPU.

        Raises
        ------
        ArtefactError
            There is no such model, or a part or a bank is missing, damaged, or belongs to another model.
        RemoteError
            The hub cannot be reached or refuses.
        InputError
            The device is not there, or `only_bank` is given without a bank.
        """
        hub = HubAccess(cache_dir, local_files_only, token)
        folder = model_folder(name, revision=revision, hub=hub)
        given = checked_paths("bank", bank)
        if only_bank and not given:
            raise InputError("only_bank leaves the model's own bank out; give a bank to search instead")
        parts, model, clip_encoder, settings = load_model(folder, device, hub)
        opened = [AudioBank.open(path) for path in ([] if only_bank else [folder / BANK_FOLDER]) + given]
        return cls(parts, model, clip_encoder, opened, settings, folder, str(name))

    def with_bank(self, *banks: AudioBank | str | Path, only: bool = False) -> AudioBert:
        """Return a model that shares this one's weights and searches these banks, too, or them alone.

        Raises
        ------
        ArtefactError
            A bank is missing, damaged, or belongs to another model.
        """
        opened = [bank if isinstance(bank, AudioBank) else AudioBank.open(bank) for bank in banks]
        searched = [*([] if only else self.banks), *opened]
        return AudioBert(self.parts, self.model, self._clip_encoder, searched, self.settings, self._folder, self.name)

    def save_pretrained(
        self, folder: str | Path, *, push_to_hub: bool = False, repo_id: str | None = None, **options: Any
    ) -> None:
        """Write the model, its (first) bank's vectors and metadata, and a model card into a folder.

        `from_pretrained` takes the folder. Files of it that are not this model's stay as they are, a card (`README.md`)
        that a person wrote or changed among them.

        Parameters
        ----------
        push_to_hub : bool
            Upload the model, too.
        repo_id : str, optional
            Repository to upload to; by default one with the folder's name, of the token's owner.
        **options
            Those of `push_to_hub`.

        Raises
        ------
        InputError
            The model was not loaded from a folder, or `folder` holds files of these names that are no AudioBERT's.
        """
        folder = checked_path("the folder", folder)
        if options and not push_to_hub:
            raise InputError(f"{', '.join(options)}: for push_to_hub=True alone")
        save_model(*self._saved(), folder, folder.resolve().name)
        if push_to_hub:
            self.push_to_hub(repo_id or folder.resolve().name, **options)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload AudioBERT",
        create_pr: bool = False,
    ) -> str:
        """Upload what `save_pretrained` writes in one commit, for `from_pretrained(repo_id)`.

        Parameters
        ----------
        repo_id : str
            `owner/name`, or a name of the token's owner; the repository is made where it does not exist.
        private : bool, optional
            Whether a new repository is private.
        token : str, optional
            Access token; by default the one of `hf auth login`.
        revision : str, optional
            Branch; it is made where it does not exist.
        create_pr : bool
            Open a pull request instead.

        Returns
        -------
        str
            Address of the commit or of the pull request.

        Raises
        ------
        InputError
            `repo_id` has another form, or the model stands on a model in a folder of this machine.
        ArtefactError
            There is no such repository.
        RemoteError
            The hub cannot be reached or refuses.
        """
        options: dict[str, Any] = {"private": private, "token": token, "revision": revision, "create_pr": create_pr}
        return push_model(*self._saved(), repo_id, commit_message, **options)

    def _saved(self) -> tuple[Path, Path]:
        """Return the folders of the model and of the bank that goes with it."""
        if self._folder is None or not self.banks:
            raise InputError("this model was put together in memory; save one that from_pretrained loaded")
        return self._folder, self.banks[0].folder

    def __repr__(self) -> str:
        backbone = self.parts.identity.name
        banks = f"{len(self.banks)} bank{'s' if len(self.banks) != 1 else ''}"
        return f"AudioBert({self.name!r}: {backbone}, {banks}, {len(self.retriever):,} clips)"

    @property
    def banks(self) -> tuple[AudioBank, ...]:
        """The banks that spans are looked up in."""
        return self.retriever.banks

    @property
    def bank(self) -> AudioBank:
        """The first of the banks, the model's own unless it was left out."""
        return self.banks[0]

    @property
    def causal(self) -> bool:
        """Whether the language model predicts what follows, not what is masked."""
        return isinstance(self.plain, AudioBertForCausalLM)

    @property
    def mask_token(self) -> str:
        """How the language model spells a mask; `[MASK]` is understood as well."""
        return str(self.tokenizer.mask_token or MASK)

    def clip_encoder(self) -> ModelClipEncoder:
        """Return what turns clips into vectors for a bank of this model."""
        return self._clip_encoder

    def describe(self) -> dict[str, Any]:
        """Return what the model is made of: backbone, parts with their checksums, banks."""
        return {
            "name": self.name,
            "backbone": self.parts.identity.to_json(),
            "parts": {name: record.sha256 for name, record in self.parts.records.items()},
            "banks": [{"clips": len(bank), "identity": bank.identity} for bank in self.banks],
        }

    @overload
    def detect(self, texts: str) -> list[Span]: ...  # type: ignore[overload-overlap]
    @overload
    def detect(self, texts: Iterable[str]) -> list[list[Span]]: ...
    def detect(self, texts: str | Iterable[str]) -> list[Span] | list[list[Span]]:
        """Return the spans that are about sound, in the order of the text; a list per text for several.

        Raises
        ------
        InputError
            A text is no string, or too long.
        """
        if isinstance(texts, str):
            return self.parts.detector.detect([texts])[0]
        return self.parts.detector.detect(checked_texts(texts))

    def search(self, query: str, top_k: int = 10, **filters: Any) -> list[Hit]:
        """Return the clips that fit the words best.

        Parameters
        ----------
        query : str
            Words for a sound.
        top_k : int
            Number of clips.
        **filters
            Whatever `AudioBank.select` takes: `exclude`, licences, sources, durations.
        """
        if not isinstance(query, str):
            raise InputError(f"the query is of type {type(query).__name__}; give a string with words for a sound")
        return list(self.retriever.search([query], top_k, **filters)[0])

    @overload
    def fill_mask(  # type: ignore[overload-overlap]
        self, texts: str, *, top_k: int = 5, audio: bool = True, base: bool = True, clips_per_span: int | None = None,
        sounds: Mapping[str, Recording] | None = None, heard: bool = True,
    ) -> FillMask: ...  # fmt: skip
    @overload
    def fill_mask(
        self, texts: Iterable[str], *, top_k: int = 5, audio: bool = True, base: bool = True,
        clips_per_span: int | None = None, sounds: Mapping[str, Recording] | None = None, heard: bool = True,
    ) -> list[FillMask]: ...  # fmt: skip
    def fill_mask(
        self,
        texts: str | Iterable[str],
        *,
        top_k: int = 5,
        audio: bool = True,
        base: bool = True,
        clips_per_span: int | None = None,
        sounds: Mapping[str, Recording] | None = None,
        heard: bool = True,
    ) -> FillMask | list[FillMask]:
        """Predict the masks of one text or several, with sound and without.

        Where no span is found, or with `audio=False`, the predictions are those of the plain language model, to the
        last bit. A text longer than the model's window is cut around its masks. A causal language model is asked for
        the first token of the missing word, by a prompt with the text in it; it fills one mask per text and cuts none.

        Parameters
        ----------
        texts : str or iterable of str
            With `[MASK]` once or more.
        top_k : int
            Predictions per mask.
        audio : bool
            False leaves out detector, retrieval, injection and LoRA.
        base : bool
            False leaves out the plain language model's predictions where there is a span, which saves a pass.
        clips_per_span : int, optional
            Clips to retrieve per span; by default as many as in training.
        sounds : mapping, optional
            A recording for a piece of the text, as `{"This": "clip.wav"}`: that piece is a span, and the recording is
            injected instead of clips of the banks.
        heard : bool
            False takes the knowledge of the clips away and leaves all else, LoRA too, as it is: what the same weights
            say of words alone.

        Returns
        -------
        FillMask, or list of FillMask for several texts

        Raises
        ------
        InputError
            A text is empty or has no mask, `top_k` is not between 1 and the size of the vocabulary, or a recording
            cannot be decoded or its piece is not in the text.
        """
        top_k = checked_count("top_k", top_k, int(self.parts.language_model.config.vocab_size))
        _check_clips(clips_per_span)
        single = isinstance(texts, str)
        given = [texts] if isinstance(texts, str) else checked_texts(texts)
        sentences = self._read(given)
        spans = self._auditory_spans(sentences, sounds, clips_per_span, audio=audio)
        with_sound = self._predict(sentences, spans, "on" if heard else "unheard")
        rows = [row for row in range(len(sentences)) if base or row not in with_sound]
        without = dict(zip(rows, self._plain([sentences[row] for row in rows]), strict=True))
        answers = []
        for row, (sentence, found) in enumerate(zip(sentences, spans, strict=True)):
            plain = self._best(without[row], top_k) if row in without else [()] * sentence.masks
            best = self._best(with_sound[row], top_k) if row in with_sound else plain
            masks = tuple(MaskPredictions(p, b) for p, b in zip(best, plain, strict=True))
            answers.append(FillMask(sentence.original, row in with_sound, _in_original(sentence, found), masks))
        return answers[0] if single else answers

    @overload
    def complete(  # type: ignore[overload-overlap]
        self, texts: str, *, max_new_tokens: int = 40, chat: bool = False, audio: bool = True, base: bool = True,
        clips_per_span: int | None = None, sounds: Mapping[str, Recording] | None = None, heard: bool = True,
        **settings: Any,
    ) -> Completion: ...  # fmt: skip
    @overload
    def complete(
        self, texts: Iterable[str], *, max_new_tokens: int = 40, chat: bool = False, audio: bool = True,
        base: bool = True, clips_per_span: int | None = None, sounds: Mapping[str, Recording] | None = None,
        heard: bool = True, **settings: Any,
    ) -> list[Completion]: ...  # fmt: skip
    def complete(
        self,
        texts: str | Iterable[str],
        *,
        max_new_tokens: int = 40,
        chat: bool = False,
        audio: bool = True,
        base: bool = True,
        clips_per_span: int | None = None,
        sounds: Mapping[str, Recording] | None = None,
        heard: bool = True,
        **settings: Any,
    ) -> Completion | list[Completion]:
        """Generate behind one text or several with a causal language model, with sound and without.

        Knowledge enters at the spans of the text, once; what is generated has none of its own. Where no span is found,
        or with `audio=False`, the completion is that of the plain language model, to the last bit.

        Parameters
        ----------
        max_new_tokens : int
            Tokens to generate, unless the model ends its answer before.
        chat : bool
            Ask through the model's chat template. Spans are found in the text alone.
        audio, base, clips_per_span, sounds, heard
            As for `fill_mask`.
        **settings
            Of transformers' `generate`; by default it is greedy.

        Returns
        -------
        Completion, or list of Completion for several texts

        Raises
        ------
        InputError
            The language model is a masked one, a text is empty or too long, `chat` is wanted of a model without a chat
            template, or a recording cannot be decoded or its piece is not in the text.
        """
        if not self.causal:
            raise InputError(f"{self.parts.identity.name} is a masked language model; use fill_mask")
        max_new_tokens = checked_count("max_new_tokens", max_new_tokens, self.max_tokens - 1)
        _check_clips(clips_per_span)
        given = [texts] if isinstance(texts, str) else checked_texts(texts)
        room, name = self.max_tokens - max_new_tokens, self.parts.identity.name
        sentences = [read_prompt(self.tokenizer, text, room, chat=chat, name=name) for text in given]
        spans = self._auditory_spans(sentences, sounds, clips_per_span, audio=audio)
        prompts = [sentence.text for sentence in sentences]
        said = self.prompts(prompts, spans, "on" if heard else "unheard", chat=chat).complete(
            max_new_tokens, **settings
        )
        rows = [row for row in range(len(given)) if spans[row] and base]
        plain = self.prompts([prompts[row] for row in rows], [()] * len(rows), "off", chat=chat)
        without = dict(zip(rows, plain.complete(max_new_tokens, **settings), strict=True))
        answers = [
            Completion(
                sentence.original,
                bool(found),
                _in_original(sentence, found),
                said[row],
                without.get(row) if found else said[row],
            )
            for row, (sentence, found) in enumerate(zip(sentences, spans, strict=True))
        ]
        return answers[0] if isinstance(texts, str) else answers

    def prompts(
        self,
        texts: Sequence[str],
        spans: Sequence[tuple[AuditorySpan, ...]],
        sound: Sound = "on",
        *,
        chat: bool = False,
        batch_size: int = 32,
    ) -> Prompts:
        """Return prompts of a causal language model with the clips of their spans, to be scored or completed."""
        name = self.name or self.parts.identity.name
        plain, with_sound = (
            Continuations(model, self.tokenizer, name, self.max_tokens, batch_size, special=not chat)  # type: ignore[arg-type]
            for model in (self.plain, self.model)
        )

        def knowledge(starts: Tensor, rows: Sequence[int]) -> SpanKnowledge:
            return self._knowledge(starts, [spans[row] for row in rows])

        offsets = [[(span.start, span.end) for span in row] for row in spans]
        return Prompts(plain, with_sound, texts, offsets, knowledge if sound == "on" else None)

    def clips_of(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Offsets]],
        hits: Sequence[Sequence[tuple[Hit, ...]]] | None = None,
        exclude: Iterable[str] | None = None,
    ) -> list[tuple[AuditorySpan, ...]]:
        """Return given character spans of texts with their clips: those in `hits`, or what is retrieved."""
        whole = [Sentence(text, text, ((0, 0, len(text)),), 0) for text in texts]
        return self._with_clips(_given_spans(whole, spans, hits), exclude=exclude)

    def score_masks(
        self,
        texts: Sequence[str],
        *,
        sound: Sound = "on",
        spans: Sequence[Sequence[Offsets]] | None = None,
        hits: Sequence[Sequence[tuple[Hit, ...]]] | None = None,
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
            The clips of each of these spans, instead of what is retrieved.
        exclude : iterable of str, optional
            Ids of clips that retrieval must not use.
        """
        if sound not in get_args(Sound):
            raise InputError(f"sound is {sound!r}; give {', '.join(get_args(Sound))}")
        sentences = self._read(checked_texts(texts))
        found: Sequence[tuple[AuditorySpan, ...]] = [()] * len(sentences)
        if sound != "off":
            chosen = self._spans(sentences) if spans is None else _given_spans(sentences, spans, hits)
            found = self._with_clips(chosen, exclude=exclude)
        with_sound = self._predict(sentences, found, sound, batch_size)
        rows = [row for row in range(len(sentences)) if row not in with_sound]
        without = dict(zip(rows, self._plain([sentences[row] for row in rows], batch_size), strict=True))
        return [
            MaskScores(
                with_sound[row] if row in with_sound else without[row],
                row in with_sound,
                _in_original(sentence, found[row]),
            )
            for row, sentence in enumerate(sentences)
        ]

    def _read(self, texts: Sequence[str]) -> list[Sentence]:
        """Find the masks of texts; the one mask of each makes it a prompt for a causal language model."""
        read = read_blank if self.causal else read_sentence
        return [read(self.tokenizer, text, self.max_tokens) for text in texts]

    def _spans(
        self, sentences: Sequence[Sentence], recordings: Mapping[str, Hit] | None = None
    ) -> list[Sequence[Span]]:
        """Return the detected spans of each sentence; a piece with a recording of its own is one, too.

        What a prompt puts around a user's words is no part of what is searched.
        """
        read = [sentence.original if self.causal else sentence.text for sentence in sentences]
        detected = self.parts.detector.detect(read)
        found: list[Sequence[Span]] = []
        for sentence, text, spans in zip(sentences, read, detected, strict=True):
            given = [_span_of_piece(text, self.mask_token, piece, hit) for piece, hit in (recordings or {}).items()]
            rest = [span for span in spans if all(span.end <= g.start or span.start >= g.end for g in given)]
            ordered = sorted([*given, *rest], key=lambda span: span.start)
            found.append([_moved(sentence, span) for span in ordered] if self.causal else ordered)
        return found

    def _auditory_spans(
        self,
        sentences: Sequence[Sentence],
        sounds: Mapping[str, Recording] | None,
        clips: int | None,
        *,
        audio: bool,
    ) -> list[tuple[AuditorySpan, ...]]:
        """Return the spans of each sentence with their clips or the recordings given for them; none without audio."""
        recordings = {piece: recorded_hit(self._clip_encoder, file) for piece, file in checked_sounds(sounds).items()}
        if not audio:
            return [()] * len(sentences)
        return self._with_clips(self._spans(sentences, recordings), clips)

    def _with_clips(
        self, spans: Sequence[Sequence[Span]], clips: int | None = None, exclude: Iterable[str] | None = None
    ) -> list[tuple[AuditorySpan, ...]]:
        """Retrieve the clips of the spans that have none yet."""
        texts = sorted({span.text for row in spans for span in row if not isinstance(span, AuditorySpan)})
        results = self.retriever.find(texts, clips, exclude=exclude) if texts else []
        found = dict(zip(texts, results, strict=True))
        return [
            tuple(
                span
                if isinstance(span, AuditorySpan)
                else AuditorySpan(
                    span.text, span.start, span.end, span.score, found[span.text].hits, found[span.text].relatives
                )
                for span in row
            )
            for row in spans
        ]

    def _plain(self, sentences: Sequence[Sentence], batch_size: int = 64) -> list[Tensor]:
        """Return log-probabilities `(masks, vocabulary)` per sentence of the plain language model."""
        result = self._batches(
            sentences, range(len(sentences)), batch_size, lambda members: self._forward([sentences[i] for i in members])
        )
        return [result[row] for row in range(len(sentences))]

    def _predict(
        self,
        sentences: Sequence[Sentence],
        spans: Sequence[tuple[AuditorySpan, ...]],
        sound: Sound,
        batch_size: int = 64,
    ) -> dict[int, Tensor]:
        """Return log-probabilities of the sentences that have spans, by row: LoRA on, knowledge injected."""
        return self._batches(
            sentences,
            [row for row in range(len(sentences)) if spans[row]],
            batch_size,
            lambda members: self._forward([sentences[i] for i in members], [spans[i] for i in members], sound),
        )

    @staticmethod
    def _batches(
        sentences: Sequence[Sentence], rows: Iterable[int], batch_size: int, forward: Any
    ) -> dict[int, Tensor]:
        order = sorted(rows, key=lambda row: len(sentences[row].text))
        result: dict[int, Tensor] = {}
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            result |= zip(members, forward(members), strict=True)
        return result

    @torch.inference_mode()
    def _forward(
        self,
        sentences: Sequence[Sentence],
        spans: Sequence[tuple[AuditorySpan, ...]] | None = None,
        sound: Sound = "off",
    ) -> tuple[Tensor, ...]:
        """Run one batch; without spans, the plain language model. Returns `(masks, vocabulary)` per sentence."""
        offsets = None if spans is None else [[(span.start, span.end) for span in row] for row in spans]
        model = self.plain if spans is None else self.model
        encode = encode_prompts if self.causal else encode_texts
        inputs = encode(self.tokenizer, [sentence.text for sentence in sentences], offsets).to(
            self.parts.language_model.device
        )
        knowledge = None if spans is None or sound == "unheard" else self._knowledge(inputs.starts, spans)
        logits = model(inputs.input_ids, inputs.attention_mask, inputs.masks, knowledge)
        return logits.float().log_softmax(dim=-1).cpu().split([sentence.masks for sentence in sentences])

    def _knowledge(self, starts: Tensor, spans: Sequence[tuple[AuditorySpan, ...]]) -> SpanKnowledge:
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

    def _best(self, log_probs: Tensor, top_k: int) -> list[tuple[Prediction, ...]]:
        scores, ids = log_probs.topk(top_k, dim=-1)
        return [
            tuple(
                Prediction(str(self.tokenizer.decode([token])).strip(), score)
                for token, score in zip(row_ids, row_scores, strict=True)
            )
            for row_ids, row_scores in zip(ids.tolist(), scores.exp().tolist(), strict=True)
        ]


def _check_clips(clips_per_span: int | None) -> None:
    if clips_per_span is not None:
        checked_count("clips_per_span", clips_per_span)


def _in_original(sentence: Sentence, spans: Sequence[AuditorySpan]) -> tuple[AuditorySpan, ...]:
    moved = []
    for span in spans:
        start, end = sentence.to_original(span.start, span.end)
        moved.append(AuditorySpan(sentence.original[start:end], start, end, span.score, span.clips, span.relatives))
    return tuple(moved)


def _given_spans(
    sentences: Sequence[Sentence],
    spans: Sequence[Sequence[Offsets]],
    hits: Sequence[Sequence[tuple[Hit, ...]]] | None,
) -> list[list[Span]]:
    """Return spans given by their offsets in the original texts, in the order of the text, with clips if given."""
    found: list[list[Span]] = []
    for row, (sentence, offsets) in enumerate(zip(sentences, spans, strict=True)):
        own: list[Span] = []
        for place, span in enumerate(offsets):
            start, end = sentence.to_text(*span)
            text = sentence.text[start:end]
            if text:
                own.append(
                    Span(text, start, end) if hits is None else AuditorySpan(text, start, end, 1.0, hits[row][place])
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
