"""Compare the pitch of two sounds: by measurement, and by what the model predicts with sound and without."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from audiobert.answers import Hit
from audiobert.audio import Attributes
from audiobert.auditorybench.attributes import builtin_attributes
from audiobert.errors import InputError
from audiobert.pitch import compare_pitch
from audiobert.recordings import encode_recording
from audiobert.web.uploads import calling_it

if TYPE_CHECKING:
    from audiobert.pipeline import AudioBert

MEASURE = "pitch_hz"
QUESTION = "The sound of {first} has a [MASK] pitch than the sound of {second}."
# A recording without a name is called this, so that nothing but the recording says what it sounds like.
NAMELESS = ("the first recording", "the second recording")
NEAREST_CLIPS = 10  # clips of the bank that may stand for a named sound
SAME_PITCH_SEMITONES = 0.5
# A bank has a sound where its best clip has this retrieval score: a probability, or a cosine of CLAP vectors.
KNOWN_PROBABILITY, KNOWN_COSINE = 0.5, 0.55


@dataclass(frozen=True)
class Sound:
    """One of the two sounds."""

    name: str  # what it is called in the question
    attributes: Attributes | None  # of a recording; None where only a name was given
    clips: tuple[Hit, ...]  # the nearest of the bank: to the recording by sound, or to the name
    measured: tuple[Hit, ...]  # whose mean pitch is that of the name; empty where the bank has no such sound
    pitch_hz: float | None  # of the recording, else the mean over the measured clips; None without a pitch
    injected: tuple[Hit, ...]  # what the model gets: the recording, or what is retrieved for the name

    @property
    def known(self) -> bool:
        """Whether there is anything to measure: a recording, or clips of what the name says."""
        return self.attributes is not None or bool(self.measured)


@dataclass(frozen=True)
class Said:
    """Probability that the first sound is the higher one, with it in the first and in the second place."""

    forward: float
    backward: float

    @property
    def higher(self) -> float:
        """Mean of the two."""
        return (self.forward + self.backward) / 2

    @property
    def consistent(self) -> bool:
        """Whether both orders name the same sound."""
        return (self.forward > 0.5) == (self.backward > 0.5)


@dataclass(frozen=True)
class Comparison:
    """Two sounds with the question, the measured difference in semitones, and what the models predict."""

    first: Sound
    second: Sound
    question: str
    semitones: float | None
    with_sound: Said
    without_sound: Said

    @property
    def measured_higher(self) -> bool | None:
        """Whether the first is higher by measurement; None when a pitch is not known or they are alike."""
        if self.semitones is None or abs(self.semitones) < SAME_PITCH_SEMITONES:
            return None
        return self.semitones > 0


def compare_sounds(
    model: AudioBert, first: str, second: str, *, files: tuple[str | Path | None, str | Path | None] = (None, None)
) -> Comparison:
    """Compare two sounds, each a name, a recording, or both; InputError for neither.

    A recording is measured and injected; for a name alone, clips of the bank are. A recording without a name is called
    "the first recording", so that the model's prediction can come from the sound alone.
    """
    sounds = (_sound(model, first, files[0], 1), _sound(model, second, files[1], 2))
    one, other = sounds
    return Comparison(
        one,
        other,
        QUESTION.format(first=one.name, second=other.name),
        _semitones(one.pitch_hz, other.pitch_hz),
        _predict(model, sounds, with_sound=True),
        _predict(model, sounds, with_sound=False),
    )


def _semitones(first_hz: float | None, second_hz: float | None) -> float | None:
    if not first_hz or not second_hz:
        return None
    difference = compare_pitch(first_hz, second_hz)
    return 12 * difference.octaves + difference.cents / 100


def _sound(model: AudioBert, name: str, file: str | Path | None, number: int) -> Sound:
    name = " ".join(name.split())
    if not name and file is None:
        raise InputError(f"sound {number} is empty; name it ('a flute') or give a recording of it")
    if "[mask]" in name.lower() or model.mask_token in name:
        raise InputError(f"sound {number} has a mask in its name; the page asks the question, give the sound alone")
    if file is not None:
        with calling_it(file, f"the recording of sound {number}"):
            recorded, vector, attributes = encode_recording(model.clip_encoder(), file)
        nearest = nearest_clips(model, vector)
        return Sound(name or NAMELESS[number - 1], attributes, nearest, (), attributes.pitch_hz, (recorded,))
    clips = tuple(model.search(name, NEAREST_CLIPS))
    floor = known_score(model)
    measured = tuple(hit for hit in clips if hit.score >= floor)
    pitches = [hit.clip.pitch_hz for hit in measured if hit.clip.pitch_hz is not None]
    return Sound(name, None, clips, measured, fmean(pitches) if pitches else None, model.retriever.find([name])[0].hits)


def known_score(model: AudioBert) -> float:
    """Return the retrieval score from which on a clip counts as one of what the query names."""
    return KNOWN_COSINE if model.settings.retrieval.by == "sound" else KNOWN_PROBABILITY


def nearest_clips(model: AudioBert, vector: np.ndarray) -> tuple[Hit, ...]:
    """Return the clips that sound most like a recording, by the cosine of their CLAP vectors `(1, clap_dim)`."""
    hits = []
    for bank in model.banks:
        scores, rows = bank.search(vector, NEAREST_CLIPS)
        hits += [
            Hit(bank.clip(int(row)), float(score), int(row)) for score, row in zip(scores[0], rows[0], strict=True)
        ]
    return tuple(sorted(hits, key=lambda hit: -hit.score)[:NEAREST_CLIPS])


def _predict(model: AudioBert, sounds: tuple[Sound, Sound], *, with_sound: bool) -> Said:
    """Ask which sound is higher in both orders, with the names as the spans."""
    texts, spans, hits = [], [], []
    before = QUESTION.index("{first}")
    for one, other in (sounds, sounds[::-1]):
        text = QUESTION.format(first=one.name, second=other.name)
        end = len(text) - len(".")
        texts.append(text)
        spans.append([(before, before + len(one.name)), (end - len(other.name), end)])
        hits.append([one.injected, other.injected])
    words = next(attribute.words for attribute in builtin_attributes() if attribute.measure == MEASURE)
    # The first where the first is higher; within a text, words stand behind a space, which many tokens hold.
    answers = [model.tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words]
    if with_sound:
        scored = model.score_masks(texts, sound="on", spans=spans, hits=hits)
    else:
        scored = model.score_masks(texts, sound="off")
    chances = [float(one.log_probs[0, answers].softmax(dim=0)[0]) for one in scored]
    return Said(chances[0], 1.0 - chances[1])
