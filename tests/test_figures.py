"""The documents' figures: generated from results, of the weights that ship, nowhere typed by hand."""

import copy
import json
import re

import pytest
from benchmarks import figures

from audiobert.errors import ArtefactError

BLOCK = "before <!-- figures: everyday -->\n{inside}<!-- end of figures --> after"


@pytest.fixture
def results():
    answers = {"on": {"animals": ["+cow", "dog"]}, "unheard": {"animals": ["cat", "dog"]}}
    return {"everyday.json": {"answers": answers | {"off": {"animals": ["the", "+dog"]}}}}


def test_a_block_is_made_anew_and_the_rest_stays(results):
    new = figures.rewrite(BLOCK.format(inside="typed by hand: 99%\n"), results)
    assert new.startswith("before <!--") and new.endswith("--> after")
    assert "typed by hand" not in new
    assert "| with sound | 1 of 2 | 1 of 2 |" in new and "| unheard | 0 of 2 | 0 of 2 |" in new
    assert figures.rewrite(new, results) == new


def test_what_is_not_measured_says_its_command():
    new = figures.rewrite(BLOCK.format(inside=""), {})
    assert "Not measured yet: `python -m benchmarks.everyday" in new


def test_an_unknown_block_is_refused(results):
    with pytest.raises(ArtefactError, match="no figures are called 'every_day'"):
        figures.rewrite(BLOCK.format(inside="").replace("everyday", "every_day"), results)


def test_every_block_of_the_documents_is_closed_and_known():
    for name in figures.DOCUMENTS:
        text = (figures.ROOT / name).read_text(encoding="utf-8")
        names = re.findall(r"<!-- figures: ([\w-]+) -->", text)
        assert names and set(names) <= set(figures.BLOCKS)
        assert text.count("<!-- end of figures -->") == len(names)


def test_the_documents_are_as_the_results_make_them():
    results = figures.read_all()
    for name in figures.DOCUMENTS:
        text = (figures.ROOT / name).read_text(encoding="utf-8")
        assert figures.rewrite(text, results) == text, f"{name}: run python -m benchmarks.figures"


@pytest.fixture
def folder(tmp_path):
    """A project with one shipped part and one result of it."""
    shipped = tmp_path / figures.SHIPPED
    shipped.mkdir(parents=True)
    (tmp_path / "results").mkdir()
    (shipped / "clap.json").write_text(json.dumps({"sha256": "1234"}))
    return tmp_path


def write(folder, digest):
    report = {"artefacts": {"model": {"parts": {"clap": digest}}}}
    (folder / "results" / "unread.json").write_text(json.dumps([report]))


def test_figures_of_other_weights_are_refused(folder):
    write(folder, "1234")
    assert "unread.json" in figures.read_all(folder)
    assert "unread.json" not in figures.stale(folder)
    write(folder, "5678")
    assert "unread.json" in figures.stale(folder)
    with pytest.raises(ArtefactError, match="other weights than those that ship: audiobert evaluate mini"):
        figures.read_all(folder)


def report(model, hits):
    entry = {"task": "pitch", "title": "Pitch", "split": "dev", "n": len(hits), "correct": sum(hits), "seeds": [0]}
    entry |= {"accuracy": sum(hits) / len(hits), "ci95": [0.1, 0.9], "rows_correct": "".join(map(str, hits))}
    return {"model": model, "results": [entry], "combined": [], "artefacts": {}}


def test_what_hearing_adds_is_measured_against_unheard_and_against_the_training_without_recordings():
    results = {
        "auditorybench.json": [report("runs/a", [1, 1, 1, 0]), report("runs/a:unheard", [1, 0, 0, 0])],
        "without-recordings.json": report("runs/b:unheard", [1, 1, 0, 0]),
    }
    table = figures.hearing_adds(results)
    assert "| with sound minus unheard | +50.0 [" in table
    assert "| with sound minus the same training without recordings | +25.0 [" in table
    assert "| `mini:unheard` | 25.0 |" in figures.auditorybench(results)
    alone = copy.deepcopy(results)
    del alone["without-recordings.json"]
    assert "without recordings" not in figures.hearing_adds(alone) + figures.auditorybench(alone)
