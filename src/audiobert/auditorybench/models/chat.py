"""A model behind an OpenAI-compatible server: retries, a limit on what runs at once, and a cache of answers on disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from audiobert.artefacts import read_json, write_json
from audiobert.auditorybench.protocol import Prediction, ProtocolName, score_replies
from audiobert.auditorybench.questions import Question
from audiobert.errors import ArtefactError, InputError, RemoteError

# Answers that a later try may change: too many requests, a gateway's or server's passing fault.
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class ChatOptions:
    """How a server is asked.

    Attributes
    ----------
    concurrency
        Requests under way at once.
    retries
        Further tries after a passing fault, with pauses of `pause_s`, twice that, ... or as the server says.
    key_variable
        The environment variable with the key; a server on one's own machine needs none.
    cache
        Folder of answers; what lies there is not asked again.
    """

    base_url: str
    concurrency: int = 8
    retries: int = 4
    pause_s: float = 1.0
    timeout_s: float = 60.0
    max_tokens: int = 32
    temperature: float = 0.0
    key_variable: str = "OPENAI_API_KEY"
    cache: Path | None = None


def default_cache() -> Path:
    """Where answers are kept unless told otherwise: `audiobert/answers` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "audiobert" / "answers"


class ChatModel:
    """An adapter for `POST {base_url}/chat/completions`.

    Raises
    ------
    RemoteError
        When the server is down, refuses, or answers something else than a chat completion, after all tries. The
        answers that came before are in the cache, and asking again goes on from there.
    """

    kind = "chat"

    def __init__(self, name: str, options: ChatOptions, *, transport: httpx.BaseTransport | None = None) -> None:
        if not options.base_url.startswith(("http://", "https://")):
            raise InputError(f"--base-url '{options.base_url}' is no http(s) address, like http://127.0.0.1:8000/v1")
        self.name = name
        self.options = options
        self.cache = options.cache if options.cache is not None else default_cache()
        settings = asdict(options)
        self.artefacts: dict[str, Any] = {
            "name": name,
            **{key: settings[key] for key in ("base_url", "max_tokens", "temperature")},
        }
        headers = {}
        if key := os.environ.get(options.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        self._client = httpx.Client(
            base_url=options.base_url.rstrip("/") + "/",
            headers=headers,
            timeout=options.timeout_s,
            transport=transport,
            limits=httpx.Limits(max_connections=options.concurrency),
        )

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        yield from score_replies(self, questions, protocol)

    def _request(self, question: Question) -> dict[str, Any]:
        return {
            "model": self.name,
            "messages": [{"role": "user", "content": question.chat}],
            "temperature": self.options.temperature,
            "max_tokens": self.options.max_tokens,
        }

    def _cached(self, request: dict[str, Any]) -> Path:
        key = json.dumps({"base_url": self.options.base_url.rstrip("/"), **request}, sort_keys=True)
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.cache / digest[:2] / f"{digest}.json"

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Replies to all questions, those in the cache first."""
        missing: list[int] = []
        for index, question in enumerate(questions):
            path = self._cached(self._request(question))
            if path.is_file():
                try:
                    yield index, str(read_json(path)["reply"])
                    continue
                except (ArtefactError, KeyError, TypeError):
                    path.unlink(missing_ok=True)  # a damaged answer is asked again
            missing.append(index)
        yield from self._ask_all(questions, missing)

    def _ask_all(self, questions: Sequence[Question], missing: list[int]) -> Iterator[tuple[int, str]]:
        done = 0
        with ThreadPoolExecutor(self.options.concurrency) as pool:
            waiting: dict[Future[str], int] = {}
            queue = iter(missing)
            try:
                while True:
                    # A short queue ahead of the workers, so that a fault does not leave hundreds of requests under way.
                    while len(waiting) < 2 * self.options.concurrency and (index := next(queue, None)) is not None:
                        waiting[pool.submit(self._ask, questions[index])] = index
                    if not waiting:
                        return
                    finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        index = waiting.pop(future)
                        yield index, future.result()
                        done += 1
            except RemoteError as error:
                for future in waiting:
                    future.cancel()
                # Those under way end and are kept too.
                kept = done + sum(not f.cancelled() and f.exception() is None for f in waiting)
                have = len(questions) - len(missing) + kept
                raise RemoteError(
                    f"{error}; {have} of {len(questions)} answers are kept in {self.cache}, run it again to go on"
                ) from None

    def _ask(self, question: Question) -> str:
        request = self._request(question)
        last = ""
        for attempt in range(self.options.retries + 1):
            pause = self.options.pause_s * 2**attempt * random.uniform(0.8, 1.2)
            try:
                response = self._client.post("chat/completions", json=request)
            except httpx.TimeoutException:
                last = f"gave no answer within {self.options.timeout_s:g} s"
            except httpx.HTTPError as error:
                last = f"cannot be reached ({error})"
            else:
                if response.is_success:
                    reply = self._reply(response)
                    if reply is not None:
                        write_json(self._cached(request), {"request": request, "reply": reply})
                        return reply
                    last = f"answered no chat completion: {response.text[:80]!r}"
                elif response.status_code in _PASSING:
                    last = f"answered {response.status_code}"
                    asked = response.headers.get("retry-after", "")
                    pause = max(pause, float(asked)) if asked.replace(".", "", 1).isdigit() else pause
                else:
                    detail = " ".join(response.text.split())[:120]
                    raise RemoteError(
                        f"the server {self.options.base_url} refused {question.where}: {response.status_code} {detail}"
                    )
            if attempt < self.options.retries:
                time.sleep(min(pause, _LONGEST_PAUSE_S))
        tries = self.options.retries + 1
        raise RemoteError(f"the server {self.options.base_url} {last} ({question.where}, {tries} tries)")

    @staticmethod
    def _reply(response: httpx.Response) -> str | None:
        """The reply's text, or None when the body is no chat completion."""
        try:
            content = response.json()["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError):
            return None
        return content if isinstance(content, str) else None
