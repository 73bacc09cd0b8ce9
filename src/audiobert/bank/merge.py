"""Merge banks, and export one to the formats that other tools read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from audiobert.artefacts import check_folder, is_vacant, whole_file, whole_folder
from audiobert.bank.audio_bank import AudioBank, check_sound
from audiobert.bank.batches import batched
from audiobert.bank.build import add_index
from audiobert.bank.clips import SCHEMA
from audiobert.bank.identity import check_identity
from audiobert.bank.store import REJECTED, NameVectors, write_bank
from audiobert.errors import InputError, needs

_ROWS_PER_GROUP = 8_192


def merge_banks(folders: Sequence[str | Path], out: str | Path, *, index: bool | None = None) -> AudioBank:
    """Merge banks that were made by the same models with the same settings.

    Clips come in the order of the banks. A clip whose content an earlier bank holds is left out and listed as rejected;
    one whose id an earlier bank uses for other content gets its content's hash added to the id.

    Raises
    ------
    InputError
        When fewer than two banks are given, their settings differ, or `out` is in use.
    ArtefactError
        When a bank is damaged, or was made by other models than the first.
    """
    if len(folders) < 2:
        raise InputError(f"{len(folders)} bank was given; give at least two to merge")
    real = check_folder(out, sources=folders)
    if not is_vacant(real):
        raise InputError(f"{out} exists; give a folder that does not")
    banks = [AudioBank.open(folder) for folder in folders]
    for folder in folders:
        check_sound(folder)
    for bank in banks[1:]:
        check_identity(bank, banks[0].identity)
        if bank.manifest.get("settings") != banks[0].manifest.get("settings"):
            raise InputError(f"{bank.folder} and {banks[0].folder} were built with different settings; build one again")
        if len(without := [one for one in (banks[0], bank) if one.name_vectors is None]) == 1:
            raise InputError(
                f"{without[0].folder} has no name vectors, another bank has; add them by 'bank build --resume'"
            )
    kept, duplicates = _sort_out(banks)
    roots = {bank.manifest.get("audio_root") for bank in banks}
    manifest = {
        "source": [bank.manifest.get("source") for bank in banks],
        "audio_root": roots.pop() if len(roots) == 1 else None,
        "identity": banks[0].identity,
        "settings": banks[0].manifest.get("settings"),
    }
    with whole_folder(real, sources=folders) as part:
        content = write_bank(
            part,
            clips=sum(len(ids) for ids in kept),
            rows=_rows(banks, kept, absolute=manifest["audio_root"] is None),
            rejected=[*_rejected(banks), *duplicates],
            clap_dim=banks[0].clap_vectors.shape[1],
            hidden_size=banks[0].knowledge_vectors.shape[1],
            manifest=manifest,
            text_dim=0 if banks[0].name_vectors is None else banks[0].name_vectors.shape[1],
            name_vectors=None if banks[0].name_vectors is None else _name_vectors(banks),
        )
        add_index(part, content, index)
    return AudioBank.open(out)


def _sort_out(banks: Sequence[AudioBank]) -> tuple[list[dict[int, str]], list[dict[str, Any]]]:
    """Return, per bank, the rows to keep with their id in the merged bank, and what is a duplicate."""
    by_content: dict[bytes, str] = {}
    ids: set[str] = set()
    kept: list[dict[int, str]] = []
    duplicates: list[dict[str, Any]] = []
    for bank in banks:
        columns = bank.table.select(["id", "path", "content_sha256"])
        rows: dict[int, str] = {}
        for index, row in enumerate(row for batch in columns.to_batches() for row in batch.to_pylist()):
            content = bytes.fromhex(row["content_sha256"])
            if content in by_content:
                detail = f"same content as {by_content[content]}"
                duplicates.append({"id": row["id"], "path": row["path"], "reason": "duplicate", "detail": detail})
                continue
            name = row["id"] if row["id"] not in ids else f"{row['id']}#{row['content_sha256'][:8]}"
            by_content[content] = name
            ids.add(name)
            rows[index] = name
        kept.append(rows)
    return kept, duplicates


def _rows(
    banks: Sequence[AudioBank], kept: Sequence[dict[int, str]], *, absolute: bool
) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    for bank, ids in zip(banks, kept, strict=True):
        root = bank.manifest.get("audio_root") if absolute else None
        for index, row in enumerate(bank.rows()):
            if index in ids:
                path = str(Path(root) / row["path"]) if root and row["path"] else row["path"]
                row |= {"id": ids[index], "path": path}
                yield row, bank.clap_vectors[index], bank.knowledge_vectors[index]


def _name_vectors(banks: Sequence[AudioBank]) -> NameVectors:
    """Return the function that takes the vectors of names from the first bank that has each."""
    known = [pa.array(bank.names, pa.large_string()) for bank in banks]

    def vectors_of(texts: list[str]) -> np.ndarray:
        wanted = pa.array(texts, pa.large_string())
        assert banks[0].name_vectors is not None
        vectors = np.empty((len(texts), banks[0].name_vectors.shape[1]), np.float16)
        for bank, names in reversed(list(zip(banks, known, strict=True))):
            rows = pc.index_in(wanted, names).fill_null(-1).to_numpy()
            vectors[rows >= 0] = bank.name_vectors[rows[rows >= 0]]  # type: ignore[index]
        return vectors

    return vectors_of


def _rejected(banks: Sequence[AudioBank]) -> Iterator[dict[str, Any]]:
    for bank in banks:
        with (bank.folder / REJECTED).open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def export_bank(folder: str | Path, out: str | Path, *, to: Literal["parquet", "datasets"] = "parquet") -> Path:
    """Write a bank's metadata, CLAP vectors and knowledge vectors (float32) for other tools.

    `out` is a `.parquet` file, or the folder of a dataset that `datasets.load_from_disk` opens.
    """
    bank, out = AudioBank.open(folder), Path(out)
    if to not in ("parquet", "datasets"):
        raise InputError(f"the format {to!r} is unknown; give parquet or datasets")
    if out.exists():
        raise InputError(f"{out} exists; give a name that does not")
    if to == "parquet":
        with whole_file(out) as part:
            _write_parquet(bank, part)
        return out
    with needs("datasets", "scale"):
        import datasets
    with whole_folder(out) as part, TemporaryDirectory(dir=part.parent, prefix=".audiobert-") as temporary:
        parquet = Path(temporary) / "clips.parquet"
        _write_parquet(bank, parquet)
        datasets.Dataset.from_parquet(str(parquet), cache_dir=temporary).save_to_disk(str(part))
    return out


def _write_parquet(bank: AudioBank, path: Path) -> None:
    matrices = {"clap_vector": bank.clap_vectors, "knowledge_vector": bank.knowledge_vectors}
    schema = SCHEMA
    for name, vectors in matrices.items():
        schema = schema.append(pa.field(name, pa.list_(pa.float32(), vectors.shape[1])))
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for number, rows in enumerate(batched(bank.rows(), _ROWS_PER_GROUP)):
            columns = pa.RecordBatch.from_pylist(rows, schema=SCHEMA).columns
            for vectors in matrices.values():
                block = vectors[number * _ROWS_PER_GROUP :][: len(rows)].astype(np.float32)
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1]))
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
