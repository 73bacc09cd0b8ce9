"""The texts that clips are known by, and their vectors: built, resumed, merged, verified."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy

from audiobert.artefacts import sha256_of
from audiobert.bank import AudioBank, build_bank, check_identity, merge_banks, verify_bank
from audiobert.bank.clips import SCHEMA
from audiobert.bank.names import clip_names, known_as, plain_name
from audiobert.bank.store import manifest_checksum
from audiobert.errors import ArtefactError, InputError
from bank_fakes import FakeEncoder, name_vector, write_tone


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"caption": "A dog barking.", "label": "dog", "title": "t", "path": "p.wav"}, ("dog barking", "dog")),
        ({"caption": "a dog", "label": "dog", "title": "t", "path": "p.wav"}, ("dog",)),
        ({"caption": " ", "label": "dog", "title": "Rex", "path": "p.wav"}, ("dog", "rex")),
        ({"caption": None, "label": None, "title": "Take 3", "path": "p.wav"}, ("take 3",)),
        ({"title": "  low \n hum  "}, ("low hum",)),
        ({"path": "field/54_Lumber-mill_saw.wav"}, ("54 lumber mill saw",)),
        ({"path": "shard.tar/x.y.flac"}, ("x y",)),
        ({"path": "field/0001.wav"}, ()),
        ({"path": "field/00-01_2.wav"}, ()),
        ({"path": "__.wav"}, ()),
        ({"title": "54_Lumber-mill", "path": "field/54_Lumber-mill.wav"}, ("54 lumber mill",)),
        ({"title": "0001", "path": "0001.wav"}, ()),
        ({"caption": "1234", "path": "p.wav"}, ()),
        ({}, ()),
    ],
)
def test_a_clip_is_known_by_caption_and_label_else_by_title_or_file_name(
    row: dict[str, Any], names: tuple[str, ...]
) -> None:
    assert known_as(row) == names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The sound of a church_bell!", "church bell"),
        ("a noise made by an OLD door", "old door"),
        ("the", "the"),
        ("?!", "?!"),
        ("sound", "sound"),
    ],
)
def test_a_name_and_a_query_are_compared_without_what_says_no_more_than_sound(text: str, name: str) -> None:
    assert plain_name(text) == name


def test_names_are_distinct_and_in_order_of_first_occurrence_across_batches() -> None:
    captions = ["b", "a", None, "b", "c", "a", "", "d"]
    rows = [{"id": str(number), "caption": caption} for number, caption in enumerate(captions)]
    batches = [pa.RecordBatch.from_pylist(rows[start : start + 3], schema=SCHEMA) for start in (0, 3, 6)]
    names = clip_names(batches)
    assert names.texts == ["b", "a", "c", "d"]
    assert names.rows.dtype == np.int32 and names.rows[:, 0].tolist() == [0, 1, -1, 0, 2, 1, -1, 3]
    assert (names.rows[:, 1] == -1).all()
    assert clip_names([]).texts == [] and clip_names([]).rows.shape == (0, 2)


CAPTIONS = ["a dog", None, "a cat", "a dog", "a bell", "a cat", None, "a drum"]


def write_manifest(folder: Path, captions: Sequence[str | None], first_hz: int = 300) -> Path:
    lines = []
    for number, caption in enumerate(captions):
        path = folder / f"{number:04d}.wav"
        write_tone(path, first_hz + 50 * number)
        lines.append(json.dumps({"id": f"{first_hz}-{number}", "path": path.name, "caption": caption}))
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return folder / "clips.jsonl"


def build(source: Path, out: Path, encoder: FakeEncoder | None = None, **options: Any) -> AudioBank:
    build_bank(source, out, encoder or FakeEncoder(), workers=0, **options)
    return AudioBank.open(out)


def assert_names(bank: AudioBank, captions: Sequence[str | None]) -> None:
    """The bank knows each clip by its caption, without the article, and has the vector of each caption."""
    plain = [plain_name(caption) if caption else None for caption in captions]
    assert bank.names == list(dict.fromkeys(name for name in plain if name))
    known = [bank.names[row] if row >= 0 else None for row in bank.name_rows[:, 0]]
    assert known == plain and (bank.name_rows[:, 1] == -1).all()
    assert bank.name_vectors is not None and bank.name_vectors.dtype == np.float16
    wanted = np.array([name_vector(name) for name in bank.names]).astype(np.float16).reshape(-1, 8)
    np.testing.assert_array_equal(bank.name_vectors, wanted)
    assert verify_bank(bank.folder).sound


def test_each_distinct_name_is_embedded_once_and_stored(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    bank = build(write_manifest(tmp_path / "source", CAPTIONS), tmp_path / "bank", encoder)
    assert_names(bank, CAPTIONS)
    assert encoder.embedded == ["dog", "cat", "bell", "drum"]
    assert isinstance(bank.name_vectors, np.memmap)
    assert bank.manifest["text_dim"] == 8 and bank.identity["text_encoder"]["id"] == "eye"
    tensors = safetensors.numpy.load_file(bank.folder / "vectors.safetensors")
    np.testing.assert_array_equal(tensors["name_vectors"], bank.name_vectors)


def test_clips_without_names_and_encoders_without_text(tmp_path: Path) -> None:
    source = write_manifest(tmp_path / "source", [None, None])
    bank = build(source, tmp_path / "bank")
    assert bank.name_vectors is not None and bank.name_vectors.shape == (0, 8)
    assert bank.names == [] and bank.name_rows.tolist() == [[-1, -1]] * 2 and verify_bank(bank.folder).sound
    assert set(safetensors.numpy.load_file(bank.folder / "vectors.safetensors")) >= {"name_vectors"}
    without = build(source, tmp_path / "without", FakeEncoder(text_dim=0))
    assert without.name_vectors is None and "text_dim" not in without.manifest and verify_bank(without.folder).sound


def test_a_bank_without_name_vectors_fits_a_model_with_a_text_encoder_and_gets_them_by_resume(tmp_path: Path) -> None:
    source = write_manifest(tmp_path / "source", CAPTIONS)
    old = build(source, tmp_path / "bank", FakeEncoder(text_dim=0))
    check_identity(old, FakeEncoder().identity())
    encoder = FakeEncoder()
    assert_names(build(source, tmp_path / "bank", encoder, resume=True), CAPTIONS)
    assert encoder.encoded == 0 and len(encoder.embedded) == 4
    with pytest.raises(ArtefactError, match="text_encoder"):
        check_identity(AudioBank.open(tmp_path / "bank"), FakeEncoder(text_dim=0).identity())


def test_resume_embeds_only_names_that_are_new(tmp_path: Path) -> None:
    build(write_manifest(tmp_path / "source", CAPTIONS), tmp_path / "bank")
    captions = ["a horn", *CAPTIONS[1:]]
    encoder = FakeEncoder()
    bank = build(write_manifest(tmp_path / "source", captions), tmp_path / "bank", encoder, resume=True)
    assert_names(bank, captions)
    assert encoder.encoded == 0 and encoder.embedded == ["horn"]
    fresh = build(tmp_path / "source" / "clips.jsonl", tmp_path / "fresh")
    for name in ("clips.arrow", "vectors.safetensors"):
        assert sha256_of(bank.folder / name) == sha256_of(fresh.folder / name)


def test_a_build_that_is_interrupted_while_it_embeds_names_resumes(tmp_path: Path) -> None:
    class Interrupted(FakeEncoder):
        def embed_names(self, _: Sequence[str]) -> np.ndarray:
            raise KeyboardInterrupt

    source = write_manifest(tmp_path / "source", CAPTIONS)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "bank", Interrupted())
    encoder = FakeEncoder()
    assert_names(build(source, tmp_path / "bank", encoder, resume=True), CAPTIONS)
    assert encoder.encoded == 0


@pytest.mark.parametrize("fault", ["shape", "numbers"])
def test_name_vectors_that_are_wrong_are_not_stored(tmp_path: Path, fault: str) -> None:
    class Wrong(FakeEncoder):
        def embed_names(self, names: Sequence[str]) -> np.ndarray:
            vectors = super().embed_names(names)
            return (
                vectors[:, :3] if fault == "shape" else np.where(np.arange(len(names))[:, None] == 1, np.nan, vectors)
            )

    with pytest.raises(ValueError, match="shape" if fault == "shape" else "cat"):
        build(write_manifest(tmp_path / "source", CAPTIONS), tmp_path / "bank", Wrong())
    assert not (tmp_path / "bank").exists()


def test_merging_keeps_one_vector_per_name(tmp_path: Path) -> None:
    others = ["a bell", "a horn", None, "a dog"]
    build(write_manifest(tmp_path / "one", CAPTIONS), tmp_path / "bank-one")
    build(write_manifest(tmp_path / "two", others, first_hz=1_000), tmp_path / "bank-two")
    merged = merge_banks([tmp_path / "bank-one", tmp_path / "bank-two"], tmp_path / "both")
    assert_names(merged, [*CAPTIONS, *others])
    build(tmp_path / "two" / "clips.jsonl", tmp_path / "without", FakeEncoder(text_dim=0))
    with pytest.raises(InputError, match="without has no name vectors"):
        merge_banks([tmp_path / "bank-one", tmp_path / "without"], tmp_path / "neither")


def test_a_table_whose_names_do_not_fit_the_vectors_is_found(tmp_path: Path) -> None:
    bank = build(write_manifest(tmp_path / "one", CAPTIONS), tmp_path / "bank")
    other = build(write_manifest(tmp_path / "two", ["x"] * len(CAPTIONS), first_hz=1_000), tmp_path / "other")
    (bank.folder / "clips.arrow").write_bytes((other.folder / "clips.arrow").read_bytes())
    manifest = {
        **bank.manifest,
        "files": {**bank.manifest["files"], "clips.arrow": other.manifest["files"]["clips.arrow"]},
    }
    (bank.folder / "bank.json").write_text(json.dumps({**manifest, "checksum": manifest_checksum(manifest)}))
    mixed = AudioBank.open(bank.folder)
    with pytest.raises(ArtefactError, match="4 name_vectors"):
        _ = mixed.names
    assert any("name_vectors" in problem for problem in verify_bank(bank.folder).problems)
    (bank.folder / "bank.json").write_text(json.dumps({**manifest, "names": 5}))
    with pytest.raises(ArtefactError, match="name_vectors"):
        AudioBank.open(bank.folder)
