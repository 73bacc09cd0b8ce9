"""`audiobert data`, `audit`, `evaluate` and `compare` as a user types them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest

import auditorybench_toys as toys
from audiobert.cli import _find_command, run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.make_benchmark(tmp_path_factory.mktemp("benchmark"))


def test_evaluate_then_compare(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, lines = tmp_path / "results.json", tmp_path / "predictions.jsonl"
    arguments = ["evaluate", "control:majority", "control:bag-of-words", "--data", str(data)]
    assert run([*arguments, "--out", str(out), "--predictions", str(lines)]) == 0
    shown = capsys.readouterr().out
    assert "control:majority" in shown
    assert "BERT-base (paper)" in shown
    assert len(lines.read_text().splitlines()) == 2 * 2 * (len(toys.DEV) + len(toys.PITCH))
    assert run(["compare", str(out), "--format", "csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))  # one table, nothing behind it
    assert list(table.columns[:4]) == ["name", "section", "limit", "animal.dev"]
    assert list(table["name"])[-2:] == ["control:majority", "control:bag-of-words"]
    assert run(["compare", str(out), "--format", "csv", "--pairs"]) == 0
    tests = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert list(tests.columns[:3]) == ["First", "Second", "Split"] and len(tests) == 6
    assert run(["compare", str(out), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["pairs"][0]["difference"]["p_value"] <= 1
    assert run([*arguments, "--json", "--splits", "dev"]) == 0
    assert [report["model"] for report in json.loads(capsys.readouterr().out)] == arguments[1:3]


@pytest.mark.parametrize("form", ["terminal", "markdown", "latex"])
def test_first_rows_are_shown_in_every_heading(
    form: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results.json"
    arguments = ["evaluate", "control:majority", "control:bag-of-words", "--data", str(data), "--limit", "2"]
    assert run([*arguments, "--out", str(out), "--format", form]) == 0
    assert "first 2 rows of each split" in capsys.readouterr().out
    assert {report["limit"] for report in json.loads(out.read_text())} == {2}
    assert run(["compare", str(out), "--format", form]) == 0
    shown = capsys.readouterr().out
    assert shown.count("first 2 rows of each split") == 2  # the table of accuracy and that of the tests
    assert "control:majority (first 2 rows)" in shown


@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        (["train", "detector", "--data", "d", "--out", "o"], "the same command with --resume continues"),
        (["bank", "build", "source", "--out", "o"], "the same command with --resume continues"),
        (["ablate", "--data", "d", "--out", "o", "--parts", "p"], "kept; the same command continues"),
        (["construct", "run", "construct-example"], "kept; the same command continues"),
        (["evaluate", "mini", "--data", "d"], "what was finished is kept in --out"),
        (["fill-mask", "A [MASK]."], "the same command starts again"),
    ],
)
def test_control_c_says_how_to_go_on(
    arguments: list[str], how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """typer turns Ctrl+C inside a command into an exit status without a word."""
    command = _find_command(arguments)[0]

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(command), "invoke", interrupt)
    assert run(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("audiobert: interrupted; ")
    assert how in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("group", [[], ["bank"], ["data"], ["train"], ["construct"], ["construct", "review"]])
def test_a_group_alone_shows_its_help_as_a_wrong_usage(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Usage:" in shown.err


def test_commands_use_no_private_interface_of_typer() -> None:
    import audiobert.cli

    for path in Path(audiobert.cli.__file__).parent.glob("*.py"):
        assert "typer._" not in path.read_text()


def test_a_masked_model_from_a_folder(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toys.bert(tmp_path / "bert")
    arguments = ["evaluate", str(folder), "--data", str(data), "--device", "cpu", "--splits", "dev", "--json"]
    assert run([*arguments, "--protocol", "candidates"]) == 0
    assert json.loads(capsys.readouterr().out)["protocol"] == "candidates"


def test_data_and_audit(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "verify", str(data)]) == 2  # these are not the published files
    assert "is not the published file" in capsys.readouterr().out
    assert run(["audit", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"]["animal"]["splits"]["dev"]["rows"] == len(toys.DEV)
    assert run(["audit", str(data), "--no-near"]) == 0
    assert "Sentences with several answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["evaluate"], 2, "MODEL"),
        (["evaluate", "control:coin"], 2, "no control 'control:coin'"),
        (["evaluate", "control:majority", "--tasks", "colour"], 2, "no task 'colour'"),
        (["evaluate", "control:majority", "--splits", "test"], 2, "lacks animal_sound_recognition_test.csv"),
        (["evaluate", "control:majority", "--protocol", "guess"], 2, "no protocol 'guess'"),
        (["evaluate", "control:majority", "--protocol", "multiple-choice"], 2, "the row has no options"),
        (["evaluate", "control:majority", "--detector"], 2, "no span detector"),
        (["evaluate", "toy", "--base-url", "http://127.0.0.1:9", "--retries", "0"], 1, "http://127.0.0.1:9 failed"),
        (["compare", "nothing.json"], 2, "nothing.json does not exist"),
        (["audit", "nowhere"], 2, "nowhere"),
        (["data", "verify", "nowhere"], 2, "no folder nowhere"),
    ],
)
def test_bad_input_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("AUDITORYBENCH_DIR", str(data))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert says in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err
