"""The door to a language model: a question and a schema in, a checked answer out.

Any server that speaks OpenAI's chat completions (vLLM, SGLang, llama.cpp, Ollama, a hosted service) by base URL. The
key is read from the environment at the moment of use and is never kept, logged or written.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from audiobert.errors import AudioBertError, InputError, MissingExtraError, RemoteError

_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_NOT_UNDERSTOOD_STATUS = frozenset({400, 404, 413, 415, 422, 501})
_REFUSALS_IN_A_ROW = (
    8  # as many refused questions without one answer mean that the settings are wrong, not the question
)
_SECRET_NAME = re.compile(r"key|token|secret|password|signature", re.IGNORECASE)
_Format = Literal["json_schema", "json_object", "none"]
_WEAKER: dict[_Format, _Format] = {"json_schema": "json_object", "json_object": "none"}


class LlmSettings(BaseModel):
    """Which language model is asked, and how.

    Attributes
    ----------
    engine
        `http` (a server), `local` (transformers in this process) or `ray` (Ray Data with vLLM).
    base_url
        Of the server, up to and with `/v1`.
    model
        The name that the server knows, or a hub id or folder for `local` and `ray`.
    api_key_env
        Name of the environment variable that holds the key; never the key itself.
    structured
        How the schema is asked for: `auto` tries JSON schema, then JSON mode, then the prompt alone.
    requests_per_minute, tokens_per_minute
        Limits of the service; None for none.
    timeout_s
        For one whole request.
    max_attempts, backoff_s, backoff_max_s
        How often one request is tried, and the first and longest wait between (random, doubling; a `Retry-After` of
        the server comes first).
    input_price, output_price
        Per million tokens, in the currency of `max_cost`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["http", "local", "ray"] = "http"
    base_url: str = "http://127.0.0.1:8000/v1"
    model: str
    api_key_env: str | None = None
    temperature: float = Field(default=0.6, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(default=400, ge=16)
    seed: int = 0
    extra_body: dict[str, Any] = {}
    structured: Literal["auto", "json_schema", "json_object", "none"] = "auto"
    concurrency: int = Field(default=8, ge=1)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=120.0, gt=0)
    max_attempts: int = Field(default=8, ge=1)
    backoff_s: float = Field(default=1.0, ge=0)
    backoff_max_s: float = Field(default=60.0, ge=0)
    input_price: float = Field(default=0.0, ge=0)
    output_price: float = Field(default=0.0, ge=0)
    max_cost: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, ge=1)
    engine_kwargs: dict[str, Any] = {}

    @field_validator("base_url")
    @classmethod
    def _no_secret_in_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give a URL such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or any(_SECRET_NAME.search(name) for name, _ in parse_qsl(parts.query)):
            raise ValueError("no key in the URL: put it into an environment variable and name that in api_key_env")
        return url

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,60}", name):
            raise ValueError("give the name of an environment variable, not the key itself")
        return name

    @field_validator("extra_body", "engine_kwargs")
    @classmethod
    def _no_secret_in_body(cls, body: dict[str, Any]) -> dict[str, Any]:
        if any(re.search(r"api.?key|secret|password|authorization", name, re.IGNORECASE) for name in body):
            raise ValueError("no key here: put it into an environment variable and name that in api_key_env")
        return body

    def sampling(self) -> dict[str, Any]:
        """The settings that decide what the model answers; part of the key of a cached answer."""
        chosen = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        return {**chosen, "seed": self.seed, **self.extra_body}

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of so many tokens."""
        return (prompt_tokens * self.input_price + completion_tokens * self.output_price) / 1_000_000


@dataclass(frozen=True)
class Request:
    """A chat to be completed, and the JSON schema that the completion shall fit."""

    messages: tuple[dict[str, str], ...]
    schema_name: str
    schema: dict[str, Any]


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    `finish` is `stop`, `length`, `content_filter`, or `refused` when the server took the question for a bad one (the
    text is then the server's message, and the completion is not kept).
    """

    text: str
    finish: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Engine(Protocol):
    """Completes chats; calls `done` with the index and the completion of each as soon as it is there."""

    def complete(self, requests: Sequence[Request], done: Callable[[int, Completion], None]) -> None: ...


@dataclass
class Traffic:
    """What went over the wire in this run."""

    requests: int = 0
    retries: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    without_usage: int = 0

    def fault(self, what: str) -> None:
        """Count a failed request under its name."""
        self.faults[what] = self.faults.get(what, 0) + 1

    def count(self, completion: Completion) -> None:
        """Count the tokens of a completion."""
        if completion.prompt_tokens is None or completion.completion_tokens is None:
            self.without_usage += 1
        self.prompt_tokens += completion.prompt_tokens or 0
        self.completion_tokens += completion.completion_tokens or 0


class _PassingFaultError(Exception):
    """A fault that may pass: the request is tried again."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


def _retry_after(value: str | None) -> float | None:
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


class _Pace:
    """Lets requests through at the service's rate; all wait when the server has asked for a pause."""

    def __init__(self, settings: LlmSettings) -> None:
        self._interval_s = 60.0 / settings.requests_per_minute if settings.requests_per_minute else 0.0
        self._token_s = 60.0 / settings.tokens_per_minute if settings.tokens_per_minute else 0.0
        self._next = 0.0
        self._paused_until = 0.0

    async def turn(self) -> None:
        loop = asyncio.get_running_loop()
        start = max(loop.time(), self._next)
        self._next = start + self._interval_s
        while (wait := max(start, self._paused_until) - loop.time()) > 0:
            await asyncio.sleep(wait)

    def spent(self, tokens: int) -> None:
        self._next += max(0.0, tokens * self._token_s - self._interval_s)

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)


class ChatServer:
    """An OpenAI-compatible server.

    Raises
    ------
    InputError
        When the environment variable that shall hold the key is empty.
    """

    def __init__(self, settings: LlmSettings, traffic: Traffic) -> None:
        self.settings, self.traffic = settings, traffic
        self._format: _Format = "json_schema" if settings.structured == "auto" else settings.structured
        self._answered = self._refused = 0
        self._key()

    def _key(self) -> str | None:
        name = self.settings.api_key_env
        if name is None:
            return None
        if not (key := os.environ.get(name, "").strip()):
            raise InputError(f"the environment variable {name} (llm.api_key_env) is empty; put the key into it")
        return key

    def _redact(self, text: str) -> str:
        key = self._key()
        return text.replace(key, "***") if key else text

    def complete(self, requests: Sequence[Request], done: Callable[[int, Completion], None]) -> None:
        """Complete chats, `concurrency` at a time.

        Raises
        ------
        RemoteError
            When the server refuses the key or the model, or a request fails `max_attempts` times.
        """
        asyncio.run(self._complete(requests, done))

    async def _complete(self, requests: Sequence[Request], done: Callable[[int, Completion], None]) -> None:
        import httpx

        pace = _Pace(self.settings)
        waiting = iter(enumerate(requests))
        limits = httpx.Limits(max_connections=self.settings.concurrency)
        # The deadline of a whole request is asyncio's; httpx knows only pauses between bytes.
        async with httpx.AsyncClient(timeout=self.settings.timeout_s, limits=limits, follow_redirects=False) as client:

            async def work() -> None:
                for index, request in waiting:
                    done(index, await self._patiently(client, pace, request))

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.settings.concurrency, len(requests))):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                known = [error for error in errors.exceptions if isinstance(error, AudioBertError)]
                raise (known or errors.exceptions)[0] from None

    async def _patiently(self, client: Any, pace: _Pace, request: Request) -> Completion:
        try:
            import tenacity
        except ImportError:
            raise MissingExtraError("tenacity", "construct") from None

        backoff = tenacity.wait_random_exponential(multiplier=self.settings.backoff_s, max=self.settings.backoff_max_s)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait_s if isinstance(error, _PassingFaultError) else None
            if asked is not None:
                pace.pause(min(asked, self.settings.backoff_max_s))
                return min(asked, self.settings.backoff_max_s)
            return backoff(state)

        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self.settings.max_attempts),
            wait=wait,
            retry=tenacity.retry_if_exception_type(_PassingFaultError),
        )
        try:
            async for attempt in retrying:
                with attempt:
                    if attempt.retry_state.attempt_number > 1:
                        self.traffic.retries += 1
                    await pace.turn()
                    completion = await self._ask(client, request)
                    pace.spent((completion.prompt_tokens or 0) + (completion.completion_tokens or 0))
        except tenacity.RetryError as error:
            last = error.last_attempt.exception()
            raise RemoteError(
                f"{self.settings.base_url} failed {self.settings.max_attempts} times, at last with: {last}; what was "
                "answered is kept, run the same command again to go on"
            ) from None
        return completion

    async def _ask(self, client: Any, request: Request) -> Completion:
        import httpx

        chosen = self._format
        body: dict[str, Any] = {"model": self.settings.model, "messages": list(request.messages)}
        body |= self.settings.sampling()
        if chosen == "json_schema":
            schema = {"name": request.schema_name, "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif chosen == "json_object":
            body["response_format"] = {"type": "json_object"}
        key = self._key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = self.settings.base_url.rstrip("/") + "/chat/completions"
        self.traffic.requests += 1
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                response = await client.post(url, json=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            self.traffic.fault("timeout")
            raise _PassingFaultError(f"no whole answer in {self.settings.timeout_s:g} s") from None
        except httpx.TransportError as error:
            self.traffic.fault(type(error).__name__)
            raise _PassingFaultError(self._redact(f"{type(error).__name__} {error}".strip())) from None
        if response.status_code != 200:
            self.traffic.fault(str(response.status_code))
            return await self._not_ok(client, request, response, chosen)
        completion = self._read(response)
        self._answered += 1
        self.traffic.count(completion)
        return completion

    async def _not_ok(self, client: Any, request: Request, response: Any, chosen: _Format) -> Completion:
        status = response.status_code
        said = self._redact(" ".join(response.text.split())[:200])
        if status in _RETRIED_STATUS:
            raise _PassingFaultError(f"HTTP {status} {said}".strip(), _retry_after(response.headers.get("retry-after")))
        if status in (401, 403):
            name = self.settings.api_key_env
            raise RemoteError(
                f"{self.settings.base_url} refuses the request (HTTP {status}); "
                + (f"check the key in {name}" if name else "name the variable that holds a key in llm.api_key_env")
            )
        if status == 404 and not self._answered:
            raise RemoteError(
                f"{self.settings.base_url} knows no chat completions or no model '{self.settings.model}' "
                f"(HTTP 404 {said}); check llm.base_url and llm.model"
            )
        if status in _NOT_UNDERSTOOD_STATUS:
            about_format = not self._answered or re.search(r"response_format|json_schema|schema", said, re.IGNORECASE)
            if self.settings.structured == "auto" and chosen in _WEAKER and about_format:
                if self._format == chosen:
                    self._format = _WEAKER[chosen]
                return await self._ask(client, request)
            self._refused += 1
            if self._refused >= _REFUSALS_IN_A_ROW and not self._answered:
                raise RemoteError(
                    f"{self.settings.base_url} refused {self._refused} questions and answered none "
                    f"(HTTP {status} {said}); check llm.model, llm.structured and llm.extra_body"
                )
            return Completion(f"HTTP {status} {said}", "refused")
        raise RemoteError(f"{self.settings.base_url} answered HTTP {status} {said}; check llm.base_url")

    def _read(self, response: Any) -> Completion:
        try:
            value = response.json()
            choice = value["choices"][0]
            text = choice["message"].get("content") or ""
            if not isinstance(text, str):
                raise TypeError("content is no text")
            usage = value.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            finish = str(choice.get("finish_reason") or "stop")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            self.traffic.fault("broken body")
            raise _PassingFaultError(f"the body is no chat completion ({type(error).__name__})") from None
        if choice["message"].get("refusal"):
            finish = "content_filter"
        prompt_tokens, completion_tokens = (count if isinstance(count, int) else None for count in counts)
        return Completion(self._redact(text), finish, prompt_tokens, completion_tokens)
