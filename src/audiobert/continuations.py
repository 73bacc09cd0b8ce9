"""Score continuations of a prompt by a causal language model's log-likelihood, and generate text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from audiobert.errors import ArtefactError, InputError
from audiobert.injection import SpanKnowledge
from audiobert.modeling import AudioBertForCausalLM
from audiobert.sentence import Offsets, encode_answer, encode_prompts, shortened

# From the first tokens `(rows, spans)` of the spans of some prompts, and these prompts' numbers, to what is known.
Knowledge = Callable[[Tensor, Sequence[int]], SpanKnowledge]
Spans = Sequence[Sequence[Offsets]]


@dataclass(frozen=True)
class Continuations:
    """Scorer and generator of continuations of prompts; `special`: with the tokenizer's special tokens around them."""

    model: AudioBertForCausalLM
    tokenizer: PreTrainedTokenizerBase
    name: str
    max_tokens: int
    batch_size: int = 32
    special: bool = True

    @property
    def device(self) -> torch.device:
        """The device of the language model."""
        return self.model.language_model.device

    @torch.inference_mode()
    def log_likelihoods(
        self,
        prompts: Sequence[str],
        continuations: Sequence[Sequence[str]],
        spans: Spans | None = None,
        knowledge: Knowledge | None = None,
    ) -> list[list[float]]:
        """Return, per prompt, the log-likelihood of each continuation in nats, summed over its tokens.

        Continuations are tokenised together with their prompt and cut where the prompt alone would end, as
        lm-evaluation-harness does, so that both give the same numbers.

        Parameters
        ----------
        spans, knowledge
            Character spans of each prompt, and what is known of them; None injects nothing.
        """
        answers = [
            [self._answer(prompt, continuation) for continuation in row]
            for prompt, row in zip(prompts, continuations, strict=True)
        ]
        if self.special:
            prompts = [prompt.rstrip() for prompt in prompts]  # their last spaces belong to the continuations
        scores: list[list[float]] = [[] for _ in prompts]
        short = [i for i, row in enumerate(answers) if all(len(ids) == 1 for ids in row)]
        for members, inputs, known in self._batches(prompts, short, spans, knowledge, self.batch_size):
            tensors = (inputs.input_ids, inputs.attention_mask, inputs.masks)
            logits = self.model(*tensors, known, share_beginning=True)  # (prompts, vocabulary)
            log_probs = logits.float().log_softmax(dim=-1)
            for place, i in enumerate(members):
                scores[i] = log_probs[place, [ids[0] for ids in answers[i]]].tolist()
        longer = sorted(set(range(len(prompts))) - set(short))
        for (i,), inputs, known in self._batches(prompts, longer, spans, knowledge, 1):
            scores[i] = self.model.log_likelihoods(inputs.input_ids, answers[i], known, batch_size=self.batch_size)
        if not bool(torch.tensor([score for row in scores for score in row]).isfinite().all()):
            raise ArtefactError(f"'{self.name}' gives scores that are no numbers: its weights are damaged")
        return scores

    def _answer(self, prompt: str, continuation: str) -> list[int]:
        context, ids = encode_answer(self.tokenizer, prompt, continuation, special=self.special)
        if len(context) + len(ids) > self.max_tokens:
            raise InputError(
                f"a prompt of {len(context) + len(ids)} tokens, but '{self.name}' takes {self.max_tokens}:"
                f" {shortened(prompt)}"
            )
        if not ids:
            raise InputError(f"the tokenizer of '{self.name}' cannot spell '{continuation.strip()}' behind its prompt")
        return ids

    def _batches(
        self, prompts: Sequence[str], chosen: Sequence[int], spans: Spans | None, knowledge: Knowledge | None, size: int
    ) -> Any:
        """Yield numbers of prompts, their tokens and the knowledge of their spans.

        The longest come first, so that memory runs out early or never.
        """
        order = sorted(chosen, key=lambda i: -len(prompts[i]))
        for start in range(0, len(order), size):
            members = order[start : start + size]
            inputs = encode_prompts(
                self.tokenizer,
                [prompts[i] for i in members],
                None if spans is None else [spans[i] for i in members],
                special=self.special,
            ).to(self.device)
            yield members, inputs, None if knowledge is None else knowledge(inputs.starts, members)

    def complete(
        self,
        prompts: Sequence[str],
        spans: Spans | None = None,
        knowledge: Knowledge | None = None,
        *,
        max_new_tokens: int,
        **settings: Any,
    ) -> list[str]:
        """Return the text generated behind each prompt, greedily unless transformers' `settings` say otherwise."""
        texts = [""] * len(prompts)
        padding = next((i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if i is not None), 0)
        for members, inputs, known in self._batches(prompts, range(len(prompts)), spans, knowledge, self.batch_size):
            if inputs.input_ids.shape[1] + max_new_tokens > self.max_tokens:
                raise InputError(
                    f"a prompt of {inputs.input_ids.shape[1]} tokens, but '{self.name}' takes {self.max_tokens} with"
                    " the answer"
                )
            made = self.model.generate(
                inputs.input_ids,
                inputs.attention_mask,
                known,
                **{"do_sample": False, "num_beams": 1, **settings},
                max_new_tokens=max_new_tokens,
                pad_token_id=padding,
            )
            for i, row in zip(members, made.tolist(), strict=True):
                texts[i] = str(self.tokenizer.decode(row, skip_special_tokens=True))
        return texts


@dataclass(frozen=True)
class Prompts:
    """Prompts with what is known of their spans; those without a span are the plain language model's.

    `knowledge` None injects nothing.
    """

    plain: Continuations
    with_sound: Continuations
    texts: Sequence[str]
    spans: Spans
    knowledge: Knowledge | None = None

    def log_likelihoods(self, continuations: Sequence[Sequence[str]]) -> list[list[float]]:
        """Return, per prompt, the log-likelihood of each continuation; see `Continuations.log_likelihoods`."""
        return self._each(
            lambda model, rows, **known: model.log_likelihoods(
                [self.texts[i] for i in rows], [continuations[i] for i in rows], **known
            )
        )

    def complete(self, max_new_tokens: int, **settings: Any) -> list[str]:
        """Return the text generated behind each prompt; see `Continuations.complete`."""
        return self._each(
            lambda model, rows, **known: model.complete(
                [self.texts[i] for i in rows], max_new_tokens=max_new_tokens, **known, **settings
            )
        )

    def _each(self, call: Callable[..., list[Any]]) -> list[Any]:
        """Call both models, each with the numbers of its prompts, and put the results in the prompts' order."""
        auditory = [row for row, spans in enumerate(self.spans) if spans]
        silent = [row for row, spans in enumerate(self.spans) if not spans]
        found: list[Any] = [None] * len(self.texts)
        known: dict[str, Any] = {}
        if self.knowledge is not None:
            knowledge = self.knowledge
            known = {
                "spans": [self.spans[row] for row in auditory],
                "knowledge": lambda starts, members: knowledge(starts, [auditory[member] for member in members]),
            }
        for rows, results in (
            (silent, call(self.plain, silent) if silent else []),
            (auditory, call(self.with_sound, auditory, **known) if auditory else []),
        ):
            for row, result in zip(rows, results, strict=True):
                found[row] = result
        return found
