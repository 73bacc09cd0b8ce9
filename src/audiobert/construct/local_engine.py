"""A language model in this process, by transformers: for a machine with a GPU and no server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from audiobert.construct.llm import Completion, LlmSettings, Request, Traffic
from audiobert.errors import InputError


class LocalModel:
    """A causal language model from a hub id or a folder; weights are safetensors, no remote code.

    Raises
    ------
    InputError
        When the model cannot be loaded, or its tokenizer has no chat template.
    """

    def __init__(self, settings: LlmSettings, traffic: Traffic) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.settings, self.traffic = settings, traffic
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(settings.model, padding_side="left")
            self._model = AutoModelForCausalLM.from_pretrained(
                settings.model, use_safetensors=True, dtype="auto", **settings.engine_kwargs
            )
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise InputError(f"no language model '{settings.model}' ({reason}); give a hub id or a folder") from None
        if not self._tokenizer.chat_template:
            raise InputError(f"'{settings.model}' has no chat template; give a model that is made for chat")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model.to(self._device).eval()  # type: ignore[arg-type]

    def complete(self, requests: Sequence[Request], done: Callable[[int, Completion], None]) -> None:
        """Complete chats, `batch_size` at a time, in the order given."""
        for start in range(0, len(requests), self.settings.batch_size):
            batch = requests[start : start + self.settings.batch_size]
            for offset, completion in enumerate(self._batch(batch)):
                self.traffic.count(completion)
                done(start + offset, completion)

    def _batch(self, batch: Sequence[Request]) -> list[Completion]:
        import torch

        settings = self.settings
        self.traffic.requests += 1
        encoded: Any = self._tokenizer.apply_chat_template(
            [list(request.messages) for request in batch],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
            padding=True,
        )
        encoded = encoded.to(self._device)
        sampling: dict[str, Any] = {"do_sample": False}
        if settings.temperature > 0:
            sampling = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(settings.seed)
            output = self._model.generate(  # type: ignore[misc]
                **encoded,
                max_new_tokens=settings.max_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
                **sampling,
            )  # (batch, prompt + new)
        completions = []
        ends = {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id}
        configured = self._model.generation_config.eos_token_id
        ends |= set(configured) if isinstance(configured, list) else {configured}
        for row, mask in zip(
            output[:, encoded["input_ids"].shape[1] :].tolist(), encoded["attention_mask"], strict=True
        ):
            new = next((index for index, token in enumerate(row) if token in ends), len(row))
            text = str(self._tokenizer.decode(row[:new], skip_special_tokens=True))
            finish = "stop" if new < len(row) or len(row) < settings.max_tokens else "length"
            completions.append(Completion(text, finish, int(mask.sum()), new))
        return completions
