"""What a model does to text that is not about sound: what switching on would cost there, and how often it happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from transformers import BertForMaskedLM

from audiobert.adapters import AUDIO, LANGUAGE
from audiobert.errors import InputError
from audiobert.pipeline import load_model
from audiobert.training.detector import false_alarms
from audiobert.training.masked_lm import Lines, MaskedLmConfig, MaskedLmObjective, perplexity
from audiobert.training.text_files import read_lines


@dataclass(frozen=True)
class PlainTextFigures:
    """Figures over lines of plain text.

    Attributes
    ----------
    lines
        How many lines were read.
    perplexity_off, perplexity_on
        Exponential of the mean cross entropy at 15% masked tokens, the same ones for both: of the plain language model,
        and with AudioBERT's LoRA switched on although nothing is heard.
    false_alarms
        Share of the lines in which the detector finds a span, so that the model would switch on by itself.
    """

    lines: int
    perplexity_off: float
    perplexity_on: float
    false_alarms: float


def plain_text_figures(folder: Path, text: Path, *, limit: int | None = None) -> PlainTextFigures:
    """Measure a model of a folder on a file of plain text, a sentence a line, gzipped or not.

    Raises
    ------
    InputError
        The file is missing or has no line that is long enough.
    """
    lines = read_lines(text)[:limit]
    parts, _, _ = load_model(folder)
    tokenized = Lines(lines, parts.tokenizer, MaskedLmConfig())
    if not tokenized.ids:
        raise InputError(f"{text} has no sentence of three words; a file with a sentence a line is wanted")
    objective = MaskedLmObjective(cast(BertForMaskedLM, parts.language_model))
    with parts.adapters.on(LANGUAGE):
        off = perplexity(objective, tokenized)
    with parts.adapters.on(LANGUAGE, AUDIO):
        on = perplexity(objective, tokenized)
    return PlainTextFigures(len(lines), off, on, false_alarms(parts.detector, lines))
