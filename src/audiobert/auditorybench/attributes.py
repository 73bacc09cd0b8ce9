"""Read the measured attributes that sounds are compared by, each from a YAML file with its words and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from pydantic import Field

from audiobert.settings import Settings


class Extremes(Settings):
    """Words for a single sound: `words` of one that measures much, and of one that measures little.

    Templates have `{x}` and one `[MASK]`.
    """

    words: tuple[str, str]
    templates: tuple[str, ...] = Field(min_length=1)


class Attribute(Settings):
    """One attribute: what is said of sounds by one of their measurements."""

    name: str
    measure: str  # column of a bank's table
    words: tuple[str, str]  # of a sound that measures more, and of one that measures less
    min_ratio: float = Field(default=1.1, gt=1.0)  # pairs with a smaller ratio of the measurements make no question
    weight: float = Field(default=1.0, ge=0.0)  # how often training draws it, relative to the other attributes
    templates: tuple[str, ...] = Field(min_length=1)  # sentences with `{x}`, `{y}` and one `[MASK]`
    extremes: Extremes | None = None  # how single sounds are spoken of, where they are

    def logarithms(self, measured: Sequence[float | None]) -> np.ndarray:
        """Return binary logarithms, NaN where nothing was measured; of levels in decibels those of the amplitude."""
        if self.measure.endswith("_dbfs"):
            return np.array([math.nan if value is None else value / 20 * math.log2(10) for value in measured])
        return np.array([math.log2(value) if value and value > 0 else math.nan for value in measured])


def builtin_attributes() -> list[Attribute]:
    """Return the attributes that ship with the package, by name."""
    folder = Path(str(files("audiobert.auditorybench.tasks"))) / "attributes"
    return [Attribute.load(path) for path in sorted(folder.glob("*.yaml"))]


def measurement_of_kind(logarithms: np.ndarray) -> float | None:
    """Return the measurement of a kind of sound as a binary logarithm: that of the mean over its clips.

    The mean is taken in the attribute's unit, as the benchmark's pitch is an average in Hz (section II-A).

    Parameters
    ----------
    logarithms
        `(clips,)` binary logarithms of the clips' measurements, NaN where there is none. Where more than half have
        none, the kind has none.
    """
    if np.isfinite(logarithms).mean() < 0.5:
        return None
    return float(np.log2(np.nanmean(2.0**logarithms)))
