"""What a clip's licence allows: may the clip be passed on, and may it be sold."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """What a licence allows, as far as its name says.

    Attributes
    ----------
    name
        The short name of a known licence, else what was given, else `unstated`.
    redistributable
        Whether copies of the clip may be passed on (possibly with credit, possibly not for money). None: not known.
    commercial
        Whether that holds for commercial use too. None: not known.
    """

    name: str
    redistributable: bool | None
    commercial: bool | None


# Looked for in this order in the lower-case licence without punctuation; Freesound's names and URLs included.
_KNOWN: tuple[tuple[str, Terms], ...] = (
    (r"publicdomain zero|creative commons 0|\bcc ?0\b|\bcc zero", Terms("CC0", True, True)),
    (r"sampling plus|sampling\+|sampling$", Terms("CC Sampling+", True, False)),
    (r"(by|attribution) (nc|non ?commercial) (nd|no ?deriv\w*)", Terms("CC BY-NC-ND", True, False)),
    (r"(by|attribution) (nc|non ?commercial) (sa|share ?alike)", Terms("CC BY-NC-SA", True, False)),
    (r"(by|attribution) (nc|non ?commercial)", Terms("CC BY-NC", True, False)),
    (r"(by|attribution) (nd|no ?deriv\w*)", Terms("CC BY-ND", True, True)),
    (r"(by|attribution) (sa|share ?alike)", Terms("CC BY-SA", True, True)),
    (r"\bcc by\b|licenses by\b|^attribution( \d.*)?$|^by$|creative commons attribution", Terms("CC BY", True, True)),
    (r"public domain", Terms("public domain", True, True)),
    (r"^mit( license| licence)?$", Terms("MIT", True, True)),
    (r"^apache( license)? ?2( 0)?$", Terms("Apache-2.0", True, True)),
    (r"all rights reserved|proprietary", Terms("all rights reserved", False, False)),
)


def terms_of(license_name: str | None) -> Terms:
    """Read a licence's name or URL.

    >>> terms_of("http://creativecommons.org/licenses/by-nc/3.0/")
    Terms(name='CC BY-NC', redistributable=True, commercial=False)
    >>> terms_of("free to use, ask me").redistributable is None
    True
    """
    if not license_name or not license_name.strip():
        return Terms("unstated", None, None)
    words = " ".join(re.sub(r"[^a-z0-9+]+", " ", license_name.lower()).split())
    for pattern, terms in _KNOWN:
        if re.search(pattern, words):
            return terms
    return Terms(license_name.strip(), None, None)
