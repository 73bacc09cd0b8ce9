"""Measure a model on text that is not about sound: the cost of switching on there, and how often it happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audiobert.errors import InputError
from audiobert.loading import load_model
from audiobert.modeling import is_causal
from audiobert.training.detector import false_alarms
from audiobert.training.masked_lm import SHORTEST, Lines, MaskedLmConfig, MaskedLmObjective, perplexity
from audiobert.training.text_files import read_lines


@dataclass(frozen=True)
class PlainTextFigures:
    """Figures over lines of plain text."""

    lines: int
    # Exponential of the mean cross entropy at 15% masked tokens, the same ones for both: of the plain language model,
    # and of the language model with AudioBERT's LoRA and no knowledge.
    perplexity_off: float
    perplexity_on: float
    false_alarms: float  # fraction of the lines in which the detector finds a span, so that the model would switch on


def plain_text_figures(folder: Path, text: Path, *, limit: int | None = None) -> PlainTextFigures:
    """Measure a model of a folder on a file of plain text, one sentence per line, gzipped or not.

    InputError if the file is missing or has no line that is long enough, or the model is a causal one.
    """
    lines = read_lines(text)[:limit]
    parts, model, _, _ = load_model(folder)
    if is_causal(parts.language_model):
        raise InputError(f"{folder} has a causal language model, which masks no tokens; give a model with a masked one")
    tokenized = Lines(lines, parts.tokenizer, MaskedLmConfig())
    if not len(tokenized):
        raise InputError(
            f"{text} has no sentence of {SHORTEST - 2} tokens; a file with one sentence per line is wanted"
        )
    off = perplexity(MaskedLmObjective(parts.language_model), tokenized)
    on = perplexity(MaskedLmObjective(model.language_model), tokenized)
    return PlainTextFigures(len(lines), off, on, false_alarms(parts.detector, lines))
