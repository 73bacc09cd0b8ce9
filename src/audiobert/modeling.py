"""`AudioBertForMaskedLM`: language model with LoRA and injection; forward and loss (section II-B3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

    def hidden(
        self, input_ids: Tensor, attention_mask: Tensor, masks: Tensor, knowledge: SpanKnowledge | None = None
    ) -> Tensor:
        """Compute hidden states `(masks, hidden_size)` at the positions where `masks` (rows, tokens) is True."""
        encoder = self.language_model.base_model
        if knowledge is None or self.injection is None:
            return hidden_states(encoder, attention_mask, input_ids=input_ids)[masks]
        words = self.language_model.get_input_embeddings()(input_ids)
        embeddings = self.injection(words, knowledge)
        return hidden_states(encoder, attention_mask, inputs_embeds=embeddings)[masks]

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
        return masked_lm_head(self.language_model)(self.hidden(input_ids, attention_mask, masks, knowledge))

    @staticmethod
    def loss(logits: Tensor, answers: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Compute the summed cross entropy of logits `(masks, vocabulary)` and token ids `(masks,)`."""
        return functional.cross_entropy(logits.float(), answers, reduction="sum", label_smoothing=label_smoothing)
