"""Check what a caller gives; a value of a wrong type is refused in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from audiobert.errors import InputError


def checked_path(what: str, value: Any) -> Path:
    """Return a string or path as a path.

    >>> checked_path("bank", 5)
    Traceback (most recent call last):
    audiobert.errors.InputError: bank is of type int; give a string or a path
    """
    if not isinstance(value, str | Path):
        raise InputError(f"{what} is of type {type(value).__name__}; give a string or a path")
    if value == "":
        raise InputError(f"{what} is an empty string; give a string or a path")
    return Path(value)


def checked_paths(what: str, value: Any) -> list[Path]:
    """Return one path or several as a list; None as an empty one."""
    if value is None:
        return []
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    return [checked_path(what, one) for one in (value if several else [value])]


def checked_count(what: str, value: Any, most: int | None = None) -> int:
    """Return a whole number that is at least 1 and at most `most`.

    >>> checked_count("top_k", "5", most=30)
    Traceback (most recent call last):
    audiobert.errors.InputError: top_k is '5'; give a number from 1 to 30
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= (most or int(value)):
        wanted = f"a number from 1 to {most:,}" if most else "a whole number of at least 1"
        raise InputError(f"{what} is {value!r}; give {wanted}")
    return int(value)


def checked_texts(texts: Iterable[str]) -> list[str]:
    """Return texts as a list; one text alone, a mapping, and what is no string are refused."""
    if isinstance(texts, Mapping | str | bytes | bytearray) or not isinstance(texts, Iterable):
        raise InputError(f"the texts are of type {type(texts).__name__}; give a list of strings")
    found = list(texts)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise InputError(f"text {number} is of type {type(text).__name__}; give strings")
    return found


def checked_sounds(sounds: Any) -> dict[str, Path]:
    """Return the recordings that are given for pieces of a text, by piece."""
    if sounds is None:
        return {}
    if not isinstance(sounds, Mapping) or not all(isinstance(piece, str) for piece in sounds):
        raise InputError('sounds is no mapping of words to files; give one such as {"This": "clip.wav"}')
    return {piece: checked_path(f"the recording for {piece!r}", file) for piece, file in sounds.items()}
