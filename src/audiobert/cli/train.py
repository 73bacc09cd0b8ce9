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
