"""A bank's life: built, opened, searched, verified, refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from audiobert.bank import AudioBank, build_bank, check_identity, merge_banks, verify_bank
from audiobert.errors import ArtefactError, InputError
from bank_fakes import FakeEncoder, write_tone, write_tones


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> AudioBank:
    """Nine tones with a manifest that tells their caption, licence and source."""
    folder = tmp_path_factory.mktemp("source")
    paths = write_tones(folder, 9)
    licenses = ["CC0", "http://creativecommons.org/licenses/by/4.0/", "unstated (ask)"]
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "caption", "label", "license", "source", "fold", "duration_s"])
        for number, path in enumerate(paths):
            row = [path.relative_to(folder), f"tone {number}", "low" if number < 4 else "high", licenses[number % 3]]
            writer.writerow([*row, "Lab" if number % 2 else "Field", number % 5, 99])
    out = folder.parent / "bank"
    build_bank(folder / "clips.csv", out, FakeEncoder(), workers=0)
    return AudioBank.open(out)


def test_metadata_and_measurements_are_kept(bank: AudioBank) -> None:
    assert len(bank) == 9
    clip = bank.clip(1)
    assert clip.id == "low/tone001.flac" and clip.caption == "tone 1" and clip.source == "Lab"
    assert clip.path is not None and Path(clip.path).is_file()
    assert clip.pitch_hz == pytest.approx(165.0, rel=0.01)
    assert clip.loudness_dbfs == pytest.approx(-11, abs=0.5)
    assert clip.duration_s == pytest.approx(0.4, abs=0.01)  # measured, whatever the manifest says
    assert clip.sample_rate_hz == 22_050 and clip.channels == 1
    assert clip.extra == {"fold": "1"}
    assert bank.clip(-1).id == bank.clip(8).id == list(bank.clips())[8].id
    with pytest.raises(IndexError):
        bank.clip(9)


def test_vectors_are_memory_mapped_float16_and_the_file_is_plain_safetensors(bank: AudioBank) -> None:
    assert bank.clap_vectors.dtype == bank.knowledge_vectors.dtype == np.float16
    assert bank.clap_vectors.shape == (9, 16) and bank.knowledge_vectors.shape == (9, 24)
    assert isinstance(bank.clap_vectors, np.memmap)
    tensors = safetensors.numpy.load_file(bank.folder / "vectors.safetensors")
    np.testing.assert_array_equal(tensors["clap_vectors"], bank.clap_vectors)
    np.testing.assert_array_equal(tensors["knowledge_vectors"], bank.knowledge_vectors)


def test_search_finds_the_nearest_first(bank: AudioBank) -> None:
    scores, rows = bank.search(bank.clap_vectors[[4, 2]], top_k=3)
    assert scores.shape == rows.shape == (2, 3) and scores.dtype == np.float32
    assert rows[:, 0].tolist() == [4, 2] and (np.diff(scores) <= 0).all()
    truth = bank.clap_vectors[[4, 2]].astype(np.float32) @ bank.clap_vectors.astype(np.float32).T
    np.testing.assert_array_equal(rows, np.argsort(-truth, axis=1)[:, :3])
    single, _ = bank.search(bank.clap_vectors[4], top_k=100)
    assert single.shape == (1, 9)


def test_search_filters(bank: AudioBank) -> None:
    def found(**filters: object) -> set[int]:
        return set(bank.search(bank.clap_vectors[0], 9, **filters)[1][0].tolist())  # type: ignore[arg-type]

    assert found(exclude=["low/tone000.wav", "no such id"]) == set(range(1, 9))
    assert found(licenses=["cc-by"]) == {1, 4, 7}
    assert found(redistributable=True) == {0, 1, 3, 4, 6, 7}
    assert found(sources=["lab"]) == found(sources="Lab") == {1, 3, 5, 7}
    assert found(exclude="low/tone000.wav", licenses="cc-by") == {1, 4, 7} and found(labels="low") == {0, 1, 2, 3}
    assert found(labels=["high"], sources=["Lab"]) == {5, 7}
    assert found(min_duration_s=10) == set()
    assert found(mask=np.arange(9) < 2) == {0, 1}
    assert found(mask=np.arange(9) < 2, exclude=["low/tone000.wav"]) == {1}
    assert bank.find(["high/tone005.ogg", "low/tone000.wav"]).tolist() == [5, 0]
    # One text is a list of one, not of its letters.
    assert found(exclude="low/tone000.wav") == set(range(1, 9))
    assert found(licenses="cc-by") == {1, 4, 7}
    assert found(labels="high", sources="Lab") == {5, 7}
    assert bank.find("high/tone005.ogg").tolist() == [5]
    with pytest.raises(InputError, match="no such id"):
        bank.find(["no such id"])


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (np.zeros((1, 8)), {}, "16"),
        (np.zeros(16), {"top_k": 0}, "top_k"),
        (np.full(16, np.nan), {}, "no numbers"),
        (np.zeros(16), {"mask": np.ones(3, bool)}, "mask"),
        (np.zeros(16), {"method": "approximate"}, "no index"),
    ],
)
def test_search_refuses_what_does_not_fit(bank: AudioBank, query: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bank.search(query, **options)


def test_the_manifest_says_what_may_be_redistributed(bank: AudioBank) -> None:
    licenses = bank.manifest["licenses"]
    assert licenses["by_license"]["CC0"] == {"clips": 3, "redistributable": True, "commercial": True}
    assert licenses["by_license"]["CC BY"]["clips"] == 3
    assert licenses["redistributable"] is None  # three clips do not say
    assert bank.manifest["seconds"] == pytest.approx(3.6, abs=0.1)


def test_a_bank_of_other_models_is_refused_and_both_are_named(bank: AudioBank) -> None:
    check_identity(bank, FakeEncoder().identity())
    with pytest.raises(ArtefactError) as caught:
        check_identity(bank, FakeEncoder("another").identity())
    assert "clap.id fake" in str(caught.value) and "clap.id another" in str(caught.value)
    assert "ear" not in str(caught.value)  # what is equal is not listed


@pytest.mark.parametrize("name", ["clips.arrow", "vectors.safetensors", "rejected.jsonl", "bank.json"])
def test_verify_finds_one_flipped_bit_in_any_file(tmp_path: Path, name: str) -> None:
    write_tone(tmp_path / "source" / "a.wav", 300)
    (tmp_path / "source" / "notes.txt").write_text("not a sound")
    build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0)
    assert verify_bank(tmp_path / "bank").sound

    path = tmp_path / "bank" / name
    content = bytearray(path.read_bytes())
    place = content.index(b"300") if name == "bank.json" and b"300" in content else len(content) // 2
    content[place] ^= 1
    path.write_bytes(bytes(content))

    try:
        report = verify_bank(tmp_path / "bank")
    except ArtefactError as error:  # the manifest itself is no JSON any more
        assert name == "bank.json" and name in str(error)
    else:
        assert not report.sound and any(name in problem for problem in report.problems)


@pytest.mark.parametrize("name", ["clips.arrow", "vectors.safetensors"])
def test_a_truncated_or_missing_file_is_refused_on_opening_and_named(tmp_path: Path, name: str) -> None:
    write_tone(tmp_path / "source" / "a.wav", 300)
    build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0)
    path = tmp_path / "bank" / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtefactError, match=name):
        AudioBank.open(tmp_path / "bank")
    path.unlink()
    with pytest.raises(ArtefactError, match=name):
        AudioBank.open(tmp_path / "bank")
    assert any("missing" in problem for problem in verify_bank(tmp_path / "bank").problems)


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is no folder"):
        AudioBank.open(tmp_path / "nothing")
    with pytest.raises(ArtefactError, match=r"bank\.json"):
        AudioBank.open(tmp_path)
    (tmp_path / "bank.json").write_text(json.dumps({"format": "something else"}))
    with pytest.raises(ArtefactError, match="no bank's manifest"):
        AudioBank.open(tmp_path)
    (tmp_path / "bank.json").write_text(json.dumps({"format": "audiobert-bank", "format_version": 99}))
    with pytest.raises(ArtefactError, match="99"):
        AudioBank.open(tmp_path)


def test_a_bank_without_audio_root_has_no_paths(tmp_path: Path) -> None:
    write_tone(tmp_path / "source" / "a.wav", 300)
    build_bank(tmp_path / "source", tmp_path / "bank", FakeEncoder(), workers=0, keep_audio_root=False)
    assert AudioBank.open(tmp_path / "bank").clip(0).path is None
    moved = AudioBank.open(tmp_path / "bank", audio_root=tmp_path / "source")
    assert moved.clip(0).path == str(tmp_path / "source" / "a.wav")
    assert str(tmp_path) not in (tmp_path / "bank" / "clips.arrow").read_bytes().decode("latin-1")


def test_a_damaged_bank_is_not_taken_over(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tone(tmp_path / name / f"{name}.wav", 300 if name == "one" else 500)
        build_bank(tmp_path / name, tmp_path / f"bank-{name}", FakeEncoder(), workers=0)
    path = tmp_path / "bank-one" / "vectors.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtefactError, match=r"vectors\.safetensors"):
        merge_banks([tmp_path / "bank-one", tmp_path / "bank-two"], tmp_path / "both")
    with pytest.raises(ArtefactError, match=r"vectors\.safetensors"):
        build_bank(tmp_path / "one", tmp_path / "bank-one", FakeEncoder(), workers=0, resume=True)
    assert not (tmp_path / "both").exists() and not (tmp_path / ".bank-one.building").exists()
