"""Train with several seeds, one folder per seed, and summarize the figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from scipy import stats

from audiobert.artefacts import provenance, read_json, write_json
from audiobert.auditorybench.stats import mean_and_sd
from audiobert.errors import InputError
from audiobert.progress import stderr
from audiobert.training.processes import processes

SUMMARY = "seeds.json"


def over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Return mean, standard deviation, and half the 95% interval of the mean (Student's t); None for a single value."""
    mean, deviation = mean_and_sd(list(values))
    half = None
    if deviation is not None:
        half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return {"mean": mean, "sd": deviation, "half_width": half}


def detector_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Return token F1 by task and split, as in Table II, from a detector's record."""
    return {name: scores["token_f1"] for name, scores in record["scores"].items()}


def audiobert_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Return accuracy by task and split, as in Table III, from an AudioBERT's record."""
    return dict(record["accuracy"])


def train_seeds(
    part: str,
    out: Path,
    seeds: Sequence[int],
    train: Callable[[int, Path], Mapping[str, Any]],
    figures: Callable[[Mapping[str, Any]], dict[str, float]],
) -> dict[str, Any]:
    """Train once per seed, into `out/seed-N`; a seed that has its record, `PART.json`, is not trained again.

    Parameters
    ----------
    figures
        From a record to the figures that are summarized.

    Returns
    -------
    dict
        Also in `out/seeds.json`: the seeds, and for each figure its values, mean, standard deviation and half of its
        95% interval.
    """
    if not seeds:
        raise InputError("no seed is given; 0,1,2 or 0-4 is wanted")
    folders = [out / f"seed-{seed}" for seed in seeds]
    for seed, folder in zip(seeds, folders, strict=True):
        if not (folder / f"{part}.json").exists():
            stderr.print(f"{part}, seed {seed}")
            train(seed, folder)
    if not processes().is_main_process:
        return {}
    by_seed = [figures(read_json(folder / f"{part}.json")) for folder in folders]
    common = [name for name in by_seed[0] if all(name in each for each in by_seed)]
    summary = {
        name: {"values": values, **over_seeds(values)} for name in common for values in [[e[name] for e in by_seed]]
    }
    result = dict(provenance(part=part, seeds=list(seeds), figures=summary))
    write_json(out / SUMMARY, result)
    return result


def as_table(result: Mapping[str, Any]) -> Table:
    """Return the figures in percent, with mean and 95% interval over the seeds, for the terminal."""
    seeds = result["seeds"]
    table = Table("figure", "mean", "95% interval", "seeds", title=f"{result['part']}, {len(seeds)} seeds, percent")
    for name, figure in result["figures"].items():
        half = figure["half_width"]
        mean = 100 * figure["mean"]
        interval = "" if half is None else f"{mean - 100 * half:.1f} to {mean + 100 * half:.1f}"
        table.add_row(name, f"{mean:.1f}", interval, "  ".join(f"{100 * value:.1f}" for value in figure["values"]))
    return table
