"""Make the tables of a bank and of search results for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.table import Table

from audiobert.bank.licences import terms_of

if TYPE_CHECKING:
    from audiobert.answers import Hit
    from audiobert.bank import AudioBank

_YES_NO = {True: "yes", False: "no", None: "not stated"}


def bank_tables(bank: AudioBank) -> Iterator[Table]:
    """Yield the tables of `bank info`: the bank, its licences, what was rejected."""
    manifest = bank.manifest
    table = Table("", "", title=str(bank.folder), show_header=False, title_justify="left")
    table.add_row("clips", f"{len(bank):,}")
    table.add_row("audio", f"{manifest.get('seconds', 0) / 60:,.1f} minutes")
    table.add_row("CLAP vectors", f"{manifest['clap_dim']} float16")
    table.add_row("knowledge vectors", f"{manifest['hidden_size']} float16")
    if "text_dim" in manifest:
        table.add_row("name vectors", f"{manifest['text_dim']} float16, {manifest['names']:,} distinct names")
    table.add_row("size on disk", decimal(sum(one["bytes"] for one in manifest["files"].values())))
    for name, value in _flat(manifest["identity"]):
        table.add_row(name, f"{value[:12]}..." if name.endswith("sha256") else str(value))
    for name, value in _flat(manifest["settings"]):
        table.add_row(name, str(value))
    if index := manifest.get("index"):
        table.add_row("index", f"{index['kind']}, {index['nprobe']} of {index['lists']} lists per query")
        table.add_row("recall@10 of the index", f"{index['recall_at_10']:.3f}")
    table.add_row("created", str(manifest.get("created")))
    yield table

    licenses = manifest["licenses"]
    answer = _YES_NO[licenses["redistributable"]]
    table = Table("licence", "clips", "may be passed on", "for money too", title="licences", title_justify="left")
    for name, entry in licenses["by_license"].items():
        row = (f"{entry['clips']:,}", _YES_NO[entry["redistributable"]], _YES_NO[entry["commercial"]])
        table.add_row(name, *row)
    table.caption = f"All clips may be passed on: {answer}. The bank itself holds no audio."
    yield table

    if manifest.get("rejected"):
        table = Table("rejected because", "entries", title="rejected (rejected.jsonl)", title_justify="left")
        for reason, count in manifest["rejected"].items():
            table.add_row(reason, f"{count:,}")
        yield table


def _flat(identity: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in identity.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value


def hit_table(hits: list[Hit]) -> Table:
    """Return the table of `search`."""
    table = Table("score", "clip", "what it is", "pitch", "length", "licence")
    for hit in hits:
        clip = hit.clip
        pitch = "-" if clip.pitch_hz is None else f"{clip.pitch_hz:.0f} Hz"
        length = "-" if clip.duration_s is None else f"{clip.duration_s:.1f} s"
        what = clip.caption or clip.title or clip.label or "-"
        table.add_row(f"{hit.score:.3f}", clip.id, what, pitch, length, terms_of(clip.license).name)
    return table
