"""Train AudioBERT: LoRA, audio encoder, projection and injection, jointly on all tasks (section II-B3)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from audiobert.adapters import add_lora, copy_sharing_embeddings, copy_tensors, lora_parameters
from audiobert.artefacts import write_text
from audiobert.auditorybench.kinds import names_withheld, withheld_clips
from audiobert.errors import InputError
from audiobert.features import AUDIO_ENCODER, CLAP
from audiobert.injection import new_injection
from audiobert.knowledge import KnowledgeEncoder
from audiobert.model_folder import (
    BANK_FOLDER,
    PART_FOLDERS,
    PartRecord,
    encoder_identity,
    load_part,
    part_folder,
    part_of,
    prefixed,
    write_model_folder,
    write_part,
)
from audiobert.modeling import is_causal, with_injection
from audiobert.parts import Parts, load_parts, new_audio_encoder
from audiobert.progress import stderr
from audiobert.retrieve import Calibration, Retriever
from audiobert.training.audiobert_config import MODEL_FOLDER, AudioBertConfig
from audiobert.training.batches import BatchMaker
from audiobert.training.captions import Captions, ClipCaptions
from audiobert.training.clips import TrainingClips, in_batches, kept_array, load_clips
from audiobert.training.epochs import Epochs
from audiobert.training.grounding import Grounding
from audiobert.training.live import Live, write_training_bank
from audiobert.training.lookup import Lookup, OtherClips
from audiobert.training.loop import Recipe, checkpoint_gradients, fit
from audiobert.training.objective import AudioBertObjective
from audiobert.training.processes import processes
from audiobert.training.rows import TrainRows
from audiobert.training.spelling import PromptSpelling, Spelling
from audiobert.training.step import ParameterGroup
from audiobert.training.text_files import CAPTIONS, read_captions

SHUT = 100.0  # offset of a gate that no retrieval score opens: scores and their log-odds are below 10


def set_hidden_dropout(language_model: nn.Module, hidden: float) -> None:
    """Set the dropout of the hidden states, and none of the attention weights, which is slow on a CPU."""
    for name, module in language_model.named_modules():
        if isinstance(module, nn.Dropout) and "lora_" not in name:
            module.p = 0.0 if name.endswith((".self.dropout", ".attn_dropout")) else hidden


class Trained:
    """The modules that training moves, on the plain language model's copy and the audio encoder's."""

    def __init__(self, parts: Parts, config: AudioBertConfig, attention: str | None) -> None:
        torch.manual_seed(config.seed)
        settings = config.model
        language_model = copy_sharing_embeddings(parts.language_model)
        add_lora(language_model, settings.lora)
        set_hidden_dropout(language_model, config.dropout)
        hidden_size = int(language_model.config.hidden_size)
        injection = new_injection(settings.injection, hidden_size, relatives=settings.retrieval.relatives > 0)
        if config.audio == "none":
            # Shut the gate for good: no clip trains it.
            nn.init.constant_(injection.gate_offset, SHUT)
            injection.gate_offset.requires_grad_(False)
        self.model = with_injection(language_model, injection)
        tower = new_audio_encoder(parts, settings.knowledge, attention=attention)
        tower.requires_grad_(settings.knowledge.trained_encoder)
        if config.gradient_checkpointing:
            checkpoint_gradients(tower)
            if is_causal(language_model):
                checkpoint_gradients(language_model)
        self.encoder = KnowledgeEncoder(tower, hidden_size, settings.knowledge)

    def start_from(self, folder: Path) -> PartRecord:
        """Take over the weights of a trained AudioBERT; return their record.

        Raises
        ------
        ArtefactError
            The folder has none, or they were trained with other settings of the model.
        """
        weights, record = load_part(folder, "audiobert")
        where = str(part_folder(folder, "audiobert") / "audiobert.safetensors")
        assert self.model.injection is not None
        copy_tensors(dict(lora_parameters(self.model.language_model)), part_of(weights, "lora."), where)
        copy_tensors(dict(self.model.injection.named_parameters()), part_of(weights, "injection."), where)
        copy_tensors(self.encoder.saved_state(), part_of(weights, "knowledge."), where)
        return record

    def groups(self, config: AudioBertConfig) -> list[ParameterGroup]:
        """Return the parameters with their learning rates, as multiples of the LoRA's."""
        assert self.model.injection is not None
        tower = list(self.encoder.tower.parameters())
        of_tower = {id(parameter) for parameter in tower}
        projection = [parameter for parameter in self.encoder.parameters() if id(parameter) not in of_tower]
        return [
            ParameterGroup(tower, config.audio_encoder_rate),
            ParameterGroup(projection, config.knowledge_rate),
            ParameterGroup(list(self.model.injection.parameters()), config.injection_rate),
        ]

    def weights(self) -> dict[str, Tensor]:
        """Return what is saved."""
        assert self.model.injection is not None
        return {
            **prefixed(lora_parameters(self.model.language_model), "lora."),
            **prefixed(dict(self.model.injection.named_parameters()), "injection."),
            **prefixed(self.encoder.saved_state(), "knowledge."),
        }


def train_audiobert(
    data: Path,
    out: Path,
    config: AudioBertConfig,
    *,
    parts_from: Path,
    start: Path | None = None,
    cache: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train AudioBERT; write `audiobert.safetensors`, its JSON, and the whole model with its bank.

    Parameters
    ----------
    data : Path
        A folder with `auditorybench/` and `audio/` (with `clips.csv`).
    out : Path
        Folder of the weights; `out/model` is then the whole model with a bank of the clips in `data/audio`.
    parts_from : Path
        A folder with the trained language model, detector and CLAP, each in it or in a folder of its own below it.
    start : Path, optional
        A folder with a trained AudioBERT, whose weights are trained further; its epochs count as past.
    cache : Path, optional
        Features of the clips; by default a folder beside `out`.

    Returns
    -------
    dict
        The record beside the weights, in the main process.
    """
    _check_parts(parts_from, config)
    attention = None if config.models() else "eager"  # mini is small: eager attention is faster in bfloat16 on a CPU
    parts = load_parts(
        parts_from, models=config.models(), detector=config.detector, attention=attention, device=processes().device
    )
    if config.loss_tokens == "all" and is_causal(parts.language_model):
        raise InputError("loss_tokens 'all' is for a masked language model; a causal one learns the answer: set mask")
    trained = Trained(parts, config, attention)
    begun = trained.start_from(start) if start else None
    cache = cache or out.parent / "cache"
    makers = {CLAP: parts.clap.features, AUDIO_ENCODER: trained.encoder.tower.features}
    clips = load_clips(data / "audio", makers, cache)
    vectors = torch.from_numpy(tower_vectors(trained.encoder, clips, cache))
    training_bank = write_training_bank(out / "training-bank", parts, clips)
    config = calibrated(config, parts)
    retriever = Retriever(parts.clap, [training_bank], config.model.retrieval)
    in_bank = np.array([config.evaluated_clips == "keep" or clip.split in ("", "train") for clip in clips.clips])
    kept_apart = withheld_clips(clips.labels) if config.withhold else np.zeros(len(clips), dtype=bool)
    allowed = in_bank & ~kept_apart & ~clips.held_out
    lookup = Lookup(retriever, training_bank, allowed, config.seed, config.model.injection.relatives_dropout)

    causal = is_causal(parts.language_model)
    spelling = (PromptSpelling if causal else Spelling)(parts.tokenizer)
    withheld = names_withheld(clips.labels) if config.withhold else None
    rows = [
        TrainRows(
            data / "auditorybench",
            task,
            spelling,
            parts.detector,
            lambda q: withheld is None or not withheld(q.spans),
            most=config.rows.most.get(task),
            seed=config.seed,
        )
        for task in config.tasks
    ]
    grounding = Grounding(clips, allowed, spelling, lookup, config.grounding)
    read = read_captions(data / "text" / CAPTIONS) if config.grounding.captions else []
    captions = Captions(read, parts.detector, spelling)
    clip_captions = ClipCaptions(clips, allowed, spelling)
    row_texts = set[str]().union(*(task.span_texts() for task in rows))
    lookup.prepare(captions.span_texts() | clip_captions.span_texts() | row_texts)
    find = lookup
    if config.audio in ("random", "shuffled"):
        find = OtherClips(lookup, row_texts, allowed, config.audio, config.seed)  # type: ignore[assignment,arg-type]

    settings = config.model
    make_batch = BatchMaker(parts.tokenizer, settings.retrieval.clips, lookup.names, causal, settings.injection)
    objective_clips = None if config.audio == "none" else clips
    objective = AudioBertObjective(trained.model, trained.encoder, objective_clips, vectors, config, lookup.names)
    live = Live(parts, trained.model, trained.encoder, training_bank, clips, vectors, config, data / "auditorybench")
    log = fit(
        objective,
        Epochs(rows, grounding, captions, clip_captions, find, lookup, make_batch, config, past_epochs(begun)),
        config.epochs,
        Recipe.of(config, best_by="combined.dev"),
        out,
        settings=config,
        resume=resume,
        overwrite=overwrite,
        description=f"audiobert (audio {config.audio}, seed {config.seed})",
        groups=trained.groups(config),
        after_epoch=live.dev_figures,
        buffers={"vectors": vectors},
    )
    if not processes().is_main_process:
        return {}
    live.encode_again()
    figures, lines = live.figures(config.measured)
    unheard, _ = live.figures(config.measured, sound="unheard")
    figures |= {f"{name}:unheard": value for name, value in unheard.items()}
    if config.measured:
        figures |= live.unread_figures()
    write_text(out / "predictions.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    sources = [*sorted((data / "auditorybench").glob("*train*")), data / "audio" / "clips.csv"]
    left_out = {task.task.name: task.left_out for task in rows}
    record = write_part(
        out,
        "audiobert",
        trained.weights(),
        sources,
        made_with={name: record.sha256 for name, record in parts.records.items()},
        backbone=parts.identity.to_json(),
        models={role: asdict(published) for role, published in parts.models.items()},
        model=config.model.model_dump(mode="json"),
        settings=config.model_dump(mode="json"),
        accuracy=figures,
        rows_withheld=left_out,
        log=log,
        started_from=begun and {"sha256": begun.sha256, "epochs": past_epochs(begun)},
    )
    parts.records["audiobert"] = PartRecord.model_validate(record)
    write_model_folder(out / MODEL_FOLDER, parts.folders | {"audiobert": out}, parts.models)
    write_training_bank(
        out / MODEL_FOLDER / BANK_FOLDER,
        parts,
        clips,
        knowledge=live.knowledge,
        identity=encoder_identity(parts.records),
        chosen=in_bank,
    )
    stderr.print(f"audiobert: {figures}; wrote {out}")
    return record


def past_epochs(record: PartRecord | None) -> int:
    """Return how many epochs a trained AudioBERT has seen, the epochs of what it started from included."""
    if record is None:
        return 0
    before = record.extra("started_from", None) or {}
    return int(record.extra("settings")["epochs"]) + int(before.get("epochs", 0))


def _check_parts(folder: Path, config: AudioBertConfig) -> None:
    """Refuse a folder that lacks a trained part, before anything is loaded."""
    elsewhere = {*config.models(), *(["detector"] if config.detector else [])}
    wanted = [part for part in PART_FOLDERS if part != "audiobert" and part not in elsewhere]
    absent = [part for part in wanted if not (part_folder(folder, part) / f"{part}.json").is_file()]
    if absent:
        raise InputError(
            f"{folder} has no trained {', '.join(absent)}; give --parts the folder in which 'audiobert train' left them"
        )


def calibrated(config: AudioBertConfig, parts: Parts) -> AudioBertConfig:
    """Return the settings with the calibration that came with CLAP, where there is one."""
    found = parts.records["clap"].extra("calibration", None)
    if not found:
        return config
    retrieval = config.model.retrieval.model_copy(update={"calibration": Calibration.model_validate(found)})
    return config.model_copy(update={"model": config.model.model_copy(update={"retrieval": retrieval})})


@torch.no_grad()
def tower_vectors(encoder: KnowledgeEncoder, clips: TrainingClips, cache: Path) -> np.ndarray:
    """Return the untrained audio encoder's vectors `(clips, width)` of all clips; kept in a file for the next run."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.tower.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    features = clips.features[AUDIO_ENCODER]
    path = cache / f"vectors-{features.path.stem}-{digest.hexdigest()[:16]}.npy"
    tower = encoder.tower.to(processes().device).eval()

    def vectors() -> np.ndarray:
        batches = [tower.encode([features[i] for i in some]).cpu().numpy() for some in in_batches(len(features), 64)]
        return np.concatenate(batches)

    return kept_array(path, vectors)
