"""Read tasks from YAML files: where a task's rows are, and how its questions are put.

A file may `include` another one, beside it or shipped here; its own top-level keys replace the included ones. Training
reads the same files: the splits, the columns, and the words of a comparison are written nowhere else.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from audiobert.errors import InputError
from audiobert.settings import Settings, read_yaml

SPLITS = ("train", "dev", "test", "wiki")
_FOLDER = Path(str(files("audiobert.auditorybench.tasks")))


class Columns(Settings):
    """Name the columns of a task's files; of several spellings, the first that the header has is read."""

    text: list[str]
    answer: list[str]
    spans: list[list[str]] = Field(default_factory=list)
    # Options of a multiple-choice row, a column each, or all in one column as a JSON or Python list.
    choices: list[list[str]] = Field(default_factory=list)
    choice_list: list[str] = Field(default_factory=list)
    # The column that names the right option, by letter, number or text.
    choice_answer: list[str] = Field(default_factory=list)
    # Number of the first option, where options are named by number.
    first_number: Literal[0, 1] | None = None


class Task(Settings):
    """Describe one task of a benchmark.

    `cloze`: a word is missing, any word may be the answer. `comparison`: two words may be the answer, and exchanging
    the two spans exchanges them. `multiple-choice`: each row has its own options.

    In the prompts of a causal language model and of a chat server, `{text}` is the sentence as published, `{blank}` the
    sentence with `____` for the mask, `{stem}` the sentence up to the mask, `{choices}` the lettered options.
    """

    name: str = Field(pattern=r"^[a-z0-9+_-]+$")
    title: str
    benchmark: str = "AuditoryBench"
    kind: Literal["cloze", "comparison", "multiple-choice"]
    files: dict[str, list[str]]  # by split the relative paths, one per published layout; the first that exists is read
    columns: Columns
    candidates: Literal["train-answers", "row"] | list[str]  # `row`: the row's own options
    prompt: str
    chat: str
    cloze: str = "{text}"  # sentence with [MASK] for masked language models, made from a question that has none

    @model_validator(mode="after")
    def _check_comparison(self) -> Self:
        if self.kind == "comparison":
            words = self.label_words or []
            if len({word.casefold() for word in words}) != 2 or len(words) != 2:
                raise ValueError("a comparison needs two different words as candidates, such as [louder, quieter]")
            if len(self.columns.spans) != 2:
                raise ValueError("a comparison needs two columns of spans, such as spans: [[span1], [span2]]")
        return self

    @property
    def splits(self) -> list[str]:
        """Return the names of the splits: train, dev, test, wiki, then others."""
        return sorted(self.files, key=lambda name: SPLITS.index(name) if name in SPLITS else len(SPLITS))

    @property
    def label_words(self) -> list[str] | None:
        """Return the fixed candidates, or None where they depend on the train split or on the row."""
        return self.candidates if isinstance(self.candidates, list) else None

    @property
    def pair(self) -> tuple[str, str] | None:
        """Return the two words of a comparison, or None for another kind of task."""
        if self.kind != "comparison" or self.label_words is None:
            return None
        first, second = self.label_words
        return first, second

    def opposite(self, answer: str) -> str:
        """Return the other word of a comparison."""
        first, second = self.pair or ("", "")
        words = {first.casefold(): second, second.casefold(): first}
        if self.pair is None or answer.casefold() not in words:
            raise InputError(f"task '{self.name}': '{answer}' is none of the words of a comparison")
        return words[answer.casefold()]


def task_from_yaml(path: str | Path) -> Task:
    """Read a task's YAML file."""
    path = Path(path)
    try:
        return Task.model_validate(_read_yaml(path, ()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise InputError(f"{path} is not a task: {where}: {first['msg']}") from None


def _read_yaml(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    """Read a YAML file with what it includes; `including` are the files that led here."""
    if path.resolve() in including:
        raise InputError(f"{path} includes itself")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a task: a mapping with name, kind, files ... is wanted")
    included = content.pop("include", None)
    if included is None:
        return content
    if not isinstance(included, str):
        raise InputError(f"{path}: include must be the path of one YAML file")
    beside, shipped = path.parent / included, _FOLDER / included
    base = shipped if not beside.exists() and shipped.exists() else beside
    return _read_yaml(base, (*including, path.resolve())) | content


@cache
def builtin_tasks() -> dict[str, Task]:
    """Return the tasks that ship with the package, by name, AuditoryBench's first."""
    # A file whose name begins with "_" is there to be included.
    tasks = [task_from_yaml(path) for path in sorted(_FOLDER.glob("[!_]*.yaml"))]
    tasks.sort(key=lambda task: (task.benchmark, task.name))
    return {task.name: task for task in tasks}


def auditorybench_tasks() -> list[Task]:
    """Return the tasks of AuditoryBench."""
    return [task for task in builtin_tasks().values() if task.benchmark == "AuditoryBench"]


def find_task(name: str | Task) -> Task:
    """Return a task by the name of a shipped one or by the path of a YAML file."""
    if isinstance(name, Task):
        return name
    if name.endswith((".yaml", ".yml")):
        return task_from_yaml(name)
    tasks = builtin_tasks()
    if name not in tasks:
        raise InputError(f"no task '{name}': there are {', '.join(tasks)}, or give the path of a task's YAML file")
    return tasks[name]
