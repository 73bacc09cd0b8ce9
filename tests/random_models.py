"""Published architectures at their real width, from their configs, with random weights."""

from __future__ import annotations

import torch
from torch import nn


def random_model(kind: type[nn.Module], config: object) -> nn.Module:
    """Return a model with random weights; give a config of few layers, since each layer of real width costs time."""
    torch.manual_seed(0)
    return kind(config).eval()


def million_parameters(kind: type[nn.Module], config: object) -> float:
    """Return the number of parameters of a whole model in millions, without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in kind(config).parameters()) / 1e6
