"""Cache answers on disk, so that no request is sent twice, not even after the process was killed.

One SQLite file. An answer is in it before anything is made of it; a process that is killed loses at most the answers
that were in flight.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from audiobert.errors import ArtefactError, RemoteError
from audiobert.llm.chat import Completion, Engine, Request
from audiobert.llm.settings import ServerSettings

_ANSWERS = """
CREATE TABLE IF NOT EXISTS answers (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
  prompt_tokens INTEGER, completion_tokens INTEGER) WITHOUT ROWID;
"""


class AnswerCache:
    """Answers by request, in one SQLite file."""

    TABLES: ClassVar[dict[str, str]] = {"answers": _ANSWERS}

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._faults():
            self._database = sqlite3.connect(self.path, timeout=60)
        try:
            with self._faults():
                others = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master")}
                if foreign := {name for name in others if not name.startswith("sqlite_")} - set(self.TABLES):
                    raise ArtefactError(
                        f"{self.path} is a database of something else (it has {', '.join(sorted(foreign))}); "
                        "give another folder"
                    )
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
                self._database.executescript("".join(self.TABLES.values()))
        except ArtefactError:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn SQLite's errors into one line."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ArtefactError(
                f"{self.path} cannot be read or written ({error}): make room on the disk or mend its permissions, and "
                "run the same command again; the answers so far are kept"
            ) from None
        except sqlite3.DatabaseError as error:
            raise ArtefactError(
                f"{self.path} is no cache of answers ({error}); move it away to send every request again"
            ) from None

    def answer(self, key: str) -> Completion | None:
        """Return the answer to a request, or None if it is not cached."""
        with self._faults():
            row = self._database.execute(
                "SELECT text, finish, prompt_tokens, completion_tokens FROM answers WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else Completion(*row)

    def keep(self, model: str, answers: Iterable[tuple[str, Completion]]) -> None:
        """Keep answers by key, all or none of them. The first answer to a request stays."""
        rows = [(key, model, one.text, one.finish, one.prompt_tokens, one.completion_tokens) for key, one in answers]
        with self._faults(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)

    def __len__(self) -> int:
        """Return the number of cached answers."""
        with self._faults():
            return int(self._database.execute("SELECT COUNT(*) FROM answers").fetchone()[0])


def answer_key(settings: ServerSettings, request: Request, **more: Any) -> str:
    """Return the key of a request: SHA-256 of model, chat, schema and sampling settings, and of what is given by name.

    The server is not part of it: the same model elsewhere gives the same answers.
    """
    own = {"model": settings.model, "sampling": settings.sampling()}
    parts = {**own, "messages": request.messages, "schema": request.schema, **more}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def complete_once(
    requests: Sequence[Request], keys: Sequence[str], cache: AnswerCache, model: str, engine: Callable[[], Engine]
) -> Iterator[list[tuple[int, Completion]]]:
    """Complete chats, those in the cache first; requests with equal keys are sent once.

    Answers are in the cache before they are yielded, with their index in `requests`. The engine is made only if
    something is missing in the cache, so a run whose answers are all cached needs no server, key or model. If it fails
    for good, the message says how many answers are cached.
    """
    places: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    known = {key: answer for key in places if (answer := cache.answer(key)) is not None}
    kept = [(index, answer) for key, answer in known.items() for index in places[key]]
    if kept:
        yield kept
    missing = [key for key in places if key not in known]
    if not missing:
        return
    answered = len(kept)
    try:
        for group in engine().complete([requests[places[key][0]] for key in missing]):
            cache.keep(model, [(missing[number], one) for number, one in group if one.is_answer])
            everywhere = [(index, one) for number, one in group for index in places[missing[number]]]
            answered += len(everywhere)
            yield everywhere
    except RemoteError as error:
        raise RemoteError(
            f"{error}; {answered} of {len(requests)} answers are kept in {cache.path}, run the same command again to "
            "resume"
        ) from None
