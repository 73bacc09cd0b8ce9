"""The full-size system with tiny models of every family, saved as a hub would hand them over: train, load, answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from audiobert import AudioBert
from audiobert.artefacts import read_json
from audiobert.auditorybench.kinds import is_withheld
from audiobert.backbone import PRESETS
from audiobert.cli import run
from audiobert.errors import InputError
from audiobert.hub import HubAccess
from audiobert.loading import load_model
from audiobert.model_folder import PRETRAINED, model_folder
from audiobert.modeling import AudioBertForMaskedLM
from audiobert.sentence import encode_texts
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.batches import Batch
from audiobert.training.objective import AudioBertObjective
from auditorybench_toys import bert, deberta, modernbert, roberta
from bank_fakes import write_tone
from fake_hub import COMMIT, fake_hub
from tiny_models import AUDIO_ENCODERS, ast, clap, distilbert
from training_toys import write_data

SOUND = "Woof is the sound a [MASK] makes."
MODEL = {
    "lora": {"rank": 4, "alpha": 8}, "knowledge": {"attributes": False, "projection": "linear"},
    "injection": {"gate": False}, "retrieval": {"query": "{span} sound"},
}  # fmt: skip
SETTINGS = {
    "detector": "mini", "epochs": 1, "batch_size": 4, "precision": "fp32", "model": MODEL, "clips_per_step": 0,
    "audio_encoder_rate": 1.0, "average_from": 1.0, "withhold": False,
}  # fmt: skip
PAIRS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "bert": (bert, "ast"),
    "roberta": (roberta, "whisper"),
    "modernbert": (modernbert, "wav2vec2"),
    "distilbert": (distilbert, "hubert"),
    "deberta": (deberta, "wavlm"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLAP whose weights lie in several shards."""
    return clap(tmp_path_factory.mktemp("clap") / "clap", shard_size="20KB")


def train(data: Path, out: Path, language_model: Path, audio_encoder: Path, clap_folder: Path, **changed: Any) -> Path:
    names = {"language_model": language_model, "clap": clap_folder, "audio_encoder": audio_encoder}
    config = out.parent / f"{out.name}.yaml"
    config.write_text(yaml.safe_dump({**{k: {"name": str(v)} for k, v in names.items()}, **SETTINGS, **changed}))
    assert run(["train", "audiobert", "--data", str(data), "--out", str(out), "--config", str(config)]) == 0
    return out / "model"


@pytest.mark.parametrize("family", PAIRS)
def test_a_family_trains_and_answers(
    family: str, data: Path, clap_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, audio = PAIRS[family]
    folder = train(
        data, tmp_path / "out", make(tmp_path / family), AUDIO_ENCODERS[audio](tmp_path / audio), clap_folder
    )
    capsys.readouterr()
    assert run(["fill-mask", SOUND, "--model", str(folder), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["auditory"]
    assert answer["spans"][0]["clips"]
    model = AudioBert.from_pretrained(str(folder), device="cpu")
    on, unheard, off = (model.score_masks([SOUND], sound=sound)[0].log_probs for sound in ("on", "unheard", "off"))
    assert not torch.equal(on, unheard)  # the audio encoder's part
    assert not torch.equal(unheard, off)  # the LoRA's part
    silent = model.fill_mask(SOUND, audio=False).masks[0].predictions
    assert [p.token for p in silent] == [p["token"] for p in answer["masks"][0]["base_predictions"]]
    assert torch.equal(model.score_masks([SOUND], sound="off")[0].log_probs, off)


@pytest.fixture(scope="module")
def trained_once(data: Path, clap_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    return train(data, folder / "out", bert(folder / "bert"), ast(folder / "ast"), clap_folder)


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of the trained model, which a test may change."""
    return Path(shutil.copytree(trained_once, tmp_path / "trained"))


def test_published_weights_are_named_not_copied(trained: Path, clap_folder: Path) -> None:
    config = read_json(trained / "config.json")
    assert set(config["parts"]) == {"detector", "audiobert"}
    assert set(config["models"]) == {"language_model", "clap", "audio_encoder"}
    assert config["models"]["clap"]["name"] == str(clap_folder)
    assert len(config["models"]["clap"]["sha256"]) > 1  # a checksum a shard
    assert read_json(trained / "audiobert.json")["models"] == config["models"]
    assert {path.name for path in trained.glob("*.safetensors")} == {"detector.safetensors", "audiobert.safetensors"}


def test_a_model_of_other_weights_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_json(trained / "config.json")
    for role in config["models"]:
        changed = json.loads(json.dumps(config))
        changed["models"][role]["sha256"] = {"model.safetensors": "0" * 64}
        (trained / "config.json").write_text(json.dumps(changed))
        assert run(["fill-mask", SOUND, "--model", str(trained)]) == 2
        message = capsys.readouterr().err
        assert "were trained on; restore those" in message
        assert message.count("\n") == 1


def test_the_bank_of_a_model_is_built_again_to_the_same_vectors(trained: Path, data: Path, tmp_path: Path) -> None:
    source = data / "audio" / "clips.csv"
    assert run(["bank", "build", str(source), "--out", str(tmp_path / "bank"), "--model", str(trained)]) == 0
    model = AudioBert.from_pretrained(str(trained), bank=tmp_path / "bank", only_bank=True, device="cpu")
    own = AudioBert.from_pretrained(str(trained), device="cpu").bank
    assert [clip.id for clip in model.bank.clips()] == [clip.id for clip in own.clips()]
    # Training held its weights in float32, the folder holds them in float16.
    np.testing.assert_allclose(model.bank.clap_vectors, own.clap_vectors, atol=1e-3)
    np.testing.assert_allclose(model.bank.knowledge_vectors, own.knowledge_vectors, atol=1e-2)
    query = model.parts.clap.embed_query(["woof sound"]).clap
    found, wanted = (bank.search(query, 3)[0] for bank in (model.bank, own))
    np.testing.assert_allclose(found, wanted, atol=1e-2)


def test_save_and_load_give_the_same_answers(trained: Path, tmp_path: Path) -> None:
    model = AudioBert.from_pretrained(str(trained), device="cpu")
    model.save_pretrained(tmp_path / "copy")
    copy = AudioBert.from_pretrained(str(tmp_path / "copy"), device="cpu")
    assert copy.fill_mask(SOUND).to_json() == model.fill_mask(SOUND).to_json()


def test_the_models_below_it_come_from_the_hub_as_it_does(
    trained: Path, tmp_path: Path, use_hub: Callable[[str], None]
) -> None:
    config = read_json(trained / "config.json")
    folders = {"someone/audiobert": trained}
    for role, published in config["models"].items():
        folders[f"someone/{role}"] = Path(published["name"])
        published |= {"name": f"someone/{role}", "revision": COMMIT}
    (trained / "config.json").write_text(json.dumps(config))
    with fake_hub(folders) as address:
        use_hub(address)
        online = HubAccess(tmp_path / "own cache")
        parts, *_ = load_model(model_folder("someone/audiobert", hub=online), "cpu", online)
    assert parts.models["clap"].name == "someone/clap"
    assert len(list((tmp_path / "own cache").glob("models--*"))) == 4
    assert not (tmp_path / "cache").exists()
    offline = HubAccess(tmp_path / "own cache", local_files_only=True)
    load_model(model_folder("someone/audiobert", hub=offline), "cpu", offline)


def test_a_model_that_needs_models_of_this_machine_is_not_pushed(trained: Path) -> None:
    model = AudioBert.from_pretrained(trained, device="cpu")
    with pytest.raises(InputError, match="of this machine, so nobody else could load it"):
        model.push_to_hub("someone/model", token="unused")


def test_unread_sounds_are_asked_of_a_models_bank(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pitches_hz = {"bell": 2_000.0, "tuba": 200.0, "dog": 450.0, "cat": 900.0}
    assert [is_withheld(label) for label in pitches_hz] == [True, True, False, False]
    lines = []
    for label, pitch_hz in pitches_hz.items():
        write_tone(tmp_path / f"{label}.wav", pitch_hz, seconds=1.0)
        lines.append({"path": f"{label}.wav", "label": label, "caption": f"a {label} sounding"})
    (tmp_path / "clips.jsonl").write_text("\n".join(map(json.dumps, lines)))
    built = ["bank", "build", str(tmp_path / "clips.jsonl"), "--out", str(tmp_path / "bank"), "--model", str(trained)]
    assert run(built) == 0
    capsys.readouterr()

    evaluate = ["evaluate", str(trained), "--tasks", "unread", "--data", str(tmp_path), "--device", "cpu", "--json"]
    predictions = tmp_path / "predictions.jsonl"
    assert run([*evaluate, "--bank", str(tmp_path / "bank"), "--predictions", str(predictions)]) == 0
    report = json.loads(capsys.readouterr().out)
    asked = {(result["task"], result["split"]): result["n"] for result in report["results"]}
    tasks = ("made-up", "made-up-known", "own", "own-known")
    with_and_without = ("bank-added", "bank-not-added", "unheard")
    assert {(f"unread-{task}", split) for task in tasks for split in with_and_without} <= asked.keys()
    assert asked["unread-made-up", "bank-added"] == 1  # bell and tuba
    assert asked["unread-own-known", "unheard"] == 4  # each of them with dog and cat
    assert asked["unread-naming", "withheld-kinds"] == 2
    assert report["combined"] == []
    said = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert len(said) == sum(asked.values())
    by_split = {
        split: [line for line in said if line["task"] == "unread-made-up" and line["split"] == split]
        for split in with_and_without
    }
    assert all("bell" not in line["text"] and "tuba" not in line["text"] for line in by_split["bank-added"])
    assert not any({"bell.wav", "tuba.wav"} & set(line["clips"]) for line in by_split["bank-not-added"])

    assert run(evaluate) == 2  # its own bank has one withheld kind
    assert "at least two withheld kinds" in capsys.readouterr().err
    for name in (f"{trained}:unheard", "control:majority"):
        assert run(["evaluate", name, *evaluate[2:]]) == 2
        assert "the task unread is for an AudioBERT" in capsys.readouterr().err


def test_search_looks_in_another_bank_alone(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tone(tmp_path / "sounds" / "owl.wav", 500.0)
    bank = str(tmp_path / "bank")
    assert run(["bank", "build", str(tmp_path / "sounds"), "--out", bank, "--model", str(trained)]) == 0
    (tmp_path / "sounds" / "owl.wav").unlink()  # vectors are enough
    capsys.readouterr()
    search = ["search", "a dog", "--model", str(trained), "--json"]
    assert run([*search, "--bank", bank]) == 0
    assert [hit["id"] for hit in json.loads(capsys.readouterr().out)] == ["owl.wav"]
    assert run(search) == 0
    assert "owl.wav" not in [hit["id"] for hit in json.loads(capsys.readouterr().out)]


def test_a_frozen_audio_encoder_is_not_copied(data: Path, clap_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = train(
        data,
        tmp_path / "out",
        bert(tmp_path / "bert"),
        ast(tmp_path / "ast"),
        clap_folder,
        model={**MODEL, "knowledge": {"attributes": False, "projection": "linear", "trained_encoder": False}},
    )
    names = load_file(model / "audiobert.safetensors")
    assert any(name.startswith("knowledge.outer") for name in names)
    assert not any(name.startswith("knowledge.tower") for name in names)
    assert AudioBert.from_pretrained(str(model), device="cpu").fill_mask(SOUND).auditory


def test_masked_scores_are_those_of_the_fill_mask_pipeline(trained: Path) -> None:
    from transformers import AutoModelForMaskedLM, pipeline

    model = AudioBert.from_pretrained(str(trained), device="cpu")
    name = read_json(trained / "config.json")["models"]["language_model"]["name"]
    plain = pipeline(
        "fill-mask", AutoModelForMaskedLM.from_pretrained(name), tokenizer=AutoTokenizer.from_pretrained(name)
    )
    ours = model.fill_mask(SOUND, audio=False, top_k=5).masks[0].predictions
    theirs = plain(SOUND, top_k=5)
    assert [p.token for p in ours] == [p["token_str"].strip() for p in theirs]
    np.testing.assert_allclose([p.score for p in ours], [p["score"] for p in theirs], rtol=1e-5)


def test_clips_of_evaluated_rows_are_left_out_unless_asked_for(data: Path, clap_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("text", "auditorybench"):
        (folder / name).symlink_to(data / name)
    (folder / "audio").mkdir()
    rows = (data / "audio" / "clips.csv").read_text().splitlines()
    for path in (data / "audio").glob("*.wav"):
        (folder / "audio" / path.name).symlink_to(path)
    split = ["split", *["dev" if row.startswith("dog") else "train" for row in rows[1:]]]
    (folder / "audio" / "clips.csv").write_text("\n".join(f"{row},{s}" for row, s in zip(rows, split, strict=True)))
    language_model, encoder = bert(tmp_path / "bert"), ast(tmp_path / "ast")
    for evaluated, dogs in (("leave-out", 0), ("keep", 6)):
        model = train(folder, tmp_path / evaluated, language_model, encoder, clap_folder, evaluated_clips=evaluated)
        clips = AudioBert.from_pretrained(str(model), device="cpu").bank.clips()
        assert sum(clip.label == "dog" for clip in clips) == dogs


def test_the_loss_at_all_tokens_is_the_language_models_own(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert(tmp_path / "bert"))
    torch.manual_seed(0)
    language_model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
        )
    ).eval()
    inputs = encode_texts(tokenizer, ["a [MASK] barks", "the cat [MASK] at a dog"])
    answers = torch.tensor([7, 9])
    batch = Batch(
        inputs,
        answers,
        opposites=torch.tensor([-1, -1]),
        clips=torch.zeros(2, 0, 1, dtype=torch.long),
        scores=torch.zeros(2, 0, 1),
        names=torch.zeros(2, 0, 0, dtype=torch.long),
        name_weights=torch.zeros(2, 0, 0),
    )
    model = AudioBertForMaskedLM(language_model)
    config = AudioBertConfig(audio="none", loss_tokens="all")
    width = SimpleNamespace(hidden_size=16)  # all that is asked of an audio side that is not there
    objective = AudioBertObjective(model, width, None, torch.zeros(0), config)  # type: ignore[arg-type]
    loss, terms = objective(batch)
    labels = inputs.input_ids.masked_scatter(inputs.masks, answers).masked_fill(inputs.attention_mask == 0, -100)
    expected = language_model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, labels=labels).loss
    assert int(terms) == int(inputs.attention_mask.sum())
    torch.testing.assert_close(loss / terms, expected)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("clapp: {name: x}", "unknown key 'clapp'"),
        ("clap: {name: x, revison: y}", "unknown key 'clap.revison'"),
        ("model: {retrieval: {query: sound}}", "must have {span} in it"),
        ("model: {lora: {ranks: 4}}", "unknown key 'model.lora.ranks'"),
        ("clap: {name: ./nowhere}", "./nowhere is not a folder"),
        ("language_model: {name: ./nowhere}", "./nowhere is not a folder"),
        ("detector: ./nowhere", "there is no detector.json in it"),
        ("preset: paper-huge", "preset is 'paper-huge'"),
    ],
)
def test_a_config_that_cannot_work_is_one_line(
    lines: str, message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(lines)
    mini = str(PRETRAINED / "mini")
    arguments = ["--data", str(data), "--out", str(tmp_path / "out"), "--parts", mini, "--config", str(config)]
    assert run(["train", "audiobert", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_preset_without_trained_parts_says_how_to_make_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fill-mask", SOUND, "--model", "paper-base"]) == 2
    assert "audiobert train audiobert --config paper-base" in capsys.readouterr().err


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_out_of_memory_names_the_setting_to_lower(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(AudioBert, "from_pretrained", exhausted)
    assert run(["fill-mask", SOUND]) == 2
    said = capsys.readouterr().err
    assert "lower --batch-size" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("preset", ["paper-base", "paper-large"])
def test_the_configs_name_the_presets_models(preset: str) -> None:
    config = AudioBertConfig.load(preset)
    named = {role: model.name for role, model in config.models().items()}
    assert named == PRESETS[preset]
    assert set(named) == {"language_model", "clap", "audio_encoder"}
