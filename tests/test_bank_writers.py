"""Whatever writes a bank, or what is made of one, deletes and overwrites nothing that it did not make."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from audiobert.artefacts import locked
from audiobert.bank import AudioBank, build_bank, export_bank, merge_banks, verify_bank
from audiobert.errors import ArtefactError, InputError
from bank_fakes import FakeEncoder, write_tone

Writer = Callable[[Path, Path], object]  # of a folder with material, and where to write


def build(material: Path, out: Path) -> object:
    return build_bank(material / "audio", out, FakeEncoder(), workers=0)


def resume(material: Path, out: Path) -> object:
    return build_bank(material / "audio", out, FakeEncoder(), workers=0, resume=True)


def overwrite(material: Path, out: Path) -> object:
    return build_bank(material / "audio", out, FakeEncoder(), workers=0, overwrite=True)


def merge(material: Path, out: Path) -> object:
    return merge_banks([material / "one", material / "two"], out)


def to_parquet(material: Path, out: Path) -> object:
    return export_bank(material / "one", out)


def to_datasets(material: Path, out: Path) -> object:
    pytest.importorskip("datasets")
    return export_bank(material / "one", out, to="datasets")


WRITERS = [build, resume, overwrite, merge, to_parquet, to_datasets]
FOLDER_WRITERS = [build, resume, overwrite, merge, to_datasets]
writers = pytest.mark.parametrize("write", WRITERS)


@pytest.fixture
def material(tmp_path: Path) -> Path:
    """A folder of audio and two banks."""
    for number, name in enumerate(("one", "two")):
        write_tone(tmp_path / "material" / name / "a.wav", 300 + 200 * number)
        build_bank(tmp_path / "material" / name, tmp_path / "material" / f"bank-{name}", FakeEncoder(), workers=0)
        (tmp_path / "material" / name / "a.wav").unlink()
        (tmp_path / "material" / name).rmdir()
        (tmp_path / "material" / f"bank-{name}").rename(tmp_path / "material" / name)
    write_tone(tmp_path / "material" / "audio" / "a.wav", 500)
    return tmp_path / "material"


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@writers
def test_a_folder_with_a_strangers_file_is_refused_and_stays(material: Path, tmp_path: Path, write: Writer) -> None:
    out = tmp_path / "thesis"
    (out / "data").mkdir(parents=True)
    (out / "data" / "chapter.tex").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="thesis"):
        write(material, out)
    assert contents(tmp_path) == before


@writers
def test_a_file_in_the_way_is_refused_and_stays(material: Path, tmp_path: Path, write: Writer) -> None:
    (tmp_path / "out").write_text("years of work")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="out"):
        write(material, tmp_path / "out")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("write", [build, resume, overwrite, merge])
def test_an_output_that_holds_its_source_is_refused(material: Path, tmp_path: Path, write: Writer) -> None:
    (tmp_path / "link").symlink_to(material)
    before = contents(tmp_path)
    for out in (material, tmp_path / "link", tmp_path):
        with pytest.raises(InputError, match="lies in"):
            write(material, out)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("write", FOLDER_WRITERS)
def test_behind_a_link_the_folder_is_written_and_the_link_stays(material: Path, tmp_path: Path, write: Writer) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    if write is to_datasets:  # an export is written to a new name only
        with pytest.raises(InputError, match="exists"):
            write(material, tmp_path / "link")
        return
    write(material, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and verify_bank(tmp_path / "real").sound


@pytest.mark.parametrize("write", FOLDER_WRITERS)
def test_a_link_to_nothing_is_refused_before_any_work(material: Path, tmp_path: Path, write: Writer) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="link"):
        write(material, tmp_path / "link")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("write", FOLDER_WRITERS)
def test_while_another_writes_to_the_folder_it_is_refused(material: Path, tmp_path: Path, write: Writer) -> None:
    with ThreadPoolExecutor(1) as another:
        lock = locked(tmp_path / "out")
        another.submit(lock.__enter__).result()
        with pytest.raises(InputError, match="another process"):
            write(material, tmp_path / "out")
        another.submit(lock.__exit__, None, None, None).result()
    write(material, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"material", "out"}


@pytest.mark.parametrize("write", [resume, overwrite])
def test_in_a_bank_a_strangers_files_stay(material: Path, tmp_path: Path, write: Writer) -> None:
    out = tmp_path / "bank"
    build(material, out)
    (out / "recordings").mkdir()
    (out / "recordings" / "mine.wav").write_bytes(b"sound")
    (out / "notes.txt").write_text("years of work")
    write_tone(material / "audio" / "b.wav", 700)
    write(material, out)
    assert (out / "notes.txt").read_text() == "years of work"
    assert (out / "recordings" / "mine.wav").read_bytes() == b"sound"
    assert len(AudioBank.open(out)) == 2 and verify_bank(out).sound


@pytest.mark.parametrize("write", [resume, overwrite])
@pytest.mark.parametrize("name", ["index.faiss", "clips.arrow"])
def test_in_a_bank_a_strangers_file_or_link_under_its_names_is_refused_before_any_work(
    material: Path, tmp_path: Path, write: Writer, name: str
) -> None:
    out = tmp_path / "bank"
    build(material, out)
    if name == "clips.arrow":
        (out / name).rename(tmp_path / "elsewhere")
        (out / name).symlink_to(tmp_path / "elsewhere")
    else:
        (out / name).write_text("not a bank's")
    (material / "audio" / "a.wav").unlink()  # there is nothing that work could be done on
    (material / "audio" / "notes.txt").touch()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=name):
        write(material, out)
    assert contents(tmp_path) == before


def test_a_build_that_began_before_its_folder_existed_resumes_in_it(material: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    with pytest.raises(KeyboardInterrupt):
        build_bank(material / "audio", out, FakeEncoder(batches=0), workers=0)
    out.mkdir()
    with pytest.raises(InputError, match="--resume"):
        build(material, out)
    resume(material, out)
    assert verify_bank(out).sound and {path.name for path in tmp_path.iterdir()} == {"material", "bank"}


def test_in_a_volume_whose_parent_is_read_only_all_work_is_done_in_it(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made, access = tmp_path / "mount" / "bank", set(), os.access
    out.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out.parent and access(path, mode))
    encode = FakeEncoder.encode

    def look(self: FakeEncoder, *arguments: Any) -> Any:
        made.update(path.name for path in out.parent.iterdir())
        return encode(self, *arguments)

    monkeypatch.setattr(FakeEncoder, "encode", look)
    with pytest.raises(KeyboardInterrupt):
        build_bank(material / "audio", out, FakeEncoder(batches=0), workers=0)
    resume(material, out)
    assert made == {"bank"} and verify_bank(out).sound
    assert {path.name for path in out.iterdir()} == {
        "bank.json",
        "clips.arrow",
        "rejected.jsonl",
        "vectors.safetensors",
    }


def test_an_index_that_the_new_bank_has_not_goes_with_the_old_one(material: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    build_bank(material / "audio", tmp_path / "bank", FakeEncoder(), workers=0, index=True)
    assert (tmp_path / "bank" / "index.faiss").exists()
    overwrite(material, tmp_path / "bank")
    assert not (tmp_path / "bank" / "index.faiss").exists() and verify_bank(tmp_path / "bank").sound


def test_a_manifest_cannot_have_files_outside_the_bank_removed(material: Path, tmp_path: Path) -> None:
    out = tmp_path / "bank"
    build(material, out)
    (tmp_path / "precious").write_text("years of work")
    text = (out / "bank.json").read_text()
    (out / "bank.json").write_text(text.replace('"files": {', '"files": {"../precious": {}, '))
    overwrite(material, out)
    assert (tmp_path / "precious").read_text() == "years of work"


def test_a_foreign_folder_cannot_have_files_outside_it_changed_on_opening(material: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("years of work")
    for name in ("../precious", str(tmp_path / "precious"), "way/out/precious"):
        (material / "one" / ".audiobert.new").mkdir(exist_ok=True)
        (material / "one" / "way").mkdir(exist_ok=True)
        if not (material / "one" / "way" / "out").exists():
            (material / "one" / "way" / "out").symlink_to(tmp_path)
        (material / "one" / ".audiobert.new" / ".obsolete.json").write_text(f'["{name}"]')
        with pytest.raises(ArtefactError, match="outside"):
            AudioBank.open(material / "one")
        assert (tmp_path / "precious").read_text() == "years of work"
