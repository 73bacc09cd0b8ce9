"""List sound files and tar shards in a folder and the folders below it, links included."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from audiobert.bank.clips import given_columns
from audiobert.bank.sources.entry import Entry
from audiobert.bank.sources.formats import AUDIO_EXTENSIONS, format_problem, is_shard
from audiobert.bank.sources.shard import shard_entries

Problem = tuple[str, str]


@dataclass(frozen=True, order=True)
class Found:
    """A file below a folder, or what is there and cannot be taken, with the reason."""

    path: Path
    problem: Problem | None = None


def list_folder(root: Path) -> list[Found]:
    """Return all files below a folder in the order of their names, and what cannot be taken.

    What begins with a dot is left out. A linked folder is entered, unless its files are met without the link too.
    """
    found: list[Found] = []

    def note_unreadable(error: OSError) -> None:
        path = Path(error.filename)
        found.append(Found(path, ("unreadable", f"{path} cannot be read ({error.strerror})")))

    entered: set[Path] = set()
    for here, folders, names in os.walk(root, followlinks=True, onerror=note_unreadable):
        for folder in list(folders):
            path = Path(here, folder)
            problem = None if folder.startswith(".") else _link_problem(root, path, entered)
            if problem:
                found.append(Found(path, problem))
            if problem or folder.startswith("."):
                folders.remove(folder)
        for name in names:
            if not name.startswith("."):
                found.append(Found(Path(here, name), _file_problem(Path(here, name))))
    return sorted(found, key=lambda one: one.path)


def folder_entries(root: Path, found: Iterable[Found]) -> Iterator[Entry]:
    """Yield an entry per sound file, per clip of a shard, and per file that is neither."""
    for one in found:
        name = one.path.relative_to(root).as_posix()
        suffix = one.path.suffix
        if one.problem:
            yield Entry(name, {"path": name}, problem=one.problem)
        elif is_shard(name):
            yield from shard_entries(one.path, root)
        elif suffix.lower() in AUDIO_EXTENSIONS:
            label = Path(name).parent.name or None
            yield Entry(name, given_columns({"path": name, "title": one.path.stem, "label": label}), one.path)
        else:
            other = ("extension", f"{name} has the extension '{suffix}', which is none of a sound file's")
            yield Entry(name, {"path": name}, one.path, problem=format_problem(name) or other)


def _link_problem(root: Path, path: Path, entered: set[Path]) -> Problem | None:
    """Return why a folder that a link leads to is not entered; add one that is to `entered`."""
    start, target = Path(os.path.realpath(root)), Path(os.path.realpath(path))
    if target == start / path.relative_to(root):  # no link on the way
        return None
    inside = target.is_relative_to(start)
    if target in entered or (inside and not any(part.startswith(".") for part in target.relative_to(start).parts)):
        return "link", f"{path} leads to {target}, whose files are taken from there"
    if start.is_relative_to(target):
        return "link", f"{path} leads to {target}, which holds this source"
    entered.add(target)
    return None


def _file_problem(path: Path) -> Problem | None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            return "link", f"{path} leads to {path.readlink()}, which cannot be opened ({error.strerror})"
        return "unreadable", f"{path} cannot be read ({error.strerror})"
    return None if stat.S_ISREG(mode) else ("not-a-file", f"{path} is a pipe, a socket or a device")
