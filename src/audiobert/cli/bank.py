"""Define `audiobert bank ...` and `audiobert search`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from audiobert.answers import Hit

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A bank's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on stdout.")]
Exclude = Annotated[
    list[Path] | None,
    typer.Option("--exclude", help="Clips that must not be found: ids, one per line, or a table with a column 'id'."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    family = typer.Typer(help="Build, check and move banks: clips with their metadata and vectors.")
    for command in (build, info, verify, merge, export):
        family.command(command.__name__)(command)
    app.add_typer(family, name="bank", no_args_is_help=True)
    app.command("search")(search)


def build(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of audio, a CSV/JSONL/Parquet manifest with a path column, .tar shards, or 'datasets:NAME'."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The bank's folder.")],
    model: Annotated[str, typer.Option("--model", help="'mini', a model's folder, or a hub id.")] = "mini",
    resume: Annotated[bool, typer.Option("--resume", help="Resume a build, or add what is new or changed.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bank that is there.")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; one per core by default.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips per batch of the encoder.")] = 32,
    max_duration: Annotated[float, typer.Option(help="Longer recordings (seconds) are rejected.")] = 1_800.0,
    pitch: Annotated[str, typer.Option(help="Pitch estimator: swiftf0, pyin, or none.")] = "swiftf0",
    no_paths: Annotated[bool, typer.Option("--no-paths", help="Do not record where the audio lies.")] = False,
    index: Annotated[
        bool | None, typer.Option("--index/--no-index", help="Approximate index; from 100,000 clips by default.")
    ] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster; a local one by default.")] = None,
    device: Annotated[str | None, typer.Option(help="Torch device of the encoder.")] = None,
    precision: Annotated[
        Literal["fp32", "bf16"], typer.Option(help="bf16: faster where the device has it, cosine above 0.999.")
    ] = "fp32",
    as_json: Json = False,
) -> None:
    """Build a bank. What cannot be used is listed in its rejected.jsonl with the reason.

    Example: audiobert bank build recordings/ --out my-bank
    """
    from audiobert.bank import build_bank
    from audiobert.bank.sources import open_source
    from audiobert.errors import InputError
    from audiobert.loading import load_clip_encoder
    from audiobert.pitch import ESTIMATOR_NAMES

    if pitch not in ESTIMATOR_NAMES:
        raise InputError(f"--pitch is {pitch!r}; give one of {', '.join(ESTIMATOR_NAMES)}")
    opened = open_source(source)  # refuse a wrong path before loading the model
    report = build_bank(
        opened,
        out,
        load_clip_encoder(model, device, precision),
        resume=resume,
        overwrite=overwrite,
        workers=workers,
        batch_size=batch_size,
        max_duration_s=max_duration,
        estimator=pitch,  # type: ignore[arg-type]
        keep_audio_root=not no_paths,
        index=index,
        engine=engine,
        address=address,
    )
    if as_json:
        _print_json(asdict(report))
        return
    print(f"{report.folder}: {report.clips:,} clips, {report.audio_seconds / 60:,.1f} minutes of audio")
    print(f"encoded {report.encoded:,}, taken over {report.reused:,}, in {report.seconds:,.1f} s")
    if report.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.rejected.items())
        print(f"rejected: {reasons} (see {out / 'rejected.jsonl'})")


def info(folder: Folder, as_json: Json = False) -> None:
    """Show what a bank holds, what made it, and whether it may be passed on.

    Example: audiobert bank info my-bank
    """
    from audiobert.bank import AudioBank

    bank = AudioBank.open(folder)
    if as_json:
        _print_json(bank.manifest)
        return
    from rich.console import Console

    from audiobert.cli.bank_tables import bank_tables

    console = Console()
    for table in bank_tables(bank):
        console.print(table)


def verify(folder: Folder, as_json: Json = False) -> None:
    """Compare every file of a bank with its checksum; exit status 2 when one is damaged.

    Example: audiobert bank verify my-bank
    """
    from audiobert.bank import verify_bank
    from audiobert.errors import ArtefactError

    report = verify_bank(folder)
    if as_json:
        _print_json({**asdict(report), "sound": report.sound})
    elif report.sound:
        print(f"{folder} is sound: {', '.join(report.files)}")
    if not report.sound:
        raise ArtefactError(f"{folder} is damaged: {'; '.join(report.problems)}; restore it or build it again")


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR DIR ...", help="Banks made by the same models.")],
    out: Annotated[Path, typer.Option("--out", help="The new bank's folder.")],
    as_json: Json = False,
) -> None:
    """Merge several banks into one.

    Example: audiobert bank merge animals instruments --out both
    """
    from audiobert.bank import merge_banks

    bank = merge_banks(folders, out)
    if as_json:
        _print_json(bank.manifest)
    else:
        print(f"{out}: {len(bank):,} clips")


def export(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="A .parquet file, or a dataset's folder.")],
    to: Annotated[Literal["parquet", "datasets"], typer.Option("--to", help="Format.")] = "parquet",
) -> None:
    """Write a bank's metadata and vectors for other tools.

    Example: audiobert bank export my-bank --to parquet --out clips.parquet
    """
    from audiobert.bank import export_bank

    print(export_bank(folder, out, to=to))


def search(
    query: Annotated[str, typer.Argument(help="Words for a sound.")],
    bank: Annotated[Path | None, typer.Option("--bank", help="Search this bank instead of the model's own.")] = None,
    model: Annotated[str, typer.Option("--model", help="'mini', a model's folder, or a hub id.")] = "mini",
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Number of clips.")] = 10,
    exclude: Exclude = None,
    licenses: Annotated[list[str] | None, typer.Option("--license", help="Only these licences.")] = None,
    redistributable: Annotated[
        bool, typer.Option("--redistributable", help="Only clips that may be passed on.")
    ] = False,
    sources: Annotated[list[str] | None, typer.Option("--source", help="Only these sources.")] = None,
    labels: Annotated[list[str] | None, typer.Option("--label", help="Only these labels.")] = None,
    min_duration: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    max_duration: Annotated[float | None, typer.Option(help="Seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Find the clips whose sound fits the words best.

    Example: audiobert search "a small dog barking" --top-k 5
    """
    from audiobert.cli.sentence import read_texts
    from audiobert.cli.threads import prefer_one_thread

    prefer_one_thread()
    from audiobert.bank.sources import read_ids
    from audiobert.errors import InputError
    from audiobert.pipeline import AudioBert

    if not query.strip():
        raise InputError("the query is empty; give words for a sound")
    next(read_texts([query]))  # refuses what is not UTF-8
    excluded = [identifier for path in exclude or [] for identifier in read_ids(path)]
    hits = AudioBert.from_pretrained(model, bank=bank, only_bank=bank is not None).search(
        query,
        top_k,
        exclude=excluded or None,
        licenses=licenses or None,
        redistributable=True if redistributable else None,
        sources=sources or None,
        labels=labels or None,
        min_duration_s=min_duration,
        max_duration_s=max_duration,
    )
    if as_json:
        _print_json([{"score": hit.score, **hit.clip.to_json()} for hit in hits])
    else:
        _print_hits(hits)


def _print_hits(hits: list[Hit]) -> None:
    from rich.console import Console

    if not hits:
        print("no clip of the bank is left by these filters; 'audiobert bank info' shows its licences")
        return

    from audiobert.cli.bank_tables import hit_table

    Console().print(hit_table(hits))


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
