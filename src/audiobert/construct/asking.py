"""Ask a language model many questions; an answer that does not parse is sent back once, to be corrected."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import ValidationError

from audiobert.construct.llm_settings import LlmSettings
from audiobert.construct.prompts import Answer, Prompt
from audiobert.construct.records import validation_message
from audiobert.construct.rules import BrokenRuleError
from audiobert.construct.store import Store
from audiobert.errors import InputError, needs
from audiobert.llm.cache import answer_key, complete_once
from audiobert.llm.chat import Completion, Engine, Request, Traffic
from audiobert.progress import progress

AnyAnswer = TypeVar("AnyAnswer", bound=Answer)

_THOUGHTS = re.compile(r"<think>.*?(</think>|$)", re.DOTALL)
_FENCE = re.compile(r"```(?:json|JSON)?\s*\n(.*?)(?:```|$)", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """The checked `answer` to a question, or the reason why there is none; `text` is the model's last output."""

    answer: Answer | None
    text: str
    reason: str = ""
    detail: str = ""


def answer_of(reply: Reply, kind: type[AnyAnswer]) -> AnyAnswer:
    """Return the answer of a reply."""
    if not isinstance(reply.answer, kind):
        raise BrokenRuleError(reply.reason, reply.detail)
    return reply.answer


@dataclass
class Asked:
    """Counts of the questions of this run."""

    questions: int = 0
    from_store: int = 0
    asked: int = 0
    repairs: int = 0


def parse_answer(text: str, kind: type[Answer]) -> Answer:
    """Extract the answer from a model's output: from fences, thoughts and prose, with broken JSON repaired."""
    text = _THOUGHTS.sub("", text).strip()
    if fenced := _FENCE.search(text):
        text = fenced[1].strip()
    start = text.find("{")
    try:
        value = _first_value(text[start:]) if start >= 0 else None
    except RecursionError:
        raise ValueError("the JSON of the answer is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object in the answer")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ValueError(validation_message(error)) from None


def _first_value(text: str) -> Any:
    """Decode the JSON value at the beginning of a text, repaired where it is broken."""
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except json.JSONDecodeError:
        pass
    with needs("json-repair", "construct"):
        import json_repair
    value = json_repair.loads(text)
    return value[0] if isinstance(value, list) and value else value


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


def _complaint(reply: Reply) -> tuple[dict[str, str], ...]:
    complaint = (
        f"That is not the wanted JSON: {reply.detail}. Write the same answer again as one JSON object "
        "that fits the schema, and nothing else."
    )
    said = reply.text[:2000] or "(nothing)"
    return {"role": "assistant", "content": said}, {"role": "user", "content": complaint}


class Asker:
    """Client for the language model of `settings`; answers that are in `store` are not requested again."""

    def __init__(self, settings: LlmSettings, store: Store) -> None:
        self.settings, self.store = settings, store
        self.traffic, self.counts = Traffic(), Asked()

    @cached_property
    def engine(self) -> Engine:
        """The engine, made on first use."""
        return make_engine(self.settings, self.traffic)

    def ask(self, prompt: Prompt, items: Sequence[dict[str, Any]]) -> list[Reply]:
        """Ask one prompt about many items; a lasting fault and `max_cost` end it, the answers so far being stored."""
        kind = prompt.answer_kind
        schema = kind.model_json_schema()
        requests = [Request(prompt.messages(fields), kind.__name__, schema) for fields in items]
        self.counts.questions += len(requests)
        completions = self._complete(requests, prompt.label)
        replies = [_read(completion, kind) for completion in completions]
        broken = [index for index, reply in enumerate(replies) if reply.reason == "unparseable"]
        repairs = [
            Request(requests[index].messages + _complaint(replies[index]), kind.__name__, schema) for index in broken
        ]
        self.counts.repairs += len(repairs)
        for index, completion in zip(broken, self._complete(repairs, f"{prompt.label}, repairs"), strict=True):
            replies[index] = _read(completion, kind)
        return replies

    def _complete(self, requests: Sequence[Request], description: str) -> list[Completion]:
        keys = [answer_key(self.settings, request) for request in requests]
        known = {key for key in set(keys) if self.store.answer(key) is not None}
        self.counts.from_store += len(known)
        found: dict[int, Completion] = {}
        self._check_cost(more=len(known) < len(set(keys)))
        with progress() as bar:
            task = bar.add_task(description, total=len(requests), note="")
            for group in complete_once(requests, keys, self.store, self.settings.model, lambda: self.engine):
                found.update(group)
                new = {keys[index] for index, completion in group if completion.is_answer} - known
                known |= new
                self.counts.asked += len(new)
                bar.advance(task, len(group))
                self._check_cost(more=len(found) < len(requests))
        return [found[index] for index in range(len(requests))]

    @property
    def cost(self) -> float:
        """Cost of this run so far, by the prices of the settings."""
        tokens, settings = self.traffic, self.settings
        return (tokens.prompt_tokens * settings.input_price + tokens.completion_tokens * settings.output_price) / 1e6

    def _check_cost(self, *, more: bool) -> None:
        """Stop before more is asked than `max_cost` pays for."""
        if more and self.settings.max_cost is not None and self.cost >= self.settings.max_cost:
            raise InputError(
                f"the answers have cost {self.cost:.4f}, llm.max_cost is {self.settings.max_cost:g}; the answers so "
                "far are kept, raise the limit and run the same command again to resume"
            )

    def report(self) -> dict[str, Any]:
        """Return the counts of this run: questions, requests, faults, tokens and cost."""
        return {**asdict(self.counts), **asdict(self.traffic), "cost": round(self.cost, 6)}


def make_engine(settings: LlmSettings, traffic: Traffic) -> Engine:
    """Return the engine that the settings name."""
    if settings.engine == "http":
        from audiobert.llm.server import ChatServer

        return ChatServer(settings, traffic, extra="construct")
    if settings.engine == "transformers":
        from audiobert.construct.transformers_engine import TransformersEngine

        return TransformersEngine(settings, traffic)
    from audiobert.construct.ray_engine import RayEngine

    return RayEngine(settings, traffic)
