"""Read a table with one row per clip, and lists of ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from audiobert.bank.clips import given_columns
from audiobert.bank.sources.entry import Entry, Source
from audiobert.bank.sources.formats import format_problem, is_audio
from audiobert.errors import InputError
from audiobert.table_files import TABLE_EXTENSIONS, Row, read_lines, read_rows, read_values, table_shape, text_of


def manifest_source(path: Path) -> Source:
    """Open a table with a column `path`, which is relative to the table."""
    shape = table_shape(path)
    if not shape.columns and shape.first_refused:
        row = shape.first_refused
        raise InputError(f"{path} has no row that can be read; {row.place}: {row.fault}")
    if not shape.rows:
        raise InputError(f"{path} has no rows; give a manifest with one row per clip")
    if shape.columns and "path" not in shape.columns:
        raise InputError(f"{path} has the columns {', '.join(shape.columns)}; a manifest needs a column 'path'")
    return Source(str(path), path.parent, shape.rows, lambda: (_entry(path, row) for row in read_rows(path)))


def read_ids(path: Path) -> list[str]:
    """Return the ids in a text file, one per line, or in the column `id` of a table."""
    if path.suffix.lower() not in TABLE_EXTENSIONS:
        return read_lines(path)
    ids = []
    for number, values in enumerate(read_values(path), start=1):
        if not (identifier := text_of(values.get("id"))):
            raise InputError(f"row {number} of {path} has no id; give a table with a column 'id', or a text file")
        ids.append(identifier)
    return ids


def _entry(path: Path, row: Row) -> Entry:
    where = f"row {row.number} of {path.name}" + (f" ({row.place})" if row.place.startswith("line") else "")
    if fault := row.fault or (_swallowed_row(row.values) if path.suffix.lower() in (".csv", ".tsv") else None):
        return Entry(f"row {row.number}", problem=("row", f"{where}: {fault}"))
    name = text_of(row.values.get("path"))
    identifier = text_of(row.values.get("id")) or name or f"row {row.number}"
    given = given_columns(row.values)
    if not name:
        return Entry(identifier, given, problem=("missing", f"{where} has no path"))
    return Entry(identifier, given, path.parent / name, problem=format_problem(name))


def _swallowed_row(values: Mapping[str, str]) -> str | None:
    """Return why a row that holds another one is refused: two stray quotes make one cell of all between them."""
    place = list(values).index("path")
    for column, cell in values.items():
        for line in cell.splitlines()[1:]:
            cells = re.split("[,\t]", line)
            if len(cells) > max(place, 1) and is_audio(name := cells[place].strip()):
                return f"the column '{column}' holds the row of {name}; close the quote before it"
    return None
