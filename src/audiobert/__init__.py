"""AudioBERT: a language model that knows what the world sounds like.

>>> from audiobert import AudioBert                              # doctest: +SKIP
>>> model = AudioBert.from_pretrained("mini")                    # doctest: +SKIP
>>> model.fill_mask("Meow is the sound a [MASK] makes.")         # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiobert.bank import AudioBank
    from audiobert.errors import AudioBertError
    from audiobert.pipeline import AudioBert

try:
    __version__ = version("audiobert")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

# Loaded on first use, so that `import audiobert` (and every `--help`) does not wait for torch.
_HOMES = {"AudioBank": "audiobert.bank", "AudioBert": "audiobert.pipeline", "AudioBertError": "audiobert.errors"}

__all__ = ["AudioBank", "AudioBert", "AudioBertError", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'audiobert' has no attribute {name!r}")
