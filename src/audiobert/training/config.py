"""Define the settings that every training has; each part's own are in a subclass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from audiobert.settings import Settings

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0.0)]


class TrainingConfig(Settings):
    """Settings of a training run.

    Attributes
    ----------
    seed
        Of everything random: initial weights, the order of the rows, dropout.
    precision
        `bf16` computes in bfloat16 and keeps the weights in float32; on a CPU without AMX it computes in float32, which
        is faster there.
    warmup
        Fraction of the steps in which the learning rate rises to its peak.
    schedule
        Then a `cosine` takes it to zero, or it stays `constant`, for averaging the weights of a model that is trained.
    weight_decay
        AdamW's, on matrices; vectors (biases, norms) have none.
    max_grad_norm
        Gradients are scaled down to this norm.
    micro_batches
        Number of parts in which a batch is computed, for less memory. Gradients add up and are divided once, so that
        the result is the same but for rounding where nothing is random within a batch. Dropout, and clips that are
        chosen for a batch, are drawn for each part: with these the result differs as between two seeds.
    keep
        The weights that are the result: the `average` over the end of training (see `average_from`; the last where
        nothing is averaged), those of the `best` epoch by its figure on dev, or the `last`.
    average_from
        Fraction of the steps after which weights are averaged: the mean over all later steps. 1.0 averages nothing.
    """

    seed: int = Field(default=0, ge=0)
    precision: Literal["bf16", "fp32"] = "bf16"
    warmup: Fraction = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = Field(default=0.01, ge=0.0)
    max_grad_norm: Rate = 1.0
    micro_batches: Count = 1
    keep: Literal["average", "best", "last"] = "average"
    average_from: Fraction = 1.0
