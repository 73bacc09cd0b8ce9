"""Read two Wikipedia pages, as wikitext or as saved HTML: animals with their sounds, instruments with their ranges."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from audiobert.construct.wiki_tables import Cell, find_column, one_line, read_tables
from audiobert.errors import InputError

_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11, "h": 11}
_NOTE = re.compile(r"\b([A-Ga-g])\s*([#♯b♭]?)\s*(-?\d)(?!\d)")
_DEFINE = re.compile(r"Define\s+\$(\w+)\s*=\s*(-?[\d.]+)")
_BAR = re.compile(
    r"(?=.*\bfrom:(?P<low>\$?-?[\w.]+))(?=.*\btill:(?P<high>\$?-?[\w.]+))"
    r"(?:.*\bcolor:(?P<color>[\w-]+))?.*?\b(?:text|bar):(?P<name>.+)$"
)
_HELMHOLTZ = re.compile(r"([a-h])(\1?)(\d?)")

_LARGEST_PLACE = 1e6
_NOTES = (-36, 160)  # MIDI numbers from 1 Hz to 84 kHz


@dataclass(frozen=True)
class PitchRange:
    """Lowest and highest note of an instrument or a voice, as MIDI numbers (A4 = 69; not always whole)."""

    name: str
    low: float
    high: float

    @property
    def mean_hz(self) -> float:
        """Middle of the range in Hz: the mean of the frequencies of its ends."""
        return (midi_to_hz(self.low) + midi_to_hz(self.high)) / 2


def midi_to_hz(note: float) -> float:
    """Compute the frequency of a MIDI note number in Hz, A4 = 440 Hz.

    >>> midi_to_hz(69), round(midi_to_hz(60), 2)
    (440.0, 261.63)
    """
    return 440.0 * 2.0 ** ((note - 69) / 12)


# --- List of animal sounds -------------------------------------------------------------------------------------------


def parse_animal_sounds(page: str) -> list[tuple[str, list[str]]]:
    """Read animals with the words for their sounds, in the order of the page "List of animal sounds".

    The page has a table with a column "Animal" and one of the sounds ("Description", "Sounds", ...).
    """
    found: dict[str, list[str]] = {}
    for grid in read_tables(page):
        header = grid[0] if grid else []
        animal = find_column(header, r"animals?\b", start=True)
        sounds = find_column(header, r"descri|onomatop|vocali|noise|words?\b", besides=animal)
        if sounds is None:
            sounds = find_column(header, "sound", besides=animal)
        if animal is None or sounds is None:
            continue
        for row in grid[1:]:
            if max(animal, sounds) >= len(row) or row[sounds].header:
                continue
            name = _animal_name(row[animal].text)
            words = _sound_words(row[sounds].text)
            if name and words:
                known = found.setdefault(name, [])
                known.extend(word for word in words if word not in known)
    if not found:
        raise InputError(
            "the page has no table with a column 'Animal' and one of sounds; save 'List of animal sounds' as wikitext "
            "(index.php?title=List_of_animal_sounds&action=raw) or as HTML"
        )
    return list(found.items())


def _without_notes(text: str) -> str:
    return re.sub(r"\([^()]*\)|\[[^\[\]]*\]", " ", text)


def _animal_name(text: str) -> str:
    from audiobert.construct.labels import singular

    name = one_line(re.split(r"[\n,;/]", _without_notes(text).strip())[0])
    lowered = name.lower()
    return name if singular(lowered) == lowered else singular(lowered).capitalize()


def _sound_words(text: str) -> list[str]:
    words = []
    for part in re.split(r"[\n,;/•·]|\band\b|\bor\b", _without_notes(text)):
        word = one_line(part).strip(" .:*'\"“”‘’").lower()
        if word and re.fullmatch(r"[^\W\d_][\w' -]{0,30}", word) and len(word.split()) <= 3 and word not in words:
            words.append(word)
    return words


# --- Range (music) ---------------------------------------------------------------------------------------------------


def _midi(found: re.Match[str]) -> float:
    accidental = {"#": 1, "♯": 1, "b": -1, "♭": -1, "": 0}[found[2]]
    return 12.0 * (int(found[3]) + 1) + _SEMITONES[found[1].lower()] + accidental


def parse_ranges(page: str) -> list[PitchRange]:
    """Read instruments and voices with their ranges, in the order of the page "Range (music)".

    The page draws them with EasyTimeline (`from:$ee till:$e1 text:bass`, the notes defined in Helmholtz's names); a
    table with a column for the range, or for its lowest and highest note, is read too. In saved HTML the drawing is a
    picture, so that such a page is refused.
    """
    timelines = re.findall(r"<timeline[^>]*>(.*?)</timeline>", page, re.DOTALL | re.IGNORECASE)
    ranges = [one for timeline in timelines for one in _timeline_ranges(timeline)]
    ranges = ranges or [one for grid in read_tables(page) for one in _table_ranges(grid)]
    if not ranges:
        raise InputError(
            "the page holds no ranges (in saved HTML they are a picture); save the wikitext of 'Range (music)' or of "
            "'Template:Vocal and instrumental pitch ranges' (index.php?title=...&action=raw)"
        )
    found: dict[str, PitchRange] = {}
    for one in ranges:
        found.setdefault(one.name.casefold(), one)
    return list(found.values())


def _timeline_ranges(timeline: str) -> list[PitchRange]:
    defined = {name.lower(): _number(value) for name, value in _DEFINE.findall(timeline)}
    to_midi = _scale(defined)
    ranges = []
    for line in timeline.splitlines():
        bar = _BAR.search(line)
        if not bar or (bar["color"] and re.search(r"head|class|famil", bar["color"])):
            continue
        name = _bar_name(bar["name"])
        try:
            low, high = (_place(bar[end], defined) for end in ("low", "high"))
        except KeyError:
            raise InputError(f"the timeline's line '{line.strip()[:80]}' has an end that is not defined") from None
        if not all(_NOTES[0] <= to_midi(place) <= _NOTES[1] for place in (low, high)):
            raise InputError(f"the timeline's line '{line.strip()[:80]}' has an end that is no note")
        if name and high > low:
            ranges.append(PitchRange(name, to_midi(low), to_midi(high)))
    return ranges


def _number(value: str) -> float:
    with suppress(ValueError):
        if abs(number := float(value)) < _LARGEST_PLACE:
            return number
    raise InputError(f"the timeline has '{value[:20]}' as a number; check the saved wikitext")


def _bar_name(text: str) -> str:
    text = re.split(r"\s(?:from|till|color|width|shift|fontsize|align|textcolor|mark|anchor|link):", text)[0]
    text = re.sub(r"\[\[(?:[^\]|]*\|)?([^\]]*)\]\]", r"\1", text.strip().strip('"'))
    return one_line(_without_notes(text.replace("_", " ")).replace("~", " "))


def _place(value: str, defined: dict[str, float]) -> float:
    return defined[value[1:].lower()] if value.startswith("$") else _number(value)


def _helmholtz(name: str) -> float | None:
    """Return the MIDI number of a natural in Helmholtz's names: `cc1` contra, `cc` great, `c` small, `c1` middle C."""
    found = _HELMHOLTZ.fullmatch(name)
    if not found:
        return None
    number = int(found[3] or 0)
    octave = 2 - number if found[2] else 3 + number
    return 12.0 * (octave + 1) + _SEMITONES[found[1]]


def _scale(defined: dict[str, float]) -> Callable[[float], float]:
    """Convert places of the timeline to MIDI numbers, by the notes that it defines."""
    known = [(place, note) for name, place in defined.items() if (note := _helmholtz(name)) is not None]
    if len(known) < 2:
        raise InputError("the timeline defines no notes ($c1 = ...); save the whole wikitext of the template")
    places, notes = np.array(known).T
    slope, offset = np.polyfit(places, notes, 1)
    if np.abs(slope * places + offset - notes).max() > 0.5:
        raise InputError("the notes that the timeline defines are not evenly spaced; check the saved wikitext")
    return lambda place: round(float(slope * place + offset), 2)


def _table_ranges(grid: Sequence[Sequence[Cell]]) -> list[PitchRange]:
    header = grid[0] if grid else []
    name = find_column(header, r"instrument|voice|name")
    low, high = find_column(header, r"\blow"), find_column(header, r"\bhigh")
    ends = [low, high] if low is not None and high is not None else [find_column(header, "range|compass")]
    columns = [column for column in ends if column is not None]
    if name is None or not columns:
        return []
    ranges = []
    for row in grid[1:]:
        if max(name, *columns) >= len(row):
            continue
        text = " – ".join(row[column].text for column in columns)
        notes = [_midi(found) for found in _NOTE.finditer(unicodedata.normalize("NFKC", text))]
        label = one_line(_without_notes(row[name].text))
        if label and len(notes) >= 2 and notes[1] > notes[0]:
            ranges.append(PitchRange(label, notes[0], notes[1]))
    return ranges
