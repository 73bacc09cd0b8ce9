"""Adapt a language model behind an OpenAI-compatible server to the benchmark."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from audiobert.auditorybench.protocol import Prediction, ProtocolName, score_replies
from audiobert.auditorybench.questions import Question
from audiobert.errors import InputError, RemoteError
from audiobert.llm.cache import AnswerCache, answer_key, complete_once
from audiobert.llm.chat import Request
from audiobert.llm.server import ChatServer
from audiobert.llm.settings import ServerSettings, is_private_channel

USUAL_KEY_VARIABLE = "OPENAI_API_KEY"


@dataclass(frozen=True)
class ChatOptions:
    """Options of requests to a server.

    `key_variable` is the environment variable that holds the key, which is sent to `base_url`. None: OPENAI_API_KEY if
    it is set, sent only over https or to this machine.
    """

    base_url: str
    concurrency: int = 8
    retries: int = 4  # further attempts after a passing fault
    pause_s: float = 1.0  # before the first of them; pauses are random and grow
    timeout_s: float = 60.0
    max_tokens: int = 32
    temperature: float = 0.0
    key_variable: str | None = None
    cache: Path | None = None  # folder of the answers; by default `audiobert/answers` in the user's cache folder

    def settings(self, model: str) -> ServerSettings:
        """Return the settings of the client."""
        key_variable = self.key_variable
        if not key_variable and os.environ.get(USUAL_KEY_VARIABLE) and is_private_channel(self.base_url):
            key_variable = USUAL_KEY_VARIABLE
        try:
            return ServerSettings(
                base_url=self.base_url,
                model=model,
                api_key_env=key_variable or None,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                concurrency=self.concurrency,
                timeout_s=self.timeout_s,
                max_attempts=self.retries + 1,
                backoff_s=self.pause_s,
            )
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            option = {"base_url": "--base-url", "api_key_env": "--key-variable"}.get(str(first["loc"][0]), first["loc"])
            raise InputError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None


def default_cache() -> Path:
    """Return the folder of the answers: `audiobert/answers` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "audiobert" / "answers"


class ChatModel:
    """An adapter for `POST {base_url}/chat/completions`; after a failure the same command resumes from the cache."""

    kind = "chat"

    def __init__(self, name: str, options: ChatOptions) -> None:
        self.name = name
        self.settings = options.settings(name)
        self.cache = (options.cache or default_cache()) / "answers.sqlite"
        self.artefacts: dict[str, Any] = {
            "name": name,
            **self.settings.model_dump(include={"base_url", "max_tokens", "temperature"}),
        }

    def answer(self, questions: Sequence[Question], protocol: ProtocolName) -> Iterator[tuple[int, Prediction]]:
        """Yield (position in `questions`, prediction)."""
        yield from score_replies(self, questions, protocol)

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Yield (position in `questions`, text of the reply), those in the cache first."""
        requests = [Request(({"role": "user", "content": question.chat},)) for question in questions]
        server = self.settings.base_url.rstrip("/")
        keys = [answer_key(self.settings, request, server=server) for request in requests]
        with AnswerCache(self.cache) as cache:
            for group in complete_once(requests, keys, cache, self.name, lambda: ChatServer(self.settings)):
                for index, completion in group:
                    if not completion.is_answer:
                        raise RemoteError(
                            f"{server} gave no answer to {questions[index].where} ({completion.finish}: "
                            f"{completion.text or 'no text'}); the other answers are kept in {self.cache}"
                        )
                    yield index, completion.text
