"""Two sounds: how high they are by measurement, and which one the model says is higher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from audiobert.answers import Hit
from audiobert.audio import SAMPLE_RATE_HZ, Attributes, Recording, measure, read_recording
from audiobert.errors import InputError
from audiobert.features import make_features, rates_hz
from audiobert.pitch import compare_pitch

if TYPE_CHECKING:
    from audiobert.pipeline import AudioBert

QUESTION = "The sound of {first} has a [MASK] pitch than the sound of {second}."
HEARD_CLIPS = 10  # clips of the bank whose median pitch stands for a named sound
MEASURED_SECONDS = 30.0
SAME_PITCH_SEMITONES = 0.5


@dataclass(frozen=True)
class Sound:
    """One of the two sounds.

    Attributes
    ----------
    name
        What it is called in the question.
    attributes
        Measurements of a recording, None where only a name was given.
    named_by
        The clip whose label gave the name, when none was given.
    clips
        The bank's clips for the name.
    pitched
        How many of these have a pitch.
    pitch_hz
        Of the recording, else the median of the clips; None without a pitch.
    """

    name: str
    attributes: Attributes | None
    named_by: Hit | None
    clips: tuple[Hit, ...]
    pitched: int
    pitch_hz: float | None


@dataclass(frozen=True)
class Said:
    """What a model says of the first sound: the probability of `higher` against `lower`, asked in both orders.

    Attributes
    ----------
    forward, backward
        Probability that the first sound is the higher one, asked with it in the first and in the second place.
    """

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
    """Two sounds with the question, the measured difference in semitones, and what the models say."""

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
    """Compare two sounds, each a name, a recording, or both.

    The model answers from the names and from the bank's clips for them; a recording is measured, and gives the name
    (the label of the nearest clip) where none was given.

    Raises
    ------
    InputError
        When a sound has neither name nor recording, or a recording cannot be decoded.
    """
    one = _sound(model, first, files[0], 1)
    other = _sound(model, second, files[1], 2)
    return Comparison(
        one,
        other,
        QUESTION.format(first=one.name, second=other.name),
        _semitones(one.pitch_hz, other.pitch_hz),
        _ask(model, one.name, other.name, audio=True),
        _ask(model, one.name, other.name, audio=False),
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
    attributes = named_by = None
    if file is not None:
        recording = read_recording(
            file,
            other_rates_hz=rates_hz(model.clip_encoder().makers),
            max_seconds=MEASURED_SECONDS,
            name=f"the recording of sound {number}",
        )
        attributes = measure(recording.waveform, SAMPLE_RATE_HZ, duration_s=recording.duration_s)
        if not name:
            named_by = nearest_clip(model, recording, attributes)
            name = _name_of(named_by)
    clips = tuple(model.search(name, HEARD_CLIPS))
    pitches = [hit.clip.pitch_hz for hit in clips if hit.clip.pitch_hz is not None]
    heard_hz = attributes.pitch_hz if attributes is not None else median(pitches) if pitches else None
    return Sound(name, attributes, named_by, clips, len(pitches), heard_hz)


def nearest_clip(model: AudioBert, recording: Recording, attributes: Attributes) -> Hit:
    """The clip of the bank that sounds most like a recording, by the cosine of their CLAP vectors."""
    encoder = model.clip_encoder()
    waveforms = {rate_hz: recording.at(rate_hz) for rate_hz in rates_hz(encoder.makers)}
    vectors, _ = encoder.encode([make_features(encoder.makers, waveforms)], [attributes])
    scores, rows = model.bank.search(vectors, 1)
    return Hit(model.bank.clip(int(rows[0, 0])), float(scores[0, 0]), int(rows[0, 0]))


def _name_of(hit: Hit) -> str:
    label = (hit.clip.label or "").replace("_", " ").replace("-", " ").strip()
    return f"a {label}" if label else hit.clip.caption or hit.clip.title or "something"


def _ask(model: AudioBert, first: str, second: str, *, audio: bool) -> Said:
    """Ask which is higher in both orders, with the names as the spans."""
    texts, spans = [], []
    for one, other in ((first, second), (second, first)):
        text = QUESTION.format(first=one, second=other)
        start, at = text.index(one), text.rindex(other)
        texts.append(text)
        spans.append([(start, start + len(one)), (at, at + len(other))])
    higher, lower = (model.tokenizer.convert_tokens_to_ids(word) for word in ("higher", "lower"))
    scored = model.score_masks(texts, audio=audio, spans=spans if audio else None)
    chances = [float(one.log_probs[0, [higher, lower]].softmax(dim=0)[0]) for one in scored]
    return Said(chances[0], 1.0 - chances[1])
