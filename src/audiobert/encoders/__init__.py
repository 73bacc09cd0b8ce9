"""Encode a clip's features to one vector per clip. One file per family, found by a registry.

Worker processes import the families for their features alone, so that this package imports torch only on first use of
a name below.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audiobert.encoders.encoder import AudioEncoder, Pooling, load_audio_encoder
    from audiobert.encoders.tower import AudioTower, AudioTowerConfig

__all__ = ["AudioEncoder", "AudioTower", "AudioTowerConfig", "Pooling", "load_audio_encoder"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'audiobert.encoders' has no attribute {name!r}")
    home = "tower" if name.startswith("AudioTower") else "encoder"
    return getattr(import_module(f"audiobert.encoders.{home}"), name)
