"""Score causal language models of transformers (Gemma 2, Llama 3.1, Qwen, ...) by log-likelihood and completion."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from audiobert.auditorybench.interfaces import Prediction, ProtocolName
from audiobert.auditorybench.protocol import score_continuations
from audiobert.auditorybench.questions import Question
from audiobert.backbone import load_language_model, pick_device
from audiobert.errors import ArtefactError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 32
# Enough for the longest answer of the benchmark; a completion is cut at the end of its line.
MAX_NEW_TOKENS = 12


class CausalLanguageModel:
    """Adapt a causal language model from a folder or a hub id.

    Continuations are tokenised together with their prompt and cut where the prompt alone would end, as
    lm-evaluation-harness does, so that both give the same numbers.
    """

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
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.artefacts = artefacts or {}
        self.max_tokens = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        self.padding = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)

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

    def _encode_pair(self, prompt: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of prompt and continuation; trailing spaces of the prompt go to the continuation."""
        kept = prompt.rstrip()
        continuation = prompt[len(kept) :] + continuation
        whole = self.tokenizer.encode(kept + continuation)
        context = self.tokenizer.encode(kept)
        if len(whole) > self.max_tokens:
            raise InputError(
                f"a prompt of {len(whole)} tokens, but '{self.name}' takes {self.max_tokens}: {prompt[:60]}"
            )
        if len(whole) <= len(context):
            raise InputError(f"the tokenizer of '{self.name}' cannot spell '{continuation.strip()}' behind its prompt")
        return tuple(context), tuple(whole[len(context) :])

    def log_likelihoods(self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return log-likelihoods in nats.

        To score a continuation, all its tokens but the last go through the model. Continuations that share these (all
        of one token, for instance) share the pass, and one that is a beginning of another shares the longer one's.
        """
        pairs = [
            [self._encode_pair(prompt, continuation) for continuation in row]
            for prompt, row in zip(prompts, continuations, strict=True)
        ]
        needed = sorted({context + target[:-1] for row in pairs for context, target in row})
        # In sorted order a sequence is followed by those that it begins.
        longest = [
            ids for ids, following in zip(needed, [*needed[1:], ()], strict=True) if following[: len(ids)] != ids
        ]
        wanted: dict[tuple[int, ...], list[tuple[int, int, int, int]]] = {ids: [] for ids in longest}
        for i, row in enumerate(pairs):
            for j, (context, target) in enumerate(row):
                carrier = self._carrier(longest, context + target[:-1])
                wanted[carrier] += [(i, j, len(context) + k - 1, token) for k, token in enumerate(target)]
        scores = [[0.0] * len(row) for row in pairs]
        for carrier, values in self._token_log_probs({k: [w[2:] for w in v] for k, v in wanted.items()}):
            for (i, j, _, _), value in zip(wanted[carrier], values, strict=True):
                scores[i][j] += value
        return scores

    @staticmethod
    def _carrier(longest: Sequence[tuple[int, ...]], prefix: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sequence among the sorted `longest` that begins with `prefix`."""
        return longest[bisect_left(longest, prefix)]

    def _token_log_probs(
        self, wanted: dict[tuple[int, ...], list[tuple[int, int]]]
    ) -> Iterator[tuple[tuple[int, ...], list[float]]]:
        """Yield, per sequence, the log-probabilities of (position, next token) pairs; batches are sorted by length."""
        import torch

        order = sorted(wanted, key=len, reverse=True)
        for at in range(0, len(order), self.batch_size):
            part = order[at : at + self.batch_size]
            width = len(part[0])
            ids = torch.tensor([[*row, *[self.padding] * (width - len(row))] for row in part], device=self.model.device)
            attention = torch.tensor(
                [[1] * len(row) + [0] * (width - len(row)) for row in part], device=self.model.device
            )
            with torch.inference_mode():
                logits = self.model(input_ids=ids, attention_mask=attention).logits
                for row, sequence in enumerate(part):
                    positions = [position for position, _ in wanted[sequence]]
                    tokens = [token for _, token in wanted[sequence]]
                    unique = sorted(set(positions))
                    log_probs = logits[row, unique].float().log_softmax(dim=-1)
                    values = log_probs[[unique.index(p) for p in positions], tokens]
                    if not bool(values.isfinite().all()):
                        raise ArtefactError(f"'{self.name}' gives scores that are no numbers: its weights are damaged")
                    yield sequence, values.tolist()

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """Return greedy completions of at most MAX_NEW_TOKENS tokens, cut at the end of the line."""
        import torch

        encoded = [self.tokenizer.encode(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
        texts = [""] * len(prompts)
        for at in range(0, len(order), self.batch_size):
            part = order[at : at + self.batch_size]
            width = len(encoded[part[0]])
            if width + MAX_NEW_TOKENS > self.max_tokens:
                raise InputError(
                    f"a prompt of {width} tokens, but '{self.name}' takes {self.max_tokens} with the answer"
                )
            # Padding on the left, so that the answers begin at the same column.
            ids = torch.tensor([[self.padding] * (width - len(encoded[i])) + encoded[i] for i in part])
            attention = torch.tensor([[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in part])
            with torch.inference_mode():
                made = self.model.generate(
                    input_ids=ids.to(self.model.device),
                    attention_mask=attention.to(self.model.device),
                    do_sample=False,
                    num_beams=1,
                    max_new_tokens=MAX_NEW_TOKENS,
                    pad_token_id=self.padding,
                )
            for i, row in zip(part, made[:, width:].tolist(), strict=True):
                text = str(self.tokenizer.decode(row, skip_special_tokens=True))
                texts[i] = text.lstrip("\n").split("\n")[0]
        return texts
