"""Define `audiobert train masked-lm | detector | clap | audiobert`, `audiobert ablate` and `audiobert config`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from audiobert.errors import InputError

Data = Annotated[Path, typer.Option("--data", help="Folder with text/, auditorybench/ and audio/.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for checkpoints, the log and the trained part.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file with settings other than the defaults.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, such as epochs=3; repeatable."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Another seed than the config's.")]
Seeds = Annotated[
    str | None,
    typer.Option("--seeds", help="Train once per seed, 0,1,2 or 0-4, into --out/seed-N; then summarize."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint in --out, if there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what another training left in --out.")]

train = typer.Typer(no_args_is_help=True, help="Train a part of the model; each writes its weights and their record.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(train, name="train")
    app.command("ablate")(ablate)
    app.command("config")(print_config)


@train.command("masked-lm")
def masked_lm(
    data: Data,
    out: Out,
    config: Config = None,
    set_: Set = None,
    seed: Seed = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train the plain language model of mini: a LoRA on the backbone and a masked-LM head.

    Example: audiobert train masked-lm --data ../shared --out runs/mini/masked-lm
    """
    from audiobert.training.masked_lm import MaskedLmConfig, train_masked_lm

    settings = MaskedLmConfig.load(config, {"seed": seed}, set_ or ())
    _one_of(resume, overwrite)
    train_masked_lm(data, out, settings, resume=resume, overwrite=overwrite)


@train.command()
def detector(
    data: Data,
    out: Out,
    config: Config = None,
    set_: Set = None,
    seed: Seed = None,
    seeds: Seeds = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train the span detector on the benchmark's train rows, sentences made of captions, and plain text.

    Example: audiobert train detector --data ../shared --out runs/mini/detector
    """
    from audiobert.training.detector import DetectorConfig, train_detector
    from audiobert.training.seeds import detector_figures

    def train_one(seed: int | None, folder: Path) -> Mapping[str, Any]:
        settings = DetectorConfig.load(config, {"seed": seed}, set_ or ())
        return train_detector(data, folder, settings, resume=resume, overwrite=overwrite)

    _one_of(resume, overwrite)
    _once_or_by_seed("detector", out, seed, seeds, train_one, detector_figures)


@train.command()
def clap(
    data: Data,
    out: Out,
    config: Config = None,
    set_: Set = None,
    seed: Seed = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train CLAP: the audio tower and the projections of both towers.

    Example: audiobert train clap --data ../shared --out runs/mini/clap
    """
    from audiobert.training.clap import ClapConfig, train_clap

    settings = ClapConfig.load(config, {"seed": seed}, set_ or ())
    _one_of(resume, overwrite)
    train_clap(data, out, settings, resume=resume, overwrite=overwrite)


@train.command()
def audiobert(
    data: Data,
    out: Out,
    parts: Annotated[
        Path | None, typer.Option("--parts", help="Folder with the trained parts, or mini; --out's parent by default.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="A trained AudioBERT to train further: mini or a folder, with {seed} where --seeds is given.",
        ),
    ] = None,
    config: Config = None,
    set_: Set = None,
    seed: Seed = None,
    seeds: Seeds = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train AudioBERT on its trained parts; --out/model is then a whole model, with a bank of the clips.

    Example: audiobert train audiobert --data ../shared --parts runs/mini --out runs/mini/audiobert
    """
    from audiobert.model_folder import parts_folder
    from audiobert.training.audiobert import train_audiobert
    from audiobert.training.audiobert_config import AudioBertConfig
    from audiobert.training.seeds import audiobert_figures

    def train_one(seed: int | None, folder: Path) -> Mapping[str, Any]:
        settings = AudioBertConfig.load(config, {"seed": seed}, set_ or ())
        begin = parts_folder(Path(start.replace("{seed}", str(settings.seed)))) if start else None
        parts_from = parts_folder(parts or out.parent)
        return train_audiobert(
            data, folder, settings, parts_from=parts_from, start=begin, resume=resume, overwrite=overwrite
        )

    _one_of(resume, overwrite)
    _once_or_by_seed("audiobert", out, seed, seeds, train_one, audiobert_figures)


def _one_of(resume: bool, overwrite: bool) -> None:
    """Refuse both options at once."""
    if resume and overwrite:
        raise InputError("give --resume to continue the training in --out or --overwrite to replace it, not both")


def _once_or_by_seed(
    part: str,
    out: Path,
    seed: int | None,
    seeds: str | None,
    train_one: Callable[[int | None, Path], Mapping[str, Any]],
    figures: Callable[[Mapping[str, Any]], dict[str, float]],
) -> None:
    if seeds is None:
        train_one(seed, out)
        return
    from audiobert.auditorybench.evaluate import parse_seeds
    from audiobert.progress import stderr
    from audiobert.training.seeds import as_table, train_seeds

    if seed is not None:
        raise InputError("give --seed or --seeds, not both")
    result = train_seeds(part, out, parse_seeds(seeds), train_one, figures)
    if result:
        stderr.print(as_table(result))


def ablate(
    data: Data,
    out: Out,
    parts: Annotated[Path, typer.Option("--parts", help="Folder with the trained parts.")],
    only: Annotated[str | None, typer.Option("--only", help="Some ablations by name, separated by commas.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds: 0,1,2 or 0-4.")] = "0-4",
    config: Config = None,
    set_: Set = None,
    summary: Annotated[Path | None, typer.Option("--summary", help="Write the figures to this JSON file.")] = None,
) -> None:
    """Train AudioBERT with and without audio over several seeds, and compare.

    Example: audiobert ablate --data ../shared --parts runs/mini --out runs/ablations --only audio,no-recordings
    """
    from audiobert.artefacts import write_json
    from audiobert.auditorybench.evaluate import parse_seeds
    from audiobert.training.ablations import ABLATIONS, as_markdown, run_ablations
    from audiobert.training.audiobert_config import AudioBertConfig

    names = [name.strip() for name in only.split(",")] if only else list(ABLATIONS)
    settings = AudioBertConfig.load(config, set=set_ or ())
    summaries = run_ablations(data, out, parts, settings, names, parse_seeds(seeds))
    print(as_markdown(summaries), end="")
    if summary:
        write_json(summary, summaries)


def print_config(
    name: Annotated[str | None, typer.Argument(help="Name of a config; without one, all are listed.")] = None,
) -> None:
    """Print a config that ships with the package, to train with or to start your own from.

    Example: audiobert config paper-base > my.yaml
    """
    from audiobert.configs import config_names, find_config

    if name is None:
        print("\n".join(config_names()))
    else:
        print(find_config(name).read_text(encoding="utf-8"), end="")
