"""A small folder in the layout that training reads, and clips and a bank without any audio file."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from transformers import AutoTokenizer

from audiobert.audio import Attributes
from audiobert.bank import AudioBank
from audiobert.bank.store import write_bank
from audiobert.clap import QueryVectors
from audiobert.retrieve import RetrievalSettings, Retriever
from audiobert.sentence import Span
from audiobert.training.clips import TrainingClip, TrainingClips
from audiobert.training.lookup import Lookup
from audiobert.training.spelling import Spelling
from auditorybench_toys import bert

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


# Kinds of clips that were only measured: hertz, hertz of the centroid, seconds. No two attributes order them alike.
MEASURED = {
    "flute": (1000.0, 500.0, 4.0),
    "drum": (100.0, 4000.0, 1.0),
    "cow": (200.0, 1000.0, 8.0),
    "cat": (600.0, 2000.0, 2.0),
    "owl": (400.0, 3000.0, 16.0),  # owl and tuba are withheld
    "tuba": (50.0, 250.0, 32.0),
}
RELATED = {"tuba": "wind", "flute": "wind", "owl": "animal", "cow": "animal"}
TAKES = 3
WORDS = ("higher", "lower", "longer", "shorter", "brighter", "darker", "high", "low", "long", "short")


def measured_clips(kinds: Mapping[str, tuple[float, float, float]] = MEASURED) -> TrainingClips:
    """Three clips per kind, whose measurements are near each other, without features."""
    clips = []
    for label, (pitch_hz, centroid_hz, duration_s) in kinds.items():
        for take in range(TAKES):
            near = 1.0 + 0.01 * take
            caption = f"a {label} sounding loudly"
            row = {"id": f"{label}{take}", "label": label, "caption": caption, "path": f"{label}{take}.wav"}
            row |= {"pitch_hz": pitch_hz * near, "spectral_centroid_hz": centroid_hz * near}
            loudness_dbfs = -pitch_hz / 20  # the higher, the quieter
            row |= {"duration_s": duration_s * near, "loudness_dbfs": loudness_dbfs}
            attributes = Attributes(duration_s, loudness_dbfs, -1.0, pitch_hz, pitch_hz, 1.0, centroid_hz, 0.1)
            clips.append(TrainingClip(row["id"], label, caption, "", row, attributes))
    return TrainingClips(clips, {})


class WordClap:
    """Texts as sets of the kinds they name and what these are related to; what they have in common is their cosine."""

    clap_dim = text_dim = 256

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def embed_query(self, texts: Sequence[str]) -> QueryVectors:
        vectors = np.zeros((len(texts), self.text_dim), dtype=np.float32)
        for row, text in enumerate(texts):
            words = [word for word in re.findall(r"[a-z]+", text.lower()) if word in MEASURED] or ["nothing"]
            words += [RELATED[word] for word in words if word in RELATED]
            vectors[row, [self.places.setdefault(word, len(self.places)) for word in words]] = 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return QueryVectors(vectors, vectors)


def measured_lookup(folder: Path, clips: TrainingClips, allowed: np.ndarray, count: int = 2) -> Lookup:
    """Write a bank of these clips and return what is found in it."""
    clap = WordClap()
    folder.mkdir()
    write_bank(
        folder,
        clips=len(clips),
        rows=(
            (clip.row, clap.embed_query([clip.label]).clap[0], np.zeros(4, dtype=np.float32)) for clip in clips.clips
        ),
        rejected=[],
        clap_dim=clap.clap_dim,
        hidden_size=4,
        text_dim=clap.text_dim,
        name_vectors=lambda names: clap.embed_query(names).sentence,
        manifest={"identity": {}, "settings": {}, "audio_root": None},
    )
    bank = AudioBank.open(folder)
    return Lookup(Retriever(clap, [bank], RetrievalSettings(by="both", clips=count, relatives=8)), bank, allowed)  # type: ignore[arg-type]


def toy_spelling(folder: Path, *words: str) -> Spelling:
    """Spell answers with a small BERT's wordpieces; these words and those of the attributes are one piece each."""
    return Spelling(AutoTokenizer.from_pretrained(bert(folder, whole=(*WORDS, *MEASURED, *words))))


def spelled(spelling: Spelling, tokens: Sequence[int]) -> str:
    """Return the word of some tokens."""
    return str(spelling._tokenizer.decode(list(tokens)))


class WordDetector:
    """Finds the spans "sound of a ..." and those of some words."""

    def __init__(self, *words: str) -> None:
        self.pattern = re.compile("|".join([r"sound of an? \w+", *words]))

    def detect(self, texts: Sequence[str]) -> list[list[Span]]:
        return [[Span(m.group(), *m.span(), 0.9) for m in self.pattern.finditer(text)] for text in texts]
