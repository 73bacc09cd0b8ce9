"""Hold settings of a chat server; of its key only the name of the environment variable that holds it."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator

from audiobert.settings import Settings

_SECRET_NAME = re.compile(r"key|token|secret|password|signature", re.IGNORECASE)


class ServerSettings(Settings):
    """Settings of a chat server and of the requests to it.

    Attributes
    ----------
    base_url
        URL of the server, up to and including `/v1`.
    api_key_env
        Name of the environment variable that holds the key, never the key itself. The key is sent to `base_url`
        whatever the protocol, since both are named here together.
    extra_body
        Further fields of each request.
    structured
        How a JSON schema is requested: `auto` tries JSON schema, then JSON mode, then the prompt alone.
    max_attempts, backoff_s, backoff_max_s
        Attempts per request, and the first and the longest pause between them. Pauses are random and grow
        exponentially; a `Retry-After` header takes precedence.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str
    api_key_env: str | None = None
    temperature: float = Field(default=0.0, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=400, ge=1)
    seed: int | None = None
    extra_body: dict[str, Any] = Field(default={})
    structured: Literal["auto", "json_schema", "json_object", "none"] = "auto"
    concurrency: int = Field(default=8, ge=1)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=120.0, gt=0)
    max_attempts: int = Field(default=8, ge=1)
    backoff_s: float = Field(default=1.0, ge=0)
    backoff_max_s: float = Field(default=60.0, ge=0)

    @field_validator("base_url")
    @classmethod
    def _no_secret_in_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not url.isascii() or any(character.isspace() for character in url):
            raise ValueError("give a URL such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or any(_SECRET_NAME.search(name) for name, _ in parse_qsl(parts.query)):
            raise ValueError("no key in the URL: put it into an environment variable and name that variable")
        return url

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,60}", name):
            raise ValueError("give the name of an environment variable, not the key itself")
        return name

    @field_validator("extra_body")
    @classmethod
    def _no_secret_in_body(cls, body: dict[str, Any]) -> dict[str, Any]:
        if any(re.search(r"api.?key|secret|password|authorization", name, re.IGNORECASE) for name in body):
            raise ValueError("no key here: put it into an environment variable and name that variable")
        return body

    def sampling(self) -> dict[str, Any]:
        """Return the settings that determine the answer. They are part of the key of a cached answer."""
        chosen = self.model_dump(include={"temperature", "max_tokens", "top_p", "seed"}, exclude_none=True)
        return {**chosen, **self.extra_body}


def is_loopback(url: str) -> bool:
    """Return whether a URL names this machine.

    >>> is_loopback("http://127.0.0.1:8000/v1"), is_loopback("http://[::1]/v1"), is_loopback("http://10.0.0.1/v1")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_private_channel(url: str) -> bool:
    """Return whether nobody between here and the server can read what is sent: https, or this machine."""
    return urlsplit(url).scheme == "https" or is_loopback(url)
