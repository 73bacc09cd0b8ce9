"""The demo page on a free port of loopback, with a fake model or with a bank that has audio to play."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
import soundfile

from audiobert.answers import AuditorySpan, FillMask, MaskPredictions, Prediction
from audiobert.bank import AudioBank
from audiobert.errors import InputError
from audiobert.features import AUDIO_ENCODER, CLAP, Features, LogMel, Makers
from audiobert.model_folder import ModelSettings
from audiobert.recordings import encode_recording

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
class FakeModel:
    """As much of an AudioBert as the page needs; an answer takes some seconds."""

    bank: AudioBank
    seconds: float = 0.0
    answered: list[str] = field(default_factory=list)
    sounds: list[dict[str, str]] = field(default_factory=list)
    settings: ModelSettings = field(default_factory=ModelSettings)

    def clip_encoder(self) -> ForeignEncoder:
        return ForeignEncoder()

    def with_bank(self, bank: AudioBank, *, only: bool) -> FakeModel:
        assert only
        return replace(self, bank=bank)

    def fill_mask(
        self, text: str, *, top_k: int, audio: bool = True, clips_per_span: int | None = None, sounds: Any = None
    ) -> FillMask:
        del top_k, clips_per_span
        time.sleep(self.seconds)
        if "crash" in text:
            raise RuntimeError("a fault of the house, with a path /very/secret")
        if "[MASK]" not in text:
            raise InputError(f"no [MASK] in {text!r}")
        self.answered.append(text)
        self.sounds.append(dict(sounds or {}))
        for file in self.sounds[-1].values():
            encode_recording(self.clip_encoder(), file)  # type: ignore[arg-type]
        said = (Prediction("cat", 0.6),)
        spans = (AuditorySpan(text[:4], 0, 4, 0.9),) if audio else ()
        return FillMask(text, audio, spans, (MaskPredictions(said, said),))


def tone(path: Path, hertz: float = 440.0, seconds: float = 1.0) -> Path:
    """Write a sine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(int(16_000 * seconds)) / 16_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * time_s), 16_000)
    return path


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


def serve(house: Path, *, seconds: float = 0.0, queue_limit: int = 128, model: FakeModel | None = None) -> Any:
    """Serve the page with a fake model and the banks of a folder."""
    from audiobert.web.demo import build_app
    from audiobert.web.shelf import Shelf

    banks = [folder for folder in (house / "bank", house / "evil-bank") if folder.is_dir()]
    shelf = Shelf(
        ["fake"],
        banks,
        loader=lambda _: model or FakeModel(AudioBank.open(house / "bank"), seconds),  # type: ignore[arg-type, return-value]
    )
    shelf.choose(bank=str(banks[-1]))
    return running(build_app(shelf, queue_limit=queue_limit))


def ask(
    url: str, text: str, bank: str, client: httpx.Client, words: str = "", recording: str | None = None
) -> tuple[int, str]:
    """Ask one question over HTTP; the status, and the HTML or what was said instead."""
    file = {"path": recording, "meta": {"_type": "gradio.FileData"}} if recording else None
    form = {"data": [text, True, 2, words, file, "fake", bank]}
    joined = client.post(f"{url}/gradio_api/call/fill_mask", json=form)
    if joined.status_code != 200:
        return joined.status_code, joined.text
    with client.stream("GET", f"{url}/gradio_api/call/fill_mask/{joined.json()['event_id']}") as stream:
        lines = [line for line in stream.iter_lines() if line]
    return 200, "\n".join(lines)


def upload(url: str, content: bytes, name: str) -> httpx.Response:
    """Upload a file as the page does."""
    return httpx.post(f"{url}/gradio_api/upload", files={"files": (name, content)})
