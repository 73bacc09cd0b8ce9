"""Tiny causal language models of each family with random weights, saved as a hub would hand them over."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import processors
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from auditorybench_toys import _byte_level, _train_byte_level

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 256, "initializer_range": 0.3, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
FAMILIES = ("llama", "gemma2", "qwen2", "mistral", "gpt2")
# One template says who the model is, as Llama's and SmolLM2's do; the other strips what the user says, as Gemma's does.
SYSTEM = (
    "{% for message in messages %}{% if loop.first %}<s>system\nYou hear a sound.</s>\n{% endif %}"
    "<s>{{ message['role'] }}\n{{ message['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
STRIPPED = (
    "{{ bos_token }}{% for message in messages %}<u>{{ message['content'] | trim }}</u>\n{% endfor %}"
    "{% if add_generation_prompt %}<m>{% endif %}"
)


def causal_tokenizer(*, beginning: bool, template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer; with a beginning-of-text token before every text, as Llama's and Gemma's, or without."""
    tokenizer = _byte_level()
    _train_byte_level(tokenizer, ["<s>", "</s>", "<pad>"])
    if beginning:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=template
    )


def causal(family: str, folder: Path, **changed: object) -> Path:
    """Save a tiny model of a family with its tokenizer."""
    beginning = family in ("llama", "gemma2", "mistral")
    template = {"llama": SYSTEM, "gemma2": STRIPPED}.get(family)
    tokenizer = causal_tokenizer(beginning=beginning, template=template)
    sizes = {**SIZES, "vocab_size": len(tokenizer), **changed}
    torch.manual_seed(0)
    if family == "gpt2":
        wide = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": sizes["max_position_embeddings"]}
        ends = {name: sizes[name] for name in ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id")}
        model = GPT2LMHeadModel(GPT2Config(**wide, **ends))
    elif family == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**sizes, head_dim=8, sliding_window=16))
    else:
        kinds = {
            "llama": (LlamaForCausalLM, LlamaConfig),
            "qwen2": (Qwen2ForCausalLM, Qwen2Config),
            "mistral": (MistralForCausalLM, MistralConfig),
        }
        kind, config = kinds[family]
        model = kind(config(**sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
