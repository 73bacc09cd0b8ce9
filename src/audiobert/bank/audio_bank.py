"""Open a bank, a set of clips with their vectors, from a folder and search it by CLAP vector."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audiobert.arguments import checked_count, checked_path
from audiobert.bank.clips import Clip
from audiobert.bank.licences import terms_of
from audiobert.bank.names import ClipNames, clip_names
from audiobert.bank.search import ApproximateIndex, exact_search
from audiobert.bank.store import (
    CLAP_VECTORS,
    CLIPS,
    INDEX,
    KNOWLEDGE_VECTORS,
    MANIFEST,
    NAME_VECTORS,
    VECTORS,
    ClipTable,
    open_vectors,
    read_manifest,
)
from audiobert.bank.verify import VerifyReport, file_problems, vector_problems
from audiobert.errors import ArtefactError, InputError

Method = Literal["auto", "exact", "approximate"]
# Vectors up to this size are kept as float32 in memory after the first search: a query then costs one multiplication.
_IN_MEMORY_BYTES = 64 << 20
_REMEMBERED_CLIPS = 65_536
# An index visits a part of its lists; where a filter leaves less than this share of the clips, it would miss too many.
_INDEX_MIN_SHARE = 0.2


class AudioBank:
    """Clips with their metadata, CLAP vectors, knowledge vectors and names.

    Open one with `AudioBank.open`. Metadata and vectors stay on disk and are read when they are used, so that opening
    takes milliseconds whatever the size.

    Attributes
    ----------
    clap_vectors
        `(clips, clap_dim)` float16, unit norm, memory-mapped.
    knowledge_vectors
        `(clips, hidden_size)` float16, memory-mapped.
    name_vectors
        `(names, text_dim)` float16, unit norm, memory-mapped; None in a bank that was built without.

    Examples
    --------
    >>> bank = AudioBank.open("bank")                                  # doctest: +SKIP
    >>> scores, rows = bank.search(query_vector, top_k=3)              # doctest: +SKIP
    >>> [bank.clip(row).caption for row in rows[0]]                    # doctest: +SKIP
    """

    def __init__(
        self,
        folder: Path,
        manifest: dict[str, Any],
        clips: ClipTable,
        vectors: Mapping[str, np.ndarray],
        audio_root: Path | None,
    ) -> None:
        self.folder, self.manifest = folder, manifest
        self.clap_vectors, self.knowledge_vectors = vectors[CLAP_VECTORS], vectors[KNOWLEDGE_VECTORS]
        self.name_vectors = vectors.get(NAME_VECTORS)
        self._clips, self._vectors, self._audio_root = clips, vectors, audio_root

    @classmethod
    def open(cls, folder: str | Path, *, audio_root: str | Path | None = None) -> AudioBank:
        """Open a bank.

        Parameters
        ----------
        folder
            Made by `build_bank` or `audiobert bank build`.
        audio_root
            Folder that the clips' paths are relative to; by default the one the bank was built from, if it says.

        Raises
        ------
        ArtefactError
            When the folder holds no bank, or one that is damaged.
        """
        folder = checked_path("the bank's folder", folder)
        manifest = read_manifest(folder)
        clips = ClipTable(folder / CLIPS)
        vectors = open_vectors(folder / VECTORS)
        if manifest.get("clips") != len(clips):
            raise ArtefactError(f"{folder / CLIPS} has {len(clips)} clips, not {manifest.get('clips')}; build it again")
        shapes = {CLAP_VECTORS: ("clips", "clap_dim"), KNOWLEDGE_VECTORS: ("clips", "hidden_size")}
        if manifest.get("text_dim") or NAME_VECTORS in vectors:
            shapes[NAME_VECTORS] = ("names", "text_dim")
        for name, (rows, width) in shapes.items():
            has, wanted = getattr(vectors.get(name), "shape", "no"), (manifest.get(rows), manifest.get(width))
            if has != wanted:
                raise ArtefactError(f"{folder / VECTORS} has {has} {name}, the bank needs {wanted}; build it again")
        root = audio_root or manifest.get("audio_root")
        return cls(folder, manifest, clips, vectors, Path(root) if root else None)

    @property
    def identity(self) -> dict[str, Any]:
        """Ids and checksums, by role, of the models that made the vectors."""
        return self.manifest["identity"]

    @property
    def names(self) -> list[str]:
        """The distinct texts that clips are known by (see `known_as`), in order of first occurrence."""
        return self._names.texts

    @property
    def name_rows(self) -> np.ndarray:
        """`(clips, 2)` int32, index of each clip's texts in `names`; -1 where a clip has fewer."""
        return self._names.rows

    def __len__(self) -> int:
        return len(self._clips)

    def __repr__(self) -> str:
        return f"AudioBank({str(self.folder)!r}: {len(self):,} clips)"

    def clip(self, index: int) -> Clip:
        """Return the metadata of one clip; negative indices count from the end."""
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self._clip(index % len(self))

    @lru_cache(maxsize=_REMEMBERED_CLIPS)  # noqa: B019  a bank lives as long as its process
    def _clip(self, row: int) -> Clip:
        return self._with_path(Clip.from_row(self._clips.row(row)))

    def clips(self) -> Iterator[Clip]:
        """Yield all clips in order."""
        for row in self._clips.rows():
            yield self._with_path(Clip.from_row(row))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the clip table in order, paths as they are stored."""
        return self._clips.rows()

    def _with_path(self, clip: Clip) -> Clip:
        if clip.path is None or os.path.isabs(clip.path):  # noqa: PTH117  a Path is slow for each of many clips
            return clip
        return replace(clip, path=str(self._audio_root / clip.path) if self._audio_root else None)

    @cached_property
    def table(self) -> pa.Table:
        """The metadata of all clips as an Arrow table, memory-mapped."""
        return self._clips.table()

    @cached_property
    def _vectors_in_memory(self) -> np.ndarray:
        small = self.clap_vectors.size * 4 <= _IN_MEMORY_BYTES
        return self.clap_vectors.astype(np.float32) if small else self.clap_vectors

    def rows_of_name(self, name: int, allowed: np.ndarray | None = None) -> np.ndarray:
        """Return the rows of the clips that are known by `names[name]`, where a `(clips,)` bool allows them."""
        order, starts = self._by_name
        rows = np.sort(order[starts[name] : starts[name + 1]])
        return rows if allowed is None else rows[allowed[rows]]

    @cached_property
    def _by_name(self) -> tuple[np.ndarray, np.ndarray]:
        """Clips ordered by their names, and where each name begins in that order."""
        flat = self.name_rows.ravel()
        order = np.argsort(flat, kind="stable")
        starts = np.searchsorted(flat[order], np.arange(len(self.names) + 1))
        return order // self.name_rows.shape[1], starts

    def with_knowledge(self, knowledge_vectors: np.ndarray) -> AudioBank:
        """Return the same bank with other knowledge vectors, `(clips, hidden_size)`, as in the course of a training."""
        return self._with(KNOWLEDGE_VECTORS, knowledge_vectors)

    def with_names(self, names: ClipNames, name_vectors: np.ndarray) -> AudioBank:
        """Return the same bank whose clips are known by other names, `(names, text_dim)` their vectors of unit norm."""
        other = self._with(NAME_VECTORS, name_vectors)
        other.__dict__["_names"] = names  # what the cached property below would read from the table
        return other

    def _with(self, name: str, vectors: np.ndarray) -> AudioBank:
        return AudioBank(self.folder, self.manifest, self._clips, {**self._vectors, name: vectors}, self._audio_root)

    @cached_property
    def _names(self) -> ClipNames:
        names = clip_names(self._clips.batches())
        if self.name_vectors is not None and len(names.texts) != len(self.name_vectors):
            raise ArtefactError(
                f"{self.folder / VECTORS} has {len(self.name_vectors)} name_vectors, but {CLIPS} has "
                f"{len(names.texts)} names; restore the bank or build it again"
            )
        return names

    @cached_property
    def _index(self) -> ApproximateIndex | None:
        return ApproximateIndex(self.folder / INDEX, len(self)) if self.manifest.get("index") else None

    def find(self, ids: str | Iterable[str]) -> np.ndarray:
        """Return the row numbers of clips by id."""
        wanted = _texts(ids)
        rows = pc.index_in(pa.array(wanted, pa.string()), self.table["id"].combine_chunks())
        if rows.null_count:
            unknown = wanted[rows.is_null().index(True).as_py()]
            raise InputError(f"{self.folder} has no clip with the id {unknown!r} ({rows.null_count} ids are unknown)")
        return rows.to_numpy(zero_copy_only=False).astype(np.int64)

    def select(
        self,
        *,
        exclude: str | Iterable[str] | None = None,
        licenses: str | Iterable[str] | None = None,
        redistributable: bool | None = None,
        sources: str | Iterable[str] | None = None,
        labels: str | Iterable[str] | None = None,
        min_duration_s: float | None = None,
        max_duration_s: float | None = None,
    ) -> np.ndarray | None:
        """Return which clips may be found, `(clips,)` bool; None when there is no filter.

        One text is taken for a list of one.

        Parameters
        ----------
        exclude
            Ids that must not be found; unknown ones are ignored, so that one list serves several banks.
        licenses
            Licences, in any usual spelling (`CC0`, `cc-by`, a Creative Commons URL).
        redistributable
            Only clips whose licence says that they may (or may not) be passed on.
        sources, labels
            Values of the columns `source` and `label`, letter case aside.
        min_duration_s, max_duration_s
            Length of the clip in seconds.
        """
        masks: list[np.ndarray] = []
        if exclude is not None and (excluded := _texts(exclude)):
            masks.append(~_numpy(pc.is_in(self.table["id"], pa.array(excluded, pa.string()))))
        if licenses is not None:
            wanted = {terms_of(one).name.lower() for one in _texts(licenses)}
            masks.append(self._by_license(lambda given: terms_of(given).name.lower() in wanted))
        if redistributable is not None:
            masks.append(self._by_license(lambda given: terms_of(given).redistributable is redistributable))
        for column, values in (("source", sources), ("label", labels)):
            if values is not None:
                lower = pa.array([value.lower() for value in _texts(values)], pa.string())
                masks.append(_numpy(pc.is_in(pc.utf8_lower(self.table[column]), lower)))
        if min_duration_s is not None:
            masks.append(_numpy(pc.greater_equal(self.table["duration_s"], min_duration_s)))
        if max_duration_s is not None:
            masks.append(_numpy(pc.less_equal(self.table["duration_s"], max_duration_s)))
        return np.logical_and.reduce(masks) if masks else None

    def _by_license(self, allowed: Callable[[str], bool]) -> np.ndarray:
        column = self.table["license"]
        given = [one for one in pc.unique(column).to_pylist() if allowed(one)]
        return _numpy(pc.is_in(column, pa.array(given, pa.string())))

    def search(
        self,
        query_vectors: np.ndarray,
        top_k: int = 10,
        *,
        exclude: str | Iterable[str] | None = None,
        mask: np.ndarray | None = None,
        method: Method = "auto",
        **filters: Any,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the nearest clips of each query by cosine.

        Parameters
        ----------
        query_vectors
            `(queries, clap_dim)` or `(clap_dim,)`, unit norm.
        top_k
            Clips per query; fewer when the filters leave fewer.
        mask
            `(clips,)` bool, True where a clip may be found.
        method
            `exact`, `approximate` (needs the bank's index), or `auto`: approximate where the bank has an index and the
            filters leave enough for it.
        **filters
            As for `select`: licenses, redistributable, sources, labels, min_duration_s, max_duration_s.

        Returns
        -------
        tuple[np.ndarray, np.ndarray]
            Scores float32 in descending order and row numbers int64, both `(queries, top_k)`.

        Raises
        ------
        InputError
            When the shapes do not fit, or `top_k` is less than 1.
        """
        queries = np.atleast_2d(np.asarray(query_vectors, dtype=np.float32))
        clap_dim = self.clap_vectors.shape[1]
        if queries.ndim != 2 or queries.shape[1] != clap_dim:
            raise InputError(f"the queries have shape {queries.shape}; this bank needs (queries, {clap_dim})")
        top_k = checked_count("top_k", top_k)
        if not np.isfinite(queries).all():
            raise InputError("a query vector holds values that are no numbers; check the model that made it")
        selected = self.select(exclude=exclude, **filters)
        if mask is not None:
            mask = np.asarray(mask, dtype=bool)
            if mask.shape != (len(self),):
                raise InputError(f"the mask has shape {mask.shape}; this bank needs ({len(self)},)")
            selected = mask if selected is None else selected & mask
        found = len(self) if selected is None else int(selected.sum())
        top_k = min(top_k, found)
        if not top_k:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        if method == "approximate" and self._index is None:
            raise InputError(f"{self.folder} has no index; search it with the method 'exact'")
        enough = method == "approximate" or (method == "auto" and found >= _INDEX_MIN_SHARE * len(self))
        if enough and self._index is not None:
            scores, rows = self._index.search(queries, top_k, selected)
            if (rows >= 0).all() or method == "approximate":
                return scores, rows
        return exact_search(self._vectors_in_memory, queries, top_k, selected)

    def verify(self) -> VerifyReport:
        """Compare every file with the manifest's size and SHA-256, and the content with what it must be."""
        return verify_bank(self.folder)

    def content_problems(self) -> Iterator[str]:
        """Yield what the files' content violates: unique ids, finite vectors, unit norm, one vector per name."""
        if pc.count_distinct(self.table["id"]).as_py() != len(self):
            yield f"{CLIPS} has ids that occur twice"
        if self.name_vectors is not None:
            _ = self._names  # compares their number
            yield from vector_problems(NAME_VECTORS, self.name_vectors, unit_norm=True)
        yield from vector_problems(CLAP_VECTORS, self.clap_vectors, unit_norm=True)
        yield from vector_problems(KNOWLEDGE_VECTORS, self.knowledge_vectors, unit_norm=False)


def verify_bank(folder: str | Path) -> VerifyReport:
    """Check a bank, even one that is too damaged to open; reads all of it."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    problems = list(file_problems(folder, manifest))
    if not problems:
        try:
            problems += AudioBank.open(folder).content_problems()
        except ArtefactError as error:
            problems.append(str(error))
    return VerifyReport(str(folder), [MANIFEST, *manifest.get("files", {})], problems)


def check_sound(folder: str | Path) -> None:
    """Refuse a bank whose files are damaged, before its vectors are taken over into another; reads all of it."""
    report = verify_bank(folder)
    if not report.sound:
        raise ArtefactError(f"{folder} is damaged: {'; '.join(report.problems)}; restore it or build it again")


def _texts(values: str | Iterable[str]) -> list[str]:
    return [values] if isinstance(values, str) else list(values)


def _numpy(mask: Any) -> np.ndarray:
    """Convert an Arrow column of booleans to a numpy array; unknown counts as False."""
    return np.asarray(pc.fill_null(mask, False).to_numpy(), dtype=bool)
