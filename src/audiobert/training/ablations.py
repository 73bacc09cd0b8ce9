"""Train AudioBERT with other clips, other sentences, or without recordings, over several seeds, and compare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiobert.artefacts import read_json
from audiobert.auditorybench.stats import two_level_difference
from audiobert.errors import InputError
from audiobert.progress import stderr
from audiobert.training.audiobert import train_audiobert
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.seeds import over_seeds

REFERENCE = "audio"
# What an ablation changes, nested as the settings are.
# Captions stay: they are text that people wrote, and the training without recordings reads them, too.
NO_GROUNDING: dict[str, Any] = {"comparisons": 0, "extremes": 0, "names": 0, "clip_captions": 0}
# Every name of a comparison can be read: no made-up name, no hidden one, no clip without a name.
ALL_READ: dict[str, Any] = {
    "read_share": 1.0,
    "unheard_share": 0.0,
    "mixed_share": 0.0,
    "clip_share": 0.0,
    "extremes": 0,
}
ABLATIONS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    "no-recordings": {"audio": "none", "grounding": NO_GROUNDING, "rows": {"unread_share": 0.0}},
    "no-grounding": {"grounding": NO_GROUNDING},
    "no-unread": {"rows": {"unread_share": 0.0}, "grounding": ALL_READ},
    "no-relatives": {"model": {"retrieval": {"relatives": 0}}},
    "random-clips": {"audio": "random"},
    "shuffled-clips": {"audio": "shuffled"},
    "by-caption": {"model": {"retrieval": {"by": "caption"}}},
    "by-sound": {"model": {"retrieval": {"by": "sound"}}},
    "one-clip": {"model": {"retrieval": {"clips": 1}}},
}
MEASURES = (
    "animal.dev", "pitch.dev", "combined.dev", "pitch.dev.both_ways", "animal.wiki", "pitch.wiki", "combined.wiki",
    "unread-made-up.bank-added", "unread-own.bank-added",
)  # fmt: skip
COMPARED = ("combined.dev", "combined.wiki", "pitch.wiki")


def run_ablations(
    data: Path, out: Path, parts_from: Path, config: AudioBertConfig, names: Sequence[str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Train each named ablation with each seed, seed by seed; what is there already is kept.

    Return one entry per ablation: `name`, `seeds`, and for each measure its mean, standard deviation and 95% interval
    over seeds; and `reference_minus_this` per measure of `COMPARED`, by a bootstrap over seeds and rows.
    """
    if unknown := [name for name in names if name not in ABLATIONS]:
        raise InputError(f"no ablation {unknown[0]!r}; there are: {', '.join(ABLATIONS)}")
    for seed in seeds:
        for name in names:
            folder = out / name / f"seed-{seed}"
            if (folder / "audiobert.json").exists():
                continue
            stderr.print(f"ablation {name}, seed {seed}")
            train_audiobert(
                data,
                folder,
                changed(config, {**ABLATIONS[name], "seed": seed}),
                parts_from=parts_from,
                cache=out / "cache",
                resume=True,
            )
    return [summary for name in ABLATIONS if (summary := summarise(out, name))]


def changed(config: AudioBertConfig, changes: Mapping[str, Any]) -> AudioBertConfig:
    """Return settings with nested changes, checked as when they are read."""

    def merged(values: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        for key, value in new.items():
            values[key] = merged(dict(values[key]), value) if isinstance(value, Mapping) else value
        return values

    return AudioBertConfig.model_validate(merged(config.model_dump(), changes))


def summarise(out: Path, name: str) -> dict[str, Any] | None:
    """Return the figures of one ablation over the seeds that are there; None when there is none."""
    records = {
        int(path.parent.name.removeprefix("seed-")): read_json(path)["accuracy"]
        for path in sorted(out.glob(f"{name}/seed-*/audiobert.json"))
    }
    if not records:
        return None
    summary: dict[str, Any] = {"name": name, "seeds": sorted(records)}
    for measure in MEASURES:
        values = [accuracy[measure] for accuracy in records.values() if measure in accuracy]
        if values:
            summary[measure] = over_seeds(values)
    if name != REFERENCE:
        common = [seed for seed in sorted(records) if (out / REFERENCE / f"seed-{seed}" / "audiobert.json").exists()]
        for measure in COMPARED if common else ():
            first, second = (correctness(out / which, common, measure) for which in (REFERENCE, name))
            if first.size:
                summary[f"reference_minus_this.{measure}"] = two_level_difference(first, second).__dict__
    return summary


def correctness(folder: Path, seeds: Sequence[int], measure: str) -> np.ndarray:
    """Return 0 or 1 per seed and row of a task's split, or of a split of all tasks together; `(seeds, rows)`."""
    task, split = measure.split(".")
    rows = []
    for seed in seeds:
        lines = (folder / f"seed-{seed}" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        chosen = [row for row in found if row["split"] == split and task in (row["task"], "combined")]
        rows.append([float(row["correct"]) for row in chosen])
    return np.array(rows)


def as_markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the table of `docs/ablations.md`: percent, mean ± half of the 95% interval over seeds."""
    measures = [measure for measure in MEASURES if any(measure in summary for summary in summaries)]
    header = ["training", "seeds", *measures, *(f"audio minus this, {measure}" for measure in COMPARED)]
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for summary in summaries:
        cells = [summary["name"], str(len(summary["seeds"]))]
        for measure in measures:
            value = summary.get(measure)
            half = f" ± {100 * value['half_width']:.1f}" if value and value["half_width"] is not None else ""
            cells.append(f"{100 * value['mean']:.1f}{half}" if value else "")
        for measure in COMPARED:
            found = summary.get(f"reference_minus_this.{measure}")
            points = [f"{100 * found[key]:+.1f}" for key in ("mean", "low", "high")] if found else []
            cells.append(f"{points[0]} [{points[1]}, {points[2]}], p = {found['p_value']:.3g}" if found else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
