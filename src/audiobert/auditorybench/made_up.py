"""Make up names: pronounceable words that occur in no text, for sounds that no training contained."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

# Separated by spaces; two spaces in a row hold the empty coda.
_ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sh sk sl sn sp st t th tr tw v w y z"
_VOWELS = "a e i o u ai ee oo ou"
_CODAS = "b ck d ff g k l m n p r sh ss st t th x zz nd mp    "
_SYLLABLES = (1, 1, 2, 2, 3)


def made_up_name(random: np.random.Generator) -> str:
    """Return a made-up name of one to three syllables.

    >>> made_up_name(np.random.default_rng(1))
    'nacroo'
    """
    count = _SYLLABLES[random.integers(len(_SYLLABLES))]
    pieces = []
    for place in range(count):
        closed = place == count - 1 or random.random() < 0.3
        pieces += [_pick(random, _ONSETS), _pick(random, _VOWELS), _pick(random, _CODAS) if closed else ""]
    return "".join(pieces)


def _pick(random: np.random.Generator, pieces: str) -> str:
    choices = pieces.split(" ")
    return choices[random.integers(len(choices))]


def made_up_names(kinds: Iterable[str], seed: int = 5, taken: Collection[str] = ()) -> dict[str, str]:
    """Return a different made-up name of four to ten letters per kind, the same for the same seed."""
    random = np.random.default_rng(seed)
    names: dict[str, str] = {}
    used = set(taken)
    for kind in sorted(kinds):
        while not 4 <= len(name := made_up_name(random)) <= 10 or name in used:
            pass
        names[kind] = name
        used.add(name)
    return names
