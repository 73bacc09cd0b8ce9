"""The demo page on a free port of loopback, and a bank that has audio to play."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from audiobert.features import AUDIO_ENCODER, CLAP, Features, LogMel, Makers

# The model that the page is tested with; another folder can be given while one is being trained.
MODEL = os.environ.get("AUDIOBERT_TEST_MODEL", "mini")
# Without these Chromium asks its maker's servers for news at every start.
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
LABELS = {"cat": 4, "dog": 3, "cow": 2, "flute": 2, "double bass": 2}


def copy_sounds(shared: Path, folder: Path) -> Path:
    """Copy some clips of the shared audio with their rows; returns the manifest."""
    with (shared / "audio" / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for label, count in LABELS.items() for row in [r for r in rows if r["label"] == label][:count]]
    for row in chosen:
        (folder / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared / "audio" / row["path"], folder / row["path"])
    manifest = folder / "clips.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return manifest


class ForeignEncoder:
    """Makes a bank that belongs to no model here."""

    clap_dim, hidden_size, text_dim, precision = 8, 12, 0, "fp32"
    makers: ClassVar[Makers] = {CLAP: LogMel(512), AUDIO_ENCODER: LogMel(512)}

    def identity(self) -> dict[str, Any]:
        return {
            "clap": {"id": "foreign/clap", "sha256": "0" * 64},
            "audio_encoder": {"id": "foreign", "sha256": "1" * 64},
        }

    def encode(self, features: list[Features], attributes: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        del attributes
        clap = np.random.default_rng(0).normal(size=(len(features), self.clap_dim))
        clap /= np.linalg.norm(clap, axis=1, keepdims=True)
        return clap.astype(np.float32), np.zeros((len(features), self.hidden_size), np.float32)


@dataclass
class Running:
    """A page that is being served: where, and what the server connected to elsewhere."""

    url: str
    banks: dict[str, str] = field(default_factory=dict)
    connected: list[str] = field(default_factory=list)
    shelf: Any = None


@contextmanager
def running(app: Any) -> Iterator[Running]:
    """Serve an application in a thread; every connection that this process opens to elsewhere is written down."""
    import uvicorn

    from audiobert.web.demo import bind

    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    demo = Running(f"http://127.0.0.1:{listening.getsockname()[1]}")
    connect = socket.socket.connect

    def watched(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            demo.connected.append(str(address))
        return connect(self, address)

    socket.socket.connect = watched  # type: ignore[method-assign]
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            thread.join(0.02)
        yield demo
    finally:
        server.should_exit = True
        thread.join(30)
        socket.socket.connect = connect  # type: ignore[method-assign]
        listening.close()
