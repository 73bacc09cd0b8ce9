"""Write and read a bank's folder: the clip table, the vectors, what was rejected, a manifest with checksums.

bank.json            identity of the models, settings, counts, licences, SHA-256 of the other files
clips.arrow          one row per clip (Arrow IPC, memory-mapped)
vectors.safetensors  float16, memory-mapped: clap_vectors (clips, clap_dim), knowledge_vectors (clips, hidden_size) and,
                     if the bank has them, name_vectors (distinct names, text_dim)
rejected.jsonl       what the source offered and the bank does not hold, with the reason
index.faiss          only in large banks: the approximate index over the CLAP vectors
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from audiobert.artefacts import finish_write, provenance, read_json, sha256_of, write_json
from audiobert.bank.batches import batched
from audiobert.bank.clips import SCHEMA
from audiobert.bank.licences import terms_of
from audiobert.bank.names import clip_names
from audiobert.errors import ArtefactError

FORMAT = "audiobert-bank"
FORMAT_VERSION = 1
MANIFEST, CLIPS, VECTORS = "bank.json", "clips.arrow", "vectors.safetensors"
REJECTED, INDEX = "rejected.jsonl", "index.faiss"
BANK_FILES = {MANIFEST, CLIPS, VECTORS, REJECTED, INDEX}
CLAP_VECTORS, KNOWLEDGE_VECTORS, NAME_VECTORS = "clap_vectors", "knowledge_vectors", "name_vectors"
_ROWS_PER_BATCH = 4096
_HEADER_BYTES = 1024  # of a file of vectors; written last, when the number of names is known

NameVectors = Callable[[list[str]], np.ndarray]
"""Given names, return their vectors, `(names, text_dim)` of unit norm."""


def is_bank(folder: Path) -> bool:
    """Tell whether the folder holds a bank's manifest."""
    return (folder / MANIFEST).is_file()


def bank_files(folder: Path) -> set[str]:
    """Return the names of the files that make up the bank in a folder, of any format version; none if it is no bank."""
    with suppress(ArtefactError):
        manifest = read_json(folder / MANIFEST)
        if isinstance(manifest, dict) and manifest.get("format") == FORMAT:
            return {MANIFEST, *manifest.get("files", {})} & BANK_FILES
    return set()


# ----------------------------------------------------------------------------------------------------------- vectors


class _VectorsWriter:
    """Writer of float16 matrices into one safetensors file, block by block."""

    def __init__(self, file: BinaryIO, shapes: dict[str, tuple[int, int]]) -> None:
        self._file = file
        self._header: dict[str, dict[str, Any]] = {}
        start = 0
        for name, (rows, width) in shapes.items():
            self._header[name] = {"dtype": "F16", "shape": [0, width], "data_offsets": [start, start]}
            start += 2 * rows * width

    def append(self, name: str, block: np.ndarray) -> None:
        """Write the next rows of a matrix."""
        entry = self._header[name]
        self._file.seek(_HEADER_BYTES + entry["data_offsets"][1])
        entry["data_offsets"][1] += self._file.write(np.ascontiguousarray(block, "<f2").tobytes())
        entry["shape"][0] += len(block)

    def write_header(self) -> None:
        """Write what the matrices are, in front of them."""
        text = json.dumps(self._header).encode().ljust(_HEADER_BYTES - 8)
        self._file.seek(0)
        self._file.write(struct.pack("<Q", len(text)) + text)


@contextmanager
def vectors_writer(path: Path, shapes: dict[str, tuple[int, int]]) -> Iterator[_VectorsWriter]:
    """Open a safetensors file to write float16 matrices to; the last one may get more rows than its shape says."""
    with path.open("wb") as file:
        writer = _VectorsWriter(file, shapes)
        yield writer
        writer.write_header()


def open_vectors(path: Path) -> dict[str, np.ndarray]:
    """Map the float16 matrices of a safetensors file into memory; nothing is read until it is used."""
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
        return {name: _mapped(path, 8 + length, entry) for name, entry in tensors.items()}
    except FileNotFoundError:
        raise ArtefactError(f"{path} does not exist; restore it or build the bank again") from None
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ArtefactError(f"{path} is damaged ({error}); restore it or build the bank again") from None


def _mapped(path: Path, start: int, entry: dict[str, Any]) -> np.ndarray:
    if 0 in entry["shape"]:
        return np.zeros(entry["shape"], np.float16)  # an empty part of a file cannot be mapped
    # Copy-on-write: the file is never changed, and libraries that want writable arrays take it.
    return np.memmap(path, np.float16, "c", start + entry["data_offsets"][0], tuple(entry["shape"]))


# ------------------------------------------------------------------------------------------------------------- clips


class ClipTable:
    """The clip table of a bank, memory-mapped; a row is read when it is used."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if "id" not in self._reader.schema.names:
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
        """Return one row as a dictionary."""
        batch = self._reader.get_batch(index // self._rows_per_batch)
        return batch.slice(index % self._rows_per_batch, 1).to_pylist()[0]

    def table(self) -> pa.Table:
        """Return the whole table, still memory-mapped."""
        return self._reader.read_all()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, in batches."""
        for number in range(self._batches):
            yield self._reader.get_batch(number)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows in order, with one batch in memory at a time."""
        for batch in self.batches():
            yield from batch.to_pylist()


# ---------------------------------------------------------------------------------------------------------- the whole


def write_bank(
    part: Path,
    *,
    clips: int,
    rows: Iterable[tuple[dict[str, Any], np.ndarray, np.ndarray]],
    rejected: Iterable[dict[str, Any]],
    clap_dim: int,
    hidden_size: int,
    manifest: dict[str, Any],
    text_dim: int = 0,
    name_vectors: NameVectors | None = None,
) -> dict[str, Any]:
    """Write a bank's files into the folder `part` and return its manifest, of which `manifest` is a part.

    `rows` are table row, CLAP vector and knowledge vector of each clip. Without `name_vectors` none are stored.
    """
    licenses: Counter[str] = Counter()
    seconds = 0.0
    shapes = {CLAP_VECTORS: (clips, clap_dim), KNOWLEDGE_VECTORS: (clips, hidden_size)}
    if name_vectors:
        shapes[NAME_VECTORS] = (0, text_dim)
    with vectors_writer(part / VECTORS, shapes) as vectors:
        with pa.OSFile(str(part / CLIPS), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as table:
            for batch in batched(rows, _ROWS_PER_BATCH):
                some, clap, knowledge = zip(*batch, strict=True)
                table.write_batch(pa.RecordBatch.from_pylist(list(some), schema=SCHEMA))
                vectors.append(CLAP_VECTORS, np.stack(clap))
                vectors.append(KNOWLEDGE_VECTORS, np.stack(knowledge))
                licenses.update(row.get("license") or "" for row in some)
                seconds += sum(row.get("duration_s") or 0.0 for row in some)
        names = _write_names(part, vectors, name_vectors) if name_vectors else None
    reasons: Counter[str] = Counter()
    with (part / REJECTED).open("w", encoding="utf-8") as file:
        for one in rejected:
            reasons[one["reason"]] += 1
            file.write(json.dumps(one, ensure_ascii=False) + "\n")
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "clips": clips,
        "seconds": round(seconds, 3),
        "clap_dim": clap_dim,
        "hidden_size": hidden_size,
        **({} if names is None else {"text_dim": text_dim, "names": names}),
        **manifest,
        "licenses": license_summary(licenses),
        "rejected": dict(sorted(reasons.items())),
        "files": {name: file_entry(part / name) for name in (CLIPS, VECTORS, REJECTED)},
        **provenance(),
    }
    write_manifest(part, content)
    return content


def _write_names(part: Path, vectors: _VectorsWriter, name_vectors: NameVectors) -> int:
    """Write the vectors of the names that occur in the clip table; return their number."""
    texts = clip_names(ClipTable(part / CLIPS).batches()).texts
    for start in range(0, len(texts), _ROWS_PER_BATCH):
        vectors.append(NAME_VECTORS, name_vectors(texts[start : start + _ROWS_PER_BATCH]))
    return len(texts)


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """Compute the SHA-256 of a manifest's content without the checksum that it carries itself."""
    rest = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a bank's manifest with its checksum; the file appears whole or not at all."""
    manifest["checksum"] = manifest_checksum(manifest)
    write_json(folder / MANIFEST, manifest)


def file_entry(path: Path) -> dict[str, Any]:
    """Return size and checksum of a file, as the manifest keeps it."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def license_summary(licenses: Counter[str]) -> dict[str, Any]:
    """Count clips by licence; tell whether all of them may be redistributed (None: some licence does not say)."""
    by_name: dict[str, dict[str, Any]] = {}
    for given, count in sorted(licenses.items(), key=lambda item: (-item[1], item[0])):
        terms = asdict(terms_of(given))
        entry = by_name.setdefault(terms.pop("name"), {"clips": 0, **terms})
        entry["clips"] += count
    return {"by_license": by_name, **{may: _all(by_name.values(), may) for may in ("redistributable", "commercial")}}


def _all(entries: Iterable[dict[str, Any]], may: str) -> bool | None:
    answers = {entry[may] for entry in entries}
    return False if False in answers else None if None in answers else True


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a bank."""
    finish_write(folder)
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
