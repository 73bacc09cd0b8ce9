import contextlib
import errno
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audiobert.artefacts import (
    finish_write,
    locked,
    provenance,
    read_json,
    sha256_of,
    whole_file,
    whole_folder,
    write_json,
)
from audiobert.errors import ArtefactError, InputError


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


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "a" / "bank"
    with pytest.raises(RuntimeError), whole_folder(target) as part:
        (part / "new").touch()
        raise RuntimeError("killed")
    assert not target.exists() and list(target.parent.iterdir()) == []
    with whole_folder(target) as part:
        (part / "sub").mkdir()
        (part / "sub" / "new").write_text("new")
        assert not target.exists()
    assert contents(tmp_path) == {"a/bank/sub/new": "new"}


def test_own_files_are_replaced_or_removed_and_all_others_stay(tmp_path):
    target = old_folder(tmp_path)
    with pytest.raises(RuntimeError), whole_folder(target, ours=written_before) as part:
        (part / "one").write_text("new")
        raise RuntimeError("killed")
    assert contents(target) == OLD
    with whole_folder(target, ours=written_before) as part:
        (part / "one").write_text("new")
        (part / "sub").mkdir()
        (part / "sub" / "three").write_text("new")
    assert contents(target) == {"one": "new", "sub/three": "new", "notes.txt": "a user's", "sub/mine.txt": "a user's"}


OLD = {"one": "old", "two": "old", "notes.txt": "a user's", "sub/mine.txt": "a user's"}


def written_before(_: Path) -> set[str]:
    return {"one", "two"}


def old_folder(tmp_path: Path) -> Path:
    target = tmp_path / "bank"
    (target / "sub").mkdir(parents=True)
    for name, text in OLD.items():
        (target / name).write_text(text)
    return target


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["notes.txt", "sub/mine.txt", "one/below", "notes.txt/below", "sub"])
def test_what_would_overwrite_a_users_file_is_refused_and_nothing_changes(tmp_path, name):
    target = old_folder(tmp_path)
    with pytest.raises(InputError, match=name.split("/")[0]), whole_folder(target, ours=written_before) as part:
        (part / "two").write_text("new")
        (part / name).parent.mkdir(exist_ok=True)
        (part / name).write_text("new")
    assert contents(target) == OLD and contents(tmp_path).keys() == {f"bank/{one}" for one in OLD}


def test_a_link_under_an_own_name_is_refused_and_its_file_stays(tmp_path):
    target = old_folder(tmp_path)
    (target / "two").rename(tmp_path / "elsewhere")
    (target / "two").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="two"), whole_folder(target, ours=written_before) as part:
        (part / "two").write_text("new")
    assert (target / "two").is_symlink() and (tmp_path / "elsewhere").read_text() == "old"


@pytest.mark.parametrize("moves", range(4))
def test_a_writer_killed_while_it_renames_leaves_what_a_reader_finishes(tmp_path, monkeypatch, moves):
    target = old_folder(tmp_path)
    replace, left = Path.replace, iter(range(moves))

    def killed(self: Path, other: Path) -> Path:
        if ".audiobert.new" in self.parts and next(left, None) is None:
            raise KeyboardInterrupt
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", killed)
    with contextlib.suppress(KeyboardInterrupt), whole_folder(target, ours=written_before) as part:
        for name in ("one", "four", "five"):
            (part / name).write_text("new")
    monkeypatch.undo()
    finish_write(target)
    kept = {"notes.txt": "a user's", "sub/mine.txt": "a user's"}
    assert contents(target) == {"one": "new", "four": "new", "five": "new", **kept}


def test_a_folder_behind_a_link_is_written_to_and_the_link_stays(tmp_path):
    target = old_folder(tmp_path)
    (tmp_path / "link").symlink_to(target)
    with whole_folder(tmp_path / "link", ours=written_before) as part:
        (part / "one").write_text("new")
    assert (tmp_path / "link").is_symlink() and (target / "one").read_text() == "new"


def test_a_folder_in_the_folder_on_another_file_system_is_written_to(tmp_path, monkeypatch):
    target, replace = old_folder(tmp_path), Path.replace

    def across(self: Path, other: Path) -> Path:
        if ".audiobert.new" in self.parts and other.parent.name == "sub":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", across)
    with whole_folder(target, ours=written_before) as part:
        (part / "sub").mkdir()
        (part / "sub" / "one").write_text("new")
    assert contents(target) == {"notes.txt": "a user's", "sub/mine.txt": "a user's", "sub/one": "new"}


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "bank" / "audio").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "bank" / "audio")
    for path, sources, message in (
        ("file", [], "is a file"),
        ("dangling", [], "link to"),
        ("file/below", [], "cannot be written to"),
        ("bank", [tmp_path / "bank"], "lies in"),
        ("bank", [tmp_path / "bank" / "audio"], "lies in"),
        ("bank", [tmp_path / "link"], "lies in"),
    ):
        with pytest.raises(InputError, match=message), whole_folder(tmp_path / path, sources=sources):
            pytest.fail("the work began")
    assert not (tmp_path / "nothing").exists()


def test_a_second_writer_is_refused(tmp_path):
    def write() -> None:
        with whole_folder(tmp_path / "bank"):
            pass

    with ThreadPoolExecutor(1) as pool, locked(tmp_path / "bank"):
        write()  # the one that holds the lock may write
        with pytest.raises(InputError, match="another process"):
            pool.submit(write).result()
    write()
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]


def test_names_as_long_as_a_file_system_takes(tmp_path):
    name = "n" * 250
    with whole_file(tmp_path / f"{name}.csv") as part:
        part.write_text("x")
    with whole_folder(tmp_path / name) as folder:
        (folder / name).touch()
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.csv", name}


def test_a_file_behind_a_link_is_written_and_the_link_stays(tmp_path):
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_file(tmp_path / "link") as part:
        part.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


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
