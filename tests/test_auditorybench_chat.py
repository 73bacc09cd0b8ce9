"""A chat server, played by a scripted one on the loopback: retries, cache, limits, faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import auditorybench_toys as toys
from audiobert.auditorybench.evaluate import ask, evaluate, make_plan
from audiobert.auditorybench.models import ModelOptions
from audiobert.auditorybench.models.chat import ChatModel, ChatOptions
from audiobert.errors import InputError, RemoteError

Script = Callable[[int, str], tuple[int, Any]]


class Server:
    """Answers the n-th request with what `script(n, question)` says: a status and a body."""

    def __init__(self) -> None:
        self.script: Script = lambda _, question: (200, reply("higher" if "higher" in question else "cat"))
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.at_once = self.most_at_once = 0
        self.pause_s = 0.0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append({"path": self.path, **body})
                    outer.keys.append(self.headers.get("Authorization"))
                    number = len(outer.requests)
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                time.sleep(outer.pause_s)
                status, content = outer.script(number, body["messages"][0]["content"])
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                with lock:
                    outer.at_once -= 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def reply(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.make_benchmark(tmp_path_factory.mktemp("benchmark"))


def model(server: Server, cache: Path, **options: Any) -> ChatModel:
    settings: dict[str, Any] = {"base_url": server.url, "cache": cache, "pause_s": 0.01, "retries": 2, **options}
    return ChatModel("toy", ChatOptions(**settings))


def test_answers_are_asked_once_and_scored(
    server: Server, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KEY", "secret")
    options = ModelOptions(base_url=server.url, chat={"cache": tmp_path, "pause_s": 0.01, "key_variable": "TOY_KEY"})
    (report,) = evaluate(["toy"], data, splits=["dev"], options=options)
    animal, pitch = report["results"]
    assert animal["correct"] == 1
    assert pitch["accuracy"] == 0.6
    assert pitch["both_ways"]["accuracy"] == 0
    asked = len(server.requests)
    assert asked == animal["n"] + 2 * pitch["n"]
    assert server.requests[0]["path"] == "/v1/chat/completions"
    assert set(server.keys) == {"Bearer secret"}
    assert "secret" not in json.dumps(report)
    assert not any("secret" in path.read_text() for path in tmp_path.rglob("*.json"))
    evaluate(["toy"], data, splits=["dev"], options=options)
    assert len(server.requests) == asked


def test_passing_faults_are_tried_again(server: Server, data: Path, tmp_path: Path) -> None:
    faults = {1: (503, b"busy"), 2: (200, b"<html>"), 3: (429, b"slow down")}
    server.script = lambda number, _: faults.get(number, (200, reply("bird")))
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    with pytest.raises(RemoteError, match="answered 429"):
        ask(model(server, tmp_path, concurrency=1), part)
    (answered,) = ask(model(server, tmp_path, concurrency=1), part)
    assert answered.prediction.text == "bird"


def test_what_was_answered_before_a_fault_is_kept(server: Server, data: Path, tmp_path: Path) -> None:
    server.script = lambda number, _: (200, reply("cat")) if number <= 3 else (401, b"no such key")
    (part,) = make_plan(data, ["animal"], ["dev"]).parts
    with pytest.raises(RemoteError) as error:
        ask(model(server, tmp_path, concurrency=1), part)
    assert error.value.exit_code == 1
    assert "refused" in str(error.value)
    assert "401 no such key" in str(error.value)
    assert "animal_sound_recognition_dev.csv, row 3" in str(error.value)
    assert "3 of 6 answers are kept" in str(error.value)
    server.script = lambda *_: (200, reply("cat"))
    server.requests.clear()
    assert len(ask(model(server, tmp_path, concurrency=1), part)) == 6
    assert len(server.requests) == 3


@pytest.mark.parametrize("body", [b"", b"[]", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}'])
def test_nonsense_is_no_answer(server: Server, data: Path, tmp_path: Path, body: bytes) -> None:
    server.script = lambda *_: (200, body)
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    with pytest.raises(RemoteError, match="answered no chat completion"):
        ask(model(server, tmp_path), part)
    assert not list(tmp_path.rglob("*.json"))


def test_a_server_that_is_down_is_named(data: Path, tmp_path: Path) -> None:
    options = ChatOptions("http://127.0.0.1:9/v1", retries=1, pause_s=0.01, cache=tmp_path)
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    with pytest.raises(RemoteError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached .* 2 tries"):
        ask(ChatModel("toy", options), part)


def test_a_slow_server_times_out(server: Server, data: Path, tmp_path: Path) -> None:
    server.pause_s = 0.5
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    with pytest.raises(RemoteError, match=r"no answer within 0\.1 s"):
        ask(model(server, tmp_path, timeout_s=0.1, retries=0), part)


def test_no_more_requests_at_once_than_allowed(server: Server, data: Path, tmp_path: Path) -> None:
    server.pause_s = 0.03
    (part,) = make_plan(data, ["pitch"], ["dev"]).parts
    ask(model(server, tmp_path, concurrency=3), part)
    assert 1 < server.most_at_once <= 3


def test_a_damaged_answer_in_the_cache_is_asked_again(server: Server, data: Path, tmp_path: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"], limit=1).parts
    ask(model(server, tmp_path), part)
    (path,) = tmp_path.rglob("*.json")
    path.write_text("{")
    ask(model(server, tmp_path), part)
    assert len(server.requests) == 2
    assert json.loads(path.read_text())["reply"] == "cat"


def test_wrong_use_is_refused(server: Server, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no http"):
        ChatModel("toy", ChatOptions("localhost:8000", cache=tmp_path))
    (part,) = make_plan(data, ["animal"], ["dev"], "candidates").parts
    with pytest.raises(InputError, match="cannot rank candidates"):
        ask(model(server, tmp_path), part)
