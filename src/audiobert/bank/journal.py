"""Record what a build has done so far, in a SQLite file beside the bank, so that a killed build resumes.

The journal holds one outcome per id, written batch by batch. `places` says where the last walk of the source met each
id: the bank is put together from what that walk met, so entries that the source no longer offers are not in it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiobert.errors import ArtefactError

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    id TEXT NOT NULL UNIQUE, sha256 TEXT, reason TEXT, detail TEXT,
    given TEXT, measured TEXT, clap BLOB, knowledge BLOB
);
CREATE TABLE IF NOT EXISTS places (id TEXT PRIMARY KEY, position INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repeats (position INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS names (text TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_content ON entries (sha256);
"""
# Entries that the last walk met. Of clips with the same content the first in the source's order is kept.
_MET = """
    SELECT p.position, e.*, CASE WHEN e.reason IS NULL THEN (
        SELECT f.id FROM entries f JOIN places q ON q.id = f.id
        WHERE f.sha256 = e.sha256 AND f.reason IS NULL ORDER BY q.position LIMIT 1
    ) END AS first_id
    FROM places p JOIN entries e ON e.id = p.id
"""
_IDS_PER_QUERY = 500  # SQLite takes 999 parameters at least
_SUFFIXES = ("", "-wal", "-shm")  # of the files that make up a SQLite database


@dataclass
class Record:
    """One entry's outcome: vectors and measurements, or a reason why it was rejected, or that it is unchanged."""

    id: str
    sha256: str | None
    given: dict[str, Any]
    problem: tuple[str, str] | None = None
    measured: dict[str, Any] | None = None
    unchanged: bool = False
    clap_vector: np.ndarray | None = None  # (clap_dim,) float16
    knowledge_vector: np.ndarray | None = None  # (hidden_size,) float16


@dataclass(frozen=True)
class Known:
    """Content of the journal for one id."""

    sha256: str | None
    accepted: bool


class Journal:
    """The record of a build on disk. One process writes it.

    Raises
    ------
    ArtefactError
        When the file is damaged or cannot be written, or belongs to a build with other facts (models, settings).
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None)
        try:
            with self._explained():
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
                self._database.executescript(_TABLES)
                self._check(facts)
        except BaseException:
            self._database.close()
            raise

    def _check(self, facts: dict[str, Any]) -> None:
        stored = dict(self._database.execute("SELECT name, value FROM facts"))
        for name, value in facts.items():
            text = json.dumps(value, sort_keys=True)
            if name not in stored:
                self._database.execute("INSERT INTO facts VALUES (?, ?)", (name, text))
            elif stored[name] != text:
                raise ArtefactError(
                    f"the unfinished build in {self.path} has {name} {stored[name]}, this one has {text}; "
                    "resume with the same models and settings, or start again with --overwrite"
                )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of SQLite into one line that says what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                reason = "the disk is full; free some space and resume the build with --resume"
            elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                reason = f"it is damaged ({error}); build again with --overwrite"
            elif isinstance(error, sqlite3.OperationalError):
                reason = f"{error}; check the disk and its permissions, then resume the build with --resume"
            else:
                raise
            raise ArtefactError(f"{self.path} cannot be used: {reason}") from None
        except OSError as error:
            raise ArtefactError(f"{self.path} cannot be written ({error.strerror or error})") from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._database.execute("BEGIN")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite itself rolls back when the disk is full
                    self._database.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def begin_walk(self) -> None:
        """Forget where entries stood: the source is about to be walked from its start."""
        with self._transaction() as database:
            database.execute("DELETE FROM places")
            database.execute("DELETE FROM repeats")

    def known(self, ids: Sequence[str]) -> dict[str, Known]:
        """Return what is known of those ids that have an outcome."""
        rows = self._where_in("SELECT id, sha256, reason IS NULL FROM entries WHERE id", ids)
        return {identifier: Known(sha256, bool(accepted)) for identifier, sha256, accepted in rows}

    def met(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that this walk has met before."""
        return {row[0] for row in self._where_in("SELECT id FROM places WHERE id", ids)}

    def names(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the vectors of those names that have one."""
        rows = self._where_in("SELECT text, vector FROM names WHERE text", texts)
        return {text: np.frombuffer(vector, np.float16) for text, vector in rows}

    def _where_in(self, query: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(values), _IDS_PER_QUERY):
            some = values[start : start + _IDS_PER_QUERY]
            yield from self._database.execute(f"{query} IN ({','.join('?' * len(some))})", list(some))

    def place(self, places: Iterable[tuple[int, str]], repeats: Iterable[tuple[int, str]]) -> None:
        """Write where the walk met entries, and ids that it met again."""
        with self._transaction() as database:
            database.executemany("INSERT INTO places (position, id) VALUES (?, ?)", places)
            database.executemany("INSERT INTO repeats VALUES (?, ?)", repeats)

    def commit(self, records: Iterable[Record], names: Iterable[tuple[str, np.ndarray]] = ()) -> None:
        """Write in one transaction: outcomes, and names with their vectors.

        A record of an unchanged entry brings new metadata only.
        """
        with self._transaction() as database:
            for one in records:
                if one.unchanged:
                    database.execute("UPDATE entries SET given = ? WHERE id = ?", (_json(one.given), one.id))
                else:
                    database.execute("INSERT OR REPLACE INTO entries VALUES (?,?,?,?,?,?,?,?)", _values(one))
            database.executemany("INSERT OR REPLACE INTO names VALUES (?, ?)", ((text, _blob(v)) for text, v in names))

    def is_empty(self) -> bool:
        """Tell whether no entry has an outcome yet."""
        return self._database.execute("SELECT 1 FROM entries LIMIT 1").fetchone() is None

    def has_vectors(self) -> bool:
        """Tell whether any entry was encoded, so that resuming saves work."""
        return self._database.execute("SELECT 1 FROM entries WHERE clap IS NOT NULL LIMIT 1").fetchone() is not None

    def count_clips(self) -> int:
        """Count the clips that the bank will hold."""
        query = f"SELECT COUNT(*) FROM ({_MET}) WHERE id = first_id"
        return int(self._database.execute(query).fetchone()[0])

    def clips(self) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
        """Yield table row, CLAP vector and knowledge vector of the bank's clips, in the order of the source."""
        query = f"SELECT id, given, measured, clap, knowledge FROM ({_MET}) WHERE id = first_id ORDER BY position"
        for identifier, given, measured, clap, knowledge in self._database.execute(query):
            row = {"id": identifier, **json.loads(given), **json.loads(measured)}
            yield row, np.frombuffer(clap, np.float16), np.frombuffer(knowledge, np.float16)

    def rejected(self) -> Iterator[dict[str, Any]]:
        """Yield what is not in the bank and why, in the order of the source."""
        query = f"""
            SELECT position, id, reason, detail, given, first_id FROM ({_MET}) WHERE first_id IS NULL OR id != first_id
            UNION ALL SELECT position, id, 'duplicate-id', 'an earlier entry has the same id', '{{}}', NULL FROM repeats
            ORDER BY position
        """
        for _, identifier, reason, detail, given, first_id in self._database.execute(query):
            if first_id is not None:
                reason, detail = "duplicate", f"same content as {first_id}"
            yield {"id": identifier, "path": json.loads(given).get("path"), "reason": reason, "detail": detail}


def remove_journal(path: Path) -> None:
    """Remove the files of a journal that is closed."""
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _values(one: Record) -> tuple[Any, ...]:
    reason, detail = one.problem or (None, None)
    measured = json.dumps(one.measured) if one.measured else None
    vectors = (_blob(one.clap_vector), _blob(one.knowledge_vector))
    if detail:
        detail = detail.encode("utf-8", "backslashreplace").decode()  # of a message, which may hold any bytes
    return (one.id, one.sha256, reason, detail, _json(one.given), measured, *vectors)


def _blob(vector: np.ndarray | None) -> bytes | None:
    return None if vector is None else np.ascontiguousarray(vector, np.float16).tobytes()
