"""Where clips come from: a folder, a manifest, WebDataset shards, or a `datasets` dataset; read as a stream."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

from audiobert.bank.clips import given_columns
from audiobert.errors import InputError, MissingExtraError

AUDIO_EXTENSIONS = frozenset(
    f".{extension}"
    for extension in (
        *("wav", "wave", "rf64", "w64", "flac", "ogg", "oga", "opus"),
        *("mp3", "mp2", "mpga", "aif", "aiff", "aifc", "au", "snd", "caf", "voc"),
    )
)
MANIFEST_EXTENSIONS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
SHARD_EXTENSIONS = (".tar", ".tar.gz", ".tgz")
DATASETS_PREFIX = "datasets:"

Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One clip that a source offers.

    Attributes
    ----------
    id
        Its `id` column, else its path inside the source.
    given
        What the source says about it, as columns of the clip table.
    file
        Where the audio lies, or None.
    span
        Offset and length in `file`, for a clip inside a shard.
    content
        The audio itself, when it lies in no file of its own.
    problem
        Why it is no clip (reason, detail), when that is known before decoding.
    """

    id: str
    given: Row = field(default_factory=dict)
    file: Path | None = None
    span: tuple[int, int] | None = None
    content: bytes | None = None
    problem: tuple[str, str] | None = None

    def stamp(self) -> str | None:
        """Size and time of change of a file of its own: equal stamps mean that it was not touched. None if unknown."""
        if self.file is None or self.span is not None:
            return None
        try:
            status = self.file.stat()
        except OSError:
            return None
        return f"{status.st_size}:{status.st_mtime_ns}"

    def open(self) -> BinaryIO:
        """The audio as a seekable binary file."""
        if self.content is not None:
            return io.BytesIO(self.content)
        if self.file is None:
            raise FileNotFoundError(self.id)
        file = self.file.open("rb")
        if self.span is None:
            return file
        with file:
            file.seek(self.span[0])
            return io.BytesIO(file.read(self.span[1]))


@dataclass(frozen=True)
class Source:
    """A stream of entries that can be walked again from the start.

    Attributes
    ----------
    name
        As the user gave it.
    root
        Folder that the clips' paths are relative to; None when they are in no folder.
    total
        Number of entries, None when only walking tells.
    """

    name: str
    root: Path | None
    total: int | None
    _walk: Any

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._walk())

    def only(self, files: set[Path]) -> Source:
        """The entries that lie in these files."""
        return Source(self.name, self.root, len(files), lambda: (entry for entry in self if entry.file in files))


def open_source(source: Any) -> Source:
    """Open whatever a bank can be built from.

    Parameters
    ----------
    source
        A folder of sound files and `.tar` shards; a shard; a CSV, TSV, JSONL or Parquet manifest with a `path` column
        (relative to the manifest); a folder written by `datasets.Dataset.save_to_disk`; the text
        `datasets:NAME[?split=train&name=CONFIG&streaming=1]`; a `datasets` dataset; or a source that is open already.

    Raises
    ------
    InputError
        When there is no such source, or a manifest has no `path` column.
    """
    if isinstance(source, Source):
        return source
    if not isinstance(source, str | Path):
        return _dataset_source(source, "datasets")
    if str(source).startswith(DATASETS_PREFIX):
        return _dataset_source(_load_dataset(str(source)), str(source))
    path = Path(source)
    if path.is_dir():
        if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
            return _dataset_source(_load_saved(path), str(path))
        files = sorted(file for file in path.rglob("*") if not _hidden(file.relative_to(path)) and file.is_file())
        if not files:
            raise InputError(f"{path} is an empty folder; give a folder with sound files or a manifest")
        has_shards = any(_is_shard(file) for file in files)
        return Source(str(path), path, None if has_shards else len(files), lambda: _folder(path, files))
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a folder with sound files, a manifest, or .tar shards")
    if _is_shard(path):
        return Source(str(path), path.parent, None, lambda: _shard(path, path.parent))
    if path.suffix.lower() in MANIFEST_EXTENSIONS:
        _check_manifest(path)
        return Source(str(path), path.parent, _count_rows(path), lambda: _manifest(path))
    wanted = ", ".join(sorted(MANIFEST_EXTENSIONS))
    raise InputError(f"{path} is no folder, no .tar shard and no manifest ({wanted}); give one of these")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_shard(path: Path) -> bool:
    return path.name.lower().endswith(SHARD_EXTENSIONS)


def read_ids(path: Path) -> list[str]:
    """Ids from a text file, one a line; empty lines are skipped.

    Raises
    ------
    InputError
        When the file cannot be read as text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path} cannot be read ({reason}); give a text file with an id a line") from None


# ---------------------------------------------------------------------------------------------------------- folders


def _folder(root: Path, files: Iterable[Path]) -> Iterator[Entry]:
    for file in files:
        name = file.relative_to(root)
        if _is_shard(file):
            yield from _shard(file, root)
        elif file.suffix.lower() in AUDIO_EXTENSIONS:
            given = {"path": name.as_posix(), "title": file.stem, "label": name.parent.name or None}
            yield Entry(name.as_posix(), given_columns(given), file)
        else:
            detail = f"{name.as_posix()} has the extension '{file.suffix}', which is none of a sound file's"
            yield Entry(name.as_posix(), {"path": name.as_posix()}, file, problem=("extension", detail))


# --------------------------------------------------------------------------------------------------------- manifests


def _rows(path: Path) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    elif suffix in (".csv", ".tsv"):
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield from csv.DictReader(text, delimiter="\t" if suffix == ".tsv" else ",", restkey="_more")
    else:
        with path.open(encoding="utf-8") as text:
            for number, line in enumerate(text, start=1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except json.JSONDecodeError:
                        row = None
                    if not isinstance(row, dict):
                        raise InputError(f"line {number} of {path} is no JSON object; give one object a line")
                    yield row


def _check_manifest(path: Path) -> None:
    try:
        first = next(_rows(path), None)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a manifest ({error}); give CSV, JSONL or Parquet") from None
    if first is None:
        raise InputError(f"{path} has no rows; give a manifest with a row a clip")
    if "path" not in first:
        columns = ", ".join(str(column) for column in first)
        raise InputError(f"{path} has the columns {columns}; a manifest needs a column 'path'")


def _count_rows(path: Path) -> int:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet

        return int(pyarrow.parquet.read_metadata(path).num_rows)
    return sum(1 for _ in _rows(path))


def _manifest(path: Path) -> Iterator[Entry]:
    for number, row in enumerate(_rows(path), start=1):
        name = str(row.get("path") or "")
        identifier = str(row.get("id") or name) or f"row {number}"
        if not name:
            yield Entry(identifier, given_columns(row), problem=("missing", f"row {number} of {path.name} has no path"))
            continue
        yield Entry(identifier, given_columns(row), path.parent / name)


# ------------------------------------------------------------------------------------------------------------ shards

# Where the shards of LAION-Audio-630K and their kin keep what the clip table has a column for.
_ALIASES: dict[str, tuple[str, ...]] = {
    "title": ("title", "name"),
    "description": ("description",),
    "author": ("author", "username", "uploader"),
    "license": ("license", "licence"),
    "url": ("url", "href", "web_url", "page_url"),
    "source": ("source", "dataset"),
    "label": ("label", "class", "category"),
}


def _described(record: Mapping[str, Any]) -> Row:
    """Columns of the clip table out of a shard's JSON: `text`, `tag` and `original_data`."""
    original = record.get("original_data")
    details = {str(key).lower(): value for key, value in original.items()} if isinstance(original, Mapping) else {}
    top = {str(key).lower(): value for key, value in record.items()}
    row: Row = {}
    texts = top.get("text")
    texts = [texts] if isinstance(texts, str) else [str(text) for text in texts or [] if text]
    if texts:
        row["caption"] = texts[0]
    if texts[1:]:
        row["more_captions"] = texts[1:]
    if top.get("tag"):
        row["tags"] = top["tag"]
    for column, names in _ALIASES.items():
        for where in (top, details):
            value = next((where[name] for name in names if isinstance(where.get(name), str) and where[name]), None)
            if value:
                row.setdefault(column, value)
    used = {name for names in _ALIASES.values() for name in names}
    rest = {key: value for key, value in details.items() if key not in used and value not in (None, "")}
    if rest:
        row["original_data"] = rest
    return row


def _shard(path: Path, root: Path) -> Iterator[Entry]:
    """Entries of a WebDataset shard: members with the same name before the first dot belong together."""
    shard = path.relative_to(root).as_posix()
    compressed = not path.name.lower().endswith(".tar")
    key: str | None = None
    audio: Entry | None = None
    record: Row = {}

    def finished() -> Iterator[Entry]:
        if audio is not None:
            yield Entry(audio.id, given_columns(_described(record)), audio.file, audio.span, audio.content)
        elif key is not None:
            yield Entry(f"{shard}/{key}", problem=("missing", f"{key} in {shard} has no sound file"))

    try:
        with tarfile.open(path, "r:*" if compressed else "r:") as tar:
            for member in tar:
                if not member.isfile() or PurePosixPath(member.name).name.startswith("."):
                    continue
                name = PurePosixPath(member.name)
                stem, _, extension = name.name.partition(".")
                member_key = (name.parent / stem).as_posix()
                if member_key != key:
                    yield from finished()
                    key, audio, record = member_key, None, {}
                suffix = f".{extension.rpartition('.')[2].lower()}"
                if suffix == ".json":
                    record = _member_json(tar, member)
                elif suffix in AUDIO_EXTENSIONS:
                    identifier = f"{shard}/{member.name}"
                    if compressed:
                        file = tar.extractfile(member)
                        audio = Entry(identifier, content=file.read() if file else b"")
                    else:
                        audio = Entry(identifier, file=path, span=(member.offset_data, member.size))
                elif suffix in (".txt", ".cls"):
                    file = tar.extractfile(member)
                    text = file.read(1 << 16).decode("utf-8", "replace").strip() if file else ""
                    record.setdefault("text" if suffix == ".txt" else "label", text)
            yield from finished()
    except (tarfile.TarError, EOFError, OSError) as error:
        yield from finished()
        yield Entry(shard, problem=("shard", f"{shard} ends early or is damaged ({error}); its first part was used"))


def _member_json(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Row:
    file = tar.extractfile(member)
    try:
        record = json.loads(file.read()) if file else {}
    except (UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return record if isinstance(record, dict) else {}


# ---------------------------------------------------------------------------------------------------------- datasets


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "scale") from None
    return datasets


def _load_saved(path: Path) -> Any:
    return _datasets().load_from_disk(str(path))


def _load_dataset(text: str) -> Any:
    library = _datasets()
    name, _, query = text.removeprefix(DATASETS_PREFIX).partition("?")
    options = {key: values[-1] for key, values in parse_qs(query).items()}
    unknown = set(options) - {"split", "name", "streaming"}
    if not name or unknown:
        raise InputError(f"{text!r} is not of the form datasets:NAME[?split=train&name=CONFIG&streaming=1]")
    try:
        return library.load_dataset(
            name,
            options.get("name"),
            split=options.get("split", "train"),
            streaming=options.get("streaming", "0") not in ("0", "false"),
        )
    except (OSError, ValueError) as error:
        raise InputError(f"the dataset {name!r} cannot be opened ({str(error).splitlines()[0]})") from None


def _dataset_source(dataset: Any, name: str) -> Source:
    library = _datasets()
    if not isinstance(dataset, library.Dataset | library.IterableDataset):
        kind = type(dataset).__name__
        raise InputError(f"{kind} is no source; give a path, 'datasets:NAME', or one split of a dataset")
    features = dataset.features or {}
    columns = [column for column, feature in features.items() if isinstance(feature, library.Audio)]
    if not columns:
        raise InputError(f"{name} has the columns {', '.join(features)}; none of them is of the type Audio")
    column = columns[0]
    undecoded = dataset.cast_column(column, library.Audio(decode=False))
    total = len(dataset) if isinstance(dataset, library.Dataset) else None

    def walk() -> Iterator[Entry]:
        for number, row in enumerate(undecoded):
            audio = row.pop(column) or {}
            path, content = audio.get("path"), audio.get("bytes")
            identifier = str(row.get("id") or f"{number:09d}")
            if content is None and (path is None or urlsplit(path).scheme):
                yield Entry(identifier, given_columns(row), problem=("missing", f"row {number} has no audio"))
                continue
            yield Entry(
                identifier,
                given_columns({**row, "path": row.get("path") or path}),
                Path(str(path)) if content is None else None,
                content=content,
            )

    return Source(name, None, total, walk)
