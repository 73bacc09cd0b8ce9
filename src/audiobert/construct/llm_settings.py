"""Hold settings of the language model that writes the questions: where it runs, and what it may cost."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from audiobert.llm.settings import ServerSettings

_CODE_OR_PICKLES = re.compile(r"remote_code|code_revision|use_safetensors|load_format|pickle|hf_overrides")


class LlmSettings(ServerSettings):
    """Settings of a language model; those of a server hold for `engine: http` alone, the sampling for all engines.

    Attributes
    ----------
    input_price, output_price
        Price per million tokens, in the currency of `max_cost`.
    batch_size
        Chats per forward pass (`transformers`) or per batch (`ray`).
    engine_kwargs
        Keyword arguments of `from_pretrained` (`transformers`) or of vLLM (`ray`).
    """

    engine: Literal["http", "transformers", "ray"] = "http"
    temperature: float = Field(default=0.6, ge=0)
    top_p: float | None = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=400, ge=16)
    seed: int | None = 0
    input_price: float = Field(default=0.0, ge=0)
    output_price: float = Field(default=0.0, ge=0)
    max_cost: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, ge=1)
    engine_kwargs: dict[str, Any] = Field(default={})

    @field_validator("engine_kwargs")
    @classmethod
    def _no_code_and_no_secret(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        if refused := sorted(name for name in kwargs if _CODE_OR_PICKLES.search(name)):
            raise ValueError(f"{', '.join(refused)} cannot be set: weights are safetensors, and no remote code is run")
        return cls._no_secret_in_body(kwargs)
