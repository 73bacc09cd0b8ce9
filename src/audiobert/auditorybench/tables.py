"""Set results beside the paper's: Table III (accuracy) and Table II (span detectors), for a terminal and for a paper.

Controls stand above the models, and a model that does not beat the best of them on a column is marked there.
`table_writers` prints the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from audiobert.artefacts import read_json
from audiobert.auditorybench import paper
from audiobert.auditorybench.metrics import rows_by_seed
from audiobert.auditorybench.stats import Difference, holm, two_level_difference
from audiobert.auditorybench.tasks import builtin_tasks
from audiobert.errors import ArtefactError, InputError

Section = Literal["published", "control", "model"]
Column = tuple[str, str]  # task and split; the task `combined` stands for all tasks of the split
COMBINED = "combined"
SIGNIFICANCE = 0.05
# ✗: not above the best control. ~: above it, but not with p < 0.05.
NOT_ABOVE, NOT_SURE = "✗", "~"
TEST = "bootstrap over seeds and rows"
LEGEND = (
    f"{NOT_ABOVE} not above the best control on that column; {NOT_SURE} above it, but p >= {SIGNIFICANCE} "
    f"({TEST}, Holm-adjusted over the models)."
)


@dataclass(frozen=True)
class Cell:
    """Hold a figure in percent, with its interval or its standard deviation over seeds, and its mark."""

    value: float
    interval: tuple[float, float] | None = None
    deviation: float | None = None
    mark: str = ""

    def text(self) -> str:
        """Return the figure as it is printed."""
        spread = ""
        if self.deviation is not None:
            spread = f" ±{self.deviation:.2f}"
        elif self.interval is not None:
            spread = f" [{self.interval[0]:.1f}, {self.interval[1]:.1f}]"
        return f"{self.value:.2f}{spread}{' ' + self.mark if self.mark else ''}"


@dataclass(frozen=True)
class TableRow:
    """Hold a method with its figures by column. `limit`: the figures are those of the first rows of each split."""

    name: str
    section: Section
    cells: dict[Column, Cell]
    limit: int | None = None

    @property
    def label(self) -> str:
        """Return the name as it is printed, with the limit."""
        return f"{self.name} ({first_rows(self.limit)})" if self.limit else self.name


@dataclass(frozen=True)
class ResultTable:
    """Hold figures by method (rows) and task and split (columns); `titles` are those of the tasks."""

    title: str
    columns: list[Column]
    rows: list[TableRow]
    titles: Mapping[str, str]
    legend: str = ""

    def heading(self, column: Column) -> str:
        """Return a column's heading."""
        return f"{self.titles.get(column[0], column[0])} {column[1]}"


@dataclass(frozen=True)
class TextTable:
    """Hold any table as text: a head, rows, and the indices of rows after which a section ends."""

    title: str
    head: list[str]
    rows: list[list[str]]
    ends: frozenset[int] = frozenset()
    legend: str = ""


def first_rows(limit: int) -> str:
    """Return the words that tell a part of a split from the whole."""
    return "first row" if limit == 1 else f"first {limit} rows"


def read_results(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Read files of `evaluate --out`, each with one model's object or a list of them."""
    reports: list[dict[str, Any]] = []
    for path in paths:
        try:
            content = read_json(path)
        except ArtefactError as error:
            raise InputError(str(error)) from None
        for report in content if isinstance(content, list) else [content]:
            if not isinstance(report, dict) or "model" not in report or not isinstance(report.get("results"), list):
                raise InputError(f"{path} holds no results: a file that 'audiobert evaluate --out' wrote is wanted")
            reports.append(report)
    if not reports:
        raise InputError("no results to compare: give files that 'audiobert evaluate --out' wrote")
    return reports


def is_control(report: Mapping[str, Any]) -> bool:
    """Return whether results are those of a control."""
    return str(report["model"]).startswith("control:")


def limit_of(report: Mapping[str, Any]) -> int | None:
    """Return the number of rows per split that results are limited to, or None for whole splits."""
    return report.get("limit")


def task_titles(reports: Sequence[Mapping[str, Any]] = ()) -> dict[str, str]:
    """Return the titles of the shipped tasks and of those in results, by name."""
    titles = {task.name: task.title for task in builtin_tasks().values()} | {COMBINED: "Combined"}
    return titles | {e["task"]: e["title"] for report in reports for e in report["results"] if e.get("title")}


def _title(title: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """Return a table's title, which says so if all or some figures are those of the first rows."""
    limits = {limit_of(report) for report in reports}
    if len(limits) == 1 and (limit := limits.pop()):
        return f"{title}, {first_rows(limit)} of each split"
    return f"{title}, some on the first rows of each split" if any(limits) else title


def _published(rows: Sequence[paper.PublishedRow], columns: Sequence[Column]) -> list[TableRow]:
    published = []
    for name, values, deviations in rows:
        figures = zip(paper.COLUMNS, values, deviations or [None] * len(values), strict=True)
        cells = {column: Cell(value, deviation=sd) for column, value, sd in figures if column in columns}
        published.append(TableRow(f"{name} (paper)", "published", cells))
    return published


def _entries(report: Mapping[str, Any]) -> dict[Column, dict[str, Any]]:
    found = {(entry["task"], entry["split"]): entry for entry in report["results"]}
    return found | {(COMBINED, entry["split"]): entry for entry in report.get("combined", [])}


def _columns(reports: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the paper's columns that some report has, then those of other tasks."""
    present = [column for report in reports for column in _entries(report)]
    return [c for c in paper.COLUMNS if c in present] + [c for c in dict.fromkeys(present) if c not in paper.COLUMNS]


def correct_rows(report: Mapping[str, Any], column: Column) -> list[list[int]] | None:
    """Return 0 or 1 per seed and row of a column, of `combined` the tasks one after the other; None if unknown."""
    chosen = [e for e in report["results"] if e["split"] == column[1] and column[0] in (COMBINED, e["task"])]
    by_task = [rows_by_seed(entry) for entry in sorted(chosen, key=lambda e: str(e["task"]))]
    rows = [task for task in by_task if task is not None]
    if not rows or len(rows) < len(by_task):
        return None
    return [[row for seed in seeds for row in seed] for seeds in zip(*rows, strict=True)]


def compare_reports(first: Mapping[str, Any], second: Mapping[str, Any], column: Column) -> Difference | None:
    """Compare two models on the same rows of a column; None where the rows differ or are unknown."""
    a, b = correct_rows(first, column), correct_rows(second, column)
    if a is None or b is None or len(a[0]) != len(b[0]) or limit_of(first) != limit_of(second):
        return None
    return two_level_difference(a, b, paired_seeds=_seeds(first) == _seeds(second))


def _seeds(report: Mapping[str, Any]) -> list[int]:
    return next((entry["seeds"] for entry in report["results"] if "seeds" in entry), [])


def _best_control(
    reports: Sequence[Mapping[str, Any]], column: Column, limit: int | None = None
) -> Mapping[str, Any] | None:
    controls = [r for r in reports if is_control(r) and column in _entries(r) and limit_of(r) == limit]
    return max(controls, key=lambda report: _entries(report)[column]["accuracy"], default=None)


def _marks(reports: Sequence[Mapping[str, Any]], column: Column) -> dict[int, str]:
    """Return the marks of models (by their index in `reports`) against the best control with the same rows."""
    marks: dict[int, str] = {}
    unsure: dict[int, float] = {}
    for index, report in enumerate(reports):
        entry, control = _entries(report).get(column), _best_control(reports, column, limit_of(report))
        if is_control(report) or entry is None or control is None:
            continue
        if entry["accuracy"] <= _entries(control)[column]["accuracy"]:
            marks[index] = NOT_ABOVE
        elif (difference := compare_reports(report, control, column)) is not None:
            unsure[index] = difference.p_value
    for index, p_value in zip(unsure, holm(list(unsure.values())), strict=True):
        if p_value >= SIGNIFICANCE:
            marks[index] = NOT_SURE
    return marks


def accuracy_table(reports: Sequence[Mapping[str, Any]], *, published: bool = True) -> ResultTable:
    """Make Table III: the paper's rows, the controls, the models.

    Figures on the first rows of each split are named so, and the paper's figures are not marked against them.
    """
    columns = _columns(reports)
    marks = {column: _marks(reports, column) for column in columns}
    own: dict[Section, list[TableRow]] = {"control": [], "model": []}
    for index, report in enumerate(reports):
        cells = {}
        for column, entry in _entries(report).items():
            ci95, sd = entry.get("ci95"), entry.get("sd")
            interval = (100 * ci95[0], 100 * ci95[1]) if ci95 else None
            deviation = 100 * sd if sd is not None else None
            cells[column] = Cell(100 * entry["accuracy"], interval, deviation, marks[column].get(index, ""))
        section: Section = "control" if is_control(report) else "model"
        own[section].append(TableRow(str(report["model"]), section, cells, limit_of(report)))
    paper_rows = _published(paper.TABLE_3, columns) if published and any(c in paper.COLUMNS for c in columns) else []
    rows = _mark_published(paper_rows, [row for row in own["control"] if row.limit is None])
    legend = LEGEND if own["control"] else ""
    rows += own["control"] + own["model"]
    title = _title("Accuracy (%)", reports)
    if paper_rows and any(limit_of(report) for report in reports):
        title += "; the paper's rows are of whole splits"
    return ResultTable(title, columns, rows, task_titles(reports), legend)


def _mark_published(rows: Sequence[TableRow], controls: Sequence[TableRow]) -> list[TableRow]:
    """Mark published figures that are not above the best control; their rows are unknown, so no test is made."""

    def marked(column: Column, cell: Cell) -> Cell:
        best = max((c.cells[column].value for c in controls if column in c.cells), default=-math.inf)
        return replace(cell, mark=NOT_ABOVE) if cell.value <= best else cell

    return [replace(row, cells={column: marked(column, cell) for column, cell in row.cells.items()}) for row in rows]


def detector_table(reports: Sequence[Mapping[str, Any]], *, published: bool = True) -> ResultTable:
    """Make Table II: F1 of span detectors; each report has `model` and `detection`, entries with task, split and f1."""
    entries = [{(e["task"], e["split"]): e for e in report.get("detection", [])} for report in reports]
    present = {column for found in entries for column in found}
    columns = [column for column in paper.COLUMNS if column in present]
    columns += sorted(present - set(columns))
    rows = _published(paper.TABLE_2, columns) if published else []
    for report, found in zip(reports, entries, strict=True):
        cells = {column: Cell(100 * entry["f1"]) for column, entry in found.items()}
        rows.append(TableRow(str(report["model"]), "model", cells, limit_of(report)))
    return ResultTable(_title("Span detection, F1 (%)", reports), columns, rows, task_titles(reports))


@dataclass(frozen=True)
class PairedTest:
    """Hold the difference of two models on the same rows of one column."""

    first: str
    second: str
    task: str
    split: str
    seeds: tuple[int, int]
    difference: Difference
    p_holm: float


def pairwise(reports: Sequence[Mapping[str, Any]]) -> list[PairedTest]:
    """Test every two models on the same rows, over all their seeds; p-values are Holm-adjusted per column."""
    tests = []
    for column in _columns(reports):
        pairs = []
        for i, first in enumerate(reports):
            for second in reports[i + 1 :]:
                if (difference := compare_reports(first, second, column)) is not None:
                    seeds = len(correct_rows(first, column) or ()), len(correct_rows(second, column) or ())
                    pairs.append((first["model"], second["model"], seeds, difference))
        adjusted = holm([difference.p_value for *_, difference in pairs])
        for (one, other, seeds, difference), p_value in zip(pairs, adjusted, strict=True):
            tests.append(PairedTest(one, other, *column, seeds, difference, p_value))
    return tests


def pairwise_table(tests: Sequence[PairedTest], reports: Sequence[Mapping[str, Any]] = ()) -> TextTable:
    """Make a table of pairwise tests, one per line."""
    titles = task_titles(reports)
    head = ["First", "Second", "Split", "Seeds", "Difference [95%]", "p", "Holm p"]
    rows = []
    for test in tests:
        found, split = test.difference, f"{titles.get(test.task, test.task)} {test.split}"
        points = f"{100 * found.mean:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
        seeds = f"{test.seeds[0]}, {test.seeds[1]}"
        rows.append([test.first, test.second, split, seeds, points, f"{found.p_value:.2g}", f"{test.p_holm:.2g}"])
    starts = [i for i in range(len(rows)) if i == 0 or rows[i][2] != rows[i - 1][2]]
    several = len(starts) < len(rows)
    ends = frozenset(start - 1 for start in starts if start) if several else frozenset()
    legend = f"Difference of the accuracies in points: {TEST}, Holm-adjusted per split."
    return TextTable(_title("Models on the same rows", reports), head, rows, ends, legend)


def table_to_json(table: ResultTable) -> dict[str, Any]:
    """Return a table for machines: figures in percent, by `task.split`."""
    rows = []
    for row in table.rows:
        cells = {}
        for (task, split), cell in row.cells.items():
            interval = list(cell.interval) if cell.interval else None
            figures = {"value": cell.value, "interval": interval, "sd": cell.deviation, "mark": cell.mark}
            cells[f"{task}.{split}"] = figures
        rows.append({"name": row.name, "section": row.section, "limit": row.limit, "cells": cells})
    return {"title": table.title, "legend": table.legend, "rows": rows}
