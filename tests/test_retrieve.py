"""Which clips a text gets: by sound, by name, or both; from one bank or several."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from audiobert import retrieve
from audiobert.bank import AudioBank
from audiobert.bank.store import write_bank
from audiobert.clap import QueryVectors
from audiobert.errors import InputError
from audiobert.retrieve import Calibration, RetrievalSettings, Retriever

WIDTH = 64


def unit(*axes):
    vector = np.zeros(WIDTH, dtype=np.float32)
    vector[list(axes)] = 1.0
    return vector / np.linalg.norm(vector)


WORDS = {
    word: place
    for place, word in enumerate(
        ["piccolo", "bassoon", "playing", "note", "cow", "mooing", "woof", "dog", "barking"],
    )
}


class Clap:
    """Sentence vectors of the words in a text; in the space of sound, "woof" is where dogs are."""

    clap_dim = text_dim = WIDTH

    def embed_query(self, texts):
        sentence = [unit(*[WORDS[word] for word in text.split() if word in WORDS] or [WIDTH - 1]) for text in texts]
        sound = [unit(20) if "woof" in text or "dog" in text else unit(WIDTH - 2) for text in texts]
        return QueryVectors(np.stack(sentence), np.stack(sound))


CLIPS = [
    ("p1", "a piccolo playing a note", "piccolo", unit(21)),
    ("p2", "a piccolo playing a note", "piccolo", unit(22)),
    ("b1", "a bassoon playing a note", "bassoon", unit(23)),
    ("c1", "a cow mooing", "cow", unit(24)),
    ("d1", None, None, unit(20)),
]
CLIP_IDS = [clip[0] for clip in CLIPS]


def bank(folder: Path, clips=CLIPS, named=True) -> AudioBank:
    folder.mkdir()
    write_bank(
        folder,
        clips=len(clips),
        rows=(
            ({"id": id, "caption": caption, "label": label}, sound, np.full(4, place, dtype=np.float32))
            for place, (id, caption, label, sound) in enumerate(clips)
        ),
        rejected=[],
        clap_dim=WIDTH,
        hidden_size=4,
        text_dim=WIDTH,
        name_vectors=(lambda names: Clap().embed_query(names).sentence) if named else None,
        manifest={"identity": {}, "settings": {}, "audio_root": None},
    )
    return AudioBank.open(folder)


def ids(found):
    return [hit.clip.id for hit in getattr(found, "hits", found)]


def test_the_kind_that_is_named_comes_first_and_at_a_high_score(tmp_path):
    found = Retriever(Clap(), [bank(tmp_path / "a")], RetrievalSettings(by="both", clips=3)).find(["a piccolo"])[0]
    assert set(ids(found)[:2]) == {"p1", "p2"}
    first, _, third = found.hits
    assert first.score > 0.9
    assert third.score < 0.5
    np.testing.assert_array_equal(first.knowledge, [first.row] * 4)


def test_what_the_bank_lacks_gets_a_low_score(tmp_path):
    retriever = Retriever(Clap(), [bank(tmp_path / "a")], RetrievalSettings(by="both", clips=2))
    assert retriever.find(["a theremin"])[0].hits[0].score < 0.2


def test_sound_finds_what_has_no_name(tmp_path):
    for by in ("both", "sound"):
        found = Retriever(Clap(), [bank(tmp_path / by)], RetrievalSettings(by=by, clips=1)).find(["woof woof"])[0]
        assert ids(found) == ["d1"]
    assert found.hits[0].score == pytest.approx(1.0, abs=1e-3)  # by sound alone the score is the cosine
    named = Retriever(Clap(), [bank(tmp_path / "c")], RetrievalSettings(by="caption", clips=1)).find(["woof woof"])[0]
    assert ids(named) == ["d1"]  # a clip that is known by nothing is found by its sound


def test_a_bank_without_names_is_searched_by_sound(tmp_path):
    found = Retriever(Clap(), [bank(tmp_path / "a", named=False)], RetrievalSettings(by="both")).find(["a dog"])[0]
    assert ids(found) == ["d1"]
    assert found.hits[0].score == pytest.approx(1 / (1 + np.exp(-Calibration().by_sound(np.array(1.0)))), abs=1e-3)


def test_two_banks_are_searched_together(tmp_path):
    first, second = bank(tmp_path / "a", CLIPS[:3]), bank(tmp_path / "b", CLIPS[3:])
    retriever = Retriever(Clap(), [first, second], RetrievalSettings(by="both", clips=2))
    assert ids(retriever.find(["a cow"])[0])[0] == "c1"
    assert ids(retriever.find(["a bassoon"])[0])[0] == "b1"
    assert len(retriever) == 5
    together = Retriever(Clap(), [bank(tmp_path / "c")], retriever.settings)
    for query in ("a cow", "a bassoon", "woof", "a piccolo"):
        wanted = {(hit.clip.id, round(hit.score, 6)) for hit in together.find([query])[0].hits}
        assert {(hit.clip.id, round(hit.score, 6)) for hit in retriever.find([query])[0].hits} == wanted


@pytest.mark.parametrize("by", ["sound", "both", "both, large"])
def test_exclusion_and_filters(tmp_path, monkeypatch, by):
    if "large" in by:
        monkeypatch.setattr("audiobert.retrieve._DENSE_CLIPS", 0)
    opened = bank(tmp_path / "a")
    retriever = Retriever(Clap(), [opened], RetrievalSettings(by=by.split(",")[0], clips=2))
    assert "p1" not in ids(retriever.find(["a piccolo"], exclude=["p1"])[0])
    assert retriever.find(["a piccolo"], exclude=[clip[0] for clip in CLIPS])[0].hits == ()
    assert ids(retriever.find(["a piccolo"], labels=["cow"])[0]) == ["c1"]
    everything = Retriever(Clap(), [opened], retriever.settings).find(["a piccolo"])[0]
    assert ids(retriever.find(["a piccolo"])[0]) == ids(everything)  # what was excluded once is not remembered
    scores, rows = retriever.rows(opened, retriever.embed(["piccolo"]), 4, mask=np.array([1, 0, 1, 1, 0], dtype=bool))
    assert sorted(rows[0, :3]) == [0, 2, 3]
    assert (rows[0, 3], scores[0, 3]) == (-1, -1.0)  # there are fewer
    assert scores.shape == rows.shape == (1, 4)
    mask = np.array([1, 0, 1, 0, 0], dtype=bool)
    _, rows = retriever.rows(opened, retriever.embed(["piccolo"]), 4, mask=mask, exclude=["p1", "d1"])
    assert rows.tolist() == [[2, -1, -1, -1]]


def test_a_large_bank_gives_what_a_small_one_gives(tmp_path, monkeypatch):
    opened = bank(tmp_path / "a")
    texts = ["a piccolo", "woof", "cow", "piccolo playing a note"]
    small = Retriever(Clap(), [opened], RetrievalSettings(by="both", clips=5)).find(texts)
    monkeypatch.setattr("audiobert.retrieve._DENSE_CLIPS", 0)
    large = Retriever(Clap(), [opened], RetrievalSettings(by="both", clips=5)).find(texts)
    for one, other in zip(small, large, strict=True):
        assert ids(one) == ids(other)
        np.testing.assert_allclose([hit.score for hit in one.hits], [hit.score for hit in other.hits], rtol=1e-4)


@pytest.mark.parametrize("by", ["sound", "both", "caption"])
def test_many_queries_are_made_in_blocks_and_give_what_each_gives_alone(tmp_path, monkeypatch, by):
    opened = bank(tmp_path / "a")
    texts = ["piccolo", "woof", "cow", "bassoon", "note"]
    settings = RetrievalSettings(by=by, clips=2)
    alone = [Retriever(Clap(), [opened], settings).find([text])[0] for text in texts]
    blocks = []
    embed = Clap.embed_query
    monkeypatch.setattr(Clap, "embed_query", lambda self, some: blocks.append(len(some)) or embed(self, some))
    monkeypatch.setattr("audiobert.retrieve._BLOCK_QUERIES", 2)
    together = Retriever(Clap(), [opened], settings).find(texts)
    assert blocks == [2, 2, 1]
    assert [(ids(found), [hit.score for hit in found.hits]) for found in together] == [
        (ids(found), pytest.approx([hit.score for hit in found.hits])) for found in alone
    ]


def test_scores_are_the_odds_of_name_and_sound_added(tmp_path):
    calibration = Calibration(name=(2.0, -1.0), sound=(3.0, -2.0), same_name=10.0)
    assert calibration.by_name(np.array([0.5, 0.9, 0.95])) == pytest.approx([0.0, 0.8, 1.4])
    assert calibration.by_sound(np.array([0.0, 1.0])) == pytest.approx([-2.0, 1.0])
    opened = bank(tmp_path / "a")
    odds = {}
    for by in ("caption", "both"):
        settings = RetrievalSettings(by=by, clips=5, calibration=calibration)
        hits = Retriever(Clap(), [opened], settings).find(["woof piccolo"])[0].hits
        odds[by] = {hit.clip.id: hit.score / (1 - hit.score) for hit in hits}
    name = np.exp(2 * unit(0) @ unit(0, 6) - 1)  # the nearest of what each clip is known by: its label
    none = np.exp(-1.0)
    sound, silence = np.exp(1.0), np.exp(-2.0)
    assert odds["caption"] == pytest.approx({"d1": sound, "p1": name, "p2": name, "b1": none, "c1": none}, rel=1e-3)
    assert odds["both"] == pytest.approx(
        {**{id: odds["caption"][id] + silence for id in CLIP_IDS[:-1]}, "d1": sound}, rel=1e-3
    )
    assert list(odds["caption"]) == ["d1", "p1", "p2", "b1", "c1"]  # equal ones in the order of the bank


def test_a_clip_that_has_one_name_is_found_by_it(tmp_path):
    clips = [("p1", None, "piccolo", unit(21)), *[(f"c{row}", "a cow mooing", None, unit(20)) for row in range(40)]]
    for by in ("caption", "both"):
        retriever = Retriever(Clap(), [bank(tmp_path / by, clips)], RetrievalSettings(by=by, clips=40))
        found = retriever.find(["a piccolo"])[0].hits
        assert found[0].clip.id == "p1" and found[0].score > 0.9
        same = retriever.find(["mooing woof"])[0]
        assert ids(same) == [f"c{row}" for row in range(40)]  # equal ones in the order of the bank


def test_relatives_are_those_of_the_clips_that_may_be_found(tmp_path):
    retriever = Retriever(Clap(), [bank(tmp_path / "a")], RetrievalSettings(by="both", relatives=1))
    cow, piccolo = retriever.find(["a cow", "a piccolo"])
    np.testing.assert_allclose(cow.relatives.vector, [3 / 1.1] * 4, rtol=1e-2)  # of the one clip named so
    np.testing.assert_allclose(piccolo.relatives.vector, [0.5 / 1.1] * 4, rtol=1e-2)
    (left,) = retriever.find(["a piccolo"], exclude=["p2"])
    np.testing.assert_allclose(left.relatives.vector, [0.0] * 4, atol=1e-6)


@pytest.mark.parametrize("dense", [0, 100])
def test_a_bank_none_of_whose_clips_has_a_name_is_searched_by_sound(tmp_path, monkeypatch, dense):
    monkeypatch.setattr("audiobert.retrieve._DENSE_CLIPS", dense)
    opened = bank(tmp_path / "a", [(id, None, None, sound) for id, _, _, sound in CLIPS])
    retriever = Retriever(Clap(), [opened], RetrievalSettings(by="both", clips=2, relatives=1))
    found = retriever.find(["woof"])[0]
    assert ids(found)[0] == "d1" and len(found.hits) == 2
    assert found.relatives is None


def test_of_a_large_bank_only_what_is_near_is_scored(tmp_path, monkeypatch):
    for limit in ("_DENSE_CLIPS", "_CANDIDATE_CLIPS", "_CANDIDATE_NAMES", "_CLIPS_PER_NAME"):
        monkeypatch.setattr(f"audiobert.retrieve.{limit}", 1)
    first = [("d0", None, None, unit(20)), ("c1", "cow mooing", None, unit(24)), ("c2", "cow mooing", None, unit(25))]
    opened = bank(tmp_path / "a", [*first, ("b1", "bassoon playing", None, unit(23)), ("x", None, None, unit(22))])
    retriever = Retriever(Clap(), [opened], RetrievalSettings(by="both"))
    scored = []
    best = retrieve._NamedClips._best
    monkeypatch.setattr(retrieve._NamedClips, "_best", lambda *given: scored.append(given[3].tolist()) or best(*given))
    assert [ids(found) for found in retriever.find(["woof cow", "bassoon"])] == [["d0"], ["b1"]]
    assert scored[0] == [0, 1]  # one by sound, and the first of one name
    assert 3 in scored[1] and len(scored[1]) == 2
    assert set(ids(retriever.find(["woof cow"], 3)[0])) == {"d0", "c1", "c2"}
    assert len(retriever.find(["woof"], 5)[0].hits) == 5  # as many by sound as are wanted
    assert ids(retriever.find(["cow mooing"], 2)[0]) == ["c1", "c2"]  # and of a name
    monkeypatch.setattr("audiobert.retrieve._DENSE_CLIPS", 5)
    assert ids(Retriever(Clap(), [opened], RetrievalSettings(by="both")).find(["cow mooing"])[0]) == ["c1"]
    assert scored[-1] == [0, 1, 2, 3, 4]


def test_a_search_is_for_words_of_ones_own_and_takes_filters(tmp_path):
    retriever = Retriever(Clap(), [bank(tmp_path / "a")], RetrievalSettings(by="both", query="sound of {span}"))
    found = retriever.search(["A Piccolo!", "a cow"], 2)
    assert [ids(own)[0] for own in found] == ["p1", "c1"]
    assert [len(own) for own in found] == [2, 2]
    assert ids(retriever.search(["a piccolo"], 5, labels=["cow"])[0]) == ["c1"]
    with pytest.raises(InputError, match="top_k is 0"):
        retriever.search(["dog"], 0)


@pytest.mark.parametrize(("by", "looked_up"), [("sound", "The sound of a Cow!"), ("both", "cow"), ("caption", "cow")])
def test_clap_gets_the_words_as_they_are_and_names_get_them_plain(tmp_path, by, looked_up):
    class Recording(Clap):
        asked: ClassVar[list[str]] = []

        def embed_query(self, texts):
            self.asked.extend(texts)
            return super().embed_query(texts)

    clap = Recording()
    retriever = Retriever(clap, [bank(tmp_path / "a")], RetrievalSettings(by=by, query="The sound of {span}!"))
    Recording.asked.clear()
    retriever.find(["a Cow"])
    retriever.search(["The sound of a Cow!"], 1)
    assert clap.asked == [looked_up] * 2


def test_settings_are_the_papers_unless_others_are_given():
    plain = RetrievalSettings()
    assert (plain.by, plain.clips, plain.relatives, plain.query) == ("sound", 1, 0, "{span}")


def test_no_bank_finds_nothing():
    found = Retriever(Clap(), [], RetrievalSettings(by="both", relatives=2)).find(["a piccolo"])[0]
    assert found.hits == () and found.relatives is None


def test_what_was_found_once_is_not_looked_up_again(tmp_path, monkeypatch):
    retriever = Retriever(Clap(), [bank(tmp_path / "a")], RetrievalSettings(by="both", clips=2))
    first = retriever.find(["a piccolo", "a cow"])
    monkeypatch.setattr(Clap, "embed_query", None)  # looking up again would fail
    again = retriever.find(["a cow", "a piccolo", "a cow"])
    assert [ids(found) for found in again] == [ids(first[1]), ids(first[0]), ids(first[1])]
    with pytest.raises(TypeError):
        retriever.find(["a cow"], 1)  # another number of clips is another question


def test_only_so_many_queries_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr("audiobert.retrieve._REMEMBERED_QUERIES", 2)
    retriever = Retriever(Clap(), [bank(tmp_path / "a")], RetrievalSettings(by="both"))
    assert [ids(found) for found in retriever.find(["a cow", "a bassoon", "a dog"])] == [["c1"], ["b1"], ["d1"]]
    assert list(retriever._remembered) == [("bassoon", 1), ("dog", 1)]
    retriever.find(["a cow"])
    assert list(retriever._remembered) == [("dog", 1), ("cow", 1)]
