"""The engines beside the server: a model in this process, and Ray Data, on the same questions and the same store."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiobert.construct.asking import Asker
from audiobert.construct.llm_settings import LlmSettings
from audiobert.construct.prompts import CategoryAnswer, load_prompt
from audiobert.construct.store import Store
from audiobert.construct.transformers_engine import TransformersEngine, seed_of
from audiobert.errors import ArtefactError, InputError, MissingExtraError
from audiobert.llm.cache import AnswerCache, answer_key, complete_once
from audiobert.llm.chat import Completion, Request, Traffic

ITEMS: list[dict[str, Any]] = [
    {"title": f"{animal} 1", "description": "", "tags": [], "captions": []} for animal in ("dog", "cat", "frog", "pig")
]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model of a few thousand random weights, with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' and messages | length == 1 %}"
        "{{ raise_exception('no system role') }}{% endif %}{{ m['role'] }}: {{ m['content'] }}\n"
        "{% endfor %}{{ 'LOUD ' if loud }}assistant:"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8192,
        bos_token_id=0,
        eos_token_id=1,
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


def test_a_model_in_this_process_answers_and_is_repeatable(tiny_model: Path, tmp_path: Path) -> None:
    settings = LlmSettings(engine="transformers", model=str(tiny_model), max_tokens=16, batch_size=3)
    texts = []
    for run in ("first", "second"):
        with Store(tmp_path / f"{run}.sqlite") as store:
            asker = Asker(settings, store)
            replies = asker.ask(load_prompt("categorize.v1"), ITEMS)
            texts.append([reply.text for reply in replies])
            # random weights know no JSON: asked, cut off or unreadable, asked to be put right, rejected with a reason
            assert [reply.reason for reply in replies] == ["unparseable"] * len(ITEMS)
            assert asker.counts.repairs == len(ITEMS) and asker.traffic.prompt_tokens > 1_000
            kept = len(store)
            assert kept == 2 * len(ITEMS)
            again = Asker(settings, store)
            assert [reply.text for reply in again.ask(load_prompt("categorize.v1"), ITEMS)] == texts[-1]
            assert again.traffic.requests == 0
    assert texts[0] == texts[1] and all(texts[0])


def _engine(model: Path, **settings: Any) -> TransformersEngine:
    chosen = {"engine": "transformers", "model": str(model), "max_tokens": 16, "temperature": 0}
    return TransformersEngine(LlmSettings(**{**chosen, **settings}), Traffic())


def _completions(engine: TransformersEngine, chats: list[list[dict[str, str]]]) -> list[Completion]:
    found = dict(one for group in engine.complete([Request(tuple(chat)) for chat in chats]) for one in group)
    return [found[index] for index in range(len(chats))]


CHATS = [[{"role": "user", "content": text}] for text in ("short", "a rather longer message", "x", "four " * 9, "last")]


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.7, "top_p": 0.8, "seed": 3}])
def test_the_model_writes_what_transformers_would(tiny_model: Path, sampling: dict[str, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = _completions(_engine(tiny_model, batch_size=1, **sampling), CHATS)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    kwargs = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 0} if "seed" in sampling else {}
    for chat, completion in zip(CHATS, found, strict=True):
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        torch.manual_seed(seed_of(prompt["input_ids"].tolist(), 3))
        output = model.generate(**prompt, max_new_tokens=16, pad_token_id=1, **kwargs)[0]
        expected = tokenizer.decode(output[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert completion.text == expected
        assert completion.prompt_tokens == prompt["input_ids"].shape[1]


def test_batches_change_nothing_and_come_whole(tiny_model: Path) -> None:
    one_by_one = _completions(_engine(tiny_model, batch_size=1), CHATS)
    groups = list(_engine(tiny_model, batch_size=2).complete([Request(tuple(chat)) for chat in CHATS]))
    assert [[index for index, _ in group] for group in groups] == [[0, 1], [2, 3], [4]]
    assert [completion for group in groups for _, completion in group] == one_by_one


def test_what_all_chats_of_a_batch_begin_with_passes_once(tiny_model: Path) -> None:
    chats = [[{"role": "system", "content": "answer in one word " * 20}, *chat] for chat in CHATS]
    engines = {size: _engine(tiny_model, batch_size=size) for size in (1, len(chats))}
    widths: dict[int, list[tuple[int, ...]]] = {size: [] for size in engines}
    for size, engine in engines.items():
        engine._model.base_model.register_forward_pre_hook(
            lambda _, __, kwargs, size=size: widths[size].append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
        )
    one_by_one, together = (_completions(engine, chats) for engine in engines.values())
    assert one_by_one == together
    beginning, rest, *_ = widths[len(chats)]
    assert beginning[0] == 1
    assert rest[0] == len(chats)
    assert beginning[1] + rest[1] == max(width for _, width in widths[1])
    assert beginning[1] > 2 * rest[1]


def test_a_run_that_is_resumed_between_batches_draws_the_same_answers(tiny_model: Path, tmp_path: Path) -> None:
    settings = LlmSettings(engine="transformers", model=str(tiny_model), max_tokens=16, batch_size=3, temperature=1)
    requests = [Request(({"role": "user", "content": f"question {number}"},)) for number in range(8)]
    keys = [answer_key(settings, request) for request in requests]

    def engine() -> TransformersEngine:
        return TransformersEngine(settings, Traffic())

    with AnswerCache(tmp_path / "whole.sqlite") as cache:
        whole = dict(one for group in complete_once(requests, keys, cache, "m", engine) for one in group)
    for stop in (1, 2):
        with AnswerCache(tmp_path / f"{stop}.sqlite") as cache:
            first = complete_once(requests, keys, cache, "m", engine)
            for _ in range(stop):
                next(first)
            first.close()
            assert len(cache) == 3 * stop
            resumed = dict(one for group in complete_once(requests, keys, cache, "m", engine) for one in group)
        assert resumed == whole
    assert len({completion.text for completion in whole.values()}) == 8


def test_settings_of_generation_and_template_are_passed_on(tiny_model: Path) -> None:
    plain = _completions(_engine(tiny_model), CHATS)
    assert _completions(_engine(tiny_model, extra_body={"repetition_penalty": 5.0}), CHATS) != plain
    assert _completions(_engine(tiny_model, extra_body={"chat_template_kwargs": {"loud": True}}), CHATS) != plain
    with pytest.raises(InputError, match=r"llm\.extra_body has top_j"):
        _engine(tiny_model, extra_body={"top_j": 5})


def test_a_chat_that_is_too_long_is_refused_alone(tiny_model: Path) -> None:
    chats = [CHATS[0], [{"role": "user", "content": "x" * 9_000}], CHATS[2]]
    found = _completions(_engine(tiny_model), chats)
    assert [completion.finish for completion in found] == ["stop", "refused", "stop"]
    assert found[1].text == "9017 tokens with room for 8176"
    assert [found[0], found[2]] == [_completions(_engine(tiny_model), [chat])[0] for chat in (chats[0], chats[2])]


def test_a_template_that_refuses_a_chat_is_one_line(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="refuses a chat: no system role"):
        _completions(_engine(tiny_model), [[{"role": "system", "content": "x"}]])


def test_memory_that_runs_out_is_one_line(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    engine = _engine(tiny_model)

    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine._model, "generate", full)
    with pytest.raises(InputError, match=r"not enough memory for 5 chats at once; lower llm\.batch_size"):
        _completions(engine, CHATS)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"trust_remote_code": True},
        {"tokenizer_trust_remote_code": True},
        {"code_revision": "main"},
        {"use_safetensors": False},
        {"load_format": "pt"},
        {"hf_overrides": {"auto_map": {}}},
    ],
)
def test_neither_code_nor_pickles_can_be_asked_for(kwargs: dict[str, Any]) -> None:
    for engine in ("transformers", "ray"):
        with pytest.raises(ValueError, match=r"cannot be set: weights are safetensors, and no remote code is run"):
            LlmSettings(engine=engine, model="m", engine_kwargs=kwargs)


@pytest.mark.parametrize("name", ["config", "state_dict", "tokenizer", "no_such_thing"])
def test_an_unknown_setting_of_loading_is_refused(tiny_model: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"llm\\.engine_kwargs has {name}; engine 'transformers' takes attn_impl"):
        _engine(tiny_model, engine_kwargs={name: 1})


def test_code_in_a_models_folder_is_not_run(tiny_model: Path, tmp_path: Path) -> None:
    for place in ("config", "tokenizer_config"):
        folder = tmp_path / place
        shutil.copytree(tiny_model, folder)
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\n")
        config = json.loads((folder / f"{place}.json").read_text())
        config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Config", None]}}
        config["model_type" if place == "config" else "tokenizer_class"] = "Evil"
        (folder / f"{place}.json").write_text(json.dumps(config))
        with contextlib.suppress(ArtefactError):
            _engine(folder)
        assert not (tmp_path / "ran").exists()


def test_pickled_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    shutil.copytree(tiny_model, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(ArtefactError, match="has no weights as safetensors"):
        _engine(tmp_path / "m")


def test_models_that_do_not_do(tiny_model: Path, tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(ArtefactError, match="no tokenizer that can be loaded"):
        Asker(LlmSettings(engine="transformers", model=str(tmp_path)), store).ask(load_prompt("categorize.v1"), ITEMS)
    shutil.copytree(tiny_model, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template; give a model that is made for chat"):
        _engine(tmp_path / "m")


@pytest.mark.slow
def test_ray_runs_the_same_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine Ray's workers, which are nice to others and killed when memory is short, would not get done.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    ray = pytest.importorskip("ray")
    from audiobert.construct.ray_engine import RayEngine

    def make_processor(before: Callable[..., Any], after: Callable[..., Any]) -> Callable[[Any], Any]:
        """In vLLM's place: what comes in and goes out is of the form that Ray's processors have."""

        def answer(row: dict[str, Any]) -> dict[str, Any]:
            fields = json.loads(row["messages"][-1]["content"])
            if fields["title"] == "pig 1":
                return {**row, "__inference_error__": "ValueError: prompt too long"}
            assert json.loads(row["sampling_params"]["structured_outputs"]["json"])["title"] == "CategoryAnswer"
            text = json.dumps({"category": "animal/" + fields["title"].split()[0]})
            done = after({**row, "generated_text": text, "num_input_tokens": 100, "num_generated_tokens": 9})
            return {**done, "__inference_error__": ""}

        return lambda dataset: dataset.map(before).map(answer)

    settings = LlmSettings(engine="ray", model="some/model")
    limits = {"num_cpus": 2, "object_store_memory": 200 * 2**20, "_memory": 2**30}
    ray.init(include_dashboard=False, log_to_driver=False, **limits)
    try:
        with Store(tmp_path / "store.sqlite") as store:
            asker = Asker(settings, store)
            asker.engine = RayEngine(settings, asker.traffic, make_processor)
            replies = asker.ask(load_prompt("categorize.v1"), ITEMS)
            assert len(store) == 3
    finally:
        ray.shutdown()
    categories = [reply.answer.category if isinstance(reply.answer, CategoryAnswer) else None for reply in replies]
    assert categories == ["animal/dog", "animal/cat", "animal/frog", None]
    assert (replies[3].reason, replies[3].detail) == ("refused-by-server", "ValueError: prompt too long")
    assert (asker.traffic.prompt_tokens, asker.traffic.faults) == (300, {"engine": 1})


def test_ray_without_vllm_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    import importlib.util

    from audiobert.construct.ray_engine import RayEngine

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "vllm" else found(name, *rest))
    engine = RayEngine(LlmSettings(engine="ray", model="m"), Traffic())
    with pytest.raises(MissingExtraError, match="vllm"):
        list(engine.complete([Request(({"role": "user", "content": "x"},), "x", {})]))


def test_vllm_gets_safetensors_and_no_remote_code() -> None:
    pytest.importorskip("ray")
    from audiobert.construct.ray_engine import RayEngine

    settings = LlmSettings(engine="ray", model="m", engine_kwargs={"max_model_len": 4096})
    kwargs = RayEngine(settings, Traffic()).engine_kwargs()
    assert kwargs["max_model_len"] == 4096 and kwargs["trust_remote_code"] is False
    assert kwargs["load_format"] == "safetensors"
