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

BATCH_SIZE = 32
# Enough for the longest answer of the benchmark; a completion is cut at the end of its line.
MAX_NEW_TOKENS = 12


class CausalLanguageModel:
    """Adapt a causal language model from a folder or a hub id; see `audiobert.continuations`."""

    kind = "causal"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        batch_size: int = BATCH_SIZE,
        artefacts: dict[str, Any] | None = None,
    ) -> None:
        from audiobert.continuations import Continuations
        from audiobert.modeling import AudioBertForCausalLM

        self.name, self.artefacts = name, artefacts or {}
        self.model, self.tokenizer = model.eval(), tokenizer
        window = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        self.continuations = Continuations(AudioBertForCausalLM(model), tokenizer, name, window, batch_size)

    @classmethod
    def from_pretrained(
        cls, name: str, *, device: str | None = None, batch_size: int = BATCH_SIZE
    ) -> CausalLanguageModel:
        """Load the model; see `audiobert.backbone.load_language_model`."""
        loaded = load_language_model(name, "causal", device=pick_device(device))
        return cls(loaded.model, loaded.tokenizer, name, batch_size=batch_size, artefacts=loaded.describe())

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        """Answer all questions; yield (position, prediction) in any order."""
        yield from score_continuations(self, questions, protocol)

    def log_likelihoods(self, questions: Sequence[Question], words: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return log-likelihoods in nats."""
        return self.continuations.log_likelihoods([question.prompt for question in questions], words)

    def complete(self, questions: Sequence[Question]) -> list[str]:
        """Return greedy completions of at most MAX_NEW_TOKENS tokens, cut at the end of the line."""
        prompts = [question.prompt for question in questions]
        return [first_line(text) for text in self.continuations.complete(prompts, max_new_tokens=MAX_NEW_TOKENS)]


def first_line(text: str) -> str:
    """Return a completion up to the end of its first line that is not empty."""
    return text.lstrip("\n").split("\n")[0]
