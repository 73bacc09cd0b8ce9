"""What the surroundings do to a build: kills, a full disk, no shared memory, corrected manifests."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audiobert.artefacts import sha256_of, whole_file, whole_folder
from audiobert.bank import AudioBank, build_bank, verify_bank
from audiobert.bank import journal as bank_journal
from audiobert.bank import workers as bank_workers
from audiobert.bank.decode import Hearing
from audiobert.bank.sources import Entry, Source
from audiobert.errors import ArtefactError
from bank_fakes import FakeEncoder, write_tone, write_tones

FILES = ("clips.arrow", "vectors.safetensors", "rejected.jsonl")


def checksums(bank: Path) -> dict[str, str]:
    return {name: sha256_of(bank / name) for name in FILES}


# ------------------------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("finished", [True, False])
def test_after_a_corrected_manifest_a_clip_has_the_vectors_of_its_new_file(tmp_path: Path, finished: bool) -> None:
    for number, name in enumerate(("wrong.wav", "right.wav", "other.wav")):
        write_tone(tmp_path / name, 300 + 200 * number)
        os.utime(tmp_path / name, ns=(10**18, 10**18))  # equal size and time of change
    rows = [{"id": "x", "path": "wrong.wav"}, {"id": "y", "path": "other.wav"}]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    interrupted = contextlib.nullcontext() if finished else pytest.raises(KeyboardInterrupt)
    with interrupted:
        encoder = FakeEncoder(batches=None if finished else 1)
        build_bank(tmp_path / "clips.jsonl", tmp_path / "bank", encoder, workers=0, batch_size=1)
    rows[0]["path"] = "right.wav"
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    build_bank(tmp_path / "clips.jsonl", tmp_path / "bank", FakeEncoder(), workers=0, resume=True, batch_size=1)
    build_bank(tmp_path / "clips.jsonl", tmp_path / "fresh", FakeEncoder(), workers=0, batch_size=1)
    assert checksums(tmp_path / "bank") == checksums(tmp_path / "fresh")


# --------------------------------------------------------------------------------------------------------------- kills

_BUILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
left = int(sys.argv[1])

def count(event, arguments):
    # Everything that changes a file passes here: opening to write, renaming, removing, each transaction.
    global left
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return
    if event in {events!r}:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

from audiobert.bank import build_bank
from audiobert.bank.journal import Journal
from bank_fakes import FakeEncoder
for name in ("place", "commit", "begin_walk"):
    def step(self, *arguments, method=getattr(Journal, name)):
        count("journal", ())
        result = method(self, *arguments)
        count("journal", ())
        return result
    setattr(Journal, name, step)
sys.addaudithook(count)
build_bank({source!r}, {out!r}, FakeEncoder(), workers=0, batch_size=4, resume=True)
print({many} - left)
"""
_EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "sqlite3.connect", "journal")
_MANY = 1_000_000
MOMENTS = 3  # of the kills; another number draws more


def build_killed(source: Path, out: Path, steps: int) -> subprocess.CompletedProcess[str]:
    """Build in another process that is killed before so many steps that change files."""
    script = _BUILD.format(
        tests=str(Path(__file__).parent), source=str(source), out=str(out), events=_EVENTS, many=_MANY
    )
    return subprocess.run([sys.executable, "-c", script, str(steps)], capture_output=True, text=True, check=False)


@dataclass(frozen=True)
class Whole:
    """A source, the checksums of an uninterrupted build of it, and in how many steps a build changes files."""

    source: Path
    checksums: dict[str, str]
    steps: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    write_tones(folder / "source", 10)
    (folder / "source" / "bad.wav").write_text("bad")
    done = build_killed(folder / "source", folder / "bank", _MANY)
    assert done.returncode == 0, done.stderr
    return Whole(folder / "source", checksums(folder / "bank"), int(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("onto", ["nothing", "a bank"])
def test_a_build_killed_at_any_step_resumes_to_the_same_bank(
    whole: Whole, tmp_path: Path, moment: int, onto: str
) -> None:
    out = tmp_path / "bank"
    if onto == "a bank":  # of other clips, with a file of the user's
        write_tones(tmp_path / "before", 4)
        build_bank(tmp_path / "before", out, FakeEncoder(), workers=0)
        (out / "notes.txt").write_text("years of work")
    steps = int(np.random.default_rng(moment).integers(0, whole.steps))
    killed = build_killed(whole.source, out, steps)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if onto == "a bank":
        assert (out / "notes.txt").read_text() == "years of work"
        assert verify_bank(out).sound  # the old bank or the new one, at every moment
    build_bank(whole.source, out, FakeEncoder(), workers=0, batch_size=4, resume=True)
    assert checksums(out) == whole.checksums and verify_bank(out).sound
    assert {path.name for path in out.iterdir()} - {"notes.txt"} == {*FILES, "bank.json"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []  # nothing is left beside it


# ---------------------------------------------------------------------------------------------------------- full disks


def test_a_full_disk_is_called_so_and_the_build_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tones(tmp_path / "source", 20)
    build_bank(tmp_path / "source", tmp_path / "whole", FakeEncoder(), workers=0, batch_size=4)
    connect = sqlite3.connect

    def small(path: Path, **options: Any) -> sqlite3.Connection:
        database = connect(path, **options)
        database.execute("PRAGMA max_page_count = 12")
        return database

    monkeypatch.setattr(bank_journal.sqlite3, "connect", small)
    with pytest.raises(ArtefactError, match="the disk is full; free some space and resume"):
        build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0, batch_size=4)
    monkeypatch.undo()
    encoder = FakeEncoder()
    build_bank(tmp_path / "source", tmp_path / "bank", encoder, workers=0, batch_size=4, resume=True)
    assert encoder.encoded < 20 and checksums(tmp_path / "bank") == checksums(tmp_path / "whole")


def test_a_journal_that_is_no_database_is_called_damaged(tmp_path: Path) -> None:
    write_tone(tmp_path / "source" / "a.wav", 300)
    (tmp_path / ".bank.building").write_bytes(b"no database" * 1_000)
    with pytest.raises(ArtefactError, match="damaged"):
        build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0, resume=True)
    build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0, overwrite=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("writer", [whole_file, whole_folder])
def test_a_disk_that_is_full_when_files_are_written_is_called_so(tmp_path: Path, writer: Any) -> None:
    with (
        pytest.raises(ArtefactError, match="no space is left"),
        writer(tmp_path / "out"),
        Path("/dev/full").open("w") as f,
    ):
        f.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------- workers


def test_without_shared_memory_clips_are_decoded_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def pool(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOENT, "No such file or directory")  # of /dev/shm

    monkeypatch.setattr(bank_workers, "ProcessPoolExecutor", pool)
    write_tones(tmp_path / "source", 3)
    build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=2)
    assert len(AudioBank.open(tmp_path / "bank")) == 3
    assert "shared memory" in caplog.text


def test_no_worker_process_is_left_when_a_build_fails(tmp_path: Path) -> None:
    class Broken(FakeEncoder):
        def encode(self, *_: Any) -> tuple[np.ndarray, np.ndarray]:
            raise RuntimeError("out of order")

    write_tones(tmp_path / "source", 6)
    with pytest.raises(RuntimeError, match="out of order") as caught:
        build_bank(tmp_path / "source", tmp_path / "bank", Broken(), workers=2, batch_size=2)
    assert caught.value.__traceback__ is not None  # while the failed build's frames are still there
    assert multiprocessing.active_children() == []


def test_no_worker_process_is_left_when_decoding_alone_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tone(tmp_path / "a.wav", 300)
    shown: list[Any] = []
    monkeypatch.setattr(bank_workers, "hear_task", shown)  # cannot be sent to a process: neither broken pool nor result
    task = bank_workers.Task(Entry("a", file=tmp_path / "a.wav"))
    with pytest.raises(TypeError):
        bank_workers._hear_alone(task, Hearing(FakeEncoder.makers))
    assert multiprocessing.active_children() == []


def test_names_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    name = "n" * 245
    write_tone(tmp_path / "source" / f"{name}.wav", 300)
    build_bank(tmp_path / "source", tmp_path / name, FakeEncoder(), workers=0)
    assert AudioBank.open(tmp_path / name).clip(0).id == f"{name}.wav"


def test_a_source_that_fails_midway_keeps_what_was_done(tmp_path: Path) -> None:
    paths = write_tones(tmp_path / "source", 6)

    def walk() -> Iterator[Entry]:
        yield from (Entry(path.name, {}, path) for path in paths[:4])
        raise OSError(errno.EIO, "the disk was pulled out")

    source = Source("sounds", None, None, walk)
    with pytest.raises(OSError, match="pulled out"):
        build_bank(source, tmp_path / "bank", FakeEncoder(), workers=0, batch_size=2)
    source = Source("sounds", None, None, lambda: (Entry(path.name, {}, path) for path in paths))
    encoder = FakeEncoder()
    build_bank(source, tmp_path / "bank", encoder, workers=0, batch_size=2, resume=True)
    assert encoder.encoded == 2 and len(AudioBank.open(tmp_path / "bank")) == 6
