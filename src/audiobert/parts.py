"""A model's folder: its trained parts on one backbone, each checked against the JSON that says what made it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from audiobert.adapters import ALL_LINEAR, DETECTOR, LANGUAGE, Adapters, LoraSettings, copy_tensors
from audiobert.artefacts import read_json, sha256_of, write_json
from audiobert.backbone import Identity, load_backbone
from audiobert.clap import AudioTowerConfig, ClapModel, ClapProjections
from audiobert.detector import SpanDetector
from audiobert.errors import ArtefactError
from audiobert.modeling import head_parameters

PRETRAINED = Path(str(files("audiobert"))) / "pretrained"
CONFIG = "config.json"
BANK_FOLDER = "bank"
# The parts of a model, and the folder that the part is in when each was trained into a folder of its own.
PART_FOLDERS = {"language_model": "masked-lm", "detector": "detector", "clap": "clap", "audiobert": "audiobert"}


@dataclass
class Parts:
    """What stands on one backbone: the plain language model, the detector, CLAP, and the adapters' switch.

    `records` holds the JSON of each part by name.
    """

    language_model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: Identity
    adapters: Adapters
    detector: SpanDetector
    clap: ClapModel
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)


def encoder_identity(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ids and SHA-256 of the CLAP model and the audio encoder: what a bank must have been built with."""
    return {
        role: {"id": f"{records[part]['backbone']['name']}/{part}", "sha256": records[part]["sha256"]}
        for role, part in (("clap", "clap"), ("audio_encoder", "audiobert"))
    }


def write_model_folder(folder: Path, parts_folders: Sequence[Path]) -> None:
    """Put the parts of a model side by side, with a `config.json` that names them; the bank is built into it later."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for parts_folder in parts_folders:
        for part in PART_FOLDERS:
            if (parts_folder / f"{part}.safetensors").is_file() and (parts_folder / f"{part}.json").is_file():
                for suffix in (".safetensors", ".json"):
                    shutil.copyfile(parts_folder / f"{part}{suffix}", folder / f"{part}{suffix}")
                parts[part] = sha256_of(folder / f"{part}.safetensors")
    write_json(folder / CONFIG, {"format": "audiobert", "version": 1, "parts": parts, "bank": BANK_FOLDER})


def part_folder(folder: Path, part: str) -> Path:
    """Where a part lies: in the folder itself, or in the folder of its own that training wrote."""
    below = folder / PART_FOLDERS[part]
    return folder if (folder / f"{part}.safetensors").is_file() or not below.is_dir() else below


def model_folder(name: str) -> Path:
    """The folder of a model: a preset that ships with the package, or the folder that `name` is.

    Raises
    ------
    ArtefactError
        There is no such folder.
    """
    shipped = PRETRAINED / name
    if "/" not in name and shipped.is_dir():
        return shipped
    if Path(name).is_dir():
        if not (Path(name) / CONFIG).is_file():
            raise ArtefactError(
                f"{name} has no {CONFIG}: give a folder written by save_pretrained or by 'audiobert train'"
            )
        return Path(name)
    known = ", ".join(sorted(p.name for p in PRETRAINED.iterdir() if p.is_dir())) if PRETRAINED.is_dir() else ""
    raise ArtefactError(f"no model {name!r}: give {known}, or a folder written by save_pretrained")


def load_part(folder: Path, part: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (float32) and record of one part.

    Raises
    ------
    ArtefactError
        A file is missing, or the weights are not those that the record was written for.
    """
    path = part_folder(folder, part) / f"{part}.safetensors"
    record = read_json(path.with_suffix(".json"))
    if not path.is_file():
        raise ArtefactError(f"{path} is missing; copy it there again, or train it ('audiobert train --help')")
    if record.get("sha256") != sha256_of(path):
        raise ArtefactError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged or not the file that {path.stem}.json describes;"
            " copy both again"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"{path} is no readable safetensors file ({error}); copy it again") from None
    return {name: tensor.float() for name, tensor in tensors.items()}, record


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_parts(folder: Path, *, attention: str | None = None, device: str | torch.device = "cpu") -> Parts:
    """Load the plain language model, the detector and CLAP of a folder onto one copy of the backbone.

    Raises
    ------
    ArtefactError
        A part is missing, damaged, or was trained on another backbone.
    """
    language, language_record = load_part(folder, "language_model")
    backbone = load_backbone(language_record["backbone"]["name"], attention=attention)
    records = {"language_model": language_record}
    model = backbone.model.requires_grad_(False)
    encoder = model.base_model
    adapters = Adapters(model)

    settings = language_record["settings"]
    adapters.add(LANGUAGE, LoraSettings(settings["lora_rank"], settings["lora_alpha"], 0.0, ALL_LINEAR))
    adapters.load(LANGUAGE, {k: v for k, v in language.items() if "lora_" in k})
    head = head_parameters(model)
    copy_tensors(head, language, f"{folder / 'language_model.safetensors'}")

    detector_weights, detector_record = load_part(folder, "detector")
    if detector_record["lora"] is None:
        detector = whole_detector(folder, detector_weights, detector_record)
    else:
        adapters.add(DETECTOR, LoraSettings(**detector_record["lora"]))
        prefix = f"{model.base_model_prefix}."
        adapters.load(DETECTOR, {prefix + k: v for k, v in detector_weights.items() if k.startswith("encoder.")})
        label_head = detector_head(model.config.hidden_size, detector_weights)
        detector = SpanDetector(encoder, label_head, backbone.tokenizer, lambda: adapters.on(DETECTOR))
        records["detector"] = detector_record

    clap_weights, clap_record = load_part(folder, "clap")
    tower = AudioTowerConfig(**clap_record["tower"])
    projections = ClapProjections(tower, clap_record["text_size"], clap_record["clap_dim"])
    copy_tensors(projections.state_dict(), clap_weights, f"{folder / 'clap.safetensors'}")
    records["clap"] = clap_record

    for name, record in records.items():
        if record["backbone"]["sha256"] != backbone.identity.sha256:
            raise ArtefactError(
                f"{folder / name}.json was trained on the backbone {record['backbone']['sha256']}, but"
                f" {backbone.identity.name} has {backbone.identity.sha256}; give the backbone it was trained on"
            )
    records["detector"] = detector_record
    for module in (model, detector.encoder, detector.head, projections):
        module.requires_grad_(False).eval().to(device)
    clap = ClapModel(projections, encoder, backbone.tokenizer, lambda: adapters.on())
    folders = {part: part_folder(folder, part) for part in records}
    return Parts(model, backbone.tokenizer, backbone.identity, adapters, detector, clap, records, folders)


def detector_head(hidden_size: int, weights: dict[str, Tensor]) -> nn.Linear:
    """The detector's head, from hidden states to the two labels, with saved weights."""
    head = nn.Linear(hidden_size, 2)
    copy_tensors(dict(head.named_parameters()), part_of(weights, "head."), "the detector's head")
    return head


def whole_detector(folder: Path, weights: dict[str, Tensor], record: dict[str, Any]) -> SpanDetector:
    """A detector that was fine-tuned as a whole: it has an encoder and a tokenizer of its own.

    Raises
    ------
    ArtefactError
        The backbone at hand is not the one that it was trained on.
    """
    named = record["backbone"]
    backbone = load_backbone(named["name"], revision=named["revision"])
    if backbone.identity.sha256 != named["sha256"]:
        raise ArtefactError(
            f"{folder / 'detector'}.json was trained on the backbone {named['sha256']}, but {named['name']} has"
            f" {backbone.identity.sha256}; give the backbone it was trained on"
        )
    encoder = cast(PreTrainedModel, backbone.model.base_model)
    copy_tensors(encoder.state_dict(), part_of(weights, "encoder."), f"{folder / 'detector.safetensors'}")
    head = detector_head(encoder.config.hidden_size, weights)
    return SpanDetector(encoder, head, backbone.tokenizer, nullcontext)
