"""A hub on this machine: as much of the real one's protocol as downloads and uploads need, and its failures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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


TOKEN = "hf_of_someone"


class Repositories:
    """What the hub has: folders by hub id. A commit makes files, and a revision of another name."""

    def __init__(self, folders: dict[str, Path], root: Path | None) -> None:
        self.folders, self.root = dict(folders), root
        self.commits = dict.fromkeys(folders, COMMIT)
        self.branches: set[tuple[str, str]] = set()
        self.messages: list[str] = []

    def create(self, name: str) -> None:
        assert self.root is not None
        self.folders[name] = self.root / name
        self.folders[name].mkdir(parents=True)
        self.commits[name] = COMMIT

    def commit(self, name: str, lines: bytes) -> str:
        for line in map(json.loads, lines.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                path = self.folders[name] / value["path"]
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "deletedFile":
                (self.folders[name] / value["path"]).unlink()
        self.commits[name] = hashlib.sha1(lines).hexdigest()
        return self.commits[name]


def make_handler(hub: Repositories, cut: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            parts = urlsplit(self.path).path.strip("/").split("/")
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self._fail(401, "", "Invalid username or password.")
            if parts == ["api", "repos", "create"]:
                given = json.loads(content)
                name = f"{given['organization'] or 'someone'}/{given['name']}"
                if not name.startswith("someone/"):
                    return self._fail(403, "", "You don't have the rights to create a model under this namespace")
                if name in hub.folders:
                    return self._json({"url": f"{self._address()}/{name}"}, 409)
                hub.create(name)
                return self._json({"url": f"{self._address()}/{name}"})
            if parts == ["api", "validate-yaml"]:
                return self._json({"warnings": [], "errors": []})
            name, what, rest = "/".join(parts[2:4]), parts[4], parts[5:]
            if what == "branch":
                hub.branches.add((name, rest[0]))
                return self._json({})
            if what == "preupload":
                paths = [file["path"] for file in json.loads(content)["files"]]
                return self._json(
                    {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
                )
            assert what == "commit"
            commit = hub.commit(name, content)
            return self._json({"commitUrl": f"{self._address()}/{name}/commit/{commit}", "commitOid": commit})

        def _answer(self, *, body: bool) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            name, rest = "/".join(parts[2:4] if api else parts[:2]), parts[4:] if api else parts[2:]
            if name in FAILURES:
                return self._fail(*FAILURES[name])
            if name not in hub.folders:
                return self._fail(404, "RepoNotFound", "Repository not found")
            commit = hub.commits[name]
            if rest and rest[1] not in ("main", commit) and (name, rest[1]) not in hub.branches:
                return self._fail(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
            if not rest or rest[0] == "revision":
                return self._json({"id": name, "sha": commit, "siblings": [], "tags": []})
            folder = hub.folders[name]
            files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            if rest[0] == "tree":
                sizes = {path: file.stat().st_size for path, file in files.items()}
                return self._json([{"type": "file", "oid": "0" * 40, "size": n, "path": f} for f, n in sizes.items()])
            path = "/".join(rest[2:])
            if path not in files:
                return self._fail(404, "EntryNotFound", "Entry not found")
            content = files[path].read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content[: len(content) // 2] if path == cut else content)
            return None

        def _address(self) -> str:
            return f"http://{self.headers['Host']}"

        def _json(self, value: object, status: int = 200) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
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
def serve(hub: Repositories, *, cut: str | None = None) -> Iterator[str]:
    """Yield the address of a hub; the file `cut` breaks off in the middle of its download."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(hub, cut))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def fake_hub(folders: dict[str, Path], *, cut: str | None = None) -> AbstractContextManager[str]:
    """Return a hub that has these models, to be entered for its address."""
    return serve(Repositories(folders, None), cut=cut)
