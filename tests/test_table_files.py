"""Tables and lists: each row comes back as it was written, or is refused by its number."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobert.errors import InputError
from audiobert.table_files import read_lines, read_rows, read_values, table_shape, text_fault

EXAMPLES = settings(max_examples=200)
CELLS = st.text(st.characters(), max_size=12)  # lone surrogates and NUL included
ROWS = st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6)
COLUMNS = ("path", "caption", "license")


def table(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def taken_and_refused(path: Path) -> tuple[list[list[Any]], dict[int, str]]:
    rows = list(read_rows(path))
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    refused = {row.number: f"{row.place}: {row.fault}" for row in rows if row.fault}
    return [list(row.values.values()) for row in rows if not row.fault], refused


A, B, C = ["a.wav", "a dog", "CC0"], ["b.wav", "a cat", "CC0"], ["c.wav", "a cow", "CC0"]


@pytest.mark.parametrize(
    ("lines", "taken", "refused"),
    [
        (["a.wav,a dog,CC0", "b.wav,a cat,CC0"], [A, B], {}),
        (['a.wav,"a dog,CC0', "b.wav,a cat,CC0", "c.wav,a cow,CC0"], [B, C], {1: "line 2.*not CSV"}),
        (['a.wav,"a dog,CC0', "b.wav,a cat,CC0", 'c.wav,"a cow",CC0'], [B, C], {1: "line 2.*not CSV"}),
        (['a.wav,"a dog,CC0', 'b.wav,"a cat,CC0', "c.wav,a cow,CC0"], [C], {1: "line 2", 2: "line 3"}),
        (['a.wav,"a dog,CC0', 'b.wav,"a cat",CC0', 'c.wav,"a cow,CC0'], [B], {1: "line 2", 3: "line 4"}),
        (['a.wav,"a "big" dog",CC0', "b.wav,a cat,CC0"], [B], {1: "line 2.*quote"}),
        (["a.wav,a dog, all rights reserved,CC0", "b.wav,a cat,CC0"], [B], {1: "line 2.*4 cells.*3.*comma"}),
        (["a.wav,a dog", "b.wav,a cat,CC0"], [B], {1: "line 2.*2 cells"}),
        (["", "a.wav,a dog,CC0", "", "b.wav,a cat", ""], [A], {2: "line 5"}),
        (['a.wav,"a\ndog",CC0', "b.wav"], [["a.wav", "a\ndog", "CC0"]], {2: "line 4"}),
        (["a.wav,a\0dog,CC0", "b.wav,a cat,CC0"], [B], {1: "'caption' has a NUL"}),
        ([f"a.wav,{'x' * 131_073},CC0", "b.wav,a cat,CC0"], [B], {1: "line 2.*131072"}),
        (["a.wav,a\rdog,CC0", "b.wav,a cat,CC0"], [B], {1: "line 2.*new-line"}),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_each_row_is_taken_or_refused_by_its_number(
    tmp_path: Path, kind: str, lines: list[str], taken: list[list[str]], refused: dict[int, str]
) -> None:
    text = "\n".join([",".join(COLUMNS), *lines])
    if kind == "tsv":
        text = text.replace(",", "\t")
        refused = {number: reason.replace("comma", "tab") for number, reason in refused.items()}
    found, faults = taken_and_refused(table(tmp_path, f"clips.{kind}", text))
    assert found == taken
    assert faults.keys() == refused.keys()
    for number, reason in refused.items():
        assert re.search(reason, faults[number])


def test_bytes_that_are_not_utf8_refuse_their_row_alone(tmp_path: Path) -> None:
    csv_file = table(tmp_path, "clips.csv", b"path,caption\na.wav,caf\xe9\nb.wav,caf\xc3\xa9\n")
    json_file = table(tmp_path, "clips.jsonl", b'{"path": "caf\xe9"}\n{"path": "\\ud83d"}\n{"path": "caf\\u00e9"}\n')
    assert taken_and_refused(csv_file) == (
        [["b.wav", "café"]],
        {1: "line 2: the column 'caption' has a byte that is not UTF-8 (0xE9); save the table as UTF-8"},
    )
    found, faults = taken_and_refused(json_file)
    assert found == [["café"]] and "0xE9" in faults[1] and "surrogate (U+D83D)" in faults[2]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_line_ends_and_blanks_around_names(tmp_path: Path, line_end: str) -> None:
    lines = ["", "path , caption,license", 'a.wav, "a dog, barking", CC0', "b.wav,a cat,CC0"]
    path = table(tmp_path, "clips.csv", "\ufeff" + line_end.join(lines))
    assert list(read_values(path)) == [
        {"path": "a.wav", "caption": "a dog, barking", "license": "CC0"},
        {"path": "b.wav", "caption": "a cat", "license": "CC0"},
    ]


def test_blanks_in_cells_are_kept_where_names_have_none(tmp_path: Path) -> None:
    path = table(tmp_path, "clips.csv", "path,caption\n a.wav, a dog \n")
    assert list(read_values(path)) == [{"path": " a.wav", "caption": " a dog "}]


def test_columns_without_a_name_are_called_by_their_place(tmp_path: Path) -> None:
    path = table(tmp_path, "clips.csv", ",path,\n0,a.wav,\n")  # as pandas writes an index, and a spreadsheet its end
    assert list(read_values(path)) == [{"column 1": "0", "path": "a.wav", "column 3": ""}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clips.csv", "path,caption,caption\na.wav,x,y\n", "two columns named 'caption'"),
        ("clips.csv", "path, caption,caption \na.wav,x,y\n", "two columns named 'caption'"),
        ("clips.csv", 'path,"caption\na.wav,x\n', "header .* is not CSV"),
        ("clips.csv", b"path,caf\xe9\na.wav,x\n", "header .* not UTF-8"),
        ("clips.csv", "path,caption\na.wav,x\n".encode("utf-16"), "header .* (not UTF-8|NUL)"),
        ("clips.parquet", "not Parquet", "cannot be read as Parquet"),
        ("clips.xlsx", "", "no table"),
    ],
)
def test_a_table_whose_columns_are_not_known_is_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(read_rows(table(tmp_path, name, content)))
    with pytest.raises(InputError, match="No such file"):
        list(read_rows(tmp_path / "gone.csv"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json}", "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ("null", "no JSON object"),
        ('{"path": "a.wav", "path": "b.wav"}', "twice"),
        ('{"path": "a.wav", " path": "b.wav"}', "twice"),
        ('{"path": "a.wav", "more": {"x": ["\\u0000"]}}', "'more' has a NUL"),
        ('{"path": "a.wav", "\\ud800": 1}', "lone surrogate"),
        ('{"path": "a.wav", "more": [{"\\ud800": 1}]}', "lone surrogate"),
        ("[" * 100_000, "recursion"),
        ('{"path": "a.wav", "more": ' + "[" * 600 + "]" * 600 + "}", "'more' is nested too deeply"),
        ('{"path": ' + "1" * 5_000 + "}", "digits"),
        ('{"path": "a.wav"} {"path": "b.wav"}', "Extra data"),
    ],
)
def test_lines_of_jsonl_that_cannot_be_taken(tmp_path: Path, line: str, reason: str) -> None:
    path = table(tmp_path, "clips.jsonl", f'{{"path": "a.wav"}}\n\n{line}\n{{"path": "c.wav"}}')
    found, faults = taken_and_refused(path)
    assert found == [["a.wav"], ["c.wav"]]
    assert list(faults) == [2] and faults[2].startswith("line 3: ") and reason in faults[2]
    assert table_shape(path).rows == 3 and table_shape(path).columns == ("path",)


def test_rows_of_parquet_that_cannot_be_taken(tmp_path: Path) -> None:
    damaged = pa.array([b"fine", b"caf\xe9", b"NUL \0", b"fine"]).cast(pa.binary())
    text = pa.Array.from_buffers(pa.string(), 4, damaged.buffers())
    path = tmp_path / "clips.parquet"
    pyarrow.parquet.write_table(pa.table({" path": ["a", "b", "c", "d"], "caption": text}), path)
    found, faults = taken_and_refused(path)
    assert found == [["a", "fine"], ["d", "fine"]]
    assert list(faults) == [2, 3] and "row 2: it has a cell" in faults[2] and "NUL" in faults[3]
    assert table_shape(path).columns == ("path", "caption") and table_shape(path).rows == 4
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["path", "path "])
    pyarrow.parquet.write_table(twice, path)
    with pytest.raises(InputError, match="two columns named 'path'"):
        list(read_rows(path))


def test_parquet_with_a_damaged_page_gives_its_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "clips.parquet"
    names = [f"{number}.wav" for number in range(3_000)]
    pyarrow.parquet.write_table(pa.table({"path": names}), path, row_group_size=1_000, compression="snappy")
    start = pyarrow.parquet.read_metadata(path).row_group(2).column(0).dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 200] = b"\xff" * 200
    path.write_bytes(content)
    found, faults = taken_and_refused(path)
    assert found == [[name] for name in names[: len(found)]] and len(found) >= 1_000
    assert list(faults) == [len(found) + 1] and f"{3_000 - len(found)} rows" in faults[len(found) + 1]


def test_one_bad_row_ends_the_reading_where_all_are_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ids.csv, line 3: it has 2 cells"):
        list(read_values(table(tmp_path, "ids.csv", "id\na\nb,c\n")))


def test_lines_of_a_list(tmp_path: Path) -> None:
    assert read_lines(table(tmp_path, "ids.txt", "\ufeffone\r\n\n two \u2028x\nthree")) == [
        "one",
        "two \u2028x",
        "three",
    ]
    with pytest.raises(InputError, match=r"ids.txt, line 2, has a byte that is not UTF-8 \(0xE9\)"):
        read_lines(table(tmp_path, "ids.txt", b"one\ncaf\xe9\n"))
    with pytest.raises(InputError, match="NUL"):
        read_lines(table(tmp_path, "ids.txt", "one\0"))


# -------------------------------------------------------------------------------------------------------- properties


def written_as_csv(rows: list[tuple[str, ...]], *, tabs: bool, quote_all: bool, mark: bool) -> bytes:
    text = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter="\t" if tabs else ",", quoting=quoting, lineterminator="\r\n")
    writer.writerows([COLUMNS, *rows])
    return b"\xef\xbb\xbf" * mark + text.getvalue().encode("utf-8", "surrogatepass")


def check_rows(name: str, content: bytes, rows: list[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found, faults = taken_and_refused(table(Path(folder), name, content))
    bad = {number for number, row in enumerate(rows, start=1) if any(map(text_fault, row))}
    assert faults.keys() == bad
    assert found == [list(row) for number, row in enumerate(rows, start=1) if number not in bad]


@EXAMPLES
@given(ROWS, st.booleans(), st.booleans(), st.booleans())
def test_any_text_comes_back_from_csv_or_is_refused(
    rows: list[tuple[str, ...]], tabs: bool, quote_all: bool, mark: bool
) -> None:
    content = written_as_csv(rows, tabs=tabs, quote_all=quote_all, mark=mark)
    check_rows("clips.tsv" if tabs else "clips.csv", content, rows)


@EXAMPLES
@given(ROWS, st.booleans(), st.booleans())
def test_any_text_comes_back_from_jsonl_or_is_refused(rows: list[tuple[str, ...]], escaped: bool, mark: bool) -> None:
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=escaped) for row in rows]
    content = b"\xef\xbb\xbf" * mark + "\n".join(lines).encode("utf-8", "surrogatepass")
    joined = [tuple(json.loads(json.dumps(cell)) for cell in row) for row in rows] if escaped else rows
    check_rows("clips.jsonl", content, joined)


@EXAMPLES
@given(st.lists(st.tuples(*[st.text(max_size=12)] * 3), min_size=1, max_size=6))
def test_any_text_comes_back_from_parquet_or_is_refused(rows: list[tuple[str, ...]]) -> None:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))), file)
    check_rows("clips.parquet", file.getvalue(), rows)


WORDS = st.text("abcdefgh ", min_size=1, max_size=8)
BAD_LINES = ('x.wav,"no end,CC0', 'x.wav,"a" b,CC0', "x.wav,a,b,CC0", "x.wav", "x.wav,a\0,CC0", 'x.wav,a,"CC0', '"x')


@EXAMPLES
@given(st.lists(st.one_of(st.tuples(WORDS, WORDS, WORDS), st.sampled_from(BAD_LINES)), max_size=8), st.booleans())
def test_rows_beside_bad_lines_are_all_taken(rows: list[Any], quoted: bool) -> None:
    mark = '"' if quoted else ""
    lines = [row if isinstance(row, str) else ",".join(f"{mark}{cell}{mark}" for cell in row) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        found, faults = taken_and_refused(table(Path(folder), "clips.csv", "\n".join([",".join(COLUMNS), *lines])))
    assert found == [list(row) for row in rows if not isinstance(row, str)]
    assert list(faults) == [number for number, row in enumerate(rows, start=1) if isinstance(row, str)]


@EXAMPLES
@given(st.sampled_from(["clips.csv", "clips.tsv", "clips.jsonl"]), st.binary(max_size=200))
def test_whatever_follows_the_header_nothing_but_rows_comes_of_it(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        taken_and_refused(table(Path(folder), name, b"path\n" + content))
