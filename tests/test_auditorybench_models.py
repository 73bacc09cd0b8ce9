"""The adapters against brute force: what they say is what the protocol's definition says, for each family of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import auditorybench_toys as toys
from audiobert.auditorybench.evaluate import ask, make_plan
from audiobert.auditorybench.models import ModelOptions, kind_of_model, load_adapter, split_state
from audiobert.auditorybench.models.causal import CausalLanguageModel
from audiobert.auditorybench.models.masked import MaskedLanguageModel
from audiobert.auditorybench.questions import Question
from audiobert.errors import ArtefactError, InputError

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "bert": toys.bert,
    "roberta": toys.roberta,
    "modernbert": toys.modernbert,
    "deberta": toys.deberta,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.make_benchmark(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="module", params=list(FAMILIES))
def masked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MaskedLanguageModel:
    folder = FAMILIES[request.param](tmp_path_factory.mktemp(request.param))
    return MaskedLanguageModel.from_pretrained(str(folder), device="cpu", batch_size=3)


def brute_logits(model: MaskedLanguageModel, before: list[int], middle: list[int], after: list[int]) -> torch.Tensor:
    """Logits (positions, vocabulary) of the middle part, one sentence, no padding."""
    ids = torch.tensor([[*before, *middle, *after]])
    with torch.no_grad():
        return model.model(input_ids=ids).logits[0, len(before) : len(before) + len(middle)].float()


def context(model: MaskedLanguageModel, question: Question) -> tuple[list[int], list[int]]:
    """Ids around the mask, from the tokenizer's own reading of the sentence with its own mask."""
    mask = model.tokenizer.mask_token
    text = question.text.replace("[MASK]", mask)
    ids = model.tokenizer(text)["input_ids"]
    at = ids.index(model.tokenizer.mask_token_id)
    return ids[:at], ids[at + 1 :]


def test_the_sentence_around_the_mask_is_what_the_tokenizer_makes_of_it(
    masked: MaskedLanguageModel, data: Path
) -> None:
    for part in make_plan(data, splits=["dev"]).parts:
        masked._prepare(part.questions)
        for question in part.questions:
            before, after = context(masked, question)
            space = masked.tokenizer.convert_tokens_to_ids("▁")
            # DeBERTa writes a lone space before a mask, which belongs to the word that is looked for.
            if before and before[-1] == space and space != masked.tokenizer.unk_token_id:
                before = before[:-1]
            assert masked._contexts[question.text] == (before, after)


def test_pieces_spell_the_word_where_it_stands(masked: MaskedLanguageModel, data: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"]).parts
    for question in part.questions:
        for word in toys.ANIMALS:
            pieces = masked.pieces(question, word)
            assert masked.decode(pieces).replace(" ", "") == word.replace(" ", "")
            ids = masked.tokenizer(question.before + word + question.after)["input_ids"]
            found = any(tuple(ids[i : i + len(pieces)]) == pieces for i in range(len(ids)))
            assert found, (word, question.text)


def test_paper_protocol_is_argmax_at_one_mask_a_piece(masked: MaskedLanguageModel, data: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"]).parts
    answered = ask(masked, part)
    mask = masked.tokenizer.mask_token_id
    texts = [
        str(token).casefold() for token in masked.tokenizer.convert_ids_to_tokens(list(range(len(masked.tokenizer))))
    ]
    for question, found in zip(part.questions, answered, strict=True):
        pieces = masked.pieces(question, question.answer.lower())
        before, after = masked._contexts[question.text]
        logits = brute_logits(masked, before, [mask] * len(pieces), after)
        ranks = []
        for row, piece in zip(logits, pieces, strict=True):
            same = [i for i, text in enumerate(texts) if text == texts[piece]]
            ranks.append(1 + int((row > max(row[i] for i in same) + 1e-5).sum()))
        assert found.prediction.rank == max(ranks)
        assert found.prediction.correct == (max(ranks) == 1)


def test_comparison_is_decided_by_two_logits_or_by_chains(masked: MaskedLanguageModel, data: Path) -> None:
    (part,) = make_plan(data, ["pitch"], ["dev"]).parts
    for answered in ask(masked, part):
        scores = {word: brute_chain(masked, answered.question, word) for word in ("higher", "lower")}
        assert answered.prediction.text == max(scores, key=lambda word: scores[word])
        assert answered.prediction.scores == pytest.approx(scores, abs=1e-3)
        assert answered.flipped is not None


def brute_chain(model: MaskedLanguageModel, question: Question, word: str) -> float:
    pieces = list(model.pieces(question, word))
    before, after = model._contexts[question.text]
    total = 0.0
    for i, piece in enumerate(pieces):
        middle = pieces[:i] + [model.tokenizer.mask_token_id] * (len(pieces) - i)
        total += float(brute_logits(model, before, middle, after)[i].log_softmax(dim=0)[piece])
    return total


def test_candidates_are_ranked_exactly_although_chains_are_given_up(masked: MaskedLanguageModel, data: Path) -> None:
    (part,) = make_plan(data, ["animal"], ["dev"], "candidates").parts
    for answered in ask(masked, part):
        words = answered.question.candidates or ()
        scores = {word: brute_chain(masked, answered.question, word) for word in words}
        order = sorted(words, key=lambda word: -scores[word])
        assert answered.prediction.text == order[0]
        assert list(answered.prediction.scores) == order[:5]
        assert answered.prediction.scores == pytest.approx({word: scores[word] for word in order[:5]}, abs=1e-3)
        answer = answered.question.answer.casefold()
        assert answered.prediction.rank == (order.index(answer) + 1 if answer in order else 0)


def test_a_split_comparison_word_is_scored_as_a_chain(tmp_path: Path, data: Path) -> None:
    model = MaskedLanguageModel.from_pretrained(str(toys.bert(tmp_path / "m", whole=("higher",))), device="cpu")
    (part,) = make_plan(data, ["pitch"], ["dev"]).parts
    question = part.questions[0]
    assert len(model.pieces(question, "higher")) == 1
    assert len(model.pieces(question, "lower")) > 1
    (first, *_) = ask(model, part)
    expected = {word: brute_chain(model, question, word) for word in ("higher", "lower")}
    assert first.prediction.scores == pytest.approx(expected, abs=1e-3)


def test_what_the_tokenizer_cannot_spell_is_refused_with_file_and_row(tmp_path: Path, data: Path) -> None:
    model = MaskedLanguageModel.from_pretrained(str(toys.bert(tmp_path / "m")), device="cpu")
    folder = toys.make_benchmark(tmp_path / "data")
    path = folder / "animal_sound_recognition_dev.csv"
    path.write_text("animal,description,sentence\ncat,purr,A [MASK] makes a purr.\n猫,purr,The [MASK] makes a purr.\n")
    (part,) = make_plan(folder, ["animal"], ["dev"]).parts
    with pytest.raises(InputError, match=r"animal_sound_recognition_dev\.csv, row 1: .* cannot spell the answer '猫'"):
        ask(model, part)
    del data


def test_a_sentence_too_long_for_the_model_names_its_row(tmp_path: Path) -> None:
    model = MaskedLanguageModel.from_pretrained(str(toys.bert(tmp_path / "m")), device="cpu")
    folder = toys.make_benchmark(tmp_path / "data")
    path = folder / "animal_sound_recognition_dev.csv"
    path.write_text(f"animal,description,sentence\ncat,purr,A [MASK] makes a {'very ' * 80}long purr.\n")
    (part,) = make_plan(folder, ["animal"], ["dev"]).parts
    with pytest.raises(InputError, match=r"row 0: .* takes 64 at most"):
        ask(model, part)


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> CausalLanguageModel:
    return CausalLanguageModel.from_pretrained(
        str(toys.gpt2(tmp_path_factory.mktemp("gpt2"))), device="cpu", batch_size=4
    )


def test_log_likelihoods_of_continuations(causal: CausalLanguageModel) -> None:
    prompts = ["A cat makes a", "The sound of a bell is"]
    continuations = [[" purr", " purring", " cat", " river otter"], [" higher", " lower"]]
    found = causal.continuations.log_likelihoods(prompts, continuations)
    for prompt, words, scores in zip(prompts, continuations, found, strict=True):
        for word, score in zip(words, scores, strict=True):
            ids = causal.tokenizer.encode(prompt + word)
            start = len(causal.tokenizer.encode(prompt))
            with torch.no_grad():
                log_probs = causal.model(torch.tensor([ids])).logits[0].float().log_softmax(dim=-1)
            expected = sum(float(log_probs[i - 1, ids[i]]) for i in range(start, len(ids)))
            assert score == pytest.approx(expected, abs=1e-3)


def test_completion_does_not_depend_on_the_batch(causal: CausalLanguageModel) -> None:
    prompts = ["A cat", "The sound of a bell is a joy in the morning and", "Woof"]
    complete = causal.continuations.complete
    together = complete(prompts, max_new_tokens=12)
    assert together == [complete([prompt], max_new_tokens=12)[0] for prompt in prompts]


def test_models_are_told_apart_by_their_config(tmp_path: Path) -> None:
    options = ModelOptions(device="cpu")
    assert load_adapter(str(toys.bert(tmp_path / "bert")), {}, options).kind == "masked"
    assert load_adapter(str(toys.gpt2(tmp_path / "gpt2")), {}, options).kind == "causal"
    for state in (":unheard", ":off", ":gold-spans"):
        with pytest.raises(InputError, match="are for an AudioBERT"):
            load_adapter(f"{tmp_path / 'bert'}{state}", {}, options)
    with pytest.raises(ArtefactError, match="no model"):
        load_adapter(str(tmp_path), {}, options)
    with pytest.raises(InputError, match="no kind 'guess'"):
        load_adapter(str(tmp_path / "bert"), {}, ModelOptions(device="cpu", kind="guess"))
    with pytest.raises(InputError, match="no control"):
        load_adapter("control:coin", {}, options)
    with pytest.raises(InputError, match="no device"):
        load_adapter(str(tmp_path / "bert"), {}, ModelOptions(device="cuda:99"))
    with pytest.raises(InputError, match="no mask token"):
        load_adapter(str(tmp_path / "gpt2"), {}, ModelOptions(device="cpu", kind="masked"))


@pytest.mark.parametrize(
    ("name", "base", "state"),
    [
        ("mini", "mini", {}),
        ("mini:unheard", "mini", {"sound": "unheard"}),
        ("some/model:off", "some/model", {"sound": "off"}),
        ("mini:gold-spans:unheard", "mini", {"sound": "unheard", "spans": "gold"}),
        ("mini:no-audio", "mini:no-audio", {}),
    ],
)
def test_a_name_says_the_state(name: str, base: str, state: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from audiobert.auditorybench.models import audiobert

    given: dict[str, Any] = {}
    fake = SimpleNamespace(from_pretrained=lambda name, **options: given.update(options, name=name))
    monkeypatch.setattr(audiobert, "AudioBertModel", fake)
    assert split_state(name) == (base, state)
    load_adapter(name, {}, ModelOptions(kind="audiobert", device="cpu"))
    assert given == {"name": base, "label": name, "bank": None, "device": "cpu", "chat": False, **state}


def test_an_audiobert_is_known_by_its_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"format": "audiobert", "version": 1}')
    assert kind_of_model(str(tmp_path)) == "audiobert"
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    with pytest.raises(ArtefactError, match=r"cannot read the config\.json"):
        kind_of_model(str(tmp_path))


def test_messages_of_transformers_are_as_before_after_loading(tmp_path: Path) -> None:
    from transformers.utils import logging

    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        load_adapter(str(toys.bert(tmp_path / "bert")), {}, ModelOptions(device="cpu"))
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()


def test_a_model_without_its_head_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = toys.bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "predictions.transform" not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtefactError, match="lacks"):
        load_adapter(str(folder), {}, ModelOptions(device="cpu"))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, data: Path) -> None:
    model = MaskedLanguageModel.from_pretrained(str(toys.bert(tmp_path / "m")), device="cpu")
    with torch.no_grad():
        next(iter(model.model.parameters())).fill_(float("nan"))
    (part,) = make_plan(data, ["pitch"], ["dev"]).parts
    with pytest.raises(ArtefactError, match="no numbers"):
        ask(model, part)
