"""Perplexity with LoRA off and on, and false alarms, on plain text."""

import gzip
import json

import pytest

from audiobert.cli import run

LINES = ["The council met on Monday evening.", "He wrote a long letter to his brother.", "Prices rose again last year."]


@pytest.mark.slow
def test_the_figures_of_the_shipped_model(tmp_path, capsys):
    plain, packed = tmp_path / "text.txt", tmp_path / "text.txt.gz"
    plain.write_text("\n".join(LINES))
    packed.write_bytes(gzip.compress("\n\n".join(LINES).encode()))
    assert run(["plain-text", str(packed), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["lines"] == 3 and figures["false_alarms"] < 1.0
    assert 1.0 < figures["perplexity_off"] < 2000.0
    assert figures["perplexity_on"] != figures["perplexity_off"]
    assert run(["plain-text", str(plain), "--limit", "2"]) == 0
    assert "2 lines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "says"), [(None, "does not exist"), (b"\xff\xfe\x00", "no text in UTF-8"), (b"\x1f\x8b123", "no text")]
)
def test_a_file_that_is_no_text_is_one_line(content, says, tmp_path, capsys):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    assert run(["plain-text", str(path)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
