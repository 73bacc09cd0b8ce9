"""Read CSV, TSV, JSONL and Parquet row by row: each row is taken, or refused by its number with the reason."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from audiobert.errors import InputError

TABLE_EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"})


@dataclass(frozen=True)
class Row:
    """One row of a table, which is taken or refused."""

    number: int  # from 1, without the header
    place: str  # in the file: `line 7`, or `row 6` of a Parquet file
    values: dict[str, Any] = field(default_factory=dict)  # cells by column; empty when the row is refused
    fault: str | None = None  # why the row cannot be taken


@dataclass(frozen=True)
class TableShape:
    """Columns, number of rows (refused ones included) and the first refused row of a table."""

    columns: tuple[str, ...]
    rows: int
    first_refused: Row | None = None


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a table in order, refused ones included.

    CSV and TSV are read as RFC 4180 defines them. After a row whose quotes do not close, reading resumes at the next
    line. Blanks around a column's name are dropped. InputError if the file cannot be opened, is of another kind, or its
    header cannot be used.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_EXTENSIONS:
        raise InputError(f"{path} is no table; give one of {', '.join(sorted(TABLE_EXTENSIONS))}")
    try:
        if suffix == ".parquet":
            yield from _parquet_rows(path)
        elif suffix in (".csv", ".tsv"):
            with _open_text(path) as text:
                yield from _csv(path, _Lines(text), "\t" if suffix == ".tsv" else ",")[1]
        else:
            with _open_text(path) as text:
                yield from _json_rows(text)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); give a table that can") from None


def read_values(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the cells of each row by column; InputError at the first row that is refused, and as `read_rows`."""
    for row in read_rows(path):
        if row.fault:
            raise InputError(f"{path}, {row.place}: {row.fault}")
        yield row.values


def table_shape(path: Path) -> TableShape:
    """Return the columns and the number of rows of a table; reads all of it, unless it is Parquet."""
    if path.suffix.lower() == ".parquet":
        with _open_parquet(path) as file:
            return TableShape(tuple(_column_names(path, file.schema_arrow.names)), file.metadata.num_rows)
    columns: dict[str, None] = {}
    rows, first_refused = 0, None
    for row in read_rows(path):
        rows += 1
        columns.update(dict.fromkeys(row.values))
        first_refused = first_refused or (row if row.fault else None)
    return TableShape(tuple(columns), rows, first_refused)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 text file without surrounding blanks; empty lines are left out."""
    lines = []
    try:
        with _open_text(path) as text:
            for number, line in enumerate(text, start=1):
                if fault := text_fault(line):
                    raise InputError(f"{path}, line {number}, has {fault}; save the file as UTF-8")
                lines.append(line.strip())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); give a text file") from None
    return [line for line in lines if line]


def text_fault(value: Any) -> str | None:
    r"""Return what keeps a text, or a text inside lists and mappings, from being stored as UTF-8, or None.

    >>> text_fault(["fine", "caf\udce9"])
    'a byte that is not UTF-8 (0xE9)'
    """
    if isinstance(value, str):
        if "\0" in value:
            return "a NUL byte"
        try:
            value.encode()
        except UnicodeEncodeError as error:
            code = ord(value[error.start])
            if 0xDC80 <= code <= 0xDCFF:  # as the error handler `surrogateescape` marks a byte
                return f"a byte that is not UTF-8 (0x{code - 0xDC00:X})"
            return f"a lone surrogate (U+{code:X})"
        return None
    if isinstance(value, Mapping):
        return text_fault([*value, *value.values()])
    if isinstance(value, list | tuple):
        return next((fault for one in value if (fault := text_fault(one))), None)
    return None


def text_of(value: Any) -> str:
    """Return a cell as text; empty for None and for a number that is none (NaN), as pandas writes a missing cell.

    >>> text_of(7), text_of(float("nan")), text_of(["a", "b"])
    ('7', '', 'a; b')
    """
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, list | tuple):
        return "; ".join(text for one in value if (text := text_of(one)))
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def list_in(text: str) -> list[Any] | None:
    """Return the list that a cell spells in JSON, or as Python or numpy print one; None where it spells none.

    >>> list_in("['dog', 'cat']"), list_in("['dog' 'cat']"), list_in("[field] dog")
    (['dog', 'cat'], ['dog', 'cat'], None)
    """
    if not text.lstrip().startswith("["):
        return None
    with_commas = re.sub(r"""(['"])\s+(?=['"])""", r"\1, ", text)  # pandas writes a numpy array without commas
    for read, spelling in ((json.loads, text), (ast.literal_eval, with_commas.strip())):
        try:
            value = read(spelling)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(value, list):
            return value
    return None


def _open_text(path: Path) -> TextIO:
    """Open a file as text with its line ends; bytes that are not UTF-8 become lone surrogates."""
    with path.open("rb") as file:
        start = file.read(1 << 16)
    newline = "\r" if b"\r" in start and b"\n" not in start else "\n"
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _row(number: int, place: str, values: dict[str, Any]) -> Row:
    for column, value in values.items():
        try:
            fault = text_fault(column) or text_fault(value)
        except RecursionError:
            return Row(number, place, fault=f"the column {column!a} is nested too deeply; leave it out")
        if fault:
            return Row(number, place, fault=f"the column {column!a} has {fault}; save the table as UTF-8")
    return Row(number, place, values)


def _column_names(path: Path, names: Sequence[str]) -> list[str]:
    """Return the names without surrounding blanks; a column without a name is called by its place."""
    stripped = [name.strip() or f"column {place}" for place, name in enumerate(names, start=1)]
    if fault := text_fault(stripped):
        raise InputError(f"the header of {path} has {fault}; save the table as UTF-8")
    if twice := next((name for name in stripped if stripped.count(name) > 1), None):
        raise InputError(f"{path} has two columns named '{twice}'; rename or remove one")
    return stripped


# ------------------------------------------------------------------------------------------------------ CSV and TSV


class _Lines:
    """Lines of a file that can be put back, so that reading resumes behind a line that cannot be used."""

    def __init__(self, text: Iterable[str]) -> None:
        self._text = iter(text)
        self._put_back: deque[str] = deque()
        self._taken: list[str] = []
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._put_back.popleft() if self._put_back else next(self._text)
        self._taken.append(line)
        return line

    def begin_row(self) -> int:
        """Return the number of the line at which the next row begins."""
        self._number += len(self._taken)
        self._taken.clear()
        return self._number + 1

    def keep_first(self) -> None:
        """Put back all lines of this row but its first."""
        self._put_back.extendleft(reversed(self._taken[1:]))
        del self._taken[1:]


def csv_table(path: Path, separators: str = ",") -> tuple[list[str], list[Row]]:
    """Return the columns and all rows of a CSV file; of several separators the header's most frequent one holds."""
    try:
        with _open_text(path) as text:
            first = text.readline()
            lines = _Lines(chain([first] if first else [], text))
            columns, rows = _csv(path, lines, max(separators, key=first.count))
            return columns, list(rows)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); give a table that can") from None


def _csv(path: Path, lines: _Lines, delimiter: str) -> tuple[list[str], Iterator[Row]]:
    """Return the columns, and the rows that are yet to be read."""
    try:
        header = next(filter(None, csv.reader(lines, delimiter=delimiter, strict=True)), [])  # behind empty lines
    except csv.Error as error:
        raise InputError(f"the header of {path} is not CSV ({error}); give a line with the columns' names") from None
    columns = _column_names(path, header)
    # Where names have blanks around them (`path, caption`), cells have, too.
    padded = any(name != name.strip() for name in header)
    return columns, _csv_rows(lines, columns, delimiter, padded=padded)


def _csv_rows(lines: _Lines, columns: Sequence[str], delimiter: str, *, padded: bool) -> Iterator[Row]:
    mark = {"\t": "a tab", ",": "a comma"}.get(delimiter, repr(delimiter))
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=padded)
    number = 0
    while True:
        place = f"line {lines.begin_row()}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            lines.keep_first()
            number += 1
            yield Row(number, place, fault=f"it is not CSV ({error}); close each quote, and write one in a cell twice")
            continue
        if cells is None:
            return
        if not cells:
            continue
        number += 1
        if len(cells) != len(columns):
            fault = f"it has {len(cells)} cells, the header has {len(columns)}; quote a cell that holds {mark}"
            yield Row(number, place, fault=fault)
            continue
        yield _row(number, place, dict(zip(columns, map(str.strip, cells) if padded else cells, strict=True)))


# ------------------------------------------------------------------------------------------------------------- JSONL


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = {name.strip(): value for name, value in pairs}
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice in it")
    return values


def _json_rows(text: TextIO) -> Iterator[Row]:
    number = 0
    for line_number, line in enumerate(text, start=1):
        if not line.strip():
            continue
        number += 1
        place = f"line {line_number}"
        try:
            values = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            yield Row(number, place, fault=f"it is no JSON object ({error}); give one object per line")
            continue
        if isinstance(values, dict):
            yield _row(number, place, values)
        else:
            yield Row(number, place, fault="it is no JSON object; give one object per line")


# ----------------------------------------------------------------------------------------------------------- Parquet


def _open_parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({error}); write it again") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow

    with _open_parquet(path) as file:
        columns = _column_names(path, file.schema_arrow.names)
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                for cells in _cells(batch):
                    number += 1
                    place = f"row {number}"
                    if isinstance(cells, Exception):
                        yield Row(number, place, fault=f"it has a cell that cannot be read ({cells})")
                    else:
                        yield _row(number, place, dict(zip(columns, cells, strict=True)))
        except (pyarrow.ArrowException, OSError) as error:
            rest = file.metadata.num_rows - number
            fault = f"it and what follows ({rest} rows) cannot be read ({error}); write the file again"
            yield Row(number + 1, f"row {number + 1}", fault=fault)


def _cells(batch: Any) -> Iterator[Sequence[Any] | Exception]:
    """Yield the cells of each row of an Arrow batch, or the error that one of them raises."""
    try:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
        return
    except (ValueError, OverflowError):  # not UTF-8, or a time outside of Python's range: find the rows
        pass
    for index in range(batch.num_rows):
        try:
            yield [column[index].as_py() for column in batch.columns]
        except (ValueError, OverflowError) as error:
            yield error
