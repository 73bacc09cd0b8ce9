"""Define `audiobert construct`: make AuditoryBench from any audio collection with any language model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

Config = Annotated[
    Path, typer.Argument(help="YAML file with the settings; 'audiobert config construct-example' prints one.")
]
Redo = Annotated[bool, typer.Option("--redo", help="Make it again even if nothing has changed.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Also replace files that a person has changed or put there.")
]
Engine = Annotated[
    str | None, typer.Option(help="http (a server), transformers (in this process) or ray (Ray Data with vLLM).")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only the first so many clips of the collection.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]

_STEP_HELP = {
    "run": "Run all steps in their order.",
    "collect": "Read the collection and its texts: clips.jsonl.",
    "categorize": "Ask what is heard in each clip (animal/dog/pomeranian): categories.jsonl.",
    "animal": "Ask for a question about each animal: animal.jsonl.",
    "pitch": "Measure pairs of clips and ask which is higher: pitch.jsonl.",
    "wiki": "Make the two Wikipedia sets from saved pages or the MediaWiki API.",
    "split": "Remove duplicates, split 70/10/20, and write the benchmark into dataset/.",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    family = typer.Typer(help="Make AuditoryBench from an audio collection and a language model.", no_args_is_help=True)
    for step, text in _STEP_HELP.items():
        example = f"Example: audiobert construct {step} construct-example"
        family.command(step, help=f"{text}\n\n{example}")(_command_of(step))
    family.command("schema")(_schema)
    review = typer.Typer(help="Export a sample for human judges, and import their judgements.", no_args_is_help=True)
    review.command("export")(_review_export)
    review.command("import")(_review_import)
    family.add_typer(review, name="review")
    app.add_typer(family, name="construct")


def _command_of(step: str) -> Callable[..., None]:
    """Return the command of one step, or of `run`, all of them."""

    def command(
        config: Config,
        redo: Redo = False,
        overwrite: Overwrite = False,
        engine: Engine = None,
        limit: Limit = None,
        as_json: AsJson = False,
    ) -> None:
        from audiobert.construct.run import STEPS, Construction, read_settings

        settings = read_settings(config, engine=engine, limit=limit)
        with Construction(settings, redo=redo, overwrite=overwrite) as construction:
            report = construction.report(construction.run(STEPS if step == "run" else (step,)))
        if as_json:
            print(json.dumps(report, indent=2))
        else:
            _print_report(report)

    return command


def _schema() -> None:
    """Print the JSON schemas of the records, of the prompts' answers, and of the settings.

    Example: audiobert construct schema > schemas.json
    """
    from audiobert.construct.run import schemas

    print(json.dumps(schemas(), indent=2))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "-"


def _print_report(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "", "kept", "rejected")
    for step in report["steps"]:
        table.add_row(step["step"], step["state"], _counts(step["kept"]), _counts(step["rejected"]))
    console = Console(highlight=False)
    console.print(table)
    model = report["language_model"]
    faults = f" (faults: {_counts(model['faults'])})" if model["faults"] else ""
    console.print(
        f"{model['questions']:,} questions, {model['from_store']:,} answered before, "
        f"{model['requests']:,} requests{faults}, "
        f"{model['prompt_tokens']:,} + {model['completion_tokens']:,} tokens, cost {model['cost']:.4f}"
    )
    console.print(f"files in {report['out']}", soft_wrap=True)


def _review_export(
    config: Config,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the sheets; review/ of the construction by default.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a sample of each task for the annotators: CSV sheets and Label Studio JSON.

    Example: audiobert construct review export construct-example
    """
    from audiobert.construct.output import DATASET
    from audiobert.construct.review import export_review
    from audiobert.construct.run import read_settings
    from audiobert.construct.workspace import disk_faults

    settings = read_settings(config)
    folder = out or settings.out / "review"
    with disk_faults(folder):
        counts = export_review(settings.out / DATASET, folder, settings.review, overwrite=overwrite)
    if as_json:
        print(json.dumps({"out": str(folder), "rows": counts}, indent=2))
    else:
        print(f"{_counts(counts)} for {settings.review.annotators} annotators in {folder}")


def _review_import(
    files: Annotated[list[Path], typer.Argument(help="Filled-in sheets (.csv) or Label Studio exports (.json).")],
    as_json: AsJson = False,
) -> None:
    """Print accuracy, fluency and Krippendorff's alpha of the judgements, beside the paper's Table IV.

    Example: audiobert construct review import runs/construct/review/animal_annotator_1.csv ...
    """
    from audiobert.construct.review import import_review

    found = [asdict(agreement) for agreement in import_review(files)]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    paper = {"animal": ("92.00", "2.91"), "pitch": ("87.00", "3.00")}
    table = Table("task", "items", "annotators", "accuracy %", "paper", "alpha", "fluency", "paper", "alpha")
    for one in found:
        accuracy, fluency = paper.get(one["task"], ("-", "-"))
        alphas = ["-" if one[name] is None else f"{one[name]:.3f}" for name in ("accuracy_alpha", "fluency_alpha")]
        table.add_row(
            one["task"],
            str(one["items"]),
            str(one["annotators"]),
            f"{one['accuracy_percent']:.2f}",
            accuracy,
            alphas[0],
            f"{one['fluency']:.2f}",
            fluency,
            alphas[1],
        )
    Console(highlight=False).print(table)
