"""The steps one by one: input, rules, labels, pairs, splits, review."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import soundfile

from audiobert.audio import load_audio
from audiobert.construct import rules
from audiobert.construct.collection import CollectionSettings, clip_bytes, read_collection
from audiobert.construct.labels import LabelFilter, is_animal
from audiobert.construct.pitch import PitchSettings, choose_pairs
from audiobert.construct.records import AnimalRow, CategorizedClip, PitchRow, SourceClip, read_records, write_records
from audiobert.construct.review import ReviewSettings, export_review, import_review
from audiobert.construct.split import SplitSettings, content_key, make_splits, turned
from audiobert.construct.store import Store
from audiobert.errors import InputError


def _tone(path: Path, hz: float, seconds: float = 0.6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(16_000 * seconds)) / 16_000
    wave = sum(np.sin(2 * np.pi * hz * harmonic * time) / harmonic for harmonic in (1, 2, 3))
    soundfile.write(path, (0.3 * wave).astype(np.float32), 16_000)


# --- input -----------------------------------------------------------------------------------------------------------


def test_manifest_as_csv_jsonl_and_parquet(tmp_path: Path) -> None:
    rows = [
        {"path": "a/one.wav", "title": "Dog <b>barks</b>", "tags": "dog, bark", "caption": "a dog", "source": "S"},
        {"path": "a/two.wav", "title": "Rain", "tags": "", "caption": "", "source": "T"},
    ]
    with (tmp_path / "m.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    found = [
        read_collection(CollectionSettings(path=tmp_path / f"m.{kind}"))[0] for kind in ("csv", "jsonl", "parquet")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0][0] == SourceClip(
        id="a/one", path="a/one.wav", title="Dog barks", tags=("dog", "bark"), captions=("a dog",), source="S"
    )
    only = read_collection(CollectionSettings(path=tmp_path / "m.csv", where={"source": ["T"]}))[0]
    assert [clip.id for clip in only] == ["a/two"]
    named = CollectionSettings(path=tmp_path / "m.csv", columns={"description": "caption"})
    assert read_collection(named)[0][0].description == "a dog"
    with pytest.raises(InputError, match="no column 'colour': it has path, title"):
        read_collection(CollectionSettings(path=tmp_path / "m.csv", where={"colour": ["red"]}))
    (tmp_path / "twice.jsonl").write_text(f"{json.dumps(rows[0])}\n{json.dumps(rows[0])}\n", encoding="utf-8")
    with pytest.raises(InputError, match="two clips with the id 'a/one'"):
        read_collection(CollectionSettings(path=tmp_path / "twice.jsonl"))


def test_laion_layout_loose_and_in_shards(tmp_path: Path) -> None:
    text = {
        "text": ["A small dog.", "It barks."],
        "tag": ["dog", "bark"],
        "original_data": {
            "title": "dog.wav",
            "description": "My dog<br>barks",
            "username": "ann",
            "id": 7,
            "license": "CC0",
        },
    }
    _tone(tmp_path / "loose" / "1.flac", 440)
    (tmp_path / "loose" / "1.json").write_text(json.dumps(text), encoding="utf-8")
    _tone(tmp_path / "loose" / "no_text.flac", 440)
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, data in (
            ("2.flac", (tmp_path / "loose" / "1.flac").read_bytes()),
            ("2.json", json.dumps(text).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    settings = CollectionSettings(kind="laion", path=tmp_path)
    clips, _ = read_collection(settings)
    assert [(clip.id, clip.path) for clip in clips] == [("0.tar/2", "0.tar::2.flac"), ("loose/1", "loose/1.flac")]
    for clip in clips:
        assert clip.captions == ("A small dog.", "It barks.") and clip.tags == ("dog", "bark")
        assert (clip.title, clip.description, clip.author, clip.license) == ("dog.wav", "My dog barks", "ann", "CC0")
        waveform = load_audio(io.BytesIO(clip_bytes(settings.audio_root, clip)))
        assert waveform.shape == (9600,)
    with pytest.raises(InputError, match=r"gone\.flac cannot be read"):
        clip_bytes(tmp_path, SourceClip(id="x", path="0.tar::gone.flac"))


def test_records_keep_their_schema_and_their_bytes(tmp_path: Path) -> None:
    clips = [SourceClip(id="1", path="ä.wav", tags=("x", "y")), SourceClip(id="2", path="b.wav")]
    for name in ("clips.jsonl", "clips.parquet"):
        write_records(tmp_path / name, clips, SourceClip)
        before = (tmp_path / name).read_bytes()
        assert read_records(tmp_path / name, SourceClip) == clips
        write_records(tmp_path / name, clips, SourceClip)
        assert (tmp_path / name).read_bytes() == before
    (tmp_path / "bad.jsonl").write_text('{"id": "1", "path": "a"}\n{"id": "2"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"record 2, is no SourceClip \(path: Field required\)"):
        read_records(tmp_path / "bad.jsonl", SourceClip)


# --- rules and labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (lambda: rules.check_mask("A dog barks."), "no-mask"),
        (lambda: rules.check_mask("A [MASK] and a [MASK]."), "several-masks"),
        (lambda: rules.check_mask("A [MASK] and a [mask]."), "several-masks"),
        (lambda: rules.locate_span("A [MASK] barks.", "meows"), "span-not-in-sentence"),
        (lambda: rules.locate_span("A [MASK] barks.", "bark"), "span-not-in-sentence"),
        (lambda: rules.locate_span("A [MASK] barks.", " "), "empty-span"),
        (lambda: rules.locate_span("A [MASK] barks.", "A [MASK]"), "mask-in-span"),
        (lambda: rules.check_answer_hidden("Dogs like this [MASK] bark.", "dog"), "answer-in-sentence"),
        (lambda: rules.check_answer_hidden("The mice squeak like a [MASK].", "mouse"), "answer-in-sentence"),
        (lambda: rules.check_category("dragon/red", ["animal"]), "bad-category"),
        (lambda: rules.check_category("animal/../x", ["animal"]), "bad-category"),
        (lambda: rules.check_comparison("A has a [MASK] pitch than B", (0, 1), (0, 1)), "overlapping-spans"),
        (lambda: rules.check_comparison("B has a [MASK] pitch than A", (26, 27), (0, 1)), "no-comparison"),
        (lambda: rules.check_comparison("A low A has a [MASK] pitch than B", (6, 7), (32, 33)), "answer-in-sentence"),
    ],
)
def test_broken_rules_have_names(check: Callable[[], object], reason: str) -> None:
    with pytest.raises(rules.BrokenRuleError) as error:
        check()
    assert error.value.reason == reason


def test_rules_let_good_sentences_through() -> None:
    rules.check_mask("A [MASK] barks.")
    assert rules.locate_span("Woof is the sound a [MASK] makes.", "woof") == (0, 4)
    rules.check_answer_hidden("The doghouse hides a barking [MASK].", "dog")
    rules.check_comparison("A bell has a [MASK] pitch than a drum.", (2, 6), (33, 37))


def test_labels() -> None:
    assert all(is_animal(name) for name in ("dog", "mourning dove", "Canada geese", "water buffalo", "wolves", "flies"))
    for name in ("zombie", "vampire", "toy dog", "baby", "sea monster", "animal", "duck call"):
        assert is_animal(name) is False, name
    assert is_animal("quux") is None


def test_undecided_labels_go_to_a_person_and_come_back(tmp_path: Path) -> None:
    labels = LabelFilter()
    for label, reason in (
        ("zombie", "answer-not-an-animal"),
        ("quux", "answer-undecided"),
        ("blorb", "answer-undecided"),
    ):
        with pytest.raises(rules.BrokenRuleError) as error:
            labels.check(label, f"A [MASK] says {label[::-1]}.")
        assert error.value.reason == reason
    assert labels.check("Dogs", "A [MASK] barks.") == "dog"
    labels.write_undecided(tmp_path / "labels.csv")
    sheet = (tmp_path / "labels.csv").read_text(encoding="utf-8")
    assert sheet.splitlines()[1:] == ["blorb,,1,A [MASK] says brolb.", "quux,,1,A [MASK] says xuuq."]
    (tmp_path / "labels.csv").write_text(
        sheet.replace("quux,,", "quux,yes,").replace("blorb,,", "blorb,no,"), encoding="utf-8"
    )
    decided = LabelFilter(tmp_path / "labels.csv")
    assert decided.check("Quux", "A [MASK].") == "quux"
    with pytest.raises(rules.BrokenRuleError, match="answer-not-an-animal"):
        decided.check("blorb", "A [MASK].")


def test_most_published_answers_are_known(shared: Path) -> None:
    with (shared / "auditorybench" / "animal_sound_recognition_train.csv").open(encoding="utf-8", newline="") as file:
        verdicts = Counter(is_animal(row["animal"]) for row in csv.DictReader(file))
    assert verdicts[None] < 0.04 * verdicts.total() and verdicts[False] < 0.04 * verdicts.total()


# --- pitch -----------------------------------------------------------------------------------------------------------


def test_pairs_are_measured_and_close_ones_dropped(tmp_path: Path) -> None:
    pitches = {"a": 220.0, "b": 230.0, "c": 440.0, "d": 880.0}
    clips = []
    for name, hz in pitches.items():
        _tone(tmp_path / f"{name}.wav", hz)
        clips.append(CategorizedClip(id=name, path=f"{name}.wav", category=f"music/{name}"))
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 9600), 16_000)
    clips.append(CategorizedClip(id="noise", path="noise.wav", category="music/noise"))
    clips.append(CategorizedClip(id="gone", path="gone.wav", category="music/gone"))
    clips.append(CategorizedClip(id="dog", path="a.wav", category="animal/dog"))
    settings = PitchSettings(pairs=50)
    with Store(tmp_path / "store.sqlite") as store:
        pairs, measured, rejected = choose_pairs(clips, tmp_path, settings, store)
        again, _, _ = choose_pairs(clips, tmp_path, settings, store)
    for name, hz in pitches.items():
        assert measured[name].mean_hz == pytest.approx(hz, rel=0.02)
    kept = {frozenset((pair.first.id, pair.second.id)) for pair in pairs}
    assert kept == {frozenset(pair) for pair in ("ac", "ad", "bc", "bd", "cd")}
    assert {(one.item, one.reason) for one in rejected} - {
        ("a | b", "pitch-too-close"),
        ("b | a", "pitch-too-close"),
    } == {
        ("noise", "unpitched"),
        ("gone", "unreadable-audio"),
    }
    assert again == pairs


def test_few_of_many_pairs_are_drawn_without_repeats(tmp_path: Path) -> None:
    _tone(tmp_path / "low.wav", 220)
    _tone(tmp_path / "high.wav", 660)
    clips = [
        CategorizedClip(id=str(number), path=("low.wav", "high.wav")[number % 2], category=f"object/{number % 7}")
        for number in range(300)
    ]
    with Store(tmp_path / "store.sqlite") as store:
        pairs, _, _ = choose_pairs(clips, tmp_path, PitchSettings(pairs=40), store)
    assert len(pairs) == 40 == len({frozenset((pair.first.id, pair.second.id)) for pair in pairs})
    assert all(pair.first.category != pair.second.category for pair in pairs)


# --- split -----------------------------------------------------------------------------------------------------------


def _animal(number: int, sentence: str, answer: str = "dog", span: str = "bark") -> AnimalRow:
    return AnimalRow(id=f"a{number}", sentence=sentence, answer=answer, span=span)


def _pitch(number: int, first: str, second: str, answer: str = "higher") -> PitchRow:
    sentence = f"The sound of a {first} typically has a [MASK] pitch than the sound of a {second}."
    spans = {"span1": f"sound of a {first}", "span2": f"sound of a {second}"}
    hz = (900.0, 90.0) if answer == "higher" else (90.0, 900.0)
    return PitchRow(id=f"p{number}", sentence=sentence, answer=answer, **spans, pitch1_hz=hz[0], pitch2_hz=hz[1])


def test_duplicates_near_duplicates_and_contradictions_are_removed() -> None:
    animals = [
        _animal(0, "Chirping is the sound a [MASK] makes.", "cricket", "Chirping"),
        _animal(1, "The sound a [MASK] makes is a chirp", "cricket", "chirp"),
        _animal(2, "A [MASK] makes a chirping sound.", "bird", "chirping"),
        _animal(3, "A [MASK] barks at the postman every single morning.", "dog", "barks"),
        _animal(4, "A [MASK] barks at the postmen every single morning.", "dog", "barks"),
        _animal(5, "meow is the sound a [MASK] makes.", "cat", "meow"),
    ]
    wiki = [_animal(9, "Meow is the sound a [MASK] makes.", "Cat", "Meow")]
    pitches = [
        _pitch(0, "silver bell", "bass drum"),
        _pitch(1, "bass drum", "silver bell", "lower"),
        _pitch(2, "violin", "contrabassoon"),
        _pitch(3, "contrabassoon", "violin"),
    ]
    splits, rejected = make_splits(animals, pitches, wiki, [], SplitSettings(train=1.0, dev=0, test=0))
    assert [row.id for row in splits.animal["train"]] == ["a0", "a3"]
    assert splits.animal["wiki"] == wiki
    assert [row.id for row in splits.pitch["train"]] == ["p0"]
    reasons = {one.item: one.reason for one in rejected}
    assert reasons == {
        "a1": "near-duplicate",
        "a2": "several-answers",
        "a4": "near-duplicate",
        "a5": "in-wiki-set",
        "p1": "near-duplicate",
        "p2": "contradictory",
        "p3": "contradictory",
    }


def test_splits_are_balanced_disjoint_and_repeatable() -> None:
    firsts = [f"{one}{two}" for one in ("zul", "qat", "wem", "bok") for two in ("ara", "ivy", "ost", "unk", "ely")]
    seconds = [f"{one}{two}" for one in ("fru", "hyd", "plo") for two in ("xen", "mog", "tid", "cav")]
    pitches = [
        _pitch(number, f"{firsts[number % 20]} {number * 7919 % 1000}", f"{seconds[number % 12]} {number * 877 % 1000}")
        for number in range(160)
    ]
    splits, rejected = make_splits([], pitches, [], [], SplitSettings())
    kept = len(pitches) - len(rejected)
    assert {split: len(rows) for split, rows in splits.pitch.items()} == {
        "train": kept - round(0.2 * kept) - round(0.1 * kept),
        "dev": round(0.1 * kept),
        "test": round(0.2 * kept),
    }
    keys = [{content_key(row.sentence) for row in rows} for rows in splits.pitch.values()]
    assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
    for rows in splits.pitch.values():  # all were "higher"
        assert abs(sum(row.answer == "higher" for row in rows) * 2 - len(rows)) <= 1
        for row in rows:
            assert (row.answer == "higher") == (row.pitch1_hz > row.pitch2_hz)
            assert row.sentence.index(row.span1) < row.sentence.index("[MASK]") < row.sentence.index(row.span2)
    assert make_splits([], pitches, [], [], SplitSettings())[0] == splits
    assert make_splits([], pitches, [], [], SplitSettings(seed=1))[0] != splits


def test_turning_keeps_grammar_or_refuses() -> None:
    row = _pitch(1, "bell", "drum")
    other = turned(row)
    assert other is not None and turned(other) == row
    assert other.sentence == "The sound of a drum typically has a [MASK] pitch than the sound of a bell."
    assert (other.answer, other.span1, other.pitch1_hz) == ("lower", "sound of a drum", 90.0)
    plural = row.model_copy(
        update={"sentence": "Bells have a [MASK] pitch than a drum.", "span1": "Bells", "span2": "drum"}
    )
    assert turned(plural) is None
    article = row.model_copy(
        update={
            "sentence": "An oboe has a [MASK] pitch than the sound of a bell.",
            "span1": "oboe",
            "span2": "sound of a bell",
        }
    )
    found = turned(article)
    assert found is not None and found.sentence == "The sound of a bell has a [MASK] pitch than an oboe."


def test_shares_must_be_whole() -> None:
    with pytest.raises(ValueError, match="together they must be 1"):
        SplitSettings(train=0.7, dev=0.2, test=0.2)


# --- review ----------------------------------------------------------------------------------------------------------


def _dataset(folder: Path) -> Path:
    animals = [_animal(number, f"=A [MASK] barks {number} times.", "dog", "barks") for number in range(12)]
    write_records(folder / "data" / "animal" / "test.parquet", animals, AnimalRow)
    pitches = [_pitch(number, f"bell {number}", "drum") for number in range(5)]
    write_records(folder / "data" / "pitch" / "test.parquet", pitches, PitchRow)
    return folder


def test_review_there_and_back(tmp_path: Path) -> None:
    counts = export_review(_dataset(tmp_path / "d"), tmp_path / "r", ReviewSettings(per_task=10, annotators=3))
    assert counts == {"animal": 10, "pitch": 5}
    # every annotator gets the same rows, in another order, and no cell that a spreadsheet would compute
    sheets = [tmp_path / "r" / f"animal_annotator_{number}.csv" for number in (1, 2, 3)]
    loaded = [list(csv.DictReader(sheet.open(encoding="utf-8", newline=""))) for sheet in sheets]
    assert len({tuple(sorted(row["id"] for row in rows)) for rows in loaded}) == 1
    assert [row["id"] for row in loaded[0]] != [row["id"] for row in loaded[1]]
    assert all(row["sentence"].startswith("'=") for rows in loaded for row in rows)
    items = sorted(row["id"] for row in loaded[0])
    for annotator, (sheet, rows) in enumerate(zip(sheets, loaded, strict=True)):
        for row in rows:
            wrong = row["id"] in items[:2] or (annotator == 2 and row["id"] == items[2])
            row["accuracy"], row["fluency"] = ("no" if wrong else "1"), ("2" if row["id"] == items[5] else "3")
        with sheet.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    exported = json.loads((tmp_path / "r" / "label_studio_pitch.json").read_text(encoding="utf-8"))
    for task in exported:
        task["annotations"] = [
            {
                "completed_by": {"id": who, "email": f"{who}@x"},
                "result": [
                    {"from_name": "accuracy", "type": "choices", "value": {"choices": ["correct"]}},
                    {"from_name": "fluency", "type": "rating", "value": {"rating": 3}},
                ],
            }
            for who in range(3)
        ]
    (tmp_path / "pitch.json").write_text(json.dumps(exported), encoding="utf-8")
    animal, pitch = import_review([*sheets, tmp_path / "pitch.json"])
    assert (animal.items, animal.annotators, animal.judgements) == (10, 3, 30)
    assert animal.accuracy_percent == pytest.approx(100 * 23 / 30, abs=0.01)
    assert animal.fluency == pytest.approx((27 * 3 + 3 * 2) / 30, abs=1e-3)
    # nominal alpha by hand: 7 "wrong", 23 "right", one row judged 1 : 2, so one coincidence of each with the other
    assert animal.accuracy_alpha == pytest.approx(1 - (30 - 1) * 1 / (7 * 23), abs=1e-4)
    assert animal.fluency_alpha == pytest.approx(1.0)
    assert (pitch.accuracy_percent, pitch.fluency, pitch.accuracy_alpha) == (100.0, 3.0, None)


def test_review_refuses_what_is_out_of_range(tmp_path: Path) -> None:
    export_review(_dataset(tmp_path / "d"), tmp_path / "r", ReviewSettings(per_task=2, annotators=1))
    sheet = tmp_path / "r" / "animal_annotator_1.csv"
    with pytest.raises(InputError, match="nothing is filled in"):
        import_review([sheet])
    text = sheet.read_text(encoding="utf-8").splitlines()
    sheet.write_text("\n".join([text[0], text[1].removesuffix(",,,") + ",1,4,"]), encoding="utf-8")
    with pytest.raises(InputError, match="line 2: fluency is '4'; 1, 2 or 3 is wanted"):
        import_review([sheet])
    sheet.write_text("\n".join([text[0], text[1].removesuffix(",,,") + ",1,3,"]), encoding="utf-8")
    with pytest.raises(InputError, match=r"judges 'a.*' twice"):
        import_review([sheet, sheet])
