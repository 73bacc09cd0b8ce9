"""Progress without a terminal, and what Ctrl+C says in a training."""

from __future__ import annotations

from audiobert import progress
from audiobert.cli import run
from audiobert.training import masked_lm


def test_long_work_prints_lines_where_there_is_no_terminal(monkeypatch, capsys):
    assert list(progress.track(range(3), "clips")) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # it was short
    monkeypatch.setattr(progress, "LINE_SECONDS", -1.0)
    assert list(progress.track(range(3), "clips")) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["clips: 1 of 3", "clips: 2 of 3", "clips: 3 of 3"]


def test_an_interrupted_training_says_how_to_resume(monkeypatch, capsys, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(masked_lm, "train_masked_lm", interrupted)
    assert run(["train", "masked-lm", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "the same command with --resume continues" in error and error.count("\n") == 1
