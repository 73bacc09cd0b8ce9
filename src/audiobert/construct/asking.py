"""Ask many questions: what is kept is not asked again, what does not parse is asked to be put right once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from audiobert.construct.llm import ChatServer, Completion, Engine, LlmSettings, Request, Traffic
from audiobert.construct.prompts import Answer, Prompt
from audiobert.construct.records import validation_message
from audiobert.construct.store import Store
from audiobert.errors import InputError, MissingExtraError
from audiobert.progress import progress

_THOUGHTS = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
_FENCE = re.compile(r"```(?:json|JSON)?\s*\n(.*?)(?:```|$)", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """What came of a question: a checked `answer`, or why there is none; `text` is what the model wrote last."""

    answer: Answer | None
    text: str
    reason: str = ""
    detail: str = ""


@dataclass
class Asked:
    """What the questions of this run came to."""

    questions: int = 0
    from_store: int = 0
    asked: int = 0
    repairs: int = 0


def parse_answer(text: str, kind: type[Answer]) -> Answer:
    """The answer that a model wrote, found inside fences, thoughts and prose, mended where the JSON is broken.

    Raises
    ------
    ValueError
        When there is no JSON object, or it does not fit the schema.
    """
    text = _THOUGHTS.sub("", text).strip()
    if fenced := _FENCE.search(text):
        text = fenced[1].strip()
    start = text.find("{")
    if start < 0:
        raise ValueError("no JSON object in the answer")
    text = text[start:]
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError:
        try:
            import json_repair
        except ImportError:
            raise MissingExtraError("json-repair", "construct") from None
        value = json_repair.loads(text)
        if isinstance(value, list) and value:
            value = value[0]
    if not isinstance(value, dict):
        raise ValueError("no JSON object in the answer")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ValueError(validation_message(error)) from None


def _read(completion: Completion, kind: type[Answer]) -> Reply:
    if completion.finish == "refused":
        return Reply(None, "", "refused-by-server", completion.text)
    if completion.finish == "content_filter":
        return Reply(None, completion.text, "refused-by-model", "the model declined to answer")
    if completion.finish == "length":
        return Reply(None, completion.text, "unparseable", "the answer was cut off at llm.max_tokens")
    try:
        return Reply(parse_answer(completion.text, kind), completion.text)
    except ValueError as error:
        return Reply(None, completion.text, "unparseable", str(error))


class Asker:
    """Puts questions to the language model of `settings`, with the answers of `store` first."""

    def __init__(self, settings: LlmSettings, store: Store) -> None:
        self.settings, self.store = settings, store
        self.traffic, self.counts = Traffic(), Asked()
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """Made on first use, so that a run whose answers are all kept needs no server, key or model."""
        if self._engine is None:
            self._engine = make_engine(self.settings, self.traffic)
        return self._engine

    def key(self, request: Request) -> str:
        """The key of a question in the store: SHA-256 of model, chat, schema and sampling settings."""
        parts = {
            "model": self.settings.model,
            "messages": request.messages,
            "schema": request.schema,
            "sampling": self.settings.sampling(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def ask(self, prompt: Prompt, items: Sequence[dict[str, Any]]) -> list[Reply]:
        """Ask one prompt about many items.

        Raises
        ------
        RemoteError
            When the server fails for good; the answers so far are kept.
        InputError
            When the cost so far reaches `max_cost`.
        """
        kind = prompt.answer_kind
        schema = kind.model_json_schema()
        requests = [Request(prompt.messages(fields), kind.__name__, schema) for fields in items]
        self.counts.questions += len(requests)
        completions = self._complete(requests, prompt.label)
        replies = [_read(completion, kind) for completion in completions]
        broken = [index for index, reply in enumerate(replies) if reply.reason == "unparseable"]
        repairs = []
        for index in broken:
            complaint = (
                f"That is not the wanted JSON: {replies[index].detail}. Write the same answer again as one JSON object "
                "that fits the schema, and nothing else."
            )
            turns = (
                {"role": "assistant", "content": replies[index].text[:2000] or "(nothing)"},
                {"role": "user", "content": complaint},
            )
            repairs.append(Request(requests[index].messages + turns, kind.__name__, schema))
        self.counts.repairs += len(repairs)
        for index, completion in zip(broken, self._complete(repairs, f"{prompt.label}, repairs"), strict=True):
            replies[index] = _read(completion, kind)
        return replies

    def _complete(self, requests: Sequence[Request], description: str) -> list[Completion]:
        keys = [self.key(request) for request in requests]
        found: dict[str, Completion] = {}
        wanted: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in found or key in wanted:
                continue
            if (kept := self.store.answer(key)) is not None:
                found[key] = Completion(**kept)
            else:
                wanted[key] = request
        self.counts.from_store += len(found)
        if wanted:
            order = list(wanted)
            with progress() as bar:
                task = bar.add_task(description, total=len(order), note="")

                def done(index: int, completion: Completion) -> None:
                    found[order[index]] = completion
                    if completion.finish != "refused":
                        self.counts.asked += 1
                        self.store.keep_answer(order[index], self.settings.model, **asdict(completion))
                    self._check_cost()
                    bar.advance(task)

                self._check_cost()
                self.engine.complete(list(wanted.values()), done)
        return [found[key] for key in keys]

    @property
    def cost(self) -> float:
        """What this run has cost so far, by the prices of the settings."""
        return self.settings.cost(self.traffic.prompt_tokens, self.traffic.completion_tokens)

    def _check_cost(self) -> None:
        if self.settings.max_cost is not None and self.cost >= self.settings.max_cost:
            raise InputError(
                f"the answers have cost {self.cost:.4f}, llm.max_cost is {self.settings.max_cost:g}; what was answered "
                "is kept, raise the limit and run the same command again to go on"
            )

    def report(self) -> dict[str, Any]:
        """Counts of this run: questions, requests, faults, tokens and cost."""
        return {**asdict(self.counts), **asdict(self.traffic), "cost": round(self.cost, 6)}


def make_engine(settings: LlmSettings, traffic: Traffic) -> Engine:
    """The engine that the settings name."""
    if settings.engine == "http":
        return ChatServer(settings, traffic)
    if settings.engine == "local":
        from audiobert.construct.local_engine import LocalModel

        return LocalModel(settings, traffic)
    from audiobert.construct.ray_engine import RayEngine

    return RayEngine(settings, traffic)
