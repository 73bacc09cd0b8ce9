"""Take one step of the optimizer, over micro-batches and processes, by a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce, send_to_device
from torch import Tensor, nn

from audiobert.training.config import TrainingConfig

Batch = Any


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that learn at a multiple of the learning rate."""

    parameters: Sequence[nn.Parameter]
    factor: float


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimizer: AdamW, schedule with linear warm-up, gradient clipping.

    Most fields are described in `TrainingConfig`. `best_by` names the figure of `after_epoch` by which `keep: best`
    chooses; a name that starts with `-` means that lower is better. `checkpoint_seconds` is the least time between two
    checkpoints within an epoch.
    """

    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    schedule: str = "cosine"
    average_from: float = 1.0
    seed: int = 0
    precision: str = "bf16"
    micro_batches: int = 1
    keep: str = "average"
    best_by: str = ""
    checkpoint_seconds: float = 60.0

    @classmethod
    def of(cls, config: TrainingConfig, **more: Any) -> Self:
        """Take the values of a part's settings; `more` wins."""
        named = {field.name: getattr(config, field.name) for field in fields(cls) if hasattr(config, field.name)}
        return cls(**(named | more))


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that receive gradients, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def step_seed(seed: int, step: int, process: int) -> int:
    """Return the seed of one step in one process, in 32 bits as numpy wants it."""
    return int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0])


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], recipe: Recipe, groups: Sequence[ParameterGroup]
) -> torch.optim.AdamW:
    """Return AdamW with the learning rates of the groups; vectors (biases, norms) do not decay."""
    factors: dict[int, float] = {}
    for group in groups:
        for parameter in group.parameters:
            if id(parameter) in factors:
                raise ValueError("a parameter is in two groups")
            factors[id(parameter)] = group.factor
    sorted_in: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters.values():
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        sorted_in.setdefault((factors.get(id(parameter), 1.0), decay), []).append(parameter)
    rates = [(recipe.learning_rate * factor, decay, members) for (factor, decay), members in sorted_in.items()]
    # The schedule of a resumed run wants initial_lr to be there.
    return torch.optim.AdamW(
        [{"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay} for rate, decay, members in rates]
    )


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Return whether to compute in bfloat16: on a CPU only where it has AMX, without which float32 is faster."""
    if precision != "bf16" or device.type != "cpu":
        return precision == "bf16"
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # of newer versions of torch
    return bool(capabilities and capabilities().get("amx_bf16"))


def training_step(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Batch],
    recipe: Recipe,
    own: PartialState,
) -> tuple[float, float]:
    """Take one step on this process's micro-batches; return the summed loss and number of terms of all processes."""
    objective.train()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total = torch.zeros((), device=own.device)
    count = torch.zeros((), device=own.device)
    for micro_batch in micro_batches:
        with torch.autocast(own.device.type, torch.bfloat16, enabled=in_bfloat16(recipe.precision, own.device)):
            loss_sum, terms = objective(send_to_device(micro_batch, own.device))
        loss_sum.backward()
        total += loss_sum.detach()
        count += terms
    total, count = _summed_over_processes(own, parameters, total, count)
    scale = 1.0 / max(float(count), 1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(scale)
    nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(total), float(count)


def _summed_over_processes(
    own: PartialState, parameters: Sequence[nn.Parameter], total: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum loss, number of terms and gradients over the processes.

    The loop does this itself, in one piece per step, instead of wrapping the model: a process may have no rows of a
    batch, a parameter may have no gradient in some of them, and where none has one it stays without, as in a single
    process.
    """
    if own.num_processes == 1:
        return total, count
    have = torch.tensor([float(p.grad is not None) for p in parameters], device=total.device)
    flat = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters]
    summed = reduce(torch.cat([total[None], count[None], have, *flat]), "sum")
    sizes = [1, 1, len(parameters), *(p.numel() for p in parameters)]
    total, count, have, *gradients = summed.split(sizes)
    for parameter, gradient, someone in zip(parameters, gradients, have.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if someone else None
    return total.squeeze(), count.squeeze()
