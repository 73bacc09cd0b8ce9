"""The training loop that all parts share: accelerate for devices and precision, checkpoints that resume exactly."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import send_to_device
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from audiobert.errors import InputError
from audiobert.progress import progress, stderr
from audiobert.training.board import Board
from audiobert.training.checkpoint import Checkpoint, restore, state
from audiobert.training.config import TrainingConfig
from audiobert.training.processes import on_cpu, processes

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


class RowBatches(Batches):
    """Batches of rows, made when they are asked for; they can be split over processes and into micro-batches.

    Parameters
    ----------
    groups
        The rows of each batch.
    make
        From a batch's number and (some of) its rows to what the objective is called with.
    """

    def __init__(self, groups: Sequence[Sequence[Any]], make: Callable[[int, Sequence[Any]], Batch]) -> None:
        super().__init__(len(groups), lambda index: make(index, groups[index]))
        self._groups, self._make_of = groups, make

    def share(self, index: int, process: int, process_count: int, parts: int) -> list[Batch]:
        """What one process computes of a batch, in `parts` micro-batches; nothing when there are too few rows."""
        rows = self._groups[index][process::process_count]
        size = -(-len(rows) // parts) or 1
        return [self._make_of(index, rows[start : start + size]) for start in range(0, len(rows), size)]


@dataclass(frozen=True)
class Recipe:
    """How the weights move: AdamW, cosine schedule with linear warm-up, gradient clipping.

    `average_from` is the fraction of the steps after which weights are averaged (the mean of all later steps); 1.0
    averages nothing. `keep` says which weights are the result: `average`, `best` (those of the epoch with the highest
    `best_by` among its figures; a name that starts with `-` wants the lowest) or `last`. Each process computes its
    share of a batch in `micro_batches` parts.
    """

    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    average_from: float = 1.0
    seed: int = 0
    precision: str = "bf16"
    micro_batches: int = 1
    keep: str = "average"
    best_by: str = ""
    checkpoint_seconds: float = 60.0

    @classmethod
    def of(cls, config: TrainingConfig, **more: Any) -> Self:
        """What a part's settings say under the names used here; `more` wins."""
        said = {field.name: getattr(config, field.name) for field in fields(cls) if hasattr(config, field.name)}
        return cls(**(said | more))


def learning_rate_at(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate: linear warm-up over `warmup` of the steps, then a cosine to zero."""
    warm_steps = max(1, round(warmup * steps))
    if step < warm_steps:
        return (step + 1) / warm_steps
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_steps) / max(1, steps - warm_steps)))


def set_dropout(module: nn.Module, share: float) -> None:
    """Set all dropout of a model: short trainings of small adapters need none, and on a CPU it is slow."""
    for inner in module.modules():
        if isinstance(inner, nn.Dropout):
            inner.p = share


def checkpoint_gradients(encoder: nn.Module) -> None:
    """Let an encoder of transformers compute its layers again on the way back, instead of keeping what they made.

    Raises
    ------
    InputError
        The architecture cannot do it.
    """
    for module in encoder.modules():
        if isinstance(module, PreTrainedModel):
            if not module.supports_gradient_checkpointing:
                raise InputError(
                    f"{type(module).__name__} has no gradient checkpointing; set gradient_checkpointing: false"
                )
            module.gradient_checkpointing_enable({"use_reentrant": False})
            return
    raise InputError("the audio encoder is none of transformers'; set gradient_checkpointing: false")


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that receive gradients, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


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
        into micro-batches and over processes changes nothing but rounding. It is moved to the device of this run.
    batches : callable
        From an epoch's number to its batches: `RowBatches`, or any sequence. A batch is what accelerate can send to a
        device (tensors in tuples, lists, dicts, or an object with `to`), or a list of micro-batches to accumulate.
    groups : dict, optional
        From a parameter-name prefix to a factor of the learning rate.
    after_epoch : callable, optional
        Called on the main process after each epoch; what it returns goes into `log.jsonl`.
    buffers : dict, optional
        Tensors that the objective changes in place while it trains; kept in checkpoints beside the weights.

    Returns
    -------
    list of dict
        The log, an entry an epoch; empty in all processes but the main one. The weights that `recipe.keep` names stand
        in `objective`.

    Raises
    ------
    InputError
        The memory was not enough for a step, or the best weights are wanted and there is no figure to choose them by.
    """
    if recipe.keep == "best" and not (recipe.best_by and after_epoch):
        raise InputError("keep is 'best', but this part has no figure after each epoch; set keep to average or last")
    folder.mkdir(parents=True, exist_ok=True)
    AcceleratorState._reset_state()  # a process may train twice with different precisions; accelerate keeps the first
    processes()
    accelerator = Accelerator(mixed_precision=recipe.precision if recipe.precision != "fp32" else "no", cpu=on_cpu())
    torch.manual_seed(recipe.seed)
    parameters = trainable(objective)
    objective.to(accelerator.device)
    optimizer = accelerator.prepare_optimizer(make_optimizer(parameters, recipe, groups or {}))
    first_epoch = batches(0)  # made once: to count the steps, and to train on
    per_epoch = [len(first_epoch)] + [len(batches(1)) if epochs == 2 else len(first_epoch)] * (epochs - 1)
    steps = sum(per_epoch)
    average_start = int(recipe.average_from * steps)
    averages = {name: torch.zeros_like(p) for name, p in parameters.items()} if average_start < steps else {}
    checkpoint, log_path = Checkpoint(folder, settings), folder / "log.jsonl"
    first, log = 0, []
    if checkpoint.begin(resume):
        first = restore(checkpoint, parameters, optimizer, averages, buffers or {})
        log = [json.loads(line) for line in log_path.read_text().splitlines()] if log_path.exists() else []
        log = log[: first // per_epoch[0]]
    elif accelerator.is_main_process:
        checkpoint.clear()
    accelerator.wait_for_everyone()
    board = Board(folder, first_step=first, write=accelerator.is_main_process)
    peak = {id(group): group["lr"] for group in optimizer.param_groups}
    saved_at, saving_took, step = time.monotonic(), 0.0, 0
    with progress() as bar, _enough_memory(recipe):
        task = bar.add_task(description, total=steps, completed=first, note="")
        for epoch in range(epochs):
            epoch_batches = batches(epoch) if epoch else first_epoch
            if step + len(epoch_batches) <= first:
                step += len(epoch_batches)
                continue
            total, count, began = 0.0, 0.0, time.monotonic()
            for index in range(len(epoch_batches)):
                if step < first:
                    step += 1
                    continue
                # Dropout of a step does not depend on the steps before, and is another in each process.
                torch.manual_seed((recipe.seed << 24) + step + (accelerator.process_index << 48))
                for group in optimizer.param_groups:
                    group["lr"] = peak[id(group)] * learning_rate_at(step, steps, recipe.warmup)
                micro_batches = _share(accelerator, epoch_batches, index, recipe.micro_batches)
                loss, terms = training_step(
                    accelerator, objective, optimizer, parameters, micro_batches, recipe.max_grad_norm
                )
                total, count, step = total + loss, count + terms, step + 1
                board.add({"loss": loss / max(terms, 1), "learning_rate": optimizer.param_groups[0]["lr"]}, step)
                if averages and step > average_start:
                    for name, parameter in parameters.items():
                        averages[name].lerp_(parameter.detach(), 1.0 / (step - average_start))
                bar.update(task, completed=step, note=f"loss {loss / max(terms, 1):.3f}")
                # Large models take a while to write: about a twentieth of the time may go into checkpoints.
                wait = min(20 * saving_took, 10 * recipe.checkpoint_seconds)
                due = saved_at + max(wait, recipe.checkpoint_seconds)
                if accelerator.is_main_process and time.monotonic() > due:
                    began_saving = time.monotonic()
                    checkpoint.save(state(parameters, optimizer, averages, buffers or {}), step)
                    saved_at = time.monotonic()
                    saving_took = saved_at - began_saving
            entry = {"epoch": epoch, "loss": total / max(count, 1), "seconds": time.monotonic() - began}
            if accelerator.is_main_process:
                figures = after_epoch(epoch) if after_epoch else {}
                entry |= figures
                log.append(entry)
                with log_path.open("w") as file:
                    file.writelines(json.dumps(line) + "\n" for line in log)
                board.add(figures, step)
                if recipe.best_by and figures:
                    sign = -1.0 if recipe.best_by.startswith("-") else 1.0
                    checkpoint.save_best(parameters, epoch, sign * figures[recipe.best_by.removeprefix("-")])
                summary = "  ".join(f"{k} {v:.4g}" for k, v in entry.items() if k != "epoch")
                stderr.print(f"{description}: epoch {epoch + 1}/{epochs}  {summary}")
            accelerator.wait_for_everyone()
    board.close()
    if accelerator.is_main_process and first < steps:  # the last weights stay; the moments have done their work
        checkpoint.save(state(parameters, None, averages, buffers or {}), steps)
    _keep(recipe.keep, parameters, averages, checkpoint)
    return log


def _share(accelerator: Accelerator, batches: Sequence[Batch], index: int, parts: int) -> list[Batch]:
    """The micro-batches of this process; every process computes the whole of a batch that cannot be split."""
    if isinstance(batches, RowBatches):
        return batches.share(index, accelerator.process_index, accelerator.num_processes, parts)
    batch = batches[index]
    return batch if isinstance(batch, list) else [batch]


def _keep(keep: str, parameters: dict[str, nn.Parameter], averages: dict[str, Tensor], checkpoint: Checkpoint) -> None:
    """Put the weights that are the result into the model."""
    chosen = {"average": averages, "last": {}}.get(keep)
    with torch.no_grad():
        for name, tensor in (load_file(checkpoint.best_path) if chosen is None else chosen).items():
            parameters[name].copy_(tensor)


@contextmanager
def _enough_memory(recipe: Recipe) -> Iterator[None]:
    """Turn running out of memory, which every device says in its own way, into one line."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(sign in str(error) for sign in ("out of memory", "can't allocate memory")):
            raise
        raise InputError(
            f"not enough memory for a step: raise micro_batches (now {recipe.micro_batches}; the result stays the"
            " same), set gradient_checkpointing, or lower batch_size"
        ) from error


def make_optimizer(parameters: dict[str, nn.Parameter], recipe: Recipe, groups: dict[str, float]) -> torch.optim.AdamW:
    """AdamW with the learning rates of the groups; vectors (biases, norms) do not decay."""
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


def training_step(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: Any,
    parameters: dict[str, nn.Parameter],
    micro_batches: Sequence[Batch],
    max_grad_norm: float,
) -> tuple[float, float]:
    """One step of the optimizer on this process's micro-batches; summed loss and number of terms of all processes."""
    objective.train()
    total = torch.zeros((), device=accelerator.device)
    count = torch.zeros((), device=accelerator.device)
    for micro_batch in micro_batches:
        with accelerator.autocast():
            loss_sum, terms = objective(send_to_device(micro_batch, accelerator.device))
        accelerator.backward(loss_sum)
        total += loss_sum.detach()
        count += terms
    total, count = _summed_over_processes(accelerator, list(parameters.values()), total, count)
    scale = 1.0 / max(float(count), 1.0)
    for parameter in parameters.values():
        if parameter.grad is not None:
            parameter.grad.mul_(scale)
    nn.utils.clip_grad_norm_(parameters.values(), max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(total), float(count)


def _summed_over_processes(
    accelerator: Accelerator, parameters: Sequence[nn.Parameter], total: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum loss, number of terms and gradients over the processes.

    The loop does this itself, in one piece a step, instead of wrapping the model: a process may have no rows of a
    batch, a parameter may have no gradient in some of them, and where none has one it stays without, as in a single
    process.
    """
    if accelerator.num_processes == 1:
        return total, count
    have = torch.tensor([float(p.grad is not None) for p in parameters], device=total.device)
    flat = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters]
    summed: Tensor = accelerator.reduce(torch.cat([total[None], count[None], have, *flat]), "sum")  # type: ignore[assignment]
    sizes = [1, 1, len(parameters), *(p.numel() for p in parameters)]
    total, count, have, *gradients = summed.split(sizes)
    for parameter, gradient, someone in zip(parameters, gradients, have.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if someone else None
    return total.squeeze(), count.squeeze()
