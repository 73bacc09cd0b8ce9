"""Define a clip that a source offers, and the stream of them."""

from __future__ import annotations

import errno
import io
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from audiobert.table_files import text_fault


@dataclass(frozen=True)
class Entry:
    """One clip that a source offers."""

    id: str  # its `id` column, else its path inside the source
    given: dict[str, Any] = field(default_factory=dict)  # what the source says about it, as columns of the clip table
    file: Path | None = None
    span: tuple[int, int] | None = None  # offset and length in `file`, for a clip inside a shard
    content: bytes | None = None  # the audio itself, when it lies in no file of its own
    problem: tuple[str, str] | None = None  # why it is no clip (reason, detail), if that is known before decoding

    def open(self) -> BinaryIO:
        """Open the audio as a seekable binary file."""
        if self.content is not None:
            return io.BytesIO(self.content)
        if self.file is None:
            raise FileNotFoundError(self.id)
        mode = self.file.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for ever
            raise OSError(errno.EINVAL, "it is a pipe, a socket or a device")
        file = self.file.open("rb")
        if self.span is None:
            return file
        with file:
            file.seek(self.span[0])
            return io.BytesIO(file.read(self.span[1]))


@dataclass(frozen=True)
class Source:
    """A stream of entries that can be walked again from the start."""

    name: str
    root: Path | None  # folder that the clips' paths are relative to, if they are in one
    total: int | None  # number of entries, None when only walking tells
    _walk: Callable[[], Iterable[Entry]]

    def __iter__(self) -> Iterator[Entry]:
        return map(_storable, self._walk())

    def only(self, files: set[Path]) -> Source:
        """Return a source of the entries that lie in these files."""
        return Source(self.name, self.root, len(files), lambda: (entry for entry in self if entry.file in files))


def _storable(entry: Entry) -> Entry:
    """Return the entry; one with text that cannot be stored as UTF-8 becomes a problem, its text escaped."""
    if fault := text_fault(entry.id):
        problem = ("text", f"its name has {fault}; rename it")
    elif fault := text_fault(entry.given):
        problem = ("text", f"its metadata has {fault}; correct it")
    else:
        return entry
    reason, detail = entry.problem or problem
    path = entry.given.get("path")
    given = {} if path is None else {"path": _escaped(path)}
    return Entry(_escaped(entry.id), given, problem=(reason, _escaped(detail)))


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
