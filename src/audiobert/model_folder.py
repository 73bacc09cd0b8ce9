"""Read and write a model's folder: the trained parts, each with a typed record that says what made it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from audiobert.adapters import LoraSettings
from audiobert.arguments import checked_path
from audiobert.artefacts import provenance, read_json, sha256_of, whole_file, write_json
from audiobert.backbone import PRESETS, Identity, Published
from audiobert.bank.store import bank_files
from audiobert.errors import ArtefactError, InputError
from audiobert.hub import HubAccess, fetch, is_hub_id
from audiobert.injection import InjectionSettings
from audiobert.knowledge import KnowledgeSettings
from audiobert.packaged import PACKAGED
from audiobert.retrieve import RetrievalSettings
from audiobert.settings import Settings

PRETRAINED = Path(str(files("audiobert"))) / "pretrained"
CONFIG = "config.json"
BANK_FOLDER = "bank"
# What is fetched of an AudioBERT on the hub.
HUB_FILES = ("*.json", "*.safetensors", "README.md", f"{BANK_FOLDER}/*")
# The parts of a model, and the folder that the part is in when each was trained into a folder of its own.
PART_FOLDERS = {"language_model": "masked-lm", "detector": "detector", "clap": "clap", "audiobert": "audiobert"}


class ModelSettings(Settings):
    """Settings of an AudioBERT beside those of its parts, each with the part that owns it."""

    lora: LoraSettings = LoraSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    injection: InjectionSettings = InjectionSettings()
    retrieval: RetrievalSettings = RetrievalSettings()


class PartRecord(BaseModel):
    """Record beside a part's weights; the rest of the JSON (versions, data, figures) is kept as it is."""

    model_config = ConfigDict(extra="allow", frozen=True)

    backbone: Identity  # what the part was trained on
    sha256: str  # of the weights file; of a published model, of its checksums
    lora: LoraSettings | None = None  # the adapter that the weights are, None where they are a whole model
    model: ModelSettings | None = None  # of an AudioBERT
    peak: float = 0.0  # of a detector

    def extra(self, name: str, default: Any = ...) -> Any:
        """Return a value of the JSON that has no field of its own; ArtefactError if there is none and no default."""
        values = self.model_extra or {}
        if name not in values and default is ...:
            raise ArtefactError(f"the record of a part has no {name!r}; it is of another version: train the part again")
        return values.get(name, default)


class ModelConfig(Settings):
    """`config.json` of a model's folder: checksums of its parts, and the published models by role."""

    format: str
    version: int
    parts: dict[str, str]
    bank: str = BANK_FOLDER
    models: dict[str, Published] = Field(default_factory=dict)


def encoder_identity(records: Mapping[str, PartRecord]) -> dict[str, Any]:
    """Return ids and SHA-256 of the models that make a bank's vectors: CLAP, the audio encoder, the text encoder."""
    backbone = records["clap"].backbone
    checksums = "".join(backbone.sha256[name] for name in sorted(backbone.sha256))
    return {
        "clap": {"id": f"{_short_name(backbone)}/clap", "sha256": records["clap"].sha256},
        "audio_encoder": {
            "id": f"{_short_name(records['audiobert'].backbone)}/audiobert",
            "sha256": records["audiobert"].sha256,
        },
        "text_encoder": {"id": _short_name(backbone), "sha256": hashlib.sha256(checksums.encode()).hexdigest()},
    }


def _short_name(identity: Identity) -> str:
    """Return a model's name without the place of the folder that it was in."""
    return identity.origin if Path(identity.name).is_absolute() else identity.name


def published_record(identity: Identity) -> PartRecord:
    """Return what stands for a published model where a trained part has its JSON."""
    files_of_it = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(identity.sha256.items()))
    return PartRecord(backbone=identity, sha256=hashlib.sha256(files_of_it.encode()).hexdigest())


def write_model_folder(
    folder: Path, folders: Mapping[str, Path], models: Mapping[str, Published] | None = None
) -> None:
    """Put the trained parts of a model side by side, with a `config.json` that names them and the published models.

    The weights of published models stay where they are; the bank is built into the folder later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for part in (name for name in PART_FOLDERS if name in folders):
        for suffix in (".safetensors", ".json"):
            with whole_file(folder / f"{part}{suffix}") as file:
                shutil.copyfile(folders[part] / f"{part}{suffix}", file)
        parts[part] = sha256_of(folder / f"{part}.safetensors")
    config: dict[str, Any] = {"format": "audiobert", "version": 2, "parts": parts, "bank": BANK_FOLDER}
    if models:
        config["models"] = {role: asdict(model) for role, model in models.items()}
    write_json(folder / CONFIG, config)


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder holds an AudioBERT, whose `config.json` says so, and not a plain language model."""
    if not (folder / CONFIG).is_file():
        return False
    content = read_json(folder / CONFIG)
    return isinstance(content, dict) and content.get("format") == "audiobert"


def model_files(folder: Path) -> set[str]:
    """Return the names of the files that make up the AudioBERT in a folder, its bank's included; none if it is none."""
    if not is_model_folder(folder):
        return set()
    parts = {f"{part}{suffix}" for part in PART_FOLDERS for suffix in (".json", ".safetensors")}
    bank = {f"{BANK_FOLDER}/{name}" for name in bank_files(folder / BANK_FOLDER)}
    return {name for name in {CONFIG, *parts, *bank} if (folder / name).is_file()}


def read_config(folder: Path) -> ModelConfig:
    """Read the `config.json` of a model's folder; ArtefactError if it is missing or of another form."""
    try:
        return ModelConfig.model_validate(read_json(folder / CONFIG))
    except ValidationError as error:
        raise ArtefactError(f"{folder / CONFIG} is no config of an AudioBERT: {first_problem(error)}") from None


def published_models(folder: Path) -> dict[str, Published]:
    """Return the published models that a model's folder names, by role."""
    return dict(read_config(folder).models) if (folder / CONFIG).is_file() else {}


def model_folder(name: str | Path, *, revision: str | None = None, hub: HubAccess | None = None) -> Path:
    """Return the folder of a model: a preset that ships with the package, a folder, or what the hub has.

    InputError if the name is neither a string nor a path, or a revision is given with a model that is on this machine;
    ArtefactError if there is no such model, or it is no AudioBERT; RemoteError if the hub cannot be reached or refuses.
    """
    checked_path("the model's name", name)
    given = str(name)
    here = PRETRAINED / given if given and "/" not in given else Path(given)
    if not (here / CONFIG).is_file():
        here = Path(given)
    if given and here.is_dir():
        if revision is not None:
            raise InputError(f"revision is {revision!r}, but {given} is on this machine; a hub id has revisions")
        if not is_model_folder(here):
            raise ArtefactError(
                f"{given} has no {CONFIG} of an AudioBERT: give a folder written by save_pretrained or by 'audiobert"
                " train'"
            )
        return here
    if given in PRESETS:
        raise ArtefactError(
            f"the preset {given} comes without trained parts: audiobert train audiobert --config {given}"
            " --data DATA --out OUT makes a model in OUT/model; give that folder"
        )
    if given in PACKAGED:
        raise ArtefactError(
            f"{given} is a language model without trained parts: audiobert train audiobert --config {given}/audiobert"
            " --parts mini --data DATA --out OUT makes a model in OUT/model; give that folder"
        )
    if is_hub_id(given):
        return _fetched(given, revision, hub)
    known = ", ".join(sorted(p.name for p in PRETRAINED.iterdir() if p.is_dir())) if PRETRAINED.is_dir() else ""
    raise ArtefactError(f"no model {given!r}: give {known}, a folder written by save_pretrained, or a hub id")


def _fetched(name: str, revision: str | None, hub: HubAccess | None) -> Path:
    """Return the folder with the files of an AudioBERT on the hub; of another model its config alone is fetched."""
    folder = fetch(name, [CONFIG], revision, hub)
    if not is_model_folder(folder):
        raise ArtefactError(f"{name} on the hub is no AudioBERT by its {CONFIG}; give the hub id of one")
    return fetch(name, HUB_FILES, folder.name, hub)  # of the same commit


def parts_folder(given: Path) -> Path:
    """Return the folder of trained parts: the given one, or that of a preset that ships (`mini`)."""
    shipped = PRETRAINED / given
    return shipped if len(given.parts) == 1 and not given.exists() and (shipped / CONFIG).is_file() else given


def part_folder(folder: Path, part: str) -> Path:
    """Return where a part lies: in the folder itself, or in the folder of its own that training wrote."""
    below = folder / PART_FOLDERS[part]
    return folder if (folder / f"{part}.safetensors").is_file() or not below.is_dir() else below


def read_record(folder: Path, part: str) -> PartRecord:
    """Read the record of one part; ArtefactError if it is missing or of another version."""
    path = part_folder(folder, part) / f"{part}.json"
    try:
        return PartRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise ArtefactError(
            f"{path} is no record of this version: {first_problem(error)}; train the part again"
        ) from None


def load_part(folder: Path, part: str) -> tuple[dict[str, Tensor], PartRecord]:
    """Load weights (float32) and record of one part; ArtefactError if a file is missing, damaged or another one."""
    record = read_record(folder, part)
    path = part_folder(folder, part) / f"{part}.safetensors"
    if not path.is_file():
        raise ArtefactError(f"{path} is missing; copy it there again, or train it ('audiobert train --help')")
    if record.sha256 != sha256_of(path):
        raise ArtefactError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged or not the file that {path.stem}.json describes;"
            " copy both again"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{path} is no readable safetensors file ({error}); copy it again") from None
    return {name: tensor.float() for name, tensor in tensors.items()}, record


def write_part(
    folder: Path, part: str, weights: Mapping[str, Tensor], sources: Iterable[Path], **made_from: Any
) -> dict[str, Any]:
    """Write the weights (float16) of one part and the record beside them; return the record.

    Parameters
    ----------
    sources
        Files that the part was trained on; the record has their checksums.
    **made_from
        What else the record says: `backbone`, `settings`, figures.
    """
    path = folder / f"{part}.safetensors"
    with whole_file(path) as file:
        save_file({name: tensor.detach().cpu().half().contiguous() for name, tensor in weights.items()}, file)
    data = {source.name: sha256_of(source) for source in sources}
    record = {**provenance(part=part, **made_from, data=data), "sha256": sha256_of(path)}
    write_json(folder / f"{part}.json", record)
    return record


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation on one line: where it is and what it is."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return tensors under names with a prefix, which `part_of` takes off."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
