"""Write the finished benchmark: the published CSV files, Parquet, and a card that `datasets` understands."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from audiobert.artefacts import library_versions, sha256_of, write_json, write_text
from audiobert.construct.records import AnimalRow, PitchRow, write_records
from audiobert.construct.sheets import write_sheet
from audiobert.construct.split import Splits

DATASET = "dataset"  # its folder in a construction
# The published names ("comparsion" is the publisher's spelling) and columns, which differ between splits.
ANIMAL_FILE = "animal_sound_recognition_{split}.csv"
PITCH_FILE = "sound_pitch_comparsion_{split}.csv"
_ANIMAL_COLUMNS = {"train": ("animal", "span", "sentence")}
_ANIMAL_COLUMNS_ELSE = ("animal", "description", "sentence")
_PITCH_COLUMNS = {"wiki": ("span1", "span2", "sentence", "answer")}
_PITCH_COLUMNS_ELSE = ("sentence", "answer", "span1", "span2")
_TITLES = {"animal": "Animal sound recognition", "pitch": "Sound pitch comparison"}


def write_dataset(folder: Path, splits: Splits, *, name: str, made_from: Mapping[str, Any]) -> dict[str, int]:
    """Write the benchmark into an empty folder; return the number of rows by `task.split`."""
    counts = {}
    for split, rows in splits.animal.items():
        columns: tuple[str, ...] = _ANIMAL_COLUMNS.get(split, _ANIMAL_COLUMNS_ELSE)
        values = [
            {"animal": row.answer, "span": row.span, "description": row.span, "sentence": row.sentence} for row in rows
        ]
        write_sheet(folder / ANIMAL_FILE.format(split=split), columns, values)
        write_records(folder / "data" / "animal" / f"{split}.parquet", rows, AnimalRow)
        counts[f"animal.{split}"] = len(rows)
    for split, pairs in splits.pitch.items():
        columns = _PITCH_COLUMNS.get(split, _PITCH_COLUMNS_ELSE)
        write_sheet(folder / PITCH_FILE.format(split=split), columns, [pair.model_dump() for pair in pairs])
        write_records(folder / "data" / "pitch" / f"{split}.parquet", pairs, PitchRow)
        counts[f"pitch.{split}"] = len(pairs)
    write_sheet(folder / "attribution.csv", ("clip", "source", "license", "author", "url"), _clips(splits))
    write_text(folder / "README.md", dataset_card(name, splits))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(
        folder / "construction.json",
        {
            "name": name,
            "files": {path.relative_to(folder).as_posix(): sha256_of(path) for path in files},
            "steps": dict(made_from),
            "versions": library_versions(),
        },
    )
    return counts


def _clips(splits: Splits) -> list[dict[str, str]]:
    """Return id and origin of every clip that a row was made from, each once."""
    found: dict[str, dict[str, str]] = {}
    for rows in splits.animal.values():
        for row in rows:
            found.setdefault(row.clip_id, row.credits())
    for pairs in splits.pitch.values():
        for pair in pairs:
            both = {name: value.split(" | ") if value else ["", ""] for name, value in pair.credits().items()}
            for index, clip_id in enumerate((pair.clip1_id, pair.clip2_id)):
                if all(len(values) == 2 for values in both.values()):
                    found.setdefault(clip_id, {name: values[index] for name, values in both.items()})
    return [{"clip": clip_id, **found[clip_id]} for clip_id in sorted(found) if clip_id]


def statistics(splits: Splits) -> list[dict[str, Any]]:
    """Count captions, words per caption and words of each split, as in Table I (words are between spaces)."""
    table = []
    for task, by_split in (("animal", splits.animal), ("pitch", splits.pitch)):
        words = {
            split: [len(row.sentence.split()) for row in by_split.get(split, ())]
            for split in ("train", "dev", "test", "wiki")
        }
        words["total"] = [count for counts in words.values() for count in counts]
        for split, counts in words.items():
            if counts:
                figures = {"words_per_caption": round(sum(counts) / len(counts), 2), "words": sum(counts)}
                table.append({"task": task, "split": split, "captions": len(counts), **figures})
    return table


def dataset_card(name: str, splits: Splits) -> str:
    """Return the README of the folder: YAML for `datasets`, counts, sources, licences."""
    configs = []
    for task, by_split in (("animal", splits.animal), ("pitch", splits.pitch)):
        if by_split:
            files = [{"split": split, "path": f"data/{task}/{split}.parquet"} for split in by_split]
            configs.append({"config_name": task, "data_files": files})
    header = {
        "pretty_name": name,
        "language": ["en"],
        "task_categories": ["fill-mask"],
        "tags": ["audio", "auditory knowledge", "AuditoryBench"],
        "license": "other",
        "configs": configs,
    }
    lines = ["---", yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(), "---", "", f"# {name}", ""]
    lines += [
        "What do language models know about sounds? Two tasks, each a sentence with one [MASK]: which animal makes",
        "this sound (`animal`), and is this sound higher or lower than that one (`pitch`). Made from audio with",
        "metadata by `audiobert construct`, after section II-A of the AudioBERT paper (arXiv 2409.08199).",
        "",
        "## Counts",
        "",
        "| task | split | captions | words/caption | total words |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in statistics(splits):
        task = _TITLES[row["task"]]
        lines.append(
            f"| {task} | {row['split']} | {row['captions']:,} | {row['words_per_caption']:.2f} | {row['words']:,} |"
        )
    lines.append("")
    for split, pairs in splits.pitch.items():
        higher = sum(pair.answer == "higher" for pair in pairs)
        lines.append(f'- pitch {split}: "higher" is right in {higher} of {len(pairs)}')
    lines += ["", "No sentence, and no near-duplicate of one, stands in two of train, dev, test and wiki.", ""]
    lines += ["## Load", "", "```python", "from datasets import load_dataset", ""]
    lines += [f'{one["config_name"]} = load_dataset("path/to/this/folder", "{one["config_name"]}")' for one in configs]
    lines += [
        "```",
        "",
        "The CSV files have the names and columns of the published AuditoryBench.",
        "",
        "## Sources and licences",
        "",
    ]
    counted = Counter((clip["source"] or "unstated", clip["license"] or "unstated") for clip in _clips(splits))
    lines += ["| source | licence of the clips | clips used |", "| --- | --- | ---: |"]
    lines += [
        f"| {_cell(source)} | {_cell(license_name)} | {count} |"
        for (source, license_name), count in sorted(counted.items())
    ]
    wiki_rows: list[AnimalRow | PitchRow] = [*splits.animal.get("wiki", []), *splits.pitch.get("wiki", [])]
    wiki = sorted({(row.source, row.license) for row in wiki_rows})
    lines += [f"| {_cell(source)} | {_cell(license_name)} | text |" for source, license_name in wiki]
    lines += ["", "`attribution.csv` names author, licence and address of every clip. No audio is in this folder.", ""]
    lines += ["`construction.json` says what it was made from and by which settings.", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(json.dumps(text, ensure_ascii=False)[1:-1].replace("|", "\\|").split())
