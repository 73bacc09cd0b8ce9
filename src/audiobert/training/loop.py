"""The training loop that all parts share: accelerate for devices and precision, checkpoints that resume exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiobert.artefacts import read_json, whole_file, write_json
from audiobert.errors import ArtefactError
from audiobert.progress import progress, stderr

Batch = Any


class Batches(Sequence[Batch]):
    """The batches of an epoch, each made when it is asked for."""

    def __init__(self, count: int, make: Callable[[int], Batch]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Batch:
        if index >= self._count:
            raise IndexError(index)
        return self._make(index)


@dataclass(frozen=True)
class Recipe:
    """How the weights move: AdamW, cosine schedule with linear warm-up, gradient clipping.

    `average_from` is the fraction of the steps after which weights are averaged (the mean of all later steps is the
    result); 1.0 keeps the last weights.
    """

    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    average_from: float = 1.0
    seed: int = 0
    precision: str = "bf16"
    checkpoint_seconds: float = 60.0


def learning_rate_at(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate: linear warm-up over `warmup` of the steps, then a cosine to zero."""
    warm_steps = max(1, round(warmup * steps))
    if step < warm_steps:
        return (step + 1) / warm_steps
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_steps) / max(1, steps - warm_steps)))


def without_dropout(module: nn.Module) -> None:
    """Switch dropout off for good: short trainings of small adapters need none, and on a CPU it is slow."""
    for inner in module.modules():
        if isinstance(inner, nn.Dropout):
            inner.p = 0.0


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that receive gradients, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


class Checkpoint:
    """Weights, optimizer moments and averages of one run, in one safetensors file that appears whole."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.weights_path = folder / "checkpoint.safetensors"
        self.settings_path = folder / "settings.json"
        self.settings = json.loads(json.dumps(settings))

    def begin(self, resume: bool) -> bool:
        """Prepare the folder; True when there is a checkpoint of the same settings to go on from."""
        if resume and self.weights_path.exists():
            if read_json(self.settings_path) != self.settings:
                raise ArtefactError(
                    f"{self.settings_path} was written with other settings; resume with those, or give another --out"
                )
            return True
        self.weights_path.unlink(missing_ok=True)
        write_json(self.settings_path, self.settings)
        return False

    def save(self, tensors: dict[str, Tensor], step: int) -> None:
        with whole_file(self.weights_path) as part:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, {"step": str(step)})

    def load(self) -> tuple[dict[str, Tensor], int]:
        from safetensors import safe_open

        with safe_open(str(self.weights_path), "pt") as file:
            step = int(file.metadata()["step"])
        return load_file(self.weights_path), step


def fit(
    objective: nn.Module,
    batches: Callable[[int], Sequence[Batch]],
    epochs: int,
    recipe: Recipe,
    folder: Path,
    *,
    settings: dict[str, Any],
    resume: bool = False,
    description: str = "training",
    groups: dict[str, float] | None = None,
    after_epoch: Callable[[int], dict[str, float]] | None = None,
    buffers: dict[str, Tensor] | None = None,
) -> list[dict[str, float]]:
    """Train the parameters of `objective` that want gradients.

    Parameters
    ----------
    objective : nn.Module
        Called with a batch, returns the summed loss (scalar tensor) and the number of terms in the sum (scalar tensor);
        gradients are divided by the number over the whole step and over all processes, so that the split of a batch
        into processes changes nothing but rounding.
    batches : callable
        From an epoch's number to its batches; a batch may be any object, or a list of micro-batches to accumulate.
    groups : dict, optional
        From a parameter-name prefix to a factor of the learning rate.
    after_epoch : callable, optional
        Called on the main process after each epoch; what it returns goes into `log.jsonl`.
    buffers : dict, optional
        Tensors that the objective changes in place while it trains; kept in checkpoints beside the weights.

    Returns
    -------
    list of dict
        The log, an entry an epoch. The trained (or averaged) weights stand in `objective`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    AcceleratorState._reset_state()  # a process may train twice with different precisions; accelerate keeps the first
    accelerator = Accelerator(mixed_precision=recipe.precision if recipe.precision != "fp32" else "no")
    torch.manual_seed(recipe.seed)
    parameters = trainable(objective)
    optimizer = _optimizer(parameters, recipe, groups or {})
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    first_epoch = batches(0)  # made once: to count the steps, and to train on
    per_epoch = [len(first_epoch)] + [len(batches(1)) if epochs == 2 else len(first_epoch)] * (epochs - 1)
    steps = sum(per_epoch)
    average_start = int(recipe.average_from * steps)
    averages = {name: torch.zeros_like(p) for name, p in parameters.items()} if average_start < steps else {}
    checkpoint, log_path = Checkpoint(folder, settings), folder / "log.jsonl"
    first, log = 0, []
    if checkpoint.begin(resume):
        first = _restore(checkpoint, parameters, optimizer, averages, buffers or {})
        log = [json.loads(line) for line in log_path.read_text().splitlines()] if log_path.exists() else []
        log = log[: first // per_epoch[0]]
    peak = {id(group): group["lr"] for group in optimizer.param_groups}
    saved_at, step = time.monotonic(), 0
    with progress() as bar:
        task = bar.add_task(description, total=steps, completed=first, note="")
        for epoch in range(epochs):
            epoch_batches = batches(epoch) if epoch else first_epoch
            if step + len(epoch_batches) <= first:
                step += len(epoch_batches)
                continue
            total, count, began = 0.0, 0.0, time.monotonic()
            for batch in epoch_batches:
                if step < first:
                    step += 1
                    continue
                torch.manual_seed((recipe.seed << 24) + step)  # dropout of a step does not depend on the steps before
                for group in optimizer.param_groups:
                    group["lr"] = peak[id(group)] * learning_rate_at(step, steps, recipe.warmup)
                loss, terms = _step(accelerator, wrapped, optimizer, parameters, batch, recipe.max_grad_norm)
                total, count, step = total + loss, count + terms, step + 1
                if averages and step > average_start:
                    for name, parameter in parameters.items():
                        averages[name].lerp_(parameter.detach(), 1.0 / (step - average_start))
                bar.update(task, completed=step, note=f"loss {loss / max(terms, 1):.3f}")
                if accelerator.is_main_process and time.monotonic() - saved_at > recipe.checkpoint_seconds:
                    checkpoint.save(_state(parameters, optimizer, averages, buffers or {}), step)
                    saved_at = time.monotonic()
            entry = {"epoch": epoch, "loss": total / max(count, 1), "seconds": time.monotonic() - began}
            if accelerator.is_main_process:
                entry |= after_epoch(epoch) if after_epoch else {}
                log.append(entry)
                with log_path.open("w") as file:
                    file.writelines(json.dumps(line) + "\n" for line in log)
                summary = "  ".join(f"{k} {v:.4g}" for k, v in entry.items() if k != "epoch")
                stderr.print(f"{description}: epoch {epoch + 1}/{epochs}  {summary}")
    if averages:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(averages[name])
    return log


def _optimizer(parameters: dict[str, nn.Parameter], recipe: Recipe, groups: dict[str, float]) -> torch.optim.AdamW:
    sorted_in: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        factor = next((factor for prefix, factor in groups.items() if name.startswith(prefix)), 1.0)
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        sorted_in.setdefault((factor, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": recipe.learning_rate * factor, "weight_decay": decay}
            for (factor, decay), members in sorted_in.items()
        ]
    )


def _step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: Any,
    parameters: dict[str, nn.Parameter],
    batch: Batch,
    max_grad_norm: float,
) -> tuple[float, float]:
    model.train()
    micro_batches = batch if isinstance(batch, list) else [batch]
    total = torch.zeros((), device=accelerator.device)
    count = torch.zeros((), device=accelerator.device)
    for index, micro_batch in enumerate(micro_batches):
        last = index == len(micro_batches) - 1
        with accelerator.no_sync(model) if not last else nullcontext():
            loss_sum, terms = model(micro_batch)
            accelerator.backward(loss_sum)
        total += loss_sum.detach()
        count += terms
    total, count = accelerator.reduce(total, "sum"), accelerator.reduce(count, "sum")
    scale = accelerator.num_processes / max(float(count), 1.0)  # DDP has averaged over the processes already
    for parameter in parameters.values():
        if parameter.grad is not None:
            parameter.grad.mul_(scale)
    nn.utils.clip_grad_norm_(parameters.values(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(total), float(count)


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a parameter


def _state(
    parameters: dict[str, nn.Parameter], optimizer: Any, averages: dict[str, Tensor], buffers: dict[str, Tensor]
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {f"weight:{name}": parameter for name, parameter in parameters.items()}
    state |= {f"buffer:{name}": tensor for name, tensor in buffers.items()}
    state |= {f"average:{name}": tensor for name, tensor in averages.items()}
    for name, parameter in parameters.items():
        for moment, value in optimizer.state.get(parameter, {}).items():
            state[f"{moment}:{name}"] = torch.as_tensor(value)
    return state


def _restore(
    checkpoint: Checkpoint,
    parameters: dict[str, nn.Parameter],
    optimizer: Any,
    averages: dict[str, Tensor],
    buffers: dict[str, Tensor],
) -> int:
    tensors, step = checkpoint.load()
    with torch.no_grad():
        for name, tensor in buffers.items():
            tensor.copy_(tensors[f"buffer:{name}"])
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight:{name}"])
            if name in averages:
                averages[name].copy_(tensors[f"average:{name}"])
            moments = {m: tensors[f"{m}:{name}"] for m in _MOMENTS if f"{m}:{name}" in tensors}
            if moments:
                optimizer.state[parameter] = {
                    m: v.to(parameter.device) if m != "step" else v for m, v in moments.items()
                }
    return step
