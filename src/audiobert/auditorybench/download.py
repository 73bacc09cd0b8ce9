"""Fetch AuditoryBench from its public repository at pinned commits, and verify a folder against what is published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from audiobert.artefacts import sha256_of, whole_file
from audiobert.auditorybench.data import load_split, read_rows, rows_sha256, sizes, split_path
from audiobert.auditorybench.published import FILES, REPOSITORY, PublishedFile
from audiobert.auditorybench.tasks import find_task
from audiobert.errors import InputError, RemoteError
from audiobert.progress import progress

DEFAULT_BASE_URL = "https://raw.githubusercontent.com"
MIRROR_VARIABLE = "AUDITORYBENCH_MIRROR"
FOLDER_VARIABLE = "AUDITORYBENCH_DIR"
TIMEOUT_S = 60.0


def default_folder() -> Path:
    """Return the folder that `data download` fills by default."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "audiobert" / "auditorybench"


def data_folder(given: str | Path | None = None) -> Path:
    """Return the benchmark's folder: the given one, else `AUDITORYBENCH_DIR`, else that of `data download`."""
    return Path(given or os.environ.get(FOLDER_VARIABLE) or default_folder())


def download(
    out: str | Path | None = None,
    *,
    mirror: str | None = None,
    proxy: str | None = None,
    transport: httpx.BaseTransport | None = None,
    files: Sequence[PublishedFile] = FILES,
) -> list[dict[str, Any]]:
    """Fetch the files that are not in the folder yet.

    A file is checked before it gets its name, so that the folder holds only whole, published files. One that is there
    already is not fetched again.

    Parameters
    ----------
    mirror
        A server that has the repository's files under `/{owner}/{name}/{commit}/{path}`; default
        `AUDITORYBENCH_MIRROR`, else GitHub's.
    proxy
        A proxy's address; default the usual variables (`HTTPS_PROXY`).

    Raises
    ------
    RemoteError
        If a file cannot be fetched, or is not the published one. The files before it are kept.
    """
    folder = Path(out) if out is not None else data_folder()
    base = (mirror or os.environ.get(MIRROR_VARIABLE) or DEFAULT_BASE_URL).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise InputError(f"the mirror '{base}' is no http(s) address")
    done = []
    with (
        httpx.Client(proxy=proxy, timeout=TIMEOUT_S, follow_redirects=True, transport=transport) as client,
        progress() as bar,
    ):
        step = bar.add_task("AuditoryBench", total=len(files), note="files")
        for file in files:
            path = folder / file.name
            fetched = not (path.is_file() and _is_published(path, file))
            if fetched:
                _fetch(client, f"{base}/{REPOSITORY}/{file.commit}/{file.path}", file, path)
            done.append({"file": str(path), "fetched": fetched, "sha256": sha256_of(path)})
            bar.advance(step)
    return done


def _is_published(path: Path, file: PublishedFile) -> bool:
    """Return whether a file's bytes, or else its rows, are the published ones."""
    if file.sha256 is not None and sha256_of(path) == file.sha256:
        return True
    if file.rows_sha256 is None:
        return False
    try:
        return rows_sha256(read_rows(path, find_task(file.task), file.split)) == file.rows_sha256
    except InputError:
        return False


def _fetch(client: httpx.Client, url: str, file: PublishedFile, path: Path) -> None:
    with whole_file(path) as part:
        try:
            with client.stream("GET", url) as response:
                response.raise_for_status()
                with part.open("wb") as out:
                    for chunk in response.iter_bytes():
                        out.write(chunk)
        except httpx.HTTPStatusError as error:
            raise RemoteError(
                f"{url} answered {error.response.status_code}: give a --mirror, or try again later"
            ) from None
        except httpx.HTTPError as error:
            raise RemoteError(
                f"cannot fetch {url} ({type(error).__name__}: {error}): give --proxy or --mirror, or try again later"
            ) from None
        if not _is_published(part, file):
            wanted = file.sha256 or f"rows {file.rows_sha256}"
            raise RemoteError(
                f"{url} is not the published {file.name}: SHA-256 {sha256_of(part)}, wanted {wanted}; nothing was kept"
            )


def verify(folder: str | Path) -> list[dict[str, Any]]:
    """Check every file of AuditoryBench in a folder: checksum, rows, columns, words per caption, train against test.

    Returns one entry per published file. Its `status` is `published` (byte for byte or row for row), `changed`,
    `missing` or `wrong`; `faults` are sentences.
    """
    report = [_verify_file(Path(folder), file) for file in FILES]
    if all(entry["status"] == "missing" for entry in report):
        split_path(folder, FILES[0].task, FILES[0].split)  # raises, and says what was looked for
    return report


def _verify_file(folder: Path, file: PublishedFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"task": file.task, "split": file.split, "file": file.name, "faults": []}
    try:
        path = split_path(folder, file.task, file.split)
    except InputError as error:
        if not folder.is_dir():
            raise
        return {**entry, "status": "missing", "faults": [str(error)]}
    entry["file"] = str(path)
    try:
        rows = load_split(folder, file.task, file.split)
    except InputError as error:
        return {**entry, "status": "wrong", "faults": [str(error)]}
    entry |= sizes(rows)
    published = _is_published(path, file)
    entry["status"] = "published" if published else "changed"
    if not published:
        entry["faults"].append(f"{path} is not the published file: SHA-256 {sha256_of(path)}, wanted {file.sha256}")
    if len(rows) != file.captions:
        entry["faults"].append(f"{path} has {len(rows):,} rows, Table I says {file.captions:,}")
    wanted = round(file.words / file.captions, 2)
    if entry["words_per_caption"] != wanted:
        entry["faults"].append(f"{path} has {entry['words_per_caption']} words per caption, Table I says {wanted}")
    return entry
