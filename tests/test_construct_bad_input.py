"""What the construction does with odd names, texts, answers, sheets and settings: one line, or one rejected record."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiobert.cli import run as command_line
from audiobert.construct.asking import parse_answer
from audiobert.construct.collection import CollectionSettings, clip_bytes, read_collection
from audiobert.construct.labels import LabelFilter
from audiobert.construct.prompts import AnimalAnswer, printable
from audiobert.construct.records import AnimalRow, PitchRow, SourceClip, read_records, write_records
from audiobert.construct.review import import_review
from audiobert.construct.run import read_settings
from audiobert.construct.sheets import read_sheet, write_sheet
from audiobert.construct.wiki_pages import parse_animal_sounds, parse_ranges
from audiobert.errors import InputError
from construct_toys import write_config
from scripted_server import ScriptedServer
from test_construct_wiki import ANIMALS_WIKITEXT, RANGES_TIMELINE

ODD = [
    "lone \ud800 half",
    "nul \x00 nul",
    "line\u2028break",
    "esc \x1b[31m",
    "bidi \u202e rtl",
    "\ufeffbom",
    "e\u0301",
    "𝔻og",
]


def test_odd_names_and_texts_cost_only_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd_ones = [odd for odd in ODD if not odd.startswith(("lone", "nul"))]  # tables that hold them are refused
    rows = [{"path": f"{number}.wav", "title": f"dog {odd}", "caption": odd} for number, odd in enumerate(odd_ones)]
    rows += [{"path": f"a {odd}.wav", "title": f"a cat, number {number}"} for number, odd in enumerate(odd_ones)]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
    with ScriptedServer() as server:
        config = write_config(tmp_path, tmp_path, server.url, input={"path": str(tmp_path / "clips.jsonl")})
        value = yaml.safe_load(config.read_text())
        del value["wiki"]
        config.write_text(yaml.safe_dump(value))
        assert command_line(["construct", "run", str(config)]) == 0, capsys.readouterr().err
    clips = read_records(tmp_path / "out" / "clips.jsonl", SourceClip)
    assert len(clips) == len(rows)
    assert "a line\u2028break.wav" in {clip.path for clip in clips}


def test_a_file_name_that_is_not_utf8_is_rejected_alone(tmp_path: Path) -> None:
    for name in (b"good", b"bad\xff"):
        (tmp_path / os.fsdecode(name + b".wav")).touch()
        (tmp_path / os.fsdecode(name + b".json")).write_text('{"text": ["a dog"]}')
    clips, rejected = read_collection(CollectionSettings(kind="laion", path=tmp_path))
    assert [clip.id for clip in clips] == ["good"]
    assert [(one.item, one.reason) for one in rejected] == [("bad\\udcff.wav", "name-not-utf-8")]


def test_recordings_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "shard.tar").write_bytes(b"no tar")
    for path in (
        "gone.wav",
        "pipe.wav",
        "folder.wav",
        "nul\x00.wav",
        "n" * 300 + ".wav",
        "shard.tar::a.wav",
        "/dev/zero",
    ):
        with pytest.raises(InputError, match=r"(?s)cannot be read .*see input\.root"):
            clip_bytes(tmp_path, SourceClip(id="x", path=path))


ANSWERS = [
    "",
    "null",
    "{",
    "}" * 1000,
    '{"a":' * 30_000,
    '{"sentence": ' + "[" * 30_000,
    '{"usable": true, "sentence": NaN, "animal": "dog", "span": "x"}',
    '{"usable": true, "sentence": "s", "animal": 3, "span": "x"}',
    '{"usable": true, "sentence": "' + "s" * 301 + '", "animal": "dog", "span": "x"}',
    '{"usable": 1' + "0" * 5_000 + ', "sentence": "s", "animal": "d", "span": "x"}',
    '{"usable": true, "usable": null}',
    "\x00" * 50,
    "```json\n```",
    "<think>{" * 500,
]


@pytest.mark.parametrize("text", ANSWERS, ids=range(len(ANSWERS)))
def test_answers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_answer(text, AnimalAnswer)


@pytest.mark.parametrize("odd", ODD)
def test_odd_characters_of_an_answer_reach_no_row(tmp_path: Path, odd: str) -> None:
    fields = {"usable": True, "sentence": f"A [MASK]  barks {odd}.", "animal": "dog", "span": f"barks {odd}"}
    answer = parse_answer(json.dumps(fields), AnimalAnswer)
    assert answer.sentence == printable(fields["sentence"]) and answer.span in answer.sentence
    row = AnimalRow(id="1", sentence=answer.sentence, answer=answer.animal, span=answer.span)
    for name in ("a.jsonl", "a.parquet"):
        write_records(tmp_path / name, [row], AnimalRow)
        assert read_records(tmp_path / name, AnimalRow) == [row]
    write_sheet(tmp_path / "a.csv", ("sentence",), [{"sentence": row.sentence}])
    assert [one for _, one in read_sheet(tmp_path / "a.csv", ("sentence",), "x")] == [{"sentence": row.sentence}]


def test_a_run_with_a_model_that_writes_odd_characters(tmp_path: Path) -> None:
    from audiobert.auditorybench.audit import audit

    def answer(kind: str, fields: dict[str, Any]) -> str:
        odd = ODD[int(fields["title"].split()[-1]) % len(ODD)]
        if kind == "CategoryAnswer":
            return json.dumps({"category": f"animal/dog{odd[-1] if odd.startswith('lone') else ''}"})
        return json.dumps({"usable": True, "sentence": f"{odd} says a [MASK].", "animal": "dog", "span": odd})

    (tmp_path / "clips.csv").write_text("path,title\n" + "".join(f"{n}.wav,sound {n}\n" for n in range(40)))
    with ScriptedServer(answer=answer) as server:
        config = write_config(tmp_path, tmp_path, server.url)
        value = yaml.safe_load(config.read_text())
        del value["wiki"]
        config.write_text(yaml.safe_dump(value))
        assert command_line(["construct", "run", str(config)]) == 0
    rows = read_records(tmp_path / "out" / "animal.jsonl", AnimalRow)
    assert rows and all(row.sentence == printable(row.sentence) for row in rows)
    assert audit(tmp_path / "out" / "dataset")["tasks"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"id": "1"', "line 1: it is no JSON object"),
        ("a.jsonl", b'{"id": "1", "sentence": "s", "answer": "higher", "span1": "a", "span2": "b", '
         b'"pitch1_hz": NaN, "pitch2_hz": 1}\n', "pitch1_hz: Input should be a finite number"),
        ("a.txt", b"", "is neither .jsonl nor .parquet"),
    ],
)  # fmt: skip
def test_damaged_records_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_records(tmp_path / name, PitchRow)
    assert str(tmp_path / name) in str(error.value)


# --- sheets that people fill in --------------------------------------------------------------------------------------

SHEET = "id,task,sentence,answer,spans,accuracy,fluency,comment\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a1,animal,"A [MASK],dog,x,1,3,\na2,animal,s,dog,x,1,3,\n', "line 2: it is not CSV .*close each quote"),
        ("a1,animal,A [MASK], they say,dog,x,1,3,\n", "line 2: it has 9 cells, the header has 8"),
        ("a1,animal,s,dog,x,1,3\n", "line 2: it has 7 cells"),
        ("a1,animal,s,dog,x,yes,3,\na2,animal,s,dog,x,maybe,3,\n", "line 3: accuracy is 'maybe'"),
        ("a1,animal,s,dog,x,1,3.0,\n", "line 2: fluency is '3.0'"),
        ("", "nothing is filled in"),
    ],
)
def test_every_row_of_a_sheet_is_taken_or_refused_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(SHEET + content)
    with pytest.raises(InputError, match=message):
        import_review([tmp_path / "a.csv"])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_sheets_as_spreadsheets_save_them(tmp_path: Path, separator: str) -> None:
    rows = [["id", "task", "accuracy", "fluency", " comment "], ["a1", "animal", "Yes", "3", 'good, "very"; so']]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=separator).writerows([*rows, [""] * 5])
    (agreement,) = import_review([tmp_path / "a.csv"])
    assert (agreement.items, agreement.accuracy_percent, agreement.fluency) == (1, 100.0, 3.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfel\x00a\x00", "the header of .* has a .*save the table as UTF-8"),
        (b"", "lacks the columns label, animal"),
        (b"label,animal,label\n", "two columns named 'label'"),
        (b"label,animal\nquux,perhaps\n", "line 2: 'perhaps' is neither yes nor no"),
        (b'label,animal\n"quux,yes\n', "it is not CSV"),
        (b"label,animal\nquux\n", "line 2: it has 1 cells"),
    ],
)
def test_sheets_of_labels_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        LabelFilter(tmp_path / "labels.csv")
    with pytest.raises(InputError, match=r"nowhere\.csv cannot be read"):
        LabelFilter(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [1],
        [{"annotations": 3}],
        [{"annotations": [{"result": [{"value": {"choices": []}, "from_name": "accuracy"}]}], "data": {}}],
        [{"annotations": [{"result": [{"value": 3}]}]}],
        [{"data": {"id": [1], "task": {}}, "annotations": [{"result": []}]}],
    ],
)
def test_label_studio_exports_that_are_none(tmp_path: Path, value: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"a\.json is no Label Studio export|nothing is filled in"):
        import_review([tmp_path / "a.json"])


# --- saved pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("$cc1 = 74", "$cc1 = 7.4.1", r"the timeline has '7\.4\.1' as a number"),
        ("$cc1 = 74", f"$cc1 = {'9' * 400}", "the timeline has '9999.*' as a number"),
        ("from:74 till:146", "from:74 till:999999", "has an end that is no note"),
        ("from:74 till:146", "from:7.4.7 till:146", "the timeline has '7.4.7' as a number"),
        ("from:74", "from:$zz", "has an end that is not defined"),
    ],
)
def test_timelines_that_are_spoilt(old: str, new: str, message: str) -> None:
    assert old in RANGES_TIMELINE
    with pytest.raises(InputError, match=message):
        parse_ranges(RANGES_TIMELINE.replace(old, new))


def test_odd_characters_of_a_page_reach_no_row() -> None:
    page = ANIMALS_WIKITEXT.replace("Guinea pig", "Gui\u202enea pi\u200bg")
    assert dict(parse_animal_sounds(page))["Guinea pig"] == ["wheek"]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a mapping"),
        ("- a\n", "is not a mapping"),
        ("a: [1", "line 1 is not YAML|line 2 is not YAML"),
        ("a: &a [*a]\n", "is not YAML"),
        ("[" * 3_000, "is not YAML"),
        ('out: "a\\0b"\n', "holds a NUL"),
        ('name: "\\ud800"\n', "holds a NUL or half a character"),
        ("out: x\n", "input: Field required; llm: Field required"),
        ("out: x\ninput: {path: x}\nllm: {modl: m}\n", "unknown key 'llm.modl'; did you mean llm.model"),
        ("ouput: x\ninput: {path: x}\nllm: {model: m}\n", "unknown key 'ouput'; did you mean input|out"),
        ("out: {a: 1}\ninput: {path: x}\nllm: {model: m}\n", "out: Input is not a valid path"),
        ("out: x\ninput: {path: x}\nllm: {model: m, engine: local}\n", "'http', 'transformers' or 'ray'"),
        ("out: x\ninput: {path: x}\nllm: {model: m, base_url: 'http://h:99999/v1'}\n", "give a URL such as"),
        ("out: x\ninput: {path: x}\nllm: {model: m, timeout_s: -1}\n", "llm.timeout_s: Input should be greater than 0"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_settings(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no config"):
        read_settings(tmp_path)
