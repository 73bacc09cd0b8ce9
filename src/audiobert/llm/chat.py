"""Define chats, their completions, and the interface of every engine that completes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Request:
    """A chat to be completed, and the JSON schema of the completion, if one is wanted."""

    messages: tuple[dict[str, str], ...]
    schema_name: str = ""
    schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Completion:
    """The text that a model wrote.

    `finish` is `stop`, `length`, `content_filter`, `empty` if the message has no content, or `refused` if the server
    rejects the request itself (`text` is then the server's message).
    """

    text: str
    finish: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the model answered: not refused, and not cut off before the first word. Only answers are cached."""
        return self.finish == "stop" or (self.finish != "refused" and self.text != "")


class Engine(Protocol):
    """Interface of an engine that completes chats."""

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completion]]]:
        """Yield (index of the request, completion) in groups that arrived together, in any order."""


@dataclass
class Traffic:
    """Counts of the requests of this run."""

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
