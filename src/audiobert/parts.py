"""Load the parts of a model: plain language model, detector, CLAP and audio encoder."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from audiobert.adapters import copy_sharing_embeddings, copy_tensors, fold_lora
from audiobert.backbone import Backbone, Identity, Published, load_backbone, load_language_model
from audiobert.clap import ClapModel, ClapProjections
from audiobert.clap_hub import Clap, HubClap, load_clap
from audiobert.detector import SpanDetector, keep_first_layers
from audiobert.encoders import AudioEncoder, AudioTower, AudioTowerConfig, load_audio_encoder
from audiobert.errors import ArtefactError, InputError
from audiobert.hub import HubAccess
from audiobert.knowledge import KnowledgeSettings
from audiobert.model_folder import (
    PRETRAINED,
    PartRecord,
    load_part,
    part_folder,
    part_of,
    published_models,
    published_record,
)
from audiobert.modeling import head_parameters, is_causal, masked_lm_head
from audiobert.sentence import MASK


@dataclass
class Parts:
    """The loaded parts of an AudioBERT; those of `mini` were all trained here on one backbone."""

    language_model: PreTrainedModel  # the plain one, without any sound
    tokenizer: PreTrainedTokenizerBase
    identity: Identity  # of the language model's backbone
    detector: SpanDetector
    clap: Clap
    records: dict[str, PartRecord] = field(default_factory=dict)  # the JSON of each trained part, else its identity
    folders: dict[str, Path] = field(default_factory=dict)  # where each trained part lies
    models: dict[str, Published] = field(default_factory=dict)  # published ones: language_model, clap, audio_encoder


class Backbones:
    """Backbones by checksum, each read from disk once; every part gets a copy that shares the embeddings."""

    def __init__(self, attention: str | None = None, hub: HubAccess | None = None) -> None:
        self._attention, self._hub = attention, hub
        self._loaded: list[Backbone] = []

    def add(self, backbone: Backbone) -> Backbone:
        """Take a backbone that was loaded elsewhere."""
        self._loaded.append(backbone)
        return backbone

    def of(self, identity: Identity, where: Path) -> Backbone:
        """Return the backbone that a part was trained on, by its record at `where`; ArtefactError if it is another."""
        for backbone in self._loaded:
            if backbone.identity.sha256 == identity.sha256:
                return backbone
        from_hub = identity.origin.startswith("hub:")
        revision = identity.revision if from_hub else None
        backbone = load_backbone(identity.name, revision=revision, attention=self._attention, hub=self._hub)
        if backbone.identity.sha256 != identity.sha256:
            raise ArtefactError(
                f"{where} was trained on the backbone {identity.sha256}, but {identity.name} has"
                f" {backbone.identity.sha256}; give the backbone it was trained on"
            )
        return self.add(backbone)


def load_parts(
    folder: Path,
    *,
    models: Mapping[str, Published] | None = None,
    detector: str | None = None,
    attention: str | None = None,
    device: str | torch.device = "cpu",
    hub: HubAccess | None = None,
) -> Parts:
    """Load the plain language model, the detector and CLAP.

    Parameters
    ----------
    folder : Path
        Where the trained parts are, each in it or in a folder of its own below it. ArtefactError if one is missing,
        damaged, or was trained on another backbone.
    models : mapping, optional
        Published models by role in place of trained parts; by default those that the folder's `config.json` names.
    detector : str, optional
        A detector from elsewhere: a preset that ships (`mini`), or the folder that `train detector` wrote.
    """
    models = dict(published_models(folder) if models is None else models)
    backbones = Backbones(attention, hub)
    records: dict[str, PartRecord] = {}
    folders: dict[str, Path] = {}
    if wanted := models.get("language_model"):
        backbone = backbones.add(
            load_language_model(wanted.name, revision=wanted.revision, attention=attention, dtype=wanted.dtype, hub=hub)
        )
        wanted.check(backbone.identity)
        if not is_causal(backbone.model):
            masked_lm_head(backbone.model)  # refused here, not in the middle of a training
        models["language_model"] = Published.of(backbone.identity, wanted.dtype)
        language_model, records["language_model"] = backbone.model, published_record(backbone.identity)
    else:
        language_model, backbone, records["language_model"] = load_trained_language_model(folder, backbones)
        folders["language_model"] = part_folder(folder, "language_model")

    found_in = folder if detector is None else detector_folder(detector)
    span_detector, records["detector"] = load_detector(found_in, backbones)
    folders["detector"] = part_folder(found_in, "detector")

    clap: Clap
    if wanted := models.get("clap"):
        clap = load_clap(wanted.name, revision=wanted.revision, hub=hub)
        wanted.check(clap.identity)
        models["clap"] = Published.of(clap.identity)
        records["clap"] = published_record(clap.identity)
        modules: list[nn.Module] = [clap.model]
    else:
        clap, records["clap"] = load_trained_clap(folder, backbones)
        folders["clap"] = part_folder(folder, "clap")
        modules = [clap.projections, clap.encoder]
    for module in (language_model, span_detector.encoder, span_detector.head, *modules):
        module.requires_grad_(False).eval().to(device)
    span_detector.mask_token = str(backbone.tokenizer.mask_token or MASK)
    return Parts(language_model, backbone.tokenizer, backbone.identity, span_detector, clap, records, folders, models)


def load_trained_language_model(folder: Path, backbones: Backbones) -> tuple[PreTrainedModel, Backbone, PartRecord]:
    """Load the plain language model that was trained here: a backbone with a folded LoRA and a masked-LM head."""
    weights, record = load_part(folder, "language_model")
    where = f"{folder / 'language_model.safetensors'}"
    backbone = backbones.of(record.backbone, folder / "language_model.json")
    model = copy_sharing_embeddings(backbone.model)
    if record.lora is not None:
        fold_lora(model, {name: value for name, value in weights.items() if "lora_" in name}, record.lora, where)
    copy_tensors(head_parameters(model), weights, where)
    return model, backbone, record


def detector_folder(name: str) -> Path:
    """Return the folder of a detector: a preset that ships, or what `train detector` wrote."""
    if "/" not in name and (PRETRAINED / name / "detector.json").is_file():
        return PRETRAINED / name
    if not (part_folder(Path(name), "detector") / "detector.json").is_file():
        raise ArtefactError(
            f"detector is {name!r}, and there is no detector.json in it; give 'mini', or the folder that 'audiobert"
            " train detector' wrote"
        )
    return Path(name)


def load_detector(folder: Path, backbones: Backbones | None = None) -> tuple[SpanDetector, PartRecord]:
    """Load the span detector of a folder and its record: a LoRA folded into a backbone, or a model of its own."""
    weights, record = load_part(folder, "detector")
    where = part_folder(folder, "detector") / "detector.json"
    backbone = (backbones or Backbones()).of(record.backbone, where)
    encoder_weights, source = part_of(weights, "encoder."), str(where.with_suffix(".safetensors"))
    # Fine-tuned as a whole, it shares nothing.
    copied = copy.deepcopy if record.lora is None else copy_sharing_embeddings
    encoder = copied(cast(PreTrainedModel, backbone.model.base_model))
    keep_first_layers(encoder, record.extra("settings", {}).get("layers"))
    if record.lora is None:
        copy_tensors(encoder.state_dict(), encoder_weights, source)
    else:
        fold_lora(encoder, encoder_weights, record.lora, source)
    head = nn.Linear(encoder.config.hidden_size, 2)
    copy_tensors(dict(head.named_parameters()), part_of(weights, "head."), "the detector's head")
    return SpanDetector(encoder, head, backbone.tokenizer, peak=record.peak), record


def load_trained_clap(folder: Path, backbones: Backbones) -> tuple[ClapModel, PartRecord]:
    """Load the CLAP that was trained here and its record; its text tower is the backbone as it is."""
    weights, record = load_part(folder, "clap")
    backbone = backbones.of(record.backbone, folder / "clap.json")
    tower = AudioTowerConfig(**record.extra("tower"))
    projections = ClapProjections(tower, record.extra("text_size"), record.extra("clap_dim"))
    copy_tensors(projections.state_dict(), weights, f"{folder / 'clap.safetensors'}")
    return ClapModel(projections, backbone.model.base_model, backbone.tokenizer), record


def new_audio_encoder(
    parts: Parts, settings: KnowledgeSettings, *, attention: str | None = None, hub: HubAccess | None = None
) -> AudioEncoder:
    """Return the audio encoder before AudioBERT's training: the published one, or a copy of the trained CLAP's tower.

    InputError if CLAP is a published one, which lends its audio tower to nobody, and no audio encoder is named.
    """
    if wanted := parts.models.get("audio_encoder"):
        encoder = load_audio_encoder(
            wanted.name, revision=wanted.revision, pooling=settings.pooling, attention=attention, hub=hub
        )
        wanted.check(encoder.identity)
        parts.models["audio_encoder"] = Published.of(encoder.identity)
        return encoder
    if isinstance(parts.clap, HubClap):
        raise InputError("clap names a published model, so audio_encoder must name one, too (such as an AST)")
    tower = AudioTower(parts.clap.projections.audio_tower.config)
    tower.load_state_dict(parts.clap.projections.audio_tower.state_dict())
    return tower
