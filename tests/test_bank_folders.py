"""A folder as a source of a bank: links, what cannot be read, and what is no sound."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from audiobert.bank.sources import open_source
from audiobert.errors import InputError
from bank_fakes import built, rejections, write_tone


def test_linked_folders_and_files_are_taken_or_listed(tmp_path: Path) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    write_tone(source / "here" / "a.wav", 300)
    write_tone(outside / "deep" / "b.wav", 400)
    write_tone(tmp_path / "c.wav", 500)
    for name, target in {
        "again": outside,
        "back": tmp_path,
        "dangling.wav": tmp_path / "gone.wav",
        "inside": source / "here",
        "linked": outside,
        "linked.wav": tmp_path / "c.wav",
        "loop": source / "loop",
    }.items():
        (source / name).symlink_to(target)
    (outside / "up").symlink_to(source)
    os.mkfifo(source / "pipe.wav")

    bank = built(source, tmp_path / "bank")

    assert [clip.id for clip in bank.clips()] == ["again/deep/b.wav", "here/a.wav", "linked.wav"]
    rejected = rejections(bank)
    assert {name: reason for name, (reason, _) in rejected.items()} == {
        "again/up": "link", "back": "link", "dangling.wav": "link", "inside": "link", "linked": "link", "loop": "link",
        "pipe.wav": "not-a-file",
    }  # fmt: skip
    assert "gone.wav, which cannot be opened (No such file or directory)" in rejected["dangling.wav"][1]
    assert open_source(source).total == 10


def test_folders_that_cannot_be_read_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tone(tmp_path / "source" / "a.wav", 300)
    write_tone(tmp_path / "source" / "closed" / "b.wav", 300)
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    closed = tmp_path / "source" / "closed"
    problems = {entry.id: entry.problem for entry in open_source(tmp_path / "source")}
    assert problems["a.wav"] is None
    assert problems["closed"] == ("unreadable", f"{closed} cannot be read (Permission denied)")
    closed = tmp_path / "source"
    with pytest.raises(InputError, match=r"source cannot be read .Permission denied.; give a folder that can be read"):
        open_source(tmp_path / "source")


def test_files_that_are_not_taken_are_listed_with_a_true_reason(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_tone(source / "a.wav", 300)
    (source / "b.M4A").write_bytes(b"sound")
    (source / "notes.txt").write_text("none")
    bad_name = os.fsdecode(b"caf\xe9.wav")
    (source / bad_name).write_bytes((source / "a.wav").read_bytes())
    bank = built(source, tmp_path / "bank")
    assert [clip.id for clip in bank.clips()] == ["a.wav"]
    rejected = rejections(bank)
    assert rejected["b.M4A"] == (
        "format", "the format '.M4A' is not supported; convert it first: ffmpeg -i b.M4A b.flac"
    )  # fmt: skip
    assert rejected["notes.txt"][0] == "extension"
    assert rejected["caf\\udce9.wav"] == ("text", "its name has a byte that is not UTF-8 (0xE9); rename it")
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(InputError, match="has a byte that is not UTF-8"):
        open_source(tmp_path / os.fsdecode(b"caf\xe9"))
