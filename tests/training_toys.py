"""A small folder in the layout that training reads."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import soundfile

LABELS = {"dog": 300.0, "cat": 900.0, "bell": 2000.0}


def write_data(folder: Path) -> Path:
    """Write tones for clips, a handful of rows for each task, and some lines of text into an empty folder."""
    (folder / "text").mkdir()
    lines = ["The town council met on Monday to talk about the budget.", "She read a book by the window all day."] * 20
    for name in ("general_train", "general_eval"):
        with gzip.open(folder / "text" / f"{name}.txt.gz", "wt") as file:
            file.write("\n".join(lines))
    with gzip.open(folder / "text" / "audiocaps_captions.csv.gz", "wt", newline="") as file:
        csv.writer(file).writerows([["split", "caption"], ["train", "A dog barks twice"], ["val", "Never seen"]])
    audio = folder / "audio"
    audio.mkdir()
    rows = [["path", "source", "label", "caption", "duration_s", "fold", "license"]]
    for label, pitch_hz in LABELS.items():
        for take in range(6):
            time = np.arange(16_000) / 16_000
            soundfile.write(audio / f"{label}{take}.wav", 0.5 * np.sin(2 * np.pi * (pitch_hz + take) * time), 16_000)
            rows.append([f"{label}{take}.wav", "made here", label, f"a {label} sounding", "1.0", "0", "CC0"])
    with (audio / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    bench = folder / "auditorybench"
    bench.mkdir()
    animal = [
        ["dog", "woof", "Woof is the sound a [MASK] makes."],
        ["cat", "meow", "Meow is the sound a [MASK] makes."],
    ]
    pitch = [
        [
            f"The sound of a {a} has a [MASK] pitch than the sound of a {b}.",
            answer,
            f"sound of a {a}",
            f"sound of a {b}",
        ]
        for a, b, answer in (("bell", "dog", "higher"), ("dog", "cat", "lower"))
    ]
    for split in ("train", "dev", "wiki"):
        for name, header, body in (
            ("animal_sound_recognition", ["animal", "span", "sentence"], animal),
            ("sound_pitch_comparsion", ["sentence", "answer", "span1", "span2"], pitch),
        ):
            with (bench / f"{name}_{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([header, *body * 4])
    return folder
