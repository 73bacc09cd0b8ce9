"""What has been answered and measured so far, on disk: a run that was killed asks and measures nothing twice.

One SQLite file beside the outputs. An answer is in it before anything is made of it; a process that is killed loses at
most the answers that were still on their way.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from audiobert.errors import ArtefactError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
  prompt_tokens INTEGER, completion_tokens INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS measurements (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Store:
    """Answers by question and measurements by file, kept in one SQLite file.

    Parameters
    ----------
    path
        The file; made when it does not exist.

    Raises
    ------
    ArtefactError
        When the file is no such store.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ArtefactError(
                f"{self.path} is no store of answers ({error}); remove it to ask everything again"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def answer(self, key: str) -> dict[str, Any] | None:
        """The answer to a question, as `text`, `finish`, `prompt_tokens`, `completion_tokens`; None when not asked."""
        row = self._database.execute(
            "SELECT text, finish, prompt_tokens, completion_tokens FROM answers WHERE key = ?", (key,)
        ).fetchone()
        return (
            None
            if row is None
            else dict(zip(("text", "finish", "prompt_tokens", "completion_tokens"), row, strict=True))
        )

    def keep_answer(
        self,
        key: str,
        model: str,
        text: str,
        finish: str,
        prompt_tokens: int | None,
        completion_tokens: int | None,
    ) -> None:
        """Keep an answer; the first one for a key stays."""
        self._database.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)",
            (key, model, text, finish, prompt_tokens, completion_tokens),
        )

    def answers(self) -> int:
        """How many answers are kept."""
        return int(self._database.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def measurement(self, key: str) -> Any | None:
        """A kept measurement, or None."""
        row = self._database.execute("SELECT value FROM measurements WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_measurement(self, key: str, value: Any) -> None:
        """Keep a measurement (anything that JSON can hold)."""
        self._database.execute("INSERT OR REPLACE INTO measurements VALUES (?, ?)", (key, json.dumps(value)))
