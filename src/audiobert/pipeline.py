"""Offer `AudioBert`, the one object that a user holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from audiobert.answers import Completion, FillMask, Hit, MaskPredictions, Prediction
from audiobert.arguments import checked_count, checked_path, checked_paths, checked_texts
from audiobert.bank import AudioBank
from audiobert.clip_encoder import ModelClipEncoder
from audiobert.errors import InputError
from audiobert.hub import HubAccess
from audiobert.loading import load_model
from audiobert.model_folder import BANK_FOLDER, model_folder
from audiobert.prediction import Predictor, Recording, in_original
from audiobert.prompts import read_prompt
from audiobert.saving import push_model, save_model
from audiobert.sentence import Span


class AudioBert(Predictor):
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
        sentences = self._read([texts] if isinstance(texts, str) else checked_texts(texts))
        spans = self._auditory_spans(sentences, sounds, clips_per_span, audio=audio)
        scored = self._predict(sentences, spans, "on" if heard else "unheard", base=base)
        answers = []
        for sentence, found, (log_probs, plain) in zip(sentences, spans, scored, strict=True):
            without = [()] * sentence.masks if plain is None else self._best(plain, top_k)
            best = self._best(log_probs, top_k) if found else without
            masks = tuple(MaskPredictions(p, b) for p, b in zip(best, without, strict=True))
            answers.append(FillMask(sentence.original, bool(found), in_original(sentence, found), masks))
        return answers[0] if isinstance(texts, str) else answers

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
        given = [texts] if isinstance(texts, str) else checked_texts(texts)
        room, name = self.max_tokens - max_new_tokens, self.parts.identity.name
        sentences = [read_prompt(self.tokenizer, text, room, chat=chat, name=name) for text in given]
        spans = self._auditory_spans(sentences, sounds, clips_per_span, audio=audio)
        prompts = [sentence.text for sentence in sentences]
        asked = self.prompts(prompts, spans, "on" if heard else "unheard", chat=chat)
        said = asked.complete(max_new_tokens, **settings)
        rows = [row for row in range(len(given)) if spans[row] and base]
        plain = self.prompts([prompts[row] for row in rows], [()] * len(rows), "off", chat=chat)
        without = dict(zip(rows, plain.complete(max_new_tokens, **settings), strict=True))
        answers = []
        for row, (sentence, found) in enumerate(zip(sentences, spans, strict=True)):
            base_said = without.get(row) if found else said[row]
            own = in_original(sentence, found)
            answers.append(Completion(sentence.original, bool(found), own, said[row], base_said))
        return answers[0] if isinstance(texts, str) else answers

    def _best(self, log_probs: Tensor, top_k: int) -> list[tuple[Prediction, ...]]:
        scores, ids = log_probs.topk(top_k, dim=-1)
        return [
            tuple(
                Prediction(str(self.tokenizer.decode([token])).strip(), score)
                for token, score in zip(row_ids, row_scores, strict=True)
            )
            for row_ids, row_scores in zip(ids.tolist(), scores.exp().tolist(), strict=True)
        ]
