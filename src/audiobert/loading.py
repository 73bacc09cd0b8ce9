"""Load what a model's folder holds: parts, AudioBERT's own weights, the clip encoder, the settings."""

from __future__ import annotations

from pathlib import Path

import torch

from audiobert.adapters import copy_sharing_embeddings, copy_tensors, fold_lora, order_by_column
from audiobert.backbone import pick_device
from audiobert.clap import ClapModel
from audiobert.clip_encoder import ModelClipEncoder, Precision
from audiobert.hub import HubAccess
from audiobert.injection import new_injection
from audiobert.knowledge import KnowledgeEncoder
from audiobert.model_folder import ModelSettings, encoder_identity, load_part, model_folder, part_of
from audiobert.modeling import AudioBertForMaskedLM, is_causal, with_injection
from audiobert.parts import Parts, load_parts, new_audio_encoder


def load_model(
    folder: Path, device: str | None = None, hub: HubAccess | None = None
) -> tuple[Parts, AudioBertForMaskedLM, ModelClipEncoder, ModelSettings]:
    """Load what a folder holds beside its bank; ArtefactError if a part is missing or damaged."""
    chosen = torch.device(pick_device(device))
    parts = load_parts(folder, device=chosen, hub=hub)
    weights, record = load_part(folder, "audiobert")
    settings = record.model or ModelSettings.model_validate(record.extra("model"))
    where = str(folder / "audiobert.safetensors")
    language_model = copy_sharing_embeddings(parts.language_model)
    fold_lora(language_model, part_of(weights, "lora."), settings.lora, where)
    hidden_size = int(language_model.config.hidden_size)
    injection = new_injection(settings.injection, hidden_size, relatives=settings.retrieval.relatives > 0)
    copy_tensors(dict(injection.named_parameters()), part_of(weights, "injection."), where)
    model = with_injection(language_model, injection)
    tower = new_audio_encoder(parts, settings.knowledge, hub=hub)
    encoder = KnowledgeEncoder(tower, hidden_size, settings.knowledge)
    copy_tensors(encoder.saved_state(), part_of(weights, "knowledge."), where)
    for module in (model, encoder):
        module.requires_grad_(False).eval().to(chosen)
    if chosen.type == "cpu":
        text_encoder = [parts.clap.encoder] if isinstance(parts.clap, ClapModel) else []
        # A causal language model stays as it is, so that it generates the very tokens that transformers alone does.
        language_models = [] if is_causal(parts.language_model) else [parts.language_model, model]
        for module in (parts.detector.encoder, *language_models, *text_encoder):
            order_by_column(module)
    parts.records["audiobert"] = record
    return parts, model, ModelClipEncoder(parts.clap, encoder, encoder_identity(parts.records)), settings


def load_clip_encoder(
    name: str | Path = "mini", device: str | None = None, precision: Precision = "fp32"
) -> ModelClipEncoder:
    """Load what turns clips into vectors for a bank of a model, which need not have a bank yet."""
    encoder = load_model(model_folder(name), device)[2]
    encoder.precision = precision
    return encoder
