"""The clips that training hears: manifest, spectrograms cached on disk, a split that keeps recordings apart."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from audiobert.artefacts import sha256_of, whole_file
from audiobert.audio import load_audio, measure
from audiobert.encoders import AudioEncoder
from audiobert.errors import InputError
from audiobert.features import FeatureMaker, LogMel
from audiobert.modeling import attribute_features
from audiobert.progress import track
from audiobert.training.processes import main_process_first

MAX_SECONDS = 10.3


@dataclass(frozen=True)
class TrainingClip:
    """A clip of the manifest.

    `recording` is the same for clips that were cut from one recording; `split` is that of the benchmark whose rows the
    clip was used for, where the manifest says so.
    """

    path: str
    label: str
    caption: str
    source: str
    fold: int
    recording: str
    split: str = ""


def read_clips(folder: Path) -> list[TrainingClip]:
    """The rows of `clips.csv` in a folder of audio.

    Raises
    ------
    InputError
        The manifest is missing or lacks a column.
    """
    manifest = folder / "clips.csv"
    if not manifest.is_file():
        raise InputError(f"{manifest} does not exist; --data wants a folder with audio/clips.csv")
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"path", "label", "caption", "source", "fold"}
    if not rows or not wanted <= set(rows[0]):
        raise InputError(f"{manifest} needs the columns {', '.join(sorted(wanted))} and at least one row")
    return [
        TrainingClip(
            row["path"],
            row["label"].replace("_", " "),
            row["caption"],
            row["source"],
            int(row["fold"] or 0),
            row.get("freesound_id") or row["path"],
            row.get("split") or "",
        )
        for row in rows
    ]


def label_of(answer: str, labels: Container[str]) -> str | None:
    """The label of clips that an answer names, be it in the plural; None where there are no such clips.

    >>> label_of("Dogs", {"dog", "cat"})
    'dog'
    """
    name = answer.lower()
    return next((label for label in (name, name.removesuffix("s")) if label in labels), None)


def held_out(clips: list[TrainingClip], share: int = 5) -> np.ndarray:
    """Which clips training does not hear, `(clips,)` bool: one recording in `share` of each class, chosen by its name.

    ESC-10 keeps its published fold 4 apart. All clips of one recording stand on one side.
    """
    by_label: dict[str, list[str]] = {}
    for clip in clips:
        if not clip.source.startswith("ESC-10") and clip.recording not in by_label.setdefault(clip.label, []):
            by_label[clip.label].append(clip.recording)
    chosen: set[str] = set()
    for recordings in by_label.values():
        ranked = sorted(recordings, key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen.update(ranked[: round(len(ranked) / share)])
    fold_4 = {clip.recording for clip in clips if clip.source == "ESC-10" and clip.fold == 4}
    return np.array([clip.recording in chosen or clip.recording in fold_4 for clip in clips])


def kept_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array of a file; where there is none yet, the main process makes it and the others wait."""
    with main_process_first():
        if not path.exists():
            with whole_file(path) as part, part.open("wb") as file:
                np.save(file, make())
    return np.load(path)


class Spectrograms:
    """What a model hears of all clips, in one memory-mapped float16 file, made on first use.

    Parameters
    ----------
    maker
        The model's; mini's towers hear log-mel spectrograms.
    """

    def __init__(
        self,
        folder: Path,
        clips: list[TrainingClip],
        cache: Path,
        maker: FeatureMaker = LogMel(),  # noqa: B008
    ) -> None:
        self.folder, self.clips, self.maker = folder, clips, maker
        what = [*(clip.path for clip in clips), json.dumps(maker.settings(), sort_keys=True)]
        key = hashlib.sha256("\n".join(what).encode() + sha256_of(folder / "clips.csv").encode())
        self.frames_path = cache / f"spectrograms-{key.hexdigest()[:16]}.npy"
        self.lengths_path = self.frames_path.with_suffix(".lengths.npy")
        with main_process_first():
            if not (self.frames_path.exists() and self.lengths_path.exists()):
                self._make(folder, clips)
        self.frames = np.load(self.frames_path, mmap_mode="r")
        self.lengths = np.load(self.lengths_path)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])

    def _make(self, folder: Path, clips: list[TrainingClip]) -> None:
        """Decode and write clip by clip: the memory that this takes does not grow with the number of clips."""
        lengths: list[int] = []
        with whole_file(self.frames_path) as part, part.open("wb") as file:
            for clip in track(clips, "features of the clips"):
                waveform = load_audio(
                    folder / clip.path, sample_rate_hz=self.maker.rate_hz, max_seconds=self.maker.seconds
                )
                features = self.maker(waveform).astype(np.float16)
                if not lengths:
                    _write_header(file, features, 0)
                lengths.append(len(features))
                file.write(np.ascontiguousarray(features).data)
            _write_header(file, features, sum(lengths))
        with whole_file(self.lengths_path) as part, part.open("wb") as file:
            np.save(file, np.array(lengths))

    def __len__(self) -> int:
        return len(self.lengths)

    def heard_by(self, maker: FeatureMaker, indices: Iterable[int]) -> list[np.ndarray]:
        """Features of clips as another model wants them, made anew unless they are these; nothing is kept."""
        if maker == self.maker:
            return [self[index] for index in indices]
        paths = [self.folder / self.clips[index].path for index in indices]
        return [maker(load_audio(path, sample_rate_hz=maker.rate_hz, max_seconds=maker.seconds)) for path in paths]

    def __getitem__(self, index: int) -> np.ndarray:
        """Features of a clip, `(time, ...)` float32; of `LogMel` `(frames, 128)`."""
        start = self.starts[index]
        return np.asarray(self.frames[start : start + self.lengths[index]], dtype=np.float32)


def measured_attributes(folder: Path, clips: list[TrainingClip], cache: Path) -> np.ndarray:
    """Attribute features `(clips, 7)` of all clips, measured once and kept in a file."""

    def measured() -> np.ndarray:
        waveforms = (load_audio(folder / clip.path, max_seconds=MAX_SECONDS) for clip in clips)
        return attribute_features([measure(w, 16_000) for w in track(waveforms, "attributes", total=len(clips))])

    return kept_array(cache / f"attributes-{sha256_of(folder / 'clips.csv')[:16]}.npy", measured)


def encode_clips(tower: AudioEncoder, spectrograms: Spectrograms, *, batch_size: int = 64) -> Tensor:
    """The audio encoder's features `(clips, width)` of all clips, without gradients, in the host's memory."""
    tower.eval()
    starts = range(0, len(spectrograms), batch_size)
    members = (range(start, min(start + batch_size, len(spectrograms))) for start in starts)
    return torch.cat([tower.encode([spectrograms[i] for i in indices]).cpu() for indices in members])


def _write_header(file: BinaryIO, features: np.ndarray, length: int) -> None:
    """The header of an `.npy` file of so many rows, at its start; numpy leaves room in it for the rows to grow."""
    file.seek(0)
    described = {"descr": "<f2", "fortran_order": False, "shape": (length, *features.shape[1:])}
    np.lib.format.write_array_header_1_0(file, described)
    if length:
        file.seek(0, 2)
