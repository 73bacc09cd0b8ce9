"""Read and write sheets that a person fills in: CSV as spreadsheets write it, every row read or refused by line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiobert.artefacts import write_text
from audiobert.errors import InputError
from audiobert.table_files import csv_table


def write_sheet(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV in UTF-8; columns that a row lacks are empty, others are left out."""
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, sheet.getvalue())


def read_sheet(path: Path, needed: Sequence[str], made_by: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, row) for each row of a sheet, which the command `made_by` writes.

    Columns are separated by commas, semicolons or tabs.
    """
    columns, rows = csv_table(path, separators=",;\t")
    if missing := [column for column in needed if column not in columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; give a sheet of {made_by}")
    for row in rows:
        if row.fault:
            raise InputError(f"{path}, {row.place}: {row.fault}")
        if any(cell.strip() for cell in row.values.values()):
            yield f"{path}, {row.place}", row.values
