"""Turn a text with one `[MASK]` and the word for it into an example, masked or causal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from transformers import PreTrainedTokenizerBase

from audiobert.auditorybench.models.masked import Vocabulary
from audiobert.errors import InputError
from audiobert.prompts import blank_template, fill_template
from audiobert.sentence import MASK, Offsets, encode_answer, fill_mask
from audiobert.training.batches import Example, SpanClips

# Only what stands right before an answer decides how it is tokenised.
_BEFORE = 16


Tokens = Callable[[str], tuple[int, ...]]  # from a word to its tokens, where it stands


class Spelling:
    """Spelling for a masked language model: one mask per wordpiece of the answer, as the benchmark spells it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = Vocabulary(tokenizer, "the language model")
        self._end: tuple[int, ...] = ()
        self.hidden = hidden_token(tokenizer)
        """A token that stands for hidden wordpieces and that no text of a user brings in."""

    def _placed(
        self, text: str, word: str, spans: Sequence[Offsets], words: Sequence[str], template: str | None
    ) -> tuple[str, list[Offsets], Tokens]:
        """Return what the model reads, its spans, and how words are spelled in lower case in the mask's place."""
        del words, template  # the text is all that a masked language model gets
        before, _, after = text.partition(MASK)

        def tokens(other: str) -> tuple[int, ...]:
            return self._vocabulary.pieces_between(before[-1:], other.lower(), after[:1])

        masks = " ".join([str(self._tokenizer.mask_token)] * len(tokens(word)))
        return *fill_mask(text, spans, masks), tokens

    def example(
        self,
        text: str,
        word: str,
        spans: Sequence[Offsets],
        clips: Sequence[SpanClips],
        words: Sequence[str] = (),
        template: str | None = None,
    ) -> Example:
        """Return the example whose answer is a word.

        Parameters
        ----------
        text
            With one `[MASK]`, where the word belongs.
        spans, clips
            Character offsets in `text`, in its order, and what is known of each.
        words
            The two words of a comparison.
        template
            The prompt of a causal language model; by default a blank to be filled in.
        """
        read, moved, tokens = self._placed(text, word, spans, words, template)
        answer = (*tokens(word), *self._end)
        return Example(read, answer, tuple(moved), tuple(clips), one_token(word, words, tokens))


class PromptSpelling(Spelling):
    """Spelling for a causal language model: the answer stands behind a prompt, with the end of the text behind it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._end = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
        self.hidden = hidden_token(tokenizer)
        self._tokens = lru_cache(maxsize=100_000)(self._tokens_behind)

    def _tokens_behind(self, prompt: str, word: str) -> tuple[int, ...]:
        tokens = encode_answer(self._tokenizer, prompt, f" {word.lower()}")[1]
        if not tokens:
            raise InputError(f"the tokenizer of the language model cannot spell the answer '{word}' behind its prompt")
        return tuple(tokens)

    def _placed(
        self, text: str, word: str, spans: Sequence[Offsets], words: Sequence[str], template: str | None
    ) -> tuple[str, list[Offsets], Tokens]:
        """Return the prompt, its spans, and how words are spelled behind it."""
        del word
        prompt, moved = fill_template(template or blank_template(words), text, spans)
        return prompt, moved, partial(self._tokens, prompt[-_BEFORE:])


def hidden_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a token of the vocabulary that means nothing."""
    return str(next(filter(None, (tokenizer.unk_token, tokenizer.pad_token, tokenizer.eos_token)), ""))


def one_token(word: str, words: Sequence[str], tokens: Callable[[str], Sequence[int]]) -> int | None:
    """Return the token of the other of two words, where both are one token."""
    others = [other for other in words if other.lower() != word.lower()]
    if len(words) != 2 or len(others) != 1 or len(tokens(word)) != 1:
        return None
    other = tokens(others[0])
    return other[0] if len(other) == 1 else None
