"""What stands between the network and Gradio: which addresses there are, how large a request may be, who may call.

Gradio serves more than this page needs: it fetches what an address or an uploaded form names from other servers, keeps
files of any kind, and answers to any host name. `Guard` lets through what the page uses and nothing else;
`receive_sound` takes the place of its upload route.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import soundfile

from audiobert.bank.sources import AUDIO_EXTENSIONS
from audiobert.errors import InputError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 256 << 10  # of a form; the longest text that the page takes is far below
MAX_UPLOAD_BYTES = 20 << 20
KEPT_UPLOADS = 50  # 1 GB at most
KEPT_SECONDS = 1_800

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
    """ASGI middleware in front of the whole application.

    Parameters
    ----------
    uploads
        The one folder that Gradio's file route may read: what visitors have uploaded.
    """

    def __init__(self, app: ASGIApp, uploads: Path) -> None:
        self.app, self.uploads = app, uploads.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        method, path = scope["method"], scope["path"]
        if not self._there(method, path):
            await _refuse(with_headers, 404, "not found")
            return
        if method == "POST" and path != "/gradio_api/upload":
            body = await _read(receive, MAX_BODY_BYTES)
            if body is None:
                await _refuse(with_headers, 413, f"the request is larger than {MAX_BODY_BYTES:,} bytes")
                return
            if not self._only_uploads(body):
                await _refuse(with_headers, 400, "files are taken from this page alone")
                return
            receive = _replay(body, receive)
        await self.app(scope, receive, with_headers)

    def _there(self, method: str, path: str) -> bool:
        if method == "POST":
            return bool(_POST.fullmatch(path))
        if method not in ("GET", "HEAD") or not _GET.fullmatch(path):
            return False
        _, asked, file = path.partition("/gradio_api/file=")
        return not asked or self._uploaded(file)

    def _only_uploads(self, body: bytes) -> bool:
        """Whether all files that a form names were uploaded. Gradio would copy others of this machine from the
        temporary or the working folder to where its file route reads, and fetch those that are addresses."""
        try:
            content = json.loads(body or b"null")
        except (ValueError, RecursionError):
            return False
        return all(self._uploaded(one["path"]) for one in _objects(content) if one.get("path") is not None)

    def _uploaded(self, file: object) -> bool:
        if not isinstance(file, str) or "\0" in file:
            return False
        return Path(file).is_absolute() and Path(file).resolve().is_relative_to(self.uploads)


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The request's body; None when it is longer than the limit."""
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


async def receive_sound(request: Request, uploads: Path) -> list[str]:
    """Take an uploaded sound file into the folder of uploads.

    Raises
    ------
    InputError
        When it is too large, or no sound file.
    """
    from starlette.formparsers import MultiPartException

    limit = f"sound files up to {MAX_UPLOAD_BYTES >> 20} MB are taken"
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > MAX_UPLOAD_BYTES + (16 << 10):
        raise InputError(f"the upload is too large: {limit}")
    try:
        async with request.form(max_files=1, max_fields=1) as form:
            file: Any = next(iter(form.values()), None)
            if file is None or isinstance(file, str):
                raise InputError(f"the upload holds no file: {limit}")
            content = await file.read()
            name = PurePath(str(file.filename or "").replace("\\", "/")).name
    except MultiPartException as error:
        raise InputError(f"the upload cannot be read ({error.message}): {limit}") from None
    return [str(keep_sound(content, name, uploads))]


def keep_sound(content: bytes, name: str, uploads: Path) -> Path:
    """Write an uploaded sound file into the folder of uploads, under a name made from its content.

    Raises
    ------
    InputError
        When it is too large, or no sound file.
    """
    suffix = PurePath(name).suffix.lower()
    if len(content) > MAX_UPLOAD_BYTES:
        raise InputError(f"the upload is too large: sound files up to {MAX_UPLOAD_BYTES >> 20} MB are taken")
    if suffix not in AUDIO_EXTENSIONS:
        raise InputError(f"{name or 'the upload'!r} is no sound file: WAV, FLAC, OGG, MP3 and AIFF are taken")
    try:
        soundfile.info(io.BytesIO(content))
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError):
        raise InputError(f"{name!r} cannot be decoded: WAV, FLAC, OGG, MP3 and AIFF are taken") from None
    make_room(uploads)
    folder = uploads / hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"sound{suffix}"
    path.write_bytes(content)
    return path


def make_room(uploads: Path) -> None:
    """Remove uploads older than half an hour, and the oldest beyond those that are kept at most."""
    ages = sorted((time.time() - folder.stat().st_mtime, folder) for folder in uploads.iterdir() if folder.is_dir())
    for place, (age, folder) in enumerate(ages, start=1):
        if age > KEPT_SECONDS or place >= KEPT_UPLOADS:
            shutil.rmtree(folder, ignore_errors=True)
