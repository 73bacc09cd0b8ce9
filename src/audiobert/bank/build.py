"""Build a bank: walk the source, decode its clips, encode them in batches, and assemble the folder at the end.

    source -> blocks of tasks -> workers: decode, measure, extract -> encoder: vectors -> journal -> the bank's folder

The walk writes to the journal where it met each entry; the outcome of each block is written when it is encoded. A build
that was killed walks again: what has an outcome and the same content is taken over, the rest is decoded and encoded.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from audiobert.artefacts import check_folder, finish_write, hidden, is_vacant, locked, whole_folder
from audiobert.bank.audio_bank import AudioBank, check_sound
from audiobert.bank.batches import batched
from audiobert.bank.clips import MEASURED_COLUMNS, TEXT_COLUMNS
from audiobert.bank.decode import DecodeSettings
from audiobert.bank.encode import ClipEncoder, embed, encode_block
from audiobert.bank.identity import check_identity
from audiobert.bank.journal import Journal, Record, remove_journal
from audiobert.bank.search import INDEX_FROM_CLIPS, build_index
from audiobert.bank.sources import Entry, Source, open_source
from audiobert.bank.store import (
    BANK_FILES,
    CLAP_VECTORS,
    INDEX,
    VECTORS,
    NameVectors,
    bank_files,
    file_entry,
    is_bank,
    open_vectors,
    write_bank,
    write_manifest,
)
from audiobert.bank.workers import Block, Task, available_cores, decode_blocks, leave_if_imported_by_a_worker
from audiobert.errors import ArtefactError, InputError
from audiobert.pitch import Estimator
from audiobert.progress import progress, track

BATCH_SIZE = 32
NAMES_PER_BATCH = 256


@dataclass(frozen=True)
class BuildReport:
    """The result of a build.

    Attributes
    ----------
    encoded, reused
        Clips encoded now, and taken over from an earlier or interrupted build.
    rejected
        Number of entries that were not taken, by reason; each is listed in `rejected.jsonl`.
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
    the bank's `rejected.jsonl` with the reason. The bank's files appear at the end, all at once; until then the work
    lies in a hidden file beside the folder (in it, if its parent is read-only), and a build that was killed resumes
    with `resume`. Nothing else in the folder is changed.

    Parameters
    ----------
    source
        A folder, a manifest, WebDataset shards or a `datasets` dataset; see `open_source`.
    resume
        Resume an interrupted build, or bring a finished bank up to date: only clips that are new, or whose content
        changed, are encoded. The result is that of an uninterrupted build.
    overwrite
        Replace the bank that is there, and forget an interrupted build.
    workers
        Worker processes that decode; by default one per core, none for a handful of clips.
    keep_audio_root
        Record where the audio lies. Without it the clips of the bank have no path, as in a bank that is shipped.
    index
        Build the approximate index or not; by default for 100,000 clips and more.
    engine, address
        `ray` spreads the work over a Ray cluster (`address`; a local one by default).

    Raises
    ------
    InputError
        When there is no such source, no clip of it can be used, `out` is in use, holds the source or is being built by
        another process, or worker processes cannot start (a script must build with workers under
        `if __name__ == "__main__":`).
    ArtefactError
        When an interrupted build or the bank to be brought up to date was made with other models or settings.
    """
    leave_if_imported_by_a_worker()
    started = time.perf_counter()
    opened = open_source(source)
    folder = check_folder(out, sources=[opened.name] if Path(opened.name).exists() else [])
    with locked(folder):
        finish_write(folder)
        work = hidden(folder, "building")
        _check_out(folder, work, resume=resume, overwrite=overwrite)
        decoding = DecodeSettings(encoder.makers, max_duration_s, estimator)
        settings = decoding.settings()
        if encoder.precision != "fp32":
            settings["precision"] = encoder.precision
        facts = {"models": encoder.identity(), "settings": settings}
        if overwrite:
            remove_journal(work)
        with closing(Journal(work, facts)) as journal:
            try:
                if resume and is_bank(folder) and journal.is_empty():
                    _take_over(_finished_bank(folder, facts), journal)
                build = _Build(opened, journal, batch_size)
                build.run(_outcomes(build.blocks(), encoder, decoding, workers, opened.total, engine, address))
                clips = _count_clips(opened, journal)
                manifest = {
                    "source": opened.name if keep_audio_root else Path(opened.name).name,
                    "audio_root": str(opened.root.resolve()) if keep_audio_root and opened.root else None,
                    "identity": encoder.identity(),
                    "settings": settings,
                }
                content = _assemble(folder, journal, encoder, clips, manifest, index)
            except (InputError, ArtefactError):
                if not journal.has_vectors():
                    journal.close()
                    remove_journal(work)
                raise
        remove_journal(work)
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
    if not is_bank(out) and not is_vacant(out):
        raise InputError(f"{out} exists and is no bank; give another folder")
    ours = bank_files(out)
    for path in (out / name for name in sorted(BANK_FILES)):
        if path.is_symlink() or (path.exists() and path.name not in ours):
            raise InputError(f"{path} is a link or no file of a bank's; move it away or give another folder")
    if resume or overwrite:
        return
    if is_bank(out):
        raise InputError(f"{out} is a bank already; add --resume to bring it up to date or --overwrite to replace it")
    if work.exists():
        raise InputError(
            f"an unfinished build of {out} is there; add --resume to resume it or --overwrite to start again"
        )


def _finished_bank(out: Path, facts: dict[str, Any]) -> AudioBank:
    """Return the bank that is to be brought up to date, made with the same models and settings."""
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
    """Put clips and names of a finished bank into the journal, in one transaction, to be met again by content."""
    given_names = (*TEXT_COLUMNS, "tags", "extra")
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
    journal.commit(records, () if bank.name_vectors is None else zip(bank.names, bank.name_vectors, strict=True))


def _outcomes(
    blocks: Iterable[Block],
    encoder: ClipEncoder,
    decoding: DecodeSettings,
    workers: int | None,
    total: int | None,
    engine: str,
    address: str | None,
) -> Generator[tuple[Block, list[Record]], None, None]:
    """Decode and encode blocks, here or on a cluster."""
    if engine == "ray":
        from audiobert.bank.ray_engine import encode_blocks

        yield from encode_blocks(blocks, encoder, decoding, workers, address)
        return
    if workers is None:
        workers = 0 if total is not None and total < 4 * BATCH_SIZE else available_cores()
    with closing(decode_blocks(blocks, decoding, workers)) as outcomes:
        for block, decoded in outcomes:
            yield block, encode_block(block, decoded, encoder)


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
        """Yield entries to be decoded, in blocks by place in the source: batches do not depend on interruptions."""
        self._journal.begin_walk()
        for some in batched(enumerate(self._source), self._batch_size):
            block = self._place(some)
            self._walked += len(some)
            if block:
                yield block

    def _place(self, some: Sequence[tuple[int, Entry]]) -> Block:
        """Write where entries stand; return those of them that occur for the first time."""
        ids = [entry.id for _, entry in some]
        known, met = self._journal.known(ids), self._journal.met(ids)
        new: dict[str, tuple[int, Entry]] = {}
        repeats: list[tuple[int, str]] = []
        for position, entry in some:
            if entry.id in met or entry.id in new:
                repeats.append((position, entry.id))
            else:
                new[entry.id] = position, entry
        self._journal.place([(position, entry.id) for position, entry in new.values()], repeats)
        return [Task(entry, known.get(entry.id)) for _, entry in new.values()]

    def run(self, outcomes: Generator[tuple[Block, list[Record]], None, None]) -> None:
        """Write the outcome of each block when it is there."""
        started = time.perf_counter()
        with closing(outcomes), progress() as bar:
            task = bar.add_task("building", total=self._source.total, note="")
            for block, records in outcomes:
                self._journal.commit(records)
                self.encoded += sum(one.clap_vector is not None for one in records)
                done = zip(block, records, strict=True)
                self.reused += sum(one.unchanged for entry, one in done if entry.known and entry.known.accepted)
                rate = self.encoded / (time.perf_counter() - started)
                bar.update(task, completed=self._walked, note=f"{rate:.1f} clips/s")


def _count_clips(source: Source, journal: Journal) -> int:
    clips = journal.count_clips()
    if clips:
        return clips
    reasons = list(journal.rejected())
    first = "".join(f", first: {one['id']} ({one['reason']}: {one['detail']})" for one in reasons[:1])
    raise InputError(f"{source.name} has no usable clip: {len(reasons)} entries rejected{first}")


def _assemble(
    out: Path, journal: Journal, encoder: ClipEncoder, clips: int, manifest: dict[str, Any], index: bool | None
) -> dict[str, Any]:
    """Put the bank's folder together from the journal."""
    with whole_folder(out, ours=bank_files) as part:
        content = write_bank(
            part,
            clips=clips,
            rows=journal.clips(),
            rejected=journal.rejected(),
            clap_dim=encoder.clap_dim,
            hidden_size=encoder.hidden_size,
            manifest=manifest,
            text_dim=encoder.text_dim,
            name_vectors=_name_vectors(journal, encoder) if encoder.text_dim else None,
        )
        add_index(part, content, index)
    return content


def _name_vectors(journal: Journal, encoder: ClipEncoder) -> NameVectors:
    """Return the function that looks names up in the journal and embeds those that it does not hold, in batches."""

    def vectors_of(texts: list[str]) -> np.ndarray:
        found: list[np.ndarray] = []
        for some in track(list(batched(texts, NAMES_PER_BATCH)), "embedding names"):
            known = journal.names(some)
            if missing := [text for text in some if text not in known]:
                known |= zip(missing, embed(missing, encoder), strict=True)
                journal.commit((), [(text, known[text]) for text in missing])
            found += [known[text] for text in some]
        return np.stack(found)

    return vectors_of


def add_index(folder: Path, manifest: dict[str, Any], wanted: bool | None) -> None:
    """Add the approximate index to a bank's folder, where it is wanted or, by default, where the bank is large."""
    if wanted is False or (wanted is None and manifest["clips"] < INDEX_FROM_CLIPS):
        return
    if wanted is None and not find_spec("faiss"):
        return
    manifest["index"] = build_index(open_vectors(folder / VECTORS)[CLAP_VECTORS], folder / INDEX)
    manifest["files"][INDEX] = file_entry(folder / INDEX)
    write_manifest(folder, manifest)
