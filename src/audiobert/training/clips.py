"""Load the clips that training learns from: decoded and measured as in a bank, their features cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audiobert.artefacts import sha256_of, whole_file, write_text
from audiobert.audio import Attributes
from audiobert.auditorybench.kinds import Recorded, held_out, words_of
from audiobert.bank.batches import batched
from audiobert.bank.decode import DecodeSettings
from audiobert.bank.sources import open_source
from audiobert.bank.workers import Task, available_cores, decode_blocks
from audiobert.errors import InputError
from audiobert.features import Makers
from audiobert.knowledge import attribute_features
from audiobert.progress import stderr, track
from audiobert.training.processes import processes

_BLOCK = 32


@dataclass(frozen=True)
class TrainingClip:
    """A clip of the manifest."""

    id: str
    label: str
    name: str
    split: str  # of the benchmark, whose rows the clip was used for, where the manifest says so
    row: dict[str, Any]  # of a bank's table: what was given and what was measured
    attributes: Attributes


class TrainingClips:
    """Clips with the features that each audio model takes of them.

    Attributes
    ----------
    clips
        Those that could be decoded, in the order of the manifest.
    attributes
        `(clips, 7)` float32, `attribute_features`.
    features
        By role of the model (`clap`, `audio_encoder`).
    """

    def __init__(self, clips: list[TrainingClip], features: dict[str, Features]) -> None:
        self.clips, self.features = clips, features
        self.attributes = attribute_features([clip.attributes for clip in clips])

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def held_out(self) -> np.ndarray:
        """The clips that training leaves out, `(clips,)` bool."""
        return held_out([Recorded.of(clip.row) for clip in self.clips])

    @property
    def labels(self) -> list[str]:
        """The label of each clip."""
        return [clip.label for clip in self.clips]


class Features:
    """The features of all clips in one memory-mapped float16 file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = np.load(path, mmap_mode="r")
        self.lengths = np.load(path.with_suffix(".lengths.npy"))
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the features of one clip, `(time, ...)` float32."""
        start = self.starts[index]
        return np.asarray(self.frames[start : start + self.lengths[index]], dtype=np.float32)


def load_clips(folder: Path, makers: Makers, cache: Path) -> TrainingClips:
    """Decode, measure and transform the clips of `clips.csv` in a folder of audio; cached for the next run."""
    manifest = folder / "clips.csv"
    if not manifest.is_file():
        raise InputError(f"{manifest} does not exist; --data needs a folder with audio/clips.csv")
    settings = DecodeSettings(makers)
    what = json.dumps([settings.settings(), sha256_of(manifest)], sort_keys=True)
    stem = cache / f"clips-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    paths = _paths(stem, makers)
    table = stem.with_suffix(".jsonl")
    with processes().main_process_first():
        if not table.exists():
            _decode(manifest, settings, table, paths)
    records = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    return TrainingClips([_clip(record) for record in records], {role: Features(path) for role, path in paths.items()})


def _paths(stem: Path, makers: Makers) -> dict[str, Path]:
    """Return the features file of each role; roles whose makers are equal share one."""
    first = {maker: role for role, maker in reversed(list(makers.items()))}
    return {role: stem.with_name(f"{stem.name}-{first[maker]}.npy") for role, maker in makers.items()}


def _decode(manifest: Path, settings: DecodeSettings, table: Path, paths: dict[str, Path]) -> None:
    """Write the features of each model and then the table, clip by clip: memory does not grow with their number."""
    source = open_source(manifest)
    blocks = ([Task(entry, None) for entry in some] for some in batched(source, _BLOCK))
    workers = available_cores() if (source.total or 0) > _BLOCK else 0
    records: list[dict[str, Any]] = []
    rejected = 0
    roles = {path: role for role, path in paths.items()}
    with ExitStack() as stack:
        writers = {role: stack.enter_context(_feature_file(path)) for path, role in roles.items()}
        for block, decoded in track(
            decode_blocks(blocks, settings, workers), "clips", total=-(-(source.total or 0) // _BLOCK)
        ):
            for task, clip in zip(block, decoded, strict=True):
                if clip.features is None or clip.attributes is None:
                    rejected += 1
                    continue
                for role, write in writers.items():
                    write(clip.features[role])
                row = {"id": task.entry.id, **task.entry.given, **(clip.measured or {})}
                records.append({"row": row, "attributes": clip.attributes.__dict__})
    if not records:
        raise InputError(f"{manifest} names no clip that can be decoded")
    if rejected:
        stderr.print(f"{rejected} clips of {manifest} cannot be decoded and are left out")
    write_text(table, "".join(json.dumps(record) + "\n" for record in records))


@contextmanager
def _feature_file(path: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield what appends the features of a clip, `(time, ...)`, to a file that appears whole when the context ends."""
    lengths: list[int] = []
    shape: tuple[int, ...] = ()
    with whole_file(path) as part, part.open("wb") as file:

        def write(features: np.ndarray) -> None:
            nonlocal shape
            values = np.ascontiguousarray(features, dtype=np.float16)
            if not lengths:
                shape = values.shape[1:]
                _write_header(file, shape, 0)
            lengths.append(len(values))
            file.write(values.data)

        yield write
        _write_header(file, shape, sum(lengths))
    with whole_file(path.with_suffix(".lengths.npy")) as part, part.open("wb") as file:
        np.save(file, np.array(lengths))


def _write_header(file: BinaryIO, shape: tuple[int, ...], frames: int) -> None:
    """Write the header of a float16 array at the file's beginning; its length does not depend on the frames."""
    file.seek(0)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False}
    np.lib.format.write_array_header_1_0(file, {**header, "shape": (frames, *shape)})


def _clip(record: dict[str, Any]) -> TrainingClip:
    row = record["row"]
    extra = json.loads(row.get("extra") or "{}")
    return TrainingClip(
        id=row["id"],
        label=words_of(row.get("label") or ""),
        name=(row.get("caption") or row.get("label") or row.get("title") or row["id"]).strip(),
        split=str(extra.get("split") or ""),
        row=row,
        attributes=Attributes(**record["attributes"]),
    )


def label_of(answer: str, labels: set[str]) -> str | None:
    """Return the label of clips that an answer names, be it in the plural; None where there are no such clips.

    >>> label_of("Dogs", {"dog", "cat"})
    'dog'
    """
    name = answer.lower()
    return next((label for label in (name, name.removesuffix("s")) if label in labels), None)


def kept_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the array of a file; where there is none yet, the main process makes it and the others wait."""
    with processes().main_process_first():
        if not path.exists():
            with whole_file(path) as part, part.open("wb") as file:
                np.save(file, make())
    return np.load(path)


def in_batches(count: int, size: int) -> Iterator[range]:
    """Yield the ranges of at most `size` numbers that cover `count`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
