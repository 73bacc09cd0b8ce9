"""Settings of a training run: a pydantic model a part, filled from a YAML file and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audiobert.errors import InputError


class TrainingConfig(BaseModel):
    """What every part has; unknown keys are refused.

    Attributes
    ----------
    precision
        `bf16` computes in bfloat16 and keeps the weights in float32.
    warmup
        Share of the steps in which the learning rate climbs to its peak; a cosine takes it to zero after that.
    weight_decay
        AdamW's, on matrices; vectors (biases, norms) have none.
    max_grad_norm
        Gradients are scaled down to this norm.
    micro_batches
        Compute a batch in so many parts whose gradients add up: less memory, the same result but for rounding.
    keep
        Which weights are the result: the `average` over the end of training (see `average_from`; where nothing is
        averaged, the last), the `best` epoch's by its figure on dev, or the `last`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    warmup: float = Field(default=0.1, ge=0.0, le=1.0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    micro_batches: int = Field(default=1, ge=1)
    keep: Literal["average", "best", "last"] = "average"

    @classmethod
    def load(cls, path: Path | None, **overrides: Any) -> Self:
        """Settings from a YAML file (or the defaults), with `overrides` that are not None on top.

        Raises
        ------
        InputError
            The file is missing, is no YAML mapping, or has an unknown key or a value that does not fit.
        """
        values: Any = {}
        if path is not None:
            try:
                values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            except FileNotFoundError:
                raise InputError(f"{path} does not exist; --config wants a YAML file") from None
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
            if not isinstance(values, dict):
                raise InputError(f"{path} holds {type(values).__name__}; a mapping of settings is wanted")
        values |= {key: value for key, value in overrides.items() if value is not None}
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            where = path or "the settings"
            if first["type"] == "extra_forbidden":
                known = _fields_at(cls, first["loc"][:-1])
                raise InputError(f"{where} has the unknown key {key!r}; known are: {', '.join(known)}") from None
            raise InputError(f"{where}: {key} is {first['input']!r}: {first['msg']}") from None


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names of the fields of the model that stands at a path of keys within a model."""
    for key in path:
        annotation = model.model_fields[str(key)].annotation
        inner = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        model = next(kind for kind in inner if issubclass(kind, BaseModel))
    return list(model.model_fields)
