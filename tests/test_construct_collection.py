"""Manifests of a collection: no row, column or text of one is lost in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiobert.construct.collection import CollectionSettings, read_collection
from audiobert.errors import InputError


def collection(folder: Path, name: str, content: str | bytes, **options: object) -> list[tuple[str, ...]]:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    clips, _ = read_collection(CollectionSettings(path=folder / name, **options))  # type: ignore[arg-type]
    return [(clip.path, *clip.captions, clip.license) for clip in clips]


def test_a_column_that_the_first_row_lacks(tmp_path: Path) -> None:
    rows = [{"path": "a.wav"}, {"path": "b.wav", "caption": "a cat", "license": "CC0"}]
    found = collection(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)), where={"license": ["CC0"]})
    assert found == [("b.wav", "a cat", "CC0")]


@pytest.mark.parametrize(
    ("row", "captions"),
    [
        ('"[""one"", ""two""]"', ("one", "two")),
        ("\"['one', 'two']\"", ("one", "two")),
        ("['one' 'two']", ("one", "two")),
        ("[laughter] of one", ("[laughter] of one",)),
        ("", ()),
    ],
)
def test_lists_in_a_cell(tmp_path: Path, row: str, captions: tuple[str, ...]) -> None:
    assert collection(tmp_path, "a.csv", f"path,caption,license\na.wav,{row},CC0\n") == [("a.wav", *captions, "CC0")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('path,caption\na.wav,"a dog\nb.wav,a cat\n', "line 2: it is not CSV"),
        ("caption,license\nx,y\n", "no path column"),
        ("path,caption\n", "no clips"),
        ("path,caption\n/,x\n,x\n", "row 2, has no path"),
    ],
)
def test_a_row_that_cannot_be_taken_is_refused_by_its_number(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        collection(tmp_path, "a.csv", content)
