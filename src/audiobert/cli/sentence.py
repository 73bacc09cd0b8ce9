"""Define `audiobert fill-mask`, `audiobert complete` and `audiobert spans`: sentences in, answers out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiobert.cli.threads import prefer_one_thread
from audiobert.errors import InputError
from audiobert.table_files import text_fault

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text as RichText

    from audiobert.answers import AuditorySpan, Completion, FillMask, Prediction
    from audiobert.pipeline import AudioBert
    from audiobert.sentence import Span

# Sentences that are answered together: enough for full batches, few enough that answers appear and memory stays flat.
BLOCK = 64

Texts = Annotated[list[str] | None, typer.Argument(metavar="TEXT", help="Sentences; lines of stdin when none.")]
Model = Annotated[str, typer.Option("--model", help="'mini', a model's folder, or a hub id.")]
Banks = Annotated[
    list[Path] | None, typer.Option("--bank", help="A bank to search beside the model's own; more than once if wanted.")
]
OnlyBank = Annotated[bool, typer.Option("--only-bank", help="Leave the model's own bank out.")]
NoAudio = Annotated[bool, typer.Option("--no-audio", help="The plain language model alone.")]
Unheard = Annotated[bool, typer.Option("--unheard", help="Take the clips away; all else stays.")]
Clips = Annotated[int | None, typer.Option("--clips", help="Clips to retrieve per span.")]
Sounds = Annotated[
    list[str] | None, typer.Option("--sound", metavar="SPAN=FILE", help="A recording for words of the sentence.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per sentence on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("fill-mask")(fill_mask)
    app.command("complete")(complete)
    app.command("spans")(spans)


def read_texts(texts: list[str] | None) -> Iterator[str]:
    """Yield the given texts, or the lines of stdin without the empty ones; InputError if one is not UTF-8."""
    if not texts and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError("no text: give one or more sentences, or pipe lines into stdin")
    for number, line in enumerate(texts or sys.stdin, start=1):
        if fault := text_fault(line):
            where = f"text {number}" if texts else f"line {number} of stdin"
            raise InputError(f"{where} has {fault}; convert it to UTF-8 first, for example with iconv")
        if texts and not line.strip():
            raise InputError(f"text {number} is empty; give a sentence")
        if texts:
            yield line
        elif line.strip():
            yield line.strip()


def text_blocks(texts: list[str] | None) -> Iterator[list[str]]:
    """Return the texts in blocks, the first one read: what is wrong with it is said before a model is loaded."""
    sentences = read_texts(texts)
    blocks = iter(lambda: list(islice(sentences, BLOCK)), [])
    first = next(blocks, None)
    if first is None:
        raise InputError("stdin had no text; pipe one sentence per line")
    if len(first) == 1:
        prefer_one_thread()
    return chain([first], blocks)


def fill_mask(
    texts: Texts = None,
    model: Model = "mini",
    top_k: Annotated[int, typer.Option("--top-k", help="Predictions per mask.")] = 5,
    no_audio: NoAudio = False,
    unheard: Unheard = False,
    no_base: Annotated[bool, typer.Option("--no-base", help="Leave out the plain model's predictions.")] = False,
    clips: Clips = None,
    bank: Banks = None,
    only_bank: OnlyBank = False,
    sound: Sounds = None,
    as_json: Json = False,
) -> None:
    """Predict the [MASK] of sentences with the sounds that they speak of.

    Example: audiobert fill-mask "Meow is the sound a [MASK] makes."
    """
    recordings = parse_sounds(sound or [])
    blocks, audiobert = _texts_and_model(texts, model, bank, only_bank)
    for sentences in blocks:
        answers = audiobert.fill_mask(
            sentences,
            top_k=top_k,
            audio=not no_audio,
            base=not no_base,
            clips_per_span=clips,
            sounds=recordings,
            heard=not unheard,
        )
        for answer in answers:
            several = len(answer.masks) > 1
            said = [
                (f" {number}" if several else "", _list(mask.predictions), _list(mask.base_predictions) or None)
                for number, mask in enumerate(answer.masks, start=1)
            ]
            _print_answer(answer, said, width=12, heard=not unheard, as_json=as_json)


def complete(
    texts: Texts = None,
    model: Model = "mini",
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest completion.")] = 40,
    no_audio: NoAudio = False,
    unheard: Unheard = False,
    no_base: Annotated[bool, typer.Option("--no-base", help="Leave out the plain model's completion.")] = False,
    clips: Clips = None,
    bank: Banks = None,
    only_bank: OnlyBank = False,
    sound: Sounds = None,
    as_json: Json = False,
) -> None:
    """Continue texts with a causal language model and the sounds that they speak of, greedily.

    Example: audiobert complete "Which animal says meow?" --chat --model runs/smollm2/model
    """
    recordings = parse_sounds(sound or [])
    blocks, audiobert = _texts_and_model(texts, model, bank, only_bank)
    for text in chain.from_iterable(blocks):
        answer = audiobert.complete(
            text,
            max_new_tokens=max_new_tokens,
            chat=chat,
            audio=not no_audio,
            base=not no_base,
            clips_per_span=clips,
            sounds=recordings,
            heard=not unheard,
        )
        base = None if answer.base_completion is None else _on_one_line(answer.base_completion)
        said = [("", _on_one_line(answer.completion), base)]
        _print_answer(answer, said, width=14, heard=not unheard, as_json=as_json)


def _texts_and_model(
    texts: list[str] | None, model: str, banks: list[Path] | None, only_bank: bool
) -> tuple[Iterator[list[str]], AudioBert]:
    """Return the texts in blocks and the model, which is not loaded where the first text is refused."""
    blocks = text_blocks(texts)
    from audiobert.pipeline import AudioBert

    return blocks, AudioBert.from_pretrained(model, bank=banks, only_bank=only_bank)


def parse_sounds(given: list[str]) -> dict[str, str]:
    """Return recordings by the words that they are for, from `SPAN=FILE`; InputError for another form."""
    found = {}
    for one in given:
        words, equals, file = one.partition("=")
        if not (equals and words.strip() and file.strip()):
            raise InputError(f'--sound is {one!r}; give SPAN=FILE, such as "This=clip.wav"')
        found[words.strip()] = file.strip()
    return found


def spans(texts: Texts = None, model: Model = "mini", as_json: Json = False) -> None:
    """Find the pieces of sentences that are about sound.

    Example: audiobert spans "The old door creaked while the kettle whistled."
    """
    from rich.console import Console

    blocks = text_blocks(texts)
    from audiobert.model_folder import model_folder
    from audiobert.parts import load_detector

    detector, _ = load_detector(model_folder(model))
    console = Console(highlight=False, soft_wrap=True)
    for block in blocks:
        for text, row in zip(block, detector.detect(block), strict=True):
            if as_json:
                print(json.dumps({"text": text, "spans": [span.to_json() for span in row]}, ensure_ascii=False))
            else:
                _print_spans(console, text, row)


def _print_spans(console: Console, text: str, found: list[Span]) -> None:
    console.print(marked(text, found))
    for span in found:
        console.print(f"  {span.start:>4}-{span.end:<4} {span.score:.2f}  {span.text}", markup=False)
    if not found:
        console.print("  nothing about sound", style="dim")


def marked(text: str, found: list[Span] | tuple[Span, ...]) -> RichText:
    """Return the text with its spans underlined."""
    from rich.text import Text as RichText

    rendered = RichText(text, style="bold")
    for span in found:
        rendered.stylize("underline cyan", span.start, span.end)
    return rendered


def _print_answer(
    answer: FillMask | Completion, said: list[tuple[str, str, str | None]], *, width: int, heard: bool, as_json: bool
) -> None:
    """Print an answer; `said` has the number of each mask and what is predicted with sound and switched off."""
    if as_json:
        print(json.dumps(answer.to_json(), ensure_ascii=False), flush=True)
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(marked(answer.text, answer.spans))
    for span in answer.spans:
        console.print(f'  "{span.text}" sounds like: {clips_of(span)}', markup=False, style="cyan")
    label = ("with sound" if heard else "unheard") if answer.auditory else "no sound in it"
    for which, with_sound, base in said:
        console.print(f"  {label:<{width}}{which}  {with_sound}", markup=False)
        if answer.auditory and base is not None:
            console.print(f"  {'switched off':<{width}}{which}  {base}", markup=False, style="dim")
    console.print()


def _on_one_line(text: str) -> str:
    return text.strip().replace("\n", "\\n")


def clips_of(span: AuditorySpan, most: int = 4) -> str:
    """Return the clips of a span in words, equal captions once, the best first, with their scores."""
    best: dict[str, float] = {}
    for hit in span.clips:
        name = hit.clip.caption or hit.clip.title or (Path(hit.clip.path).name if hit.clip.path else None)
        best.setdefault(name or hit.clip.label or hit.clip.id, hit.score)
    shown = [f"{name} ({score:.2f})" for name, score in list(best.items())[:most]]
    return ", ".join(shown) or "nothing in the bank"


def _list(predictions: tuple[Prediction, ...]) -> str:
    return "  ".join(f"{prediction.token} {prediction.score:.1%}" for prediction in predictions)
