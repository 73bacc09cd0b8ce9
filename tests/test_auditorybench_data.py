"""Rows of AuditoryBench: layouts, spellings, alignment, and what is refused."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

import audiobert
from audiobert.auditorybench import data
from audiobert.auditorybench.align import align_spans
from audiobert.auditorybench.attributes import builtin_attributes
from audiobert.auditorybench.published import published_file
from audiobert.auditorybench.tasks import builtin_tasks, find_task
from audiobert.errors import InputError

ANIMAL_DEV = "animal,description,sentence\ncat,meow,Meow is the sound a [MASK] makes.\n"
PITCH_DEV = (
    "sentence,answer,span1,span2\n"
    '"The sound of a street in Brela, Croatia has a [MASK] pitch than a bell.",lower,'
    "sound of a street in Brela Croatia,bell\n"
)


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_both_layouts_and_spellings_give_the_same_rows(tmp_path: Path) -> None:
    write(tmp_path / "flat", "animal_sound_recognition_dev.csv", ANIMAL_DEV)
    folders = "animal,span,sentence,A,B,C,D,Answer\ncat,meow,Meow is the sound a [MASK] makes.,dog,rabbit,cat,mouse,C\n"
    write(tmp_path / "folders", "dataset/animal_sound_recognition/dev.csv", folders)
    (flat,) = data.load_split(tmp_path / "flat", "animal", "dev")
    (nested,) = data.load_split(tmp_path / "folders", "animal", "dev")
    assert (flat.text, flat.answer, flat.spans) == (nested.text, nested.answer, nested.spans)
    assert flat.span_offsets == ((0, 4),)
    assert flat.choices is None
    assert nested.choices == ("dog", "rabbit", "cat", "mouse")
    assert data.rows_sha256([flat]) == data.rows_sha256([nested])


@pytest.mark.parametrize(
    ("text", "spans", "found", "methods"),
    [
        ("Whining is the sound a [MASK] makes.", ["whining"], ["Whining"], ["case"]),
        ("A [MASK] makes a sound to protect its eggs.", ["protecting their eggs"], ["protect its eggs"], ["tolerant"]),
        ("The sound of a [MASK] is heard in May.", ["cicadas"], [None], ["none"]),
        ("The sound of a [MASK] is heard in May.", [""], [None], ["none"]),
        (
            "The sound of double bass is [MASK] than the sound of bass",
            ["double bass", "bass"],
            None,
            ["exact", "exact"],
        ),
        ("The sound of bass is [MASK] than the sound of bass drum", ["bass", "bass drum"], None, ["exact", "exact"]),
        ("A human hum is what a [MASK] makes.", ["hum"], ["hum"], ["exact"]),
    ],
)
def test_alignment(text: str, spans: list[str], found: list[str | None] | None, methods: list[str]) -> None:
    alignments = align_spans(text, spans)
    words = [text[slice(*a.offsets)] if a.offsets else None for a in alignments]
    assert words == (found if found is not None else spans)
    assert [a.method for a in alignments] == methods
    mask = text.index("[MASK]")
    if len(spans) == 2:
        assert alignments[0].offsets < (mask, mask) < alignments[1].offsets  # type: ignore[operator]


def test_a_word_is_not_found_inside_another() -> None:
    text = "A human hum is what a [MASK] makes."
    assert align_spans(text, ["hum"])[0].offsets == (8, 11)


def test_empty_span_is_kept_and_unaligned(tmp_path: Path) -> None:
    write(tmp_path, "sound_pitch_comparsion_dev.csv", PITCH_DEV.replace(",bell\n", ",\n"))
    (row,) = data.load_split(tmp_path, "pitch", "dev")
    assert row.spans[1] == ""
    assert row.span_offsets[1] is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("animal,description,sentence\n", "no rows"),
        ("animal,sound,sentence\ncat,meow,A [MASK].\n", "no column 'span' or 'description'"),
        ("pet,description,sentence\ncat,meow,A [MASK].\n", "no column 'animal'"),
        ("animal,description,sentence\ncat,meow\n", "line 2: it has 2 cells, the header has 3"),
        ("animal,description,sentence\ncat,meow,A cat meows.\n", "line 2: the sentence has no [MASK]"),
        ("animal,description,sentence\n,meow,A [MASK] meows.\n", "line 2: the answer is empty"),
        ("animal,description,sentence,animal\ncat,meow,A [MASK] meows.,dog\n", "two columns named 'animal'"),
        ('animal,description,sentence\ncat,meow,"A [MASK] meows.\n', "not CSV"),
        (b"animal,description,sentence\ncat,miau\xff,A [MASK].\n", "not UTF-8"),
    ],
)
def test_bad_files_are_refused_with_their_name(tmp_path: Path, content: str | bytes, says: str) -> None:
    path = write(tmp_path, "animal_sound_recognition_dev.csv", content)
    with pytest.raises(InputError) as error:
        data.load_split(tmp_path, "animal", "dev")
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_folder_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"animal_sound_recognition_wiki\.csv or animal_sound_recognition/wiki\.csv"):
        data.load_split(tmp_path, "animal", "wiki")
    with pytest.raises(InputError, match="no folder"):
        data.load_split(tmp_path / "nowhere", "animal", "wiki")


def test_train_that_holds_the_test_rows_is_refused(tmp_path: Path) -> None:
    rows = [f"cat,meow {i},Meow {i} is the sound a [MASK] makes." for i in range(10)]
    header = "animal,span,sentence\n"
    write(tmp_path, "animal_sound_recognition_test.csv", header + "\n".join(rows[:4]) + "\n")
    train = write(tmp_path, "animal_sound_recognition_train.csv", header + "\n".join(rows[4:]) + "\n")
    assert len(data.load_split(tmp_path, "animal", "train")) == 6
    train.write_text(header + "\n".join(rows) + "\n")
    with pytest.raises(InputError, match="contains 4 of the 4 test rows"):
        data.load_split(tmp_path, "animal", "train")


@pytest.mark.parametrize("saved_again", [False, True])
def test_train_with_the_test_split_s_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved_again: bool
) -> None:
    content = ANIMAL_DEV.encode()
    test = published_file("animal", "test")
    assert test is not None
    published = replace(test, sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(data, "published_file", lambda *_: published)
    write(
        tmp_path,
        "animal_sound_recognition_train.csv",
        b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n") if saved_again else content,
    )
    with pytest.raises(InputError, match="is the test split under the name of train"):
        data.load_split(tmp_path, "animal", "train")


def test_a_train_file_with_as_many_rows_as_test_is_taken(tmp_path: Path) -> None:
    test = published_file("animal", "test")
    assert test is not None
    rows = "".join(f"cat,meow {i},Meow {i} is the sound a [MASK] makes.\n" for i in range(test.captions))
    write(tmp_path, "animal_sound_recognition_train.csv", "animal,span,sentence\n" + rows)
    assert len(data.load_split(tmp_path, "animal", "train")) == test.captions


def test_a_task_of_one_s_own_needs_no_code(tmp_path: Path) -> None:
    yaml = """
name: brightness
title: Brightness
benchmark: mine
kind: comparison
files: {dev: [brightness.csv]}
columns: {text: [sentence], answer: [answer], spans: [[a], [b]]}
candidates: [brighter, darker]
prompt: "{blank}"
chat: "{blank}"
"""
    path = write(tmp_path, "brightness.yaml", yaml)
    write(tmp_path, "brightness.csv", "sentence,answer,a,b\nA bell is [MASK] than a gong.,brighter,bell,gong\n")
    (row,) = data.load_split(tmp_path, str(path), "dev")
    assert (row.task, row.answer, row.span_offsets) == ("brightness", "brighter", ((2, 6), (24, 28)))
    write(tmp_path, "brightness.csv", "sentence,answer,a,b\nA bell is [MASK] than a gong.,louder,bell,gong\n")
    with pytest.raises(InputError, match="line 2: the answer 'louder' is none of brighter, darker"):
        data.load_split(tmp_path, str(path), "dev")
    with pytest.raises(InputError, match="there are animal"):
        find_task("colour")
    path.write_text(yaml.replace("kind: comparison", "kind: guess"))
    with pytest.raises(InputError, match="kind"):
        find_task(str(path))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("B", "magpie"),
        ("(b)", "magpie"),
        ("Magpie", "magpie"),
        ("B. magpie", "magpie"),
        ("1", None),
        ("E", None),
        ("A. magpie", None),
        ("Z. magpie", None),
    ],
)
def test_answers_by_letter_or_text(value: str, expected: str | None) -> None:
    assert data.resolve_choice(value, ["owl", "magpie", "eagle"]) == expected


OPTIONS = """
include: {common}
name: options
title: Options
files: {{test: [options.csv]}}
"""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("question,choices,answer\nWhere?,a park|a pool,a pool\n", "line 2: 'choices' is no list of options: 'a park|"),
        ("question,choices,answer\nWhere?,\"{'A': 'a park'}\",a park\n", "is no list of options"),
        ("question,choices,answer\nWhere?,\"[1, 2]\",1\n", "is no list of options"),
        ("question,A,B,label\nWhich?,thunder,click,1\n", "line 2: the answer is the number 1"),
        ("question,A,B,label\nWhich?,thunder,click,louder\n", "line 2: the answer 'louder' is none of the options"),
        ("question,answer\nWhich is louder?,thunder\nWhich is louder?,click\n", "no column of options ('A', 'B'"),
    ],
)  # fmt: skip
def test_options_that_are_not_known_are_refused_and_not_guessed(tmp_path: Path, content: str, says: str) -> None:
    common = Path(str(files("audiobert.auditorybench.tasks"))) / "_plus_plus.yaml"
    task = write(tmp_path, "options.yaml", OPTIONS.format(common=common))
    write(tmp_path, "options.csv", content)
    with pytest.raises(InputError) as error:
        data.load_split(tmp_path, str(task), "test")
    assert says in str(error.value)


@pytest.mark.parametrize(("first", "answer"), [(0, "click"), (1, "thunder")])
def test_a_task_says_where_numbers_of_options_begin(tmp_path: Path, first: int, answer: str) -> None:
    task = write(
        tmp_path,
        "numbers.yaml",
        "name: numbers\ntitle: Numbers\nbenchmark: mine\nkind: multiple-choice\nfiles: {test: [numbers.csv]}\n"
        f"columns: {{text: [question], answer: [label], choices: [[A], [B]], first_number: {first}}}\n"
        'candidates: row\nprompt: "{blank}"\nchat: "{blank}"\n',
    )
    write(tmp_path, "numbers.csv", "question,A,B,label\nWhich is louder?,thunder,click,1\n")
    (row,) = data.load_split(tmp_path, str(task), "test")
    assert row.answer == answer


def test_a_task_includes_another_and_replaces_what_differs(tmp_path: Path) -> None:
    common = "title: Common\nkind: comparison\nfiles: {dev: [a.csv]}\ncandidates: [louder, quieter]\n" + (
        'columns: {text: [s], answer: [a], spans: [[x], [y]]}\nprompt: "{blank}"\nchat: "{blank}"\n'
    )
    write(tmp_path, "tasks/common.yaml", common)
    path = write(tmp_path, "mine.yaml", "include: tasks/common.yaml\nname: mine\nfiles: {test: [b.csv]}\n")
    task = find_task(str(path))
    assert (task.name, task.title, task.splits, task.pair) == ("mine", "Common", ["test"], ("louder", "quieter"))
    assert task.opposite("Louder") == "quieter"
    with pytest.raises(InputError, match="'higher' is none of the words"):
        task.opposite("higher")
    write(tmp_path, "mine.yaml", "include: pitch.yaml\nname: mine\ncandidates: [louder, quieter]\n")  # a shipped one
    assert find_task(str(path)).columns == find_task("pitch").columns
    assert find_task(str(path)).pair == ("louder", "quieter")
    write(tmp_path, "mine.yaml", "include: mine.yaml\nname: mine\n")
    with pytest.raises(InputError, match="includes itself"):
        find_task(str(path))
    write(tmp_path, "mine.yaml", "include: nowhere.yaml\nname: mine\n")
    with pytest.raises(InputError, match=r"cannot be read .*a YAML file is wanted"):
        find_task(str(path))


@pytest.mark.parametrize("words", ["[louder]", "[louder, Louder]", "[a, b, c]", "row", "train-answers"])
def test_a_comparison_has_two_words(tmp_path: Path, words: str) -> None:
    text = (
        f"name: mine\ntitle: Mine\nkind: comparison\nfiles: {{dev: [a.csv]}}\ncandidates: {words}\n"
        'columns: {text: [s], answer: [a], spans: [[x], [y]]}\nprompt: "{blank}"\nchat: "{blank}"\n'
    )
    with pytest.raises(InputError, match="two different words"):
        find_task(str(write(tmp_path, "mine.yaml", text)))


def test_a_sentence_with_two_answers_keeps_both(tmp_path: Path) -> None:
    text = "animal,description,sentence\nbird,chirp,A [MASK] can chirp.\ncricket,chirp,A [MASK] can chirp.\n"
    write(tmp_path, "animal_sound_recognition_dev.csv", text + "owl,hoot,A [MASK] calls.\n")
    aligned = data.aligned_rows(data.load_split(tmp_path, "animal", "dev"))
    assert [(row.text, row.answer) for row in aligned] == [
        ("A [MASK] can chirp.", "bird"),
        ("A [MASK] can chirp.", "cricket"),
    ]
    assert all(row.text[slice(*row.spans[0])] == "chirp" for row in aligned)


def test_the_published_files(shared: Path) -> None:
    """Counts as the benchmark's README and the paper's Table I give them."""
    folder = shared / "auditorybench"
    loaded = {
        (t, split): data.load_split(folder, t, split)
        for t in ("animal", "pitch")
        for split in data.available_splits(folder, t)
    }
    for (task, split), rows in loaded.items():
        file = published_file(task, split)
        assert file is not None
        assert len(rows) == file.captions
        if file.rows_sha256:
            assert data.rows_sha256(rows) == file.rows_sha256
    assert ("animal", "test") not in loaded
    # About 8% of the animal spans are not in the sentence as written (case aside); few cannot be aligned at all.
    for split, unaligned in (("train", 279), ("dev", 43), ("wiki", 0)):
        assert sum(row.span_offsets[0] is None for row in loaded["animal", split]) <= unaligned
    for split in ("train", "dev", "wiki"):
        for row in loaded["pitch", split]:
            places = [place for place in row.span_offsets if place]
            assert all(row.text[start:end] == row.text[start:end].strip() for start, end in places)
            assert len(places) < 2 or places[0][1] <= places[1][0] or places[1][1] <= places[0][0]


def test_no_task_or_word_is_written_into_the_code() -> None:
    """A task's name and words stand in its YAML; only what the paper published may name them."""
    names = {word for task in builtin_tasks().values() for word in (task.name, *(task.label_words or ()))}
    found = []
    for path in Path(data.__file__).parent.rglob("*.py"):
        if path.name in ("paper.py", "published.py"):
            continue
        constants = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        found += [(path.name, node.lineno, node.value) for node in constants if node.value in names]
    assert found == []


def test_no_word_of_a_comparison_decides_anything_outside_its_yaml() -> None:
    words = {word for attribute in builtin_attributes() for word in attribute.words}
    found = []
    for path in Path(audiobert.__file__).parent.rglob("*.py"):
        if "construct" in path.parts or path.name == "playback.py":  # makes the benchmark; draws from the lower left
            continue
        constants = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        found += [(path.name, node.lineno, node.value) for node in constants if node.value in words]
    assert found == [] and {"higher", "lower"} <= words
