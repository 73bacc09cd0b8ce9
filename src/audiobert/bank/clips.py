"""Hold a clip's metadata, and the columns of the table on disk that stores it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

from audiobert.audio import Attributes
from audiobert.table_files import list_in, text_of

# Decimals kept: a hundredth of a hertz or a decibel, a millisecond.
_DECIMALS = {"duration_s": 3, "voiced_ratio": 4, "spectral_flatness": 6}


@dataclass(frozen=True)
class Clip:
    """One recording of a bank with its metadata; what is not known is None.

    `path` is where the audio lies, or None when the bank was built or shipped without it; `extra` is whatever else the
    source said.
    """

    id: str
    path: str | None = None
    caption: str | None = None
    label: str | None = None
    title: str | None = None
    description: str | None = None
    author: str | None = None
    license: str | None = None
    url: str | None = None
    source: str | None = None
    tags: list[str] = field(default_factory=list)
    duration_s: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    pitch_hz: float | None = None
    pitch_mean_hz: float | None = None
    voiced_ratio: float | None = None
    loudness_dbfs: float | None = None
    peak_dbfs: float | None = None
    spectral_centroid_hz: float | None = None
    spectral_flatness: float | None = None
    content_sha256: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Clip:
        """Return the clip of a table row; columns that this version does not know are left out."""
        known = {name: row[name] for name in SCHEMA.names if row.get(name) is not None}
        known["extra"] = json.loads(known.get("extra") or "{}")
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """Return all that is known of the clip as a plain dictionary."""
        return asdict(self)


# The columns of the table on disk are the fields of a clip; `extra` is a JSON object.
_ARROW_TYPES = {
    "str": pa.string(),
    "str | None": pa.string(),
    "int | None": pa.int32(),
    "float | None": pa.float64(),
    "list[str]": pa.list_(pa.string()),
    "dict[str, Any]": pa.string(),
}
SCHEMA = pa.schema([pa.field(one.name, _ARROW_TYPES[str(one.type)], nullable=one.name != "id") for one in fields(Clip)])
# Text columns that a source may give. Other columns of a manifest are kept in `extra`.
TEXT_COLUMNS = tuple(SCHEMA.names[1 : SCHEMA.names.index("tags")])
MEASURED_COLUMNS = tuple(SCHEMA.names[SCHEMA.names.index("duration_s") : SCHEMA.names.index("extra")])


def given_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Order a source's row into the columns of the table; whatever has no column of its own goes to `extra`.

    Columns that are measured (`duration_s`, `pitch_hz`, ...) are measured again and not taken over, except those that
    say something else than the measurement does; these are no columns of the table. Of several captions the first is
    taken, and the others go to `extra` as `more_captions`.
    """
    given: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in row.items():
        if name == "id" or not (isinstance(value, list | dict) or text_of(value)):
            continue
        if name == "caption" and isinstance(value, list):
            captions = [text for one in value if (text := text_of(one))]
            given[name] = captions[0] if captions else None
            extra.update({"more_captions": captions[1:]} if captions[1:] else {})
        elif name in TEXT_COLUMNS:
            given[name] = text_of(value)
        elif name == "tags":
            given[name] = _tags(value)
        elif name == "extra" and isinstance(value, Mapping):
            extra.update(value)
        elif name not in MEASURED_COLUMNS:
            extra[name] = value
    given["extra"] = json.dumps(extra, ensure_ascii=False, sort_keys=True, default=str) if extra else None
    return given


def _tags(value: Any) -> list[str]:
    if isinstance(value, str):
        listed = list_in(value)
        value = value.split(",") if listed is None else listed
    elif not isinstance(value, list | tuple):
        value = [value]
    return [text for tag in value if (text := text_of(tag).strip())]


def measured_columns(
    attributes: Attributes, *, sample_rate_hz: int, channels: int, content_sha256: str
) -> dict[str, Any]:
    """Return the measurements of a clip as columns of the table, rounded to `_DECIMALS`."""
    columns: dict[str, Any] = {}
    for name, value in asdict(attributes).items():
        columns[name] = None if value is None else round(float(value), _DECIMALS.get(name, 2))
    return {**columns, "sample_rate_hz": sample_rate_hz, "channels": channels, "content_sha256": content_sha256}
