"""Make rows of sound pitch comparison: pairs of clips whose measured pitches differ and whose question agrees."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from audiobert.audio import SAMPLE_RATE_HZ, load_audio
from audiobert.bank.batches import batched
from audiobert.construct.asking import Asker, Reply, answer_of
from audiobert.construct.categorize import clip_fields
from audiobert.construct.collection import clip_bytes
from audiobert.construct.prompts import PitchAnswer, load_prompt
from audiobert.construct.records import CategorizedClip, PitchRow, Rejected, SourceClip
from audiobert.construct.rules import BrokenRuleError, check_comparison, check_mask, locate_span
from audiobert.construct.store import Store
from audiobert.errors import InputError
from audiobert.pitch import Estimator, measure_pitch
from audiobert.progress import track
from audiobert.settings import Settings

STEP = "pitch"
_DRAWS = 50  # pairs drawn for one that is wanted, before a group is given up
_MEASURED_AT_ONCE = 256  # pairs whose clips are measured before the next are drawn


class PitchSettings(Settings):
    """Settings of how pairs are drawn, measured and asked about.

    Attributes
    ----------
    groups
        First parts of the category; both clips of a pair are from one group.
    pairs
        Pairs asked about in each group (fewer, where not so many hold the conditions).
    min_ratio
        Pairs whose pitches differ by less are dropped: 1.10 is the paper's 10%.
    estimator, max_seconds
        How the pitch of a clip is measured: the mean over the voiced frames of its first seconds.
    """

    prompt: str = "pitch.v1"
    groups: tuple[str, ...] = ("music", "object", "environment")
    pairs: int = Field(default=1_000, ge=1)
    min_ratio: float = Field(default=1.10, ge=1.0)
    estimator: Literal["swiftf0", "pyin"] = "swiftf0"
    max_seconds: float = Field(default=30.0, gt=0)
    workers: int = Field(default=1, ge=1)
    seed: int = 0


@dataclass(frozen=True)
class MeasuredPitch:
    """Pitch of a clip in Hz, None if it has none; `fault` says why it could not be measured."""

    mean_hz: float | None = None
    voiced_ratio: float = 0.0
    fault: str = ""


@dataclass(frozen=True)
class _Pair:
    group: str
    first: CategorizedClip
    second: CategorizedClip

    @property
    def item(self) -> str:
        return _joined(self.first.id, self.second.id)


def _joined(first: str, second: str) -> str:
    """Return one text of two clips; empty if both are."""
    return f"{first} | {second}" if first or second else ""


class _PitchlessError(BrokenRuleError):
    """A clip that no pair can use."""

    def __init__(self, clip_id: str, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.clip_id = clip_id


def _draw(clips: Sequence[CategorizedClip], group: str, settings: PitchSettings) -> Iterator[_Pair]:
    """Draw pairs of different categories in random order, none twice, at most `_DRAWS` times as many as are wanted."""
    members = [clip for clip in clips if clip.category.split("/")[0] == group]
    generator = random.Random(f"{settings.seed}-{group}")
    possible = len(members) * (len(members) - 1) // 2
    for number in generator.sample(range(possible), min(possible, settings.pairs * _DRAWS)):
        second = (1 + math.isqrt(1 + 8 * number)) // 2
        first = number - second * (second - 1) // 2
        if members[first].category != members[second].category:
            yield _Pair(group, members[first], members[second])


def _measure_bytes(data: bytes, name: str, *, estimator: Estimator, max_seconds: float) -> dict[str, Any]:
    try:
        waveform = load_audio(io.BytesIO(data), max_seconds=max_seconds)
        pitch = measure_pitch(waveform, SAMPLE_RATE_HZ, estimator=estimator)
    except InputError as error:
        return {"fault": str(error).replace(name, "the clip")}
    return {"mean_hz": pitch.mean_hz, "voiced_ratio": pitch.voiced_ratio}


def measure_clips(
    clips: Sequence[SourceClip], root: Path, settings: PitchSettings, store: Store
) -> dict[str, MeasuredPitch]:
    """Measure the pitch of each clip, by its id; what the store has (by the file's SHA-256) is not measured again."""
    measured: dict[str, MeasuredPitch] = {}
    version = f"pitch:mean:{settings.estimator}:{settings.max_seconds:g}"

    def waiting() -> Iterator[tuple[SourceClip, str, bytes]]:
        for clip in clips:
            try:
                data = clip_bytes(root, clip)
            except InputError as error:
                measured[clip.id] = MeasuredPitch(fault=str(error).replace(f"{root}/", ""))
                continue
            key = f"{version}:{hashlib.sha256(data).hexdigest()}"
            kept = store.measurement(key)
            if kept is None:
                yield clip, key, data
            else:
                measured[clip.id] = MeasuredPitch(**kept)

    # In one process by `map`, in several by a pool's; either way a few files at a time, so that memory stays flat.
    measure = partial(_measure_bytes, estimator=settings.estimator, max_seconds=settings.max_seconds)
    pool = ProcessPoolExecutor(settings.workers) if settings.workers > 1 else None
    with pool or nullcontext():
        for batch in batched(track(waiting(), "pitch of clips", total=len(clips)), settings.workers * 16):
            values = (pool.map if pool else map)(
                measure, (data for _, _, data in batch), (clip.path for clip, _, _ in batch)
            )
            for (clip, key, _), value in zip(batch, values, strict=True):
                store.keep_measurement(key, value)
                measured[clip.id] = MeasuredPitch(**value)
    return measured


def choose_pairs(
    clips: Sequence[CategorizedClip], root: Path, settings: PitchSettings, store: Store
) -> tuple[list[_Pair], dict[str, MeasuredPitch], list[Rejected]]:
    """Choose random pairs within each group whose pitches differ enough; the same clips and seed give the same pairs.

    Clips are measured as they are drawn. One without a pitch is rejected once, and its pairs are drawn anew.
    """
    chosen: list[_Pair] = []
    rejected: list[Rejected] = []
    measured: dict[str, MeasuredPitch] = {}
    pitchless: set[str] = set()
    for group in settings.groups:
        draws = _draw(clips, group, settings)
        wanted = len(chosen) + settings.pairs
        while len(chosen) < wanted and (batch := list(itertools.islice(draws, _MEASURED_AT_ONCE))):
            new = {clip.id: clip for pair in batch for clip in (pair.first, pair.second) if clip.id not in measured}
            measured |= measure_clips(list(new.values()), root, settings, store)
            for pair in batch:
                try:
                    check_apart(_hz(pair.first, measured), _hz(pair.second, measured), settings.min_ratio)
                except _PitchlessError as error:
                    if error.clip_id not in pitchless:
                        pitchless.add(error.clip_id)
                        rejected.append(error.rejected(STEP, error.clip_id))
                except BrokenRuleError as error:
                    rejected.append(error.rejected(STEP, pair.item))
                else:
                    chosen.append(pair)
                    if len(chosen) == wanted:
                        break
    return chosen, measured, rejected


def make_pitch_rows(
    clips: Sequence[CategorizedClip], root: Path, asker: Asker, settings: PitchSettings
) -> tuple[list[PitchRow], list[Rejected]]:
    """Draw pairs, measure, drop what differs too little, ask, and keep where model and measurement agree.

    Which clip of a pair is named first is drawn so that "higher" and "lower" are asked for equally often.
    """
    pairs, measured, rejected = choose_pairs(clips, root, settings, asker.store)
    for index, higher in enumerate(balanced(len(pairs), f"{settings.seed}-order")):
        first, second = pairs[index].first, pairs[index].second
        if (_hz(first, measured) > _hz(second, measured)) != higher:
            pairs[index] = _Pair(pairs[index].group, second, first)
    fields = [
        {
            name: {"category": clip.category, **clip_fields(clip)}
            for name, clip in (("A", pair.first), ("B", pair.second))
        }
        for pair in pairs
    ]
    rows = []
    for pair, reply in zip(pairs, asker.ask(load_prompt(settings.prompt), fields), strict=True):
        try:
            rows.append(_row(pair, reply, measured))
        except BrokenRuleError as error:
            rejected.append(error.rejected(STEP, pair.item, reply.text))
    return rows, rejected


def balanced(count: int, seed: str) -> list[bool]:
    """Draw which pairs name the higher sound first: half of them."""
    higher_first = [index % 2 == 0 for index in range(count)]
    random.Random(seed).shuffle(higher_first)
    return higher_first


def _hz(clip: SourceClip, measured: dict[str, MeasuredPitch]) -> float:
    pitch = measured[clip.id]
    if pitch.fault:
        raise _PitchlessError(clip.id, "unreadable-audio", pitch.fault)
    if pitch.mean_hz is None:
        raise _PitchlessError(clip.id, "unpitched", f"{pitch.voiced_ratio:.3f} of the frames have a pitch")
    return pitch.mean_hz


def check_apart(first_hz: float, second_hz: float, min_ratio: float) -> None:
    """Check that two pitches differ enough (`pitch-too-close`)."""
    if max(first_hz, second_hz) < min_ratio * min(first_hz, second_hz) or first_hz == second_hz:
        raise BrokenRuleError("pitch-too-close", f"{first_hz:.1f} Hz and {second_hz:.1f} Hz")


def _row(pair: _Pair, reply: Reply, measured: dict[str, MeasuredPitch]) -> PitchRow:
    answer = answer_of(reply, PitchAnswer)
    sentence = answer.sentence
    check_mask(sentence)
    first, second = locate_span(sentence, answer.span_a), locate_span(sentence, answer.span_b)
    if sentence[slice(*first)].casefold() == sentence[slice(*second)].casefold():
        raise BrokenRuleError("same-span", sentence)
    check_comparison(sentence, first, second)
    pitch1_hz, pitch2_hz = (_hz(clip, measured) for clip in (pair.first, pair.second))
    if (answer.higher == "A") != (pitch1_hz > pitch2_hz):
        raise BrokenRuleError(
            "disagrees-with-measurement",
            f"A {pitch1_hz:.1f} Hz, B {pitch2_hz:.1f} Hz, model says {answer.higher} is higher",
        )
    credits_of_both = zip(pair.first.credits().items(), pair.second.credits().values(), strict=True)
    return PitchRow(
        id=f"pitch-{pair.first.id}-{pair.second.id}",
        sentence=sentence,
        answer="higher" if answer.higher == "A" else "lower",
        span1=sentence[slice(*first)],
        span2=sentence[slice(*second)],
        pitch1_hz=round(pitch1_hz, 2),
        pitch2_hz=round(pitch2_hz, 2),
        group=pair.group,
        clip1_id=pair.first.id,
        clip2_id=pair.second.id,
        **{name: _joined(one, other) for (name, one), other in credits_of_both},
    )
