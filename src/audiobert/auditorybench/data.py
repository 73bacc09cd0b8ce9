"""Read the rows of AuditoryBench, in both published layouts, and refuse what cannot be read.

The public repository published the benchmark twice: flat files (`animal_sound_recognition_dev.csv`) and, later, folders
(`animal_sound_recognition/dev.csv`) with four options per row; the span column is called `span` in one file and
`description` in another. `load_split` reads them all. It refuses a train split that contains the test split: at the
first of these commits the published animal train file is byte for byte the test file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiobert.auditorybench.align import MASK, align_spans
from audiobert.auditorybench.published import published_file
from audiobert.auditorybench.tasks import Task, find_task
from audiobert.errors import InputError
from audiobert.table_files import Row as TableRow
from audiobert.table_files import csv_table, list_in

# A train split with more than this share of the test rows is not a train split. Between the published splits it is 0.
MAXIMUM_SHARED_WITH_TEST = 0.5
LETTERS = "ABCDEFGHIJ"  # of options


@dataclass(frozen=True, slots=True)
class Row:
    """Hold one row of a split, with answer and spans as published; some spans are empty."""

    task: str
    split: str
    row: int  # index in its file; the first after the header is 0
    text: str  # sentence with `[MASK]`, or a question
    answer: str
    spans: tuple[str, ...] = ()
    # Characters [start, end) of each span in `text`, None where it cannot be aligned.
    span_offsets: tuple[tuple[int, int] | None, ...] = ()
    choices: tuple[str, ...] | None = None  # options of a multiple-choice row


@dataclass(frozen=True, slots=True)
class AlignedRow:
    """Hold a row's sentence and answer with the offsets of all its spans, each inside the sentence."""

    text: str
    answer: str
    spans: tuple[tuple[int, int], ...]


def aligned_rows(rows: Iterable[Row]) -> list[AlignedRow]:
    """Return the rows whose spans are all in their sentence. A sentence may occur with several answers."""
    placed = [(row, tuple(place for place in row.span_offsets if place is not None)) for row in rows]
    return [AlignedRow(row.text, row.answer, at) for row, at in placed if at and len(at) == len(row.span_offsets)]


def split_path(folder: str | Path, task: str | Task, split: str) -> Path:
    """Return the file of a split, in whichever layout the folder has."""
    folder, task = Path(folder), find_task(task)
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}: give --data a folder with AuditoryBench, or run 'audiobert data download'"
        )
    if split not in task.files:
        raise InputError(f"task '{task.name}' has no split '{split}': it has {', '.join(task.files)}")
    if found := _split_file(folder, task, split):
        return found
    raise InputError(
        f"{folder} lacks {' or '.join(task.files[split])}: 'audiobert data download' fetches the published files"
    )


def available_splits(folder: str | Path, task: str | Task) -> list[str]:
    """Return the splits of a task whose file is in the folder, in the order train, dev, test, wiki."""
    task = find_task(task)
    return [split for split in task.splits if _split_file(Path(folder), task, split)]


def _split_file(folder: Path, task: Task, split: str) -> Path | None:
    paths = (base / name for base in (folder, folder / "dataset") for name in task.files[split])
    return next((path for path in paths if path.is_file()), None)


def _column(header: Sequence[str], spellings: Sequence[str]) -> str | None:
    """Return the first spelling that the header has, as written, else regardless of case."""
    for spelling in spellings:
        if spelling in header:
            return spelling
    by_lower = {name.lower(): name for name in reversed(header)}
    return next((by_lower[s.lower()] for s in spellings if s.lower() in by_lower), None)


def resolve_choice(value: str, choices: Sequence[str], *, first_number: int | None = None) -> str | None:
    """Return the option that `value` names by its text, its letter ("B", "(b)", "B. owl"), or its number.

    Numbers name options only if `first_number` says what the first one is called.

    >>> resolve_choice("(b)", ["owl", "magpie"])
    'magpie'
    >>> resolve_choice("2", ["owl", "magpie"], first_number=1)
    'magpie'
    """
    value = value.strip()
    by_text = {choice.casefold(): choice for choice in choices}
    if value.casefold() in by_text:
        return by_text[value.casefold()]
    by_letter = dict(zip(LETTERS, choices, strict=False))
    if chosen := by_letter.get(value.strip("().: ").upper()):
        return chosen
    head, _, rest = value.partition(" ")
    named, lettered = by_text.get(rest.strip().casefold()), by_letter.get(head.strip("().:").upper())
    if named and lettered:  # "B. owl" must name one option twice, not two
        return named if lettered.casefold() == named.casefold() else None
    if first_number is not None and value.isdecimal() and 0 <= int(value) - first_number < len(choices):
        return choices[int(value) - first_number]
    return None


class _RowReader:
    """Turn the fields of one file's lines into rows."""

    def __init__(self, path: Path, task: Task, split: str, header: Sequence[str]) -> None:
        self.path, self.task, self.split = path, task, split
        columns = task.columns
        self.text = self._needed(header, columns.text, "the sentence")
        self.spans = [self._needed(header, spellings, "a span") for spellings in columns.spans]
        self.choices = [name for spellings in columns.choices if (name := _column(header, spellings))]
        self.choice_list = _column(header, columns.choice_list)
        choice_answer = _column(header, columns.choice_answer) if self.choices or self.choice_list else None
        if task.kind == "multiple-choice" and choice_answer:
            self.answer = choice_answer
        else:
            self.answer = self._needed(header, columns.answer, "the answer")
        if task.kind == "multiple-choice" and not (self.choices or self.choice_list or task.label_words):
            names = [f"'{spellings[0]}'" for spellings in (*columns.choices, columns.choice_list) if spellings]
            raise InputError(
                f"{path}: no column of options ({', '.join(names)}); it has {', '.join(header)}. A YAML file of your"
                " own for --tasks says which they are"
            )

    def _needed(self, header: Sequence[str], spellings: Sequence[str], what: str) -> str:
        name = _column(header, spellings)
        if name is None:
            wanted = " or ".join(f"'{spelling}'" for spelling in spellings)
            raise InputError(f"{self.path}: no column {wanted} for {what}; it has {', '.join(header)}")
        return name

    def _row_choices(self, fields: dict[str, str], where: str) -> tuple[str, ...] | None:
        if self.choice_list:
            listed = list_in(fields[self.choice_list])
            if not listed or not all(isinstance(option, str) for option in listed):
                raise InputError(
                    f"{where}: '{self.choice_list}' is no list of options: {fields[self.choice_list][:60]!r}; a JSON"
                    ' list is wanted, such as ["an owl", "a cat"]'
                )
            return tuple(option.strip() for option in listed)
        options = tuple(fields[name] for name in self.choices if fields[name])
        if options or self.task.kind != "multiple-choice":
            return options or None
        if self.task.label_words:
            return tuple(self.task.label_words)
        raise InputError(f"{where}: no options in {', '.join(self.choices)}")

    def _resolved(self, answer: str, choices: Sequence[str], where: str) -> str:
        first_number = self.task.columns.first_number
        resolved = resolve_choice(answer, choices, first_number=first_number)
        if resolved is not None:
            return resolved
        if answer.isdecimal() and first_number is None:
            raise InputError(
                f"{where}: the answer is the number {answer}, and task '{self.task.name}' does not say whether options"
                " count from 0 or 1: first_number in the columns of its YAML file says it"
            )
        raise InputError(f"{where}: the answer '{answer}' is none of the options {', '.join(choices)}")

    def row(self, index: int, line: TableRow) -> Row:
        where = f"{self.path}, {line.place}"
        if line.fault:
            raise InputError(f"{where}: {line.fault}")
        fields = {name: cell.strip() for name, cell in line.values.items()}
        text, answer = fields[self.text], fields[self.answer]
        if not text or not answer:
            raise InputError(f"{where}: the {'sentence' if not text else 'answer'} is empty")
        spans = tuple(fields[name] for name in self.spans)
        choices = self._row_choices(fields, where)
        if self.task.kind == "multiple-choice":
            answer = self._resolved(answer, choices or (), where)
        elif MASK not in text:
            raise InputError(f"{where}: the sentence has no {MASK}: {text[:80]}")
        pair = self.task.pair
        if pair and answer.casefold() not in {word.casefold() for word in pair}:
            raise InputError(f"{where}: the answer '{answer}' is none of {', '.join(pair)}")
        offsets = tuple(alignment.offsets for alignment in align_spans(text, spans))
        return Row(self.task.name, self.split, index, text, answer, spans, offsets, choices)


def rows_sha256(rows: Iterable[Row]) -> str:
    """Return the digest of text, answer and spans of all rows in order; layout and line ends do not change it."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.text, row.answer, *row.spans], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def sizes(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the number of rows and words, as Table I of the paper counts them."""
    words = sum(len(row.text.split()) for row in rows)
    return {"rows": len(rows), "words": words, "words_per_caption": round(words / len(rows), 2)}


def read_rows(path: Path, task: Task, split: str) -> list[Row]:
    """Read the rows of one file; see `load_split`."""
    columns, lines = csv_table(path)
    if not columns:
        raise InputError(f"{path} is empty: a header line and rows are wanted")
    if not lines:
        raise InputError(f"{path} has a header but no rows")
    reader = _RowReader(path, task, split, columns)
    return [reader.row(index, line) for index, line in enumerate(lines)]


def _same_bytes(path: Path, sha256: str | None) -> bool:
    """Return whether a file is the published one, byte for byte or but for its line ends and byte-order mark."""
    content = path.read_bytes()
    unix = content.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    return sha256 in {hashlib.sha256(form).hexdigest() for form in (content, unix, unix.replace(b"\n", b"\r\n"))}


def refuse_test_as_train(folder: str | Path, task: str | Task, path: Path, rows: Sequence[Row]) -> None:
    """Raise if the train file has the published checksum of the test file, or more than half of its rows."""
    task = find_task(task)
    remedy = "the published train file is the test file; 'audiobert data download' fetches the right one"
    test = published_file(task.name, "test")
    if test and _same_bytes(path, test.sha256):
        raise InputError(f"{path} is the test split under the name of train: {remedy}")
    if "test" not in available_splits(folder, task):
        return
    known = {(row.text, row.answer) for row in rows}
    test_rows = read_rows(split_path(folder, task, "test"), task, "test")
    shared = sum((row.text, row.answer) in known for row in test_rows)
    if shared > MAXIMUM_SHARED_WITH_TEST * len(test_rows):
        raise InputError(f"{path} contains {shared:,} of the {len(test_rows):,} test rows: {remedy}")


def load_split(folder: str | Path, task: str | Task, split: str) -> list[Row]:
    """Read one split of one task, from a folder with the published files in either layout, or the repository's root.

    `task` is a shipped one by name, the path of a task's YAML file, or a `Task`.
    """
    task = find_task(task)
    path = split_path(folder, task, split)
    rows = read_rows(path, task, split)
    if split == "train":
        refuse_test_as_train(folder, task, path, rows)
    return rows
