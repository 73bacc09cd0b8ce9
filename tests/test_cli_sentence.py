import io
import json
import os
import subprocess
import sys

import pytest
import torch

from audiobert.cli import run, use_utf8
from audiobert.cli.sentence import BLOCK
from bank_fakes import write_tone

SOUND = "Meow is the sound a [MASK] makes."


def lines(capsys):
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_fill_mask_json_has_the_documented_form(capsys):
    assert run(["fill-mask", SOUND, "The capital of France is [MASK].", "--json", "--top-k", "3"]) == 0
    out, _ = lines(capsys)
    heard, silent = map(json.loads, out)
    assert heard["text"] == SOUND
    assert heard["auditory"] is True
    span = heard["spans"][0]
    assert {"text", "start", "end", "score", "clips"} == span.keys()
    assert {
        "id", "caption", "score", "source", "license", "url", "path", "pitch_hz", "loudness_dbfs", "duration_s"
    } == span["clips"][0].keys()  # fmt: skip
    assert [len(heard["masks"][0][k]) for k in ("predictions", "base_predictions")] == [3, 3]
    assert "cat" in [prediction["token"] for prediction in heard["masks"][0]["predictions"]]
    assert silent["auditory"] is False
    assert silent["spans"] == []
    assert silent["masks"][0]["predictions"] == silent["masks"][0]["base_predictions"]


def test_fill_mask_reads_stdin_and_prints_for_people(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SOUND}\n\n"))
    assert run(["fill-mask"]) == 0
    out, _ = lines(capsys)
    assert out[0] == SOUND
    assert any("with sound" in line and "cat" in line for line in out)
    assert run(["fill-mask", SOUND, "--unheard"]) == 0
    out, _ = lines(capsys)
    assert any("unheard" in line for line in out) and not any("with sound" in line for line in out)


def test_a_line_is_answered_before_the_last_one_is_read(capsys, monkeypatch):
    printed_by_then = []

    def unending():
        for number in range(BLOCK + 1):
            if number == BLOCK:
                printed_by_then.extend(lines(capsys)[0])
            yield f"{SOUND} Number {number}.\n"

    class Stdin:
        __iter__ = staticmethod(unending)
        isatty = staticmethod(lambda: False)

    monkeypatch.setattr("sys.stdin", Stdin())
    assert run(["spans", "--json"]) == 0
    assert len(printed_by_then) == BLOCK
    assert len(lines(capsys)[0]) == 1


@pytest.mark.parametrize(
    ("given", "variables", "wanted"),
    [
        ([], {}, "1"),
        ([], {"AUDIOBERT_THREADS": "3"}, "3"),
        ([], {"OMP_NUM_THREADS": "4"}, "4"),
        (["--threads", "2"], {"AUDIOBERT_THREADS": "3", "OMP_NUM_THREADS": "4"}, "2"),
        (["--threads=2"], {}, "2"),
    ],
)
def test_a_sentence_is_answered_on_one_thread_unless_told_otherwise(capsys, monkeypatch, given, variables, wanted):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    for name in ("OMP_NUM_THREADS", "AUDIOBERT_THREADS"):
        monkeypatch.setenv(name, "")  # restored after the test
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run(["spans", *given, SOUND, "--model", "maxi"]) == 2
    assert "no model 'maxi'" in lines(capsys)[1][0]
    assert os.environ["OMP_NUM_THREADS"] == wanted
    assert chosen == ([int(wanted)] if given or "AUDIOBERT_THREADS" in variables else [])


def test_threads_are_chosen_before_torch_is_imported():
    script = """
import os, sys
from audiobert.cli import run
from audiobert.cli.sentence import text_blocks
assert run(["--threads", "2", "bank", "--help"]) == 0
next(text_blocks(["Meow"]))
print("torch" in sys.modules, os.environ["OMP_NUM_THREADS"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False 2"


def test_a_wrong_number_of_threads_is_bad_usage(capsys, monkeypatch):
    assert run(["--threads", "0", "spans", SOUND]) == 2
    monkeypatch.setenv("AUDIOBERT_THREADS", "many")
    assert run(["spans", SOUND]) == 2
    assert all("threads" in line.lower() for line in lines(capsys)[1])


def test_a_recording_and_banks_of_ones_own(capsys, tmp_path):
    write_tone(tmp_path / "sounds" / "tone=1.wav", 300.0)
    recording, bank = str(tmp_path / "sounds" / "tone=1.wav"), str(tmp_path / "bank")
    assert run(["bank", "build", str(tmp_path / "sounds"), "--out", bank]) == 0
    capsys.readouterr()
    given = ["This is the sound of a [MASK].", "--sound", f"This={recording}", "--no-base", "--json"]
    assert run(["fill-mask", *given]) == 0
    answer = json.loads(lines(capsys)[0][0])
    paths = {span["text"]: [clip["path"] for clip in span["clips"]] for span in answer["spans"]}
    assert paths["This"] == [recording]
    assert recording not in [path for text, found in paths.items() if text != "This" for path in found]
    assert answer["masks"][0]["predictions"] and not answer["masks"][0]["base_predictions"]
    assert run(["fill-mask", SOUND, "--bank", bank, "--only-bank", "--json"]) == 0
    answer = json.loads(lines(capsys)[0][0])
    assert {clip["id"] for span in answer["spans"] for clip in span["clips"]} == {"tone=1.wav"}
    assert run(["fill-mask", SOUND, "--bank", bank, "--clips", "2", "--json"]) == 0
    answer = json.loads(lines(capsys)[0][0])
    assert [len(span["clips"]) for span in answer["spans"]] == [2]


def test_spans(capsys):
    assert run(["spans", SOUND, "--json"]) == 0
    out, _ = lines(capsys)
    assert json.loads(out[0])["spans"][0]["text"] == "Meow"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fill-mask", "no mask"], "no [MASK]"),
        (["fill-mask", ""], "empty"),
        (["fill-mask", SOUND, "--top-k", "0"], "top_k is 0"),
        (["fill-mask", SOUND, "--top-k", "many"], "'--top-k'"),
        (["fill-mask", SOUND, "--model", "maxi"], "no model 'maxi'"),
        (["fill-mask", SOUND, "--bank", "/nowhere"], "/nowhere"),
        (["fill-mask", SOUND, "--only-bank"], "only_bank"),
        (["fill-mask", SOUND, "--sound", "Meow"], "give SPAN=FILE"),
        (["fill-mask", SOUND, "--sound", "Meow=/nowhere.wav"], "/nowhere.wav"),
        (["fill-mask", SOUND, "--loud"], "--loud"),
        (["search", ""], "empty"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(capsys, arguments, message):
    assert run(arguments) == 2
    out, err = lines(capsys)
    assert out == []
    assert len(err) == 1
    assert message in err[0]


def test_stdin_that_is_not_utf8_is_refused_by_its_line(capsys, monkeypatch):
    for encoding in ("utf-8", "latin-1", "ascii"):  # whatever the locale says
        stdin = io.TextIOWrapper(io.BytesIO(SOUND.encode() + b"\n\ncaf\xe9 [MASK]\n"), encoding=encoding)
        monkeypatch.setattr("sys.stdin", stdin)
        use_utf8()
        assert run(["spans"]) == 2
        assert lines(capsys)[1] == [
            "audiobert: line 3 of stdin has a byte that is not UTF-8 (0xE9); convert it to UTF-8 first, for example"
            " with iconv"
        ]
    for command in ("spans", "fill-mask", "search"):
        assert run([command, "caf\udce9 [MASK]"]) == 2
        assert "text 1 has a byte that is not UTF-8" in lines(capsys)[1][0]


def test_stdin_begins_with_a_byte_order_mark(capsys, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + SOUND.encode()), encoding="ascii")
    monkeypatch.setattr("sys.stdin", stdin)
    use_utf8()
    assert run(["spans", "--json"]) == 0
    assert json.loads(lines(capsys)[0][0])["text"] == SOUND


def test_closed_stdin_is_bad_usage(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert run(["spans"]) == 2
    assert "no text" in lines(capsys)[1][0]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_to_a_console_that_is_not_utf8(monkeypatch, encoding, options):
    texts = ["The naïve 🦉 — №1", "Meow ☃", "caf\u00e9"]
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    use_utf8()
    assert run(["spans", *texts, *options]) == 0
    sys.stdout.flush()
    out = written.getvalue().decode(encoding).splitlines()
    if options:
        assert [json.loads(line)["text"] for line in out] == texts
    else:
        assert sum(line.startswith(("The na", "Meow", "caf")) for line in out) == 3
