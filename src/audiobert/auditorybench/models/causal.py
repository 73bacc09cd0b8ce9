"""Score causal language models of transformers (Gemma 2, Llama 3.1, Qwen, ...) by log-likelihood and completion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from audiobert.auditorybench.interfaces import Prediction, ProtocolName
from audiobert.auditorybench.protocol import score_continuations
from audiobert.auditorybench.questions import Question
from audiobert.backbone import load_language_model, pick_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from audiobert.sentence import Offsets

BATCH_SIZE = 32
# Enough for the longest answer of the benchmark; a completion is cut at the end of its line.
MAX_NEW_TOKENS = 12


class CausalLanguageModel:
    """Adapt a causal language model from a folder or a hub id; see `audiobert.continuations`.

    Parameters
    ----------
    chat : bool
        Ask through the model's chat template.
    """

    kind = "causal"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        batch_size: int = BATCH_SIZE,
        chat: bool = False,
        artefacts: dict[str, Any] | None = None,
    ) -> None:
        from audiobert.continuations import Continuations
        from audiobert.modeling import AudioBertForCausalLM

        self.name, self.chat, self.artefacts = name, chat, {"chat": chat, **(artefacts or {})}
        self.model, self.tokenizer = model.eval(), tokenizer
        window = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        self.continuations = Continuations(
            AudioBertForCausalLM(model), tokenizer, name, window, batch_size, special=not chat
        )

    @classmethod
    def from_pretrained(
        cls, name: str, *, device: str | None = None, batch_size: int = BATCH_SIZE, chat: bool = False
    ) -> CausalLanguageModel:
        """Load the model; see `audiobert.backbone.load_language_model`."""
        loaded = load_language_model(name, "causal", device=pick_device(device))
        artefacts = loaded.describe()
        return cls(loaded.model, loaded.tokenizer, name, batch_size=batch_size, chat=chat, artefacts=artefacts)

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        """Answer all questions; yield (position, prediction) in any order."""
        yield from score_continuations(self, questions, protocol)

    def log_likelihoods(self, questions: Sequence[Question], words: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return log-likelihoods in nats."""
        return self.continuations.log_likelihoods(self._prompts(questions), answers_behind(words, chat=self.chat))

    def complete(self, questions: Sequence[Question]) -> list[str]:
        """Return greedy completions of at most MAX_NEW_TOKENS tokens, cut at the end of the line."""
        texts = self.continuations.complete(self._prompts(questions), max_new_tokens=MAX_NEW_TOKENS)
        return [first_line(text) for text in texts]

    def _prompts(self, questions: Sequence[Question]) -> list[str]:
        window = self.continuations.max_tokens - MAX_NEW_TOKENS
        return [prompt_of(self.tokenizer, one, (), window, chat=self.chat, name=self.name)[0] for one in questions]


def prompt_of(
    tokenizer: PreTrainedTokenizerBase,
    question: Question,
    spans: Sequence[Offsets],
    max_tokens: int,
    *,
    chat: bool,
    name: str,
) -> tuple[str, list[Offsets]]:
    """Return the prompt of a question, or its words in the chat template, and where spans of its text stand there.

    Raises
    ------
    InputError
        With `chat`: there is no template that keeps the words as they are, or they are too long for the model.
    """
    from audiobert.prompts import read_prompt

    if not chat:
        return question.prompt, question.in_prompt(spans)
    words = read_prompt(tokenizer, question.chat, max_tokens, chat=True, name=name)
    return words.text, [words.to_text(*span) for span in question.in_prompt(spans, chat=True)]


def answers_behind(words: Sequence[Sequence[str]], *, chat: bool) -> Sequence[Sequence[str]]:
    """Return answers as they stand behind a prompt; a chat template ends where an answer begins, without a space."""
    return [[word.lstrip() for word in row] for row in words] if chat else words


def first_line(text: str) -> str:
    """Return a completion up to the end of its first line that is not empty."""
    return text.lstrip("\n").split("\n")[0]
