"""Turn a recording that a user gives into a clip: decoded, measured and encoded when it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiobert.answers import Hit
from audiobert.audio import Attributes
from audiobert.bank import Clip
from audiobert.bank.decode import DecodeSettings, decode_clip
from audiobert.bank.sources import Entry
from audiobert.clip_encoder import ModelClipEncoder
from audiobert.errors import InputError


def encode_recording(encoder: ModelClipEncoder, file: str | Path) -> tuple[Hit, Any, Attributes]:
    """Return a recording as a hit of score 1, its CLAP vector `(1, clap_dim)`, and its measured attributes."""
    path = Path(file)
    decoded = decode_clip(Entry(id=path.name, given={}, file=path), DecodeSettings(encoder.makers))
    if decoded.problem or decoded.features is None or decoded.attributes is None:
        reason, detail = decoded.problem or ("undecodable", "it cannot be decoded")
        where = "" if str(path) in detail else f"{path}: "
        raise InputError(f"{where}{detail} ({reason}); give a recording as WAV, FLAC, Ogg, MP3 or AIFF")
    clap, knowledge = encoder.encode([decoded.features], [decoded.attributes])
    clip = Clip.from_row({"id": path.name, "path": str(path), "title": path.stem, **(decoded.measured or {})})
    return Hit(clip, 1.0, -1, knowledge[0]), clap, decoded.attributes
