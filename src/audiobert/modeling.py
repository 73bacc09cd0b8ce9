"""Run language models with LoRA and injection, masked or causal: forward, loss, generation (section II-B3)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from audiobert.bert import hidden_states
from audiobert.errors import InputError
from audiobert.injection import Injection, SpanKnowledge

IGNORED = -100


def masked_lm_head(language_model: Any) -> Callable[[Tensor], Tensor]:
    """Return the part of a masked language model from hidden states to logits, to run at the masks alone."""
    for name in ("cls", "lm_head"):  # BERT, DeBERTa; RoBERTa, XLM-R, Camembert
        head = getattr(language_model, name, None)
        if isinstance(head, nn.Module) and not isinstance(head, nn.Linear):
            return head
    if hasattr(language_model, "head") and hasattr(language_model, "decoder"):  # ModernBERT
        return lambda hidden: language_model.decoder(language_model.head(hidden))
    if hasattr(language_model, "vocab_transform"):  # DistilBERT
        return lambda hidden: language_model.vocab_projector(
            language_model.vocab_layer_norm(language_model.activation(language_model.vocab_transform(hidden)))
        )
    raise InputError(
        f"{type(language_model).__name__} has no masked-LM head that is known; give a BERT, RoBERTa, DeBERTa,"
        " ModernBERT or DistilBERT"
    )


def head_parameters(language_model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the masked-LM head of a BERT by name, without the decoder, which is tied to the word embeddings."""
    return {
        name: parameter
        for name, parameter in language_model.named_parameters()
        if name.startswith("cls.predictions.") and "decoder" not in name
    }


class AudioBertForMaskedLM(nn.Module):
    """A masked language model that takes knowledge vectors at the first token of each span.

    Parameters
    ----------
    language_model : PreTrainedModel
        With its LoRA. Positions, token types and LayerNorm are applied once: knowledge goes into the word embeddings,
        before the model's own embedding layer adds the rest.
    injection : Injection, optional
        How knowledge enters; None makes it the plain language model.
    """

    def __init__(self, language_model: PreTrainedModel, injection: Injection | None = None) -> None:
        super().__init__()
        self.language_model, self.injection = language_model, injection

    def inputs(self, input_ids: Tensor, knowledge: SpanKnowledge | None) -> dict[str, Tensor]:
        """Return what the language model is called with: token ids, or embeddings `(rows, tokens, hidden_size)`."""
        if knowledge is None or self.injection is None:
            return {"input_ids": input_ids}
        words = self.language_model.get_input_embeddings()(input_ids)
        return {"inputs_embeds": self.injection(words, knowledge)}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, masks: Tensor, knowledge: SpanKnowledge | None = None
    ) -> Tensor:
        """Compute logits `(masks, vocabulary)` at the marked tokens, row by row from left to right.

        Parameters
        ----------
        input_ids, attention_mask : Tensor
            `(rows, tokens)`.
        masks : Tensor
            `(rows, tokens)` bool, where to predict.
        knowledge : SpanKnowledge, optional
            What is injected; None injects nothing.
        """
        return self.head(self.states(input_ids, attention_mask, masks, knowledge))

    def states(
        self, input_ids: Tensor, attention_mask: Tensor, masks: Tensor, knowledge: SpanKnowledge | None = None
    ) -> Tensor:
        """Compute the last hidden states `(masks, hidden_size)` at the marked tokens."""
        encoder = self.language_model.base_model
        return hidden_states(encoder, attention_mask, **self.inputs(input_ids, knowledge))[masks]

    def head(self, states: Tensor) -> Tensor:
        """Compute logits `(masks, vocabulary)` of hidden states."""
        return masked_lm_head(self.language_model)(states)

    @staticmethod
    def loss(logits: Tensor, answers: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Compute the summed cross entropy of logits `(masks, vocabulary)` and token ids `(masks,)`."""
        return functional.cross_entropy(logits.float(), answers, reduction="sum", label_smoothing=label_smoothing)


class AudioBertForCausalLM(AudioBertForMaskedLM):
    """A causal language model that takes knowledge vectors at the first token of each span of a prompt.

    Unlike a mask's, an answer stands behind the prompt: `masks` marks the token before each one that is predicted.
    """

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        masks: Tensor,
        knowledge: SpanKnowledge | None = None,
        *,
        share_beginning: bool | None = None,
    ) -> Tensor:
        """Compute logits `(masks, vocabulary)` of the tokens behind the marked ones; padding stands on the right.

        Parameters
        ----------
        share_beginning : bool, optional
            Pass the tokens that all rows begin with through the model once. The logits then differ in rounding. By
            default it is done in training, unless the model recomputes its layers and so keeps no cache.
        """
        if share_beginning is None:
            share_beginning = self.training and not any(
                getattr(module, "gradient_checkpointing", False) for module in self.language_model.modules()
            )
        columns = masks.any(dim=0).nonzero().squeeze(1)
        inputs = self.inputs(input_ids, knowledge)
        shared = common_beginning(input_ids, attention_mask, columns, knowledge) if share_beginning else 0
        cache = None
        if shared:
            first = {name: rows[:1, :shared] for name, rows in inputs.items()}
            cache = self.language_model.base_model(**first, use_cache=True).past_key_values
            cache.batch_repeat_interleave(len(input_ids))
            inputs = {name: rows[:, shared:] for name, rows in inputs.items()}
        output = self.language_model(
            **inputs,
            attention_mask=attention_mask,
            logits_to_keep=columns - shared,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.logits[masks[:, columns]]

    @torch.inference_mode()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, knowledge: SpanKnowledge | None = None, **settings: Any
    ) -> Tensor:
        """Generate behind prompts; knowledge enters with the prompt, and the key-value cache carries it on.

        Parameters
        ----------
        input_ids, attention_mask : Tensor
            `(rows, tokens)`, padding on the right as everywhere.
        **settings
            Of transformers' `generate`.

        Returns
        -------
        Tensor
            `(rows, new tokens)` token ids.
        """
        # `generate` appends on the right, so the padding moves to the left, embeddings with it.
        lengths = attention_mask.sum(dim=1)
        width = input_ids.shape[1]
        order = (torch.arange(width, device=input_ids.device) + lengths.unsqueeze(1)) % width  # (rows, tokens)
        attention_mask = attention_mask.gather(1, order)
        inputs = self.inputs(input_ids, knowledge)
        if "inputs_embeds" in inputs:
            embeddings = inputs["inputs_embeds"]
            moved = embeddings.gather(1, order.unsqueeze(-1).expand_as(embeddings))
            return self.language_model.generate(inputs_embeds=moved, attention_mask=attention_mask, **settings)  # type: ignore[operator]
        made = self.language_model.generate(  # type: ignore[operator]
            input_ids=input_ids.gather(1, order), attention_mask=attention_mask, **settings
        )
        return made[:, width:]

    @torch.inference_mode()
    def log_likelihoods(
        self,
        input_ids: Tensor,
        continuations: Sequence[Sequence[int]],
        knowledge: SpanKnowledge | None = None,
        *,
        batch_size: int,
    ) -> list[float]:
        """Return the log-likelihoods of continuations of one prompt, in nats, summed over tokens.

        The prompt passes the model once; each batch of continuations then starts from a copy of its key-value cache.

        Parameters
        ----------
        input_ids : Tensor
            `(1, tokens)`.
        continuations : sequence of sequences of int
            Token ids, at least one each.
        """
        output = self.language_model(**self.inputs(input_ids, knowledge), use_cache=True, logits_to_keep=1)
        first = output.logits[0, -1].float().log_softmax(dim=-1)  # (vocabulary,)
        scores = [float(first[ids[0]]) for ids in continuations]
        longer = sorted((i for i, ids in enumerate(continuations) if len(ids) > 1), key=lambda i: len(continuations[i]))
        for start in range(0, len(longer), batch_size):
            chosen = longer[start : start + batch_size]
            width = len(continuations[chosen[-1]])
            ids = torch.tensor([[*continuations[i], *[0] * (width - len(continuations[i]))] for i in chosen])
            ids = ids.to(input_ids.device)
            cache = copy.deepcopy(output.past_key_values)
            cache.batch_repeat_interleave(len(chosen))
            logits = self.language_model(input_ids=ids[:, :-1], past_key_values=cache).logits  # (rows, width - 1, ...)
            values = logits.float().log_softmax(dim=-1).gather(2, ids[:, 1:].unsqueeze(-1)).squeeze(-1).tolist()
            for i, own in zip(chosen, values, strict=True):
                scores[i] += sum(own[: len(continuations[i]) - 1])
        return scores


def common_beginning(
    input_ids: Tensor, attention_mask: Tensor, columns: Tensor, knowledge: SpanKnowledge | None
) -> int:
    """Return how many tokens all rows begin with, up to the first that is injected at or predicted from; 0 of one row.

    Parameters
    ----------
    columns : Tensor
        Sorted positions of the tokens that are predicted from.
    """
    if len(input_ids) < 2:
        return 0
    same = (input_ids == input_ids[:1]).all(dim=0) & attention_mask.bool().all(dim=0)
    count = min(int(same.long().cumprod(dim=0).sum()), int(columns[0]))
    if knowledge is not None:
        starts = knowledge.starts[knowledge.starts >= 0]
        count = min([count, *starts.flatten().tolist()])
    return count


def with_injection(language_model: PreTrainedModel, injection: Injection | None = None) -> AudioBertForMaskedLM:
    """Return a language model with its injection, in the class that fits its kind."""
    kind = AudioBertForCausalLM if is_causal(language_model) else AudioBertForMaskedLM
    return kind(language_model, injection)


def is_causal(language_model: PreTrainedModel) -> bool:
    """Return whether a language model predicts what follows, not what is masked."""
    return bool(language_model.can_generate())
