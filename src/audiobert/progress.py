"""Show progress on stderr: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

LINE_SECONDS = 30.0  # between two lines where stderr is no terminal

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


class _Lines(Progress):
    """Progress for log files: one line per task at most every `LINE_SECONDS`, none for short work."""

    def __init__(self) -> None:
        super().__init__(console=stderr, disable=True)
        self._due = time.monotonic() + LINE_SECONDS

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task and print its line when one is due."""
        super().update(task_id, **changes)
        self._print(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Add to what a task has done and print its line when one is due."""
        super().advance(task_id, advance)
        self._print(task_id)

    def _print(self, task_id: TaskID) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LINE_SECONDS
        task = next(task for task in self.tasks if task.id == task_id)
        words = [f"{task.description}: {task.completed:g}"]
        if task.total is not None:
            words.append(f"of {task.total:g}")
        if task.time_remaining is not None:
            words.append(f"({timedelta(seconds=round(task.time_remaining))} left)")
        stderr.print(" ".join([*words, str(task.fields.get("note", ""))]).rstrip(), markup=False)


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield a rich `Progress` on stderr with counts and time left; lines now and then when stderr is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) if stderr.is_terminal else _Lines() as bar:
        yield bar


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Iterate over `items` and show progress on stderr."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress() as bar:
        task = bar.add_task(description, total=total, note="")
        for item in items:
            yield item
            bar.advance(task)
