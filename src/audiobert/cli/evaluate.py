"""Define `audiobert evaluate`, `audiobert compare` and `audiobert plain-text`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from audiobert.auditorybench.tables import ResultTable, TextTable

_PLAIN_WIDTH = 260
_JSON = typer.Option("--json", help="Machine-readable, on stdout.")
Form = Annotated[Literal["terminal", "markdown", "latex", "csv"], typer.Option("--format", help="Form of tables.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("evaluate")(evaluate)
    app.command("compare")(compare)
    app.command("plain-text")(plain_text)


def _list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="mini, a preset, a folder, a hub id, or a control: control:majority, control:bag-of-words, "
            "control:bag-of-words-told, control:text-scorers. An AudioBERT's name may end in :unheard (same weights, "
            "knowledge vectors zero), :off (LoRA off: the plain language model) or :gold-spans (the row's own spans). "
            "{seed} in a name stands for each of --seeds.",
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder with the benchmark; default AUDITORYBENCH_DIR, else 'data download's.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks or YAML files, separated by commas; default AuditoryBench's: animal,pitch. unread asks an "
            "AudioBERT about the sounds of its bank that it never read about."
        ),
    ] = None,
    splits: Annotated[str, typer.Option(help="Splits, separated by commas: train, dev, wiki, test.")] = "dev,wiki",
    protocol: Annotated[str, typer.Option(help="paper, candidates or multiple-choice.")] = "paper",
    seeds: Annotated[str, typer.Option(help="Seeds for names with {seed}: 0,1,2 or 0-4.")] = "0",
    out: Annotated[Path | None, typer.Option(help="Write the results to this JSON file.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Write one line per row to this JSONL file.")] = None,
    detector: Annotated[bool, typer.Option("--detector", help="Score the models' span detectors (Table II).")] = False,
    kind: Annotated[str | None, typer.Option(help="masked, causal or audiobert, if the config does not say.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask causal language models through their chat templates.")
    ] = False,
    bank: Annotated[str | None, typer.Option(help="Another bank for an AudioBERT.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps ...; default the accelerator if there is one.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sentences per forward pass.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only the first rows of each split.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server; the MODELs are then its models.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at once.")] = 8,
    retries: Annotated[int, typer.Option(min=0, help="Retries after a temporary fault of the server.")] = 4,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a reply.")] = 60.0,
    key_variable: Annotated[
        str | None,
        typer.Option(
            help="The environment variable that holds the server's key. Default: OPENAI_API_KEY, sent only over https "
            "or to this machine."
        ),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps the server's replies.")] = None,
    form: Form = "terminal",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Measure what models know of sound: accuracy with its interval, beside the paper's Table III.

    Example: audiobert evaluate mini mini:unheard control:text-scorers --data auditorybench --out results.json
    """
    from audiobert.auditorybench.detection import evaluate_detectors
    from audiobert.auditorybench.download import data_folder
    from audiobert.auditorybench.evaluate import evaluate as run
    from audiobert.auditorybench.evaluate import parse_protocol, parse_seeds
    from audiobert.auditorybench.models import ModelOptions
    from audiobert.auditorybench.tables import accuracy_table, detector_table

    folder = data_folder(data)
    options = ModelOptions(
        kind=kind,
        bank=bank,
        device=device,
        batch_size=batch_size,
        base_url=base_url,
        chat={
            "concurrency": concurrency,
            "retries": retries,
            "timeout_s": timeout,
            "key_variable": key_variable,
            "cache": cache,
        },
        templated=chat,
    )
    asked: dict[str, Any] = {
        "tasks": _list(tasks) if tasks else None,
        "splits": _list(splits),
        "options": options,
        "limit": limit,
        "out": out,
    }
    if detector:
        reports = evaluate_detectors(models, folder, **asked)
        _show(detector_table(reports), form, as_json, reports)
        return
    asked |= {"protocol": parse_protocol(protocol), "seeds": parse_seeds(seeds), "predictions": predictions}
    reports = run(models, folder, **asked)
    _show(accuracy_table(reports), form, as_json, reports)


def _show(table: ResultTable, form: str, as_json: bool, reports: list[dict[str, Any]]) -> None:
    if as_json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports, ensure_ascii=False))
        return
    _print_table(table, form)


def _print_table(table: ResultTable | TextTable, form: str) -> None:
    from audiobert.auditorybench.table_writers import to_terminal, write_table

    if form != "terminal":
        print(write_table(table, form), end="")
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # into a file or a pipe: as wide as it needs to be
        console = Console(width=_PLAIN_WIDTH)
    console.print(to_terminal(table))


def compare(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...", help="Files of 'evaluate --out'.")],
    pairs: Annotated[
        bool | None,
        typer.Option(
            "--pairs/--no-pairs",
            help="Test every two models on the same rows. With --format csv, --pairs prints these tests instead.",
        ),
    ] = None,
    published: Annotated[bool, typer.Option("--paper/--no-paper", help="Show the paper's rows.")] = True,
    form: Form = "terminal",
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Compare results with the paper's Table III; controls first, and a mark where a model does not beat them.

    Every two models are tested on the same rows by a bootstrap over seeds and rows.

    Example: audiobert compare mini.json controls.json --format markdown
    """
    from audiobert.auditorybench.tables import accuracy_table, pairwise, pairwise_table, read_results, table_to_json

    reports = read_results(results)
    table = accuracy_table(reports, published=published)
    one_table = form == "csv" and not as_json  # so that what is printed can be read as one table
    tests = pairwise(reports) if pairs or (pairs is None and not one_table) else []
    if as_json:
        content = {"table": table_to_json(table), "pairs": [asdict(test) for test in tests]}
        print(json.dumps(content, ensure_ascii=False))
        return
    if not (one_table and pairs):
        _print_table(table, form)
    if tests and not one_table:
        print()
    if tests or (one_table and pairs):
        _print_table(pairwise_table(tests, reports), form)


def plain_text(
    text: Annotated[Path, typer.Argument(help="A file with one sentence per line, gzipped or not.")],
    model: Annotated[str, typer.Option(help="A preset or a folder.")] = "mini",
    limit: Annotated[int | None, typer.Option(min=1, help="Read only the first lines.")] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Measure what a model does to text that is not about sound: perplexity with LoRA off and on, false alarms.

    Example: audiobert plain-text general_eval.txt.gz --model mini
    """
    from audiobert.model_folder import model_folder
    from audiobert.training.plain_text import plain_text_figures

    figures = plain_text_figures(model_folder(model), text, limit=limit)
    if as_json:
        print(json.dumps(asdict(figures)))
        return
    print(f"{figures.lines:,} lines")
    print(f"perplexity of masked tokens, LoRA off: {figures.perplexity_off:.1f}, on: {figures.perplexity_on:.1f}")
    print(f"lines in which the detector finds a span: {figures.false_alarms:.2%}")
