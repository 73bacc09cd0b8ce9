"""Send chats to a server: retries, rate limits, redaction of the key, and connections that are closed.

The API is that of OpenAI's chat completions (vLLM, SGLang, llama.cpp, Ollama, a hosted service). The key is read from
the environment when a request is sent. It is never kept, logged or written.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from audiobert.errors import InputError, RemoteError, needs
from audiobert.llm.chat import Completion, Request, Traffic
from audiobert.llm.settings import ServerSettings, is_loopback

_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_NOT_UNDERSTOOD_STATUS = frozenset({400, 404, 413, 415, 422, 501})
# This many refusals without one answer mean that the settings are wrong, not the requests.
_REFUSALS_BEFORE_AN_ANSWER = 8
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_Format = Literal["json_schema", "json_object", "none"]
_WEAKER: dict[_Format, _Format] = {"json_schema": "json_object", "json_object": "none"}


class _PassingFaultError(Exception):
    """A fault that may pass, so that the request is sent again."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header, which holds a number or a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if seconds == seconds else None


class _Pace:
    """Limiter of requests to the service's rate. All requests wait if the server demands a pause."""

    def __init__(self, settings: ServerSettings) -> None:
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
    """An OpenAI-compatible server; `extra` is that of the caller, for the message if tenacity is missing."""

    def __init__(self, settings: ServerSettings, traffic: Traffic | None = None, *, extra: str = "eval") -> None:
        with needs("tenacity", extra):
            import tenacity  # noqa: F401
        self.settings, self.traffic = settings, traffic or Traffic()
        self._format: _Format = "json_schema" if settings.structured == "auto" else settings.structured
        self._answered = self._refused = 0
        self._key()

    def _key(self) -> str | None:
        name = self.settings.api_key_env
        if name is None:
            return None
        if not (key := os.environ.get(name, "").strip()):
            raise InputError(f"the environment variable {name} (api_key_env) is empty; put the key into it")
        if not all("!" <= character <= "~" for character in key):
            raise InputError(
                f"the environment variable {name} (api_key_env) holds blanks, line breaks or characters outside "
                "ASCII, so it is not a key; put the key alone into it"
            )
        return key

    def _redact(self, text: str) -> str:
        text = _LONE_SURROGATE.sub("\ufffd", text)
        key = self._key()
        return text.replace(key, "***") if key else text

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completion]]]:
        """Complete chats, at most `concurrency` at a time; yield completions as they arrive.

        The requests run on an event loop in a thread of their own, so this works within a running loop (a notebook)
        too. A new request is sent only after the caller has taken the last group, so at most `concurrency`
        completions are lost if the process is killed. All connections are closed at the end, also at an early one. A
        server that refuses the key or the model, and a request that fails `max_attempts` times, end it (RemoteError).
        """
        from anyio.from_thread import start_blocking_portal

        with start_blocking_portal() as portal:
            arriving = self._arriving(requests)
            while (group := portal.call(anext, arriving, None)) is not None:
                yield group

    async def _arriving(self, requests: Sequence[Request]) -> AsyncIterator[list[tuple[int, Completion]]]:
        import httpx

        pace, queue = _Pace(self.settings), iter(enumerate(requests))
        limits = httpx.Limits(max_connections=self.settings.concurrency)
        # The deadline of a whole request is asyncio's; httpx only knows pauses between bytes. A proxy of the
        # environment would see what is sent to this machine.
        client = httpx.AsyncClient(
            timeout=self.settings.timeout_s,
            limits=limits,
            follow_redirects=False,
            trust_env=not is_loopback(self.settings.base_url),
        )
        flying: dict[asyncio.Task[Completion], int] = {}
        try:
            while True:
                while len(flying) < self.settings.concurrency and (one := next(queue, None)) is not None:
                    flying[asyncio.create_task(self._with_retries(client, pace, one[1]))] = one[0]
                if not flying:
                    return
                done, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                arrived = [(flying[task], task.result()) for task in done if task.exception() is None]
                if arrived:
                    yield arrived
                for task in done:
                    del flying[task]
                    task.result()  # raises the fault of a request that failed for good
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
            await client.aclose()

    async def _with_retries(self, client: Any, pace: _Pace, request: Request) -> Completion:
        import tenacity

        backoff = tenacity.wait_random_exponential(multiplier=self.settings.backoff_s, max=self.settings.backoff_max_s)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            demanded = error.wait_s if isinstance(error, _PassingFaultError) else None
            if demanded is not None:
                pace.pause(min(demanded, self.settings.backoff_max_s))
                return min(demanded, self.settings.backoff_max_s)
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
                    completion = await self._send(client, request)
                    pace.spent((completion.prompt_tokens or 0) + (completion.completion_tokens or 0))
        except tenacity.RetryError as error:
            last = error.last_attempt.exception()
            raise RemoteError(
                f"{self.settings.base_url} failed {self.settings.max_attempts} times, at last with: {last}"
            ) from None
        return completion

    async def _send(self, client: Any, request: Request) -> Completion:
        import httpx

        chosen = self._format if request.schema is not None else "none"
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
            raise _PassingFaultError(f"no complete answer within {self.settings.timeout_s:g} s") from None
        except httpx.HTTPError as error:
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
        message = self._redact(" ".join(response.text.split()))[:200]
        if status in _RETRIED_STATUS:
            wait_s = _retry_after(response.headers.get("retry-after"))
            raise _PassingFaultError(f"HTTP {status} {message}".strip(), wait_s)
        if status in (401, 403):
            name = self.settings.api_key_env
            advice = f"check the key in {name}" if name else "no key was sent: name the variable that holds it"
            raise RemoteError(f"{self.settings.base_url} refuses the request (HTTP {status} {message}); {advice}")
        if status == 404 and not self._answered:
            raise RemoteError(
                f"{self.settings.base_url} knows no chat completions or no model '{self.settings.model}' "
                f"(HTTP 404 {message}); check the base URL and the model's name"
            )
        if status in _NOT_UNDERSTOOD_STATUS:
            about_format = not self._answered or re.search(r"response_format|json_schema|schema", message, re.I)
            if self.settings.structured == "auto" and chosen in _WEAKER and about_format:
                if self._format == chosen:
                    self._format = _WEAKER[chosen]
                return await self._send(client, request)
            self._refused += 1
            if self._refused >= _REFUSALS_BEFORE_AN_ANSWER and not self._answered:
                raise RemoteError(
                    f"{self.settings.base_url} refused {self._refused} requests and answered none "
                    f"(HTTP {status} {message}); check the model's name, `structured` and `extra_body`"
                )
            return Completion(f"HTTP {status} {message}".strip(), "refused")
        raise RemoteError(f"{self.settings.base_url} answered HTTP {status} {message}; check the base URL")

    def _read(self, response: Any) -> Completion:
        try:
            value = response.json()
            choice = value["choices"][0]
            content = choice["message"].get("content")
            if not isinstance(content, str | None):
                raise TypeError("content is not a string")
            usage = value.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            finish = str(choice.get("finish_reason") or "stop")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            self.traffic.fault("broken body")
            raise _PassingFaultError(f"the body is no chat completion ({type(error).__name__})") from None
        if choice["message"].get("refusal"):
            finish = "content_filter"
        elif content is None and finish == "stop":
            finish = "empty"
        prompt_tokens, completion_tokens = (count if isinstance(count, int) else None for count in counts)
        return Completion(self._redact(content or ""), finish, prompt_tokens, completion_tokens)
