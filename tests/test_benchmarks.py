"""The benchmarks write what they measured, and nothing else of the document."""

import re

import pytest
from benchmarks import __main__ as command
from benchmarks.bench_train_step import make_examples

from audiobert.backbone import load_backbone

END = "<!-- end of measurement -->\n"
TEXT = f"before\n<!-- measured: one -->\nold\n{END}after\n<!-- measured: two -->\n{END}"
ROW = {"name": "a sentence", "ours": 35.71, "plain": 21.4, "unit": "CPU ms", "ratio": 0.5993, "note": "a pipeline"}


def test_figures_take_the_place_of_those_of_an_earlier_run():
    new = command.with_measurement(TEXT, "one", [ROW])
    assert "| a sentence | 35.71 | 21.4 | CPU ms | 0.60 | a pipeline |\n<!-- end of measurement -->\nafter\n" in new
    assert command.processor() in new and "old" not in new
    assert new.startswith("before\n") and new.endswith(TEXT[TEXT.index("after") :])


def test_a_benchmark_without_a_place_in_the_document_is_refused():
    with pytest.raises(ValueError, match="measured: three"):
        command.with_measurement(TEXT, "three", [ROW])


def test_the_document_has_a_place_for_every_benchmark():
    places = re.findall(r"<!-- measured: (\w+) -->", command.DOCUMENT.read_text(encoding="utf-8"))
    assert sorted(places) == command.names()


def test_an_unknown_benchmark_is_bad_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["bank_builds"])
    assert "no benchmark 'bank_builds'; there are: audio, bank, bank_build," in capsys.readouterr().err


def test_the_spans_of_the_training_step_share_clips():
    examples = make_examples(load_backbone("mini").tokenizer, 6)
    spans = [int(known.rows[0]) for example in examples for known in example.clips]
    assert (len(spans), len(set(spans))) == (10, 9)
    assert all(len(example.spans) == len(example.clips) for example in examples)
