"""Spans and clips of the rows, looked up once a run, and the controls that get other clips."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from torch import nn

from audiobert.artefacts import read_json, whole_file, write_json
from audiobert.auditorybench.data import Row
from audiobert.errors import InputError
from audiobert.inputs import Offsets
from audiobert.parts import Parts
from audiobert.progress import track
from audiobert.training.clips import Spectrograms, TrainingClip, label_of
from audiobert.training.processes import main_process_first
from audiobert.training.questions import Question


class Retrieved:
    """The clips of every span text, looked up once: training asks for the same spans in every epoch."""

    def __init__(self, indices: dict[str, np.ndarray], scores: dict[str, np.ndarray]) -> None:
        self.indices, self.scores = indices, scores

    def of(self, question: Question, width: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
        """Clip indices and CLAP scores `(width, clips)` of a question's spans; padding has index 0, score 0."""
        return self.of_texts(question.span_texts, width, clips)

    def of_texts(self, texts: Sequence[str], width: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of the texts of spans."""
        indices = np.zeros((width, clips), dtype=np.int64)
        scores = np.zeros((width, clips), dtype=np.float32)
        for column, text in enumerate(texts):
            indices[column] = self.indices[text.lower()][:clips]
            scores[column] = self.scores[text.lower()][:clips]
        return indices, scores

    def shuffled(self, seed: int) -> Retrieved:
        """The same clips, dealt to other spans: as plausible as before, but about something else."""
        names = sorted(self.indices)
        order = np.random.default_rng(seed).permutation(len(names))
        return Retrieved(
            {name: self.indices[names[order[i]]] for i, name in enumerate(names)},
            {name: self.scores[names[order[i]]] for i, name in enumerate(names)},
        )

    def random(self, seed: int, clip_count: int) -> Retrieved:
        """Any clips, with the scores of the retrieved ones."""
        random = np.random.default_rng(seed)
        drawn = {n: random.choice(clip_count, size=len(self.indices[n]), replace=False) for n in sorted(self.indices)}
        return replace_indices(self, drawn)


class Oracle(Retrieved):
    """Clips of each row's own answer, whatever its spans say, where there are such clips; their scores are those of the
    retrieved ones.

    Parameters
    ----------
    rows
        All that will be asked.
    allowed : np.ndarray
        `(clips,)` bool, which clips may be heard.
    """

    def __init__(
        self, retrieved: Retrieved, rows: Iterable[Row], clips: Sequence[TrainingClip], allowed: np.ndarray, seed: int
    ) -> None:
        super().__init__(retrieved.indices, retrieved.scores)
        random = np.random.default_rng(seed)
        by_label: dict[str, list[int]] = {}
        for index, clip in enumerate(clips):
            if allowed[index]:
                by_label.setdefault(clip.label, []).append(index)
        count = len(next(iter(retrieved.indices.values()), ()))
        self._own: dict[tuple[str, str, int], np.ndarray] = {}
        for row in rows:
            if label := label_of(row.answer, by_label):
                members = by_label[label]
                drawn = random.choice(members, size=count, replace=len(members) < count)
                self._own[row.task, row.split, row.row] = drawn

    def of(self, question: Question, width: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
        indices, scores = super().of(question, width, clips)
        own = self._own.get((question.task, question.split, question.row))
        if own is not None:
            indices[: len(question.spans)] = own[:clips]
        return indices, scores


def replace_indices(retrieved: Retrieved, indices: dict[str, np.ndarray]) -> Retrieved:
    """The same scores with other clips."""
    return Retrieved(indices, retrieved.scores)


def detected_spans(parts: Parts, rows: Sequence[Row], cache: Path) -> list[list[Offsets]]:
    """What the detector finds in the rows; kept in a file for the next run with the same detector."""
    key = digest([parts.records["detector"]["sha256"], *(row.text for row in rows)])
    path = cache / f"detected-{key}.json"
    with main_process_first():
        if not path.exists():
            found = parts.detector.detect([row.text for row in rows])
            write_json(path, [[(span.start, span.end) for span in spans] for spans in found])
    return [[(start, end) for start, end in spans] for spans in read_json(path)]


def clap_vectors(parts: Parts, spectrograms: Spectrograms, *, batch_size: int = 64) -> np.ndarray:
    """CLAP vectors `(clips, clap_dim)` of all clips; the sound is decoded at CLAP's own rate where that is another."""
    vectors = []
    for start in track(range(0, len(spectrograms), batch_size), "CLAP vectors"):
        members = range(start, min(start + batch_size, len(spectrograms)))
        vectors.append(parts.clap.embed_audio(spectrograms.heard_by(parts.clap.features, members)))
    return np.concatenate(vectors)


def retrieve(
    parts: Parts,
    spectrograms: Spectrograms,
    texts: set[str],
    query: str,
    clips: int,
    cache: Path,
    allowed: np.ndarray | None = None,
) -> Retrieved:
    """The nearest clips of every span text by cosine of CLAP vectors; kept in a file for the next run.

    Parameters
    ----------
    allowed : np.ndarray, optional
        `(clips,)` bool, which clips may be retrieved.

    Raises
    ------
    InputError
        Fewer clips may be retrieved than a span is to get.
    """
    names = sorted(texts)
    left = len(spectrograms) if allowed is None else int(allowed.sum())
    if left < clips:
        raise InputError(f"{left} clips may be retrieved, and a span is to get {clips}; lower clips_per_span")
    key_parts = [parts.records["clap"]["sha256"], str(spectrograms.frames_path.name), query, str(clips), *names]
    if allowed is not None and not allowed.all():
        key_parts.append(allowed.tobytes().hex())
    key = digest(key_parts)
    path = cache / f"retrieved-{key}.safetensors"
    with main_process_first():
        if not path.exists():
            audio_vectors = clap_vectors(parts, spectrograms)
            queries = parts.clap.embed_text([query.format(span=name) for name in names])
            tops, best = [], []
            for start in range(0, len(names), 4096):
                cosines = queries[start : start + 4096] @ audio_vectors.T
                if allowed is not None:
                    cosines[:, ~allowed] = -np.inf
                tops.append(np.argsort(-cosines, axis=1, kind="stable")[:, :clips])
                best.append(np.take_along_axis(cosines, tops[-1], axis=1))
            with whole_file(path) as part:
                save_file({"rows": np.concatenate(tops), "scores": np.concatenate(best)}, part)
    found = load_file(path)
    return Retrieved(dict(zip(names, found["rows"], strict=True)), dict(zip(names, found["scores"], strict=True)))


def digest_of_weights(module: nn.Module) -> str:
    """A short name for a module's weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def digest(values: Sequence[str]) -> str:
    """A short name for a list of strings."""
    return hashlib.sha256("\0".join(values).encode()).hexdigest()[:16]
