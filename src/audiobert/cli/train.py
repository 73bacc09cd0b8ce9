"""`audiobert train masked-lm | detector | clap | audiobert`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[Path, typer.Option("--data", help="Folder with text/, auditorybench/ and audio/.")]
Out = Annotated[Path, typer.Option("--out", help="Checkpoints, log and the trained part go here.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file with settings other than the defaults.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Another seed than the config's.")]
Seeds = Annotated[
    str | None,
    typer.Option("--seeds", help="Train once with each of these, commas between, into --out/seed-N; then sum up."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")]

train = typer.Typer(no_args_is_help=True, help="Train a part of the model; each writes its weights and their record.")


def register(app: typer.Typer) -> None:
    app.add_typer(train, name="train")
    app.command("ablate")(ablate)


@train.command("masked-lm")
def masked_lm(data: Data, out: Out, config: Config = None, seed: Seed = None, resume: Resume = False) -> None:
    """Train the plain language model of mini: a LoRA on the backbone and a masked-LM head.

    Example: audiobert train masked-lm --data ../shared --out runs/mini/masked-lm
    """
    from audiobert.training.masked_lm import MaskedLmConfig, train_masked_lm

    train_masked_lm(data, out, MaskedLmConfig.load(config, seed=seed), resume=resume)


@train.command()
def detector(
    data: Data, out: Out, config: Config = None, seed: Seed = None, seeds: Seeds = None, resume: Resume = False
) -> None:
    """Train the span detector on both tasks and on plain text.

    Example: audiobert train detector --data ../shared --out runs/mini/detector
    """
    from audiobert.training.detector import DetectorConfig, train_detector
    from audiobert.training.seeds import detector_figures

    def train_one(seed: int | None, folder: Path) -> Mapping[str, Any]:
        return train_detector(data, folder, DetectorConfig.load(config, seed=seed), resume=resume)

    _once_or_by_seed("detector", out, seed, seeds, train_one, detector_figures)


@train.command()
def clap(data: Data, out: Out, config: Config = None, seed: Seed = None, resume: Resume = False) -> None:
    """Train CLAP: the audio tower and the projections of both towers.

    Example: audiobert train clap --data ../shared --out runs/mini/clap
    """
    from audiobert.training.clap import ClapConfig, train_clap

    train_clap(data, out, ClapConfig.load(config, seed=seed), resume=resume)


@train.command()
def audiobert(
    data: Data,
    out: Out,
    parts: Annotated[
        Path | None, typer.Option("--parts", help="Folder with the trained parts; --out's parent by default.")
    ] = None,
    config: Config = None,
    seed: Seed = None,
    seeds: Seeds = None,
    resume: Resume = False,
) -> None:
    """Train AudioBERT on its trained parts; --out/model is then a whole model, with a bank of the clips.

    Example: audiobert train audiobert --data ../shared --parts runs/mini --out runs/mini/audiobert
    """
    from audiobert.training.audiobert import train_audiobert
    from audiobert.training.audiobert_config import AudioBertConfig
    from audiobert.training.seeds import audiobert_figures

    def train_one(seed: int | None, folder: Path) -> Mapping[str, Any]:
        settings = AudioBertConfig.load(config, seed=seed)
        return train_audiobert(data, folder, settings, parts_from=parts or out.parent, resume=resume)

    _once_or_by_seed("audiobert", out, seed, seeds, train_one, audiobert_figures)


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
    from audiobert.errors import InputError
    from audiobert.progress import stderr
    from audiobert.training.seeds import as_table, parse_seeds, train_seeds

    if seed is not None:
        raise InputError("give --seed or --seeds, not both")
    result = train_seeds(part, out, parse_seeds(seeds), train_one, figures)
    if result:
        stderr.print(as_table(result))


def ablate(
    data: Data,
    out: Out,
    parts: Annotated[Path, typer.Option("--parts", help="Folder with the trained parts.")],
    only: Annotated[str | None, typer.Option("--only", help="Some ablations, by name, with commas between.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds, with commas between.")] = "0,1,2,3,4",
    config: Config = None,
    table: Annotated[Path | None, typer.Option("--table", help="Write the Markdown table to this file.")] = None,
) -> None:
    """Train AudioBERT with and without hearing, over several seeds, and say what hearing adds.

    Example: audiobert ablate --data ../shared --parts runs/mini --out runs/ablations --only audio,no-audio
    """
    from audiobert.training.ablations import ABLATIONS, as_markdown, run_ablations, write_table
    from audiobert.training.audiobert_config import AudioBertConfig
    from audiobert.training.seeds import parse_seeds

    names = [name.strip() for name in only.split(",")] if only else list(ABLATIONS)
    summaries = run_ablations(data, out, parts, AudioBertConfig.load(config), names, parse_seeds(seeds))
    print(as_markdown(summaries), end="")
    if table:
        write_table(summaries, table)
