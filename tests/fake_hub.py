"""A hub on this machine that speaks as much of the real one's protocol as a download needs, and can fail as it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# What the hub answered, recorded: status, error code and message of its headers.
FAILURES = {
    "someone/private": (401, "RepoNotFound", "Repository not found"),
    "someone/absent": (404, "RepoNotFound", "Repository not found"),
    "someone/gated": (403, "GatedRepo", "Access to model someone/gated is restricted"),
}


def make_handler(folders: dict[str, Path], cut: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
            if name in FAILURES:
                return self._fail(*FAILURES[name])
            if rest[0] == "revision":
                if rest[1] not in ("main", COMMIT):
                    return self._fail(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
                return self._json({"id": name, "sha": COMMIT, "siblings": [], "tags": []})
            files = {path.name: path.read_bytes() for path in folders[name].iterdir()}
            if rest[0] == "tree":
                sizes = {path: len(content) for path, content in files.items()}
                return self._json([{"type": "file", "oid": "0" * 40, "size": n, "path": f} for f, n in sizes.items()])
            content = files[rest[2]]
            self.send_response(200)
            self.send_header("ETag", f'"{rest[2]}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content[: len(content) // 2] if rest[2] == cut else content)
            return None

        def _json(self, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _fail(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


@contextmanager
def fake_hub(folders: dict[str, Path], *, cut: str | None = None) -> Iterator[str]:
    """The address of a hub with these models; the file `cut` breaks off in the middle of its download."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(folders, cut))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
