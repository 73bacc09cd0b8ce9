"""The adapter of a chat server: what it asks, what counts as an answer, and where the key goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import auditorybench_toys as toys
from audiobert.auditorybench.evaluate import ask, evaluate, make_plan
from audiobert.auditorybench.models import ModelOptions
from audiobert.auditorybench.models.chat import ChatModel, ChatOptions
from audiobert.cli import run as command_line
from audiobert.errors import InputError, MissingExtraError, RemoteError
from scripted_server import Fault, ScriptedServer


def _answer(_: str, fields: dict[str, Any]) -> str:
    return "higher" if "higher" in fields["text"] else "cat"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(answer=_answer) as server:
        yield server


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.make_benchmark(tmp_path_factory.mktemp("benchmark"))


def model(server: ScriptedServer, cache: Path, **options: Any) -> ChatModel:
    settings: dict[str, Any] = {"base_url": server.url, "cache": cache, "pause_s": 0.01, "retries": 2, **options}
    return ChatModel("toy", ChatOptions(**settings))


def test_answers_are_asked_once_and_scored(
    server: ScriptedServer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", "very-secret")
    options = ModelOptions(base_url=server.url, chat={"cache": tmp_path, "pause_s": 0.01, "key_variable": "TOY_KEY"})
    (report,) = evaluate(["toy"], data, splits=["dev"], options=options)
    animal, pitch = report["results"]
    assert animal["correct"] == 1
    assert pitch["accuracy"] == 0.6
    assert pitch["both_ways"]["accuracy"] == 0
    asked = server.requests
    assert asked == len(server.answered) <= animal["n"] + 2 * pitch["n"]
    assert server.bodies[0] == {
        "model": "toy",
        "messages": server.bodies[0]["messages"],
        "temperature": 0.0,
        "max_tokens": 32,
    }
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer very-secret"}
    assert "very-secret" not in json.dumps(report)
    assert not any(b"very-secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    evaluate(["toy"], data, splits=["dev"], options=options)
    assert server.requests == asked


def test_another_server_or_model_is_asked_anew(server: ScriptedServer, data: Path, tmp_path: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    ask(model(server, tmp_path), part)
    ask(model(server, tmp_path), part)
    assert server.requests == 1
    ask(model(server, tmp_path, temperature=0.5), part)
    ask(ChatModel("other", ChatOptions(server.url, cache=tmp_path)), part)
    assert server.requests == 3
    with ScriptedServer(answer=_answer) as second:
        ask(model(second, tmp_path), part)
        assert second.requests == 1


def test_what_was_answered_before_a_fault_is_kept(server: ScriptedServer, data: Path, tmp_path: Path) -> None:
    server.script = lambda number, _: Fault(401, "no such key") if number >= 3 else None
    (part,) = make_plan(data, ["animal"], ["dev"]).parts
    with pytest.raises(
        RemoteError, match=r"HTTP 401 no such key.*3 of 6 answers are kept in .*again to resume"
    ) as error:
        ask(model(server, tmp_path, concurrency=1), part)
    assert error.value.exit_code == 1
    server.script = None
    before = server.requests
    assert len(ask(model(server, tmp_path, concurrency=1), part)) == 6
    assert server.requests - before == 3


NOTHING = [
    (Fault(200, '{"choices": []}'), "the body is no chat completion"),
    (Fault(200, '{"choices": [{"message": {"content": null}}]}'), "animal_sound_recognition_dev.csv, row 0.*empty"),
    (
        Fault(200, '{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}'),
        "animal_sound_recognition_dev.csv, row 0.*length",
    ),
    (Fault(400, "too long"), "animal_sound_recognition_dev.csv, row 0.*HTTP 400 too long"),
]


@pytest.mark.parametrize(("fault", "message"), NOTHING)
def test_nonsense_is_no_answer(server: ScriptedServer, data: Path, tmp_path: Path, fault: Fault, message: str) -> None:
    server.script = lambda *_: fault
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    with pytest.raises(RemoteError, match=message):
        ask(model(server, tmp_path), part)
    server.script = None
    (answered,) = ask(model(server, tmp_path), part)  # nothing of it was cached
    assert answered.prediction.text == "cat"


def test_a_server_that_is_down_is_named(data: Path, tmp_path: Path) -> None:
    options = ChatOptions("http://127.0.0.1:9/v1", retries=1, pause_s=0.01, cache=tmp_path)
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    with pytest.raises(RemoteError, match=r"http://127\.0\.0\.1:9/v1 failed 2 times, at last with: ConnectError"):
        ask(ChatModel("toy", options), part)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, r"--base-url: give a URL such as http://127\.0\.0\.1:8000/v1"),
        ({"base_url": "http://me:pw@127.0.0.1/v1"}, "--base-url: no key in the URL"),
        ({"key_variable": "sk-0123"}, "--key-variable: give the name of an environment variable, not the key itself"),
        ({"key_variable": "TOY_NO_KEY"}, "TOY_NO_KEY .* is empty"),
    ],
)
def test_wrong_use_is_refused(data: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    with pytest.raises(InputError, match=message) as error:
        ask(ChatModel("toy", ChatOptions(**{"base_url": "http://127.0.0.1:9/v1", "cache": tmp_path, **options})), part)
    assert "pw" not in str(error.value) and "sk-0123" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "named", "sent"),
    [
        ("https://api.example.org/v1", None, True),
        ("http://127.0.0.1:8000/v1", None, True),
        ("http://[::1]:8000/v1", None, True),
        ("http://localhost/v1", None, True),
        ("http://10.0.0.7/v1", None, False),
        ("http://api.example.org/v1", None, False),
        ("http://127.0.0.1.example.org/v1", None, False),
        ("http://localhost.example.org/v1", None, False),
        ("http://api.example.org/v1", "OPENAI_API_KEY", True),
    ],
)
def test_the_usual_key_goes_to_this_machine_over_https_or_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, named: str | None, sent: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123")
    settings = ChatOptions(url, key_variable=named).settings("toy")
    assert settings.api_key_env == ("OPENAI_API_KEY" if sent else None)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ChatOptions(url).settings("toy").api_key_env is None


def test_a_missing_extra_is_one_line(
    server: ScriptedServer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tenacity", None)
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    with pytest.raises(MissingExtraError, match=r"'tenacity' \(extra 'eval'\): pip install"):
        ask(model(server, tmp_path), part)


def test_the_command_asks_the_server(
    server: ScriptedServer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123")
    arguments = ["evaluate", "toy", "--data", str(data), "--tasks", "animal", "--splits", "dev", "--json"]
    arguments += ["--base-url", server.url, "--cache", str(tmp_path)]
    assert command_line(arguments) == 0
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-0123"}
    monkeypatch.setenv("OTHER_KEY", "sk-other")
    assert command_line([*arguments, "--limit", "1", "--key-variable", "OTHER_KEY"]) == 0
    assert server.requests == 6
