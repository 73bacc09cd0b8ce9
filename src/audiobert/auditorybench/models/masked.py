"""Score masked language models of transformers (BERT, RoBERTa, ModernBERT, DeBERTa) with their own masks and pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from audiobert.auditorybench.interfaces import Evidence, MaskBatch, MaskQuery, Prediction, ProtocolName
from audiobert.auditorybench.protocol import score_masked
from audiobert.auditorybench.questions import Question
from audiobert.backbone import load_language_model, pick_device
from audiobert.errors import ArtefactError, InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 64
# A common word that stands for the answer while the sentence around the mask is tokenised.
_PLACEHOLDER = "it"


class Vocabulary:
    """Look up wordpieces: those of a word in its place, their case variants, their text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        if tokenizer.mask_token_id is None:
            raise InputError(f"'{name}' has no mask token, so it is no masked language model; its kind may be causal")
        self.tokenizer = tokenizer
        self.name = name
        self._pieces = lru_cache(maxsize=100_000)(self._pieces_in_context)

    def pieces(self, question: Question, word: str) -> tuple[int, ...]:
        """Return the wordpieces of `word` at the mask, with a leading space where the sentence has one."""
        try:
            return self.pieces_between(question.before[-1:], word, question.after[:1])
        except InputError as error:
            raise InputError(f"{question.where}: {error}") from None

    def pieces_between(self, before: str, word: str, after: str) -> tuple[int, ...]:
        """Return the wordpieces of `word` between two characters; nothing stands for the text's beginning or end."""
        found = self._pieces(word, " " if before.isspace() else before, after)
        if not found or self.tokenizer.unk_token_id in found:
            raise InputError(f"the tokenizer of '{self.name}' cannot spell the answer '{word}'")
        return found

    def _pieces_in_context(self, word: str, before: str, after: str) -> tuple[int, ...]:
        # Only the neighbouring characters decide: tokenizers cut at spaces and punctuation first.
        prefix = {"": "", " ": "x "}.get(before, f"x{before}")
        ids, start, end = _locate(self.tokenizer, prefix, word, after)
        return tuple(ids[start:end])

    def variants(self, piece: int) -> tuple[int, ...]:
        """Return the piece and those that differ from it only in case."""
        folded, pieces_of = self._folded
        return tuple(pieces_of[folded[piece]]) if piece < len(folded) else (piece,)

    @cached_property
    def _folded(self) -> tuple[list[str], dict[str, list[int]]]:
        """The pieces' texts without case, and the pieces of each."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        folded = [str(token).casefold() for token in tokens]
        pieces_of: dict[str, list[int]] = {}
        for index, text in enumerate(folded):
            pieces_of.setdefault(text, []).append(index)
        return folded, pieces_of

    def decode(self, pieces: Sequence[int]) -> str:
        """Return the text of wordpieces, without surrounding space."""
        return str(self.tokenizer.decode(list(pieces), skip_special_tokens=True)).strip()


def _locate(tokenizer: PreTrainedTokenizerBase, before: str, word: str, after: str) -> tuple[list[int], int, int]:
    """Return the token ids of the whole text, and the range [start, end) of those that spell `word`."""
    encoding = tokenizer(before + word + after, return_offsets_mapping=True, return_special_tokens_mask=True)
    low, high = len(before), len(before) + len(word)
    inside = [
        index
        for index, ((start, end), special) in enumerate(
            zip(encoding["offset_mapping"], encoding["special_tokens_mask"], strict=True)
        )
        if not special and start < high and end > low and end > start
    ]
    ids = list(encoding["input_ids"])
    if inside:
        start, end = inside[0], inside[-1] + 1
        spans = encoding["offset_mapping"][start:end]
        # A leading space may belong to the first token; any other letter from outside may not.
        if spans[-1][1] <= high and not before[spans[0][0] : low].strip():
            # A lone space token ("▁") that DeBERTa puts before a word counts as the word's.
            return ids, start, end
    # The word is glued to its neighbours: tokenise the three parts apart.
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before.rstrip(), word, after)]
    special = encoding["special_tokens_mask"]
    leading = next((i for i, flag in enumerate(special) if not flag), 0)
    trailing = next((i for i, flag in enumerate(reversed(special)) if not flag), 0)
    head, tail = ids[:leading], ids[len(ids) - trailing :]
    start = leading + len(parts[0])
    return [*head, *parts[0], *parts[1], *parts[2], *tail], start, start + len(parts[1])


class MaskedLanguageModel:
    """Adapt a masked language model from a folder or a hub id."""

    kind = "masked"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        batch_size: int = BATCH_SIZE,
        artefacts: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.artefacts = artefacts or {}
        vocabulary = Vocabulary(tokenizer, name)
        self.pieces, self.variants, self.decode = vocabulary.pieces, vocabulary.variants, vocabulary.decode
        positions = int(getattr(model.config, "max_position_embeddings", 0) or 0)
        limits = [limit for limit in (positions, int(tokenizer.model_max_length)) if limit > 0]
        self.max_tokens = min(limits) if limits else 1 << 30
        if model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
            self.max_tokens -= int(model.config.pad_token_id) + 1  # their positions start behind the padding id
        self._contexts: dict[str, tuple[list[int], list[int]]] = {}

    @classmethod
    def from_pretrained(
        cls, name: str, *, device: str | None = None, batch_size: int = BATCH_SIZE
    ) -> MaskedLanguageModel:
        """Load the model; see `audiobert.backbone.load_language_model`."""
        loaded = load_language_model(name, "masked", device=pick_device(device))
        return cls(loaded.model, loaded.tokenizer, name, batch_size=batch_size, artefacts=loaded.describe())

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        """Answer all questions; yield (position, prediction) in any order."""
        yield from score_masked(self, questions, protocol)

    def _prepare(self, questions: Sequence[Question]) -> None:
        """Tokenise each sentence around its mask, once."""
        for question in questions:
            if question.text not in self._contexts:
                ids, start, end = _locate(self.tokenizer, question.before, _PLACEHOLDER, question.after)
                self._contexts[question.text] = ids[:start], ids[end:]

    def _input_ids(self, query: MaskQuery) -> list[int]:
        before, after = self._contexts[query.question.text]
        ids = [*before, *query.known, *[self.tokenizer.mask_token_id] * query.masks, *after]
        if len(ids) > self.max_tokens:
            raise InputError(
                f"{query.question.where}: {len(ids)} tokens, but '{self.name}' takes {self.max_tokens} at most"
            )
        return ids

    def mask_logits(self, queries: Sequence[MaskQuery]) -> Iterator[MaskBatch]:
        """Yield logits at the masks, in batches sorted by length, longest first: memory runs out early or never."""
        import torch

        self._prepare([query.question for query in queries])
        inputs = [self._input_ids(query) for query in queries]
        order = sorted(range(len(queries)), key=lambda i: -len(inputs[i]))
        padding = self.tokenizer.pad_token_id or 0
        device = self.model.device
        for at in range(0, len(order), self.batch_size):
            part = order[at : at + self.batch_size]
            width = len(inputs[part[0]])
            ids = torch.tensor([inputs[i] + [padding] * (width - len(inputs[i])) for i in part])
            attention = torch.tensor([[1] * len(inputs[i]) + [0] * (width - len(inputs[i])) for i in part])
            read = []
            with torch.inference_mode():
                logits = self.model(input_ids=ids.to(device), attention_mask=attention.to(device)).logits
            for row, i in zip(logits, part, strict=True):  # (tokens, vocabulary)
                first = len(self._contexts[queries[i].question.text][0]) + len(queries[i].known)
                read.append(row[first : first + queries[i].read])
            yield MaskBatch(part, _finite(torch.cat(read).float(), self.name), [Evidence()] * len(part))


def _finite(logits: torch.Tensor, name: str) -> torch.Tensor:
    if not bool(logits.isfinite().all()):
        raise ArtefactError(
            f"'{name}' gives scores that are no numbers: its weights are damaged or made for another type"
        )
    return logits
