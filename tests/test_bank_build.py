"""Building: what is rejected and why, interruption and resumption, worker processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile

from audiobert.artefacts import sha256_of
from audiobert.bank import AudioBank, build_bank
from audiobert.bank.sources import Entry, Source
from audiobert.errors import ArtefactError, InputError
from bank_fakes import DeadlyEntry, FakeEncoder, write_tone, write_tones

FILES = ("clips.arrow", "vectors.safetensors", "rejected.jsonl")


def checksums(bank: Path) -> dict[str, str]:
    return {name: sha256_of(bank / name) for name in FILES}


def rejected(bank: Path) -> dict[str, str]:
    lines = (bank / "rejected.jsonl").read_text().splitlines()
    return {one["id"]: one["reason"] for one in map(json.loads, lines)}


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_used_is_listed_with_the_reason_and_the_rest_is_built(tmp_path: Path, workers: int) -> None:
    source = tmp_path / "source"
    write_tone(source / "a_good.wav", 300)
    write_tone(source / "b_good.ogg", 500, rate=48_000)
    shutil.copy(source / "a_good.wav", source / "copy.wav")
    (source / "text.mp3").write_text("I am no music")
    (source / "notes.txt").write_text("read me")
    (source / ".hidden.txt").write_text("not even looked at")
    soundfile.write(source / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(source / "silent.wav", np.zeros(8_000), 16_000)
    soundfile.write(source / "nan.wav", np.array([0.1, np.nan]), 16_000, subtype="FLOAT")
    write_tone(source / "long.flac", 300, seconds=3.0)
    write_tone(source / "short.wav", 300, seconds=0.01)
    (source / "cut.flac").write_bytes((source / "long.flac").read_bytes()[:30])

    report = build_bank(source, tmp_path / "bank", FakeEncoder(), workers=workers, max_duration_s=2.0)

    assert rejected(tmp_path / "bank") == {
        "copy.wav": "duplicate",
        "cut.flac": "undecodable",
        "empty.wav": "empty",
        "long.flac": "too-long",
        "nan.wav": "not-finite",
        "notes.txt": "extension",
        "short.wav": "too-short",
        "silent.wav": "silent",
        "text.mp3": "undecodable",
    }
    assert [clip.id for clip in AudioBank.open(tmp_path / "bank").clips()] == ["a_good.wav", "b_good.ogg"]
    assert (
        report.clips == 2 and report.rejected["undecodable"] == 2 and AudioBank.open(tmp_path / "bank").verify().sound
    )
    assert {path.name for path in tmp_path.iterdir()} == {"bank", "source"}  # nothing else is left behind


def test_worker_processes_and_block_sizes_do_not_change_the_bank(tmp_path: Path) -> None:
    write_tones(tmp_path / "source", 20)
    build_bank(tmp_path / "source", tmp_path / "a", FakeEncoder(), workers=0, batch_size=4)
    build_bank(tmp_path / "source", tmp_path / "b", FakeEncoder(), workers=2, batch_size=4)
    assert checksums(tmp_path / "a") == checksums(tmp_path / "b")


@pytest.mark.parametrize("batches_before_kill", [0, 1, 4])
def test_a_killed_build_resumes_to_the_same_bank_and_loses_one_batch_at_most(
    tmp_path: Path, batches_before_kill: int
) -> None:
    write_tones(tmp_path / "source", 20)
    (tmp_path / "source" / "bad.wav").write_text("bad")
    build_bank(tmp_path / "source", tmp_path / "whole", FakeEncoder(), workers=0, batch_size=4)

    with pytest.raises(KeyboardInterrupt):
        build_bank(
            tmp_path / "source",
            tmp_path / "bank",
            FakeEncoder(batches=batches_before_kill),
            workers=0,
            batch_size=4,
        )
    assert not (tmp_path / "bank").exists()  # whole or not at all
    with pytest.raises(InputError, match="--resume"):
        build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0, batch_size=4)
    encoder = FakeEncoder()
    report = build_bank(tmp_path / "source", tmp_path / "bank", encoder, workers=0, batch_size=4, resume=True)

    assert checksums(tmp_path / "bank") == checksums(tmp_path / "whole")
    assert encoder.encoded == report.encoded and report.encoded + report.reused == 20
    assert report.reused >= 4 * batches_before_kill - 1


def test_resume_adds_only_what_is_new_or_changed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    paths = write_tones(source, 8)
    build_bank(source, tmp_path / "bank", FakeEncoder(), workers=0)

    encoder = FakeEncoder()
    again = build_bank(source, tmp_path / "bank", encoder, workers=0, resume=True)
    assert encoder.encoded == 0 and again.reused == 8

    write_tone(source / "new.wav", 777)
    write_tone(paths[2], 1234)
    paths[5].unlink()
    os.utime(paths[6])  # touched, not changed
    encoder = FakeEncoder()
    updated = build_bank(source, tmp_path / "bank", encoder, workers=0, resume=True)
    assert encoder.encoded == 2 and updated.reused == 6 and updated.clips == 8

    build_bank(source, tmp_path / "fresh", FakeEncoder(), workers=0)
    ids = [clip.id for clip in AudioBank.open(tmp_path / "bank").clips()]
    assert ids == [clip.id for clip in AudioBank.open(tmp_path / "fresh").clips()]
    assert paths[5].relative_to(source).as_posix() not in ids
    assert checksums(tmp_path / "bank") == checksums(tmp_path / "fresh")


def test_resume_takes_new_metadata_without_encoding(tmp_path: Path) -> None:
    write_tone(tmp_path / "a.wav", 300)
    manifest = tmp_path / "clips.jsonl"
    manifest.write_text(json.dumps({"path": "a.wav", "caption": "old"}))
    build_bank(manifest, tmp_path / "bank", FakeEncoder(), workers=0)
    manifest.write_text(json.dumps({"path": "a.wav", "caption": "new"}))
    encoder = FakeEncoder()
    build_bank(manifest, tmp_path / "bank", encoder, workers=0, resume=True)
    assert encoder.encoded == 0 and AudioBank.open(tmp_path / "bank").clip(0).caption == "new"


def test_resume_with_other_models_or_settings_is_refused(tmp_path: Path) -> None:
    write_tones(tmp_path / "source", 6)
    build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0)
    with pytest.raises(ArtefactError, match="another"):
        build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder("another"), workers=0, resume=True)
    with pytest.raises(InputError, match="settings"):
        build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0, resume=True, max_duration_s=1.0)
    coarse = FakeEncoder()
    coarse.precision = "bf16"
    with pytest.raises(InputError, match="bf16"):
        build_bank(tmp_path / "source", tmp_path / "bank", coarse, workers=0, resume=True)
    with pytest.raises(KeyboardInterrupt):
        build_bank(tmp_path / "source", tmp_path / "other", FakeEncoder(batches=1), workers=0, batch_size=2)
    with pytest.raises(ArtefactError, match="models"):
        build_bank(tmp_path / "source", tmp_path / "other", FakeEncoder("another"), workers=0, resume=True)


def test_a_folder_in_use_is_not_replaced_unasked(tmp_path: Path) -> None:
    write_tone(tmp_path / "source" / "a.wav", 300)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="is no bank"):
            build_bank(tmp_path / "source", tmp_path / "thesis", FakeEncoder(), workers=0, overwrite=overwrite)
    build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0)
    with pytest.raises(InputError, match="is a bank already"):
        build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0)
    build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0, overwrite=True)


def test_a_source_without_a_usable_clip_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(InputError, match="empty folder"):
        build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0)
    (tmp_path / "source" / "bad.wav").write_text("bad")
    with pytest.raises(InputError, match="no usable clip"):
        build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0)
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_ids_that_occur_twice_are_rejected_once(tmp_path: Path) -> None:
    for number in range(3):
        write_tone(tmp_path / f"{number}.wav", 300 + 100 * number)
    rows = [{"id": "x", "path": "0.wav"}, {"id": "y", "path": "1.wav"}, {"id": "x", "path": "2.wav"}]
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))
    build_bank(tmp_path / "clips.jsonl", tmp_path / "bank", FakeEncoder(), workers=0, batch_size=1)
    assert [clip.id for clip in AudioBank.open(tmp_path / "bank").clips()] == ["x", "y"]
    assert rejected(tmp_path / "bank") == {"x": "duplicate-id"}


def test_vectors_that_are_no_numbers_do_not_enter_the_bank(tmp_path: Path) -> None:
    class Broken(FakeEncoder):
        def encode(self, features: Any, attributes: Any) -> tuple[np.ndarray, np.ndarray]:
            clap, knowledge = super().encode(features, attributes)
            knowledge[1] = np.nan
            return clap, knowledge

    write_tones(tmp_path / "source", 3)
    build_bank(tmp_path / "source", tmp_path / "bank", Broken(), workers=0)
    assert list(rejected(tmp_path / "bank").values()) == ["not-finite"]
    assert len(AudioBank.open(tmp_path / "bank")) == 2


@dataclass(frozen=True)
class FaultyEntry(Entry):
    """An entry whose opening fails in a way that nobody thought of."""

    def open(self) -> BinaryIO:
        raise ValueError("embedded \udcff byte")


@pytest.mark.parametrize("workers", [0, 1])
def test_one_bad_clip_is_rejected_and_the_build_goes_on(tmp_path: Path, workers: int) -> None:
    paths = write_tones(tmp_path / "source", 6)
    entries = [Entry(path.name, {"path": path.name}, path) for path in paths]
    entries.insert(2, FaultyEntry("faulty"))
    entries.insert(3, Entry("nul", file=Path("a\0b.wav")))
    wanted = {"faulty": "failed", "nul": "failed"}
    if workers:
        entries.insert(6, DeadlyEntry("deadly"))
        wanted["deadly"] = "crashed"
    source = Source("sounds", None, len(entries), lambda: iter(entries))
    build_bank(source, tmp_path / "bank", FakeEncoder(), workers=workers, batch_size=5)
    assert rejected(tmp_path / "bank") == wanted
    assert [clip.id for clip in AudioBank.open(tmp_path / "bank").clips()] == [path.name for path in paths]


_SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from audiobert.bank import build_bank
from bank_fakes import FakeEncoder
build_bank({source!r}, {out!r}, FakeEncoder(), workers=2)
"""


def test_a_script_that_its_own_workers_would_run_again_is_told_so_in_one_line(tmp_path: Path) -> None:
    write_tones(tmp_path / "source", 2)
    text = _SCRIPT.format(tests=str(Path(__file__).parent), source=str(tmp_path / "source"), out=str(tmp_path / "bank"))
    (tmp_path / "script.py").write_text(text)
    run = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    lines = run.stderr.strip().splitlines()
    assert lines[-1].startswith("audiobert.errors.InputError: ") and "if __name__ ==" in lines[-1]
    assert "workers=0" in lines[-1]
    assert run.stderr.count("Traceback") == 1  # the workers themselves are quiet
    assert [path.name for path in tmp_path.iterdir() if "bank" in path.name] == []  # nothing is left to go on with
