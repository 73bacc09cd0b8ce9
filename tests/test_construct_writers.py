"""Every writer of the construction: what a person changed, filled in or put there is refused, and nothing is lost."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audiobert.artefacts import locked, sha256_of
from audiobert.cli import run as command_line
from audiobert.construct.own_files import own_files
from audiobert.construct.run import STEPS
from audiobert.errors import ArtefactError, InputError
from construct_toys import make_collection, make_construction, tree, write_config
from scripted_server import ScriptedServer

# Files of each step that are always there, and of the two exports of a review.
WRITERS: dict[str, list[str]] = {
    "collect": ["clips.jsonl"],
    "categorize": ["categories.jsonl"],
    "animal": ["animal.jsonl"],
    "pitch": ["pitch.jsonl"],
    "wiki": ["wiki_animal.jsonl", "wiki_pitch.jsonl"],
    "split": [
        "dataset/animal_sound_recognition_train.csv",
        "dataset/sound_pitch_comparsion_wiki.csv",
        "dataset/data/pitch/test.parquet",
        "dataset/README.md",
        "dataset/attribution.csv",
        "dataset/construction.json",
    ],
    "review export": ["review/animal_annotator_1.csv", "review/label_studio_pitch.json", "review/GUIDE.md"],
}
for _step in ("collect", "split"):
    WRITERS[_step] += ["rejected.jsonl", f"rejected/{_step}.jsonl", f"made/{_step}.json", "written.json"]
WRITERS["review export"].append("review/written.json")
CASES = [(step, name) for step, names in WRITERS.items() for name in names]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole construction in `out` and its sheets in `out/review`, and the config."""
    folder = tmp_path_factory.mktemp("made")
    config, _, _ = make_construction(folder, make_collection(tmp_path_factory.mktemp("collection")))
    assert command_line(["construct", "review", "export", str(config)]) == 0
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil. Its server is gone, so a single question would fail."""
    shutil.copytree(made, tmp_path / "copy")
    config = tmp_path / "copy" / "config.yaml"
    config.write_text(config.read_text().replace(str(made / "out"), str(tmp_path / "copy" / "out")))
    return tmp_path / "copy"


def _again(folder: Path, step: str, *options: str) -> int:
    redo = [] if step == "review export" else ["--redo"]
    return command_line(["construct", *step.split(), str(folder / "config.yaml"), *redo, *options])


def _stranger(path: Path) -> None:
    path.write_bytes(b"a stranger's\n")


def _by_hand(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n \n")


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "thesis.txt").write_text("mine")


@pytest.mark.parametrize(("step", "name"), CASES)
@pytest.mark.parametrize("spoil", [_by_hand, _stranger, _to_folder])
def test_what_a_person_changed_or_put_there_is_refused(
    copy: Path, capsys: pytest.CaptureFixture[str], step: str, name: str, spoil: Callable[[Path], None]
) -> None:
    if spoil is _by_hand and name.endswith("written.json"):
        pytest.skip("blanks in the record itself change nothing")
    spoil(copy / "out" / name)
    before = tree(copy)
    capsys.readouterr()
    assert _again(copy, step) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and (Path(name).name in error or name.endswith("written.json")), error
    assert tree(copy) == before
    if spoil is _by_hand:
        assert _again(copy, step, "--overwrite") == 0
        assert tree(copy / "out") == {**before_spoiled(copy, made_of=before, name=name)}


def before_spoiled(copy: Path, *, made_of: dict[str, str], name: str) -> dict[str, str]:
    """The tree as it was, but for the file that `--overwrite` has made again."""
    own = {one.removeprefix("out/"): digest for one, digest in made_of.items() if one.startswith("out/")}
    recorded = json.loads((copy / "out" / ("review" if name.startswith("review") else "") / "written.json").read_text())
    return {**own, name: recorded["files"][name.removeprefix("review/")]}


@pytest.mark.parametrize(("step", "name"), CASES)
def test_a_link_under_an_own_name_is_refused_and_what_it_leads_to_stays(copy: Path, step: str, name: str) -> None:
    path = copy / "out" / name
    elsewhere = copy / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    digest = sha256_of(elsewhere)
    for options in ([], ["--overwrite"]):
        assert _again(copy, step, *options) == 2
        assert path.is_symlink() and sha256_of(elsewhere) == digest


@pytest.mark.parametrize("step", list(WRITERS))
def test_other_files_stay_whatever_is_said(copy: Path, step: str) -> None:
    folders = [path for path in (copy / "out").rglob("*") if path.is_dir()]
    notes = [folder / "notes.txt" for folder in [copy / "out", *folders]]
    for note in notes:
        note.write_text("mine")
    before = tree(copy / "out")
    for options in ([], ["--overwrite"]):
        assert _again(copy, step, *options) == 0
        assert tree(copy / "out") == before and len(notes) > 6


def test_a_split_that_is_no_longer_wanted_goes_unless_a_person_has_changed_it(copy: Path) -> None:
    config, dev = copy / "config.yaml", copy / "out" / "dataset" / "sound_pitch_comparsion_dev.csv"
    config.write_text(config.read_text() + "split: {train: 0.8, dev: 0, test: 0.2}\n")
    fixed = dev.read_text() + "fixed by hand,,,\n"
    dev.write_text(fixed)
    before = tree(copy)
    assert command_line(["construct", "run", str(config)]) == 2
    assert tree(copy) == before
    assert command_line(["construct", "run", str(config), "--overwrite"]) == 0
    assert not dev.exists() and not (copy / "out" / "dataset" / "data" / "pitch" / "dev.parquet").exists()
    assert dev.name not in (copy / "out" / "written.json").read_text()


def test_an_edited_benchmark_is_told_and_kept(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _by_hand(copy / "out" / "dataset" / "sound_pitch_comparsion_dev.csv")
    before = tree(copy)
    capsys.readouterr()
    assert command_line(["construct", "run", str(copy / "config.yaml"), "--json"]) == 0
    states = {step["step"]: step["state"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert states == {**dict.fromkeys(STEPS, "unchanged"), "split": "edited"} and tree(copy) == before


def test_a_filled_in_sheet_of_labels_is_kept_and_the_next_has_a_number(copy: Path) -> None:
    out, config = copy / "out", copy / "config.yaml"
    sheet = out / "labels_to_review.csv"
    header = sheet.read_text().splitlines()[0]
    filled = f"{header}\nquux,yes,3,A [MASK] says xuuq.\n"
    sheet.write_text(filled)
    config.write_text(config.read_text() + f"animal: {{labels: {sheet}}}\n")
    for options in ([], ["--redo"], ["--redo", "--overwrite"]):
        assert command_line(["construct", "animal", str(config), *options]) == 0
        assert sheet.read_text() == filled
        assert (out / "labels_to_review_2.csv").read_text().splitlines()[:2] == [header, "quux,yes,,"]
        assert not (out / "labels_to_review_3.csv").exists()


def test_a_second_export_of_sheets(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    review, export = copy / "out" / "review", ["construct", "review", "export", str(copy / "config.yaml")]
    assert command_line(export) == 0  # nothing is filled in
    sheet = review / "pitch_annotator_2.csv"
    rows = list(csv.DictReader(sheet.open(newline="")))
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**row, "accuracy": "1", "fluency": "3"} for row in rows])
    before = tree(review)
    capsys.readouterr()
    assert command_line(export) == 2
    assert "pitch_annotator_2.csv in" in capsys.readouterr().err and tree(review) == before
    assert command_line([*export, "--overwrite"]) == 0
    assert "1,3" not in sheet.read_text()


def test_a_review_into_a_folder_of_a_person(copy: Path) -> None:
    mine = copy / "documents"
    mine.mkdir()
    (mine / "GUIDE.md").write_text("mine")
    export = ["construct", "review", "export", str(copy / "config.yaml"), "--out", str(mine)]
    assert command_line(export) == 2
    assert tree(copy / "documents") == {"GUIDE.md": sha256_of(mine / "GUIDE.md")}
    assert (mine / "GUIDE.md").read_text() == "mine"


@pytest.mark.parametrize("name", ["clips.jsonl", "rejected.jsonl", "made/collect.json", "written.json", "store.sqlite"])
def test_a_strangers_file_in_a_new_folder_is_met_before_anything_is_asked(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = copy / "out"
    shutil.rmtree(out)
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine, and not JSON")
    capsys.readouterr()
    assert command_line(["construct", "run", str(copy / "config.yaml")]) == 2
    assert Path(name).name in capsys.readouterr().err
    assert (out / name).read_text() == "mine, and not JSON"


def test_an_output_behind_a_link_is_written_there(copy: Path, made: Path) -> None:
    (copy / "out").rename(copy / "disk")
    (copy / "out").symlink_to(copy / "disk")
    assert _again(copy, "split") == 0
    assert (copy / "out").is_symlink() and tree(copy / "disk") == tree(made / "out")


def test_places_that_cannot_be_written_are_one_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = copy / "config.yaml"
    shutil.rmtree(copy / "out")
    for make, message in (
        (lambda path: path.write_text("mine"), "out is a file; give a folder"),
        (lambda path: path.symlink_to(copy / "nowhere"), "out is a link to"),
    ):
        make(copy / "out")
        for command in (["run"], ["review", "export"]):
            capsys.readouterr()
            assert command_line(["construct", *command, str(config)]) == 2
            error = capsys.readouterr().err
            assert error.count("\n") == 1 and "--debug" not in error, error
            assert command[0] != "run" or message in error
        assert not (copy / "nowhere").exists()
        (copy / "out").unlink()


def test_a_second_run_at_the_same_time_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(1) as pool, locked(copy / "out"):
        assert pool.submit(_again, copy, "collect").result() == 2
    assert "another process is writing to" in capsys.readouterr().err
    assert _again(copy, "collect") == 0


def test_a_full_disk_is_one_line_and_leaves_the_last_state(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(copy)
    flush, left = os.fsync, iter(range(2))

    def full(handle: int) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        flush(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert _again(copy, "split") == 2
    error = capsys.readouterr().err
    assert re.search("no space (is )?left on", error, re.IGNORECASE) and "/dataset/" in error and "runs" not in error
    assert "--debug" not in error and error.count("\n") == 1
    monkeypatch.undo()
    assert tree(copy) == before
    assert _again(copy, "split") == 0


@pytest.mark.parametrize("moves", range(8))
def test_killed_while_files_are_renamed_the_next_run_finishes(
    copy: Path, made: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    class Killed(BaseException):
        pass

    (copy / "config.yaml").write_text((copy / "config.yaml").read_text() + "split: {train: 0.8, dev: 0, test: 0.2}\n")
    replace, left = Path.replace, iter(range(moves))

    def killed(self: Path, other: Path) -> Path:
        if ".audiobert.new" in self.parts and next(left, None) is None:
            raise Killed
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(Killed):
        _again(copy, "split")
    monkeypatch.undo()
    assert command_line(["construct", "run", str(copy / "config.yaml")]) == 0
    undisturbed = copy.parent / "undisturbed"
    shutil.copytree(made, undisturbed)
    config = undisturbed / "config.yaml"
    config.write_text(
        config.read_text().replace(str(made / "out"), str(undisturbed / "out"))
        + "split: {train: 0.8, dev: 0, test: 0.2}\n"
    )
    assert command_line(["construct", "run", str(config)]) == 0
    assert tree(copy / "out") == tree(undisturbed / "out")


def test_own_files_by_themselves(tmp_path: Path) -> None:
    def write(name: str, text: str, **options: bool) -> None:
        with own_files(tmp_path / "out", **options) as part:
            (part / name).write_text(text)

    write("a.txt", "1")
    write("b.txt", "1")
    write("a.txt", "2")
    (tmp_path / "out" / "b.txt").unlink()  # who deletes a file has changed nothing that could be lost
    write("b.txt", "2")
    (tmp_path / "out" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match=r"a\.txt in .* was changed by hand or is not of this construction"):
        write("a.txt", "3")
    write("a.txt", "3", overwrite=True)
    (tmp_path / "out" / "written.json").write_text("{}")
    with pytest.raises(InputError, match=r"written\.json exists and would be overwritten|a\.txt in .* was changed"):
        write("a.txt", "4")
    with pytest.raises(InputError, match=r"written\.json exists and would be overwritten"):
        write("c.txt", "4", overwrite=True)
    assert (tmp_path / "out" / "a.txt").read_text() == "3"


def test_a_record_of_a_step_that_is_none(copy: Path) -> None:
    from audiobert.construct.run import Construction, read_settings

    (copy / "out" / "made" / "collect.json").write_text("[]")
    with (
        Construction(read_settings(copy / "config.yaml")) as construction,
        pytest.raises(ArtefactError, match=r"collect\.json is not the record of a step; move it away"),
    ):
        construction.run(["collect"])


def test_collect_into_the_folder_of_the_collection(tmp_path: Path) -> None:
    """The manifest and the recordings lie in the output folder: they are left alone."""
    make_collection(tmp_path)
    before = tree(tmp_path)
    with ScriptedServer() as server:
        config = write_config(tmp_path, tmp_path, server.url)
        config.write_text(config.read_text().replace(f"out: {tmp_path / 'out'}", f"out: {tmp_path}"))
        assert command_line(["construct", "run", str(config)]) == 0
    after = tree(tmp_path)
    assert {name: after[name] for name in before} == before and "dataset/README.md" in after
