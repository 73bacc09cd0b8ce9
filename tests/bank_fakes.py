"""A small deterministic encoder, small sound files and banks of synthetic vectors for the tests of the bank."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import soundfile

from audiobert.audio import MEL_BINS, SAMPLE_RATE_HZ, Attributes
from audiobert.bank import AudioBank, build_bank
from audiobert.bank.build import add_index
from audiobert.bank.sources import Entry
from audiobert.bank.store import write_bank
from audiobert.features import AUDIO_ENCODER, CLAP, Features, LogMel, Makers


class FakeEncoder:
    """Projects a clip's mean spectrum; counts what it encoded, and can stop the build after some batches."""

    clap_dim = 16
    hidden_size = 24
    precision = "fp32"
    makers: ClassVar[Makers] = {CLAP: LogMel(96), AUDIO_ENCODER: LogMel(96)}

    def __init__(
        self, name: str = "fake", batches: int | None = None, kill_once: Path | None = None, text_dim: int = 8
    ) -> None:
        self.name = name
        self.batches = batches
        self.kill_once = kill_once
        self.text_dim = text_dim
        self.encoded = 0
        self.embedded: list[str] = []

    def identity(self) -> dict[str, Any]:
        identity = {"clap": {"id": self.name, "sha256": "ab" * 32}, "audio_encoder": {"id": "ear", "sha256": "cd" * 32}}
        return {**identity, "text_encoder": {"id": "eye", "sha256": "ef" * 32}} if self.text_dim else identity

    def embed_names(self, names: Sequence[str]) -> np.ndarray:
        self.embedded += names
        return np.stack([name_vector(name, self.text_dim) for name in names])

    def encode(self, features: list[Features], attributes: list[Attributes]) -> tuple[np.ndarray, np.ndarray]:
        spectrograms = [one[CLAP] for one in features]
        if self.batches is not None:
            if not self.batches:
                raise KeyboardInterrupt
            self.batches -= 1
        if self.kill_once and not self.kill_once.exists():
            self.kill_once.touch()
            os._exit(9)
        assert len(spectrograms) == len(attributes)
        assert all(len(one) <= 96 for one in spectrograms)
        self.encoded += len(spectrograms)
        random = np.random.default_rng(7)
        to_clap = random.standard_normal((MEL_BINS, self.clap_dim))
        to_knowledge = random.standard_normal((MEL_BINS, self.hidden_size))
        means = np.stack([one.mean(axis=0) for one in spectrograms])  # (clips, mel bins)
        clap = means @ to_clap
        return clap / np.linalg.norm(clap, axis=1, keepdims=True), means @ to_knowledge / 100


@dataclass(frozen=True)
class DeadlyEntry(Entry):
    """An entry that ends the process that opens it."""

    def open(self) -> BinaryIO:
        os._exit(11)


def name_vector(name: str, width: int = 8) -> np.ndarray:
    """The unit vector that the fake encoder makes of a name."""
    vector = np.random.default_rng(list(name.encode())).standard_normal(width)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def built(source: Any, out: Path) -> AudioBank:
    build_bank(source, out, FakeEncoder(), workers=0)
    return AudioBank.open(out)


def rejections(bank: AudioBank) -> dict[str, tuple[str, str]]:
    lines = (bank.folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: (row["reason"], row["detail"]) for row in map(json.loads, lines)}


def write_tone(path: Path, frequency_hz: float, seconds: float = 0.4, rate: int = SAMPLE_RATE_HZ) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * frequency_hz * time), rate)


def write_tones(folder: Path, count: int) -> list[Path]:
    """`count` sound files of rising pitch in two folders, WAV and FLAC at several rates."""
    paths = []
    for number in range(count):
        kind, rate = (("wav", 16_000), ("flac", 22_050), ("ogg", 44_100))[number % 3]
        path = folder / ("low" if number < count // 2 else "high") / f"tone{number:03d}.{kind}"
        write_tone(path, 150.0 * 1.1**number if number < 30 else 200.0 + 7 * number, rate=rate)
        paths.append(path)
    return paths


def clustered(clips: int, width: int) -> np.ndarray:
    """Unit vectors around a few hundred centres, as sounds of a few hundred kinds have them."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((200, width))
    vectors = centres[random.integers(0, 200, clips)] + 0.7 * random.standard_normal((clips, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def synthetic_bank(folder: Path, clips: int, width: int = 32, index: bool | None = None) -> AudioBank:
    vectors = clustered(clips, width)
    rows = (
        ({"id": f"{n:07d}", "caption": f"sound {n}", "source": f"s{n % 4}", "license": "CC0"}, vectors[n], vectors[n])
        for n in range(clips)
    )
    folder.mkdir()
    manifest = {"identity": {}, "settings": {}, "audio_root": None}
    content = write_bank(
        folder, clips=clips, rows=rows, rejected=[], clap_dim=width, hidden_size=width, manifest=manifest
    )
    add_index(folder, content, index)
    return AudioBank.open(folder)
