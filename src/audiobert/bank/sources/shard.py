"""Read the clips of a WebDataset shard: a tar with sound files, and JSON or text members of the same name."""

from __future__ import annotations

import gzip
import json
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from audiobert.bank.clips import given_columns
from audiobert.bank.sources.entry import Entry
from audiobert.bank.sources.formats import format_problem, is_audio
from audiobert.table_files import text_fault

_UNREADABLE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error)
_TEXT_EXTENSIONS = (".json", ".txt", ".cls")

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


@dataclass
class _Text:
    """Metadata of a sound from its JSON and text members, or why one of them cannot be used."""

    record: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None

    def with_defaults(self, other: _Text) -> _Text:
        return _Text({**other.record, **self.record}, self.fault or other.fault)


@dataclass
class _Index:
    """Names in a shard, collected before its sounds are taken: a sound may stand before or after its JSON.

    A key is a name up to its first dot, as WebDataset defines it.
    """

    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)  # by name; links included, folders not
    texts: dict[str, dict[str, _Text]] = field(default_factory=dict)  # by key, then by name without last extension
    sounds: dict[str, list[str]] = field(default_factory=dict)  # names by key

    def text_named(self, name: str) -> _Text:
        """Return the text of a name's stem, a new one where there is none."""
        return self.texts.setdefault(_key(name), {}).setdefault(_stem(name), _Text())

    def text_of(self, sound: str) -> _Text:
        """Return the text with the name of the sound, completed by that of its key."""
        key = _key(sound)
        texts = self.texts.get(key, {})
        others = texts if len(self.sounds[key]) == 1 else ()
        text = _Text()
        for name in dict.fromkeys([_stem(sound), key, *others]):
            text = text.with_defaults(texts.get(name, _Text()))
        return text

    def without_sound(self) -> list[str]:
        """Return the keys, and the names of texts, that no sound belongs to."""
        lost = dict.fromkeys(key for key in map(_key, self.members) if key not in self.sounds)
        for key, names in self.sounds.items():
            if len(names) > 1:
                stems = {key, *map(_stem, names)}
                lost |= dict.fromkeys(stem for stem in self.texts.get(key, ()) if stem not in stems)
        return list(lost)

    def target(self, name: str) -> str | None:
        """Return the name of the file that a member is or links to; None where the shard does not hold it."""
        followed: set[str] = set()
        while name not in followed and (member := self.members.get(name)):
            followed.add(name)
            if member.isreg():
                return name
            if not (member.islnk() or member.issym()):
                return None
            folder = "" if member.islnk() else posixpath.dirname(name)
            name = posixpath.normpath(posixpath.join(folder, member.linkname))
        return None


def shard_entries(path: Path, root: Path) -> Iterator[Entry]:
    """Yield an entry per sound of a shard, and per name without a sound; `path` lies below `root`."""
    shard = path.relative_to(root).as_posix()
    index = _read_index(path)
    takers: dict[str, list[str]] = {}
    dangling: list[str] = []
    for sound in (name for names in index.sounds.values() for name in names):
        target = index.target(sound)
        takers.setdefault(target, []).append(sound) if target else dangling.append(sound)
    try:
        yield from _sounds(path, shard, index, takers)
    except _UNREADABLE as error:
        yield Entry(shard, problem=("shard", f"{shard} ends early or is damaged ({error}); its first part was used"))
    for name in dangling:
        link = index.members[name].linkname
        detail = f"{name} in {shard} is no file" + (f" but a link to {link}, which is not in the shard" if link else "")
        yield Entry(f"{shard}/{name}", problem=("link", detail))
    for name in index.without_sound():
        yield Entry(f"{shard}/{name}", problem=("missing", f"{name} in {shard} has no sound file"))


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _walk(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the members; raise at damage, where tarfile ends in silence at a damaged header."""
    last = None
    with gzip.open(path) if _is_compressed(path) else path.open("rb") as file:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                last = member
                yield tar, member
        if last is None or last.issparse():  # a sparse member does not say how long it is in the shard
            return
        blocks = -(-last.size // tarfile.BLOCKSIZE) if last.isreg() else 0
        file.seek(last.offset_data + blocks * tarfile.BLOCKSIZE)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"neither a member nor an end follows {last.name}")
        while rest := file.read(1 << 20):
            if any(rest):
                raise tarfile.ReadError("its end is followed by more; were shards joined into one?")


def _key(name: str) -> str:
    folder, _, base = name.rpartition("/")
    return posixpath.join(folder, base.partition(".")[0])


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _read_index(path: Path) -> _Index:
    index = _Index()
    try:
        for tar, member in _walk(path):
            name = posixpath.normpath(member.name)
            if member.isdir() or posixpath.basename(name).startswith("."):
                continue
            again = name in index.members
            index.members[name] = member
            if PurePosixPath(name).suffix.lower() in _TEXT_EXTENSIONS and member.isreg():
                _add_text(index, name, tar, member)
            elif is_audio(name) and not again:
                index.sounds.setdefault(_key(name), []).append(name)
    except _UNREADABLE:
        pass  # met again, and listed, when the sounds are taken
    for name in list(index.members):
        target = index.target(name)
        if target != name and PurePosixPath(name).suffix.lower() in _TEXT_EXTENSIONS:
            text = index.texts.get(_key(target), {}).get(_stem(target)) if target else None
            index.texts.setdefault(_key(name), {})[_stem(name)] = text or _Text(
                fault=f"{name} links to no text; correct it"
            )
    return index


def _add_text(index: _Index, name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    file = tar.extractfile(member)
    content = file.read() if file else b""
    suffix = PurePosixPath(name).suffix.lower()
    text = index.text_named(name)
    try:
        if suffix == ".json":
            record = json.loads(content)
            if not isinstance(record, dict):
                raise ValueError("it is no object")
            if fault := text_fault(record):
                raise ValueError(f"it has {fault}")
            text.record = {**text.record, **record}
        elif value := content.decode("utf-8-sig").strip():
            text.record.setdefault("text" if suffix == ".txt" else "label", value)
    except (ValueError, RecursionError) as error:
        text.fault = f"{name} cannot be read as {'JSON' if suffix == '.json' else 'UTF-8'} ({error}); correct it"


def _sounds(path: Path, shard: str, index: _Index, takers: Mapping[str, list[str]]) -> Iterator[Entry]:
    compressed, size = _is_compressed(path), path.stat().st_size
    for tar, member in _walk(path):
        for name in takers.get(posixpath.normpath(member.name), ()) if member.isreg() else ():
            identifier = f"{shard}/{index.members[name].name}"
            text = index.text_of(name)
            given = given_columns(_described(text.record))
            problem = format_problem(name) or (("metadata", text.fault) if text.fault else None)
            if problem:
                yield Entry(identifier, given, problem=problem)
            elif compressed or member.issparse():
                file = tar.extractfile(member)
                yield Entry(identifier, given, content=file.read() if file else b"")
            elif member.offset_data + member.size > size:
                raise tarfile.ReadError(f"{name} is cut off")
            else:
                yield Entry(identifier, given, file=path, span=(member.offset_data, member.size))


def _described(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of the clip table from a shard's JSON: `text`, `tag` and `original_data`."""
    original = record.get("original_data")
    details = {str(key).lower(): value for key, value in original.items()} if isinstance(original, Mapping) else {}
    top = {str(key).lower(): value for key, value in record.items()}
    row: dict[str, Any] = {"caption": top.get("text"), "tags": top.get("tag")}
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
