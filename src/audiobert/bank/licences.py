"""Read from a licence's name whether a clip may be passed on, and whether it may be sold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from license_expression import ExpressionError, ParseError, get_license_index, get_spdx_licensing


@dataclass(frozen=True)
class Terms:
    """Permissions of a licence, as far as its name says; None: not known."""

    name: str  # of a known licence, else what was given, else `unstated`
    redistributable: bool | None  # copies may be passed on (possibly with credit, possibly not for money)
    commercial: bool | None  # that holds for commercial use too


# Whole names in lower case with single blanks for blanks, hyphens and underscores; see `_in_words`.
_CC = r"(?:cc|creative commons) ?"
_END = r"(?: public)?(?: licen[sc]e| deed)?"
_CC_BY = re.compile(
    rf"(?:{_CC})?(?:by|attribution)"
    r"(?P<nc> nc| non ?commercial)?(?: (?:(?P<sa>sa|share ?alike)|(?P<nd>nd|no ?deriv(?:ative)?s?(?: works)?)))?"
    r"(?P<nc_last> nc| non ?commercial)?"
    rf"(?: (?:v|version )?(?:[1-4](?:\.0)?|2\.[15]))?(?: (?:international|unported|generic))?{_END}"
)
_NAMES: tuple[tuple[str, Terms], ...] = (
    (rf"{_CC}(?:0|zero)(?: v?1(?:\.0)?)?(?: universal)?(?: public domain dedication)?{_END}", Terms("CC0", True, True)),
    (rf"(?:{_CC})?(?:nc )?sampling ?(?:\+|plus)(?: 1\.0)?{_END}", Terms("CC Sampling+", True, False)),
    (r"public ?domain(?: mark)?(?: 1\.0)?|pdm?(?: 1\.0)?", Terms("public domain", True, True)),
    (r"free art licen[sc]e(?: 1\.[23])?|licence art libre", Terms("Free Art License", True, True)),
)
# Countries with licences of their own (versions up to 3.0).
_COUNTRIES = (
    "am ar at au az be bg br ca ch cl cn co cr cz de dk ec ee eg es fi fr ge gr gt hk hr hu ie igo il in it jo jp kr "
    "lu mk mt mx my ng nl no nz pe ph pl pr pt ro rs scotland se sg si th tw ug uk us ve vn za"
).replace(" ", "|")
_CC_URL = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/(?:"
    r"licenses/(?P<kind>by(?:-[a-z]{2}){0,2}|(?:nc-)?sampling\+)|publicdomain/(?P<domain>zero|mark)"
    rf")(?:/[1-4]\.\d(?:/(?:{_COUNTRIES}))?)?(?:/(?:deed|legalcode)(?:\.[a-z]{{2}}(?:[_-][a-z]{{2,4}})?)?)?/?"
)
# As Debian and its kin write the GNU licences: GPL, GPL-2, LGPLv2.1+, GPL 3 or later; the FreePats exception allows
# the use of sounds in music of any licence.
_GNU = re.compile(
    r"(?:gnu )?(?P<family>[la]?gpl)(?: ?v? ?(?P<version>[123](?:\.[01])?))?(?P<later>\+| or (?:later|newer))?"
    r"(?: only)?(?: licen[sc]e)?(?P<exception> with (?:freepats )?exception)?"
)
# Categories of the index of `license-expression` whose licences let anybody pass copies on, for money too.
_FREE = frozenset({"Public Domain", "Permissive", "Copyleft", "Copyleft Limited"})


@lru_cache(maxsize=4096)
def terms_of(license_name: str | None) -> Terms:
    """Read a licence's name or URL. Only one that is known as a whole allows anything.

    Known are Creative Commons' names and URLs in their usual spellings, the GNU licences, and the names and expressions
    of SPDX. Of an expression (`MIT OR CC0-1.0`) all licences must be free.

    >>> terms_of("http://creativecommons.org/licenses/by-nc/3.0/")
    Terms(name='CC BY-NC', redistributable=True, commercial=False)
    >>> terms_of("this is NOT public domain").redistributable is None
    True
    """
    given = (license_name or "").strip()
    if not given:
        return Terms("unstated", None, None)
    if known := _named(given) or _by_url(given) or _gnu(given) or _in_spdx(given) or _explained(given):
        return known
    if re.search(r"\b(all rights reserved|proprietary)\b", given.lower()):
        return Terms("all rights reserved", False, False)
    return Terms(given, None, None)


def _in_words(given: str) -> str:
    return re.sub(r"[\s_‐-―-]+", " ", given.lower()).strip()


def _named(given: str) -> Terms | None:
    words = _in_words(given)
    if match := _CC_BY.fullmatch(words):
        sold = not (match["nc"] or match["nc_last"])
        return Terms("CC BY" + "-NC" * (not sold) + "-SA" * bool(match["sa"]) + "-ND" * bool(match["nd"]), True, sold)
    return next((terms for pattern, terms in _NAMES if re.fullmatch(pattern, words)), None)


def _by_url(given: str) -> Terms | None:
    if not (match := _CC_URL.fullmatch(given.lower().replace("%2b", "+"))):
        return None
    if match["domain"]:
        return _named({"zero": "CC0", "mark": "public domain mark"}[match["domain"]])
    return _named(f"CC {match['kind']}")


def _gnu(given: str) -> Terms | None:
    if not (match := _GNU.fullmatch(_in_words(given))):
        return None
    name = match["family"].upper()
    if version := match["version"]:
        name += f"-{version if '.' in version else version + '.0'}-{'or-later' if match['later'] else 'only'}"
    return Terms(name + (match["exception"] or ""), True, True)


def _explained(given: str) -> Terms | None:
    """Return the terms of a name with the same licence in parentheses: `Creative Commons Attribution (CC BY)`."""
    if not (match := re.fullmatch(r"([^()]+)\(([^()]+)\)([^()]*)", given)):
        return None
    outside, inside = _named(match[1] + match[3]), _named(match[2])
    return outside if outside == inside else None


def _in_spdx(given: str) -> Terms | None:
    licensing, categories = _spdx()
    shortened = re.sub(r"\b(the|licen[sc]e|version|v(?=\d))\b|,", " ", given, flags=re.IGNORECASE)
    for spelling in (given, "-".join(shortened.split())):
        try:
            expression = licensing.parse(spelling, validate=True)
        except (ExpressionError, ParseError, IndexError):  # IndexError: of empty parentheses
            continue
        if expression is None:
            continue
        each = [_of_key(key, categories) for key in licensing.license_keys(expression)]
        if len(each) == 1:
            return each[0]
        return Terms(str(expression), True, all(one.commercial for one in each if one)) if all(each) else None
    return None


def _of_key(key: str, categories: dict[str, str]) -> Terms | None:
    """Return the terms of an SPDX key; of Creative Commons whatever the version and the jurisdiction."""
    if match := re.fullmatch(r"(CC-BY(?:-[A-Z]{2})*)-\d\.\d(?:-[A-Z]{2,3})?|(CC0)-1\.0", key):
        return _named(match[1] or match[2])
    return Terms(key, True, True) if categories.get(key) in _FREE else None


@cache
def _spdx() -> tuple[Any, dict[str, str]]:
    """Return the parser of SPDX expressions, and the category of each SPDX key."""
    categories = {one["spdx_license_key"]: one["category"] for one in get_license_index() if one["spdx_license_key"]}
    return get_spdx_licensing(), categories
