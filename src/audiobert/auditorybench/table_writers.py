"""Write tables for a terminal, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from audiobert.auditorybench.tables import ResultTable, TextTable
from audiobert.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"~": r"$\sim$", "✗": r"$\times$", "±": r"$\pm$", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
_LATEX |= {"<": r"$<$", ">": r"$>$"}
_LATEX_ESCAPES = str.maketrans(_LATEX)
_WIDEST = 10  # columns; a table of more is turned in a terminal, if that makes it narrower


def as_text(table: ResultTable | TextTable) -> TextTable:
    """Return a table of figures as a table of text."""
    if isinstance(table, TextTable):
        return table
    head = ["", *map(table.heading, table.columns)]
    rows = [[row.label, *(row.cells[c].text() if c in row.cells else "" for c in table.columns)] for row in table.rows]
    sections = [row.section for row in table.rows]
    ends = {i for i in range(len(sections) - 1) if sections[i] != sections[i + 1]}
    return TextTable(table.title, head, rows, frozenset(ends), table.legend)


def turned(text: TextTable) -> TextTable:
    """Return a table with its columns as rows.

    >>> turned(TextTable("t", ["", "a", "b"], [["x", "1", "2"]])).rows
    [['a', '1'], ['b', '2']]
    """
    columns = list(zip(text.head, *text.rows, strict=True))
    return TextTable(text.title, list(columns[0]), [list(row) for row in columns[1:]], legend=text.legend)


def to_terminal(table: ResultTable | TextTable) -> RichTable:
    """Return a rich table with figures aligned on the right."""
    from rich.markup import escape
    from rich.table import Table

    text = as_text(table)
    if len(text.head) > _WIDEST > len(text.rows):
        text = turned(text)
    shown = Table(title=text.title, caption=text.legend or None, caption_justify="left")
    for index, name in enumerate(text.head):
        numbers = all(not row[index] or row[index].lstrip("+-")[:1].isdigit() for row in text.rows)
        shown.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for index, row in enumerate(text.rows):
        shown.add_row(*map(escape, row), end_section=index in text.ends)
    return shown


def to_markdown(table: ResultTable | TextTable) -> str:
    """Return a Markdown table with its title and legend."""
    text = as_text(table)
    lines = [f"**{text.title}**", ""]
    lines += [f"| {' | '.join(text.head)} |", f"| --- |{' ---: |' * (len(text.head) - 1)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in text.rows]
    return "\n".join(lines) + (f"\n\n{text.legend}" if text.legend else "") + "\n"


def to_csv(table: ResultTable | TextTable) -> str:
    """Return one line per row; bounds of an interval, standard deviation, mark and limit have columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if isinstance(table, TextTable):
        writer.writerow(table.head)
        writer.writerows(table.rows)
        return out.getvalue()
    parts = ("", ".low", ".high", ".sd", ".mark")
    names = [f"{task}.{split}" for task, split in table.columns]
    writer.writerow(["name", "section", "limit", *(name + part for name in names for part in parts)])
    for row in table.rows:
        values: list[Any] = []
        for column in table.columns:
            cell = row.cells.get(column)
            if cell is None:
                values += [""] * len(parts)
                continue
            low, high = (round(bound, 4) for bound in cell.interval) if cell.interval else ("", "")
            deviation = "" if cell.deviation is None else round(cell.deviation, 4)
            values += [round(cell.value, 4), low, high, deviation, cell.mark]
        writer.writerow([row.name, row.section, row.limit or "", *values])
    return out.getvalue()


def to_latex(table: ResultTable | TextTable) -> str:
    """Return a booktabs table with its title and legend, which the packages booktabs prints."""
    text = as_text(table)
    width = len(text.head)
    lines = [rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", _across(width, text.title), r"\toprule"]
    head = text.head
    if isinstance(table, ResultTable):
        tasks = list(dict.fromkeys(task for task, _ in table.columns))
        widths = {task: sum(t == task for t, _ in table.columns) for task in tasks}
        titles = [table.titles.get(task, task).translate(_LATEX_ESCAPES) for task in tasks]
        spanning = [rf"\multicolumn{{{widths[t]}}}{{c}}{{{title}}}" for t, title in zip(tasks, titles, strict=True)]
        lines.append(" & ".join(["", *spanning]) + r" \\")
        head = ["Method", *(split for _, split in table.columns)]
    lines += [" & ".join(name.translate(_LATEX_ESCAPES) for name in head) + r" \\", r"\midrule"]
    for index, row in enumerate(text.rows):
        lines.append(" & ".join(cell.translate(_LATEX_ESCAPES) for cell in row) + r" \\")
        if index in text.ends:
            lines.append(r"\midrule")
    lines.append(r"\bottomrule")
    if text.legend:
        lines.append(_across(width, text.legend))
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _across(width: int, text: str) -> str:
    """Return a LaTeX row with one text over all columns."""
    return rf"\multicolumn{{{width}}}{{l}}{{{text.translate(_LATEX_ESCAPES)}}} \\"


WRITERS = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}


def write_table(table: ResultTable | TextTable, form: str) -> str:
    """Return a table as `markdown`, `latex` or `csv`."""
    if form not in WRITERS:
        raise InputError(f"no table form '{form}': there are terminal, {', '.join(WRITERS)}")
    return WRITERS[form](table)
