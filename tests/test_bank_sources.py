"""Sources of a bank: manifests, WebDataset shards, `datasets`; licences; merging and exporting."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from audiobert.bank import AudioBank, build_bank, export_bank, merge_banks, verify_bank
from audiobert.bank.licences import terms_of
from audiobert.bank.sources import open_source
from audiobert.errors import ArtefactError, InputError
from bank_fakes import FakeEncoder, write_tone, write_tones


def built(source: Any, out: Path) -> AudioBank:
    build_bank(source, out, FakeEncoder(), workers=0)
    return AudioBank.open(out)


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


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_manifests(tmp_path: Path, kind: str) -> None:
    paths = write_tones(tmp_path / "audio", 3)
    rows = [{"path": str(p.relative_to(tmp_path)), "caption": f"№{n}", "mood": "calm"} for n, p in enumerate(paths)]
    rows.append({"path": "audio/gone.wav", "caption": "", "mood": ""})
    manifest = tmp_path / f"clips.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), manifest)
    elif kind == "jsonl":
        manifest.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    else:
        separator = "," if kind == "csv" else "\t"
        lines = [separator.join(row.values()) for row in [dict.fromkeys(rows[0]), *rows] if row["path"]]
        manifest.write_text("\n".join([separator.join(rows[0]), *lines]), encoding="utf-8")

    assert open_source(manifest).total == 4
    bank = built(manifest, tmp_path / "bank")
    assert [clip.caption for clip in bank.clips()] == ["№0", "№1", "№2"]
    assert bank.clip(0).extra == {"mood": "calm"} and bank.clip(0).path == str(paths[0])
    assert bank.manifest["rejected"] == {"missing": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clips.csv", "file,caption\na.wav,x\n", "file, caption.*'path'"),
        ("clips.csv", "path\n", "no rows"),
        ("clips.jsonl", "{not json}\n", "line 1"),
        ("clips.jsonl", "[1, 2]\n", "line 1"),
        ("clips.parquet", "not parquet", "cannot be read"),
        ("clips.xlsx", "", "no manifest"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / name)


def test_a_source_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_source(tmp_path / "nothing")


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


def test_datasets_in_memory_streamed_and_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    paths = write_tones(tmp_path / "audio", 4)
    rows = {"sound": [str(path) for path in paths], "caption": [f"tone {n}" for n in range(4)], "fold": [1, 2, 3, 4]}
    dataset = datasets.Dataset.from_dict(rows).cast_column("sound", datasets.Audio())

    bank = built(dataset, tmp_path / "a")
    assert [clip.caption for clip in bank.clips()] == rows["caption"] and bank.clip(2).extra == {"fold": 3}
    streamed = built(dataset.to_iterable_dataset(), tmp_path / "b")
    dataset.save_to_disk(str(tmp_path / "saved"))
    saved = built(tmp_path / "saved", tmp_path / "c")
    for other in (streamed, saved):
        np.testing.assert_array_equal(other.clap_vectors, bank.clap_vectors)
        assert [clip.id for clip in other.clips()] == [clip.id for clip in bank.clips()]
    with pytest.raises(InputError, match="type Audio"):
        open_source(dataset.remove_columns("sound"))
    with pytest.raises(InputError, match="datasets:NAME"):
        open_source("datasets:?split=x")


@pytest.mark.parametrize(
    ("given", "name", "redistributable", "commercial"),
    [
        ("CC0", "CC0", True, True),
        ("Creative Commons 0", "CC0", True, True),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0", True, True),
        ("CC-BY", "CC BY", True, True),
        ("Attribution", "CC BY", True, True),
        ("https://creativecommons.org/licenses/by/3.0/", "CC BY", True, True),
        ("CC BY-SA 4.0", "CC BY-SA", True, True),
        ("Attribution NonCommercial", "CC BY-NC", True, False),
        ("CC-BY-NC", "CC BY-NC", True, False),
        ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "CC BY-NC-ND", True, False),
        ("Sampling+", "CC Sampling+", True, False),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "CC Sampling+", True, False),
        ("All rights reserved", "all rights reserved", False, False),
        ("free to use, ask me", "free to use, ask me", None, None),
        ("by permission of the owner only", "by permission of the owner only", None, None),
        ("", "unstated", None, None),
        (None, "unstated", None, None),
    ],
)
def test_licences(given: str | None, name: str, redistributable: bool | None, commercial: bool | None) -> None:
    terms = terms_of(given)
    assert (terms.name, terms.redistributable, terms.commercial) == (name, redistributable, commercial)


def test_merging_shards_gives_the_bank_of_the_whole(tmp_path: Path) -> None:
    paths = write_tones(tmp_path / "audio", 8)
    for part, some in {"a": paths[:4], "b": paths[4:], "all": paths}.items():
        lines = [json.dumps({"path": str(path.relative_to(tmp_path)), "license": "CC0"}) for path in some]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    whole = built(tmp_path / "all.jsonl", tmp_path / "whole")
    built(tmp_path / "a.jsonl", tmp_path / "one")
    built(tmp_path / "b.jsonl", tmp_path / "two")

    merged = merge_banks([tmp_path / "one", tmp_path / "two"], tmp_path / "merged")

    for name in ("clips.arrow", "vectors.safetensors"):
        assert (merged.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert merged.manifest["audio_root"] == whole.manifest["audio_root"] and verify_bank(merged.folder).sound


def test_merging_drops_equal_content_and_keeps_other_content_under_the_same_id(tmp_path: Path) -> None:
    for name, pitches in {"a": (300, 400), "b": (300, 500)}.items():
        for number, pitch in enumerate(pitches):
            write_tone(tmp_path / name / f"{number}.wav", pitch)
        built(tmp_path / name, tmp_path / f"bank-{name}")
    merged = merge_banks([tmp_path / "bank-a", tmp_path / "bank-b"], tmp_path / "merged")
    ids = [clip.id for clip in merged.clips()]
    assert ids[:2] == ["0.wav", "1.wav"] and ids[2].startswith("1.wav#") and len(ids) == 3
    assert merged.manifest["rejected"] == {"duplicate": 1}
    assert merged.clip(2).path == str(tmp_path / "b" / "1.wav")  # roots differ: paths are whole

    build_bank(tmp_path / "a", tmp_path / "foreign", FakeEncoder("another"), workers=0)
    with pytest.raises(ArtefactError, match="another"):
        merge_banks([tmp_path / "bank-a", tmp_path / "foreign"], tmp_path / "no")
    with pytest.raises(InputError, match="at least two"):
        merge_banks([tmp_path / "bank-a"], tmp_path / "no")
    with pytest.raises(InputError, match="exists"):
        merge_banks([tmp_path / "bank-a", tmp_path / "bank-b"], tmp_path / "merged")
    assert not (tmp_path / "no").exists()


def test_export(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_tones(tmp_path / "audio", 5)
    bank = built(tmp_path / "audio", tmp_path / "bank")

    table = pyarrow.parquet.read_table(export_bank(bank.folder, tmp_path / "clips.parquet"))
    assert table["id"].to_pylist() == [clip.id for clip in bank.clips()]
    np.testing.assert_allclose(np.stack(table["clap_vector"].to_pylist()), bank.clap_vectors)

    folder = export_bank(bank.folder, tmp_path / "dataset", to="datasets")
    dataset = datasets.load_from_disk(str(folder))
    assert len(dataset) == 5 and dataset[3]["pitch_hz"] == bank.clip(3).pitch_hz
    np.testing.assert_allclose(dataset[3]["knowledge_vector"], bank.knowledge_vectors[3].astype(np.float32))
    with pytest.raises(InputError, match="exists"):
        export_bank(bank.folder, tmp_path / "dataset", to="datasets")
