"""The report and its figures: one file with everything in it, and figures that agree with what was given."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from audiobert.auditorybench.evaluate import evaluate, merge_seeds
from audiobert.auditorybench.metrics import rows_by_seed
from audiobert.auditorybench.protocol import Prediction
from audiobert.auditorybench.stats import two_level_difference
from audiobert.auditorybench.tables import accuracy_table
from audiobert.cli import run
from audiobert.errors import InputError
from audiobert.web.findings import headline, sound_adds
from audiobert.web.predictions import (
    by_answer,
    by_pitch_difference,
    calibration,
    confusions,
    examples,
    key_of,
    of_model,
    read_predictions,
    retrieved_pitches,
)
from web_server import CHROMIUM_FLAGS

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

ANIMALS = [("cat", "meow"), ("dog", "woof"), ("cow", "moo"), ("duck", "quack"), ("<b>owl</b>", "hoot")]


def write_benchmark(folder: Path) -> Path:
    """A benchmark of the published form, with as many rows as a test needs."""
    folder.mkdir(parents=True)
    for split, count in (("train", 40), ("dev", 30)):
        column = "span" if split == "train" else "description"
        rows = [f"animal,{column},sentence"]
        for n in range(count):
            animal, sound = ANIMALS[n % len(ANIMALS)]
            rows.append(f"{animal},{sound},{sound} number {n} of {split} is what a [MASK] says")
        (folder / f"animal_sound_recognition_{split}.csv").write_text("\n".join(rows) + "\n")
        rows = ["sentence,answer,span1,span2"]
        for n in range(count):
            answer = "higher" if n % 3 else "lower"
            rows.append(f"a flute number {n} of {split} has a [MASK] pitch than a tuba,{answer},flute,tuba")
        (folder / f"sound_pitch_comparsion_{split}.csv").write_text("\n".join(rows) + "\n")
    return folder


class Scripted:
    """A model whose answers are known: right with audio but for every fifth row, mostly wrong without."""

    kind = "audiobert"

    def __init__(self, name: str) -> None:
        self.name, self.audio = name, not name.endswith(":unheard")
        self.artefacts = {"sha256": "ab" * 32}

    def answer(self, questions: Any, protocol: str) -> Any:
        del protocol
        for index, question in enumerate(questions):
            right = question.row % 5 != 0 if self.audio else question.row % 4 == 0
            scores = {}
            if question.candidates:
                other = next(word for word in question.candidates if word != question.answer)
                said = question.answer if right else other
                scores = {said: -0.3, (other if right else question.answer): -1.4}
            else:
                said = question.answer if right else "film"
            clips = ["a", "b"] if question.task == "pitch" else ["a"]
            spans = [{"text": "x", "start": 0, "end": 4}] * (2 if question.task == "pitch" else 1)
            yield index, Prediction(said, right, 1 if right else 3, scores, self.audio, spans, clips)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results.json, predictions.jsonl and data/, as the commands leave them."""
    from audiobert.auditorybench import evaluate as module

    folder = tmp_path_factory.mktemp("evaluated")
    write_benchmark(folder / "data")
    real = module.load_adapter
    module.load_adapter = lambda name, train, options: (  # type: ignore[assignment]
        real(name, train, options) if name.startswith("control:") else Scripted(name)
    )
    try:
        evaluate(
            ["no/such-model", "no/such-model:unheard", "control:majority"],
            folder / "data",
            splits=["dev"],
            out=folder / "results.json",
            predictions=folder / "predictions.jsonl",
        )
    finally:
        module.load_adapter = real
    return folder


class Elements(HTMLParser):
    """Everything in a page that could load something, its text, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        self.loads += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(evaluated: Path) -> Elements:
    arguments = ["report", str(evaluated / "results.json"), "--predictions", str(evaluated / "predictions.jsonl")]
    arguments += ["--data", str(evaluated / "data"), "--out", str(evaluated / "report.html")]
    assert run([*arguments, "--figures", str(evaluated / "figures")]) == 0
    return Elements((evaluated / "report.html").read_text(encoding="utf-8"))


def test_the_report_is_one_file_that_loads_nothing(report: Elements) -> None:
    assert not report.open
    assert not {"script", "iframe", "object", "embed", "link", "form"} & set(report.tags)
    assert all(one.startswith(("data:image/svg+xml;base64,", "#")) for one in report.loads)
    assert report.tags.count("img") == 3  # accuracy, by animal, calibration


def test_the_report_has_its_sections_and_figures(report: Elements, evaluated: Path) -> None:
    results = {one["model"]: one for one in json.loads((evaluated / "results.json").read_text())}
    entry = results["no/such-model"]["results"][0]
    assert f"{100 * entry['accuracy']:.2f}" in report.text  # own figures
    assert "38.28" in report.text and "AudioBERT (BERT-base) (paper)" in report.text  # beside the published ones
    assert "the paper's AudioBERT (BERT-base) has 38.28%" in report.text
    for heading in (
        "What hearing adds",
        "Accuracy by answer",
        "Calibration",
        "confusions",
        "Examples",
        "Audit of the data",
    ):
        assert heading in report.text
    assert "film" in report.text  # a confusion
    assert report.text.count("Right: said") == 10 and report.text.count("Wrong: said") == 10
    assert "audiobert evaluate no/such-model no/such-model:unheard control:majority" in report.text
    assert "Audit of data" in report.text and "Leaks" in report.text
    assert "torch" in report.text and "ab" * 32 in report.text  # versions and checksums
    assert "<b>owl</b>" in report.text  # markup in an answer is text


def test_what_hearing_adds_is_the_difference_of_the_two(report: Elements, evaluated: Path) -> None:
    results = {one["model"]: one for one in json.loads((evaluated / "results.json").read_text())}
    with_sound, unheard = (results[name]["results"][0] for name in ("no/such-model", "no/such-model:unheard"))
    points = 100 * (with_sound["correct"] - unheard["correct"]) / with_sound["n"]
    assert f"With sound, {points:+.2f} points" in report.text


def seeded(name: str, *seeds: str, **more: Any) -> dict[str, Any]:
    """Results of several seeds on pitch dev, from right or wrong per row."""
    runs = [{"task": "pitch", "split": "dev", "n": len(r), "correct": r.count("1"), "rows_correct": r} for r in seeds]
    return {"model": name, "results": [{**merge_seeds(runs), "seeds": list(range(len(seeds)))}], "combined": []} | more


WITH_SOUND = seeded("mine", "1" * 80 + "0" * 20, "1" * 90 + "0" * 10, kind="audiobert")
UNHEARD = seeded("mine:unheard", "1" * 70 + "0" * 30, "1" * 70 + "0" * 30, kind="audiobert")
OFF = seeded("mine:off", "1" * 50 + "0" * 50, "1" * 50 + "0" * 50, kind="audiobert")
WORDS_ALONE = seeded("words", "0" * 40 + "1" * 60, "0" * 36 + "1" * 64, kind="audiobert")


def test_sound_is_compared_with_the_same_training_without_recordings() -> None:
    reports = [WORDS_ALONE, WITH_SOUND, UNHEARD, OFF]
    added = {one.minus: one for one in sound_adds(reports, "mine", "words")}
    assert set(added) == {"unheard", "switched off", "the same training without recordings"}
    baseline = added["the same training without recordings"]
    first, second = (rows_by_seed(one["results"][0]) for one in (WITH_SOUND, WORDS_ALONE))
    assert baseline.difference == two_level_difference(first, second)  # over seeds and rows
    assert baseline.points[0] == pytest.approx(23)
    assert baseline.p_holm >= baseline.difference.p_value
    said = " ".join(headline(accuracy_table(reports), "mine", list(added.values())))
    assert "+23.00 points" in said and "the same training without recordings" in said and "over unheard" in said
    assert "switched off" not in said  # that also takes away what was learnt from text
    with pytest.raises(InputError, match="no model 'other'"):
        sound_adds(reports, "mine", "other")
    assert {one.minus for one in sound_adds(reports)} == {"unheard", "switched off"}


def test_the_report_names_the_training_without_recordings(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps([WORDS_ALONE, WITH_SOUND, UNHEARD, OFF]))
    arguments = ["report", str(tmp_path / "results.json"), "--out", str(tmp_path / "report.html")]
    assert run([*arguments, "--without-recordings", "words"]) == 0
    text = Elements((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "AuditoryBench report: mine" in text  # not the one without recordings, though it comes first
    assert "the same training without recordings (words)" in text and "switched off" in text
    assert run([*arguments, "--without-recordings", "none"]) == 2


def test_what_could_not_be_had_is_said(report: Elements) -> None:
    assert "What this report lacks" in report.text
    assert "as no/such-model cannot be loaded here: " in report.text  # so neither Figure 1 nor retrieval
    assert "--detector" in report.text


def test_figures_are_written_as_pdf_and_png(report: Elements, evaluated: Path) -> None:
    del report
    names = {path.name for path in (evaluated / "figures").iterdir()}
    assert {"accuracy.pdf", "accuracy.png", "calibration.pdf", "calibration.png"} <= names
    assert (evaluated / "figures" / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert (evaluated / "figures" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_is_the_same_when_made_again(evaluated: Path, report: Elements, tmp_path: Path) -> None:
    from audiobert.web.report import Sources, write_report

    del report
    sources = Sources([evaluated / "results.json"], [evaluated / "predictions.jsonl"], evaluated / "data")
    write_report(sources, tmp_path / "again.html")
    first, second = (
        re.sub(r"Made [^.]+\.", "", path.read_text()) for path in (evaluated / "report.html", tmp_path / "again.html")
    )
    assert first == second


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "no results"), ("{}", "holds no results"), ("not json", "not readable JSON")],
)
def test_a_file_that_holds_no_results_is_refused(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(content)
    assert run(["report", str(tmp_path / "results.json"), "--out", str(tmp_path / "report.html")]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_model_that_is_not_in_the_results_is_refused(evaluated: Path, tmp_path: Path) -> None:
    arguments = ["report", str(evaluated / "results.json"), "--model", "other", "--out", str(tmp_path / "report.html")]
    assert run(arguments) == 2


def test_a_line_that_is_no_prediction_is_named(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_text('{"model": "mini"}\n')
    with pytest.raises(InputError, match="line 1"):
        read_predictions([tmp_path / "predictions.jsonl"])
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions([tmp_path / "none.jsonl"])


def line(row: int, answer: str, said: str, **more: Any) -> dict[str, Any]:
    base = {"model": "m", "task": "pitch", "split": "dev", "row": row, "text": f"{row} [MASK]", "answer": answer}
    return base | {"prediction": said, "correct": answer == said} | more


def test_accuracy_by_answer_has_its_interval_and_the_silent_model() -> None:
    lines = [line(0, "cat", "cat"), line(1, "Cat", "Cat"), line(2, "dog", "cat")]
    silent = {key_of(one): {**one, "correct": False} for one in lines}
    cat, dog = by_answer(lines, silent)
    assert (cat.name, cat.n, cat.correct, cat.accuracy, cat.unheard) == ("cat", 2, 2, 1.0, 0.0)
    assert cat.low == pytest.approx(0.3424, abs=1e-4) and cat.high == 1.0  # Wilson's interval of 2 of 2
    assert dog.accuracy == 0.0


def test_seeds_of_a_row_count_once() -> None:
    lines = [line(0, "a", "a", seed=1), line(0, "a", "b", seed=0), line(1, "a", "a", seed=0)]
    assert [one["prediction"] for one in of_model(lines, "m")] == ["b", "a"]


def test_pitch_differences_come_from_the_clips_of_the_two_spans() -> None:
    spans = [{"start": 0, "end": 1}, {"start": 2, "end": 3}]
    one = line(0, "higher", "higher", spans=spans, clips=["a", "b", "e", "c", "d", "d"])
    pitches = {"a": 330.0, "b": 330.0, "c": None, "d": 220.0, "e": 660.0}
    assert retrieved_pitches(one, pitches) == (440.0, 220.0)
    assert retrieved_pitches(one, {"a": 440.0}) is None  # the second sound has no pitch
    assert retrieved_pitches({**one, "spans": spans[:1]}, pitches) is None
    (group,) = by_pitch_difference([one], {key_of(one): (440.0, 220.0)}, {key_of(one): one})
    assert group.name == "12 to 24 semitones" and group.n == 1 and group.unheard == 1.0  # an octave


def test_calibration_is_the_distance_of_confidence_and_accuracy() -> None:
    # Confidence 0.8 (odds 4 to 1), right in half of the cases: 30 points off.
    lines = [
        line(n, "higher", "higher" if n % 2 else "lower", scores={"higher": 0.0, "lower": -1.3862944})
        for n in range(10)
    ]
    found = calibration(lines)
    assert found is not None and found.n == 10
    assert found.error == pytest.approx(0.3, abs=1e-6)
    assert calibration([line(0, "cat", "cat", scores={})]) is None


def test_confusions_count_what_was_said_instead() -> None:
    lines = [line(0, "cat", "dog"), line(1, "cat", "Dog"), line(2, "cow", "pig"), line(3, "cat", "cat")]
    assert confusions(lines) == [("cat", "dog", 2), ("cow", "pig", 1)]


def test_examples_are_drawn_alike_from_the_tasks() -> None:
    lines = [line(n, "a", "a", task="animal" if n < 20 else "pitch") for n in range(25)]
    shown = examples(lines, 8, correct=True)
    assert [one["task"] for one in shown].count("pitch") == 4
    assert shown == examples(lines, 8, correct=True) and not examples(lines, 8, correct=False)


@pytest.mark.slow
def test_the_report_of_the_model_itself_has_figure_1_retrieval_and_captions(shared: Path, tmp_path: Path) -> None:
    from audiobert.auditorybench.kinds import words_of
    from audiobert.pipeline import AudioBert
    from audiobert.web.report import Sources, make_report
    from web_server import MODEL

    results, predictions = tmp_path / "results.json", tmp_path / "predictions.jsonl"
    models = [MODEL, f"{MODEL}:unheard"]
    evaluate(models, shared / "auditorybench", splits=["dev"], limit=24, out=results, predictions=predictions)
    report = make_report(Sources([results], [predictions]))
    assert {"figure_1", "retrieval", "accuracy", "calibration"} <= set(report.figures)
    assert any(
        clip["caption"] for one in report.values["examples"] for span in one["retrieved"] for clip in span["clips"]
    )
    retrieval = {label: precision for label, precision, _ in report.values["retrieval"]}
    labels = [label for label in AudioBert.from_pretrained(MODEL).bank.table["label"].to_pylist() if label]
    assert set(retrieval) <= {words_of(label) for label in labels}
    # By chance a class of the bank would be found in a few percent of the places.
    assert sum(retrieval.values()) / len(retrieval) > 0.25


@pytest.mark.slow
@pytest.mark.browser
def test_the_report_prints_and_fits_a_phone(report: Elements, evaluated: Path) -> None:
    del report
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium here; install the package 'chromium'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        tab = browser.new_page(viewport={"width": 390, "height": 800})
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto((evaluated / "report.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert all(url.startswith(("file:", "data:")) for url in asked)
        assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        printed = tab.pdf(prefer_css_page_size=True)
        browser.close()
    assert printed.startswith(b"%PDF")
