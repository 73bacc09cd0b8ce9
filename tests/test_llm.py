"""The client of a chat server and the cache of answers: retries, redaction, closed connections, faults of the disk."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from audiobert.errors import ArtefactError, InputError, RemoteError
from audiobert.llm.cache import AnswerCache, answer_key, complete_once
from audiobert.llm.chat import Completion, Request, Traffic
from audiobert.llm.server import ChatServer, _retry_after
from audiobert.llm.settings import ServerSettings, is_loopback
from scripted_server import Fault, ScriptedServer

REQUESTS = [Request(({"role": "user", "content": f"question {number}"},)) for number in range(12)]


def _echo(_: str, fields: dict[str, Any]) -> str:
    return fields["text"].replace("question", "answer")


def _client(server: ScriptedServer, **settings: Any) -> ChatServer:
    chosen = {"model": "scripted", "base_url": server.url, "backoff_s": 0.01, "backoff_max_s": 0.05, "timeout_s": 20}
    return ChatServer(ServerSettings(**{**chosen, **settings}), Traffic())


def _texts(client: ChatServer, requests: list[Request] = REQUESTS) -> list[str]:
    found = dict(one for group in client.complete(requests) for one in group)
    return [found[index].text for index in range(len(requests))]


EXPECTED = [f"answer {number}" for number in range(12)]


def _all_closed(server: ScriptedServer) -> bool:
    deadline = time.monotonic() + 30
    while server.open_connections and time.monotonic() < deadline:
        time.sleep(0.01)
    return server.open_connections == 0


def test_connections_are_closed_at_the_end_at_an_early_end_and_after_a_fault() -> None:
    with ScriptedServer(answer=_echo) as server:
        assert _texts(_client(server)) == EXPECTED
        assert _all_closed(server)
        arriving = _client(server, concurrency=3).complete(REQUESTS)
        assert next(arriving)
        assert server.open_connections > 0
        arriving.close()
        assert _all_closed(server)
        server.script = lambda number, _: Fault(401, "no") if number > 20 else None
        with pytest.raises(RemoteError, match="HTTP 401"):
            _texts(_client(server, concurrency=2))
        assert _all_closed(server)


def test_it_works_within_a_running_event_loop() -> None:
    async def in_a_notebook(server: ScriptedServer) -> list[str]:
        return _texts(_client(server))

    with ScriptedServer(answer=_echo) as server:
        assert asyncio.run(in_a_notebook(server)) == EXPECTED


def test_no_more_is_sent_than_the_caller_has_taken() -> None:
    with ScriptedServer(answer=_echo) as server:
        arriving = _client(server, concurrency=2).complete(REQUESTS)
        taken = len(next(arriving))
        for group in arriving:
            assert server.requests <= taken + 2
            taken += len(group)
        assert taken == len(REQUESTS) == server.requests


def test_what_arrived_before_a_fault_is_yielded_first() -> None:
    def script(number: int, _: dict[str, Any]) -> Fault | None:
        return Fault(401, "no") if number == 1 else None

    with ScriptedServer(script, _echo) as server:
        got = []
        with pytest.raises(RemoteError, match="HTTP 401"):
            for group in _client(server, concurrency=1).complete(REQUESTS):
                got += group
        assert got == [(0, Completion("answer 0", "stop", 2, 2))]


def test_what_goes_to_this_machine_passes_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedServer(answer=_echo) as server:
        assert _texts(_client(server, max_attempts=1)) == EXPECTED


def test_a_redirect_is_not_followed_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_LLM_KEY", "sk-0123456789")
    with ScriptedServer(answer=_echo) as other:
        moved = Fault(307, "moved", {"Location": f"{other.url}/chat/completions"})
        with (
            ScriptedServer(lambda *_: moved) as server,
            pytest.raises(RemoteError, match="answered HTTP 307 moved; check the base URL"),
        ):
            _texts(_client(server, api_key_env="TEST_LLM_KEY"))
        assert other.requests == 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 500])
def test_a_key_that_the_server_repeats_is_struck_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    key = "sk-" + "0123456789" * 6
    monkeypatch.setenv("TEST_LLM_KEY", key)
    message = "x" * 170 + f" incorrect api key: {key}"  # the cut to 200 characters falls into the key
    with (
        caplog.at_level(logging.DEBUG),
        ScriptedServer(lambda *_: Fault(status, message), _echo) as server,
        pytest.raises(RemoteError) as error,
    ):
        _texts(_client(server, api_key_env="TEST_LLM_KEY", max_attempts=2, structured="none"))
    assert server.headers[0]["Authorization"] == f"Bearer {key}"
    assert key[:6] not in str(error.value) and key not in caplog.text


@pytest.mark.parametrize("value", ["sk-01\n23", "sk-“0123”", "sk-0123 456", " \n"])
def test_a_variable_that_holds_no_key_is_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TEST_LLM_KEY", value)
    with pytest.raises(InputError, match="the environment variable TEST_LLM_KEY") as error:
        ChatServer(ServerSettings(model="m", api_key_env="TEST_LLM_KEY"))
    assert "sk-0" not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://h/v1",
        "http://",
        "http:///v1",
        "http://[::1/v1",
        "http://h:99999/v1",
        "http://h:x/v1",
        "http://exa mple/v1",
        "http://h/v1\n",
        "http://☃/v1",
        "",
        "http://u:p@h/v1",
        "http://u@h/v1",
        "https://h/v1?access_token=x",
    ],
)
def test_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValidationError, match=r"give a URL|no key in the URL"):
        ServerSettings(model="m", base_url=url)


def test_loopback() -> None:
    for url in (
        "http://127.0.0.1/v1",
        "http://127.8.9.1:80",
        "http://[::1]:1/",
        "http://LOCALHOST/",
        "http://a.localhost",
    ):
        assert is_loopback(url), url
    for url in (
        "http://127.0.0.1.nip.io/",
        "http://localhost.evil.org",
        "http://0.0.0.0",
        "http://128.0.0.1",
        "http://h",
    ):
        assert not is_loopback(url), url


def test_retry_after_is_read_in_both_forms() -> None:
    assert _retry_after("1.5") == 1.5
    assert _retry_after(formatdate(time.time() + 100, usegmt=True)) == pytest.approx(100, abs=30)
    assert _retry_after(formatdate(time.time() - 100, usegmt=True)) == 0
    for nonsense in (None, "", "soon", "nan", "Wed, 99 Foo 2020 00:00:00 GMT", "Wed, 01 Jan 999999 00:00:00 GMT"):
        assert _retry_after(nonsense) is None, nonsense
    assert _retry_after("-3") == 0


def test_a_demanded_pause_holds_for_all_requests() -> None:
    arrived: list[float] = []

    def script(number: int, _: dict[str, Any]) -> Fault | None:
        arrived.append(time.monotonic())
        return Fault(429, "", {"Retry-After": "0.3"}) if number == 0 else None

    with ScriptedServer(script, _echo) as server:
        assert _texts(_client(server, concurrency=1, backoff_max_s=5), REQUESTS[:2]) == EXPECTED[:2]
    assert arrived[1] - arrived[0] >= 0.3


BODIES = [
    "",
    "null",
    "[]",
    "3",
    '"x"',
    '{"choices": null}',
    '{"choices": {}}',
    '{"choices": [null]}',
    '{"choices": [{"message": null}]}',
    '{"choices": [{"message": {"content": 3}}]}',
    '{"choices": [{"message": {"content": ["a"]}}]}',
    '{"choices": [{"message": {"content": "x"}}], "usage": 3}',
    "[" * 100_000,
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_bodies_that_are_no_completions_are_retried(body: str) -> None:
    with ScriptedServer(lambda number, _: Fault(200, body) if number < 2 else None, _echo) as server:
        client = _client(server, concurrency=1)
        assert _texts(client, REQUESTS[:1]) == EXPECTED[:1]
    assert client.traffic.faults == {"broken body": 2} and client.traffic.retries == 2


def test_lone_surrogates_and_nul_survive_cache_and_json(tmp_path: Path) -> None:
    with ScriptedServer(answer=lambda *_: "a\ud800b\x00c") as server, AnswerCache(tmp_path / "a.sqlite") as cache:
        keys = [answer_key(ServerSettings(model="m"), request) for request in REQUESTS]
        found = [one for group in complete_once(REQUESTS, keys, cache, "m", lambda: _client(server)) for one in group]
        assert {completion.text for _, completion in found} == {"a\ufffdb\x00c"}
        assert cache.answer(keys[0]) == found[0][1]


def test_equal_requests_are_sent_once_and_refusals_are_not_cached(tmp_path: Path) -> None:
    def script(_: int, body: dict[str, Any]) -> Fault | None:
        return Fault(422, "no") if body["messages"][0]["content"] == "question 3" else None

    requests = REQUESTS[:6] + REQUESTS[:6]
    keys = [answer_key(ServerSettings(model="m"), request) for request in requests]
    with AnswerCache(tmp_path / "a.sqlite") as cache, ScriptedServer(script, _echo) as server:
        for run in (1, 2):
            groups = complete_once(requests, keys, cache, "m", lambda: _client(server))
            found = dict(one for group in groups for one in group)
            assert [found[index].text for index in range(12)] == ([*EXPECTED[:3], "HTTP 422 no", *EXPECTED[4:6]] * 2)
            assert server.requests == 5 + run and len(cache) == 5


# --- the cache and the disk ------------------------------------------------------------------------------------------


def test_a_strangers_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        database.execute("CREATE TABLE birds (name TEXT)")
    database.close()
    before = (tmp_path / "a.sqlite").read_bytes()
    with pytest.raises(ArtefactError, match=r"a\.sqlite is a database of something else \(it has birds\)"):
        AnswerCache(tmp_path / "a.sqlite")
    assert (tmp_path / "a.sqlite").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.sqlite"]


def test_a_place_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").mkdir()
    with pytest.raises(ArtefactError, match=r"a\.sqlite cannot be read or written \(unable to open database file\)"):
        AnswerCache(tmp_path / "a.sqlite")


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    program = """
import json, resource, sys
from audiobert.errors import ArtefactError
from audiobert.llm.cache import AnswerCache
from audiobert.llm.chat import Completion
cache = AnswerCache(sys.argv[1])
cache.keep("m", [("first", Completion("x"))])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
kept = 0
try:
    while True:
        cache.keep("m", [(f"{kept}-{n}", Completion("y" * 5_000)) for n in range(3)])
        kept += 1
except ArtefactError as error:
    print(json.dumps([kept, str(error)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.sqlite")], capture_output=True, text=True, check=True
    )
    kept, message = json.loads(done.stdout)
    assert "make room on the disk" in message and "damaged" not in message and "\n" not in message
    with AnswerCache(tmp_path / "a.sqlite") as cache:
        assert len(cache) == 1 + 3 * kept > 1 and cache.answer("first") == Completion("x")
        cache.keep("m", [("last", Completion("z"))])
        assert cache.answer("last") == Completion("z")
