"""Break down predictions by answer, pitch difference and confidence; count confusions, draw examples."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from audiobert.auditorybench.metrics import share
from audiobert.errors import InputError

Line = dict[str, Any]
Key = tuple[str, str, int]  # task, split, row

_NEEDED = ("model", "task", "split", "row", "text", "answer", "prediction", "correct")
# Edges of the differences in semitones: a whole tone, a fourth, an octave, two octaves.
PITCH_EDGES = (0.0, 2.0, 5.0, 12.0, 24.0, math.inf)
CALIBRATION_BINS = 10
CONFUSIONS = 15


def read_predictions(paths: Iterable[str | Path]) -> list[Line]:
    """Read files of `evaluate --predictions`; InputError if one is missing or a line of it is no prediction."""
    lines: list[Line] = []
    for path in map(Path, paths):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read ({error}); give a file of 'evaluate --predictions'") from None
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict) or any(name not in value for name in _NEEDED):
                raise InputError(
                    f"{path}, line {number}, is no prediction; give a file that 'evaluate --predictions' wrote"
                )
            lines.append(value)
    return lines


def of_model(lines: Iterable[Line], model: str) -> list[Line]:
    """Return the lines of one model; of several seeds those of the first, so that a row counts once."""
    own = [line for line in lines if line["model"] == model]
    first = min((line.get("seed", 0) for line in own), default=0)
    return [line for line in own if line.get("seed", 0) == first]


def key_of(line: Line) -> Key:
    """Return what identifies a row."""
    return line["task"], line["split"], line["row"]


@dataclass(frozen=True)
class Group:
    """Rows under a name: how many, how many right, the accuracy with its Wilson interval, and that of `:unheard`."""

    name: str
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    unheard: float | None = None


def _group(name: str, lines: Sequence[Line], unheard: Mapping[Key, Line]) -> Group:
    figures = share(sum(bool(line["correct"]) for line in lines), len(lines))
    assert figures is not None
    low, high = figures["ci95"]
    others = [unheard[key_of(line)] for line in lines if key_of(line) in unheard]
    other = sum(bool(line["correct"]) for line in others) / len(others) if len(others) == len(lines) else None
    return Group(name, len(lines), figures["correct"], figures["accuracy"], low, high, other)


def by_answer(lines: Iterable[Line], unheard: Mapping[Key, Line]) -> list[Group]:
    """Return the accuracy by right answer, the most frequent answer first."""
    groups: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        groups[str(line["answer"]).casefold()].append(line)
    return [_group(name, groups[name], unheard) for name in sorted(groups, key=lambda name: (-len(groups[name]), name))]


def clips_by_span(line: Line) -> list[list[str]]:
    """Return the ids of the clips of each span; a line lists them span after span, as many for each.

    Empty where they cannot be distinguished.
    """
    spans, clips = line.get("spans") or [], line.get("clips") or []
    if not spans or not clips or len(clips) % len(spans):
        return []
    each = len(clips) // len(spans)
    return [clips[start : start + each] for start in range(0, len(clips), each)]


def retrieved_pitches(line: Line, pitch_hz: Mapping[str, float | None]) -> tuple[float, float] | None:
    """Return the mean pitch over the clips of each of a comparison's two spans; None where it is not known."""
    by_span = clips_by_span(line)
    if len(by_span) != 2:
        return None
    found = []
    for some in by_span:
        pitches = [pitch for clip in some if (pitch := pitch_hz.get(clip)) is not None]
        if not pitches:
            return None
        found.append(fmean(pitches))
    return found[0], found[1]


def by_pitch_difference(
    lines: Iterable[Line], pitches: Mapping[Key, tuple[float, float]], unheard: Mapping[Key, Line]
) -> list[Group]:
    """Return the accuracy by the pitch difference of a comparison in semitones; empty bins are left out."""
    groups: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        if key_of(line) in pitches:
            first, second = pitches[key_of(line)]
            semitones = abs(12 * math.log2(first / second))
            groups[next(i for i, edge in enumerate(PITCH_EDGES[1:]) if semitones < edge)].append(line)
    return [_group(_bin_name(index), groups[index], unheard) for index in sorted(groups)]


def _bin_name(index: int) -> str:
    low, high = PITCH_EDGES[index], PITCH_EDGES[index + 1]
    return f"{low:g} to {high:g} semitones" if high < math.inf else f"{low:g} semitones and more"


@dataclass(frozen=True)
class Bin:
    """Answers given with about the same confidence: how many, the mean confidence, and how many were right."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Bins by confidence, and the expected calibration error: the mean distance of confidence and accuracy."""

    bins: list[Bin]
    error: float
    n: int


def calibration(lines: Iterable[Line]) -> Calibration | None:
    """Compute how well the confidence of comparisons, the probability of the chosen one of two words, is calibrated.

    None where the predictions hold no two scores (a missing word under the protocol `paper` has none).
    """
    pairs = []
    for line in lines:
        scores = line.get("scores") or {}
        if len(scores) == 2:
            best, other = sorted(scores.values(), reverse=True)
            pairs.append((1 / (1 + math.exp(other - best)), bool(line["correct"])))
    if not pairs:
        return None
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in pairs:
        bins[min(int((confidence - 0.5) * 2 * CALIBRATION_BINS), CALIBRATION_BINS - 1)].append((confidence, right))
    made = [
        Bin(len(some), sum(c for c, _ in some) / len(some), sum(right for _, right in some) / len(some))
        for _, some in sorted(bins.items())
    ]
    error = sum(one.n * abs(one.confidence - one.accuracy) for one in made) / len(pairs)
    return Calibration(made, error, len(pairs))


def confusions(lines: Iterable[Line]) -> list[tuple[str, str, int]]:
    """Return the most frequent wrong predictions: right answer, prediction, count."""
    counts = Counter(
        (str(line["answer"]).casefold(), str(line["prediction"]).casefold()) for line in lines if not line["correct"]
    )
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(answer, said, count) for (answer, said), count in ranked[:CONFUSIONS]]


def examples(lines: Iterable[Line], count: int, *, correct: bool) -> list[Line]:
    """Draw rows that were right (or wrong), equally from the tasks, no sentence twice."""
    by_task: dict[str, dict[str, Line]] = defaultdict(dict)
    for line in lines:
        if bool(line["correct"]) is correct:
            by_task[line["task"]].setdefault(line["text"], line)
    chance = random.Random(0)
    decks = [chance.sample(list(rows.values()), len(rows)) for _, rows in sorted(by_task.items())]
    dealt: list[Line] = []
    for turn in range(max(map(len, decks), default=0)):
        dealt += [deck[turn] for deck in decks if turn < len(deck)]
    return dealt[:count]
