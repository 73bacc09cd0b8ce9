"""Define `audiobert data download`, `audiobert data verify` and `audiobert audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

_FOLDER = typer.Argument(
    help="A folder with AuditoryBench; default AUDITORYBENCH_DIR, else the one that 'data download' fills."
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    data = typer.Typer(help="Fetch AuditoryBench and check it.", no_args_is_help=True)
    data.command("download")(download)
    data.command("verify")(verify)
    app.add_typer(data, name="data")
    app.command("audit")(audit)


def download(
    out: Annotated[
        Path | None, typer.Option(help="The folder to fill; default AUDITORYBENCH_DIR, else the user's data folder.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="A server with the repository's files; default AUDITORYBENCH_MIRROR.")
    ] = None,
    proxy: Annotated[str | None, typer.Option(help="A proxy; default that of HTTPS_PROXY.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Fetch AuditoryBench at pinned commits; every file is checked before it gets its name.

    Example: audiobert data download --out auditorybench
    """
    from audiobert.auditorybench.download import download as fetch

    files = fetch(out, mirror=mirror, proxy=proxy)
    if as_json:
        print(json.dumps(files, indent=2))
        return
    for file in files:
        print(f"{'fetched' if file['fetched'] else 'was there'}  {file['file']}")


def verify(
    folder: Annotated[Path | None, _FOLDER] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Check a folder against what is published: checksums, rows, columns, words per caption, train against test.

    Missing files are named and are no fault. A file that is not the published one is a fault: the exit status is 2.

    Example: audiobert data verify auditorybench
    """
    from audiobert.auditorybench.download import data_folder
    from audiobert.auditorybench.download import verify as check

    report = check(data_folder(folder))
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        for entry in report:
            _print_entry(entry)
    if any(entry["status"] in ("changed", "wrong") for entry in report):
        raise typer.Exit(2)


def _print_entry(entry: dict[str, Any]) -> None:
    size = f"{entry['rows']:6,} rows  {entry['words_per_caption']:5.2f} words per caption" if "rows" in entry else ""
    print(f"{entry['status']:9}  {entry['task']:6} {entry['split']:5}  {size}".rstrip())
    if entry["status"] != "missing":
        for fault in entry["faults"]:
            print(f"           {fault}")


def audit(
    folder: Annotated[Path | None, _FOLDER] = None,
    splits: Annotated[str, typer.Option(help="Splits, separated by commas.")] = "train,dev,test,wiki",
    tokenizer: Annotated[
        str | None, typer.Option(help="Count the answers' wordpieces with this tokenizer: 'mini', a folder, a hub id.")
    ] = None,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Look for near-duplicate sentences.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show what is wrong with a benchmark folder: leaks, ambiguity, missing spans, priors.

    Example: audiobert audit auditorybench --splits train,dev,wiki
    """
    from audiobert.auditorybench.audit import audit as look
    from audiobert.auditorybench.audit_page import to_text
    from audiobert.auditorybench.download import data_folder

    chosen = [split.strip() for split in splits.split(",") if split.strip()]
    loaded = None
    if tokenizer:
        from audiobert.backbone import TOKENIZER_FILES, find_model, load_tokenizer

        loaded = load_tokenizer(find_model(tokenizer, files=TOKENIZER_FILES)[0], tokenizer)
    report = look(data_folder(folder), splits=chosen, tokenizer=loaded, near_duplicates=near)
    print(json.dumps(report, indent=2, ensure_ascii=False) if as_json else to_text(report), end="\n" if as_json else "")
