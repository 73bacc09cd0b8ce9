"""`audiobert fill-mask` and `audiobert spans`: sentences in, answers out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiobert.errors import InputError
from audiobert.table_files import text_fault

if TYPE_CHECKING:
    from rich.text import Text as RichText

    from audiobert.answers import FillMask, Prediction
    from audiobert.spans import Span

Texts = Annotated[list[str] | None, typer.Argument(metavar="[TEXT ...]", help="Sentences; lines of stdin when none.")]
Model = Annotated[str, typer.Option("--model", help="'mini' or a model's folder.")]
Bank = Annotated[Path | None, typer.Option("--bank", help="Search this bank instead of the model's own.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a sentence on stdout.")]


def register(app: typer.Typer) -> None:
    app.command("fill-mask")(fill_mask)
    app.command("spans")(spans)


def read_texts(texts: list[str] | None) -> list[str]:
    """The given texts, or the lines of stdin without the empty ones."""
    if not texts and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError("no text: give one or more sentences, or pipe lines into stdin")
    lines = []
    for number, line in enumerate(texts or sys.stdin, start=1):
        if fault := text_fault(line):
            where = f"text {number}" if texts else f"line {number} of stdin"
            raise InputError(f"{where} has {fault}; convert it to UTF-8 first, for example with iconv")
        lines.append(line)
    lines = texts or [line.strip() for line in lines if line.strip()]
    if not lines:
        raise InputError("stdin had no text; pipe one sentence a line")
    return lines


def fill_mask(
    texts: Texts = None,
    model: Model = "mini",
    top_k: Annotated[int, typer.Option("--top-k", help="Predictions a mask.")] = 5,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="The plain language model alone.")] = False,
    clips: Annotated[int | None, typer.Option("--clips", help="Clips that speak for a span.")] = None,
    bank: Bank = None,
    as_json: Json = False,
) -> None:
    """Predict the [MASK] of sentences, having heard what they speak of.

    Example: audiobert fill-mask "Meow is the sound a [MASK] makes."
    """
    sentences = read_texts(texts)
    from audiobert.pipeline import AudioBert

    audiobert = AudioBert.from_pretrained(model, bank=bank)
    answers = audiobert.fill_mask(sentences, top_k=top_k, audio=not no_audio, clips_per_span=clips)
    for answer in answers:
        if as_json:
            print(json.dumps(answer.to_json(), ensure_ascii=False))
        else:
            _print_answer(answer)


def spans(texts: Texts = None, model: Model = "mini", as_json: Json = False) -> None:
    """Find the pieces of sentences that are about sound.

    Example: audiobert spans "The old door creaked while the kettle whistled."
    """
    from rich.console import Console

    sentences = read_texts(texts)
    from audiobert.parts import load_parts, model_folder

    found = load_parts(model_folder(model)).detector.detect(sentences)
    console = Console(highlight=False, soft_wrap=True)
    for text, row in zip(sentences, found, strict=True):
        if as_json:
            print(json.dumps({"text": text, "spans": [span.to_json() for span in row]}, ensure_ascii=False))
            continue
        console.print(marked(text, row))
        for span in row:
            console.print(f"  {span.start:>4}-{span.end:<4} {span.score:.2f}  {span.text}", markup=False)
        if not row:
            console.print("  nothing about sound", style="dim")


def marked(text: str, found: list[Span] | tuple[Span, ...]) -> RichText:
    """The text with its spans underlined."""
    from rich.text import Text as RichText

    rendered = RichText(text, style="bold")
    for span in found:
        rendered.stylize("underline cyan", span.start, span.end)
    return rendered


def _print_answer(answer: FillMask) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(marked(answer.text, answer.spans))
    for span in answer.spans:
        heard = ", ".join(
            f"{hit.clip.caption or hit.clip.label or hit.clip.id} ({hit.score:.2f})" for hit in span.clips
        )
        console.print(f'  hears "{span.text}" as: {heard}', markup=False, style="cyan")
    for number, mask in enumerate(answer.masks, start=1):
        which = f" {number}" if len(answer.masks) > 1 else ""
        if answer.auditory:
            console.print(f"  with sound{which}     {_list(mask.predictions)}", markup=False)
            console.print(f"  without sound{which}  {_list(mask.base_predictions)}", markup=False, style="dim")
        else:
            console.print(f"  no sound in it{which}  {_list(mask.predictions)}", markup=False)
    console.print()


def _list(predictions: tuple[Prediction, ...]) -> str:
    return "  ".join(f"{prediction.token} {prediction.score:.1%}" for prediction in predictions)
