"""Sheets that a person fills in: CSV as spreadsheets write it, with every row read or refused by its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiobert.artefacts import write_text
from audiobert.errors import InputError


def write_sheet(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV in UTF-8; columns that a row lacks are empty, others are left out."""
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, sheet.getvalue())


def read_sheet(path: Path, needed: Sequence[str], made_by: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, row) for each row of a sheet; columns are separated by commas, semicolons or tabs.

    Parameters
    ----------
    needed
        Columns that it must have.
    made_by
        The command that writes such a sheet, for messages.

    Raises
    ------
    InputError
        If it cannot be read, lacks a column, or a row has more or fewer cells than the header.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); give a sheet of {made_by}, saved as CSV UTF-8") from None
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        columns = [column.strip() for column in next(reader, [])]
        if missing := [column for column in needed if column not in columns]:
            raise InputError(f"{path} lacks the columns {', '.join(missing)}; give a sheet of {made_by}")
        if len(set(columns)) < len(columns):
            raise InputError(f"{path} has two columns of one name ({', '.join(columns)}); rename one")
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise InputError(
                    f"{place} has {len(cells)} cells, the header has {len(columns)}: put a cell with a separator in it "
                    "into quotes"
                )
            yield place, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}, is not CSV ({error}); correct the quotes") from None
