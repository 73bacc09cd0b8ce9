"""The same training with several seeds: a folder a seed, and what the figures come to over all of them."""

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
from audiobert.training.processes import is_main_process

SUMMARY = "seeds.json"


def parse_seeds(text: str) -> list[int]:
    """Whole numbers with commas between.

    >>> parse_seeds("0, 1,2")
    [0, 1, 2]

    Raises
    ------
    InputError
        It is something else, or names a seed twice.
    """
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isdecimal() for piece in pieces) or len(set(pieces)) < len(pieces):
        raise InputError(f"--seeds is {text!r}; give different whole numbers with commas between, such as 0,1,2,3,4")
    return [int(piece) for piece in pieces]


def over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation, and half of the 95% interval of the mean (Student's t); None for a single value."""
    mean, deviation = mean_and_sd(list(values))
    half = None
    if deviation is not None:
        half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return {"mean": mean, "sd": deviation, "half_width": half}


def detector_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Token F1 by task and split, as in Table II, of a detector's record."""
    return {name: scores["token_f1"] for name, scores in record["scores"].items()}


def audiobert_figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy by task and split, as in Table III, of an AudioBERT's record."""
    return dict(record["accuracy"])


def train_seeds(
    part: str,
    out: Path,
    seeds: Sequence[int],
    train: Callable[[int, Path], Mapping[str, Any]],
    figures: Callable[[Mapping[str, Any]], dict[str, float]],
) -> dict[str, Any]:
    """Train once with each seed, into `out/seed-N`; what is there already is kept.

    Parameters
    ----------
    part
        Name of the record that a training leaves: `out/seed-N/PART.json`.
    train
        Called with a seed and its folder.
    figures
        From a record to the figures that are summed up.

    Returns
    -------
    dict
        Also in `out/seeds.json`: the seeds, and for each figure its values, mean, standard deviation and half of its
        95% interval.
    """
    folders = [out / f"seed-{seed}" for seed in seeds]
    for seed, folder in zip(seeds, folders, strict=True):
        if not (folder / f"{part}.json").exists():
            stderr.print(f"{part}, seed {seed}")
            train(seed, folder)
    if not is_main_process():
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
    """Percent, mean and 95% interval over the seeds, for the terminal."""
    seeds = result["seeds"]
    table = Table("figure", "mean", "95% interval", "seeds", title=f"{result['part']}, {len(seeds)} seeds, percent")
    for name, figure in result["figures"].items():
        half = figure["half_width"]
        mean = 100 * figure["mean"]
        interval = "" if half is None else f"{mean - 100 * half:.1f} to {mean + 100 * half:.1f}"
        table.add_row(name, f"{mean:.1f}", interval, "  ".join(f"{100 * value:.1f}" for value in figure["values"]))
    return table
