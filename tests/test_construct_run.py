"""The whole construction: killed at any point it ends with the same bytes, and what comes out is clean."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiobert.cli import run as command_line
from construct_toys import ANIMALS, make_collection, make_construction, tree, write_config
from scripted_server import Fault, ScriptedServer


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_collection(tmp_path_factory.mktemp("collection"))


@pytest.fixture(scope="module")
def made(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    return make_construction(tmp_path_factory.mktemp("made"), collection)


def test_a_second_run_asks_nothing_and_changes_nothing(
    made: tuple[Path, Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    config, out, _ = made  # the server is gone: a single question would fail
    before = tree(out)
    capsys.readouterr()
    assert command_line(["construct", "run", str(config), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {step["state"] for step in report["steps"]} == {"unchanged"} and tree(out) == before
    assert command_line(["construct", "run", str(config), "--redo", "--json"]) == 0  # all over again, from what is kept
    report = json.loads(capsys.readouterr().out)
    assert {step["state"] for step in report["steps"]} == {"made"} and tree(out) == before
    assert report["language_model"]["requests"] == 0 < report["language_model"]["from_store"]


@pytest.mark.slow
def test_killed_at_any_point_it_ends_with_the_same_bytes(
    made: tuple[Path, Path, int], collection: Path, tmp_path: Path
) -> None:
    _, out, requests = made
    own = tmp_path / "out"
    moments: list[Callable[[ScriptedServer], bool]] = [
        lambda server: server.requests >= requests // 4,  # while categorizing
        lambda _: (own / "made" / "categorize.json").exists(),
        lambda server: server.requests >= requests - 12,  # near the end
        lambda _: (own / ".audiobert.part" / "dataset").exists(),  # while the benchmark is written
    ]
    with ScriptedServer(lambda *_: Fault(pause_s=0.01)) as server:
        config = write_config(tmp_path, collection, server.url)
        command = [sys.executable, "-m", "audiobert", "construct", "run", str(config)]
        for moment in moments:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
            while not moment(server) and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert command_line(["construct", "run", str(config)]) == 0
    asked_twice = {question: count for question, count in server.answered.items() if count > 1}
    # what was in flight at a kill (at most `concurrency` per kill) never reached the disk; nothing else is asked again
    assert sum(count - 1 for count in asked_twice.values()) <= 3 * len(moments)
    assert tree(own) == tree(out)


@pytest.mark.slow
def test_a_server_in_trouble_makes_no_difference(
    made: tuple[Path, Path, int], collection: Path, tmp_path: Path
) -> None:
    faults = [Fault(429, "", {"Retry-After": "0.01"}), Fault(500, "x"), Fault(200, '{"choi'), Fault(close=True)]
    with ScriptedServer(lambda number, _: faults[number // 5 % 4] if number % 5 == 2 else None) as server:
        config = write_config(tmp_path, collection, server.url)
        assert command_line(["construct", "run", str(config)]) == 0
    assert set(server.answered.values()) == {1}
    assert tree(tmp_path / "out" / "dataset") == tree(made[1] / "dataset")


def test_rejected_say_why(made: tuple[Path, Path, int]) -> None:
    rejected = [json.loads(line) for line in (made[1] / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    reasons = Counter((one["step"], one["reason"]) for one in rejected)
    assert reasons["pitch", "disagrees-with-measurement"] >= 1 and reasons["pitch", "pitch-too-close"] >= 1
    assert all(one["item"] and one["reason"] for one in rejected)
    assert all(one["answer"] for one in rejected if one["reason"] == "disagrees-with-measurement")


def test_kept_rows_hold_the_rules(made: tuple[Path, Path, int]) -> None:
    animals = [json.loads(line) for line in (made[1] / "animal.jsonl").read_text(encoding="utf-8").splitlines()]
    pitches = [json.loads(line) for line in (made[1] / "pitch.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(animals) > 15 and len(pitches) > 20
    for row in animals:
        assert row["sentence"].count("[MASK]") == 1 and row["span"] in row["sentence"]
        assert row["answer"] in ANIMALS and row["answer"] not in row["sentence"].lower().split()
    for row in pitches:
        first, second = row["pitch1_hz"], row["pitch2_hz"]
        assert max(first, second) >= 1.1 * min(first, second)
        assert row["answer"] == ("higher" if first > second else "lower")


def test_published_layout_and_clean_audit(made: tuple[Path, Path, int]) -> None:
    from audiobert.auditorybench.audit import audit
    from audiobert.auditorybench.data import available_splits, load_split

    dataset = made[1] / "dataset"
    headers = {path.name: path.read_text(encoding="utf-8").splitlines()[0] for path in sorted(dataset.glob("*_*.csv"))}
    assert headers == {
        "animal_sound_recognition_dev.csv": "animal,description,sentence",
        "animal_sound_recognition_test.csv": "animal,description,sentence",
        "animal_sound_recognition_train.csv": "animal,span,sentence",
        "animal_sound_recognition_wiki.csv": "animal,description,sentence",
        "sound_pitch_comparsion_dev.csv": "sentence,answer,span1,span2",
        "sound_pitch_comparsion_test.csv": "sentence,answer,span1,span2",
        "sound_pitch_comparsion_train.csv": "sentence,answer,span1,span2",
        "sound_pitch_comparsion_wiki.csv": "span1,span2,sentence,answer",
    }
    for task in ("animal", "pitch"):
        assert available_splits(dataset, task) == ["train", "dev", "test", "wiki"]
        assert all(load_split(dataset, task, split) for split in available_splits(dataset, task))
    for task in audit(dataset)["tasks"].values():
        for leak in task["leaks"]:
            assert leak["sentence_case_folded"] == leak["sentence_near_duplicate"] == 0, leak
        for split, faults in task["spans"].items():
            assert faults["empty"] == faults["spans_not_in_sentence"] == 0, (split, faults)
        for split, found in task["ambiguity"].items():
            assert found["sentences_with_several_answers"] == 0, (split, found)
        for size in task["splits"].values():
            assert size["duplicate_rows"] == 0 and size["rows_without_exactly_one_mask"] == []


def test_datasets_loads_the_folder_and_the_card_tells(made: tuple[Path, Path, int], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = made[1] / "dataset"
    for task in ("animal", "pitch"):
        loaded = datasets.load_dataset(str(dataset), task, cache_dir=str(tmp_path))
        assert list(loaded) == ["train", "dev", "test", "wiki"]
        assert all("[MASK]" in row["sentence"] for split in loaded.values() for row in split)
        name = {"animal": "animal_sound_recognition", "pitch": "sound_pitch_comparsion"}[task]
        rows = len((dataset / f"{name}_train.csv").read_text(encoding="utf-8").splitlines())
        assert loaded["train"].num_rows == rows - 1
        assert f"| train | {loaded['train'].num_rows} |" in (dataset / "README.md").read_text(encoding="utf-8")
    card = (dataset / "README.md").read_text(encoding="utf-8")
    assert "| Made up | CC0 |" in card and "CC BY-SA 4.0" in card
    attribution = (dataset / "attribution.csv").read_text(encoding="utf-8")
    assert "ann,http://example.org/" in attribution


def test_edits_by_hand_are_kept_and_followed(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer() as server:
        config = write_config(tmp_path, collection, server.url, pitch={"pairs": 5}, input={"limit": 40})
        assert command_line(["construct", "run", str(config)]) == 0
        rows = tmp_path / "out" / "animal.jsonl"
        lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
        rows.write_text("".join(lines[1:]), encoding="utf-8")
        capsys.readouterr()
        assert command_line(["construct", "run", str(config), "--json"]) == 0
        states = {step["step"]: step["state"] for step in json.loads(capsys.readouterr().out)["steps"]}
        assert states["animal"] == "edited" and states["split"] == "made" and states["pitch"] == "unchanged"
        # now what it was made from changes too: nothing is overwritten unasked
        config = write_config(tmp_path, collection, server.url, pitch={"pairs": 5}, input={"limit": 45})
        assert command_line(["construct", "run", str(config)]) == 2
        assert "animal.jsonl" in capsys.readouterr().err and len(rows.read_text().splitlines()) == len(lines) - 1
        assert command_line(["construct", "animal", str(config), "--redo"]) == 2
        assert len(rows.read_text().splitlines()) == len(lines) - 1
        assert command_line(["construct", "animal", str(config), "--overwrite"]) == 0
        assert len(rows.read_text().splitlines()) >= len(lines)


def test_step_by_step_and_by_parquet_is_the_same_as_at_once(
    made: tuple[Path, Path, int], collection: Path, tmp_path: Path
) -> None:
    with ScriptedServer() as server:
        config = write_config(tmp_path, collection, server.url)
        config.write_text(config.read_text(encoding="utf-8") + "records: parquet\n", encoding="utf-8")
        for step in ("collect", "categorize", "animal", "pitch", "wiki", "split"):
            assert command_line(["construct", step, str(config)]) == 0
    # the JSON beside the benchmark names the files that it was made from: these are others
    trees = [tree(folder / "dataset") for folder in (tmp_path / "out", made[1])]
    assert [tree.pop("construction.json") for tree in trees] and trees[0] == trees[1]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))[:2] == [
        "animal.parquet",
        "categories.parquet",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llm": {"api_key": "sk-very-secret"}}, "unknown key 'llm.api_key'; did you mean llm.api_key_env?"),
        ({"llm": {"base_url": "http://u:sk-very-secret@h/v1"}}, "no key in the URL"),
        ({"input": {"path": "nowhere.csv"}}, "nowhere.csv does not exist"),
        ({"split": {"train": 0.9}}, "together they must be 1"),
        ({"animal": {"prompt": "animal.v7"}}, "no prompt 'animal.v7'"),
        ({"llm": {"base_url": "http://127.0.0.1:9/v1", "max_attempts": 1}}, "run the same command again"),
    ],
)
def test_bad_settings_are_one_line(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    config = write_config(tmp_path, collection, "http://127.0.0.1:9/v1", **changes)
    assert command_line(["construct", "run", str(config)]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "very-secret" not in error


def test_a_step_before_its_input_says_so(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, collection, "http://127.0.0.1:9/v1")
    assert command_line(["construct", "animal", str(config)]) == 2
    assert "categories.jsonl does not exist; run the step that writes it first" in capsys.readouterr().err


def test_review_by_command(made: tuple[Path, Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["construct", "review", "export", str(made[0]), "--out", str(tmp_path)]) == 0
    sheet = tmp_path / "pitch_annotator_1.csv"
    rows = list(csv.DictReader(sheet.open(encoding="utf-8", newline="")))
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**row, "accuracy": "1", "fluency": "3"} for row in rows])
    capsys.readouterr()
    assert command_line(["construct", "review", "import", str(sheet), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["accuracy_percent"] == 100.0 and found[0]["items"] == len(rows)


def test_schemas_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["construct", "schema"]) == 0
    schemas = json.loads(capsys.readouterr().out)
    assert schemas["AnimalRow"]["required"] == ["id", "sentence", "answer", "span"]
    assert {"SourceClip", "CategorizedClip", "PitchRow", "Rejected", "PitchAnswer", "ConstructionSettings"} < set(
        schemas
    )


def test_shipped_settings_are_valid() -> None:
    from audiobert.construct.run import read_settings

    for name in ("construct-example", "construct-laion-630k"):
        assert read_settings(name).out.parts[0] == "runs"
