"""Licences: only one that is known as a whole allows anything."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audiobert.bank.licences import terms_of


@pytest.mark.parametrize(
    ("given", "name", "redistributable", "commercial"),
    [
        ("CC0", "CC0", True, True),
        ("Creative Commons 0", "CC0", True, True),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0", True, True),
        ("CC-BY", "CC BY", True, True),
        ("Attribution", "CC BY", True, True),
        ("https://creativecommons.org/licenses/by/3.0/", "CC BY", True, True),
        ("CC BY-SA 4.0", "CC BY-SA", True, True),
        ("Attribution NonCommercial", "CC BY-NC", True, False),
        ("CC-BY-NC", "CC BY-NC", True, False),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "CC BY-NC-ND", True, False),
        ("Sampling+", "CC Sampling+", True, False),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "CC Sampling+", True, False),
        ("Creative Commons Attribution 4.0 International (CC BY 4.0)", "CC BY", True, True),
        ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0", True, True),
        ("https://creativecommons.org/licenses/by-nc-sa/3.0/de/deed.en", "CC BY-NC-SA", True, False),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "public domain", True, True),
        ("CC-BY-3.0-DE", "CC BY", True, True),
        ("CC BY-ND 4.0", "CC BY-ND", True, True),
        ("Public Domain", "public domain", True, True),
        ("MIT", "MIT", True, True),
        ("The MIT License", "MIT", True, True),
        ("Apache License, Version 2.0", "Apache-2.0", True, True),
        ("BSD 3-Clause", "BSD-3-Clause", True, True),
        ("GPL-2", "GPL-2.0-only", True, True),
        ("GPLv2+", "GPL-2.0-or-later", True, True),
        ("GPL-2.0-or-later with exception", "GPL-2.0-or-later with exception", True, True),
        ("GPL-2.0-or-later WITH Font-exception-2.0", "GPL-2.0-or-later WITH Font-exception-2.0", True, True),
        ("Free Art License", "Free Art License", True, True),
        ("MIT OR CC-BY-NC-4.0", "MIT OR CC-BY-NC-4.0", True, False),
        ("All rights reserved", "all rights reserved", False, False),
        ("free to use, ask me", "free to use, ask me", None, None),
        ("by permission of the owner only", "by permission of the owner only", None, None),
        ("unstated (public research data set)", "unstated (public research data set)", None, None),
        ("BUSL-1.1", "BUSL-1.1", None, None),
        ("", "unstated", None, None),
        (None, "unstated", None, None),
    ],
)
def test_licences(given: str | None, name: str, redistributable: bool | None, commercial: bool | None) -> None:
    terms = terms_of(given)
    assert (terms.name, terms.redistributable, terms.commercial) == (name, redistributable, commercial)


@pytest.mark.parametrize(
    "given_text",
    [
        "This is NOT public domain",
        "contact us for a CC BY licence",
        "cc-by-sa 4.0, non-commercial only",
        "public domain in some countries only",
        "MIT (repository LICENSE; no separate licence for the sounds)",
        "free to use, not to be sold as samples",
        "CC BY 4.0 (non-commercial)",
        "CC BY 4.0 / all rights reserved",
        "CC0?",
        "CC BY 5.0",
        "GPL-2 with non-commercial exception",
        "MIT AND proprietary",
        "MIT AND BUSL-1.1",
        "MIT OR BUSL-1.1",
        "MIT OR",
        "MIT ()",
        "http://creativecommons.org/licenses/by/3.0/ but no copies",
        "https://example.org/creativecommons.org/licenses/by/3.0/",
        "http://creativecommons.org/licenses/sampling/1.0/",
    ],
)
def test_words_of_a_licence_inside_other_words_allow_nothing(given_text: str) -> None:
    terms = terms_of(given_text)
    assert not terms.redistributable and not terms.commercial


FREE = ["CC0", "CC BY 4.0", "Public Domain", "MIT", "GPL-2+", "Attribution", "Apache-2.0"]
FREE += ["https://creativecommons.org/licenses/by/4.0/", "CC BY-SA", "Creative Commons Attribution (CC BY)"]
# No word of these letters is part of a licence's name.
OTHER_WORDS = st.lists(st.text("qxjkéжß", min_size=2, max_size=8), min_size=1, max_size=3).map(" ".join)
JOINTS = st.text(st.characters(exclude_categories=["L", "N"]), max_size=3)


@settings(max_examples=300)
@given(st.sampled_from(FREE), OTHER_WORDS, JOINTS, st.booleans())
def test_no_other_words_beside_a_licence_allow_anything(name: str, words: str, joint: str, before: bool) -> None:
    assert terms_of(name).redistributable
    terms = terms_of(words + joint + name if before else name + joint + words)
    assert not terms.redistributable and not terms.commercial


@settings(max_examples=300)
@given(st.sampled_from(FREE), st.text(max_size=30), st.text(max_size=30))
def test_no_text_around_a_licence_allows_anything(name: str, before: str, after: str) -> None:
    assume(sum(character.isalpha() for character in before + after) > 2)
    terms = terms_of(f"{before} {name} {after}")
    assert not terms.redistributable and not terms.commercial
