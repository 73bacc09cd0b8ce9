"""The loop, the figures, the controls, AudioBERT's adapter, span detection, and lm-evaluation-harness beside it."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

import auditorybench_toys as toys
from audiobert.auditorybench.data import Row, load_split
from audiobert.auditorybench.detection import detector_scores, evaluate_detectors
from audiobert.auditorybench.evaluate import ask, evaluate, make_plan, merge_seeds, parse_protocol, parse_seeds
from audiobert.auditorybench.metrics import Answered, Seen, rows_by_seed, share, summarise
from audiobert.auditorybench.models import ModelOptions, load_adapter
from audiobert.auditorybench.models.audiobert import AudioBertModel
from audiobert.auditorybench.models.controls import merge_proportional_columns
from audiobert.auditorybench.models.masked import MaskedLanguageModel
from audiobert.auditorybench.protocol import Prediction, choose
from audiobert.auditorybench.questions import Question, flip, make_question, normalise_reply, swap_spans
from audiobert.auditorybench.tasks import find_task
from audiobert.errors import InputError

CPU = ModelOptions(device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.make_benchmark(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.bert(tmp_path_factory.mktemp("bert"))


# --- questions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spans", "swapped"),
    [
        (
            "The sound of a piccolo has a [MASK] pitch than an acoustic guitar.",
            ("sound of a piccolo", "acoustic guitar"),
            "An acoustic guitar has a [MASK] pitch than the sound of a piccolo.",
        ),
        (
            "The sound of Bass is [MASK] than the sound of alto",
            ("Bass", "alto"),
            "The sound of alto is [MASK] than the sound of Bass",
        ),
        (
            "Opening a door has a [MASK] pitch than a bell.",
            ("Opening a door", "bell"),
            "A bell has a [MASK] pitch than Opening a door.",
        ),
    ],
)
def test_the_other_way_round(text: str, spans: tuple[str, str], swapped: str) -> None:
    places = [(text.index(span), text.index(span) + len(span)) for span in spans]
    row = Row("pitch", "dev", 0, text, "higher", spans, tuple(places))
    question = make_question(row, find_task("pitch"), Path("f.csv"), ("higher", "lower"))
    turned = flip(question, find_task("pitch"))
    assert turned is not None
    assert (turned.text, turned.answer, turned.spans) == (swapped, "lower", spans[::-1])
    assert [turned.text[a:b].lower() for a, b in turned.span_offsets] == [span.lower() for span in spans[::-1]]
    assert "____" in turned.prompt
    assert turned.text.replace("[MASK]", "____") in turned.prompt


def test_what_cannot_be_turned_is_left_out() -> None:
    assert swap_spans("A [MASK] bell.", [(9, 13)]) is None
    row = Row("pitch", "dev", 0, "A bell is [MASK] than it.", "higher", ("bell", "gong"), ((2, 6), None))
    question = make_question(row, find_task("pitch"), Path("f.csv"), ("higher", "lower"))
    assert flip(question, find_task("pitch")) is None


def test_two_masks_are_refused_with_the_row() -> None:
    row = Row("animal", "train", 3, "A [MASK] is a [MASK].", "cat")
    with pytest.raises(InputError, match=r"f\.csv, row 3: exactly one \[MASK\]"):
        make_question(row, find_task("animal"), Path("f.csv"), None)


@pytest.mark.parametrize(
    ("reply", "word"),
    [(' "The Cat."\nmore', "cat"), ("<think>dog</think>an Owl", "owl"), ("River  otter!", "river otter"), ("", "")],
)
def test_replies_are_normalised(reply: str, word: str) -> None:
    assert normalise_reply(reply) == word


@pytest.mark.parametrize(
    ("reply", "lettered", "chosen"),
    [
        ("It is lower.", False, "lower"),
        ("Not higher but lower.", False, None),
        ("banana", False, None),
        ("B", True, "lower"),
        ("(b) lower", True, "lower"),
        ("a higher one", True, "higher"),
    ],
)
def test_what_a_reply_chooses(reply: str, lettered: bool, chosen: str | None) -> None:
    assert choose(reply, ["higher", "lower"], lettered=lettered) == chosen


# --- figures ---------------------------------------------------------------------------------------------------------


def answered(
    answer: str, correct: bool, rank: int | None, text: str = "A [MASK].", flipped: bool | None = None
) -> Answered:
    question = Question("animal", "cloze", "dev", 0, text, answer, (), (), None, "", "", "", "w")
    other = None if flipped is None else Prediction("", flipped)
    return Answered(question, Prediction("", correct, rank), other)


def test_figures_of_a_split() -> None:
    rows = [
        answered("bird", True, 1, "A [MASK] sings."),
        answered("bird", True, 1),
        answered("bird", False, 3),
        answered("Cat", False, 0),
    ]
    seen = Seen.of([Row("animal", "train", 0, "a [MASK] sings.", "Bird")])
    figures = summarise(rows, seen)
    assert (figures["n"], figures["correct"], figures["accuracy"]) == (4, 2, 0.5)
    assert figures["macro_accuracy"] == pytest.approx((2 / 3 + 0) / 2, abs=1e-4)
    assert (figures["top5"], figures["mrr"], figures["answerable"]) == (0.75, pytest.approx(7 / 12, abs=1e-4), 3)
    assert figures["by_sentence"]["seen"]["n"] == 1
    assert figures["by_answer"]["seen"]["correct"] == 2
    assert figures["by_answer"]["unseen"]["accuracy"] == 0
    assert figures["rows_correct"] == "1100"
    assert "both_ways" not in figures
    assert "top5" not in summarise([answered("bird", True, None)], None)


def test_living_on_the_prior_shows_both_ways_round() -> None:
    prior = [answered("higher", True, 1, flipped=False), answered("lower", False, 2, flipped=True)]
    figures = summarise(prior, None)["both_ways"]
    assert (figures["accuracy"], figures["consistency"]) == (0, 0)
    knowing = [answered("higher", True, 1, flipped=True), answered("lower", False, 2, flipped=False)]
    assert summarise(knowing, None)["both_ways"]["consistency"] == 1


def test_several_seeds_give_mean_and_spread() -> None:
    runs = [
        {"task": "a", "split": "dev", "n": 10, "correct": c, "rows_correct": "1" * c + "0" * (10 - c)} for c in (4, 6)
    ]
    figures = merge_seeds(runs)
    assert (figures["accuracy"], figures["correct"], figures["sd"]) == (0.5, 5.0, pytest.approx(0.1414, abs=1e-4))
    assert len(figures["per_seed"]) == 2
    assert "rows_correct" not in figures  # no test can take one seed's rows for all
    assert rows_by_seed(figures) == [[1] * 4 + [0] * 6, [1] * 6 + [0] * 4]
    low, high = figures["ci95"]
    one_low, one_high = merge_seeds([{**runs[0], **(share(5, 10) or {})}])["ci95"]
    assert (high - low) > (one_high - one_low)  # trainings differ, too


def test_names_of_protocols_and_seeds() -> None:
    assert parse_protocol("paper") == "paper"
    assert parse_seeds("0-2,7") == [0, 1, 2, 7]
    assert parse_seeds(" 4, 2 ,0 - 1") == [4, 2, 0, 1]
    for bad in ("a", "1,,2", "-1", "", "3-1", "1-", "0-2,1", "²", "0-9999999999"):
        with pytest.raises(InputError, match="--seeds is"):
            parse_seeds(bad)
    with pytest.raises(InputError, match="there are paper, candidates"):
        parse_protocol("guess")


# --- the loop --------------------------------------------------------------------------------------------------------


def test_results_and_predictions_have_the_documented_form(data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "r.json", tmp_path / "p.jsonl"
    reports = evaluate([str(tiny_bert)], data, options=CPU, out=out, predictions=lines)
    written = json.loads(out.read_text())
    assert written == json.loads(json.dumps(reports[0]))
    assert {"model", "protocol", "limit", "created", "versions", "artefacts", "results", "combined"} <= set(written)
    assert written["limit"] is None
    assert {"task", "split", "n", "correct", "accuracy", "ci95", "seeds"} <= set(written["results"][0])
    assert {"split", "n", "correct", "accuracy", "ci95"} <= set(written["combined"][0])
    assert written["artefacts"]["model"]["sha256"]["model.safetensors"]
    predictions = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(predictions) == sum(result["n"] for result in written["results"])
    wanted = {"model", "task", "split", "row", "text", "answer", "prediction", "correct", "auditory", "spans", "clips"}
    assert all(wanted <= set(line) for line in predictions)
    # Anyone can score again without the model.
    dev = [line["correct"] for line in predictions if (line["task"], line["split"]) == ("animal", "dev")]
    assert sum(dev) == written["results"][0]["correct"]


def test_seeds_stand_in_for_a_part_of_the_name(data: Path, tmp_path: Path) -> None:
    shutil.copytree(toys.bert(tmp_path / "run-3"), tmp_path / "run-5")
    (report,) = evaluate([f"{tmp_path}/run-{{seed}}"], data, seeds=[3, 5], options=CPU, splits=["dev"])
    assert report["results"][0]["seeds"] == [3, 5]
    assert report["results"][0]["sd"] == 0
    assert report["combined"][0]["sd"] == 0
    assert set(report["artefacts"]) == {"model.3", "model.5", "data"}


def test_first_rows_are_written_down(data: Path) -> None:
    (report,) = evaluate(["control:majority"], data, splits=["dev"], limit=2)
    assert report["limit"] == 2
    assert [result["n"] for result in report["results"]] == [2, 2]


LOUDNESS = """
name: loudness
title: Loudness comparison
benchmark: mine
kind: comparison
files: {train: [loudness_train.csv], dev: [loudness_dev.csv]}
columns: {text: [sentence], answer: [answer], spans: [[span1], [span2]]}
candidates: [louder, quieter]
prompt: "{blank}"
chat: "{blank}"
"""


def test_a_comparison_with_other_words_needs_no_code(tmp_path: Path) -> None:
    """The words of a comparison come from the task's YAML alone: a masked model, a control and both ways round."""
    task = tmp_path / "loudness.yaml"
    task.write_text(LOUDNESS)
    rows = [("thunder", "whisper", "louder"), ("moth", "siren", "quieter"), ("siren", "moth", "louder")]
    for split in ("train", "dev"):
        lines = [f"The {a} is [MASK] than the {b}.,{answer},{a},{b}" for a, b, answer in rows]
        (tmp_path / f"loudness_{split}.csv").write_text("sentence,answer,span1,span2\n" + "\n".join(lines) + "\n")
    model = toys.bert(tmp_path / "bert", whole=("louder", "quieter", "thunder", "whisper", "moth", "siren"))
    names = [str(model), "control:majority", "control:bag-of-words"]
    reports = evaluate(names, tmp_path, tasks=[str(task)], splits=["dev"], options=CPU)
    for report in reports:
        (entry,) = report["results"]
        assert (entry["task"], entry["title"], entry["n"]) == ("loudness", "Loudness comparison", 3)
        assert entry["both_ways"]["n"] == 3
    majority, words = reports[1]["results"][0], reports[2]["results"][0]
    assert (majority["correct"], majority["both_ways"]["correct"]) == (2, 0)  # "louder", either way round
    assert (words["correct"], words["both_ways"]["correct"]) == (3, 3)
    (part,) = make_plan(tmp_path, [str(task)], ["dev"]).parts
    turned = part.flipped[1]
    assert turned is not None
    assert (turned.text, turned.answer) == ("The siren is [MASK] than the moth.", "louder")
    assert turned.candidates == ("louder", "quieter")


def test_nothing_is_lost_when_a_later_model_fails(data: Path, tiny_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with pytest.raises(InputError, match="no control"):
        evaluate([str(tiny_bert), "control:coin"], data, options=CPU, splits=["dev"], out=out)
    assert json.loads(out.read_text())["model"] == str(tiny_bert)


def test_a_split_that_is_not_there_is_said(data: Path) -> None:
    with pytest.raises(InputError, match=r"lacks animal_sound_recognition_test\.csv"):
        make_plan(data, splits=["test"])
    with pytest.raises(InputError, match="none of the splits nope"):
        make_plan(data, splits=["nope"])


# --- controls --------------------------------------------------------------------------------------------------------


def test_controls_learn_from_train_alone(data: Path) -> None:
    plan = make_plan(data, splits=["dev"])
    animal, pitch = plan.parts
    majority = load_adapter("control:majority", plan.train)
    assert {a.prediction.text for a in ask(majority, animal)} == {"bird"}
    assert {a.prediction.text for a in ask(majority, pitch)} == {"higher"}
    assert summarise(ask(majority, pitch), pitch.seen)["both_ways"]["accuracy"] == 0
    words = load_adapter("control:bag-of-words", plan.train)
    found = {a.question.text: a.prediction for a in ask(words, animal)}
    assert found["Woof is the sound a [MASK] makes."].text == "dog"
    assert found["A [MASK] makes a bark."].rank == 0  # "zebra" is no answer of train
    assert all(a.prediction.correct for a in ask(words, pitch))  # it has seen these very rows
    assert summarise(ask(words, pitch), None)["both_ways"]["consistency"] > 0.5
    with pytest.raises(InputError, match="which the folder lacks"):
        ask(load_adapter("control:majority", {}), animal)


def test_a_control_that_is_told_the_wordpieces_ranks_only_such_answers(data: Path) -> None:
    plan = make_plan(data, ["animal"], ["dev"])
    (part,) = plan.parts
    told = load_adapter("control:bag-of-words-told", plan.train)
    found = {a.question.answer: a.prediction for a in ask(told, part)}
    assert set(found["Guinea pig"].scores) == {"river otter", "guinea pig"}  # two wordpieces
    assert "river otter" not in found["dog"].scores
    assert found["zebra"].rank == 0
    assert told.artefacts["told_wordpieces"] is True
    # Protocol `candidates` tells no model the number.
    (part,) = make_plan(data, ["animal"], ["dev"], "candidates").parts
    plain = load_adapter("control:bag-of-words", plan.train)
    assert [a.prediction for a in ask(told, part)] == [a.prediction for a in ask(plain, part)]


def test_text_scorers_learn_words_and_comparisons(data: Path) -> None:
    plan = make_plan(data, splits=["dev"])
    animal, pitch = plan.parts
    control = load_adapter("control:text-scorers", plan.train)
    found = {a.question.text: a.prediction for a in ask(control, animal)}
    assert found["Woof is the sound a [MASK] makes."].text == "dog"
    assert all(a.prediction.correct for a in ask(control, pitch))  # it has seen these very rows
    assert summarise(ask(control, pitch), None)["both_ways"]["consistency"] > 0.5
    again = {a.question.text: a.prediction for a in ask(load_adapter("control:text-scorers", plan.train), animal)}
    assert again == found
    with pytest.raises(InputError, match="needs two different answers"):
        ask(load_adapter("control:text-scorers", {"animal": plan.train["animal"][:1]}), animal)


def test_merging_columns_does_not_change_the_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    base = generator.normal(size=(60, 5)) * (generator.random((60, 5)) < 0.5)
    inputs = sparse.csr_matrix(np.hstack([base, -2 * base[:, :2], 0.5 * base[:, :1], np.zeros((60, 1))]))
    answers = (base[:, 0] + base[:, 1] - base[:, 2] > 0).astype(int) + (base[:, 3] > 0.5)
    merge = merge_proportional_columns(inputs)
    assert merge.shape == (9, 5)
    whole = LogisticRegression(tol=1e-8).fit(inputs, answers).predict_proba(inputs)
    merged = LogisticRegression(tol=1e-8).fit(inputs @ merge, answers).predict_proba(inputs @ merge)
    assert np.abs(whole - merged).max() < 1e-5


@pytest.mark.slow
def test_the_published_controls(shared: Path) -> None:
    """The figures that the control must reproduce: pitch dev 78.4, wiki 73.4 (C = 1), majority dev 59.3."""
    plan = make_plan(shared / "auditorybench", ["pitch"])
    words, majority = (load_adapter(name, plan.train) for name in ("control:bag-of-words", "control:majority"))
    accuracy = [summarise(ask(words, part), part.seen)["accuracy"] for part in plan.parts]
    assert accuracy == pytest.approx([0.784, 0.734], abs=6e-4)
    accuracy = [summarise(ask(majority, part), part.seen)["accuracy"] for part in plan.parts]
    assert accuracy == pytest.approx([0.593, 0.479], abs=6e-4)


# --- AudioBERT -------------------------------------------------------------------------------------------------------


def places_of(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in re.finditer("oof|purr", text)]


@dataclass
class FakeAudioBert:
    """What the adapter needs of an AudioBERT: a tokenizer, a detector, scores; it notes what it was asked."""

    model: MaskedLanguageModel

    def __post_init__(self) -> None:
        self.tokenizer = self.model.tokenizer
        self.mask_token, self.causal = "[MASK]", False
        self.asked: list[tuple[str, list[tuple[int, int]] | None]] = []
        self.detected: list[str] = []
        self.excluded: list[Any] = []

    def detect(self, texts: list[str]) -> list[list[Any]]:
        self.detected.extend(texts)
        return [
            [SimpleNamespace(start=m.start(), end=m.end()) for m in re.finditer("oof|purr", text)] for text in texts
        ]

    def score_masks(
        self,
        texts: list[str],
        *,
        sound: str,
        spans: list[list[tuple[int, int]]] | None,
        hits: None,
        batch_size: int,
        exclude: list[str] | None,
    ) -> list[Any]:
        del batch_size, hits
        self.excluded.append(exclude)
        scored = []
        for index, text in enumerate(texts):
            places = spans[index] if spans is not None else None
            self.asked.append((text, places))
            ids = torch.tensor([self.tokenizer(text)["input_ids"]])
            with torch.no_grad():
                logits = self.model.model(input_ids=ids).logits[ids == self.tokenizer.mask_token_id]
            hits = [SimpleNamespace(clips=[SimpleNamespace(clip=SimpleNamespace(id="c1"))]) for _ in places or []]
            auditory = sound != "off" and bool(places)
            scored.append(SimpleNamespace(log_probs=logits.log_softmax(dim=-1), auditory=auditory, spans=hits))
        return scored


@pytest.fixture
def fake(tiny_bert: Path) -> FakeAudioBert:
    return FakeAudioBert(MaskedLanguageModel.from_pretrained(str(tiny_bert), device="cpu"))


@pytest.mark.parametrize("protocol", ["paper", "candidates"])
def test_audiobert_is_scored_like_the_model_inside(fake: FakeAudioBert, data: Path, protocol: str) -> None:
    for part in make_plan(data, splits=["dev"], protocol=parse_protocol(protocol)).parts:
        ours = ask(AudioBertModel(fake, "fake"), part)  # type: ignore[arg-type]
        plain = ask(fake.model, part)
        assert [a.prediction.rank for a in ours] == [a.prediction.rank for a in plain]
        assert [a.prediction.text for a in ours] == [a.prediction.text for a in plain]


def test_spans_are_found_once_and_move_with_the_masks(fake: FakeAudioBert, data: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"], protocol=parse_protocol("candidates")).parts
    found = ask(AudioBertModel(fake, "fake"), part)  # type: ignore[arg-type]
    assert sorted(fake.detected) == sorted(question.text for question in part.questions)
    moved = {(text[a:b], a) for text, places in fake.asked for a, b in places or []}
    assert {word for word, _ in moved} == {"oof", "purr"}
    assert len({start for word, start in moved if word == "purr"}) > 1  # behind a mask, of several lengths
    heard = {a.question.text: a.prediction for a in found}
    assert heard["Woof is the sound a [MASK] makes."].auditory is True
    assert heard["Woof is the sound a [MASK] makes."].clips == ["c1"]
    assert heard["Woof is the sound a [MASK] makes."].spans == [{"text": "oof", "start": 1, "end": 4}]
    assert heard["[MASK] can chirp."].auditory is False


def test_gold_spans_stand_at_their_words_behind_many_masks(fake: FakeAudioBert, data: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"]).parts
    ask(AudioBertModel(fake, "fake", spans="gold"), part)  # type: ignore[arg-type]
    gold = {row.spans[0] for row in load_split(data, "animal", "dev")}
    said = [text[a:b] for text, places in fake.asked for a, b in places or []]
    assert len(said) >= len(part.questions)
    assert {word.lower() for word in said} <= {word.lower() for word in gold}


def test_clips_that_are_excluded_are_excluded_everywhere(fake: FakeAudioBert, data: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"]).parts
    ask(AudioBertModel(fake, "fake", exclude=["c2"]), part)  # type: ignore[arg-type]
    assert fake.excluded and all(exclude == ["c2"] for exclude in fake.excluded)


def test_sound_off_gives_no_spans(fake: FakeAudioBert, data: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"]).parts
    found = ask(AudioBertModel(fake, "fake", sound="off"), part)  # type: ignore[arg-type]
    assert fake.asked and not any(places for _, places in fake.asked)
    assert not any(a.prediction.auditory for a in found)


# --- span detection --------------------------------------------------------------------------------------------------


def test_span_f1_is_the_published_one(fake: FakeAudioBert, data: Path) -> None:
    from sklearn.metrics import f1_score

    rows = load_split(data, "animal", "dev")
    scores = detector_scores(fake, rows)
    offsets = fake.tokenizer([row.text for row in rows if row.span_offsets[0]], return_offsets_mapping=True)[
        "offset_mapping"
    ]
    gold, said = [], []
    for row, tokens in zip((r for r in rows if r.span_offsets[0]), offsets, strict=True):
        a, b = row.span_offsets[0] or (0, 0)
        first, last = next(iter(places_of(row.text)), (-1, -1))
        padding = [0] * (128 - len(tokens))
        gold.append([int(s < b and e > a and e > s) for s, e in tokens] + padding)
        said.append([int(s < last and e > first and e > s) for s, e in tokens] + padding)
    assert scores["f1"] == pytest.approx(f1_score(gold, said, average="weighted", zero_division=0), abs=1e-4)
    assert scores["n"] + scores["skipped"] == len(rows)
    assert 0 < scores["recall"] < 1


def test_detectors_are_scored_apart_and_together(fake: FakeAudioBert, data: Path) -> None:
    (report,) = evaluate_detectors(["fake"], data, splits=["dev"], loader=lambda *_: (fake, {}))
    assert [(e["task"], e["split"]) for e in report["detection"]] == [
        ("animal", "dev"),
        ("pitch", "dev"),
        ("combined", "dev"),
    ]


# --- AuditoryBench++ and lm-evaluation-harness -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (
            "pp-pitch",
            "sentence,choices,answer\nA bell is [MASK] than a gong.,\"['higher', 'lower']\",higher\n"
            "A gong is [MASK] than a bell.,\"['higher', 'lower']\",lower\n",
        ),
        ("pp-duration", "question,A,B,answer\nWhich is longer?,thunder,click,A\n"),
        (
            "pp-loudness",
            "question,span1,span2,label\nWhich is louder?,thunder,click,A\nWhich is louder?,click,thunder,B\n",
        ),
        ("pp-animal", 'sentence,animal,A,B,C,D,Answer\n"Meow is the sound of a [MASK].",cat,dog,cat,cow,owl,B\n'),
        ("pp-mmau", "question,choices,answer\nWhere is it?,\"['a park', 'a pool', 'a shop', 'a train']\",a pool\n"),
    ],
)
def test_auditorybench_plus_plus_in_the_same_loop(tmp_path: Path, tiny_bert: Path, task: str, text: str) -> None:
    path = tmp_path / task.removeprefix("pp-") / "test.csv"
    path.parent.mkdir()
    path.write_text(text)
    rows = load_split(tmp_path, task, "test")
    assert all(row.choices and row.answer in row.choices for row in rows)
    if task == "pp-loudness":
        assert [row.answer for row in rows] == ["thunder", "thunder"]
    (report,) = evaluate([str(tiny_bert)], tmp_path, tasks=[task], splits=["test"], options=ModelOptions(device="cpu"))
    assert report["results"][0]["protocol"] == "multiple-choice"
    assert report["results"][0]["n"] == len(rows)


def test_lm_evaluation_harness_agrees_to_the_row(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    import audiobert.auditorybench as package

    folder = toys.gpt2(tmp_path / "gpt2")
    monkeypatch.setenv("AUDITORYBENCH_DIR", str(data))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tasks = ["auditorybench_pitch_dev", "auditorybench_animal_dev", "auditorybench_animal_candidates_dev"]
    manager = TaskManager(include_path=str(Path(package.__file__).parent / "lm_eval_tasks"), include_defaults=False)
    theirs = lm_eval.simple_evaluate(
        HFLM(pretrained=str(folder), device="cpu", batch_size=2, dtype="float32"),
        tasks=tasks,
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,
    )
    for name, task, protocol in zip(
        tasks, ("pitch", "animal", "animal"), ("paper", "paper", "candidates"), strict=True
    ):
        plan = make_plan(data, [task], ["dev"], parse_protocol(protocol))
        ours = ask(load_adapter(str(folder), plan.train, CPU), plan.parts[0])
        samples = sorted(theirs["samples"][name], key=lambda sample: sample["doc_id"])
        assert len(samples) == len(ours)
        for sample, mine in zip(samples, ours, strict=True):
            assert sample["doc"]["row"] == mine.question.row
            assert bool(sample["acc"]) == mine.prediction.correct
            if "choices" in sample["doc"] and sample["doc"]["choices"]:
                scores = [response[0] for response in sample["filtered_resps"]]
                best = max(range(len(scores)), key=scores.__getitem__)
                assert sample["doc"]["choices"][best] == mine.prediction.text
                shown = mine.prediction.scores[mine.prediction.text]
                assert math.isclose(scores[best], shown, abs_tol=1e-3)
            else:
                assert normalise_reply(sample["filtered_resps"][0]) == mine.prediction.text
