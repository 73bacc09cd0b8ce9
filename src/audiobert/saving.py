"""Write a model into a folder or to the hub, with a model card made from its records."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from audiobert.artefacts import whole_folder
from audiobert.bank.store import read_manifest, write_manifest
from audiobert.errors import InputError
from audiobert.hub import HubRepository
from audiobert.model_card import CARD, is_own_card, model_card
from audiobert.model_folder import BANK_FOLDER, model_files, read_config, read_record
from audiobert.packaged import PACKAGED


def save_model(source: Path, bank: Path, folder: str | Path, title: str) -> None:
    """Write the model of the folder `source`, with the bank of the folder `bank`, into another folder.

    Its model card is `source`'s own, or made from the records if there is none or it is of another bank. A card of
    `folder` that a person wrote stays. InputError if `folder` holds files of these names that are no AudioBERT's.
    """
    with whole_folder(folder, ours=_own_files) as part:
        for name in sorted(model_files(source)):
            if "/" not in name:
                shutil.copyfile(source / name, part / name)
        shutil.copytree(bank, part / BANK_FOLDER)
        if not (Path(folder) / CARD).exists() or _has_own_card(Path(folder)):
            if (source / CARD).is_file() and bank == source / BANK_FOLDER:
                shutil.copyfile(source / CARD, part / CARD)
            else:
                (part / CARD).write_text(model_card(part, title), encoding="utf-8")


def push_model(source: Path, bank: Path, repo_id: str, message: str, **options: Any) -> str:
    """Upload a model to the hub in one commit and return the commit's address.

    The folder that the bank's recordings lie in is left out. A card of the repository that a person wrote stays. The
    options are those of `HubRepository`. InputError if the model needs a model that is in a folder of this machine.
    """
    if local := sorted(_local_models(source)):
        raise InputError(
            f"the model needs {', '.join(local)} of this machine, so nobody else could load it from the hub; train it"
            " on a model of the hub"
        )
    repository = HubRepository(repo_id, **options)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        save_model(source, bank, folder, repository.repo_id)
        manifest = read_manifest(folder / BANK_FOLDER)
        write_manifest(folder / BANK_FOLDER, manifest | {"audio_root": None, "source": Path(manifest["source"]).name})
        card = repository.read_text(CARD)
        if card is not None and not is_own_card(card):
            (folder / CARD).unlink()
        return repository.commit(folder, message, replaced=(BANK_FOLDER,))


def _own_files(folder: Path) -> set[str]:
    return model_files(folder) | ({CARD} if _has_own_card(folder) else set())


def _has_own_card(folder: Path) -> bool:
    return (folder / CARD).is_file() and is_own_card((folder / CARD).read_text(encoding="utf-8", errors="replace"))


def _local_models(source: Path) -> set[str]:
    """Return the models in folders of this machine that a model is loaded with."""
    config = read_config(source)
    backbones = [read_record(source, part).backbone for part in config.parts]
    trained_on = {one.name for one in backbones if one.name not in PACKAGED and one.origin.startswith("folder:")}
    return trained_on | {model.name for model in config.models.values() if Path(model.name).is_absolute()}
