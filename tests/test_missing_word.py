"""Whole words for a blank: spelling, what the scorer learns from, and its joining with the language model."""

import gzip

import numpy as np
import pytest
import torch

from audiobert.auditorybench.data import load_split
from audiobert.backbone import load_backbone
from audiobert.errors import InputError
from audiobert.missing_word import BLANK, Lexicon, WordScorer, blank_sentence, join, join_rows, missing_word_loss
from audiobert.text_features import ScoredTexts, TextFeatures, pad_ngrams, text_ngrams
from audiobert.training.missing_words import (
    MissingWords,
    answers_of,
    make_missing_word_batch,
    plain_texts,
    read_sentences,
)
from training_toys import write_data

WORDS = ("cat", "cicada", "dog", "magpie", "woodpecker")


@pytest.fixture(scope="module")
def tokenizer():
    return load_backbone("mini").tokenizer


@pytest.fixture(scope="module")
def lexicon(tokenizer):
    return Lexicon(WORDS, tokenizer)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A [MASK] hums.", f"A {BLANK} hums."),
        ("A [MASK] [MASK][MASK] hums.", f"A {BLANK} hums."),
        ("[MASK] and [MASK].", None),
        ("Nothing.", None),
    ],
)
def test_one_word_is_asked_for_by_masks_side_by_side(text, sentence):
    assert blank_sentence(text, "[MASK]") == sentence


def test_a_lexicon_spells_its_words_and_numbers_others_behind_them(lexicon, tokenizer):
    assert lexicon.index("DOG") == 2
    assert lexicon.index("giraffe") == len(WORDS)
    for length in range(1, 5):
        found = lexicon.of_length(length)
        for number, pieces in zip(*(found or ((), ())), strict=True):
            assert len(pieces) == length
            assert tokenizer.decode(pieces) == WORDS[number]
    assert lexicon.of_length(40) is None
    assert Lexicon((), tokenizer).of_length(1) is None


def vocabulary(tokenizer, **likely):
    """Log-probabilities of a word's place: as given, the rest even."""
    probs = torch.full((len(tokenizer),), (1 - sum(likely.values())) / len(tokenizer))
    for piece, value in likely.items():
        probs[tokenizer.convert_tokens_to_ids(piece.replace("_", "##"))] += value
    return probs.log()


def test_pieces_of_one_word_speak_for_each_other(lexicon, tokenizer):
    """Alone, each mask takes the piece of another word."""
    numbers, pieces = lexicon.of_length(2)
    assert len(pieces) > 0
    first, second = tokenizer.convert_ids_to_tokens(pieces[0])
    alone = torch.stack(
        [
            vocabulary(tokenizer, **{first.replace("#", "_").replace("__", "_"): 0.3, "sea": 0.4}),
            vocabulary(tokenizer, **{second.replace("##", "_"): 0.3, "bird": 0.4}),
        ]
    )
    assert tokenizer.convert_ids_to_tokens(alone.argmax(dim=-1)) == ["sea", "bird"]
    opinions = torch.full((2, len(WORDS) + 1), 0.01)
    opinions[:, -1] = 0.95
    joined = join(alone, opinions.log(), lexicon)
    assert joined.argmax(dim=-1).tolist() != pieces[0].tolist()  # where another word is expected, nothing does
    opinions[:, numbers[0]], opinions[:, -1] = 0.4, 0.05
    joined = join(alone, opinions.log(), lexicon)
    assert joined.argmax(dim=-1).tolist() == pieces[0].tolist()
    torch.testing.assert_close(joined.exp().sum(dim=-1), torch.ones(2))


def test_single_pieces_are_pooled_with_equal_weights(lexicon, tokenizer):
    alone = vocabulary(tokenizer, cat=0.2, dog=0.1, bell=0.4, rain=0.1)[None]
    opinions = torch.full((2, len(WORDS) + 1), 1e-4)
    cat, dog = lexicon.index("cat"), lexicon.index("dog")
    opinions[:, cat], opinions[:, dog], opinions[:, -1] = 0.2, torch.tensor([0.5, 0.7]), 0.1
    joined = join(alone, opinions.log(), lexicon)[0].exp()
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in ("cat", "dog", "bell", "rain")}
    own = {word: float(alone[0, at].exp()) for word, at in ids.items()}
    pool = {
        "cat": (own["cat"] * 0.2 * 0.2) ** (1 / 3),
        "dog": (own["dog"] * 0.5 * 0.7) ** (1 / 3),
        "another": ((1 - own["cat"] - own["dog"]) * 0.1 * 0.1) ** (1 / 3),
    }
    total = sum(pool.values())
    for word in ("cat", "dog"):
        assert joined[ids[word]] == pytest.approx(pool[word] / total, rel=1e-4)
    shared = pool["another"] / total / (1 - own["cat"] - own["dog"])
    for word in ("bell", "rain"):
        assert joined[ids[word]] == pytest.approx(own[word] * shared, rel=1e-4)
    torch.testing.assert_close(joined.sum(), torch.ones(()))


def test_lengths_without_words_stay_as_they_are(lexicon, tokenizer):
    long = vocabulary(tokenizer, cat=0.5).expand(9, -1)
    assert torch.equal(join(long, torch.zeros(2, len(WORDS) + 1), lexicon), long)


def test_opinions_are_no_surer_than_what_was_learnt_from():
    scorer = WordScorer(4, 3).eval()
    scorer.standardise(torch.randn(50, 4))
    with torch.no_grad():
        scorer.deep[-1].bias[:] = torch.tensor([100.0, 0.0, 0.0, 0.0])
        scorer.wide_words.bias[:] = torch.tensor([100.0, 0.0, 0.0, 0.0])
        scorer.deep[-1].weight.zero_()
        opinions = scorer.opinions(TextFeatures(torch.randn(1, 4), pad_ngrams([[1]])))
    assert opinions[0, 0].exp().tolist() == pytest.approx([1.0, 0.02, 0.02, 0.02], abs=1e-3)


def test_it_learns_words_from_sentences_and_keeps_out_of_others(lexicon):
    torch.manual_seed(0)
    kinds = {"cat": "meow", "dog": "woof", "magpie": "chatter", None: "tax report"}
    sentences = [f"{adverb} {sound} of a something" for sound in kinds.values() for adverb in ("loud", "soft", "odd")]
    words = torch.tensor([lexicon.index(word or "none") for word in kinds for _ in range(3)])
    scored = TextFeatures(torch.randn(12, 8), pad_ngrams([text_ngrams(s) for s in sentences]))
    scorer = WordScorer(8, len(WORDS), dropout=0.0)
    scorer.standardise(scored.sentence_vectors)
    optimizer = torch.optim.Adam([p for p in scorer.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        loss = missing_word_loss(scorer(scored), words)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        both = scorer.eval()(scored)
        unheard = TextFeatures(scored.sentence_vectors[3:4], pad_ngrams([text_ngrams("a quiet woof of a something")]))
        assert scorer(unheard)[0, 1].argmax() == lexicon.index("dog")
    assert (both.argmax(dim=-1) == words[:, None]).all()


def test_rows_that_are_not_asked_stay_as_they_are(lexicon, tokenizer):
    scorer = WordScorer(4, len(WORDS)).eval()
    scorer.standardise(torch.randn(9, 4))
    rows = {3: vocabulary(tokenizer, cat=0.5)[None], 5: vocabulary(tokenizer, dog=0.5)[None]}
    with torch.no_grad():
        joined = join_rows(scorer, lexicon, rows, [5], TextFeatures(torch.randn(1, 4), pad_ngrams([[5]])))
        untouched = join_rows(scorer, lexicon, rows, [], TextFeatures(torch.zeros(0, 4), pad_ngrams([])))
    assert list(joined) == [3, 5]
    assert torch.equal(joined[3], rows[3]) and not torch.equal(joined[5], rows[5])
    assert all(torch.equal(untouched[row], rows[row]) for row in rows)


def test_what_it_learns_from_is_drawn_from_rows_and_texts(tmp_path, tokenizer):
    data = write_data(tmp_path)
    rows = [row for task in ("animal", "pitch") for row in load_split(data / "auditorybench", task, "train")]
    assert answers_of(rows) == ("cat", "dog")
    lexicon = Lexicon(answers_of(rows), tokenizer)
    texts = plain_texts(data / "text")
    missing = MissingWords(rows, lexicon, texts, 100)
    assert {m.word for m in missing.asked} == {0, 1}
    assert len(missing.asked) == sum(row.task == "animal" for row in rows)
    assert all(BLANK in m.sentence and "[MASK]" not in m.sentence for m in (*missing.asked, *missing.others))
    comparisons = [m for m in missing.others if "pitch" in m.sentence]
    assert comparisons and all(m.word == 2 for m in comparisons)

    drawn = missing.draw(np.random.default_rng(0), 40, 0.25)
    assert len(drawn) == 40
    assert sum(m in missing.others for m in drawn) == 10
    assert missing.draw(np.random.default_rng(0), 40, 0.25) == drawn
    again = MissingWords(rows, lexicon, texts, 100)
    assert again.others == missing.others
    assert MissingWords(rows, lexicon, [], 0).draw(np.random.default_rng(0), 8, 0.5)[0] in missing.asked

    names = sorted({sentence.lower() for sentence in missing.sentences()})
    batch = make_missing_word_batch(drawn[:3], ScoredTexts(names, torch.randn(len(names), 4)))
    assert batch.sentences.sentence_vectors.shape == (3, 4)
    assert batch.words.tolist() == [m.word for m in drawn[:3]]


def test_only_training_captions_are_read(tmp_path):
    path = tmp_path / "audiocaps_captions.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("split,caption\ntrain,A dog barks twice\nval,Never to be seen\ntrain,A dog barks twice\n")
    assert read_sentences(path) == ["A dog barks twice"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\x1f\x8bcut", "is no text in UTF-8"), (b"text\nA dog barks\n", "has the columns text; .* are wanted")],
)
def test_a_file_that_holds_no_captions_is_named(content, said, tmp_path):
    path = tmp_path / "audiocaps_captions.csv.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_sentences(path)


def test_a_missing_text_is_named(tmp_path):
    with pytest.raises(InputError, match=r"general_train\.txt\.gz does not exist.*other_sentences: 0"):
        plain_texts(tmp_path)
