"""Models by hub id, through the hub's own client, from a hub on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audiobert.backbone import load_backbone, load_language_model
from audiobert.clap_hub import load_clap
from audiobert.encoders import load_audio_encoder
from audiobert.errors import ArtefactError, RemoteError
from auditorybench_toys import bert
from conftest import UseHub
from fake_hub import COMMIT, fake_hub
from tiny_models import ast, clap


def test_each_model_is_loaded_by_hub_id_and_remembers_the_commit(tmp_path: Path, use_hub: UseHub) -> None:
    folders = {
        "someone/bert": bert(tmp_path / "bert"),
        "someone/clap": clap(tmp_path / "clap", shard_size="20KB"),
        "someone/ast": ast(tmp_path / "ast"),
    }
    with fake_hub(folders) as address:
        use_hub(address)
        language_model = load_language_model("someone/bert", "masked")
        identities = [
            language_model.identity, load_clap("someone/clap").identity, load_audio_encoder("someone/ast").identity
        ]  # fmt: skip
        pinned = load_backbone("someone/bert", revision=COMMIT)
    for identity, (name, folder) in zip(identities, folders.items(), strict=True):
        assert (identity.name, identity.origin, identity.revision) == (name, f"hub:{name}", COMMIT)
        assert set(identity.sha256) == {path.name for path in folder.glob("*.safetensors")}
    assert pinned.identity == language_model.identity


def test_what_was_fetched_once_is_there_when_the_hub_is_not(tmp_path: Path, use_hub: UseHub) -> None:
    with fake_hub({"someone/bert": bert(tmp_path / "bert")}) as address:
        use_hub(address)
        first = load_backbone("someone/bert").identity
    assert load_backbone("someone/bert").identity == first


@pytest.mark.parametrize("load", [load_backbone, load_clap, load_audio_encoder])
@pytest.mark.parametrize(
    ("name", "revision", "kind", "message"),
    [
        ("someone/private", None, ArtefactError, "no model on the hub that can be read without logging in"),
        ("someone/absent", None, ArtefactError, "no model on the hub"),
        ("someone/gated", None, RemoteError, "is gated: accept its terms"),
        ("someone/bert", "v9", ArtefactError, "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    load: Any, name: str, revision: str | None, kind: type[Exception], message: str, use_hub: UseHub
) -> None:
    with fake_hub({"someone/bert": Path("unused")}) as address:
        use_hub(address)
        with pytest.raises(kind, match=message) as caught:
            load(name, revision=revision)
    assert "\n" not in str(caught.value)


def test_no_hub_is_one_line(use_hub: UseHub) -> None:
    use_hub("http://127.0.0.1:9")
    with pytest.raises(RemoteError, match="hub cannot be reached") as caught:
        load_backbone("someone/bert")
    assert "\n" not in str(caught.value)


def test_a_download_that_breaks_off_is_one_line_and_leaves_no_half_model(tmp_path: Path, use_hub: UseHub) -> None:
    folder = clap(tmp_path / "clap", shard_size="20KB")
    shard = sorted(path.name for path in folder.glob("*.safetensors"))[1]
    with fake_hub({"someone/clap": folder}, cut=shard) as address:
        use_hub(address)
        with pytest.raises(RemoteError, match="could not fetch someone/clap") as caught:
            load_clap("someone/clap")
    assert "\n" not in str(caught.value)
    with fake_hub({"someone/clap": folder}) as address:
        use_hub(address)
        assert load_clap("someone/clap").identity.revision == COMMIT
