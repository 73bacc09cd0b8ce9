"""Asking a language model: many questions at once against one by one, and a second run against the first.

The server is the tests' scripted one, with a pause of 25 ms before each answer in the place of a model.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import row

_QUESTIONS = 200
_PAUSE_S = 0.025


def run() -> list[dict[str, Any]]:
    """Measure."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import httpx

    from audiobert.construct.asking import Asker
    from audiobert.construct.llm_settings import LlmSettings
    from audiobert.construct.prompts import load_prompt
    from audiobert.construct.store import Store
    from scripted_server import Fault, ScriptedServer

    prompt = load_prompt("categorize.v1")
    items = [{"title": f"dog {number}", "description": "", "tags": [], "captions": []} for number in range(_QUESTIONS)]

    def answer(*_: Any) -> str:
        return json.dumps({"category": "animal/dog"})

    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedServer(lambda *_: Fault(pause_s=_PAUSE_S), answer) as server,
        Store(Path(folder) / "store.sqlite") as store,
    ):
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            asker = Asker(LlmSettings(model="m", base_url=server.url, concurrency=16), store)
            assert all(reply.answer for reply in asker.ask(prompt, items))
            seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        with httpx.Client(timeout=60) as client:
            for item in items:
                body = {"model": "m", "messages": prompt.messages(item)}
                client.post(f"{server.url}/chat/completions", json=body).raise_for_status()
        plain = time.perf_counter() - started
    first, second = (_QUESTIONS / one for one in seconds)
    return [
        row("questions, 16 at once", first, _QUESTIONS / plain, "questions/s", "plain: one after the other by httpx"),
        row("second run, from the store", second, first, "questions/s", "plain: the first run"),
    ]
