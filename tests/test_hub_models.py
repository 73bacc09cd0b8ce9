"""An AudioBERT on the hub: uploaded and loaded again by its id, from a hub on this machine; its model card."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from audiobert import AudioBert
from audiobert.artefacts import read_json
from audiobert.bank import AudioBank, build_bank
from audiobert.cli import run
from audiobert.errors import ArtefactError, AudioBertError, InputError, RemoteError
from audiobert.model_card import MARK
from audiobert.model_folder import model_folder
from auditorybench_toys import bert
from bank_fakes import write_tone
from conftest import UseHub
from fake_hub import TOKEN, Repositories, serve

SOUND = "Meow is the sound a [MASK] makes."
NAME = "someone/audiobert-tones"


@pytest.fixture(scope="module")
def mini() -> AudioBert:
    return AudioBert.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def model(mini: AudioBert, tmp_path_factory: pytest.TempPathFactory) -> AudioBert:
    """Mini with a bank of two tones, which lie on this machine."""
    folder = tmp_path_factory.mktemp("tones")
    for take in range(2):
        write_tone(folder / "audio" / f"tone{take}.wav", 300.0 * (take + 1), seconds=1.0)
    build_bank(folder / "audio", folder / "bank", mini.clip_encoder(), workers=0)
    return mini.with_bank(AudioBank.open(folder / "bank"), only=True)


@pytest.fixture
def hub(tmp_path: Path, use_hub: UseHub) -> Iterator[Repositories]:
    repositories = Repositories({}, tmp_path / "hub")
    with serve(repositories) as address:
        use_hub(address)
        yield repositories


def pushed(model: AudioBert, hub: Repositories, **options: Any) -> Path:
    model.push_to_hub(NAME, token=TOKEN, **options)
    return hub.folders[NAME]


def test_a_pushed_model_answers_alike_wherever_it_is_loaded(
    model: AudioBert, hub: Repositories, tmp_path: Path
) -> None:
    pushed(model, hub, commit_message="The first")
    loaded = AudioBert.from_pretrained(NAME, device="cpu", cache_dir=tmp_path / "elsewhere", token=TOKEN)
    assert loaded.fill_mask(SOUND).masks == model.fill_mask(SOUND).masks
    assert loaded.name == NAME
    assert loaded.bank.verify().sound
    assert (tmp_path / "elsewhere").is_dir()
    assert hub.messages == ["The first"]
    assert AudioBert.from_pretrained(NAME, revision=hub.commits[NAME], device="cpu").name == NAME


def test_where_the_recordings_lie_is_not_uploaded(model: AudioBert, hub: Repositories) -> None:
    assert model.bank.manifest["audio_root"]
    folder = pushed(model, hub)
    manifest = read_json(folder / "bank" / "bank.json")
    assert manifest["audio_root"] is None
    for file in folder.rglob("*"):
        assert file.is_dir() or str(model.bank.folder.parent).encode() not in file.read_bytes()


def test_what_was_fetched_is_there_without_the_hub(
    model: AudioBert, hub: Repositories, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RemoteError, match="not in the local cache") as caught:
        AudioBert.from_pretrained(NAME, local_files_only=True)
    assert "\n" not in str(caught.value)
    pushed(model, hub)
    assert run(["fill-mask", SOUND, "--model", NAME]) == 0
    answered = capsys.readouterr().out
    hub.folders.clear()
    loaded = AudioBert.from_pretrained(NAME, local_files_only=True, device="cpu")
    assert f"with sound    {loaded.fill_mask(SOUND).masks[0].predictions[0].token}" in answered


def test_commands_and_evaluation_take_a_hub_id(
    model: AudioBert, hub: Repositories, capsys: pytest.CaptureFixture[str]
) -> None:
    from audiobert.auditorybench.models import load_adapter

    pushed(model, hub)
    adapter = load_adapter(f"{NAME}:unheard", {})
    assert (adapter.kind, adapter.name) == ("audiobert", f"{NAME}:unheard")
    assert run(["spans", SOUND, "--model", NAME]) == 0
    assert "Meow" in capsys.readouterr().out


def test_a_second_push_leaves_no_file_of_the_first_bank(model: AudioBert, hub: Repositories) -> None:
    folder = pushed(model, hub)
    (folder / "bank" / "index.faiss").write_bytes(b"of a larger bank")
    (folder / "figures.md").write_text("mine")
    pushed(model, hub)
    assert not (folder / "bank" / "index.faiss").exists()
    assert (folder / "figures.md").read_text() == "mine"


def test_save_pretrained_pushes_too(model: AudioBert, hub: Repositories, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "audiobert-tones", push_to_hub=True, token=TOKEN, revision="next", private=True)
    assert (NAME, "next") in hub.branches
    assert (tmp_path / "audiobert-tones" / "config.json").read_text() == (hub.folders[NAME] / "config.json").read_text()
    with pytest.raises(InputError, match=r"token: .*push_to_hub=True"):
        model.save_pretrained(tmp_path / "audiobert-tones", token=TOKEN)


def test_another_model_of_the_hub_is_refused_and_not_fetched(hub: Repositories, tmp_path: Path) -> None:
    hub.folders["someone/bert"] = bert(tmp_path / "bert")
    hub.commits["someone/bert"] = "1" * 40
    with pytest.raises(ArtefactError, match="someone/bert on the hub is no AudioBERT"):
        AudioBert.from_pretrained("someone/bert")
    fetched = [path.name for path in (tmp_path / "cache").rglob("*") if "snapshots" in path.parts and path.is_symlink()]
    assert fetched == ["config.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "someone/absent"}, "is no folder here and no model on the hub"),
        ({"name": NAME, "revision": "v9"}, "has no revision 'v9'"),
        ({"name": "someone/gated"}, "is gated"),
        ({"name": "mini", "revision": "v9"}, "mini is on this machine"),
        ({"name": "no-such"}, "no model 'no-such': give mini, a folder written by save_pretrained, or a hub id"),
        ({"name": "a/b/c"}, "no model 'a/b/c'"),
        ({"name": ""}, "the model's name is an empty string"),
        ({"name": None}, "the model's name is of type NoneType"),
        ({"name": 5}, "the model's name is of type int"),
        ({"name": b"mini"}, "the model's name is of type bytes"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(options: dict[str, Any], message: str, hub: Repositories) -> None:
    hub.folders[NAME], hub.commits[NAME] = model_folder("mini"), "1" * 40
    with pytest.raises(AudioBertError) as caught:
        AudioBert.from_pretrained(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("repo_id", "options", "message"),
    [
        (NAME, {"token": "hf_wrong"}, "this needs a token that may do it"),
        ("other/model", {"token": TOKEN}, "this needs a token that may do it"),
        ("a/b/c", {"token": TOKEN}, "the repository is 'a/b/c'; give owner/name"),
        ("", {"token": TOKEN}, "the repository is ''"),
        (None, {"token": TOKEN}, "the repository is None"),
    ],
)
def test_what_cannot_be_pushed_is_one_line(
    repo_id: Any, options: dict[str, Any], message: str, model: AudioBert, hub: Repositories
) -> None:
    with pytest.raises(AudioBertError) as caught:
        model.push_to_hub(repo_id, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hub.folders == {}


# --- the model card ---------------------------------------------------------------------------------------------------


def metadata(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_is_made_of_the_record(model: AudioBert, hub: Repositories) -> None:
    card = (pushed(model, hub) / "README.md").read_text()
    assert metadata(card)["base_model"] == ["sentence-transformers/all-MiniLM-L6-v2"]
    assert metadata(card)["pipeline_tag"] == "fill-mask"
    assert f'AudioBert.from_pretrained("{NAME}")' in card
    assert "metadata of 2 clips" in card
    assert read_json(model_folder("mini") / "audiobert.json")["sha256"][:12] in card
    assert "combined.dev" in card


def test_a_card_that_a_person_wrote_stays(model: AudioBert, hub: Repositories, tmp_path: Path) -> None:
    folder = pushed(model, hub)
    (folder / "README.md").write_text("my own words")
    pushed(model, hub)
    assert (folder / "README.md").read_text() == "my own words"
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "README.md").write_text("my project")
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").read_text() == "my project"
    assert AudioBert.from_pretrained(tmp_path / "saved", device="cpu").bank.verify().sound


def test_a_card_of_the_model_goes_along_with_its_own_bank_alone(
    mini: AudioBert, model: AudioBert, tmp_path: Path
) -> None:
    mini.save_pretrained(tmp_path / "saved")
    shipped = (model_folder("mini") / "README.md").read_text()
    assert (tmp_path / "saved" / "README.md").read_text() == shipped
    assert MARK in shipped
    model.save_pretrained(tmp_path / "saved")
    assert "metadata of 2 clips" in (tmp_path / "saved" / "README.md").read_text()


def test_a_copied_folder_is_a_model(mini: AudioBert, tmp_path: Path) -> None:
    shutil.copytree(model_folder("mini"), tmp_path / "copy")
    assert AudioBert.from_pretrained(tmp_path / "copy", device="cpu").fill_mask(SOUND) == mini.fill_mask(SOUND)
