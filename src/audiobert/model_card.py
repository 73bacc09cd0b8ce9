"""Write the model card from the records that lie beside a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from audiobert.bank.store import read_manifest
from audiobert.model_folder import BANK_FOLDER, PartRecord, read_config, read_record
from audiobert.packaged import PACKAGED

CARD = "README.md"
# A card with this line belongs to the model and is written anew with it; any other stays as it is.
MARK = "<!-- written with the model; remove this line to keep your own changes -->"


def is_own_card(text: str) -> bool:
    """Tell whether a card was written with a model and not changed by a person."""
    return MARK in text


def model_card(folder: Path, title: str) -> str:
    """Return the model card of the AudioBERT in a folder, in Markdown with the hub's metadata."""
    config, bank = read_config(folder), read_manifest(folder / BANK_FOLDER)
    records = {part: read_record(folder, part) for part in config.parts}
    published = {role: model.name for role, model in config.models.items()}
    metadata = ModelCardData(
        base_model=sorted(_hub_ids(records, published)),
        language="en",
        library_name="audiobert",
        pipeline_tag="fill-mask",
        tags=["audiobert", "audio", "masked-lm"],
    )
    sections = [
        f"---\n{metadata.to_yaml()}\n---\n{MARK}\n# {title}",
        "An AudioBERT: a masked language model that finds the words of a sentence that are about sound, looks up"
        " recordings for them in a bank, and predicts with what they sound like.",
        f'```python\nfrom audiobert import AudioBert\n\nmodel = AudioBert.from_pretrained("{title}")\n'
        'model.fill_mask("Meow is the sound a [MASK] makes.")\n```',
        "## Parts",
        _table(("part", "trained on", "made", "SHA-256"), _part_rows(records)),
        *(f"The {role.replace('_', ' ')} is `{name}`, as published." for role, name in published.items()),
        "## Bank",
        f"Vectors and metadata of {bank['clips']:,} clips ({bank['seconds'] / 3600:.1f} hours); no audio.",
        _table(("licence", "clips"), ((name, f"{e['clips']:,}") for name, e in bank["licenses"]["by_license"].items())),
        "## Training",
        "Figures of the last epoch, as each part's training measured them:",
        _table(("part", "figure", "value"), _figures(records)),
        "Settings of AudioBERT's training:",
        f"```yaml\n{yaml.safe_dump(records['audiobert'].extra('settings', {}), sort_keys=False).strip()}\n```",
        "Data, by SHA-256:",
        _table(("part", "file", "SHA-256"), _data(records)),
    ]
    return "\n\n".join(sections) + "\n"


def _hub_ids(records: Mapping[str, PartRecord], published: Mapping[str, str]) -> set[str]:
    """Return the models of the hub that a model was trained on."""
    trained_on = [record.backbone for record in records.values()]
    names = {one.name for one in trained_on if one.name in PACKAGED or one.origin.startswith("hub:")}
    return {PACKAGED[name].hub_id if name in PACKAGED else name for name in {*names, *published.values()}}


def _part_rows(records: Mapping[str, PartRecord]) -> Iterator[tuple[str, ...]]:
    for part, record in records.items():
        yield part, record.backbone.name, str(record.extra("created", ""))[:10], f"`{record.sha256[:12]}`"


def _figures(records: Mapping[str, PartRecord]) -> Iterator[tuple[str, ...]]:
    for part, record in records.items():
        for name, value in (record.extra("log", None) or [{}])[-1].items():
            if isinstance(value, float) and name != "seconds":
                yield part, name, f"{value:.4g}"


def _data(records: Mapping[str, PartRecord]) -> Iterator[tuple[str, ...]]:
    for part, record in records.items():
        for name, sha256 in record.extra("data", {}).items():
            yield part, name, f"`{str(sha256)[:12]}`"


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]] | Any) -> str:
    """Return a Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
