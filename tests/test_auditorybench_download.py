"""Download and verify, against a server that the test scripts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from audiobert.auditorybench.download import data_folder, download, verify
from audiobert.auditorybench.published import COMMIT, COMMIT_OF_ANIMAL_TRAIN, FILES, published_file
from audiobert.errors import InputError, RemoteError

TEXT = b"animal,description,sentence\ncat,meow,Meow is the sound a [MASK] makes.\n"
FILE = replace(FILES[1], sha256=hashlib.sha256(TEXT).hexdigest())


def server(body: bytes, status: int = 200, asked: list[str] | None = None) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        if asked is not None:
            asked.append(str(request.url))
        return httpx.Response(status, content=body)

    return httpx.MockTransport(handle)


def test_files_come_from_pinned_commits_once(tmp_path: Path) -> None:
    asked: list[str] = []
    transport = server(TEXT, asked=asked)
    (first,) = download(tmp_path, mirror="http://mirror.test/raw/", transport=transport, files=[FILE])
    assert asked == [f"http://mirror.test/raw/HJ-Ok/AudioBERT/{COMMIT}/dataset/animal_sound_recognition_dev.csv"]
    (second,) = download(tmp_path, mirror="http://mirror.test/raw/", transport=transport, files=[FILE])
    assert (first["fetched"], second["fetched"], len(asked)) == (True, False, 1)


def test_a_wrong_or_broken_download_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="is not the published animal_sound_recognition_dev"):
        download(tmp_path, transport=server(TEXT[:-9]), files=[FILE])
    with pytest.raises(RemoteError, match="answered 404"):
        download(tmp_path, transport=server(b"", 404), files=[FILE])

    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with pytest.raises(RemoteError, match="give --proxy or --mirror"):
        download(tmp_path, transport=httpx.MockTransport(down), files=[FILE])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="no http"):
        download(tmp_path, mirror="ftp://x", files=[FILE])


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_bytes(TEXT[:20])
    (entry,) = download(tmp_path, transport=server(TEXT), files=[FILE])
    assert entry["fetched"]
    assert (tmp_path / FILE.name).read_bytes() == TEXT


def test_the_animal_train_file_comes_from_the_commit_where_it_is_right() -> None:
    train = published_file("animal", "train")
    assert train is not None
    assert (train.commit, train.path) == (COMMIT_OF_ANIMAL_TRAIN, "dataset/animal_sound_recognition/train.csv")
    assert train.rows_sha256 is not None
    assert all(file.commit == COMMIT for file in FILES if file is not train)


def test_the_folder_comes_from_the_flag_then_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITORYBENCH_DIR", str(tmp_path / "a"))
    assert data_folder(tmp_path / "b") == tmp_path / "b"
    assert data_folder() == tmp_path / "a"
    monkeypatch.delenv("AUDITORYBENCH_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "audiobert" / "auditorybench"


def test_verify_names_what_is_changed_wrong_and_missing(tmp_path: Path) -> None:
    (tmp_path / "animal_sound_recognition_dev.csv").write_bytes(TEXT)
    (tmp_path / "animal_sound_recognition_wiki.csv").write_text("animal,sentence\n")
    report = {(entry["task"], entry["split"]): entry for entry in verify(tmp_path)}
    assert report["animal", "dev"]["status"] == "changed"
    assert any("1 rows, Table I says 593" in fault for fault in report["animal", "dev"]["faults"])
    assert report["animal", "wiki"]["status"] == "wrong"
    assert report["pitch", "test"]["status"] == "missing"
    with pytest.raises(InputError, match="no folder"):
        verify(tmp_path / "nowhere")


def test_the_shared_files_are_the_published_ones(shared: Path) -> None:
    for entry in verify(shared / "auditorybench"):
        if entry["split"] != "test":
            assert (entry["status"], entry["faults"]) == ("published", [])
