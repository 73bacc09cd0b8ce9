"""What a build has done so far, in an SQLite file: a kill loses the block at hand and nothing else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiobert.errors import ArtefactError

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    id TEXT NOT NULL UNIQUE, stamp TEXT, sha256 TEXT, reason TEXT, detail TEXT,
    given TEXT, measured TEXT, clap BLOB, knowledge BLOB
);
CREATE TABLE IF NOT EXISTS places (id TEXT PRIMARY KEY, position INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS repeats (position INTEGER PRIMARY KEY, id TEXT NOT NULL);
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


@dataclass
class Record:
    """One entry's outcome: vectors and measurements, or a reason why it was rejected, or that it is unchanged."""

    id: str
    sha256: str | None
    given: dict[str, Any]
    stamp: str | None = None
    problem: tuple[str, str] | None = None
    measured: dict[str, Any] | None = None
    unchanged: bool = False
    clap_vector: np.ndarray | None = None  # (clap_dim,) float16
    knowledge_vector: np.ndarray | None = None  # (hidden_size,) float16


@dataclass(frozen=True)
class Known:
    """What the journal knows about an id."""

    stamp: str | None
    sha256: str | None
    accepted: bool


class Journal:
    """The build's memory on disk. One process writes it.

    Raises
    ------
    ArtefactError
        When the file is damaged, or belongs to a build with other facts (models, settings) than `facts`.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_TABLES)
            self._check(facts)
        except sqlite3.DatabaseError as error:
            raise ArtefactError(f"{path} is damaged ({error}); build again with --overwrite") from None

    def _check(self, facts: dict[str, Any]) -> None:
        stored = dict(self._database.execute("SELECT name, value FROM facts"))
        for name, value in facts.items():
            text = json.dumps(value, sort_keys=True)
            if name not in stored:
                self._database.execute("INSERT INTO facts VALUES (?, ?)", (name, text))
            elif stored[name] != text:
                raise ArtefactError(
                    f"the unfinished build in {self.path.parent} has {name} {stored[name]}, this one has {text}; "
                    "go on with the same models and settings, or start again with --overwrite"
                )

    def close(self) -> None:
        self._database.close()

    def begin_walk(self) -> None:
        """Forget where entries stood: the source is about to be walked from its start."""
        self._database.execute("DELETE FROM places")
        self._database.execute("DELETE FROM repeats")

    def known(self, ids: Sequence[str]) -> dict[str, Known]:
        """What is known of those ids that have an outcome."""
        query = f"SELECT id, stamp, sha256, reason IS NULL FROM entries WHERE id IN ({_marks(ids)})"
        return {
            identifier: Known(stamp, sha256, bool(accepted))
            for identifier, stamp, sha256, accepted in self._database.execute(query, list(ids))
        }

    def met(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that this walk has met before."""
        query = f"SELECT id FROM places WHERE id IN ({_marks(ids)})"
        return {row[0] for row in self._database.execute(query, list(ids))}

    def commit(
        self,
        records: Iterable[Record] = (),
        unchanged: Iterable[Record] = (),
        places: Iterable[tuple[int, str]] = (),
        repeats: Iterable[tuple[int, str]] = (),
    ) -> None:
        """Write in one go: outcomes, what is unchanged but may have new metadata, where entries stand, repeated ids."""
        database = self._database
        database.execute("BEGIN")
        try:
            database.executemany("INSERT OR REPLACE INTO entries VALUES (?,?,?,?,?,?,?,?,?)", map(_values, records))
            database.executemany(
                "UPDATE entries SET stamp = ?, given = ? WHERE id = ?",
                [(one.stamp, _json(one.given), one.id) for one in unchanged],
            )
            database.executemany("INSERT INTO places (position, id) VALUES (?, ?)", places)
            database.executemany("INSERT INTO repeats VALUES (?, ?)", repeats)
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")

    def is_empty(self) -> bool:
        """Whether no entry has an outcome yet."""
        return self._database.execute("SELECT 1 FROM entries LIMIT 1").fetchone() is None

    def count_clips(self) -> int:
        """Clips that the bank will hold."""
        query = f"SELECT COUNT(*) FROM ({_MET}) WHERE id = first_id"
        return int(self._database.execute(query).fetchone()[0])

    def clips(self) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
        """Table row, CLAP vector and knowledge vector of the bank's clips, in the order of the source."""
        query = f"SELECT id, given, measured, clap, knowledge FROM ({_MET}) WHERE id = first_id ORDER BY position"
        for identifier, given, measured, clap, knowledge in self._database.execute(query):
            row = {"id": identifier, **json.loads(given), **json.loads(measured)}
            yield row, np.frombuffer(clap, np.float16), np.frombuffer(knowledge, np.float16)

    def rejected(self) -> Iterator[dict[str, Any]]:
        """What is not in the bank and why, in the order of the source."""
        query = f"""
            SELECT position, id, reason, detail, given, first_id FROM ({_MET}) WHERE first_id IS NULL OR id != first_id
            UNION ALL SELECT position, id, 'duplicate-id', 'an earlier entry has the same id', '{{}}', NULL FROM repeats
            ORDER BY position
        """
        for _, identifier, reason, detail, given, first_id in self._database.execute(query):
            if first_id is not None:
                reason, detail = "duplicate", f"same content as {first_id}"
            yield {"id": identifier, "path": json.loads(given).get("path"), "reason": reason, "detail": detail}


def _marks(ids: Sequence[str]) -> str:
    return ",".join("?" * len(ids))


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _values(one: Record) -> tuple[Any, ...]:
    reason, detail = one.problem or (None, None)
    measured = json.dumps(one.measured) if one.measured else None
    vectors = (_blob(one.clap_vector), _blob(one.knowledge_vector))
    return (one.id, one.stamp, one.sha256, reason, detail, _json(one.given), measured, *vectors)


def _blob(vector: np.ndarray | None) -> bytes | None:
    return None if vector is None else np.ascontiguousarray(vector, np.float16).tobytes()
