"""Serve the page behind its guard, on loopback by default."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from audiobert.errors import InputError, MissingExtraError
from audiobert.web.guard import Guard
from audiobert.web.page import EXAMPLES, PREDICTIONS, build_page, script, style
from audiobert.web.playback import Playback
from audiobert.web.shelf import OpenedBank, Shelf
from audiobert.web.uploads import MAX_UPLOAD_BYTES, TooLargeError, receive_sound

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp

LOOPBACK = "127.0.0.1"
QUEUE_LIMIT = 128
MAX_CONNECTIONS = 1_000
_FONTS = ["system-ui", "sans-serif"]
_MONOSPACE = ["ui-monospace", "monospace"]


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server on that host."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def build_app(shelf: Shelf, *, host: str = LOOPBACK, queue_limit: int = QUEUE_LIMIT) -> ASGIApp:
    """Build the whole application: the page, its clips, its uploads, and the guard before them.

    On loopback other host names than `host` are turned away, so that no site in the visitor's browser can pass for this
    one. MissingExtraError without gradio.
    """
    _quiet_environment()
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError:
        raise MissingExtraError("gradio", "web") from None
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    temporary = tempfile.TemporaryDirectory(prefix="audiobert-demo-")
    uploads = Path(temporary.name) / "uploads"
    uploads.mkdir()
    # Gradio reads these when a page is built: its uploads and its cache lie in a folder that goes with the server.
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(Path(temporary.name) / "cache")
    playback = Playback()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        playback.close()
        temporary.cleanup()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_clips(app, shelf, playback)
    _add_uploads(app, uploads)
    page = build_page(shelf, queue_limit=queue_limit)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_UPLOAD_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(font=_FONTS, font_mono=_MONOSPACE),
        css=style(),
        head=script(),
    )
    hosts = [LOOPBACK, "localhost", "::1", "[::1]", host] if is_loopback(host) else ["*"]
    return Guard(TrustedHostMiddleware(app, allowed_hosts=hosts, www_redirect=False), uploads)


def _quiet_environment() -> None:
    """Stop Gradio from sending requests and usage reports to its maker's server."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_RUN_HISTORY"] = "False"


def _add_clips(app: FastAPI, shelf: Shelf, playback: Playback) -> None:
    from fastapi.responses import FileResponse, PlainTextResponse, Response

    def served(bank: str, id: str, make: Callable[[OpenedBank, str], Path], media_type: str) -> Response:
        opened = shelf.bank(bank)
        try:
            if opened is None:
                raise InputError(f"no bank {bank!r}")
            path = make(opened, id)
        except InputError:
            return PlainTextResponse("no such clip, or its audio is not at hand", status_code=404)
        headers = {"cache-control": "private, max-age=600"}
        return FileResponse(path, media_type=media_type, headers=headers)

    @app.get("/clips/sound")
    def sound(bank: str, id: str) -> Response:
        return served(bank, id, playback.sound, "audio/wav")

    @app.get("/clips/picture")
    def picture(bank: str, id: str) -> Response:
        return served(bank, id, playback.picture, "image/png")


def _add_uploads(app: FastAPI, uploads: Path) -> None:
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response

    async def upload(request: Request) -> Response:
        try:
            return JSONResponse(await receive_sound(request, uploads))
        except InputError as error:
            return PlainTextResponse(str(error), status_code=413 if isinstance(error, TooLargeError) else 415)

    async def progress(_: Request) -> Response:
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    app.add_route("/gradio_api/upload", upload, methods=["POST"])
    app.add_route("/gradio_api/upload_progress", progress, methods=["GET"])


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. InputError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise InputError(f"cannot listen on {host}:{port} ({error}); give another --port or --host") from None
    return listening


def warm_up(shelf: Shelf) -> None:
    """Load the default model with the default bank and answer once, so that the first visitor does not wait."""
    shelf.choose().model.fill_mask(EXAMPLES[0], top_k=PREDICTIONS)


def serve(
    shelf: Shelf,
    *,
    host: str = LOOPBACK,
    port: int = 7860,
    queue_limit: int = QUEUE_LIMIT,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the page until interrupted; `ready` is called with the page's address once it is there."""
    _quiet_environment()
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("gradio", "web") from None
    with bind(host, port) as listening:
        warm_up(shelf)
        app = build_app(shelf, host=host, queue_limit=queue_limit)
        config = uvicorn.Config(
            app,
            log_level="warning",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}")
        with suppress(KeyboardInterrupt):  # Ctrl+C ends the page
            uvicorn.Server(config).run(sockets=[listening])
