"""A model's folder: its trained parts on one backbone, each checked against the JSON that says what made it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
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
from audiobert.backbone import PRESETS, Backbone, Identity, Published, load_backbone
from audiobert.clap import ClapModel, ClapProjections
from audiobert.clap_hub import Clap, HubClap, load_clap
from audiobert.detector import SpanDetector
from audiobert.encoders import AudioEncoder, AudioTower, AudioTowerConfig, Pooling, load_audio_encoder
from audiobert.errors import ArtefactError, InputError
from audiobert.modeling import KnowledgeEncoder, head_parameters, masked_lm_head

PRETRAINED = Path(str(files("audiobert"))) / "pretrained"
CONFIG = "config.json"
BANK_FOLDER = "bank"
# The parts of a model, and the folder that the part is in when each was trained into a folder of its own.
PART_FOLDERS = {"language_model": "masked-lm", "detector": "detector", "clap": "clap", "audiobert": "audiobert"}


@dataclass
class Parts:
    """The plain language model with the adapters' switch, the detector and CLAP.

    Attributes
    ----------
    records
        What each part is: the JSON of a trained one, the identity of a published one.
    folders
        Where each trained part lies.
    models
        The published models by role (`language_model`, `clap`, `audio_encoder`); none in `mini`, whose parts were all
        trained here on one backbone.
    """

    language_model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: Identity
    adapters: Adapters
    detector: SpanDetector
    clap: Clap
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    models: dict[str, Published] = field(default_factory=dict)


def encoder_identity(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ids and SHA-256 of the CLAP model and the audio encoder: what a bank must have been built with."""
    return {
        role: {"id": f"{_short_name(records[part]['backbone'])}/{part}", "sha256": records[part]["sha256"]}
        for role, part in (("clap", "clap"), ("audio_encoder", "audiobert"))
    }


def _short_name(identity: dict[str, Any]) -> str:
    """A model's name without the place of the folder that it was in."""
    return str(identity["origin"] if Path(identity["name"]).is_absolute() else identity["name"])


def published_record(identity: Identity) -> dict[str, Any]:
    """What stands for a published model where a trained part has its JSON."""
    files_of_it = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(identity.sha256.items()))
    return {"backbone": identity.to_json(), "sha256": hashlib.sha256(files_of_it.encode()).hexdigest()}


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
            shutil.copyfile(folders[part] / f"{part}{suffix}", folder / f"{part}{suffix}")
        parts[part] = sha256_of(folder / f"{part}.safetensors")
    config: dict[str, Any] = {"format": "audiobert", "version": 1, "parts": parts, "bank": BANK_FOLDER}
    if models:
        config["models"] = {role: asdict(model) for role, model in models.items()}
    write_json(folder / CONFIG, config)


def published_models(folder: Path) -> dict[str, Published]:
    """The published models that a model's folder names, by role."""
    if not (folder / CONFIG).is_file():
        return {}
    models = read_json(folder / CONFIG).get("models", {})
    try:
        return {role: Published(**model) for role, model in models.items()}
    except (AttributeError, TypeError):
        raise ArtefactError(f"{folder / CONFIG} names its models in a form that is not known here") from None


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
    if name in PRESETS:
        raise ArtefactError(
            f"the preset {name} comes without trained parts: audiobert train audiobert --config configs/{name}.yaml"
            " --data DATA --out OUT makes a model in OUT/model; give that folder"
        )
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


class Backbones:
    """Each backbone once, however many parts stand on it, with the switch of its adapters."""

    def __init__(self, attention: str | None) -> None:
        self._attention = attention
        self._loaded: list[tuple[Backbone, Adapters]] = []

    def add(self, backbone: Backbone) -> tuple[Backbone, Adapters]:
        """Take a backbone that was loaded elsewhere."""
        self._loaded.append((backbone, Adapters(backbone.model.requires_grad_(False))))
        return self._loaded[-1]

    def of(self, record: dict[str, Any], where: Path) -> tuple[Backbone, Adapters]:
        """The backbone that a trained part stands on, by its record, which lies at `where`.

        Raises
        ------
        ArtefactError
            The backbone of that name is another than the one that the part was trained on.
        """
        for backbone, adapters in self._loaded:
            if backbone.identity.sha256 == record["backbone"]["sha256"]:
                return backbone, adapters
        return self.add(backbone_of(record, where, attention=self._attention))


def backbone_of(record: dict[str, Any], where: Path, *, attention: str | None = None) -> Backbone:
    """A copy of the backbone that a trained part was trained on, by its record, which lies at `where`."""
    named = record["backbone"]
    from_hub = str(named["origin"]).startswith("hub:")
    backbone = load_backbone(named["name"], revision=named["revision"] if from_hub else None, attention=attention)
    if backbone.identity.sha256 != named["sha256"]:
        raise ArtefactError(
            f"{where} was trained on the backbone {named['sha256']}, but {named['name']} has"
            f" {backbone.identity.sha256}; give the backbone it was trained on"
        )
    return backbone


def load_parts(
    folder: Path,
    *,
    models: Mapping[str, Published] | None = None,
    detector: str | None = None,
    attention: str | None = None,
    device: str | torch.device = "cpu",
) -> Parts:
    """Load the plain language model, the detector and CLAP.

    Parameters
    ----------
    folder : Path
        Where the trained parts are, each in it or in a folder of its own below it.
    models : mapping, optional
        Published models by role in place of trained parts; by default those that the folder's `config.json` names.
    detector : str, optional
        A detector from elsewhere: a preset that ships (`mini`), or the folder that `train detector` wrote.

    Raises
    ------
    ArtefactError
        A part is missing, damaged, or was trained on another backbone.
    """
    models = dict(published_models(folder) if models is None else models)
    backbones = Backbones(attention)
    records: dict[str, dict[str, Any]] = {}
    folders: dict[str, Path] = {}
    if wanted := models.get("language_model"):
        published = load_backbone(wanted.name, revision=wanted.revision, attention=attention, whole=True)
        wanted.check(published.identity)
        masked_lm_head(published.model)  # refused here, not in the middle of a training
        backbone, adapters = backbones.add(published)
        models["language_model"] = Published.of(published.identity)
        records["language_model"] = published_record(published.identity)
    else:
        weights, record = load_part(folder, "language_model")
        backbone, adapters = backbones.of(record, folder / "language_model.json")
        settings = record["settings"]
        adapters.add(LANGUAGE, LoraSettings(settings["lora_rank"], settings["lora_alpha"], 0.0, ALL_LINEAR))
        adapters.load(LANGUAGE, {k: v for k, v in weights.items() if "lora_" in k})
        copy_tensors(head_parameters(backbone.model), weights, f"{folder / 'language_model.safetensors'}")
        records["language_model"], folders["language_model"] = record, part_folder(folder, "language_model")

    heard_by = folder if detector is None else detector_at(detector)
    span_detector, records["detector"] = load_detector(heard_by, backbones)
    folders["detector"] = part_folder(heard_by, "detector")

    clap: Clap
    if wanted := models.get("clap"):
        clap = load_clap(wanted.name, revision=wanted.revision)
        wanted.check(clap.identity)
        models["clap"] = Published.of(clap.identity)
        records["clap"] = published_record(clap.identity)
        modules: list[nn.Module] = [clap.model]
    else:
        clap, records["clap"] = load_trained_clap(folder, backbones)
        folders["clap"] = part_folder(folder, "clap")
        modules = [clap.projections, clap.encoder]
    for module in (backbone.model, span_detector.encoder, span_detector.head, *modules):
        module.requires_grad_(False).eval().to(device)
    tokenizer, identity = backbone.tokenizer, backbone.identity
    span_detector.mask_token = tokenizer.mask_token
    return Parts(backbone.model, tokenizer, identity, adapters, span_detector, clap, records, folders, models)


def detector_at(name: str) -> Path:
    """The folder of a detector: a preset that ships, or what `train detector` wrote.

    Raises
    ------
    ArtefactError
        There is none.
    """
    if "/" not in name and (PRETRAINED / name / "detector.json").is_file():
        return PRETRAINED / name
    if not (part_folder(Path(name), "detector") / "detector.json").is_file():
        raise ArtefactError(
            f"detector is {name!r}, and there is no detector.json in it; give 'mini', or the folder that 'audiobert"
            " train detector' wrote"
        )
    return Path(name)


def load_detector(folder: Path, backbones: Backbones) -> tuple[SpanDetector, dict[str, Any]]:
    """The span detector of a folder and its record: a LoRA on a backbone that may be shared, or a model of its own."""
    weights, record = load_part(folder, "detector")
    if record["lora"] is None:
        return whole_detector(folder, weights, record), record
    backbone, adapters = backbones.of(record, part_folder(folder, "detector") / "detector.json")
    adapters.add(DETECTOR, LoraSettings(**record["lora"]))
    prefix = f"{backbone.model.base_model_prefix}."
    adapters.load(DETECTOR, {prefix + k: v for k, v in weights.items() if k.startswith("encoder.")})
    head = detector_head(backbone.model.config.hidden_size, weights)
    return SpanDetector(backbone.model.base_model, head, backbone.tokenizer, lambda: adapters.on(DETECTOR)), record


def load_trained_clap(folder: Path, backbones: Backbones) -> tuple[ClapModel, dict[str, Any]]:
    """The CLAP that was trained here and its record; its text tower stands on a backbone that may be shared."""
    weights, record = load_part(folder, "clap")
    backbone, adapters = backbones.of(record, folder / "clap.json")
    tower = AudioTowerConfig(**record["tower"])
    projections = ClapProjections(tower, record["text_size"], record["clap_dim"])
    copy_tensors(projections.state_dict(), weights, f"{folder / 'clap.safetensors'}")
    return ClapModel(projections, backbone.model.base_model, backbone.tokenizer, lambda: adapters.on()), record


def new_audio_encoder(parts: Parts, *, pooling: Pooling = "mean", attention: str | None = None) -> AudioEncoder:
    """The audio encoder before AudioBERT's training: the published one, or a copy of the trained CLAP's audio tower.

    Raises
    ------
    InputError
        CLAP is a published one, which lends its audio tower to nobody, and no audio encoder is named.
    """
    if wanted := parts.models.get("audio_encoder"):
        encoder = load_audio_encoder(wanted.name, revision=wanted.revision, pooling=pooling, attention=attention)
        wanted.check(encoder.identity)
        parts.models["audio_encoder"] = Published.of(encoder.identity)
        return encoder
    if isinstance(parts.clap, HubClap):
        raise InputError("clap names a published model, so audio_encoder must name one, too (such as an AST)")
    tower = AudioTower(parts.clap.projections.audio_tower.config)
    tower.load_state_dict(parts.clap.projections.audio_tower.state_dict())
    return tower


def new_knowledge_encoder(parts: Parts, encoder: AudioEncoder, settings: Mapping[str, Any]) -> KnowledgeEncoder:
    """The knowledge encoder before AudioBERT's training, with what its settings (or its record) say of it."""
    longest: float | None = settings.get("knowledge_length")
    if longest is not None:
        words = cast(nn.Embedding, parts.language_model.get_input_embeddings()).weight.detach()
        longest *= float(words.float().norm(dim=-1).mean())
    return KnowledgeEncoder(
        encoder,
        parts.language_model.config.hidden_size,
        attributes=settings["attributes"],
        projection=settings.get("projection", "mlp"),
        longest=longest,
    )


def trained_knowledge(encoder: KnowledgeEncoder, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a knowledge encoder that a model's folder holds: a published encoder that was not trained is not
    copied."""
    copied = settings["train_audio_encoder"] or isinstance(encoder.tower, AudioTower)
    return {name: value for name, value in encoder.state_dict().items() if copied or not name.startswith("tower.")}


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
    backbone = backbone_of(record, part_folder(folder, "detector") / "detector.json")
    encoder = cast(PreTrainedModel, backbone.model.base_model)
    copy_tensors(encoder.state_dict(), part_of(weights, "encoder."), f"{folder / 'detector.safetensors'}")
    head = detector_head(encoder.config.hidden_size, weights)
    return SpanDetector(encoder, head, backbone.tokenizer, nullcontext)
