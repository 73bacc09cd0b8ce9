"""Make the two Wikipedia sets: which animal makes this sound, and which of two instruments or voices is higher.

Of two ranges, the one with the higher middle is higher. The middle is the mean of the frequencies (in Hz, not in
semitones) of the lowest and the highest note. On the published set this agrees with more answers than the lowest note,
the highest note, or the middle in semitones; `tests/test_construct_wiki.py` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from audiobert import __version__
from audiobert.artefacts import write_text
from audiobert.construct.pitch import balanced, check_apart
from audiobert.construct.records import MASK, AnimalRow, PitchRow, Rejected
from audiobert.construct.rules import BrokenRuleError
from audiobert.construct.wiki_pages import PitchRange, parse_animal_sounds, parse_ranges
from audiobert.errors import InputError, RemoteError
from audiobert.settings import Settings

STEP = "wiki"
API = "https://en.wikipedia.org/w/api.php"
ANIMALS_PAGE = "List of animal sounds"
RANGES_PAGE = "Range (music)"
RANGES_TEMPLATE = "Template:Vocal and instrumental pitch ranges"
_LICENSE = "CC BY-SA 4.0"
_USER_AGENT = f"audiobert/{__version__} (AuditoryBench construction)"


class WikiSettings(Settings):
    """Settings of the two Wikipedia sets.

    Attributes
    ----------
    animals, ranges
        A saved page (wikitext or HTML), `api` for the MediaWiki API, or None to leave the set out.
    min_ratio
        Pairs whose middles differ by less are left out.
    """

    animals: Path | Literal["api"] | None = None
    ranges: Path | Literal["api"] | None = None
    api: str = API
    timeout_s: float = Field(default=30.0, gt=0)
    min_ratio: float = Field(default=1.10, ge=1.0)
    seed: int = 0


def read_page(path: Path) -> str:
    """Read a saved page."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); save the page as wikitext or HTML in UTF-8") from None


def fetch_page(title: str, settings: WikiSettings) -> str:
    """Fetch the wikitext of a page by the MediaWiki API."""
    import httpx

    query = {"action": "parse", "prop": "wikitext", "redirects": "1", "format": "json", "formatversion": "2"}
    instead = "save the page and give its path in the settings of 'wiki'"
    try:
        with httpx.Client(timeout=settings.timeout_s, headers={"User-Agent": _USER_AGENT}) as client:
            response = client.get(settings.api, params={**query, "page": title})
            response.raise_for_status()
            value: Any = response.json()
    except httpx.HTTPStatusError as error:
        raise RemoteError(f"{settings.api} answered HTTP {error.response.status_code}; {instead}") from None
    except httpx.HTTPError as error:
        raise RemoteError(
            f"{settings.api} cannot be reached ({type(error).__name__}): offline? Then {instead}"
        ) from None
    except ValueError:
        raise RemoteError(f"{settings.api} did not answer with JSON: is it a MediaWiki API? Else {instead}") from None
    if "error" in value:
        raise RemoteError(f"{settings.api} has no page '{title}' ({value['error'].get('info', 'unknown error')})")
    return str(value["parse"]["wikitext"])


def saved_page(title: str, given: Path | Literal["api"], settings: WikiSettings, folder: Path) -> str:
    """Return the page's text: from the given file, or fetched once and kept in `folder`."""
    if given != "api":
        return read_page(given)
    kept = folder / (title.replace(" ", "_").replace(":", "_") + ".wikitext")
    if not kept.is_file():
        write_text(kept, fetch_page(title, settings))
    return read_page(kept)


def animal_rows(page: str) -> list[AnimalRow]:
    """Make a question for each animal and each of its sounds, in the order of the page."""
    pairs = ((animal, sound) for animal, sounds in parse_animal_sounds(page) for sound in sounds)
    return [
        AnimalRow(
            id=f"wiki-animal-{number:04d}",
            sentence=f"{sound} is the sound a {MASK} makes.",
            answer=animal,
            span=sound,
            source=f"Wikipedia, {ANIMALS_PAGE}",
            license=_LICENSE,
            url="https://en.wikipedia.org/wiki/List_of_animal_sounds",
        )
        for number, (animal, sound) in enumerate(pairs)
    ]


def is_higher(first: PitchRange, second: PitchRange) -> bool:
    """Return whether the first range is higher than the second, by the mean of its two ends in Hz."""
    return first.mean_hz > second.mean_hz


def pitch_rows(ranges: Sequence[PitchRange], settings: WikiSettings) -> tuple[list[PitchRow], list[Rejected]]:
    """Make a question for each pair of ranges; the order in a pair is random, with both answers equally frequent."""
    rows: list[PitchRow] = []
    rejected = []
    pairs = []
    for first, second in combinations(ranges, 2):
        try:
            check_apart(first.mean_hz, second.mean_hz, settings.min_ratio)
            pairs.append((first, second))
        except BrokenRuleError as error:
            rejected.append(error.rejected(STEP, f"{first.name} | {second.name}"))
    for (first, second), higher in zip(pairs, balanced(len(pairs), f"{settings.seed}-wiki"), strict=True):
        if is_higher(first, second) != higher:
            first, second = second, first
        rows.append(
            PitchRow(
                id=f"wiki-pitch-{len(rows):05d}",
                sentence=f"The sound of {first.name} is {MASK} than the sound of {second.name}",
                answer="higher" if higher else "lower",
                span1=first.name,
                span2=second.name,
                pitch1_hz=round(first.mean_hz, 2),
                pitch2_hz=round(second.mean_hz, 2),
                group="wiki",
                source=f"Wikipedia, {RANGES_PAGE}",
                license=_LICENSE,
                url="https://en.wikipedia.org/wiki/Range_(music)",
            )
        )
    return rows, rejected


def make_wiki_rows(settings: WikiSettings, folder: Path) -> tuple[list[AnimalRow], list[PitchRow], list[Rejected]]:
    """Make both sets, as far as the settings name their pages; fetched pages are kept in `folder`."""
    animals = animal_rows(saved_page(ANIMALS_PAGE, settings.animals, settings, folder)) if settings.animals else []
    if not settings.ranges:
        return animals, [], []
    try:
        ranges = parse_ranges(saved_page(RANGES_PAGE, settings.ranges, settings, folder))
    except InputError:
        if settings.ranges != "api":
            raise
        ranges = parse_ranges(saved_page(RANGES_TEMPLATE, "api", settings, folder))
    pitches, rejected = pitch_rows(ranges, settings)
    return animals, pitches, rejected
