"""Write files into a folder in which people work, too: what they changed or put there is refused, never replaced."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from audiobert.artefacts import read_json, sha256_of, whole_folder, write_json
from audiobert.errors import ArtefactError, InputError

# The SHA-256 of every file that was written into the folder.
RECORD = "written.json"


def files_below(folder: Path) -> list[str]:
    """Return the names of all files below a folder, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def changed_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Return those of the names under which a file lies that is not as `own_files` wrote it."""
    recorded = _recorded(folder) or {}

    def is_changed(path: Path, name: str) -> bool:
        return os.path.lexists(path) and not (path.is_file() and sha256_of(path) == recorded.get(name))

    return [name for name in sorted(set(names)) if is_changed(folder / name, name)]


def check_unchanged(folder: Path, names: Iterable[str]) -> None:
    """Refuse to write files that a person has changed or put there."""
    if changed := changed_files(folder, names):
        raise InputError(
            f"{', '.join(changed)} in {folder} was changed by hand or is not of this construction; move it away, or "
            "give --overwrite to replace it"
        )


@contextmanager
def own_files(folder: Path, *, obsolete: Collection[str] = (), overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder; on success its files join `folder`, all or none of them.

    A file that would be replaced, and is not as an earlier write left it, is refused unless `overwrite`; then nothing
    is changed. Files that `obsolete` names are removed if they are not written again.
    """
    replaced: set[str] = set()
    with whole_folder(folder, ours=lambda _: replaced) as part:
        yield part
        names = set(files_below(part))
        gone = set(obsolete) - names
        if not overwrite:
            check_unchanged(folder, names | gone)
        recorded = _recorded(folder)
        kept = {name: digest for name, digest in (recorded or {}).items() if name not in gone}
        write_json(part / RECORD, {"files": kept | {name: sha256_of(part / name) for name in sorted(names)}})
        replaced |= names | gone | ({RECORD} if recorded is not None else set())


def _recorded(folder: Path) -> dict[str, str] | None:
    """Return the recorded checksums by name, or None if the folder has no such record."""
    with suppress(ArtefactError, KeyError, TypeError, OSError):
        if isinstance(files := read_json(folder / RECORD)["files"], dict):
            return files
    return None
