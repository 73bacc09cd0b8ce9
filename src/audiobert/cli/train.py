"""`audiobert train masked-lm | detector | clap | audiobert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Option("--data", help="Folder with text/, auditorybench/ and audio/.")]
Out = Annotated[Path, typer.Option("--out", help="Checkpoints, log and the trained part go here.")]
Config = Annotated[Path | None, typer.Option("--config", help="YAML file with settings other than the defaults.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Another seed than the config's.")]
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
def detector(data: Data, out: Out, config: Config = None, seed: Seed = None, resume: Resume = False) -> None:
    """Train the span detector on both tasks and on plain text.

    Example: audiobert train detector --data ../shared --out runs/mini/detector
    """
    from audiobert.training.detector import DetectorConfig, train_detector

    train_detector(data, out, DetectorConfig.load(config, seed=seed), resume=resume)


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
    resume: Resume = False,
) -> None:
    """Train AudioBERT on its trained parts; --out/model is then a whole model, with a bank of the clips.

    Example: audiobert train audiobert --data ../shared --parts runs/mini --out runs/mini/audiobert
    """
    from audiobert.training.audiobert import AudioBertConfig, train_audiobert

    settings = AudioBertConfig.load(config, seed=seed)
    train_audiobert(data, out, settings, parts_from=parts or out.parent, resume=resume)


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
    from audiobert.errors import InputError
    from audiobert.training.ablations import ABLATIONS, as_markdown, run_ablations, write_table
    from audiobert.training.audiobert import AudioBertConfig

    if not all(seed.strip().isdigit() for seed in seeds.split(",")):
        raise InputError(f"--seeds is {seeds!r}; give whole numbers with commas between, such as 0,1,2")
    names = [name.strip() for name in only.split(",")] if only else list(ABLATIONS)
    numbers = [int(seed) for seed in seeds.split(",")]
    summaries = run_ablations(data, out, parts, AudioBertConfig.load(config), names, numbers)
    print(as_markdown(summaries), end="")
    if table:
        write_table(summaries, table)
