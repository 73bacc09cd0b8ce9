"""A bank on disk: a folder with the clip table, the vectors, what was rejected, and a manifest with checksums.

bank.json            identity of the models, settings, counts, licences, SHA-256 of the other files
clips.arrow          one row a clip (Arrow IPC, memory-mapped)
vectors.safetensors  clap_vectors (clips, clap_dim) and knowledge_vectors (clips, hidden_size), float16, memory-mapped
rejected.jsonl       what the source offered and the bank does not hold, with the reason
index.faiss          only in large banks: the approximate index over the CLAP vectors
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from audiobert.artefacts import provenance, read_json, sha256_of, write_json
from audiobert.bank.batches import batched
from audiobert.bank.clips import SCHEMA
from audiobert.bank.licences import terms_of
from audiobert.errors import ArtefactError

FORMAT = "audiobert-bank"
FORMAT_VERSION = 1
MANIFEST, CLIPS, VECTORS, REJECTED, INDEX = (
    "bank.json",
    "clips.arrow",
    "vectors.safetensors",
    "rejected.jsonl",
    "index.faiss",
)
_ROWS_PER_BATCH = 4096


def is_bank(folder: Path) -> bool:
    """Whether the folder holds a bank's manifest."""
    return (folder / MANIFEST).is_file()


# ----------------------------------------------------------------------------------------------------------- vectors


@contextmanager
def vectors_writer(path: Path, shapes: dict[str, tuple[int, int]]) -> Iterator[dict[str, np.memmap]]:
    """Lay out a safetensors file of float16 matrices and yield them memory-mapped, to be filled row by row."""
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * shape[0] * shape[1]
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    maps = _mapped(path, header, 8 + len(text), "r+")
    try:
        yield maps
    finally:
        for one in maps.values():
            one.flush()


def _mapped(path: Path, header: dict[str, Any], start: int, mode: Any) -> dict[str, np.memmap]:
    return {
        name: np.memmap(path, np.float16, mode, start + entry["data_offsets"][0], tuple(entry["shape"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }


def open_vectors(path: Path) -> dict[str, np.memmap]:
    """Map the matrices of a safetensors file; nothing is read until it is used.

    Raises
    ------
    ArtefactError
        When the file is missing, shorter than its header says, or holds something else than float16 matrices.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, 1 << 20):
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        for name, entry in tensors.items():
            start, end = entry["data_offsets"]
            rows, width = entry["shape"]
            if entry["dtype"] != "F16" or end - start != 2 * rows * width:
                raise ValueError(f"{name} is no float16 matrix")
            if 8 + length + end > size:
                raise ValueError(f"it has {size} bytes and should have {8 + length + end}")
        # Copy-on-write: the file is never changed, and libraries that want writable arrays take it.
        return _mapped(path, tensors, 8 + length, "c")
    except FileNotFoundError:
        raise ArtefactError(f"{path} does not exist; restore it or build the bank again") from None
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ArtefactError(f"{path} is damaged ({error}); restore it or build the bank again") from None


# ------------------------------------------------------------------------------------------------------------- clips


def write_clips(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write the clip table in batches, so that memory does not grow with the bank."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for batch in batched(rows, _ROWS_PER_BATCH):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))


class ClipTable:
    """The clip table of a bank, memory-mapped; a row is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
            missing = {"id"} - set(self._reader.schema.names)
            if missing:
                raise ValueError("it has no column 'id'")
            # Batches are full except the last, so that a row's place is known without reading any.
            self._batches = self._reader.num_record_batches
            last = self._reader.get_batch(self._batches - 1).num_rows if self._batches else 0
            self._rows_per_batch = self._reader.get_batch(0).num_rows if self._batches else 1
            self._length = self._rows_per_batch * (self._batches - 1) + last if self._batches else 0
        except FileNotFoundError:
            raise ArtefactError(f"{path} does not exist; restore it or build the bank again") from None
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            raise ArtefactError(f"{path} is damaged ({error}); restore it or build the bank again") from None

    def __len__(self) -> int:
        return self._length

    def row(self, index: int) -> dict[str, Any]:
        """One row as a dictionary."""
        batch = self._reader.get_batch(index // self._rows_per_batch)
        return batch.slice(index % self._rows_per_batch, 1).to_pylist()[0]

    def table(self) -> pa.Table:
        """The whole table, still memory-mapped."""
        return self._reader.read_all()

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows in order, a batch in memory at a time."""
        for number in range(self._batches):
            yield from self._reader.get_batch(number).to_pylist()


# ---------------------------------------------------------------------------------------------------------- the whole


def write_rejected(path: Path, rejected: Iterable[dict[str, Any]]) -> Counter[str]:
    """Write what was rejected, a JSON object a line, and count it by reason."""
    reasons: Counter[str] = Counter()
    with path.open("w", encoding="utf-8") as file:
        for one in rejected:
            reasons[one["reason"]] += 1
            file.write(json.dumps(one, ensure_ascii=False) + "\n")
    return reasons


def write_bank(
    part: Path,
    *,
    clips: int,
    rows: Iterable[tuple[dict[str, Any], np.ndarray, np.ndarray]],
    rejected: Iterable[dict[str, Any]],
    clap_dim: int,
    hidden_size: int,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Write a bank's files into the folder `part` and return its manifest.

    Parameters
    ----------
    part
        An empty folder.
    clips
        How many rows there will be.
    rows
        Table row, CLAP vector and knowledge vector of each clip.
    rejected
        What the source offered and the bank does not hold.
    clap_dim, hidden_size
        Widths of the vectors.
    manifest
        What else the manifest says: identity, settings, source.
    """
    licenses: Counter[str] = Counter()
    seconds = 0.0
    shapes = {"clap_vectors": (clips, clap_dim), "knowledge_vectors": (clips, hidden_size)}
    with vectors_writer(part / VECTORS, shapes) as vectors:

        def table_rows() -> Iterator[dict[str, Any]]:
            nonlocal seconds
            for index, (row, clap_vector, knowledge_vector) in enumerate(rows):
                vectors["clap_vectors"][index] = clap_vector
                vectors["knowledge_vectors"][index] = knowledge_vector
                licenses[row.get("license") or ""] += 1
                seconds += row.get("duration_s") or 0.0
                yield row

        write_clips(part / CLIPS, table_rows())
    reasons = write_rejected(part / REJECTED, rejected)
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "clips": clips,
        "seconds": round(seconds, 3),
        "clap_dim": clap_dim,
        "hidden_size": hidden_size,
        **manifest,
        "licenses": license_summary(licenses),
        "rejected": dict(sorted(reasons.items())),
        "files": {name: file_entry(part / name) for name in (CLIPS, VECTORS, REJECTED)},
        **provenance(),
    }
    write_manifest(part, content)
    return content


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content without the checksum that it carries itself."""
    rest = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a bank's manifest with its checksum; the file appears whole or not at all."""
    manifest["checksum"] = manifest_checksum(manifest)
    write_json(folder / MANIFEST, manifest)


def file_entry(path: Path) -> dict[str, Any]:
    """Size and checksum of a file, as the manifest keeps it."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def license_summary(licenses: Counter[str]) -> dict[str, Any]:
    """Clips by licence, and whether all of them may be redistributed (None: some licence does not say)."""
    by_name: dict[str, dict[str, Any]] = {}
    for given, count in sorted(licenses.items(), key=lambda item: (-item[1], item[0])):
        terms = terms_of(given)
        entry = by_name.setdefault(
            terms.name, {"clips": 0, "redistributable": terms.redistributable, "commercial": terms.commercial}
        )
        entry["clips"] += count
    return {
        "by_license": by_name,
        "redistributable": _all([entry["redistributable"] for entry in by_name.values()]),
        "commercial": _all([entry["commercial"] for entry in by_name.values()]),
    }


def _all(answers: Sequence[bool | None]) -> bool | None:
    if any(answer is False for answer in answers):
        return False
    return None if any(answer is None for answer in answers) else True


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a bank.

    Raises
    ------
    ArtefactError
        When the folder is missing, holds no bank, or one of a format that this version does not read.
    """
    if not folder.is_dir():
        raise ArtefactError(f"{folder} is no folder; give a bank made by 'audiobert bank build'")
    if not is_bank(folder):
        raise ArtefactError(f"{folder} holds no {MANIFEST}; give a bank made by 'audiobert bank build'")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtefactError(f"{folder / MANIFEST} is no bank's manifest; give a bank made by 'audiobert bank build'")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ArtefactError(
            f"{folder} has the bank format {manifest.get('format_version')}, this version reads {FORMAT_VERSION}; "
            "build it again"
        )
    return manifest
