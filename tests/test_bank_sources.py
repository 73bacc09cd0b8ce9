"""Sources of a bank: manifests, folders, `datasets`; merging and exporting."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from audiobert.bank import build_bank, export_bank, merge_banks, verify_bank
from audiobert.bank.licences import terms_of
from audiobert.bank.sources import open_source, read_ids
from audiobert.errors import ArtefactError, InputError
from bank_fakes import FakeEncoder, built, rejections, write_tone, write_tones


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


def test_a_bad_row_is_listed_by_its_number_and_the_others_are_taken(tmp_path: Path) -> None:
    write_tones(tmp_path / "audio", 6)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "audio").rglob("*.*"))
    lines = [
        b"\xef\xbb\xbfpath, caption,license ",
        f'{names[0]}, "a tone, low",CC0'.encode(),
        f'{names[1]},"no end,CC0'.encode(),
        f"{names[2]},a tone, all rights reserved,CC0".encode(),
        f"{names[3]},caf\xe9,CC0".encode("latin-1"),
        f"{names[4]},{'x' * 200_000},CC0".encode(),
        f"{names[5]},last,CC0".encode(),
        b"audio/\0.wav,x,CC0",
        b",no path,CC0",
        b"voice.m4a,x,CC0",
        b"pipe.wav,x,CC0",
    ]
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "clips.csv").write_bytes(b"\n".join(lines))

    bank = built(tmp_path / "clips.csv", tmp_path / "bank")

    assert [(clip.id, clip.caption, clip.license) for clip in bank.clips()] == [
        (names[0], "a tone, low", "CC0"),
        (names[5], "last", "CC0"),
    ]
    rejected = rejections(bank)
    assert {name: reason for name, (reason, _) in rejected.items()} == {
        **{f"row {number}": "row" for number in (2, 3, 4, 5, 7)},
        "row 8": "missing",
        "pipe.wav": "missing",
        "voice.m4a": "format",
    }
    assert "row 3 of clips.csv (line 4): it has 4 cells" in rejected["row 3"][1]
    assert "ffmpeg" in rejected["voice.m4a"][1]
    assert "pipe, a socket" in rejected["pipe.wav"][1]
    assert open_source(tmp_path / "clips.csv").total == 10


def test_rows_between_two_stray_quotes_are_not_lost_in_silence(tmp_path: Path) -> None:
    write_tones(tmp_path, 3)
    lines = [
        "id,path,caption,license",
        '1,low/tone000.wav,"a drum,CC0',
        "2,high/tone001.flac,a cymbal,CC0",
        '3,high/tone002.ogg,a bell",CC0',
        '4,high/tone002.ogg,"Recorded in Rome,\nsee drum.wav, too",CC0',
    ]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    bank = built(tmp_path / "clips.csv", tmp_path / "bank")
    assert [clip.id for clip in bank.clips()] == ["4"]
    reason, detail = rejections(bank)["row 1"]
    assert reason == "row" and "(line 2): the column 'caption' holds the row of high/tone001.flac" in detail


def test_lists_and_missing_cells_as_other_tools_write_them(tmp_path: Path) -> None:
    write_tones(tmp_path / "audio", 6)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "audio").rglob("*.*"))
    tags = ["['a', 'b']", "['a' 'b']", '["a", "b"]', "[field] a, b", "[]", ["a", 7, None]]
    rows = [
        {"path": name, "tags": one, "id": number} for number, (name, one) in enumerate(zip(names, tags, strict=True))
    ]
    rows[0] |= {"caption": ["one", "two"], "license": float("nan"), "title": None}
    rows[1] |= {"tags2": {"deep": 1}, "label": ["dog", "cat"], "license": ["CC0", "CC BY"]}
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, rows)))

    clips = list(built(tmp_path / "clips.jsonl", tmp_path / "bank").clips())

    assert [clip.tags for clip in clips] == [["a", "b"], ["a", "b"], ["a", "b"], ["[field] a", "b"], [], ["a", "7"]]
    assert [clip.id for clip in clips] == ["0", "1", "2", "3", "4", "5"]
    assert (clips[0].caption, clips[0].extra, clips[0].license) == ("one", {"more_captions": ["two"]}, None)
    assert clips[1].label == "dog; cat" and terms_of(clips[1].license).redistributable is None


def test_a_list_of_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\n")
    (tmp_path / "ids.csv").write_text("why,id\nold,one\nnew,two\n")
    assert read_ids(tmp_path / "ids.txt") == read_ids(tmp_path / "ids.csv") == ["one", "two"]
    (tmp_path / "ids.csv").write_text("why,id\nold,one\nnew,two,three\n")
    with pytest.raises(InputError, match="line 3"):
        read_ids(tmp_path / "ids.csv")
    (tmp_path / "ids.csv").write_text("one\ntwo\n")
    with pytest.raises(InputError, match="column 'id'"):
        read_ids(tmp_path / "ids.csv")
    with pytest.raises(InputError, match="No such file"):
        read_ids(tmp_path / "gone.txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clips.csv", "file,caption\na.wav,x\n", "file, caption.*'path'"),
        ("clips.csv", "path\n", "no rows"),
        ("clips.jsonl", "{not json}\n", "line 1"),
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
    splits = datasets.DatasetDict({"train": dataset, "test": dataset})
    splits.save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(InputError, match=r"2 splits.*splits/train"):
        open_source(tmp_path / "splits")
    assert open_source(tmp_path / "splits" / "test").total == 4
    datasets.DatasetDict({"train": dataset}).save_to_disk(str(tmp_path / "one"))
    assert open_source(tmp_path / "one").total == 4
    (tmp_path / "one" / "train" / "state.json").unlink()
    with pytest.raises(InputError, match="cannot be read as a saved dataset"):
        open_source(tmp_path / "one")
    with pytest.raises(InputError, match="type Audio"):
        open_source(dataset.remove_columns("sound"))
    with pytest.raises(InputError, match="datasets:NAME"):
        open_source("datasets:?split=x")


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
