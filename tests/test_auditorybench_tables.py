"""Tables beside the paper's, marks against the controls, and the audit."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import auditorybench_toys as toys
from audiobert.auditorybench.audit import NEAR_DUPLICATE, audit, near_duplicate_pairs
from audiobert.auditorybench.audit_page import to_text
from audiobert.auditorybench.evaluate import merge_seeds
from audiobert.auditorybench.metrics import share
from audiobert.auditorybench.table_writers import to_csv, to_latex, to_markdown, to_terminal, write_table
from audiobert.auditorybench.tables import (
    TextTable,
    accuracy_table,
    detector_table,
    pairwise,
    pairwise_table,
    read_results,
)
from audiobert.errors import InputError


def report(name: str, right: dict[tuple[str, str], str], limit: int | None = None, **more: Any) -> dict[str, Any]:
    results = []
    for (task, split), rows in right.items():
        figures = share(rows.count("1"), len(rows)) or {}
        results.append({"task": task, "split": split, **figures, "rows_correct": rows, "seeds": [0], **more})
    return {"model": name, "limit": limit, "results": results, "combined": []}


def seeded(name: str, *seeds: str) -> dict[str, Any]:
    """Results of several seeds on animal dev, from right or wrong per row."""
    runs = [{"task": "animal", "split": "dev", "n": len(r), "correct": r.count("1"), "rows_correct": r} for r in seeds]
    return {"model": name, "results": [{**merge_seeds(runs), "seeds": list(range(len(seeds)))}], "combined": []}


MAJORITY = report("control:majority", {("animal", "dev"): "1" * 16 + "0" * 84})
WORDS = report("control:bag-of-words", {("animal", "dev"): "1" * 35 + "0" * 65})
WEAK = report("weak", {("animal", "dev"): "0" * 70 + "1" * 30})
SLIGHT = report("slight", {("animal", "dev"): "1" * 36 + "0" * 64})
STRONG = report("strong", {("animal", "dev"): "1" * 80 + "0" * 20})


def test_controls_stand_above_and_mark_who_does_not_beat_them() -> None:
    table = accuracy_table([WEAK, STRONG, WORDS, SLIGHT, MAJORITY])
    own = [row for row in table.rows if row.section != "published"]
    assert [row.name for row in own] == ["control:bag-of-words", "control:majority", "weak", "strong", "slight"]
    marks = {row.name: row.cells["animal", "dev"].mark for row in table.rows}
    assert (marks["weak"], marks["slight"], marks["strong"]) == ("✗", "~", "")
    assert marks["control:majority"] == ""
    # The best control here is 35.0: of the paper's rows only the two AudioBERTs are above.
    assert {name for name, mark in marks.items() if name.endswith("(paper)") and not mark} == {
        "AudioBERT (BERT-base) (paper)",
        "AudioBERT (BERT-large) (paper)",
    }
    assert not any(row.cells["animal", "dev"].mark for row in accuracy_table([WEAK]).rows)


def test_four_forms_hold_the_same_figures() -> None:
    table = accuracy_table([MAJORITY, STRONG])
    assert "| strong | 80.00 [71.1, 86.7] |" in to_markdown(table)
    assert r"strong & 80.00 [71.1, 86.7] \\" in to_latex(table)
    assert r"\begin{tabular}{lr}" in to_latex(table)
    assert r"\multicolumn{2}{l}{$\times$ not above the best control" in to_latex(table)  # the legend is printed
    assert list(pd.read_csv(io.StringIO(to_csv(table)))["name"]) == [row.name for row in table.rows]
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    strong = next(line for line in lines if line["name"] == "strong")
    assert (float(strong["animal.dev"]), float(strong["animal.dev.low"])) == (80.0, pytest.approx(71.11, abs=0.02))
    paper = next(line for line in lines if line["name"].startswith("AudioBERT (BERT-base)"))
    assert (paper["animal.dev"], paper["animal.dev.sd"]) == ("38.28", "0.27")
    assert to_terminal(table).row_count == len(table.rows)
    with pytest.raises(InputError, match="there are terminal, markdown"):
        write_table(table, "word")


def test_a_table_too_wide_for_a_terminal_is_turned() -> None:
    head = ["", *(f"column {i}" for i in range(12))]
    shown = to_terminal(TextTable("t", head, [["mini", *map(str, range(12))]]))
    assert (len(shown.columns), shown.row_count) == (2, 12)
    assert len(to_terminal(TextTable("t", head[:5], [["mini", *"0123"]])).columns) == 5


def test_seeds_are_printed_with_their_spread() -> None:
    (row,) = accuracy_table([report("m", {("animal", "dev"): "10"}, sd=0.0123)], published=False).rows
    assert row.cells["animal", "dev"].text() == "50.00 ±1.23"


def test_models_are_compared_on_the_same_rows() -> None:
    (test,) = pairwise([STRONG, WORDS])
    assert test.difference.mean == pytest.approx(0.45)
    assert test.p_holm < 0.001
    assert "+45.00" in to_markdown(pairwise_table([test]))
    assert r"\midrule" not in to_latex(pairwise_table(pairwise([STRONG, WORDS]))).split(r"\midrule", 1)[1]
    assert pairwise([STRONG, report("short", {("animal", "dev"): "10"})]) == []


def test_marks_and_tests_use_all_seeds() -> None:
    """Seed 0 is far above the control, the other seeds are not: no test may rest on seed 0 alone."""
    lucky = seeded("lucky", "1" * 80 + "0" * 20, "1" * 20 + "0" * 80, "1" * 20 + "0" * 80)
    steady = seeded("steady", *["1" * 60 + "0" * 40] * 3)
    control = report("control:bag-of-words", {("animal", "dev"): "1" * 35 + "0" * 65})
    marks = {row.name: row.cells["animal", "dev"].mark for row in accuracy_table([lucky, steady, control]).rows}
    assert (marks["lucky"], marks["steady"]) == ("~", "")
    tests = {test.first: test for test in pairwise([lucky, steady, control]) if test.second == control["model"]}
    assert tests["lucky"].difference.mean == pytest.approx(0.05)
    assert (tests["lucky"].seeds, tests["steady"].difference.p_value < 0.001) == ((3, 1), True)
    low, high = lucky["results"][0]["ci95"]
    assert high - low > 0.5  # the trainings' spread is in the interval


def test_first_rows_are_never_taken_for_the_whole_split() -> None:
    some = report("mini", {("animal", "dev"): "1" * 60 + "0" * 40}, limit=100)
    control = report("control:majority", {("animal", "dev"): "1" * 40 + "0" * 60}, limit=100)
    table = accuracy_table([some, control])
    assert table.title == "Accuracy (%), first 100 rows of each split; the paper's rows are of whole splits"
    assert accuracy_table([some], published=False).title == "Accuracy (%), first 100 rows of each split"
    for written in (to_markdown(table), to_latex(table)):
        assert "first 100 rows of each split" in written
        assert "mini (first 100 rows)" in written
    assert not any(row.cells["animal", "dev"].mark for row in table.rows if row.section == "published")
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert [line["limit"] for line in lines if line["name"] == "mini"] == ["100"]
    # Beside whole splits: no test between the two, and no mark against the other's control.
    mixed = [some, MAJORITY, STRONG]
    assert "some on the first rows" in accuracy_table(mixed).title
    assert {row.name: row.cells["animal", "dev"].mark for row in accuracy_table(mixed).rows}["mini"] == ""
    assert {(test.first, test.second) for test in pairwise(mixed)} == {("control:majority", "strong")}
    found = [{"task": "animal", "split": "dev", "f1": 0.9}]
    assert "first 7 rows" in detector_table([{"model": "m", "limit": 7, "results": [], "detection": found}]).title


def test_span_detectors_stand_beside_table_two() -> None:
    found = [{"task": "animal", "split": "dev", "f1": 0.9}, {"task": "combined", "split": "dev", "f1": 0.91}]
    table = detector_table([{"model": "mini", "results": [], "detection": found}])
    assert table.rows[0].cells["animal", "dev"].value == 92.75
    assert table.rows[-1].cells["combined", "dev"].value == pytest.approx(91.0)


def test_what_is_no_results_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps([MAJORITY, STRONG]))
    assert [r["model"] for r in read_results([path])] == ["control:majority", "strong"]
    for content in ("{}", "[1]", "{"):
        path.write_text(content)
        with pytest.raises(InputError, match=r"r\.json"):
            read_results([path])
    with pytest.raises(InputError, match="does not exist"):
        read_results([tmp_path / "none.json"])
    with pytest.raises(InputError, match="no results"):
        read_results([])


# --- audit -----------------------------------------------------------------------------------------------------------


def test_audit_finds_what_was_put_in(tmp_path: Path) -> None:
    folder = toys.make_benchmark(tmp_path)
    (folder / "animal_sound_recognition_dev.csv").write_text(
        "animal,description,sentence\n"
        "dog,woof,Woof is the sound a [MASK] makes.\n"  # in train, same answer
        "wolf,woof,woof is the sound a [MASK] makes.\n"  # in train but for case, another answer; ambiguous
        "cat,purr,Meow is the sound that a [MASK] makes.\n"  # nearly in train; span not in the sentence
        "yak,,A yak is what a [MASK] is.\n"  # empty span, answer not in train
    )
    found = audit(folder)["tasks"]["animal"]
    leak = next(entry for entry in found["leaks"] if (entry["from"], entry["into"]) == ("train", "dev"))
    assert (leak["sentence_exact"], leak["sentence_case_folded"], leak["sentence_and_answer"]) == (1, 2, 1)
    assert leak["sentence_near_duplicate"] in (0, 1)
    assert found["ambiguity"]["dev"]["sentences_with_several_answers"] == 1
    assert found["ambiguity"]["dev"]["accuracy_ceiling"] == 0.75
    spans = found["spans"]["dev"]
    assert (spans["empty"], spans["rows_not_in_sentence"], spans["rows_not_as_written"]) == (1, 1, 2)
    assert found["unseen_answers"]["dev"] == {"rows": 2, "share": 0.5, "answers": 2, "examples": ["wolf", "yak"]}
    assert found["train_answer_where_seen"]["dev"]["answer_not_given_by_train"] == 1
    assert found["priors"]["train"]["bird"] == pytest.approx(0.3)


def test_near_duplicates_are_near() -> None:
    known = ["the sound of a bell in the morning.", "a tuba."]
    pairs = near_duplicate_pairs(["The sound of a bell in the mornings.", "A cow."], known)
    assert pairs == [("The sound of a bell in the mornings.", known[0])]
    assert NEAR_DUPLICATE < 100


def test_audit_rediscovers_what_is_known(shared: Path) -> None:
    """The figures of the benchmark's README."""
    report = audit(shared / "auditorybench", near_duplicates=False)["tasks"]
    animal, pitch = report["animal"], report["pitch"]
    leaks = {(entry["from"], entry["into"]): entry for entry in animal["leaks"]}
    assert leaks["train", "dev"]["sentence_exact"] == 170
    assert leaks["train", "wiki"]["sentence_case_folded"] == 102
    seen = animal["train_answer_where_seen"]["dev"]
    assert round(seen["share_not_given_by_train"], 2) == 0.82
    assert round(seen["share_most_frequent_right"], 2) == 0.09
    assert 0.07 < animal["spans"]["train"]["share_of_rows_not_in_sentence"] < 0.09
    assert round(pitch["spans"]["train"]["share_of_spans_not_in_sentence"], 2) == 0.01
    assert pitch["spans"]["train"]["empty"] > 0
    higher = [pitch["priors"][split]["higher"] for split in ("train", "dev", "wiki")]
    assert higher == pytest.approx([0.596, 0.593, 0.479], abs=6e-4)
    assert animal["splits"]["train"]["rows_without_exactly_one_mask"] == [596, 2111, 3131]
    page = to_text({"folder": "auditorybench", "tasks": report})
    assert "170 word for word" in page
    assert "139 (81.8%) have an answer that train does not give" in page
