"""Tasks are data: a YAML file here (or any that a user gives) says where a task's rows lie and how they are asked."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from audiobert.errors import InputError

SPLITS = ("train", "dev", "test", "wiki")


class Columns(BaseModel):
    """Which column holds what; a list gives spellings, the first that the header has is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: list[str]
    answer: list[str]
    spans: list[list[str]] = Field(default_factory=list)
    choices: list[list[str]] = Field(default_factory=list)
    # One column with all options as a JSON or Python list, as an alternative to `choices`.
    choice_list: list[str] = Field(default_factory=list)
    # The column that says which option is right, by letter, number or text.
    choice_answer: list[str] = Field(default_factory=list)


class Task(BaseModel):
    """One task of a benchmark.

    Attributes
    ----------
    kind
        `cloze`: a word is missing and any word may be said. `comparison`: two words may be said, and swapping the two
        spans swaps the answer. `multiple-choice`: each row has its own options.
    files
        For each split the relative paths, one a published layout; the first that exists is read.
    candidates
        The label set: `train-answers`, `row` (the row's own options), or the words themselves.
    prompt, chat
        What a causal language model and a chat server are asked. `{text}` is the sentence as published, `{blank}` the
        sentence with `____` for the mask, `{stem}` the sentence up to the mask, `{choices}` the lettered options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9+_-]+$")
    title: str
    benchmark: str = "AuditoryBench"
    kind: Literal["cloze", "comparison", "multiple-choice"]
    files: dict[str, list[str]]
    columns: Columns
    candidates: Literal["train-answers", "row"] | list[str]
    prompt: str
    chat: str
    # A sentence with [MASK] made from a question that has none, for masked language models.
    cloze: str = "{text}"

    @property
    def label_words(self) -> list[str] | None:
        """The fixed candidates, or None where they depend on the train split or on the row."""
        return self.candidates if isinstance(self.candidates, list) else None


def task_from_yaml(path: str | Path) -> Task:
    """Read a task's YAML file.

    Raises
    ------
    InputError
        When the file is missing, is not YAML, or lacks a field.
    """
    path = Path(path)
    try:
        return Task.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"cannot read the task file {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise InputError(f"{path} is not a task: {where}: {first['msg']}") from None


def builtin_tasks() -> dict[str, Task]:
    """The tasks that ship with the package, by name, AuditoryBench's first."""
    folder = Path(str(files("audiobert.auditorybench.tasks")))
    tasks = [task_from_yaml(path) for path in sorted(folder.glob("*.yaml"))]
    tasks.sort(key=lambda task: (task.benchmark, task.name))
    return {task.name: task for task in tasks}


def find_task(name: str | Task) -> Task:
    """A task by the name of a shipped one or by the path of a YAML file.

    Raises
    ------
    InputError
        When there is no such task.
    """
    if isinstance(name, Task):
        return name
    if name.endswith((".yaml", ".yml")):
        return task_from_yaml(name)
    tasks = builtin_tasks()
    if name not in tasks:
        raise InputError(f"no task '{name}': there are {', '.join(tasks)}, or give the path of a task's YAML file")
    return tasks[name]
