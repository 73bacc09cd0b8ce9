"""Sum up results: what sound adds, the headline, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiobert.auditorybench.models import OFF, UNHEARD
from audiobert.auditorybench.stats import Difference, holm
from audiobert.auditorybench.tables import (
    COMBINED,
    NOT_ABOVE,
    NOT_SURE,
    PairedTest,
    ResultTable,
    first_rows,
    limit_of,
    pairwise,
    task_titles,
)
from audiobert.errors import InputError

# States of a model with sound: the suffix of the name, and the words for it.
STATES = {UNHEARD: "unheard", OFF: "switched off"}
WITHOUT_RECORDINGS = "the same training without recordings"
_IN_WORDS = {NOT_ABOVE: ", which is not above the best control", NOT_SURE: ", not surely above the best control"}


@dataclass(frozen=True)
class Added:
    """Hold the difference between a model with sound and what it is compared with, on the same rows."""

    model: str
    minus: str
    column: tuple[str, str]
    name: str
    difference: Difference
    p_holm: float

    @property
    def points(self) -> tuple[float, float, float]:
        """Return the difference and its interval in points."""
        return 100 * self.difference.mean, 100 * self.difference.low, 100 * self.difference.high


def sound_adds(
    reports: Sequence[dict[str, Any]], focus: str | None = None, without_recordings: str | None = None
) -> list[Added]:
    """Compare every model with its `:unheard` and `:off` states; p-values are Holm-adjusted over all.

    The model `focus` is also compared with `without_recordings`, which was trained in the same way without recordings;
    InputError if the results have no such model.
    """
    titles = task_titles(reports)
    by_name = {str(report["model"]): report for report in reports}
    pairs = [(name, name + suffix, state) for name in by_name for suffix, state in STATES.items()]
    if without_recordings is not None:
        if without_recordings not in by_name or focus is None:
            raise InputError(
                f"the results have no model {without_recordings!r} without recordings; give one of"
                f" {', '.join(by_name) or 'those in files of evaluate --out'}"
            )
        pairs.append((focus, without_recordings, WITHOUT_RECORDINGS))
    found: list[tuple[str, str, PairedTest]] = []
    for name, other, minus in pairs:
        if name in by_name and other in by_name and name != other:
            found += [(name, minus, test) for test in pairwise([by_name[name], by_name[other]])]
    adjusted = holm([test.difference.p_value for *_, test in found])
    return [
        Added(
            name,
            minus,
            (test.task, test.split),
            f"{titles.get(test.task, test.task)}, {test.split}",
            test.difference,
            p_value,
        )
        for (name, minus, test), p_value in zip(found, adjusted, strict=True)
    ]


def headline(table: ResultTable, focus: str | None, added: Sequence[Added]) -> list[str]:
    """Return the result in a few sentences: the model's accuracy, the paper's beside it, and what sound adds."""
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
        # What switching off takes away is not sound alone: the LoRA also learnt from the rows' text.
        if one.model == focus and one.column[0] != COMBINED and one.minus != STATES[OFF]:
            points, low, high = one.points
            said.append(f"With sound, {points:+.2f} points [{low:+.2f}, {high:+.2f}] over {one.minus} on {one.name}.")
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
