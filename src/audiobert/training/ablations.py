"""What hearing adds: the same training with other clips, other spans, or no clips at all, over several seeds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from audiobert.artefacts import read_json, whole_file, write_text
from audiobert.errors import InputError
from audiobert.progress import stderr
from audiobert.training.audiobert import train_audiobert
from audiobert.training.audiobert_config import AFTER_TRAINING, AudioBertConfig
from audiobert.training.seeds import over_seeds

REFERENCE = "audio"
CONTROL = "no-audio"
MORE_LORA = "no-audio-more-lora"  # twice the rank, and alpha with it
ABLATIONS: dict[str, dict[str, Any]] = {
    REFERENCE: {},
    CONTROL: {"audio": "none"},
    "random-clip": {"audio": "random"},
    "shuffled-clips": {"audio": "shuffled"},
    "oracle-class": {"audio": "oracle"},
    "gold-spans": {"asked_spans": "gold"},
    MORE_LORA: {"audio": "none"},
}
MEASURES = (
    "animal.dev", "pitch.dev", "combined.dev", "pitch.dev.both_ways", "animal.wiki", "pitch.wiki", "combined.wiki"
)  # fmt: skip


def run_ablations(
    data: Path, out: Path, parts_from: Path, config: AudioBertConfig, names: Sequence[str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Train each named ablation with each seed, seed by seed; what is there already is kept.

    An ablation that only asks otherwise takes the reference's trained weights where they are there.

    Returns
    -------
    list of dict
        An entry an ablation: `name`, `seeds`, and for each measure its mean, standard deviation and 95% interval of
        the mean over seeds (Student's t); against the reference, the difference on the dev rows with each row's
        correctness averaged over the seeds that both have (`paired_difference`).

    Raises
    ------
    InputError
        An ablation is unknown.
    """
    if unknown := [name for name in names if name not in ABLATIONS]:
        raise InputError(f"no ablation {unknown[0]!r}; there are: {', '.join(ABLATIONS)}")
    for seed in seeds:
        for name in names:
            folder = out / name / f"seed-{seed}"
            if (folder / "audiobert.json").exists():
                continue
            changed = config.model_copy(update={**changes(name, config), "seed": seed})
            stderr.print(f"ablation {name}, seed {seed}")
            if name != REFERENCE and ABLATIONS[name].keys() <= AFTER_TRAINING:
                take_over(out / REFERENCE / folder.name, folder)
            train_audiobert(data, folder, changed, parts_from=parts_from, cache=out / "cache", resume=True, bank=False)
    return [summary for name in ABLATIONS if (summary := summarise(out, name))]


def changes(name: str, config: AudioBertConfig) -> dict[str, Any]:
    """The settings that an ablation changes."""
    more = {"lora_rank": 2 * config.lora_rank, "lora_alpha": 2 * config.lora_alpha} if name == MORE_LORA else {}
    return ABLATIONS[name] | more


def take_over(trained: Path, folder: Path) -> None:
    """Put the end of another run where training would go on from it; nothing where that run has not ended."""
    if not (trained / "audiobert.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("settings.json", "log.jsonl", "checkpoint.safetensors"):
        with whole_file(folder / name) as part:
            shutil.copyfile(trained / name, part)


def summarise(out: Path, name: str) -> dict[str, Any] | None:
    """Figures of one ablation over the seeds that are there; None when there is none."""
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
    if name != REFERENCE and (common := _common_rows(out, name)):
        summary["reference_minus_this"] = paired_difference(*common)
    return summary


def paired_difference(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Mean difference of two paired samples, its 95% interval by bootstrap over the pairs, and a sign-flip p-value."""
    difference = first - second
    mean = float(difference.mean())
    if not difference.any():
        return {"difference": 0.0, "interval": [0.0, 0.0], "p_value": 1.0}
    interval = stats.bootstrap((difference,), np.mean, method="percentile", rng=0).confidence_interval
    test = stats.permutation_test((difference,), np.mean, permutation_type="samples", n_resamples=9999, rng=0)
    return {"difference": mean, "interval": [float(interval.low), float(interval.high)], "p_value": float(test.pvalue)}


def _common_rows(out: Path, name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Correctness of every dev row, averaged over the seeds that both the reference and the ablation have."""
    seeds = [
        folder.name
        for folder in sorted((out / name).glob("seed-*"))
        if (folder / "audiobert.json").exists() and (out / REFERENCE / folder.name / "audiobert.json").exists()
    ]
    if not seeds:
        return None
    shares = []
    for which in (REFERENCE, name):
        hits: dict[tuple[str, int], list[bool]] = {}
        for seed in seeds:
            for line in (out / which / seed / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                if row["split"] == "dev":
                    hits.setdefault((row["task"], row["row"]), []).append(row["correct"])
        shares.append(np.array([np.mean(hits[key]) for key in sorted(hits)]))
    return shares[0], shares[1]


def as_markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """The table of `docs/ablations.md`: percent, mean ± half of the 95% interval over seeds."""
    header = ["training", "seeds", *MEASURES, "audio minus this, combined dev"]
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for summary in summaries:
        cells = [summary["name"], str(len(summary["seeds"]))]
        for measure in MEASURES:
            value = summary.get(measure)
            half = f" ± {100 * value['half_width']:.1f}" if value and value["half_width"] is not None else ""
            cells.append(f"{100 * value['mean']:.1f}{half}" if value else "")
        against = summary.get("reference_minus_this")
        cells.append(
            f"{100 * against['difference']:+.1f} [{100 * against['interval'][0]:+.1f}, "
            f"{100 * against['interval'][1]:+.1f}], p = {against['p_value']:.3g}"
            if against
            else ""
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_table(summaries: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the Markdown table alone."""
    write_text(path, as_markdown(summaries))
