"""Write files whole or not at all, with their checksums and the JSON beside them that says what made them."""

from __future__ import annotations

import datetime
import errno
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from audiobert.errors import ArtefactError, InputError

_HIDDEN, _NEW, _OBSOLETE = ".audiobert.", ".audiobert.new", ".obsolete.json"
_LONG_NAME = 200  # bytes; file systems take 255
_RECORDED_LIBRARIES = ("audiobert", "torch", "transformers", "peft", "tokenizers", "numpy")

Ours = Callable[[Path], Collection[str]]
"""Given a folder, return the names (relative, with `/`) of the files in it that an earlier write made."""


def sha256_of(path: str | Path) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`, else remove it.

    Where `path` is a link, the file that it points to is replaced and the link stays.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".audiobert-", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        with _full_disk_named(path):
            yield part
            _flush(part)
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check_folder(path: str | Path, *, sources: Iterable[str | Path] = ()) -> Path:
    """Return the folder that `path` stands for, links followed, or refuse it before any work is done.

    The folder need not exist. InputError if it cannot be written to, or if one of the `sources` that the result is made
    from is the folder or lies in it.
    """
    path = Path(path)
    real = Path(os.path.realpath(path))
    if path.is_symlink() and not real.exists():
        raise InputError(f"{path} is a link to {real}, which does not exist; make that folder or give another")
    if real.exists() and not real.is_dir():
        raise InputError(f"{path} is a file; give a folder")
    if real.exists() and not os.access(real, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written to; change its permissions or give another folder")
    for source in sources:
        made_from = Path(os.path.realpath(source))
        if real == made_from or real in made_from.parents:
            raise InputError(f"{source} lies in {path}, where the result is to be written; give another folder")
    return real


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep other processes and threads from writing to `path`, a file or a folder, by a lock file."""
    real = Path(os.path.realpath(path))
    file = hidden(real, "lock")
    lock = FileLock(file, timeout=0, is_singleton=True)
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"another process is writing to {path}; wait until it has ended or give another place"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written to ({error.strerror or error}); give another place") from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            file.unlink(missing_ok=True)
        lock.release()


@contextmanager
def whole_folder(path: str | Path, *, ours: Ours = lambda _: (), sources: Iterable[str | Path] = ()) -> Iterator[Path]:
    """Yield an empty folder; on success its files get into `path`, which they make or join.

    Nothing else in `path` is changed or removed:

    - A folder that does not exist appears whole or not at all.
    - In a folder that exists, files are renamed into place one by one. Only files that `ours` names are replaced; those
      of them that were not written again are removed. Any other file under a name that was written is refused, and so
      is a link; then nothing is changed.
    - The old files count until all new ones are written and flushed, and from then on the new ones. A process that ends
      in between leaves what `finish_write` needs to rename the rest, which readers of the folder call first.
    - A link to a folder, or a mount point, is written to like any folder.
    - One process at a time writes to a folder; a second one is refused.

    InputError if `check_folder` refuses the folder, or if it holds a file that would be overwritten.
    """
    real = check_folder(path, sources=sources)
    with locked(real):
        finish_write(real)
        part = real / f"{_HIDDEN}part" if real.exists() else hidden(real, "part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            with _full_disk_named(real):
                yield part
                _move_in(part, real, set(ours(real)) if real.exists() else set())
        finally:
            shutil.rmtree(part, ignore_errors=True)


def finish_write(folder: str | Path) -> None:
    """Rename the rest of the files that an interrupted `whole_folder` had written; do nothing where there are none.

    ArtefactError if the folder cannot be written to, or what lies there would change files elsewhere.
    """
    folder = Path(folder)
    new = folder / _NEW
    if not new.is_dir():
        return
    names = [name for name in _files(new) if name != _OBSOLETE]
    obsolete = read_json(new / _OBSOLETE) if (new / _OBSOLETE).exists() else []
    if not all(_stays_in(folder, name) for name in [*names, *obsolete]):
        raise ArtefactError(f"{new} would change files outside {folder}; remove it")
    try:
        for name in names:
            _move(new / name, folder / name)
        for name in obsolete:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise ArtefactError(
            f"writing to {folder} was interrupted and cannot be finished ({error.strerror or error}); "
            "make the folder writable and try again"
        ) from None
    shutil.rmtree(new, ignore_errors=True)


def hidden(path: Path, suffix: str) -> Path:
    """Return a hidden path for work on a folder: beside it, or in it if its parent is read-only (a mounted volume)."""
    if path.is_dir() and not os.access(path.parent, os.W_OK | os.X_OK):
        return path / f"{_HIDDEN}{suffix}"
    bare = os.fsencode(path.name)
    name = path.name if len(bare) <= _LONG_NAME else hashlib.sha256(bare).hexdigest()
    return path.parent / f".{name}.{suffix}"


def is_vacant(folder: Path) -> bool:
    """Tell whether a folder does not exist or holds nothing but hidden files of ours."""
    return not folder.exists() or all(path.name.startswith(_HIDDEN) for path in folder.iterdir())


def _move_in(part: Path, folder: Path, ours: set[str]) -> None:
    """Make the files of `part` those of `folder`; see `whole_folder`."""
    names = _files(part)
    for name in names:
        _flush(part / name)
    if not folder.exists():
        part.rename(folder)
        return
    for name in names:
        target = folder / name
        parents = target.parents[: len(Path(name).parts) - 1]
        if any(os.path.lexists(parent) and not parent.is_dir() for parent in parents):
            raise InputError(f"{target} cannot be written because a file lies where its folder should; move it away")
        if not _stays_in(folder, name):
            raise InputError(f"{target} lies behind a link in the folder; give the folder that it leads to")
        if os.path.lexists(target) and (name not in ours or target.is_symlink() or target.is_dir()):
            raise InputError(f"{target} exists and would be overwritten; move it away or give another folder")
    write_json(part / _OBSOLETE, sorted(ours - set(names)))
    part.rename(folder / _NEW)
    finish_write(folder)


def _stays_in(folder: Path, name: str) -> bool:
    """Tell whether a file's name leads to a place in the folder, not out of it by `..` or a link."""
    return (folder / name).parent.resolve().is_relative_to(folder.resolve()) and Path(name).name not in ("", "..")


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(target)
    except FileNotFoundError:
        if source.exists():
            raise
        return  # another reader of the folder has moved it
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with whole_file(target) as copy:  # a folder in the folder is a mount point
            shutil.copyfile(source, copy)


def _files(folder: Path) -> list[str]:
    """Return the names of all files below a folder, relative to it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ArtefactError(f"no space is left on the disk of {path}; free some and try again") from None


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text; the file appears whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline; the file appears whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{path} does not exist") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtefactError(f"{path} is not readable JSON ({error}); restore it or make it again") from None


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide what a model computes."""
    versions = {"python": platform.python_version()}
    for library in _RECORDED_LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def provenance(**made_from: Any) -> Mapping[str, Any]:
    """Return what made an artefact: time (UTC), library versions, and what is given by name (settings, checksums)."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"created": created, "versions": library_versions(), **made_from}
