"""Test the states of an AudioBERT whose spans get other clips than those that are retrieved."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import auditorybench_toys as toys

from audiobert.auditorybench.evaluate import ask, make_plan
from audiobert.auditorybench.models import ModelOptions, load_adapter
from audiobert.auditorybench.models.audiobert import AudioBertModel

TEXTS = ["a piccolo", "a dog", "thunder", "a violin"]


def adapter(state: str) -> AudioBertModel:
    model = load_adapter(f"mini:{state}", {}, ModelOptions(device="cpu"))
    assert isinstance(model, AudioBertModel)
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.make_benchmark(tmp_path_factory.mktemp("benchmark"))


def test_shuffled_clips_are_those_of_another_text_with_the_scores_of_its_own() -> None:
    own, other = (adapter(state).pipeline.retriever.find(TEXTS, 4) for state in ("gold-spans", "shuffled-clips"))
    for place, (mine, given) in enumerate(zip(own, other, strict=True)):
        partner = own[(place + 2) % 4]
        assert [hit.clip.id for hit in given.hits] == [hit.clip.id for hit in partner.hits]
        assert [hit.score for hit in given.hits] == [hit.score for hit in mine.hits]
        assert given.relatives is partner.relatives or given.relatives.weight == partner.relatives.weight
    (alone,) = adapter("shuffled-clips").pipeline.retriever.find(TEXTS[:1])
    assert not alone.hits
    assert alone.relatives is None


def test_random_clips_are_drawn_once_for_each_text() -> None:
    retriever = adapter("random-clips").pipeline.retriever
    first, again = retriever.find(TEXTS, 8), retriever.find(TEXTS[::-1], 8)[::-1]
    drawn = [[hit.clip.id for hit in found.hits] for found in first]
    assert drawn == [[hit.clip.id for hit in found.hits] for found in again]
    assert len({name for ids in drawn for name in ids}) > 24  # of 32 draws out of thousands of clips
    left_out = set(drawn[0])
    others = retriever.find(TEXTS, 8, exclude=left_out)
    assert not left_out & {hit.clip.id for found in others for hit in found.hits}


def test_answer_clips_are_of_the_kind_that_is_the_answer(data: Path) -> None:
    model = adapter("answer-clips")
    (part,) = make_plan(data, ["animal"], ["dev"]).parts
    labels = {clip["id"]: clip["label"] for clip in model.pipeline.bank.rows()}
    used = {one.question.answer.casefold(): one.prediction.clips for one in ask(model, part) if one.prediction.spans}
    known = {answer: clips for answer, clips in used.items() if answer in labels.values()}
    assert known
    assert all({labels[clip].casefold() for clip in clips} == {answer} for answer, clips in known.items())


@pytest.mark.parametrize(
    ("state", "setting", "value"),
    [
        ("by-caption", "by", "caption"),
        ("by-sound", "by", "sound"),
        ("one-clip", "clips", 1),
        ("no-relatives", "relatives", 0),
    ],
)
def test_a_state_changes_one_setting_of_the_retrieval(state: str, setting: str, value: object) -> None:
    model = adapter(state)
    changed = model.pipeline.retriever.settings.model_dump()
    assert changed == adapter("gold-spans").pipeline.retriever.settings.model_dump() | {setting: value}
    (found,) = model.pipeline.retriever.find(TEXTS[:1])
    assert len(found.hits) == changed["clips"]
    assert (found.relatives is None) == (changed["relatives"] == 0)
    assert model.artefacts["retrieval"] == changed
