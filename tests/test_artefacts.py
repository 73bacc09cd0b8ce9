import json

import pytest

from audiobert.artefacts import provenance, read_json, sha256_of, whole_file, whole_folder, write_json
from audiobert.errors import ArtefactError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), whole_file(target) as part:
        part.write_bytes(b"half of the n")
        raise RuntimeError("killed")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
    with whole_file(target) as part:
        part.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_a_folder_replaces_the_old_one_only_when_it_is_complete(tmp_path):
    target = tmp_path / "bank"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError), whole_folder(target) as part:
        (part / "new").touch()
        raise RuntimeError("killed")
    assert [p.name for p in target.iterdir()] == ["old"]
    with whole_folder(target) as part:
        (part / "new").touch()
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["bank"]


def test_json_round_trip_and_damage(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"name": "grün", "n": 1})
    assert read_json(path) == {"name": "grün", "n": 1}
    path.write_text('{"name": ')
    with pytest.raises(ArtefactError, match=r"record\.json is not readable JSON"):
        read_json(path)
    with pytest.raises(ArtefactError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_checksum_is_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_provenance_names_versions_and_what_it_was_made_from():
    record = provenance(part="clap", seed=3)
    assert record["seed"] == 3
    assert {"python", "torch", "transformers"} <= record["versions"].keys()
    json.dumps(record)
