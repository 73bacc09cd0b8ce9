"""Guard Gradio against the network: which addresses there are, how large a request may be, who may call.

Gradio serves more than this page needs: it fetches what an address or an uploaded form names from other servers, keeps
files of any kind, and answers to any host name. `Guard` lets through what the page uses and nothing else;
`uploads.receive_sound` takes the place of its upload route.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 256 << 10  # of a form; the longest text that the page takes is far below

_GET = re.compile(
    r"/(favicon\.ico|manifest\.json|robots\.txt|theme\.css|config|clips/(sound|picture)|(assets|static)/[^\0]+)?"
    r"|/gradio_api/(info|app_id|startup-events|heartbeat/\w+|queue/data|upload_progress|call/\w+/\w+|file=.+)"
)
_POST = re.compile(r"/gradio_api/(queue/join|call/\w+|run/\w+|upload|cancel|reset)/?")

# Nothing is loaded from elsewhere, whatever a script of the page should try. Gradio's own scripts need the unsafe two.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "connect-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """ASGI middleware in front of the whole application; of files, Gradio's route may read `uploads` alone."""

    def __init__(self, app: ASGIApp, uploads: Path) -> None:
        self.app, self.uploads = app, uploads.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        from starlette.responses import PlainTextResponse

        async def refuse(status: int, reason: str) -> None:
            await PlainTextResponse(reason, status, {"connection": "close"})(scope, receive, with_headers)

        method, path = scope["method"], scope["path"]
        if not self._there(method, path):
            return await refuse(404, "not found")
        if method == "POST" and path != "/gradio_api/upload":
            body = await _read(receive, MAX_BODY_BYTES)
            if body is None:
                return await refuse(413, f"the request is larger than {MAX_BODY_BYTES:,} bytes")
            if not self._only_uploads(body):
                return await refuse(400, "files are taken from this page alone")
            receive = _replay(body, receive)
        return await self.app(scope, receive, with_headers)

    def _there(self, method: str, path: str) -> bool:
        if method == "POST":
            return bool(_POST.fullmatch(path))
        if method not in ("GET", "HEAD") or not _GET.fullmatch(path):
            return False
        _, asked, file = path.partition("/gradio_api/file=")
        return not asked or self._uploaded(file)

    def _only_uploads(self, body: bytes) -> bool:
        """Return whether all files that a form names were uploaded.

        Gradio would copy others of this machine from the temporary or the working folder to where its file route reads,
        and fetch those that are addresses.
        """
        try:
            content = json.loads(body or b"null")
        except (ValueError, RecursionError):
            return False
        return all(self._uploaded(one["path"]) for one in _objects(content) if one.get("path") is not None)

    def _uploaded(self, file: object) -> bool:
        if not isinstance(file, str) or "\0" in file:
            return False
        return Path(file).is_absolute() and Path(file).resolve().is_relative_to(self.uploads)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """Return the request's body; None when it is longer than the limit."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
