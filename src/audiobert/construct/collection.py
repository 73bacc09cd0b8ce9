"""Read an audio collection with its texts: LAION-Audio-630K's layout, or a manifest with one audio path per row."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from audiobert.construct.prompts import clean_text
from audiobert.construct.records import Rejected, SourceClip
from audiobert.errors import InputError
from audiobert.settings import Settings
from audiobert.table_files import list_in, read_values, table_shape, text_fault, text_of

AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
MEMBER = "::"  # between a tar shard and its member in a clip's path
# What the columns of a manifest are called in the wild, the first that is there being taken.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "clip_id", "audio_id"),
    "path": ("path", "audio_path", "audio", "file", "filename", "file_name", "audio_filename"),
    "title": ("title", "name"),
    "description": ("description",),
    "tags": ("tags", "tag", "keywords"),
    "captions": ("captions", "caption", "text"),
    "source": ("source", "dataset"),
    "license": ("license", "licence"),
    "author": ("author", "username", "uploader"),
    "url": ("url", "download_url"),
}


class CollectionSettings(Settings):
    """Settings of the collection.

    Attributes
    ----------
    kind
        `manifest`: a CSV, JSONL or Parquet file with one row per clip. `laion`: a folder in LAION-Audio-630K's layout,
        audio files with a JSON of the same name beside them (`text`, `tag`, `original_data`), loose or in tar shards.
    root
        What the audio paths of a manifest are relative to; its own folder by default.
    columns
        Names of the manifest's columns where they are not found by themselves, e.g. `{title: sound_name}`.
    where
        Keep only the rows whose column has one of these values, e.g. `{source: [ESC-10, ESC-50]}`.
    """

    kind: Literal["manifest", "laion"] = "manifest"
    path: Path
    root: Path | None = None
    columns: dict[str, str] = Field(default={})
    where: dict[str, list[str]] = Field(default={})
    limit: int | None = Field(default=None, ge=1)

    @property
    def audio_root(self) -> Path:
        """The folder that clips' paths are relative to."""
        if self.kind == "laion":
            return self.path
        return self.root or self.path.parent


def read_collection(settings: CollectionSettings) -> tuple[list[SourceClip], list[Rejected]]:
    """Read all clips of the collection with their texts, in a fixed order, and those that cannot be used."""
    rows = _laion_rows(settings) if settings.kind == "laion" else _manifest_rows(settings)
    clips: dict[str, SourceClip] = {}
    rejected: list[Rejected] = []
    for clip in rows:
        if isinstance(clip, Rejected):
            rejected.append(clip)
            continue
        if clips.setdefault(clip.id, clip) is not clip:
            raise InputError(f"{settings.path} has two clips with the id '{clip.id}'; give each its own")
        if len(clips) == settings.limit:
            break
    if not clips:
        raise InputError(f"no clips in {settings.path}" + (" that fit 'where'" if settings.where else ""))
    return list(clips.values()), rejected


def clip_bytes(root: Path, clip: SourceClip) -> bytes:
    """Read the clip's file from disk or from its shard."""
    shard, _, member = clip.path.partition(MEMBER)
    path = root / shard
    try:
        if not path.is_file():
            raise FileNotFoundError("there is no such file")
        if not member:
            return path.read_bytes()
        with tarfile.open(path) as archive:
            file = archive.extractfile(member)
            if file is None:
                raise KeyError(member)
            return file.read()
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise InputError(f"{path}{MEMBER * bool(member)}{member} cannot be read ({error}); see input.root") from None


def _texts(value: Any) -> tuple[str, ...]:
    """Return a cell as a list of texts: a list, or one that a text spells. Commas only separate tags, see caller."""
    if isinstance(value, str):
        listed = list_in(value)
        value = [value] if listed is None else listed
    elif not isinstance(value, list | tuple):
        value = [value]
    return tuple(text for one in value if (text := clean_text(text_of(one))))


def _split_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    if len(tags) != 1:
        return tags
    separator = ";" if ";" in tags[0] else ","
    return tuple(tag.strip() for tag in tags[0].split(separator) if tag.strip())


def _text(value: Any) -> str:
    return clean_text(text_of(value), limit=4_000)


def _clip(fields: Mapping[str, Any], path: str, identity: str) -> SourceClip | Rejected:
    if text_fault(path):
        shown = path.encode("utf-8", "backslashreplace").decode()
        return Rejected(step="collect", item=shown, reason="name-not-utf-8", detail="rename the file")
    texts = {name: _text(fields.get(name)) for name in ("title", "description", "source", "license", "author", "url")}
    tags, captions = _texts(fields.get("tags")), _texts(fields.get("captions"))
    return SourceClip(id=identity, path=path, tags=_split_tags(tags), captions=captions, **texts)


def _manifest_rows(settings: CollectionSettings) -> Iterator[SourceClip | Rejected]:
    if unknown := set(settings.columns) - set(COLUMNS):
        raise InputError(f"input.columns names {sorted(unknown)}; the fields are {', '.join(COLUMNS)}")
    shape = table_shape(settings.path)
    if row := shape.first_refused:
        raise InputError(f"{settings.path}, {row.place}: {row.fault}")
    if not shape.rows:
        return
    names = _found_columns(shape.columns, settings)
    for number, values in enumerate(read_values(settings.path), start=1):
        if any(str(values.get(column, "")) not in allowed for column, allowed in settings.where.items()):
            continue
        fields = {field: values.get(column) for field, column in names.items()}
        path = text_of(fields["path"]).strip()
        if not path:
            raise InputError(f"{settings.path}, row {number}, has no path in column '{names['path']}'; fill it in")
        identity = _text(fields.get("id")) or posixpath.splitext(posixpath.normpath(path))[0]
        yield _clip(fields, path, identity)


def _found_columns(columns: Sequence[str], settings: CollectionSettings) -> dict[str, str]:
    for column in [*settings.columns.values(), *settings.where]:
        if column not in columns:
            raise InputError(f"{settings.path} has no column '{column}': it has {', '.join(columns)}")
    names = dict(settings.columns)
    for field, candidates in COLUMNS.items():
        if field not in names and (found := next((name for name in candidates if name in columns), None)):
            names[field] = found
    if "path" not in names:
        raise InputError(f"{settings.path} has no path column: it has {', '.join(columns)}; see input.columns")
    return names


def _laion_rows(settings: CollectionSettings) -> Iterator[SourceClip | Rejected]:
    root = settings.path
    if not root.is_dir():
        raise InputError(f"no folder {root}: give the folder of a collection in the layout of LAION-Audio-630K")
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).as_posix()
        if path.suffix == ".tar":
            yield from _shard_rows(path, inside, settings)
        elif path.suffix.lower() in AUDIO_SUFFIXES and path.with_suffix(".json").is_file():
            clip = _laion_clip(path.with_suffix(".json").read_bytes(), inside)
            if _fits(clip, settings):
                yield clip


def _shard_rows(path: Path, inside: str, settings: CollectionSettings) -> Iterator[SourceClip | Rejected]:
    audio: dict[str, str] = {}
    texts: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                stem = PurePosixPath(member.name).with_suffix("").as_posix()
                if member.isfile() and member.name.lower().endswith(AUDIO_SUFFIXES):
                    audio[stem] = member.name
                elif member.isfile() and member.name.endswith(".json") and (file := archive.extractfile(member)):
                    texts[stem] = file.read()
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} is no readable tar shard ({error}); fetch it again or take it out") from None
    for stem in sorted(audio):
        if stem in texts:
            clip = _laion_clip(texts[stem], f"{inside}{MEMBER}{audio[stem]}")
            if _fits(clip, settings):
                yield clip


def _laion_clip(text: bytes, path: str) -> SourceClip | Rejected:
    """Read one pair of LAION-Audio-630K: captions in `text`, tags in `tag`, what the site said in `original_data`."""
    try:
        value = json.loads(text)
        original = value.get("original_data") or {}
        if not isinstance(original, dict):
            original = {}
    except (ValueError, AttributeError):
        raise InputError(f"the JSON beside {path} is not of LAION-Audio-630K's form; restore it") from None
    fields = {field: _first(original, candidates) for field, candidates in COLUMNS.items()}
    fields["captions"] = value.get("text")
    fields["tags"] = value.get("tag") or fields["tags"]
    stem = path.replace(MEMBER, "/").rsplit(".", 1)[0]
    return _clip(fields, path, stem)


def _first(values: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((values[name] for name in names if values.get(name)), None)


def _fits(clip: SourceClip | Rejected, settings: CollectionSettings) -> bool:
    if isinstance(clip, Rejected):
        return True
    if unknown := set(settings.where) - set(SourceClip.model_fields):
        raise InputError(f"input.where names {sorted(unknown)}; a clip has {', '.join(SourceClip.model_fields)}")
    return all(str(getattr(clip, field)) in allowed for field, allowed in settings.where.items())
