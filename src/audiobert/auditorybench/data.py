"""The rows of AuditoryBench: both published layouts, checked at the door.

The public repository published the benchmark twice: flat files (`animal_sound_recognition_dev.csv`) and, later, folders
(`animal_sound_recognition/dev.csv`) with four options a row; the span column is called `span` in one file and
`description` in another. `load_split` reads them all. It refuses a train split that contains the test split: at the
first of these commits the published animal train file is byte for byte the test file.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from audiobert.artefacts import sha256_of
from audiobert.auditorybench.align import MASK, align_spans
from audiobert.auditorybench.published import published_file
from audiobert.auditorybench.tasks import SPLITS, Task, builtin_tasks, find_task
from audiobert.errors import InputError

BENCHMARK = "AuditoryBench"
# A train split with more than this share of the test rows is not a train split. Between the published splits it is 0.
MAXIMUM_SHARED_WITH_TEST = 0.5
_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True)
class Row:
    """One question.

    Attributes
    ----------
    row
        Index of the row in its file, the first below the header being 0.
    text
        The sentence with `[MASK]`, or a question.
    answer
        As published ("River otter", "higher").
    spans
        What the row says its sounds are; some are empty.
    span_offsets
        Character offsets [start, end) of each span in `text`, None where it cannot be aligned.
    choices
        The options of a multiple-choice row.
    """

    task: str
    split: str
    row: int
    text: str
    answer: str
    spans: tuple[str, ...] = ()
    span_offsets: tuple[tuple[int, int] | None, ...] = ()
    choices: tuple[str, ...] | None = None


def split_path(folder: str | Path, task: str | Task, split: str) -> Path:
    """The file of a split, in whichever layout the folder has.

    Raises
    ------
    InputError
        When the folder or the file is missing; the message says which names were looked for.
    """
    folder, task = Path(folder), find_task(task)
    if not folder.is_dir():
        raise InputError(
            f"no folder {folder}: give --data a folder with AuditoryBench, or run 'audiobert data download'"
        )
    if split not in task.files:
        raise InputError(f"task '{task.name}' has no split '{split}': it has {', '.join(task.files)}")
    for base in (folder, folder / "dataset"):
        for name in task.files[split]:
            if (base / name).is_file():
                return base / name
    raise InputError(
        f"{folder} lacks {' or '.join(task.files[split])}: 'audiobert data download' fetches the published files"
    )


def available_splits(folder: str | Path, task: str | Task) -> list[str]:
    """The splits of a task whose file is in the folder, in the order train, dev, test, wiki."""
    task = find_task(task)
    found = []
    for split in sorted(task.files, key=lambda name: SPLITS.index(name) if name in SPLITS else len(SPLITS)):
        try:
            split_path(folder, task, split)
        except InputError:
            continue
        found.append(split)
    return found


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and (line number, fields) of a CSV file; UTF-8 with or without a byte-order mark, any line ends.

    Raises
    ------
    InputError
        When the file is not UTF-8, not CSV, empty, or a line has more or fewer fields than the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise InputError(f"{path} is empty: a header line and rows are wanted")
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, but the header has {len(header)}"
                )
            rows.append((reader.line_num, {n: f.strip() for n, f in zip(header, fields, strict=True)}))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    return header, rows


def _column(header: Sequence[str], spellings: Sequence[str]) -> str | None:
    """The first spelling that the header has, as written, else regardless of case."""
    for spelling in spellings:
        if spelling in header:
            return spelling
    by_lower = {name.lower(): name for name in reversed(header)}
    return next((by_lower[s.lower()] for s in spellings if s.lower() in by_lower), None)


def parse_options(text: str) -> tuple[str, ...]:
    """Options written in one field: a JSON or Python list, or text parted by `|`, `;` or line ends."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, list | tuple):
            return tuple(str(option).strip() for option in value)
        if isinstance(value, dict):
            return tuple(str(option).strip() for option in value.values())
    for separator in ("\n", "|", ";"):
        if separator in text:
            return tuple(option.strip() for option in text.split(separator) if option.strip())
    return ()


def resolve_choice(value: str, choices: Sequence[str], *, first_number: int = 0) -> str | None:
    """The option that `value` names: by its text, its letter ("B", "(b)", "B. owl"), or its number.

    Numbers count from `first_number`.

    >>> resolve_choice("(b)", ["owl", "magpie"])
    'magpie'
    """
    value = value.strip()
    by_text = {choice.casefold(): choice for choice in choices}
    if value.casefold() in by_text:
        return by_text[value.casefold()]
    letter = value.strip("().: ").upper()
    if len(letter) == 1 and letter in _LETTERS[: len(choices)]:
        return choices[_LETTERS.index(letter)]
    head, _, rest = value.partition(" ")
    if rest and rest.strip().casefold() in by_text and len(head.strip("().:")) == 1:
        return by_text[rest.strip().casefold()]
    if value.isdigit() and 0 <= int(value) - first_number < len(choices):
        return choices[int(value) - first_number]
    return None


class _RowReader:
    """Turns the fields of one file's lines into rows, knowing which column is which."""

    def __init__(
        self, path: Path, task: Task, split: str, header: Sequence[str], lines: Sequence[tuple[int, dict[str, str]]]
    ) -> None:
        self.path, self.task, self.split = path, task, split
        columns = task.columns
        self.text = self._needed(header, columns.text, "the sentence")
        self.spans = [_column(header, spellings) for spellings in columns.spans]
        if task.benchmark == BENCHMARK and None in self.spans:
            missing = " / ".join(columns.spans[self.spans.index(None)])
            raise InputError(f"{path}: no column '{missing}'; it has {', '.join(header)}")
        self.choices = [name for spellings in columns.choices if (name := _column(header, spellings))]
        self.choice_list = _column(header, columns.choice_list)
        self.choice_answer = _column(header, columns.choice_answer) if self.choices or self.choice_list else None
        if task.kind == "multiple-choice":
            self.answer = self.choice_answer or self._needed(header, columns.answer, "the answer")
        else:
            self.answer = self._needed(header, columns.answer, "the answer")
        # All values of the answer column: whether numbers count from 1, and, where a row has no options, what they are.
        self.values = sorted({fields[self.answer].casefold() for _, fields in lines})
        self.first_number = 1 if "0" not in self.values else 0

    def _needed(self, header: Sequence[str], spellings: Sequence[str], what: str) -> str:
        name = _column(header, spellings)
        if name is None:
            wanted = " or ".join(f"'{spelling}'" for spelling in spellings)
            raise InputError(f"{self.path}: no column {wanted} for {what}; it has {', '.join(header)}")
        return name

    def _row_choices(self, fields: dict[str, str], spans: tuple[str, ...], where: str) -> tuple[str, ...] | None:
        if self.choice_list:
            options = parse_options(fields[self.choice_list])
        else:
            options = tuple(fields[name] for name in self.choices if fields[name])
        if options or self.task.kind != "multiple-choice":
            return options or None
        if labels := self.task.label_words:
            return tuple(labels)
        # "A", "2" or a span's own text name one of the two spans.
        if (
            len(spans) == 2
            and all(spans)
            and resolve_choice(fields[self.answer], spans, first_number=self.first_number)
        ):
            return spans
        if 2 <= len(self.values) <= len(_LETTERS):  # "higher" and "lower": the same words in every row
            return tuple(self.values)
        raise InputError(f"{where}: no options: columns with them or a list of them are wanted")

    def row(self, index: int, line: int, fields: dict[str, str]) -> Row:
        where = f"{self.path}, line {line}"
        text, answer = fields[self.text], fields[self.answer]
        if not text or not answer:
            raise InputError(f"{where}: the {'sentence' if not text else 'answer'} is empty")
        spans = tuple(fields[name] for name in self.spans if name is not None)
        choices = self._row_choices(fields, spans, where)
        if self.task.kind == "multiple-choice":
            resolved = resolve_choice(answer, choices or (), first_number=self.first_number)
            if resolved is None:
                raise InputError(f"{where}: the answer '{answer}' is none of the options {', '.join(choices or ())}")
            answer = resolved
        elif MASK not in text:
            raise InputError(f"{where}: the sentence has no {MASK}: {text[:80]}")
        labels = self.task.label_words
        if labels and self.task.kind == "comparison" and answer.casefold() not in {w.casefold() for w in labels}:
            raise InputError(f"{where}: the answer '{answer}' is none of {', '.join(labels)}")
        offsets = tuple(alignment.offsets for alignment in align_spans(text, spans))
        return Row(self.task.name, self.split, index, text, answer, spans, offsets, choices)


def rows_sha256(rows: Iterable[Row]) -> str:
    """Digest of text, answer and spans of all rows in order; the same in every layout and with any line ends."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.text, row.answer, *row.spans], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _read_rows(path: Path, task: Task, split: str) -> list[Row]:
    header, lines = read_csv(path)
    reader = _RowReader(path, task, split, header, lines)
    rows = [reader.row(index, line, fields) for index, (line, fields) in enumerate(lines)]
    if not rows:
        raise InputError(f"{path} has a header but no rows")
    return rows


def refuse_test_as_train(folder: str | Path, task: str | Task, path: Path, rows: Sequence[Row]) -> None:
    """Raise when what is called train is, or contains, the test split.

    Three signs are looked for: the published checksum of the test file; as many rows as the published test split (the
    same file saved again); and, where a test file lies beside it, more than half of its rows.

    Raises
    ------
    InputError
        Naming the file and the sign.
    """
    task = find_task(task)
    remedy = "the published train file is the test file; 'audiobert data download' fetches the right one"
    test, train = published_file(task.name, "test"), published_file(task.name, "train")
    if test and train:
        if test.sha256 == sha256_of(path):
            raise InputError(f"{path} is the test split, byte for byte, under the name of train: {remedy}")
        if len(rows) == test.captions:
            raise InputError(
                f"{path} has {len(rows):,} rows, the test split's number, not train's {train.captions:,}: {remedy}"
            )
    if "test" not in available_splits(folder, task):
        return
    known = {(row.text, row.answer) for row in rows}
    test_rows = _read_rows(split_path(folder, task, "test"), task, "test")
    shared = sum((row.text, row.answer) in known for row in test_rows)
    if shared > MAXIMUM_SHARED_WITH_TEST * len(test_rows):
        raise InputError(f"{path} contains {shared:,} of the {len(test_rows):,} test rows: {remedy}")


def load_split(folder: str | Path, task: str | Task, split: str) -> list[Row]:
    """Read one split of one task.

    Parameters
    ----------
    folder
        A folder with the published files, in either layout, or the public repository's root.
    task
        `animal`, `pitch`, another shipped task, the path of a task's YAML file, or a `Task`.
    split
        `train`, `dev`, `test` or `wiki`.

    Raises
    ------
    InputError
        When a file or column is missing, a line cannot be read, or train contains the test split.
    """
    task = find_task(task)
    path = split_path(folder, task, split)
    rows = _read_rows(path, task, split)
    if split == "train":
        refuse_test_as_train(folder, task, path, rows)
    return rows


def load_benchmark(folder: str | Path, tasks: Iterable[str | Task] | None = None) -> dict[tuple[str, str], list[Row]]:
    """Read every split that the folder has, by (task, split); the tasks are AuditoryBench's two unless given.

    Raises
    ------
    InputError
        When the folder has no file of any of the tasks, or a file is wrong.
    """
    chosen = [find_task(task) for task in tasks] if tasks is not None else auditorybench_tasks()
    loaded = {
        (task.name, split): load_split(folder, task, split)
        for task in chosen
        for split in available_splits(folder, task)
    }
    if not loaded:
        split_path(folder, chosen[0], next(iter(chosen[0].files)))  # raises, and says what was looked for
    return loaded


def auditorybench_tasks() -> list[Task]:
    """AuditoryBench's two tasks, animal and pitch."""
    return [task for task in builtin_tasks().values() if task.benchmark == BENCHMARK]
