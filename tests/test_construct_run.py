"""The whole construction: killed at any point it ends with the same bytes, and what comes out is clean."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from audiobert.cli import run as command_line
from scripted_server import Fault, ScriptedServer
from test_construct_wiki import ANIMALS_WIKITEXT, RANGES_TIMELINE

# Label in the caption, its pitch in Hz; this clock is low, while the scripted model takes clocks for high.
TONES = {
    "cello": 130.8, "flute": 880.0, "trombone": 174.6, "piccolo flute": 1760.0, "double bass": 55.0, "mandolin": 523.3,
    "guitar": 220.0, "oboe": 540.0, "siren": 425.0, "clock": 70.0, "engine": 95.0, "car horn": 410.0, "train": 300.0,
}  # fmt: skip
ANIMALS = ("dog", "cat", "cow", "frog", "pig", "crow", "sheep", "rooster", "donkey", "lion", "monkey", "hen")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with 26 tones and 40 animals (short, silent files: animals are not measured)."""
    folder = tmp_path_factory.mktemp("collection")
    rows = []
    time_s = np.arange(8_000) / 16_000
    for number, (name, hz) in enumerate(list(TONES.items()) * 2):
        path = f"tones/{number}.wav"
        (folder / "tones").mkdir(exist_ok=True)
        wave = sum(np.sin(2 * np.pi * hz * (1 + number / 500) * harmonic * time_s) / harmonic for harmonic in (1, 2, 3))
        soundfile.write(folder / path, (0.3 * wave).astype(np.float32), 16_000)
        rows.append({"path": path, "title": f"{name} take {number}", "caption": f"a {name} playing", "license": "CC0"})
    for number in range(40):
        name = ANIMALS[number % len(ANIMALS)]
        rows.append(
            {"path": f"animals/{number}.wav", "title": f"{name} {number}", "caption": f"a {name}", "license": "CC BY"}
        )
    for row in rows:
        row |= {"source": "Made up", "author": "ann", "url": f"http://example.org/{row['path']}"}
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "animals.wikitext").write_text(ANIMALS_WIKITEXT, encoding="utf-8")
    (folder / "ranges.wikitext").write_text(RANGES_TIMELINE, encoding="utf-8")
    return folder


def _config(folder: Path, collection: Path, url: str, **changes: Any) -> Path:
    value: dict[str, Any] = {
        "name": "Small",
        "out": str(folder / "out"),
        "input": {"path": str(collection / "clips.csv")},
        "llm": {"model": "scripted", "base_url": url, "concurrency": 3, "backoff_s": 0.01, "backoff_max_s": 0.05},
        "pitch": {"pairs": 25},
        "wiki": {"animals": str(collection / "animals.wikitext"), "ranges": str(collection / "ranges.wikitext")},
    }
    for name, change in changes.items():
        value[name] = {**value.get(name, {}), **change}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(value), encoding="utf-8")
    return folder / "config.yaml"


def _tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the store and the report of the last run, which tell of the way only."""
    apart = ("store.sqlite", "last_run.json")
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(apart)
    }


@pytest.fixture(scope="module")
def made(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A whole, undisturbed run: its config, its folder, and how many questions it asked."""
    folder = tmp_path_factory.mktemp("made")
    with ScriptedServer() as server:
        config = _config(folder, collection, server.url)
        assert command_line(["construct", "run", str(config)]) == 0
        assert set(server.answered.values()) == {1}
        return config, folder / "out", server.requests


def test_a_second_run_asks_nothing_and_changes_nothing(
    made: tuple[Path, Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    config, out, _ = made  # the server is gone: a single question would fail
    before = _tree(out)
    capsys.readouterr()
    assert command_line(["construct", "run", str(config), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {step["state"] for step in report["steps"]} == {"unchanged"} and _tree(out) == before
    assert command_line(["construct", "run", str(config), "--redo", "--json"]) == 0  # all over again, from what is kept
    report = json.loads(capsys.readouterr().out)
    assert {step["state"] for step in report["steps"]} == {"made"} and _tree(out) == before
    assert report["language_model"]["requests"] == 0 < report["language_model"]["from_store"]


@pytest.mark.slow
def test_killed_at_any_point_it_ends_with_the_same_bytes(
    made: tuple[Path, Path, int], collection: Path, tmp_path: Path
) -> None:
    _, out, requests = made
    stops = [requests // 4, requests - 12]  # while categorizing, and near the end
    with ScriptedServer(lambda *_: Fault(pause_s=0.01)) as server:
        config = _config(tmp_path, collection, server.url)
        command = [sys.executable, "-m", "audiobert", "construct", "run", str(config)]
        for stop in stops:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
            while server.requests < stop and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert command_line(["construct", "run", str(config)]) == 0
    asked_twice = {question: count for question, count in server.answered.items() if count > 1}
    # what was on its way at a kill (at most `concurrency` a kill) never reached the disk; nothing else is asked again
    assert sum(count - 1 for count in asked_twice.values()) <= 3 * len(stops)
    assert _tree(tmp_path / "out" / "dataset") == _tree(out / "dataset")
    for name in ("clips", "categories", "animal", "pitch", "wiki_animal", "wiki_pitch", "rejected"):
        assert (tmp_path / "out" / f"{name}.jsonl").read_bytes() == (out / f"{name}.jsonl").read_bytes()


@pytest.mark.slow
def test_a_server_in_trouble_makes_no_difference(
    made: tuple[Path, Path, int], collection: Path, tmp_path: Path
) -> None:
    faults = [Fault(429, "", {"Retry-After": "0.01"}), Fault(500, "x"), Fault(200, '{"choi'), Fault(close=True)]
    with ScriptedServer(lambda number, _: faults[number // 5 % 4] if number % 5 == 2 else None) as server:
        config = _config(tmp_path, collection, server.url)
        assert command_line(["construct", "run", str(config)]) == 0
    assert set(server.answered.values()) == {1}
    assert _tree(tmp_path / "out" / "dataset") == _tree(made[1] / "dataset")


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
    from audiobert.auditorybench.data import load_benchmark

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
    rows = load_benchmark(dataset)
    assert {key for key, value in rows.items() if value} == {
        (task, split) for task in ("animal", "pitch") for split in ("train", "dev", "test", "wiki")
    }
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
        config = _config(tmp_path, collection, server.url, pitch={"pairs": 5}, input={"limit": 40})
        assert command_line(["construct", "run", str(config)]) == 0
        rows = tmp_path / "out" / "animal.jsonl"
        lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
        rows.write_text("".join(lines[1:]), encoding="utf-8")
        capsys.readouterr()
        assert command_line(["construct", "run", str(config), "--json"]) == 0
        states = {step["step"]: step["state"] for step in json.loads(capsys.readouterr().out)["steps"]}
        assert states["animal"] == "edited" and states["split"] == "made" and states["pitch"] == "unchanged"
        # now what it was made from changes too: nothing is overwritten unasked
        config = _config(tmp_path, collection, server.url, pitch={"pairs": 5}, input={"limit": 45})
        assert command_line(["construct", "run", str(config)]) == 2
        assert "animal.jsonl" in capsys.readouterr().err and len(rows.read_text().splitlines()) == len(lines) - 1
        assert command_line(["construct", "animal", str(config), "--redo"]) == 0


def test_step_by_step_and_by_parquet_is_the_same_as_at_once(
    made: tuple[Path, Path, int], collection: Path, tmp_path: Path
) -> None:
    with ScriptedServer() as server:
        config = _config(tmp_path, collection, server.url)
        config.write_text(config.read_text(encoding="utf-8") + "records: parquet\n", encoding="utf-8")
        for step in ("collect", "categorize", "animal", "pitch", "wiki", "split"):
            assert command_line(["construct", step, str(config)]) == 0
    # the JSON beside the benchmark names the files that it was made from: these are others
    trees = [_tree(folder / "dataset") for folder in (tmp_path / "out", made[1])]
    assert [tree.pop("construction.json") for tree in trees] and trees[0] == trees[1]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.parquet"))[:2] == [
        "animal.parquet",
        "categories.parquet",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llm": {"api_key": "sk-very-secret"}}, "llm.api_key: Extra inputs are not permitted"),
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
    config = _config(tmp_path, collection, "http://127.0.0.1:9/v1", **changes)
    assert command_line(["construct", "run", str(config)]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "very-secret" not in error


def test_a_step_before_its_input_says_so(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(tmp_path, collection, "http://127.0.0.1:9/v1")
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

    for path in sorted((Path(__file__).parents[1] / "configs").glob("construct-*.yaml")):
        assert read_settings(path).out.parts[0] == "runs"
