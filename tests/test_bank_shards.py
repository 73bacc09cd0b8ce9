"""Tar shards as a source of a bank: each clip is taken or listed with a true reason."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from audiobert.bank.sources import open_source
from audiobert.errors import InputError
from bank_fakes import built, rejections, write_tone


def write_shard(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def laion_members(folder: Path, count: int) -> dict[str, bytes]:
    """Members of a shard as LAION-Audio-630K has them."""
    members: dict[str, bytes] = {}
    for number in range(count):
        write_tone(folder / "sound.flac", 200 + 100 * number)
        members[f"{number}.flac"] = (folder / "sound.flac").read_bytes()
        record = {
            "text": [f"tone number {number}", "a beep"],
            "tag": ["beep", "sine"],
            "original_data": {
                "title": f"Tone {number}.wav",
                "description": "made by a program",
                "license": "http://creativecommons.org/publicdomain/zero/1.0/",
                "username": "ada",
                "id": 4000 + number,
            },
        }
        members[f"{number}.json"] = json.dumps(record).encode()
    (folder / "sound.flac").unlink()
    return members


@pytest.mark.parametrize("extension", ["tar", "tar.gz"])
def test_shards_in_the_layout_of_laion_audio_630k(tmp_path: Path, extension: str) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    members = laion_members(tmp_path, 3)
    members["9.json"] = b"{}"  # without audio
    write_shard(shards / f"0.{extension}", members, "w" if extension == "tar" else "w:gz")

    bank = built(shards, tmp_path / "bank")

    clip = bank.clip(1)
    assert clip.id == f"0.{extension}/1.flac" and clip.path is None
    assert (clip.caption, clip.title, clip.author) == ("tone number 1", "Tone 1.wav", "ada")
    assert clip.tags == ["beep", "sine"] and clip.license is not None and clip.license.endswith("zero/1.0/")
    assert clip.extra == {"more_captions": ["a beep"], "original_data": {"id": 4001}}
    assert clip.pitch_hz == pytest.approx(300, rel=0.01)
    assert bank.manifest["licenses"]["redistributable"] is True
    assert bank.manifest["rejected"] == {"missing": 1}
    one_shard = built(shards / f"0.{extension}", tmp_path / "single")
    np.testing.assert_array_equal(one_shard.clap_vectors, bank.clap_vectors)


def test_a_shard_that_ends_early_gives_its_first_part(tmp_path: Path) -> None:
    write_shard(tmp_path / "whole.tar", laion_members(tmp_path, 4))
    content = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "0.tar").write_bytes(content[: len(content) // 2 + 700])
    bank = built(tmp_path / "cut", tmp_path / "bank")
    assert 1 <= len(bank) < 4 and sum(bank.manifest["rejected"].values()) >= 1
    (tmp_path / "cut" / "0.tar").write_text("this is no tar")
    with pytest.raises(InputError, match="no usable clip"):
        built(tmp_path / "cut", tmp_path / "other")


def sound(folder: Path, frequency_hz: float) -> bytes:
    write_tone(folder / "sound.wav", frequency_hz)
    content = (folder / "sound.wav").read_bytes()
    (folder / "sound.wav").unlink()
    return content


def caption(text: str) -> bytes:
    return json.dumps({"text": text, "original_data": {"license": "CC0"}}).encode()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("extension", ["tar", "tar.gz"])
@pytest.mark.parametrize("order", ["pairs", "sounds first", "texts first"])
def test_names_with_several_dots_in_any_order(tmp_path: Path, extension: str, order: str) -> None:
    stems = ["dog.1", "dog.2", "./deep/dog.3.loud", "v1.0-cat", "e.mono", "f.audio", "plain"]
    sounds = {
        f"{stem}.WAV" if stem == "plain" else f"{stem}.wav": sound(tmp_path, 200 + 90 * n)
        for n, stem in enumerate(stems)
    }
    texts = {f"{stem}.json": caption(stem) for stem in stems}
    texts["e.json"] = texts.pop("e.mono.json")  # of the key `e`, as WebDataset has it
    texts["f.meta.json"] = texts.pop("f.audio.json")
    members = {
        "pairs": {name: one for pair in zip(sounds.items(), texts.items(), strict=True) for name, one in pair},
        "sounds first": sounds | texts,
        "texts first": texts | sounds,
    }[order]
    write_shard(tmp_path / f"s.{extension}", members, "w" if extension == "tar" else "w:gz")

    bank = built(tmp_path / f"s.{extension}", tmp_path / "bank")

    assert {clip.id: clip.caption for clip in bank.clips()} == {
        f"s.{extension}/{name}": stem for name, stem in zip(sounds, stems, strict=True)
    }
    assert {clip.license for clip in bank.clips()} == {"CC0"} and not rejections(bank)


@pytest.mark.parametrize("extension", ["tar", "tar.gz"])
def test_links_in_a_shard(tmp_path: Path, extension: str) -> None:
    shard = tmp_path / f"s.{extension}"
    write_shard(shard, {"a.wav": sound(tmp_path, 300), "a.json": caption("low")}, "w" if extension == "tar" else "w:gz")
    with tarfile.open(shard, "w" if extension == "tar" else "w:gz") as tar:
        for name, content in {"sounds/a.wav": sound(tmp_path, 300), "a.json": caption("low")}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.addfile(link("b.wav", "sounds/a.wav", tarfile.LNKTYPE))
        tar.addfile(link("b.json", "a.json", tarfile.LNKTYPE))
        tar.addfile(link("more/c.wav", "../sounds/a.wav", tarfile.SYMTYPE))
        tar.addfile(link("more/c.json", "gone.json", tarfile.SYMTYPE))
        tar.addfile(link("gone.wav", "nowhere.wav", tarfile.SYMTYPE))
        tar.addfile(link("loop.wav", "loop.wav", tarfile.LNKTYPE))
        tar.addfile(link("pipe.wav", "", tarfile.FIFOTYPE))

    entries = list(open_source(shard))

    good = [entry for entry in entries if not entry.problem]
    assert [entry.id.partition("/")[2] for entry in good] == ["sounds/a.wav", "b.wav"]
    assert [entry.given.get("caption") for entry in good] == [None, "low"]
    assert {entry.open().read() for entry in good} == {sound(tmp_path, 300)}
    problems = {entry.id.partition("/")[2]: entry.problem for entry in entries if entry.problem}
    assert {name: problem[0] for name, problem in problems.items() if problem} == {
        "more/c.wav": "metadata", "gone.wav": "link", "loop.wav": "link", "pipe.wav": "link", "a": "missing",
    }  # fmt: skip
    assert "nowhere.wav" in str(problems["gone.wav"])


def test_what_a_shard_holds_and_a_bank_cannot_take_is_listed(tmp_path: Path) -> None:
    tone = sound(tmp_path, 300)
    members = {
        "good.wav": tone,
        "good.jpg": b"a picture",
        "a.m4a": b"sound",
        "a.json": caption("of a format that is not decoded"),
        "b.wav": sound(tmp_path, 400),
        "b.json": b"{not json",
        "c.wav": sound(tmp_path, 500),
        "c.txt": b"caf\xe9",
        "d.wav": sound(tmp_path, 600),
        "d.json": b'{"text": "\\ud800"}',
        "e.wav": sound(tmp_path, 700),
        "e.json": b'{"text": 5, "tag": 7, "original_data": []}',
        "n.wav": sound(tmp_path, 670),
        "n.txt": b"a\0b",
        "deep.wav": sound(tmp_path, 650),
        "deep.json": b'{"x": ' + b"[" * 600 + b"]" * 600 + b"}",
        "f.jpg": b"a picture",
        "g.1.wav": sound(tmp_path, 800),
        "g.2.wav": sound(tmp_path, 900),
        "g.3.json": caption("without sound"),
        "caf\udce9.wav": tone,
        "._good.wav": b"what a Mac leaves",
    }
    write_shard(tmp_path / "s.tar", members)

    bank = built(tmp_path / "s.tar", tmp_path / "bank")

    assert [clip.id for clip in bank.clips()] == [f"s.tar/{name}.wav" for name in ("good", "e", "g.1", "g.2")]
    assert (bank.clip(1).caption, bank.clip(1).tags) == ("5", ["7"])
    rejected = rejections(bank)
    assert {name.partition("/")[2]: reason for name, (reason, _) in rejected.items()} == {
        "a.m4a": "format", "b.wav": "metadata", "c.wav": "metadata", "d.wav": "metadata",
        "n.wav": "text", "deep.wav": "metadata", "f": "missing", "g.3": "missing",
        "caf\\udce9.wav": "text",
    }  # fmt: skip
    assert "b.json" in rejected["s.tar/b.wav"][1] and "c.txt" in rejected["s.tar/c.wav"][1]


def test_a_damaged_compressed_shard_is_listed(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar.gz", laion_members(tmp_path, 3), "w:gz")
    content = bytearray((tmp_path / "s.tar.gz").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    (tmp_path / "s.tar.gz").write_bytes(content)
    entries = list(open_source(tmp_path / "s.tar.gz"))
    assert entries[-1].problem and entries[-1].problem[0] == "shard"


def test_a_damaged_header_and_joined_shards_are_listed(tmp_path: Path) -> None:
    members = {f"{number}.wav": sound(tmp_path, 300 + 50 * number) for number in range(4)}
    write_shard(tmp_path / "s.tar", members)
    whole = (tmp_path / "s.tar").read_bytes()
    with tarfile.open(tmp_path / "s.tar") as tar:
        third = tar.getmember("2.wav").offset
        last = tar.getmember("3.wav")
    for content, clips, reason in [
        (whole, 4, None),
        (whole[:third] + b"?" * 512 + whole[third + 512 :], 2, "follows 1.wav"),
        (whole[:third], 2, "follows 1.wav"),
        (whole[: last.offset_data + 100], 3, "cut off"),
        (whole + whole, 4, "joined"),
    ]:
        (tmp_path / "s.tar").write_bytes(content)
        *entries, end = open_source(tmp_path / "s.tar")
        if reason is None:
            assert end.problem is None and len(entries) == clips - 1
        else:
            assert len(entries) == clips and end.problem and end.problem[0] == "shard" and reason in end.problem[1]
    (tmp_path / "s.tar").write_bytes(gzip.compress(whole))  # with the wrong extension
    assert len(built(tmp_path / "s.tar", tmp_path / "bank")) == 4
