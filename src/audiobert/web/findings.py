"""What results say in short: what audio adds, the headline, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiobert.auditorybench.stats import holm
from audiobert.auditorybench.tables import NOT_ABOVE, NOT_SURE, TITLES, Comparison, ResultTable, pairwise

NO_AUDIO = ":no-audio"
_IN_WORDS = {NOT_ABOVE: ", which is not above the best control", NOT_SURE: ", not surely above the best control"}


@dataclass(frozen=True)
class Added:
    """A model with audio against the same without, on the same rows."""

    model: str
    column: tuple[str, str]
    only_with: int
    only_without: int
    difference: tuple[float, float, float]
    p_value: float
    p_holm: float

    @property
    def name(self) -> str:
        """The column in words."""
        return f"{TITLES.get(self.column[0], self.column[0])}, {self.column[1]}"


def audio_adds(reports: Sequence[dict[str, Any]]) -> list[Added]:
    """Paired differences of every model and its `:no-audio` form, in points; p-values Holm-adjusted over all."""
    found: list[tuple[str, Comparison]] = []
    by_name = {str(report["model"]): report for report in reports}
    for name, report in by_name.items():
        if name + NO_AUDIO in by_name:
            found += [(name, c) for c in pairwise([report, by_name[name + NO_AUDIO]])]
    adjusted = holm([c.mcnemar.p_value for _, c in found])
    return [
        Added(
            name,
            (c.task, c.split),
            c.mcnemar.only_first,
            c.mcnemar.only_second,
            (100 * c.bootstrap.difference, 100 * c.bootstrap.low, 100 * c.bootstrap.high),
            c.mcnemar.p_value,
            p_value,
        )
        for (name, c), p_value in zip(found, adjusted, strict=True)
    ]


def headline(table: ResultTable, focus: str | None, added: Sequence[Added]) -> list[str]:
    """The result in a few sentences: the model's accuracy, the paper's beside it, and what audio adds."""
    row = next((row for row in table.rows if row.name == focus), None)
    if row is None:
        return []
    said = []
    published = next((r for r in table.rows if r.name.startswith("AudioBERT (BERT-base)")), None)
    for column, cell in row.cells.items():
        where = f"{TITLES.get(column[0], column[0])}, {column[1]}"
        beside = published.cells.get(column) if published else None
        theirs = f"; the paper's AudioBERT (BERT-base) has {beside.value:.2f}%" if beside else ""
        spread = f" [{cell.interval[0]:.1f}, {cell.interval[1]:.1f}]" if cell.interval else ""
        said.append(f"{where}: {cell.value:.2f}%{spread}{_IN_WORDS.get(cell.mark, '')}{theirs}.")
    for one in added:
        if one.model == focus and one.column[0] != "combined":
            points, low, high = one.difference
            said.append(f"Switched on, {points:+.2f} points [{low:+.2f}, {high:+.2f}] over switched off on {one.name}.")
    return said


def commands(reports: Sequence[Mapping[str, Any]], detectors: Sequence[Mapping[str, Any]]) -> list[str]:
    """The command lines that make the same results again, models with the same questions together."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for one in reports:
        asked = [_listed(entry[what] for entry in one["results"]) for what in ("task", "split")]
        seeds = _listed(seed for entry in one["results"] for seed in entry.get("seeds", [0]))
        options = (*asked, str(one.get("protocol", "paper")), seeds)
        grouped.setdefault(options, []).append(str(one["model"]))
    lines = []
    for (tasks, splits, protocol, seeds), models in grouped.items():
        seeded = f" --seeds {seeds}" if seeds != "0" else ""
        lines.append(
            f"audiobert evaluate {shlex.join(dict.fromkeys(models))} --data auditorybench --tasks {tasks}"
            f" --splits {splits} --protocol {protocol}{seeded} --out results.json --predictions predictions.jsonl"
        )
    if detectors:
        entries = [entry for one in detectors for entry in one["detection"] if entry["task"] != "combined"]
        tasks, splits = (_listed(entry[what] for entry in entries) for what in ("task", "split"))
        names = shlex.join(dict.fromkeys(str(one["model"]) for one in detectors))
        lines.append(
            f"audiobert evaluate {names} --detector --data auditorybench --tasks {tasks} --splits {splits}"
            " --out detector.json"
        )
    if reports:
        detection = " detector.json" if detectors else ""
        lines.append(
            f"audiobert report results.json{detection} --predictions predictions.jsonl --data auditorybench"
            " --out report.html"
        )
    return lines


def _listed(values: Iterable[Any]) -> str:
    """Each value once, in order, parted by commas."""
    return ",".join(dict.fromkeys(str(value) for value in values))


def made_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """A model's provenance as flat names and values."""
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
