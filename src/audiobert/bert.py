"""Compute hidden states; of a BERT with few calls from Python, which is a fifth of the time of one short sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel


def hidden_states(
    encoder: Any, attention_mask: Tensor, *, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None
) -> Tensor:
    """Compute the last hidden states `(rows, tokens, hidden_size)` of a transformers encoder.

    A BERT that is not in training and has no adapters gives the values of its own `forward` with the attention `sdpa`,
    by the same operations on the same weights. Every other encoder is called as it is.

    Parameters
    ----------
    attention_mask : Tensor
        `(rows, tokens)`, 1 at tokens and 0 at padding.
    input_ids, inputs_embeds : Tensor
        One of both: `(rows, tokens)` or `(rows, tokens, hidden_size)`.
    """
    if not _is_plain_bert(encoder):
        output = encoder(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask)
        return output.last_hidden_state
    hidden = encoder.embeddings(input_ids=input_ids, inputs_embeds=inputs_embeds)
    rows, tokens = attention_mask.shape
    seen = None if bool(attention_mask.all()) else attention_mask.bool()[:, None, None, :].expand(-1, 1, tokens, -1)
    for layer in encoder.encoder.layer:
        attention = layer.attention.self
        by_head = (rows, tokens, attention.num_attention_heads, attention.attention_head_size)
        query, key, value = (
            functional.linear(hidden, part.weight, part.bias).view(by_head).transpose(1, 2)
            for part in (attention.query, attention.key, attention.value)
        )  # (rows, heads, tokens, head_size)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        hidden = _add_and_norm(layer.attention.output, mixed.transpose(1, 2).reshape(hidden.shape), hidden)
        inner = functional.linear(hidden, layer.intermediate.dense.weight, layer.intermediate.dense.bias)
        hidden = _add_and_norm(layer.output, layer.intermediate.intermediate_act_fn(inner), hidden)
    return hidden


def _is_plain_bert(encoder: Any) -> bool:
    """Return whether an encoder is a BERT out of training whose layers are linear layers without adapters."""
    if not isinstance(encoder, BertModel) or encoder.training or encoder.config.is_decoder:
        return False
    layers: Any = encoder.encoder.layer
    return all(
        type(part) is nn.Linear
        for layer in layers
        for part in (
            layer.attention.self.query,
            layer.attention.self.key,
            layer.attention.self.value,
            layer.attention.output.dense,
            layer.intermediate.dense,
            layer.output.dense,
        )
    )


def _add_and_norm(block: Any, values: Tensor, hidden: Tensor) -> Tensor:
    """Return the LayerNorm of a linear layer's output plus the states before it."""
    norm = block.LayerNorm
    added = functional.linear(values, block.dense.weight, block.dense.bias) + hidden
    return torch.layer_norm(added, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
