"""Results beside the paper's: Table III (accuracy) and Table II (span detectors), for a terminal and for a paper.

Controls stand above the models, and a model that does not beat the best of them on a column is marked there.
`table_writers` prints the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audiobert.artefacts import read_json
from audiobert.auditorybench import paper
from audiobert.auditorybench.stats import McNemar, PairedBootstrap, holm, mcnemar_exact, paired_bootstrap
from audiobert.errors import ArtefactError, InputError

Section = Literal["published", "control", "model"]
TITLES = {"animal": "Animal sound", "pitch": "Sound pitch comparison", "combined": "Combined"}
SIGNIFICANCE = 0.05
# ✗: not above the best control. ~: above it, but not with p < 0.05 (McNemar's exact test, Holm over the models).
NOT_ABOVE, NOT_SURE = "✗", "~"
LEGEND = (
    f"{NOT_ABOVE} not above the best control on that column; {NOT_SURE} above it, but p >= {SIGNIFICANCE} "
    "(McNemar's exact test, Holm-adjusted over the models)."
)


@dataclass(frozen=True)
class Cell:
    """A figure in percent, with its interval or its standard deviation over seeds, and the mark."""

    value: float
    interval: tuple[float, float] | None = None
    deviation: float | None = None
    mark: str = ""

    def text(self, *, plus_minus: str = "±", interval: bool = True) -> str:
        """The figure as it is printed."""
        spread = ""
        if self.deviation is not None:
            spread = f" {plus_minus}{self.deviation:.2f}"
        elif interval and self.interval is not None:
            spread = f" [{self.interval[0]:.1f}, {self.interval[1]:.1f}]"
        return f"{self.value:.2f}{spread}{' ' + self.mark if self.mark else ''}"


@dataclass(frozen=True)
class TableRow:
    """A method with its figures by (task, split)."""

    name: str
    section: Section
    cells: dict[tuple[str, str], Cell]


@dataclass(frozen=True)
class ResultTable:
    """Figures by method (rows) and task and split (columns)."""

    title: str
    columns: list[tuple[str, str]]
    rows: list[TableRow]
    legend: str = ""


@dataclass(frozen=True)
class TextTable:
    """Any table as text: a head, rows, and the places of rows behind which a section ends."""

    title: str
    head: list[str]
    rows: list[list[str]]
    ends: frozenset[int] = frozenset()
    legend: str = ""


def read_results(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """Read files of `evaluate --out`, each one model's object or a list of them.

    Raises
    ------
    InputError
        When a file is none of these.
    """
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


def is_control(report: dict[str, Any]) -> bool:
    return str(report["model"]).startswith("control:")


def _published(rows: Sequence[paper.Row], columns: Sequence[tuple[str, str]]) -> list[TableRow]:
    out = []
    for name, values, deviations in rows:
        cells = {
            column: Cell(values[i], deviation=deviations[i] if deviations else None)
            for i, column in enumerate(paper.COLUMNS)
            if column in columns
        }
        out.append(TableRow(f"{name} (paper)", "published", cells))
    return out


def _entries(report: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    found = {(entry["task"], entry["split"]): entry for entry in report["results"]}
    return found | {("combined", entry["split"]): entry for entry in report.get("combined", [])}


def _columns(reports: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The paper's columns that some report has, then those of other tasks."""
    present = [column for report in reports for column in _entries(report)]
    return [c for c in paper.COLUMNS if c in present] + [c for c in dict.fromkeys(present) if c not in paper.COLUMNS]


def _correct(report: dict[str, Any], column: tuple[str, str]) -> list[bool] | None:
    """Right or wrong for each row; of `combined` the tasks one after the other."""
    entries = report["results"]
    chosen = [e for e in entries if e["split"] == column[1] and (column[0] in ("combined", e["task"]))]
    if not chosen or any("rows_correct" not in entry for entry in chosen):
        return None
    return [letter == "1" for entry in sorted(chosen, key=lambda e: str(e["task"])) for letter in entry["rows_correct"]]


def _best_control(reports: Sequence[dict[str, Any]], column: tuple[str, str]) -> dict[str, Any] | None:
    controls = [report for report in reports if is_control(report) and column in _entries(report)]
    return max(controls, key=lambda report: _entries(report)[column]["accuracy"], default=None)


def _marks(reports: Sequence[dict[str, Any]], column: tuple[str, str]) -> dict[int, str]:
    """The mark of each model (by its place in `reports`) against the best control on a column."""
    control = _best_control(reports, column)
    if control is None:
        return {}
    least = _entries(control)[column]["accuracy"]
    marks: dict[int, str] = {}
    unsure: dict[int, float] = {}
    for index, report in enumerate(reports):
        entry = _entries(report).get(column)
        if is_control(report) or entry is None:
            continue
        if entry["accuracy"] <= least:
            marks[index] = NOT_ABOVE
            continue
        first, second = _correct(report, column), _correct(control, column)
        if first and second and len(first) == len(second):
            unsure[index] = mcnemar_exact(first, second).p_value
    for index, p_value in zip(unsure, holm(list(unsure.values())), strict=True):
        if p_value >= SIGNIFICANCE:
            marks[index] = NOT_SURE
    return marks


def accuracy_table(reports: Sequence[dict[str, Any]], *, published: bool = True) -> ResultTable:
    """Table III: the paper's rows, the controls, the models."""
    columns = _columns(reports)
    marks = {column: _marks(reports, column) for column in columns}
    rows = _published(paper.TABLE_3, columns) if published and any(c in paper.COLUMNS for c in columns) else []
    own: dict[Section, list[TableRow]] = {"control": [], "model": []}
    for index, report in enumerate(reports):
        cells = {}
        for column, entry in _entries(report).items():
            low, high = entry["ci95"]
            sd = entry.get("sd")
            cells[column] = Cell(
                100 * entry["accuracy"],
                (100 * low, 100 * high),
                100 * sd if sd is not None else None,
                marks[column].get(index, ""),
            )
        section: Section = "control" if is_control(report) else "model"
        own[section].append(TableRow(str(report["model"]), section, cells))
    controls = bool(own["control"])
    best = _mark_published(rows, own["control"]) if controls else rows
    return ResultTable("Accuracy (%)", columns, best + own["control"] + own["model"], LEGEND if controls else "")


def _mark_published(rows: list[TableRow], controls: Sequence[TableRow]) -> list[TableRow]:
    """Mark published figures that are not above the best control; of them no rows are known, so no test is made."""
    marked = []
    for row in rows:
        cells = {}
        for column, cell in row.cells.items():
            best = max((c.cells[column].value for c in controls if column in c.cells), default=None)
            mark = NOT_ABOVE if best is not None and cell.value <= best else ""
            cells[column] = Cell(cell.value, cell.interval, cell.deviation, mark)
        marked.append(TableRow(row.name, row.section, cells))
    return marked


def detector_table(reports: Sequence[dict[str, Any]], *, published: bool = True) -> ResultTable:
    """Table II: F1 of span detectors; each report has `model` and `detection`, entries with task, split and f1."""
    entries = [{(e["task"], e["split"]): e for e in report.get("detection", [])} for report in reports]
    present = {column for found in entries for column in found}
    columns = [column for column in paper.COLUMNS if column in present]
    columns += sorted(present - set(columns))
    rows = _published(paper.TABLE_2, columns) if published else []
    for report, found in zip(reports, entries, strict=True):
        cells = {column: Cell(100 * entry["f1"]) for column, entry in found.items()}
        rows.append(TableRow(str(report["model"]), "model", cells))
    return ResultTable("Span detection, F1 (%)", columns, rows)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows of one column."""

    first: str
    second: str
    task: str
    split: str
    mcnemar: McNemar
    bootstrap: PairedBootstrap
    p_holm: float


def pairwise(reports: Sequence[dict[str, Any]]) -> list[Comparison]:
    """Every model against every other (and against the controls) on the same rows; p-values Holm-adjusted a column."""
    comparisons = []
    for column in _columns(reports):
        pairs = []
        for i, first in enumerate(reports):
            for second in reports[i + 1 :]:
                a, b = _correct(first, column), _correct(second, column)
                if a and b and len(a) == len(b):
                    pairs.append((first, second, mcnemar_exact(a, b), paired_bootstrap(a, b)))
        adjusted = holm([test.p_value for _, _, test, _ in pairs])
        for (first, second, test, bootstrap), p_value in zip(pairs, adjusted, strict=True):
            comparisons.append(Comparison(first["model"], second["model"], *column, test, bootstrap, p_value))
    return comparisons


def pairwise_table(comparisons: Sequence[Comparison]) -> TextTable:
    """The comparisons, a line each."""
    head = ["First", "Second", "Split", "Only first", "Only second", "McNemar p", "Holm p", "Difference [95%]"]
    rows = []
    for c in comparisons:
        points = [100 * value for value in (c.bootstrap.difference, c.bootstrap.low, c.bootstrap.high)]
        rows.append(
            [
                c.first,
                c.second,
                f"{TITLES.get(c.task, c.task)} {c.split}",
                str(c.mcnemar.only_first),
                str(c.mcnemar.only_second),
                f"{c.mcnemar.p_value:.2g}",
                f"{c.p_holm:.2g}",
                f"{points[0]:+.2f} [{points[1]:+.2f}, {points[2]:+.2f}]",
            ]
        )
    ends = {i for i in range(len(rows) - 1) if rows[i][2] != rows[i + 1][2]}
    legend = "Rows that only one of the two got right; the difference of the accuracies in points, paired bootstrap."
    return TextTable("Models on the same rows", head, rows, frozenset(ends), legend)


def table_to_json(table: ResultTable) -> dict[str, Any]:
    """A table for machines: figures in percent, by `task.split`."""
    rows = []
    for row in table.rows:
        cells = {
            f"{task}.{split}": {
                "value": cell.value,
                "interval": list(cell.interval) if cell.interval else None,
                "sd": cell.deviation,
                "mark": cell.mark,
            }
            for (task, split), cell in row.cells.items()
        }
        rows.append({"name": row.name, "section": row.section, "cells": cells})
    return {"title": table.title, "legend": table.legend, "rows": rows}
