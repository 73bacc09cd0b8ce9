import shutil
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from audiobert import backbone
from audiobert.backbone import MINI_SHA256, load_backbone
from audiobert.errors import ArtefactError, RemoteError


def test_mini_is_the_known_model():
    loaded = load_backbone("mini")
    assert loaded.identity.sha256 == {"model.safetensors": MINI_SHA256}
    assert loaded.model.config.hidden_size == 384
    assert loaded.tokenizer.mask_token == "[MASK]"


def test_damaged_mini_weights_are_refused(tmp_path, monkeypatch):
    source, _, _ = backbone._find_mini(None)
    shutil.copytree(source, tmp_path / "mini")
    weights = tmp_path / "mini" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000_000])
    monkeypatch.setenv(backbone.MINI_FOLDER_VARIABLE, str(tmp_path / "mini"))
    with pytest.raises(ArtefactError, match=MINI_SHA256):
        load_backbone("mini")


def test_a_folder_that_is_not_there():
    with pytest.raises(ArtefactError, match="is not a folder"):
        load_backbone("./nowhere/at/all")


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (LocalEntryNotFoundError("offline"), RemoteError, "hub cannot be reached"),
        (RevisionNotFoundError, ArtefactError, "no revision 'v9'"),
        (GatedRepoError, RemoteError, "is gated"),
        (RepositoryNotFoundError, ArtefactError, "check the name"),
    ],
)
def test_hub_failures_are_one_clear_line(monkeypatch, failure, kind, message):
    def fail(*_: object, **__: object) -> Path:
        if isinstance(failure, Exception):
            raise failure
        raise failure("refused", response=httpx.Response(404, request=httpx.Request("GET", "http://hub.invalid")))

    monkeypatch.setattr(backbone, "snapshot_download", fail)
    with pytest.raises(kind, match=message) as caught:
        load_backbone("someone/some-bert", revision="v9")
    assert "\n" not in str(caught.value)
