"""The journal against a plain model of it: any walks, outcomes, repeats and reopenings give the same bank."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobert.bank.journal import Journal, Record, remove_journal
from audiobert.errors import ArtefactError

IDS = st.sampled_from(["a", "b", "c", "ü", "'; DROP TABLE entries; --", "nul\0"])
CONTENTS = st.sampled_from(["00", "11", "22"])


@dataclass(frozen=True)
class Offered:
    """An entry of a walk: its id, its content, whether it is rejected, and whether the build dies after its batch."""

    id: str
    content: str
    rejected: bool
    killed: bool


@dataclass
class Model:
    outcomes: dict[str, Offered] = field(default_factory=dict)
    walk: list[str] = field(default_factory=list)
    repeats: int = 0

    def clips(self) -> list[str]:
        """The first id of each content among those that the last walk met and that were not rejected."""
        first: dict[str, str] = {}
        for one in self.walk:
            if one in self.outcomes and not self.outcomes[one].rejected:
                first.setdefault(self.outcomes[one].content, one)
        return [one for one in self.walk if one in first.values()]

    def rejections(self) -> list[tuple[str, str, str]]:
        """Ids, reasons and details of what the last walk met and the bank does not hold, but for repeated ids."""
        first = {self.outcomes[one].content: one for one in self.clips()}
        return [
            (one, "bad", "it is \\udcff")
            if self.outcomes[one].rejected
            else (one, "duplicate", f"same content as {first[self.outcomes[one].content]}")
            for one in self.walk
            if one not in first.values()
        ]


def record(one: Offered) -> Record:
    vector = np.full(3, int(one.content), np.float16)
    if one.rejected:
        return Record(one.id, one.content, {"path": one.id}, problem=("bad", "it is \udcff"))
    return Record(one.id, one.content, {"path": one.id}, None, {"x": 1}, False, vector, vector)


OFFERED = st.builds(Offered, IDS, CONTENTS, st.booleans(), st.integers(0, 9).map(lambda number: number == 0))


@settings(max_examples=60)
@given(walks=st.lists(st.lists(OFFERED, max_size=8), min_size=1, max_size=4))
def test_the_bank_is_what_the_last_walk_met(walks: list[list[Offered]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder) / "journal", Model()
        journal = Journal(path, {"models": "m"})
        for walk in walks:
            journal.begin_walk()
            model.walk, model.repeats = [], 0
            for position, one in enumerate(walk):
                if one.id in model.walk:
                    assert journal.met([one.id]) == {one.id}
                    journal.place((), [(position, one.id)])
                    model.repeats += 1
                else:
                    assert journal.met([one.id]) == set()
                    journal.place([(position, one.id)], ())
                    journal.commit([record(one)])
                    model.walk.append(one.id)
                    model.outcomes[one.id] = one
                if one.killed:
                    journal.close()
                    journal = Journal(path, {"models": "m"})
        with closing(journal):
            clips = list(journal.clips())
            assert [row["id"] for row, _, _ in clips] == model.clips()
            assert all(clap.tolist() == [int(model.outcomes[row["id"]].content)] * 3 for row, clap, _ in clips)
            assert journal.count_clips() == len(clips)
            rejected = list(journal.rejected())
            told = [(one["id"], one["reason"], one["detail"]) for one in rejected if one["reason"] != "duplicate-id"]
            assert told == model.rejections()
            assert all(one["path"] == one["id"] for one in rejected if one["reason"] != "duplicate-id")
            assert sum(one["reason"] == "duplicate-id" for one in rejected) == model.repeats
            known = journal.known([one.id for one in model.outcomes.values()])
            assert {name: one.accepted for name, one in known.items()} == {
                name: not one.rejected for name, one in model.outcomes.items()
            }


def test_names_are_kept_and_looked_up_in_any_number(tmp_path: Path) -> None:
    texts = [f"name {number}" for number in range(2_500)]
    with closing(Journal(tmp_path / "journal", {})) as journal:
        journal.commit((), [(text, np.full(2, number)) for number, text in enumerate(texts[::2])])
        found = journal.names(texts)
    assert set(found) == set(texts[::2])
    assert found["name 40"].tolist() == [20, 20]


def test_a_transaction_that_fails_leaves_no_half(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal", {})) as journal:
        good = record(Offered("a", "00", False, False))
        with pytest.raises(UnicodeEncodeError):
            journal.commit([good, record(Offered("\ud800", "11", False, False))])
        assert journal.is_empty() and not journal.has_vectors()
        journal.commit([good])
        assert journal.has_vectors()


def test_an_unchanged_entry_brings_metadata_alone(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal", {})) as journal:
        journal.place([(0, "a")], ())
        journal.commit([record(Offered("a", "11", False, False))])
        journal.commit([Record("a", None, {"path": "moved"}, unchanged=True)])
        ((row, clap, knowledge),) = journal.clips()
        assert row == {"id": "a", "path": "moved", "x": 1}
        assert clap.tolist() == knowledge.tolist() == [11.0] * 3
        assert journal.known(["a"])["a"].sha256 == "11"


def test_other_facts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "journal"
    Journal(path, {"models": {"clap": 1, "tower": 2}}).close()
    Journal(path, {"models": {"tower": 2, "clap": 1}}).close()  # the same in another order
    with pytest.raises(ArtefactError, match="models"):
        Journal(path, {"models": {"clap": 1, "tower": 3}})
    with pytest.raises(ArtefactError, match="cannot be written"):
        Journal(path / "below-a-file", {})


def test_faults_of_the_disk_are_one_line_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtefactError, match=r"cannot be used: unable to open .*; check the disk and its permissions"):
        Journal(tmp_path, {})
    (tmp_path / "text").write_bytes(b"no database" * 1_000)
    with pytest.raises(ArtefactError, match=r"cannot be used: it is damaged \(.*\); build again with --overwrite"):
        Journal(tmp_path / "text", {})
    connect = sqlite3.connect

    def small(path: Path, **options: Any) -> sqlite3.Connection:
        database = connect(path, **options)
        database.execute("PRAGMA max_page_count = 12")
        return database

    monkeypatch.setattr(sqlite3, "connect", small)
    with closing(Journal(tmp_path / "journal", {})) as journal:
        entries = [Record(f"{number:0>4000}", None, {}, ("bad", "")) for number in range(9)]
        with pytest.raises(ArtefactError, match="cannot be used: the disk is full; free some space and resume"):
            journal.commit(entries)
        journal.commit(entries[:1])
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):  # a fault of the code, not of the disk
        journal.begin_walk()


def test_a_closed_journal_is_one_file_and_removing_it_leaves_other_files(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    files = {path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")}
    journal = Journal(path, {"models": 1})
    assert set(tmp_path.iterdir()) == files  # written ahead, so that a batch is one write
    journal.close()
    with pytest.raises(ArtefactError, match="models") as refused:
        Journal(path, {"models": 2})
    assert list(tmp_path.iterdir()) == [path], refused
    for file in (*files, path.with_suffix(".txt")):
        file.touch()
    remove_journal(path)
    assert list(tmp_path.iterdir()) == [path.with_suffix(".txt")]
    remove_journal(path)
