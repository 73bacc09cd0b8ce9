"""A small collection, its settings, and a whole construction of it, for the tests of the construction."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from audiobert.cli import run as command_line
from scripted_server import ScriptedServer
from test_construct_wiki import ANIMALS_WIKITEXT, RANGES_TIMELINE

# Label in the caption, its pitch in Hz; this clock is low, while the scripted model takes clocks for high.
TONES = {
    "cello": 130.8, "flute": 880.0, "trombone": 174.6, "piccolo flute": 1760.0, "double bass": 55.0, "mandolin": 523.3,
    "guitar": 220.0, "oboe": 540.0, "siren": 425.0, "clock": 70.0, "engine": 95.0, "car horn": 410.0, "train": 300.0,
}  # fmt: skip
ANIMALS = ("dog", "cat", "cow", "frog", "pig", "crow", "sheep", "rooster", "donkey", "lion", "monkey", "hen")


def make_collection(folder: Path) -> Path:
    """A manifest with 26 tones and 40 animals (whose files are missing: animals are not measured)."""
    rows = []
    time_s = np.arange(8_000) / 16_000
    for number, (name, hz) in enumerate(list(TONES.items()) * 2):
        path = f"tones/{number}.wav"
        (folder / "tones").mkdir(exist_ok=True)
        wave = sum(np.sin(2 * np.pi * hz * (1 + number / 500) * harmonic * time_s) / harmonic for harmonic in (1, 2, 3))
        soundfile.write(folder / path, (0.3 * wave).astype(np.float32), 16_000)
        rows.append({"path": path, "title": f"{name} take {number}", "caption": f"a {name} playing", "license": "CC0"})
    for number in range(40):
        name = ANIMALS[number % len(ANIMALS)]
        rows.append(
            {"path": f"animals/{number}.wav", "title": f"{name} {number}", "caption": f"a {name}", "license": "CC BY"}
        )
    for row in rows:
        row |= {"source": "Made up", "author": "ann", "url": f"http://example.org/{row['path']}"}
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "animals.wikitext").write_text(ANIMALS_WIKITEXT, encoding="utf-8")
    (folder / "ranges.wikitext").write_text(RANGES_TIMELINE, encoding="utf-8")
    return folder


def write_config(folder: Path, collection: Path, url: str, **changes: Any) -> Path:
    value: dict[str, Any] = {
        "name": "Small",
        "out": str(folder / "out"),
        "input": {"path": str(collection / "clips.csv")},
        "llm": {"model": "scripted", "base_url": url, "concurrency": 3, "backoff_s": 0.01, "backoff_max_s": 0.05},
        "pitch": {"pairs": 25},
        "wiki": {"animals": str(collection / "animals.wikitext"), "ranges": str(collection / "ranges.wikitext")},
    }
    for name, change in changes.items():
        value[name] = {**value.get(name, {}), **change}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    return folder / "config.yaml"


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the store and the reports of the runs, which tell of the way only."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "runs" and not path.name.startswith("store.sqlite")
    }


def make_construction(folder: Path, collection: Path) -> tuple[Path, Path, int]:
    """A whole, undisturbed run: its config, its folder, and how many questions it asked."""
    with ScriptedServer() as server:
        config = write_config(folder, collection, server.url)
        assert command_line(["construct", "run", str(config)]) == 0
        assert set(server.answered.values()) == {1}
        return config, folder / "out", server.requests
