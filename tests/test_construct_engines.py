"""The engines beside the server: a model in this process, and Ray Data, on the same questions and the same store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiobert.construct.asking import Asker
from audiobert.construct.llm import Completion, LlmSettings, Request, Traffic
from audiobert.construct.prompts import CategoryAnswer, load_prompt
from audiobert.construct.store import Store
from audiobert.errors import InputError, MissingExtraError

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
    wrapped.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
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


def test_local_model_answers_and_is_repeatable(tiny_model: Path, tmp_path: Path) -> None:
    settings = LlmSettings(engine="local", model=str(tiny_model), max_tokens=16, batch_size=3)
    texts = []
    for run in ("first", "second"):
        with Store(tmp_path / f"{run}.sqlite") as store:
            asker = Asker(settings, store)
            replies = asker.ask(load_prompt("categorize.v1"), ITEMS)
            texts.append([reply.text for reply in replies])
            # random weights know no JSON: asked, cut off or unreadable, asked to be put right, rejected with a reason
            assert [reply.reason for reply in replies] == ["unparseable"] * len(ITEMS)
            assert asker.counts.repairs == len(ITEMS) and asker.traffic.prompt_tokens > 1_000
            kept = store.answers()
            assert kept == 2 * len(ITEMS)
            again = Asker(settings, store)
            assert [reply.text for reply in again.ask(load_prompt("categorize.v1"), ITEMS)] == texts[-1]
            assert again.traffic.requests == 0
    assert texts[0] == texts[1] and all(texts[0])


def test_local_model_writes_what_transformers_would(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from audiobert.construct.local_engine import LocalModel

    chats = [[{"role": "user", "content": text}] for text in ("short", "a rather longer message")]
    found: dict[int, Completion] = {}
    settings = LlmSettings(engine="local", model=str(tiny_model), max_tokens=16, temperature=0)
    LocalModel(settings, Traffic()).complete([Request(tuple(chat), "x", {}) for chat in chats], found.__setitem__)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    for number, chat in enumerate(chats):
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            output = model.generate(**prompt, max_new_tokens=16, do_sample=False, pad_token_id=1)[0]
        expected = tokenizer.decode(output[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert found[number].text == expected
        assert found[number].prompt_tokens == prompt["input_ids"].shape[1]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store, pytest.raises(InputError, match="no language model"):
        Asker(LlmSettings(engine="local", model=str(tmp_path)), store).ask(load_prompt("categorize.v1"), ITEMS)


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
            asker._engine = RayEngine(settings, asker.traffic, make_processor)
            replies = asker.ask(load_prompt("categorize.v1"), ITEMS)
            assert store.answers() == 3
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
        engine.complete([Request(({"role": "user", "content": "x"},), "x", {})], lambda *_: None)
