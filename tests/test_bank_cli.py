"""`audiobert bank ...` and `audiobert search` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audiobert import loading
from audiobert.answers import Hit
from audiobert.bank import AudioBank
from audiobert.cli import run
from audiobert.pipeline import AudioBert
from bank_fakes import FakeEncoder, write_tone, write_tones


class FakeModel:
    """A model whose query vector is that of the bank's third clip."""

    def __init__(self, bank: Path | None) -> None:
        self.bank = AudioBank.open(bank) if bank else None

    def search(self, query: str, top_k: int = 10, **filters: Any) -> list[Hit]:
        assert self.bank is not None and query
        scores, rows = self.bank.search(self.bank.clap_vectors[2], top_k, **filters)
        return [Hit(self.bank.clip(row), float(score), int(row)) for row, score in zip(rows[0], scores[0], strict=True)]


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_pretrained(
        name: str = "mini", *, bank: Path | None = None, only_bank: bool = False, device: str | None = None
    ) -> FakeModel:
        assert name == "mini" and device is None and only_bank == (bank is not None)
        return FakeModel(bank)

    def load_clip_encoder(name: str = "mini", device: str | None = None, precision: str = "fp32") -> FakeEncoder:
        assert name == "mini" and device is None
        encoder = FakeEncoder()
        encoder.precision = precision
        return encoder

    monkeypatch.setattr(AudioBert, "from_pretrained", from_pretrained)
    monkeypatch.setattr(loading, "load_clip_encoder", load_clip_encoder)


def test_build_info_verify_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tones(tmp_path / "audio", 5)
    (tmp_path / "audio" / "notes.txt").write_text("not a sound")
    bank = str(tmp_path / "bank")

    assert run(["bank", "build", str(tmp_path / "audio"), "--out", bank, "--workers", "0"]) == 0
    told = capsys.readouterr().out
    assert "5 clips" in told and "1 extension" in told and "rejected.jsonl" in told

    assert run(["bank", "build", str(tmp_path / "audio"), "--out", bank, "--resume", "--workers", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["encoded"] == 0 and report["reused"] == 5

    assert run(["bank", "info", bank]) == 0
    assert "licences" in capsys.readouterr().out
    assert run(["bank", "info", bank, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 5
    assert run(["bank", "verify", bank]) == 0

    capsys.readouterr()
    excluded = tmp_path / "exclude.txt"
    excluded.write_text(AudioBank.open(bank).clip(2).id + "\n\n")
    assert run(["search", "a beep", "--bank", bank, "--top-k", "3", "--json"]) == 0
    hits = json.loads(capsys.readouterr().out)
    assert len(hits) == 3 and hits[0]["id"] == AudioBank.open(bank).clip(2).id and hits[0]["score"] > 0.99
    assert run(["search", "a beep", "--bank", bank, "--exclude", str(excluded), "--json"]) == 0
    assert hits[0]["id"] not in [hit["id"] for hit in json.loads(capsys.readouterr().out)]
    assert run(["search", "a beep", "--bank", bank, "--label", "low"]) == 0
    assert "Hz" in capsys.readouterr().out


def test_merge_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, pitch in (("a", 300), ("b", 500)):
        write_tone(tmp_path / name / f"{name}.wav", pitch)
        assert run(["bank", "build", str(tmp_path / name), "--out", str(tmp_path / f"bank-{name}")]) == 0
    merged = str(tmp_path / "merged")
    assert run(["bank", "merge", str(tmp_path / "bank-a"), str(tmp_path / "bank-b"), "--out", merged]) == 0
    assert run(["bank", "export", merged, "--out", str(tmp_path / "clips.parquet")]) == 0
    assert "2 clips" in capsys.readouterr().out and (tmp_path / "clips.parquet").is_file()


def test_verify_of_a_damaged_bank_names_the_file_and_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tone(tmp_path / "audio" / "a.wav", 300)
    bank = tmp_path / "bank"
    run(["bank", "build", str(tmp_path / "audio"), "--out", str(bank)])
    content = bytearray((bank / "vectors.safetensors").read_bytes())
    content[-1] ^= 1
    (bank / "vectors.safetensors").write_bytes(bytes(content))
    capsys.readouterr()
    assert run(["bank", "verify", str(bank), "--json"]) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["sound"] is False
    assert "vectors.safetensors" in told.err and told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bank", "build", "{tmp}/nothing", "--out", "{tmp}/bank"], "does not exist"),
        (["bank", "build", "{tmp}", "--out", "{tmp}/bank"], "empty folder"),
        (["bank", "build", "{tmp}", "--out", "{tmp}/bank", "--pitch", "guess"], "swiftf0"),
        (["bank", "info", "{tmp}/nothing"], "is no folder"),
        (["bank", "verify", "{tmp}"], "bank.json"),
        (["bank", "merge", "{tmp}/a", "--out", "{tmp}/b"], "at least two"),
        (["search", "  "], "query is empty"),
        (["search", "x", "--exclude", "{tmp}/nothing.txt"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.err.count("\n") == 1 and not told.out
    assert not list(tmp_path.iterdir())
