"""Store answers and measurements of a construction on disk, so that a resumed run repeats none."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from audiobert.llm.cache import AnswerCache

_MEASUREMENTS = """
CREATE TABLE IF NOT EXISTS measurements (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Store(AnswerCache):
    """Answers by request, and measurements by file, in one SQLite file."""

    TABLES: ClassVar = {**AnswerCache.TABLES, "measurements": _MEASUREMENTS}

    def measurement(self, key: str) -> Any | None:
        """Return a stored measurement, or None."""
        with self._faults():
            row = self._database.execute("SELECT value FROM measurements WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_measurement(self, key: str, value: Any) -> None:
        """Store a measurement (any JSON value)."""
        with self._faults(), self._database:
            self._database.execute("INSERT OR REPLACE INTO measurements VALUES (?, ?)", (key, json.dumps(value)))
