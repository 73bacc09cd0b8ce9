"""Run the training loop that all parts share: devices and processes by accelerate, checkpoints that resume."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from transformers import (
    PreTrainedModel,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
)

from audiobert.artefacts import check_folder, locked
from audiobert.errors import InputError, out_of_memory
from audiobert.progress import progress, stderr
from audiobert.training.board import Board
from audiobert.training.checkpoint import Checkpoint, Progress, restore, state
from audiobert.training.config import TrainingConfig
from audiobert.training.processes import processes
from audiobert.training.step import Batch, ParameterGroup, Recipe, make_optimizer, step_seed, trainable, training_step

KEPT = "keep"  # the one setting that is applied after training


class Batches(Sequence[Batch]):
    """The batches of an epoch, each made when it is indexed."""

    def __init__(self, count: int, make: Callable[[int], Batch]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Batch:
        if index >= self._count:
            raise IndexError(index)
        return self._make(index)


class RowBatches(Batches):
    """Batches of rows, made when they are indexed; they can be split over processes and into micro-batches.

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
        """Return the micro-batches of one process for a batch; none when there are too few rows."""
        rows = self._groups[index][process::process_count]
        size = -(-len(rows) // parts) or 1
        return [self._make_of(index, rows[start : start + size]) for start in range(0, len(rows), size)]


def set_dropout(module: nn.Module, share: float) -> None:
    """Set all dropout of a model: short trainings of small adapters need none, and on a CPU it is slow."""
    for inner in module.modules():
        if isinstance(inner, nn.Dropout):
            inner.p = share


def checkpoint_gradients(encoder: nn.Module) -> None:
    """Make an encoder of transformers recompute its layers in the backward pass instead of storing their output."""
    for module in encoder.modules():
        if isinstance(module, PreTrainedModel):
            if not module.supports_gradient_checkpointing:
                raise InputError(
                    f"{type(module).__name__} has no gradient checkpointing; set gradient_checkpointing: false"
                )
            module.gradient_checkpointing_enable({"use_reentrant": False})
            return
    raise InputError("the audio encoder is none of transformers'; set gradient_checkpointing: false")


def fit(
    objective: nn.Module,
    batches: Callable[[int], Sequence[Batch]],
    epochs: int,
    recipe: Recipe,
    folder: Path,
    *,
    settings: TrainingConfig,
    not_compared: Collection[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    description: str = "training",
    groups: Sequence[ParameterGroup] | None = None,
    after_epoch: Callable[[int], Mapping[str, float]] | None = None,
    buffers: Mapping[str, Tensor] | None = None,
) -> list[dict[str, Any]]:
    """Train the parameters of `objective` that require gradients.

    Parameters
    ----------
    objective : nn.Module
        Called with a batch, returns the summed loss (scalar tensor) and the number of terms in the sum (scalar tensor).
        Gradients are divided by the number over the whole step and over all processes, so that the split of a batch
        into micro-batches and over processes changes nothing but rounding. It is moved to the device of this run.
    batches : callable
        From an epoch's number to its batches: `RowBatches`, or any sequence; the same whenever it is called. A batch is
        what accelerate can send to a device (tensors in tuples, lists, dicts, or an object with `to`), or a list of
        micro-batches to accumulate. All epochs are planned before training, to count the steps.
    folder : Path
        For the checkpoint, the best epoch's weights, the settings, `log.jsonl` and `tensorboard/`.
    settings : TrainingConfig
        Compared with those of the checkpoint on resume, except `keep` and the keys in `not_compared`.
    resume, overwrite : bool
        Continue from the folder's checkpoint, if there is one; or replace what a training left there.
    groups : sequence of ParameterGroup, optional
        Parameters with a learning rate of their own; the factor of all others is 1.
    after_epoch : callable, optional
        Called on the main process after each epoch; its figures go into the log.
    buffers : dict, optional
        Tensors that the objective changes in place during training; checkpoints keep them with the weights.

    Returns
    -------
    list of dict
        The log, one entry per epoch; empty in all processes but the main one. `objective` then has the weights that
        `recipe.keep` names.

    Raises
    ------
    InputError
        There is nothing to train on, the folder is in use or holds another training, memory was not enough for a
        step, or `keep` is `best` and there is no figure to choose by.
    ArtefactError
        The checkpoint was written with other settings.
    """
    if recipe.keep == "best" and not (recipe.best_by and after_epoch):
        raise InputError("keep is 'best', but this part has no figure after each epoch; set keep to average or last")
    own = processes()
    check_folder(folder)
    with locked(folder) if own.is_main_process else nullcontext(), _enough_memory(recipe):
        checkpoint = Checkpoint(folder, settings, {KEPT, *not_compared})
        resumed = checkpoint.begin(resume=resume, overwrite=overwrite)
        set_seed(recipe.seed)
        run = _Run(objective.to(own.device), batches, epochs, recipe, checkpoint, groups or (), buffers or {}, own)
        own.wait_for_everyone()
        if resumed:
            run.restore()
        elif own.is_main_process:
            checkpoint.clear()
        own.wait_for_everyone()
        return run.train(description, after_epoch)


class _Run:
    """State of one run of `fit`, with the steps and epochs as methods."""

    def __init__(
        self,
        objective: nn.Module,
        batches: Callable[[int], Sequence[Batch]],
        epochs: int,
        recipe: Recipe,
        checkpoint: Checkpoint,
        groups: Sequence[ParameterGroup],
        buffers: Mapping[str, Tensor],
        own: PartialState,
    ) -> None:
        self.objective, self.batches, self.recipe, self.own = objective, batches, recipe, own
        self.checkpoint, self.buffers, self.progress = checkpoint, buffers, Progress()
        self.ends = list(itertools.accumulate(len(batches(epoch)) for epoch in range(epochs)))  # step after each epoch
        self.steps = self.ends[-1] if self.ends else 0
        if not self.steps:
            raise InputError("there is nothing to train on: the data gave no batch")
        self.parameters = trainable(objective)
        self.optimizer = make_optimizer(self.parameters, recipe, groups)
        self.average_start = int(recipe.average_from * self.steps)
        # The mean of all weights after `average_start`; in fewer steps than one there is none.
        self.average = AveragedModel(self._weights()) if self.average_start < self.steps else None
        self.saved_at, self.saving_took = time.monotonic(), 0.0

    def _weights(self) -> nn.ParameterList:
        return nn.ParameterList(self.parameters.values())

    def averages(self) -> dict[str, Tensor]:
        """Return the averaged weights by name."""
        return (
            dict(zip(self.parameters, self.average.module.parameters(), strict=True))
            if self.average is not None
            else {}
        )

    def restore(self) -> None:
        """Continue from the checkpoint."""
        tensors, self.progress = self.checkpoint.load()
        restore(tensors, self.parameters, self.optimizer, self.averages(), self.buffers)
        if self.average is not None:
            self.average.n_averaged.fill_(max(0, self.progress.step - self.average_start))
        if self.own.is_main_process:
            self.checkpoint.write_log(self.progress)

    def train(self, description: str, after_epoch: Callable[[int], Mapping[str, float]] | None) -> list[dict[str, Any]]:
        """Take the steps that remain, put the weights that are the result into the model, and return the log."""
        main, first = self.own.is_main_process, self.progress.step
        self.board = Board(self.checkpoint.folder, first_step=first, write=main)
        warm_steps = round(self.recipe.warmup * self.steps)
        if self.recipe.schedule == "constant":
            self.schedule = get_constant_schedule_with_warmup(self.optimizer, warm_steps, last_epoch=first - 1)
        else:
            self.schedule = get_cosine_schedule_with_warmup(
                self.optimizer, warm_steps, self.steps, last_epoch=first - 1
            )
        if len(self.progress.log) < len(self.ends):
            with progress() as bar:
                task = bar.add_task(description, total=self.steps, completed=first, note="")
                for epoch in range(len(self.progress.log), len(self.ends)):
                    self._epoch(epoch, lambda note: bar.update(task, completed=self.progress.step, note=note))
                    if main:
                        self._end_epoch(epoch, after_epoch, description)
                    self.own.wait_for_everyone()
            if main:  # a finished run needs no moments
                self.checkpoint.save(state(self.parameters, None, self.averages(), self.buffers), self.progress)
                self.checkpoint.write_log(self.progress)
        self.board.close()
        self._keep()
        return self.progress.log if main else []

    def _epoch(self, epoch: int, show: Callable[[str], None]) -> None:
        place, began = self.progress, time.monotonic()
        batches = self.batches(epoch)
        start = self.ends[epoch] - len(batches)
        for index in range(place.step - start, len(batches)):
            # What is random in a step depends on the seed, the step and the process alone, so that a resumed run draws
            # the same. numpy's and Python's generators count too: transformers masks audio features by numpy's.
            set_seed(step_seed(self.recipe.seed, place.step, self.own.process_index))
            loss, terms = training_step(
                self.objective, self.optimizer, self._share(batches, index), self.recipe, self.own
            )
            self.board.add(
                {"loss": loss / max(terms, 1), "learning_rate": self.schedule.get_last_lr()[0]}, place.step + 1
            )
            self.schedule.step()
            place.loss, place.terms, place.step = place.loss + loss, place.terms + terms, place.step + 1
            if self.average is not None and place.step > self.average_start:
                self.average.update_parameters(self._weights())
            show(f"loss {loss / max(terms, 1):.3f}")
            self._save_if_due()
        self.seconds = time.monotonic() - began

    def _share(self, batches: Sequence[Batch], index: int) -> list[Batch]:
        """Return this process's micro-batches; every process computes the whole of a batch that cannot be split."""
        if isinstance(batches, RowBatches):
            return batches.share(index, self.own.process_index, self.own.num_processes, self.recipe.micro_batches)
        batch = batches[index]
        return batch if isinstance(batch, list) else [batch]

    def _save_if_due(self) -> None:
        """Save within an epoch, in a twentieth of the time at most: a large model takes long to write."""
        wait = max(self.recipe.checkpoint_seconds, min(20 * self.saving_took, 10 * self.recipe.checkpoint_seconds))
        if self.own.is_main_process and time.monotonic() >= self.saved_at + wait:
            self._save()

    def _save(self) -> None:
        began = time.monotonic()
        self.checkpoint.save(state(self.parameters, self.optimizer, self.averages(), self.buffers), self.progress)
        self.saved_at = time.monotonic()
        self.saving_took = self.saved_at - began

    def _end_epoch(
        self, epoch: int, after_epoch: Callable[[int], Mapping[str, float]] | None, description: str
    ) -> None:
        """Measure, log, and keep the best weights; the checkpoint comes last and holds the log."""
        place = self.progress
        figures = dict(after_epoch(epoch)) if after_epoch else {}
        place.log.append({"epoch": epoch, "loss": place.loss / max(place.terms, 1), **figures})
        place.loss = place.terms = 0.0
        self.board.add(figures, place.step)
        if self.recipe.best_by and figures:
            sign = -1.0 if self.recipe.best_by.startswith("-") else 1.0
            value = sign * figures[self.recipe.best_by.removeprefix("-")]
            self.checkpoint.save_best(self.parameters, epoch, value)
        if epoch + 1 < len(self.ends):  # after the last epoch the finished state is saved
            self._save()
            self.checkpoint.write_log(place)
        shown = "  ".join(f"{key} {value:.4g}" for key, value in place.log[-1].items() if key != "epoch")
        stderr.print(f"{description}: epoch {epoch + 1}/{len(self.ends)}  {shown}  {self.seconds:.0f} s")

    def _keep(self) -> None:
        """Put the weights that are the result into the model."""
        keep = self.recipe.keep
        chosen = self.checkpoint.best() if keep == "best" else self.averages() if keep == "average" else {}
        with torch.no_grad():
            for name, tensor in chosen.items():
                self.parameters[name].copy_(tensor)


@contextmanager
def _enough_memory(recipe: Recipe) -> Iterator[None]:
    """Turn running out of memory, which every device reports in its own way, into one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            f"not enough memory for a step: raise micro_batches (now {recipe.micro_batches}), set"
            " gradient_checkpointing, or lower batch_size"
        ) from error
