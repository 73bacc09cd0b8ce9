"""Sum up results: what hearing adds, the headline, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiobert.auditorybench.models import OFF, UNHEARD
from audiobert.auditorybench.stats import Difference, holm
from audiobert.auditorybench.tables import (
    NOT_ABOVE,
    NOT_SURE,
    PairedTest,
    ResultTable,
    first_rows,
    limit_of,
    pairwise,
    task_titles,
)

# States that a model with sound is compared with: the suffix of the name, and the words for it.
STATES = {UNHEARD: "unheard", OFF: "switched off"}
_IN_WORDS = {NOT_ABOVE: ", which is not above the best control", NOT_SURE: ", not surely above the best control"}


@dataclass(frozen=True)
class Added:
    """Hold the difference between a model with sound and the same weights in another state, on the same rows."""

    model: str
    state: str
    column: tuple[str, str]
    name: str
    difference: Difference
    p_holm: float

    @property
    def points(self) -> tuple[float, float, float]:
        """Return the difference and its interval in points."""
        return 100 * self.difference.mean, 100 * self.difference.low, 100 * self.difference.high


def hearing_adds(reports: Sequence[dict[str, Any]]) -> list[Added]:
    """Compare every model with its `:unheard` and `:off` states; p-values are Holm-adjusted over all."""
    titles = task_titles(reports)
    found: list[tuple[str, str, PairedTest]] = []
    by_name = {str(report["model"]): report for report in reports}
    for name, report in by_name.items():
        for suffix, state in STATES.items():
            if name + suffix in by_name:
                found += [(name, state, test) for test in pairwise([report, by_name[name + suffix]])]
    adjusted = holm([test.difference.p_value for *_, test in found])
    return [
        Added(
            name,
            state,
            (test.task, test.split),
            f"{titles.get(test.task, test.task)}, {test.split}",
            test.difference,
            p_value,
        )
        for (name, state, test), p_value in zip(found, adjusted, strict=True)
    ]


def headline(table: ResultTable, focus: str | None, added: Sequence[Added]) -> list[str]:
    """Return the result in a few sentences: the model's accuracy, the paper's beside it, and what hearing adds."""
    row = next((row for row in table.rows if row.name == focus), None)
    if row is None:
        return []
    said = []
    published = next((r for r in table.rows if r.name.startswith("AudioBERT (BERT-base)")), None)
    for column, cell in row.cells.items():
        where = f"{table.titles.get(column[0], column[0])}, {column[1]}"
        if row.limit:
            where += f", {first_rows(row.limit)}"
        # The paper's figure is that of the whole split.
        beside = published.cells.get(column) if published and not row.limit else None
        theirs = f"; the paper's AudioBERT (BERT-base) has {beside.value:.2f}%" if beside else ""
        spread = f" [{cell.interval[0]:.1f}, {cell.interval[1]:.1f}]" if cell.interval else ""
        said.append(f"{where}: {cell.value:.2f}%{spread}{_IN_WORDS.get(cell.mark, '')}{theirs}.")
    for one in added:
        if one.model == focus and one.column[0] != "combined":
            points, low, high = one.points
            spread = f"[{low:+.2f}, {high:+.2f}]"
            over = f"over {one.state} on {one.name}"
            said.append(f"With sound, {points:+.2f} points {spread} {over}.")
    return said


def commands(reports: Sequence[Mapping[str, Any]], detectors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the command lines that make the same results again, models with the same questions together."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for one in reports:
        asked = [_listed(entry[what] for entry in one["results"]) for what in ("task", "split")]
        seeds = _listed(seed for entry in one["results"] for seed in entry.get("seeds", [0]))
        options = (*asked, str(one.get("protocol", "paper")), seeds, _limit_option(one))
        grouped.setdefault(options, []).append(str(one["model"]))
    lines = []
    for (tasks, splits, protocol, seeds, limit), models in grouped.items():
        seeded = f" --seeds {seeds}" if seeds != "0" else ""
        lines.append(
            f"audiobert evaluate {shlex.join(dict.fromkeys(models))} --data auditorybench --tasks {tasks}"
            f" --splits {splits} --protocol {protocol}{seeded}{limit}"
            " --out results.json --predictions predictions.jsonl"
        )
    if detectors:
        entries = [entry for one in detectors for entry in one["detection"] if entry["task"] != "combined"]
        tasks, splits = (_listed(entry[what] for entry in entries) for what in ("task", "split"))
        names = shlex.join(dict.fromkeys(str(one["model"]) for one in detectors))
        lines.append(
            f"audiobert evaluate {names} --detector --data auditorybench --tasks {tasks} --splits {splits}"
            f"{_limit_option(detectors[0])} --out detector.json"
        )
    if reports:
        detection = " detector.json" if detectors else ""
        lines.append(
            f"audiobert report results.json{detection} --predictions predictions.jsonl --data auditorybench"
            " --out report.html"
        )
    return lines


def _limit_option(report: Mapping[str, Any]) -> str:
    limit = limit_of(report)
    return f" --limit {limit}" if limit else ""


def _listed(values: Iterable[Any]) -> str:
    """Return each value once, in order, separated by commas."""
    return ",".join(dict.fromkeys(str(value) for value in values))


def made_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's provenance as flat names and values."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(f"{prefix}.{name}" if prefix else str(name), inner)
        elif value is not None:
            flat[prefix] = str(value)

    walk("", report.get("artefacts", {}))
    versions = ", ".join(f"{name} {value}" for name, value in (report.get("versions") or {}).items())
    kind = "span detector" if report.get("detection") else report.get("kind", "")
    return {
        "model": report["model"],
        "kind": kind,
        "created": report.get("created", ""),
        "versions": versions,
        "artefacts": flat,
    }
