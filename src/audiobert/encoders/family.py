"""Register encoder families, keyed by the class name of the family's transformers feature extractor.

A family is one class in one file of this package: it extracts the features and runs the model on them. Features are
extracted in worker processes, so a family is a small frozen dataclass, and its file imports torch inside functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np

from audiobert import encoders
from audiobert.errors import InputError
from audiobert.features import FeatureMaker

if TYPE_CHECKING:
    from torch import Tensor


class EncoderFamily(FeatureMaker, Protocol):
    """One family of published audio encoders: its features, and its forward pass on them."""

    @classmethod
    def of(cls, extractor: Any, name: str) -> Self:
        """Return the family with the settings of a transformers feature extractor; `name` is the model's."""
        ...

    def encode(self, model: Any, clips: Sequence[np.ndarray]) -> list[Tensor]:
        """Run a transformers model on the features of clips, with gradients.

        Returns
        -------
        list of Tensor
            Hidden states `(positions, hidden_size)` per clip, at the positions that stand for the clip. They do not
            depend on the other clips.
        """
        ...


Family = TypeVar("Family", bound=EncoderFamily)
_FAMILIES: dict[str, type[EncoderFamily]] = {}


def register(*extractors: str) -> Callable[[type[Family]], type[Family]]:
    """Register a family under the class names of its feature extractors."""

    def add(family: type[Family]) -> type[Family]:
        _FAMILIES.update(dict.fromkeys(extractors, family))
        return family

    return add


def find_family(extractor: Any, name: str) -> EncoderFamily:
    """Return the family of a transformers feature extractor, with the extractor's settings; `name` is the model's.

    InputError if no family is registered for it, or the family does not support its settings.
    """
    for module in iter_modules(encoders.__path__):
        import_module(f"{encoders.__name__}.{module.name}")
    kind = type(extractor).__name__
    if kind not in _FAMILIES:
        raise InputError(
            f"{name} has the feature extractor {kind}; give as audio_encoder a model that has one of"
            f" {', '.join(sorted(_FAMILIES))}"
        )
    return _FAMILIES[kind].of(extractor, name)


@dataclass(frozen=True)
class ExtractorFeatures:
    """Base of features that a transformers feature extractor computes; `config` holds its settings as JSON.

    The extractor itself is made on first use, in the process that uses it.
    """

    config: str
    rate_hz: int
    seconds: float

    @classmethod
    def of(cls, extractor: Any, name: str) -> Self:  # noqa: ARG003
        """Return the features of a feature extractor."""
        settings = {
            key: value for key, value in extractor.to_dict().items() if not key.startswith(("mel_filters", "window"))
        }
        return cls(json.dumps(settings, sort_keys=True), int(extractor.sampling_rate), cls.max_seconds(extractor))

    @staticmethod
    def max_seconds(extractor: Any) -> float:
        """Return the seconds of a clip that the model uses."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the settings for a record, ready for JSON."""
        return json.loads(self.config)

    @property
    def extractor(self) -> Any:
        """The feature extractor."""
        return _make_extractor(self.config)

    def extract(self, waveform: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return the part of a waveform that the model uses, `(samples,)`, and the extractor's output for it."""
        used = waveform[: round(self.seconds * self.rate_hz)]
        return used, self.extractor(used, sampling_rate=self.rate_hz, return_tensors="np")


@cache
def _make_extractor(config: str) -> Any:
    import transformers

    settings = json.loads(config)
    return getattr(transformers, settings.pop("feature_extractor_type"))(**settings)
