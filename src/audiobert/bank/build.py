"""Building a bank: walk the source, hear its clips, encode them in batches, and put the folder together at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal, Protocol

import numpy as np

from audiobert.artefacts import whole_folder
from audiobert.audio import Attributes
from audiobert.bank.audio_bank import AudioBank, check_identity, check_sound
from audiobert.bank.batches import batched
from audiobert.bank.clips import MEASURED_COLUMNS, SCHEMA
from audiobert.bank.decode import Heard, Hearing
from audiobert.bank.journal import Journal, Record
from audiobert.bank.search import INDEX_FROM_CLIPS, build_index
from audiobert.bank.sources import Entry, Source, open_source
from audiobert.bank.store import INDEX, VECTORS, file_entry, is_bank, open_vectors, write_bank, write_manifest
from audiobert.bank.workers import Block, Task, available_cores, hear_blocks, leave_if_imported_by_a_worker
from audiobert.errors import InputError
from audiobert.features import Features, Makers
from audiobert.pitch import Estimator
from audiobert.progress import progress

BATCH_SIZE = 32


class ClipEncoder(Protocol):
    """What turns clips into vectors; `AudioBert.clip_encoder()` gives one.

    Attributes
    ----------
    clap_dim, hidden_size
        Widths of the CLAP vectors and of the knowledge vectors.
    makers
        What makes of a waveform what the models hear, by role; runs where clips are decoded.
    precision
        What the models compute in; a bank records it when it is another than `fp32`.
    """

    clap_dim: int
    hidden_size: int
    makers: Makers

    @property
    def precision(self) -> str: ...

    def identity(self) -> dict[str, Any]:
        """Ids and SHA-256 of the CLAP model and the audio encoder."""
        ...

    def encode(self, features: list[Features], attributes: list[Attributes]) -> tuple[np.ndarray, np.ndarray]:
        """CLAP vectors `(clips, clap_dim)` of unit norm and knowledge vectors `(clips, hidden_size)` of features."""
        ...


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes
    ----------
    folder
        The bank.
    clips
        Clips it holds.
    encoded, reused
        Clips encoded now, and taken over from an earlier or interrupted build.
    rejected
        How many entries were not taken, by reason; each stands in `rejected.jsonl`.
    seconds
        Wall time in seconds.
    audio_seconds
        Length of the recordings in the bank, in seconds.
    """

    folder: str
    clips: int
    encoded: int
    reused: int
    rejected: dict[str, int]
    seconds: float
    audio_seconds: float


def build_bank(
    source: Any,
    out: str | Path,
    encoder: ClipEncoder,
    *,
    resume: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    batch_size: int = BATCH_SIZE,
    max_duration_s: float = 1_800.0,
    estimator: Estimator = "swiftf0",
    keep_audio_root: bool = True,
    index: bool | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> BuildReport:
    """Build a bank from a source of clips.

    What the source offers and the bank cannot take (unreadable, empty, silent, over-long, duplicate, ...) is listed in
    the bank's `rejected.jsonl` with the reason. The bank's folder appears at the end, whole; until then the work lies
    in a hidden folder beside it, and a build that was killed goes on with `resume`.

    Parameters
    ----------
    source
        A folder, a manifest, WebDataset shards or a `datasets` dataset; see `open_source`.
    out
        Folder of the bank.
    encoder
        Makes the vectors.
    resume
        Go on with an interrupted build, or bring a finished bank up to date: only clips that are new, or whose content
        changed, are encoded. The result is that of an uninterrupted build.
    overwrite
        Take the place of a bank that is there, and forget an interrupted build.
    workers
        Worker processes that decode; by default one a core, none for a handful of clips.
    batch_size
        Clips encoded at once.
    max_duration_s
        Recordings longer than this are rejected.
    estimator
        How the pitch is measured.
    keep_audio_root
        Remember where the audio lies. Without it the clips of the bank have no path, as in a bank that is shipped.
    index
        Whether to build the approximate index; by default for 100,000 clips and more.
    engine, address
        `ray` spreads the work over a Ray cluster (`address`; a local one by default).

    Raises
    ------
    InputError
        When there is no such source, no clip of it can be used, `out` is in use, or worker processes cannot start (a
        script must build with workers under `if __name__ == "__main__":`).
    ArtefactError
        When an interrupted build or the bank to be brought up to date was made with other models or settings.
    """
    leave_if_imported_by_a_worker()
    started = time.perf_counter()
    out = Path(out)
    work = out.parent / f".{out.name}.building"
    opened = open_source(source)
    _check_out(out, work, resume=resume, overwrite=overwrite)
    hearing = Hearing(encoder.makers, max_duration_s, estimator)
    settings = hearing.settings()
    if encoder.precision != "fp32":
        settings["precision"] = encoder.precision
    facts = {"models": encoder.identity(), "settings": settings}
    if overwrite:
        rmtree(work, ignore_errors=True)
    finished = _finished_bank(out, facts) if resume and not (work / "journal.sqlite").exists() else None
    with closing(Journal(work / "journal.sqlite", facts)) as journal:
        if finished is not None:
            _take_over(finished, journal)
        build = _Build(opened, journal, batch_size)
        if engine == "ray":
            from audiobert.bank.ray_engine import encode_blocks

            outcomes = encode_blocks(build.blocks(), encoder, hearing, workers, address)
        else:
            outcomes = _encode_blocks(build.blocks(), encoder, hearing, _workers(workers, opened.total))
        try:
            build.run(outcomes)
        except InputError:
            if journal.is_empty():  # nothing to go on with
                journal.close()
                rmtree(work, ignore_errors=True)
            raise
        clips = journal.count_clips()
        if not clips:
            reasons = list(journal.rejected())
            journal.close()
            rmtree(work, ignore_errors=True)
            first = f", first: {reasons[0]['id']} ({reasons[0]['reason']})" if reasons else ""
            raise InputError(f"{opened.name} has no usable clip: {len(reasons)} entries rejected{first}")
        manifest = {
            "source": opened.name if keep_audio_root else Path(opened.name).name,
            "audio_root": str(opened.root.resolve()) if keep_audio_root and opened.root else None,
            "identity": encoder.identity(),
            "settings": settings,
        }
        content = _assemble(out, journal, encoder, clips, manifest, index)
    rmtree(work, ignore_errors=True)
    return BuildReport(
        folder=str(out),
        clips=clips,
        encoded=build.encoded,
        reused=build.reused,
        rejected=content["rejected"],
        seconds=time.perf_counter() - started,
        audio_seconds=content["seconds"],
    )


def _check_out(out: Path, work: Path, *, resume: bool, overwrite: bool) -> None:
    if resume and overwrite:
        raise InputError("resume and overwrite were both given; give one")
    if out.exists() and not (out.is_dir() and (is_bank(out) or not any(out.iterdir()))):
        raise InputError(f"{out} exists and is no bank; give another folder")
    if resume or overwrite:
        return
    if is_bank(out):
        raise InputError(f"{out} is a bank already; add --resume to bring it up to date or --overwrite to replace it")
    if work.exists():
        raise InputError(f"an unfinished build of {out} is there; add --resume to go on or --overwrite to start again")


def _workers(workers: int | None, total: int | None) -> int:
    if workers is not None:
        return workers
    return 0 if total is not None and total < 4 * BATCH_SIZE else available_cores()


def _finished_bank(out: Path, facts: dict[str, Any]) -> AudioBank | None:
    """The bank that is to be brought up to date, made with the same models and settings."""
    if not is_bank(out):
        return None
    bank = AudioBank.open(out)
    check_identity(bank, facts["models"])
    if bank.manifest.get("settings") != facts["settings"]:
        raise InputError(
            f"{bank.folder} was built with the settings {bank.manifest.get('settings')}, now they are "
            f"{facts['settings']}; give the same settings, or --overwrite to build all of it again"
        )
    check_sound(out)  # what is damaged must not get a new checksum
    return bank


def _take_over(bank: AudioBank, journal: Journal) -> None:
    """Put the clips of a finished bank into the journal, to be met again by id and content."""
    given_names = [name for name in SCHEMA.names if name != "id" and name not in MEASURED_COLUMNS]
    records = (
        Record(
            id=row["id"],
            sha256=row["content_sha256"],
            given={name: row[name] for name in given_names if row[name] is not None},
            measured={name: row[name] for name in MEASURED_COLUMNS},
            clap_vector=bank.clap_vectors[index],
            knowledge_vector=bank.knowledge_vectors[index],
        )
        for index, row in enumerate(bank.rows())
    )
    for some in batched(records, 1024):
        journal.commit(some)


class _Build:
    """One walk over the source: what is known is taken over, the rest goes through the encoder in blocks."""

    def __init__(self, source: Source, journal: Journal, batch_size: int) -> None:
        self.encoded = 0
        self.reused = 0
        self._source = source
        self._journal = journal
        self._batch_size = batch_size
        self._walked = 0

    def blocks(self) -> Iterator[Block]:
        """Entries to be heard, in blocks by their place in the source: batches do not depend on interruptions."""
        self._journal.begin_walk()
        for some in batched(enumerate(self._source), self._batch_size):
            block = self._sort_out(some)
            self._walked += len(some)
            if block:
                yield block

    def _sort_out(self, some: Sequence[tuple[int, Entry]]) -> Block:
        ids = [entry.id for _, entry in some]
        known, met = self._journal.known(ids), self._journal.met(ids)
        block: Block = []
        unchanged: list[Record] = []
        places: list[tuple[int, str]] = []
        repeats: list[tuple[int, str]] = []
        for position, entry in some:
            if entry.id in met:
                repeats.append((position, entry.id))
                continue
            met.add(entry.id)
            places.append((position, entry.id))
            stamp, before = entry.stamp(), known.get(entry.id)
            if before and stamp is not None and before.stamp == stamp:
                unchanged.append(Record(entry.id, before.sha256, entry.given, stamp))
                self.reused += before.accepted
            else:
                block.append(Task(entry, stamp, before.sha256 if before else None, bool(before and before.accepted)))
        self._journal.commit(unchanged=unchanged, places=places, repeats=repeats)
        return block

    def run(self, outcomes: Iterable[tuple[Block, list[Record]]]) -> None:
        """Write each block's outcome as it comes."""
        started = time.perf_counter()
        with progress() as bar:
            task = bar.add_task("building", total=self._source.total, note="")
            for block, records in outcomes:
                unchanged = [one for one in records if one.unchanged]
                self._journal.commit([one for one in records if not one.unchanged], unchanged)
                self.encoded += sum(one.clap_vector is not None for one in records)
                self.reused += sum(task_.accepted for task_, one in zip(block, records, strict=True) if one.unchanged)
                rate = self.encoded / (time.perf_counter() - started)
                bar.update(task, completed=self._walked, note=f"{rate:.1f} clips/s")


def _encode_blocks(
    blocks: Iterable[Block], encoder: ClipEncoder, hearing: Hearing, workers: int
) -> Iterator[tuple[Block, list[Record]]]:
    for block, heard in hear_blocks(blocks, hearing, workers):
        yield block, encode_heard(block, heard, encoder)


def encode_heard(block: Block, heard: list[Heard], encoder: ClipEncoder) -> list[Record]:
    """Encode those clips of a block that could be heard, as one batch; a record for every clip of the block."""
    usable = [one for one in heard if one.features is not None]
    records = [
        Record(task.entry.id, one.sha256, task.entry.given, task.stamp, one.problem, one.measured, one.unchanged)
        for task, one in zip(block, heard, strict=True)
    ]
    if not usable:
        return records
    features = [one.features for one in usable if one.features is not None]
    clap, knowledge = encoder.encode(features, [one.attributes for one in usable if one.attributes is not None])
    expected = ((len(usable), encoder.clap_dim), (len(usable), encoder.hidden_size))
    if (clap.shape, knowledge.shape) != expected:
        raise ValueError(f"the encoder gave vectors of shapes {clap.shape} and {knowledge.shape}, not {expected}")
    row = 0
    for record, one in zip(records, heard, strict=True):
        if one.features is None:
            continue
        clap_vector, knowledge_vector = clap[row].astype(np.float16), knowledge[row].astype(np.float16)
        row += 1
        if np.isfinite(clap_vector).all() and np.isfinite(knowledge_vector).all():
            record.clap_vector, record.knowledge_vector = clap_vector, knowledge_vector
        else:
            record.problem = ("not-finite", "the encoder gave vectors that are no numbers")
            record.measured = None
    return records


def _assemble(
    out: Path, journal: Journal, encoder: ClipEncoder, clips: int, manifest: dict[str, Any], index: bool | None
) -> dict[str, Any]:
    """Put the bank's folder together from the journal; it appears whole."""
    with whole_folder(out) as part:
        content = write_bank(
            part,
            clips=clips,
            rows=journal.clips(),
            rejected=journal.rejected(),
            clap_dim=encoder.clap_dim,
            hidden_size=encoder.hidden_size,
            manifest=manifest,
        )
        add_index(part, content, index)
    return content


def add_index(folder: Path, manifest: dict[str, Any], wanted: bool | None) -> None:
    """Add the approximate index to a bank's folder, where it is wanted or, by default, where it is worth it."""
    if wanted is False or (wanted is None and manifest["clips"] < INDEX_FROM_CLIPS):
        return
    if wanted is None and not find_spec("faiss"):
        return
    manifest["index"] = build_index(open_vectors(folder / VECTORS)["clap_vectors"], folder / INDEX)
    manifest["files"][INDEX] = file_entry(folder / INDEX)
    write_manifest(folder, manifest)
