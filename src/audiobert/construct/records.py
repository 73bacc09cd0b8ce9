"""Define the records that the steps exchange, each kind with a schema, as JSONL or Parquet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from audiobert.artefacts import whole_file
from audiobert.errors import InputError
from audiobert.table_files import read_values

MASK = "[MASK]"
CANNOT_SAY = "0"  # the category of a clip whose text does not name the sound


class Record(BaseModel):
    """Base of all records: an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Credited(Record):
    """A record that says where it is from."""

    source: str = ""
    license: str = ""
    author: str = ""
    url: str = ""

    def credits(self) -> dict[str, str]:
        """Return source, licence, author and address by field."""
        return {name: getattr(self, name) for name in Credited.model_fields}


class SourceClip(Credited):
    """A clip of the collection with the text that came with it.

    `path` is relative to the root of the collection; a member of a tar shard is written `shard.tar::member.flac`.
    """

    id: str
    path: str
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()


class CategorizedClip(SourceClip):
    """A clip with its place in the hierarchy: `animal/dog/pomeranian`, or `0` for "cannot say"."""

    category: str


class AnimalRow(Credited):
    """A question of animal sound recognition; the clip's fields are empty in the Wikipedia set."""

    id: str
    sentence: str
    answer: str
    span: str
    category: str = ""
    clip_id: str = ""


class PitchRow(Credited):
    """A question of sound pitch comparison: is `span1` higher or lower than `span2`? Pitches in Hz."""

    id: str
    sentence: str
    answer: str
    span1: str
    span2: str
    pitch1_hz: float
    pitch2_hz: float
    group: str = ""
    clip1_id: str = ""
    clip2_id: str = ""


class Rejected(Record):
    """An item that was left out, by which step, and why; `answer` is the language model's output, if it was asked."""

    step: str
    item: str
    reason: str
    detail: str = ""
    answer: str = ""


AnyRecord = TypeVar("AnyRecord", bound=Record)


def validation_message(error: ValidationError) -> str:
    """Return a pydantic error as one line that names the fields but quotes no value (it may be a secret)."""
    parts = [f"{'.'.join(map(str, one['loc'])) or 'value'}: {one['msg']}" for one in error.errors(include_input=False)]
    return "; ".join(parts)


def read_records(path: str | Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Read records of one kind from a `.jsonl` or `.parquet` file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; run the step that writes it first")
    if path.suffix not in (".parquet", ".jsonl"):
        raise InputError(f"{path} is neither .jsonl nor .parquet; name the file after one of them")
    records: list[AnyRecord] = []
    try:
        for values in read_values(path):
            records.append(kind.model_validate(values))
    except ValidationError as error:
        raise InputError(
            f"{path}, record {len(records) + 1}, is no {kind.__name__} ({validation_message(error)}); correct it or "
            "make the file again"
        ) from None
    return records


def write_records(path: str | Path, records: Sequence[AnyRecord], kind: type[AnyRecord]) -> None:
    """Write records of one kind as `.jsonl` or `.parquet`; the same records make the same bytes."""
    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as parquet

        rows = [record.model_dump(mode="json") for record in records]
        table = pa.Table.from_pylist(rows, schema=arrow_schema(kind))
        with whole_file(path) as part:
            parquet.write_table(table, part, compression="zstd")
    elif path.suffix == ".jsonl":
        with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            for record in records:
                file.write(json.dumps(record.model_dump(mode="json"), ensure_ascii=False) + "\n")
    else:
        raise InputError(f"{path} is neither .jsonl nor .parquet; name the file after one of them")


def arrow_schema(kind: type[Record]) -> Any:
    """Return the Arrow schema of a kind of record, so that an empty file has its columns too."""
    import pyarrow as pa

    types = {str: pa.string(), float: pa.float64(), tuple[str, ...]: pa.list_(pa.string())}
    return pa.schema([(name, types[field.annotation]) for name, field in kind.model_fields.items()])  # type: ignore[index]
