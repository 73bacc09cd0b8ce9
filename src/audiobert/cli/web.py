"""Define `audiobert demo` and `audiobert report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from audiobert.cli.threads import prefer_one_thread


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("demo")(demo)
    app.command("report")(report)


def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7860,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="'mini', a folder or a hub id; several make a choice.")
    ] = None,
    bank: Annotated[
        list[Path] | None, typer.Option("--bank", help="A bank to search; several make a choice in the page.")
    ] = None,
    audio_root: Annotated[
        Path | None, typer.Option(help="Folder with the audio of the model's own bank, which comes without.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback lets others use the page.")
    ] = "127.0.0.1",
    queue: Annotated[int, typer.Option(min=1, help="Questions that may wait; further ones are turned away.")] = 128,
) -> None:
    """Serve the web page: sentences with their sounds, search in the bank, two sounds compared.

    Example: audiobert demo --bank my-bank --port 7860
    """
    prefer_one_thread()  # the page answers two visitors at once
    from rich.console import Console

    from audiobert.web.demo import is_loopback, serve
    from audiobert.web.shelf import Shelf

    def ready(address: str) -> None:
        print(f"AudioBERT is at {address} (Ctrl+C ends it)", flush=True)

    if not is_loopback(host):
        Console(stderr=True).print(f"audiobert: {host} is not loopback: whoever reaches this machine can use the page.")
    serve(
        Shelf(model or ["mini"], bank or [], audio_root=audio_root),
        host=host,
        port=port,
        queue_limit=queue,
        ready=ready,
    )


def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="Files of 'evaluate --out', '--detector' ones included.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The HTML file.")],
    predictions: Annotated[
        list[Path] | None, typer.Option(help="Files of 'evaluate --predictions'; may be given several times.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the benchmark, for its audit.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to look at closely; by default the results' first AudioBERT.")
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="The bank its clips came from; by default the model's own.")] = None,
    without_recordings: Annotated[
        str | None, typer.Option(help="The model of the results that was trained in the same way without recordings.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Write the figures into this folder, as PDF and PNG.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Rows shown, half of them right.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="The files written, as JSON on stdout.")] = False,
) -> None:
    """Write one self-contained HTML file from results: tables, what hearing adds, errors, examples, the data's audit.

    Example: audiobert report results.json --predictions predictions.jsonl --data auditorybench --out report.html
    """
    import json

    from audiobert.web.report import Sources, write_report

    sources = Sources(results, predictions or [], data, model, bank, examples, without_recordings)
    written = write_report(sources, out, figures=figures)
    if as_json:
        print(json.dumps({"files": [str(path) for path in written]}))
        return
    for path in written:
        print(path)
