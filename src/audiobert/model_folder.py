"""What lies in a model's folder, as typed records: the trained parts, each with the JSON that says what made it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from audiobert.adapters import LoraSettings
from audiobert.artefacts import read_json, sha256_of, whole_file, write_json
from audiobert.backbone import PRESETS, Identity, Published
from audiobert.bank.store import bank_files
from audiobert.errors import ArtefactError
from audiobert.injection import InjectionSettings
from audiobert.knowledge import KnowledgeSettings
from audiobert.retrieve import RetrievalSettings
from audiobert.settings import Settings

PRETRAINED = Path(str(files("audiobert"))) / "pretrained"
CONFIG = "config.json"
BANK_FOLDER = "bank"
# The parts of a model, and the folder that the part is in when each was trained into a folder of its own.
PART_FOLDERS = {"language_model": "masked-lm", "detector": "detector", "clap": "clap", "audiobert": "audiobert"}


class ModelSettings(Settings):
    """What an AudioBERT is made of beside the parts that it stands on, each setting with the part that owns it."""

    lora: LoraSettings = LoraSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    injection: InjectionSettings = InjectionSettings()
    retrieval: RetrievalSettings = RetrievalSettings()


class PartRecord(BaseModel):
    """What stands beside a part's weights; the rest of the JSON (versions, data, figures) is kept as it is.

    Attributes
    ----------
    backbone
        What the part was trained on.
    sha256
        Of the weights file; of a published model, of its checksums.
    lora
        The adapter that the weights are, None where they are a whole model.
    model
        The settings of an AudioBERT.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    backbone: Identity
    sha256: str
    lora: LoraSettings | None = None
    model: ModelSettings | None = None

    def extra(self, name: str) -> Any:
        """Return a value of the JSON that has no field of its own."""
        values = self.model_extra or {}
        if name not in values:
            raise ArtefactError(f"the record of a part has no {name!r}; it is of another version: train the part again")
        return values[name]


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

    Parameters
    ----------
    folders : mapping
        Where each trained part lies, by its name.
    models : mapping, optional
        The published models, by role.
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


def published_models(folder: Path) -> dict[str, Published]:
    """Return the published models that a model's folder names, by role."""
    if not (folder / CONFIG).is_file():
        return {}
    try:
        return dict(ModelConfig.model_validate(read_json(folder / CONFIG)).models)
    except ValidationError as error:
        raise ArtefactError(f"{folder / CONFIG} is no config of an AudioBERT: {first_problem(error)}") from None


def model_folder(name: str | Path) -> Path:
    """Return the folder of a model: a preset that ships with the package, or the folder that `name` is."""
    given = str(name)
    shipped = PRETRAINED / given
    if given and "/" not in given and (shipped / CONFIG).is_file():
        return shipped
    if given and Path(given).is_dir():
        if not is_model_folder(Path(given)):
            raise ArtefactError(
                f"{given} has no {CONFIG} of an AudioBERT: give a folder written by save_pretrained or by 'audiobert"
                " train'"
            )
        return Path(given)
    if given in PRESETS:
        raise ArtefactError(
            f"the preset {given} comes without trained parts: audiobert train audiobert --config {given}"
            " --data DATA --out OUT makes a model in OUT/model; give that folder"
        )
    known = ", ".join(sorted(p.name for p in PRETRAINED.iterdir() if p.is_dir())) if PRETRAINED.is_dir() else ""
    raise ArtefactError(f"no model {given!r}: give {known}, or a folder written by save_pretrained")


def part_folder(folder: Path, part: str) -> Path:
    """Return where a part lies: in the folder itself, or in the folder of its own that training wrote."""
    below = folder / PART_FOLDERS[part]
    return folder if (folder / f"{part}.safetensors").is_file() or not below.is_dir() else below


def load_part(folder: Path, part: str) -> tuple[dict[str, Tensor], PartRecord]:
    """Load weights (float32) and record of one part.

    Raises
    ------
    ArtefactError
        A file is missing or of another version, or the weights are not those that the record was written for.
    """
    path = part_folder(folder, part) / f"{part}.safetensors"
    record_path = path.with_suffix(".json")
    try:
        record = PartRecord.model_validate(read_json(record_path))
    except ValidationError as error:
        raise ArtefactError(
            f"{record_path} is no record of this version: {first_problem(error)}; train the part again"
        ) from None
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


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a validation on one line: where it is and what it is."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
