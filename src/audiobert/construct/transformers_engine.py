"""Run a chat model in this process, by transformers, with or without a GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from audiobert.backbone import find_model, load_tokenizer, load_weights
from audiobert.construct.llm_settings import LlmSettings
from audiobert.errors import InputError, out_of_memory
from audiobert.llm.chat import Completion, Request, Traffic

# What `engine_kwargs` may hold.
_LOADING = frozenset({"attn_implementation", "device_map", "dtype", "quantization_config", "revision"})


class TransformersEngine:
    """A causal chat model from a hub id or a folder; weights are safetensors, no remote code is run.

    It is loaded as float32 on a CPU and as bfloat16 on a GPU, unless `engine_kwargs` has `dtype`. `extra_body` holds
    further settings of `generate` (`top_k`, `repetition_penalty`, ...) and `chat_template_kwargs`.
    """

    def __init__(self, settings: LlmSettings, traffic: Traffic) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        kwargs = dict(settings.engine_kwargs)
        if unknown := sorted(set(kwargs) - _LOADING):
            raise InputError(
                f"llm.engine_kwargs has {', '.join(unknown)}; engine 'transformers' takes {', '.join(sorted(_LOADING))}"
            )
        self.settings, self.traffic = settings, traffic
        on_gpu = torch.cuda.is_available()
        dtype = str(kwargs.pop("dtype", "bfloat16" if on_gpu else "float32"))
        if dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f"llm.engine_kwargs.dtype is '{dtype}'; float32, bfloat16 or float16 is wanted")
        name = settings.model
        folder, _, _ = find_model(name, kwargs.pop("revision", None))
        self._tokenizer: Any = load_tokenizer(folder, name)
        model = load_weights(AutoModelForCausalLM, folder, name, whole=True, dtype=getattr(torch, dtype), **kwargs)
        if not self._tokenizer.chat_template:
            raise InputError(f"'{settings.model}' has no chat template; give a model that is made for chat")
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.convert_ids_to_tokens(0)
        if on_gpu and "device_map" not in kwargs:
            model = model.to("cuda")
        self._model = model.eval()
        ends = self._model.generation_config.eos_token_id
        self._ends = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._positions = getattr(self._model.config, "max_position_embeddings", None)
        self._template, self._generation = self._kwargs()

    def _kwargs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the keyword arguments of the chat template and of `generate`."""
        from transformers import GenerationConfig

        settings, more = self.settings, dict(self.settings.extra_body)
        template = more.pop("chat_template_kwargs", {})
        if unknown := sorted(name for name in more if not hasattr(GenerationConfig(), name)):
            raise InputError(f"llm.extra_body has {', '.join(unknown)}, which transformers' generate does not know")
        sampling: dict[str, Any] = {"do_sample": False}
        if settings.temperature > 0:
            sampling = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p or 1.0}
            # transformers would keep the 50 likeliest tokens, which no setting names.
            sampling["top_k"] = self._model.generation_config.top_k or 0
        return template, {**sampling, "max_new_tokens": settings.max_tokens, **more}

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completion]]]:
        """Complete chats, `batch_size` at a time, in the order given.

        A batch is yielded as a whole, so that a resumed run forms the same batches and draws the same answers.
        """
        prompts = [self._prompt(request) for request in requests]
        for start in range(0, len(requests), self.settings.batch_size):
            batch = prompts[start : start + self.settings.batch_size]
            yield list(enumerate(self._batch(batch), start))

    def _prompt(self, request: Request) -> list[int]:
        from jinja2 import TemplateError

        try:
            encoded = self._tokenizer.apply_chat_template(
                list(request.messages), add_generation_prompt=True, return_dict=True, **self._template
            )
        except TemplateError as error:
            raise InputError(f"the chat template of '{self.settings.model}' refuses a chat: {error}") from None
        return list(encoded["input_ids"])

    def _batch(self, prompts: Sequence[list[int]]) -> list[Completion]:
        import torch

        room = self._positions - self.settings.max_tokens if self._positions else None
        completions = [Completion(f"{len(prompt)} tokens with room for {room}", "refused") for prompt in prompts]
        fitting = {index: prompt for index, prompt in enumerate(prompts) if room is None or len(prompt) <= room}
        if not fitting:
            return completions
        self.traffic.requests += 1
        chosen = list(fitting.values())
        try:
            with torch.random.fork_rng(), torch.inference_mode():
                encoded = self._encoded(chosen)
                torch.manual_seed(seed_of(chosen, self.settings.seed))
                output = self._model.generate(
                    **encoded, pad_token_id=self._tokenizer.pad_token_id, **self._generation
                )  # (batch, prompt + new)
        except Exception as error:
            if out_of_memory(error):
                raise InputError(
                    f"not enough memory for {len(fitting)} chats at once; lower llm.batch_size and run it again"
                ) from None
            raise
        for index, row in zip(fitting, output[:, encoded["input_ids"].shape[1] :].tolist(), strict=True):
            new = next((place for place, token in enumerate(row) if token in self._ends), len(row))
            finish = "stop" if new < len(row) else "length"
            text = str(self._tokenizer.decode(row[:new], skip_special_tokens=True))
            completions[index] = Completion(text, finish, len(prompts[index]), new)
            self.traffic.count(completions[index])
        return completions

    def _encoded(self, prompts: Sequence[list[int]]) -> dict[str, Any]:
        """Return `input_ids` and `attention_mask` `(batch, prompt)`, and the key-value cache of what all begin with.

        The chats of one question share its instructions and examples, most of their tokens: one pass for a batch.
        Padding stands behind the shared beginning, where the attention mask keeps positions as they are.
        """
        import torch

        columns = enumerate(zip(*(prompt[:-1] for prompt in prompts), strict=False))  # each keeps a token to go on from
        different = (place for place, tokens in columns if len(set(tokens)) > 1)
        shared = next(different, min(map(len, prompts)) - 1) if len(prompts) > 1 else 0
        rest = self._tokenizer.pad({"input_ids": [prompt[shared:] for prompt in prompts]}, return_tensors="pt")
        encoded = dict(rest.to(self._model.device))
        if shared:
            beginning = torch.tensor([prompts[0][:shared]], device=self._model.device)
            cache = self._model(input_ids=beginning, use_cache=True, logits_to_keep=1).past_key_values
            cache.batch_repeat_interleave(len(prompts))
            rows = beginning.expand(len(prompts), -1)
            encoded["input_ids"] = torch.cat([rows, encoded["input_ids"]], dim=1)
            encoded["attention_mask"] = torch.cat([torch.ones_like(rows), encoded["attention_mask"]], dim=1)
            encoded["past_key_values"] = cache
        return encoded


def seed_of(prompts: Sequence[list[int]], seed: int | None) -> int:
    """Return the seed of a batch: other prompts draw other random numbers, the same prompts the same ones."""
    return int.from_bytes(hashlib.sha256(repr((prompts, seed)).encode()).digest()[:7])
