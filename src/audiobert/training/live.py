"""Evaluate a model in training as a user's model is: same pipeline, same benchmark, a bank of the same clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiobert.artefacts import whole_folder
from audiobert.auditorybench.data import available_splits
from audiobert.auditorybench.evaluate import ask, make_plan, prediction_line
from audiobert.auditorybench.interfaces import TOP_K
from audiobert.auditorybench.metrics import summarise
from audiobert.auditorybench.models.audiobert import AudioBertModel
from audiobert.auditorybench.unread import evaluate_unread
from audiobert.bank import AudioBank
from audiobert.bank.store import bank_files, write_bank
from audiobert.clip_encoder import ModelClipEncoder
from audiobert.errors import InputError
from audiobert.features import AUDIO_ENCODER, CLAP
from audiobert.knowledge import KnowledgeEncoder
from audiobert.modeling import AudioBertForMaskedLM
from audiobert.parts import Parts
from audiobert.pipeline import AudioBert
from audiobert.prediction import Sound
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.clips import TrainingClips, in_batches


def write_training_bank(
    folder: Path,
    parts: Parts,
    clips: TrainingClips,
    *,
    knowledge: np.ndarray | None = None,
    identity: dict[str, Any] | None = None,
    chosen: np.ndarray | None = None,
) -> AudioBank:
    """Write a bank of training clips from what is cached of them, and open it.

    Parameters
    ----------
    knowledge
        `(clips, hidden_size)` knowledge vectors; zeros before training.
    identity
        What made the vectors; a bank without it serves training alone.
    chosen
        `(clips,)` bool, which clips; all by default, so that row numbers are those of the clips.
    """
    hidden_size = int(parts.language_model.config.hidden_size)
    members = np.arange(len(clips)) if chosen is None else np.flatnonzero(chosen)
    features = clips.features[CLAP]
    vectors = np.concatenate(
        [parts.clap.embed_audio([features[int(members[i])] for i in some]) for some in in_batches(len(members), 64)]
    )
    if knowledge is None:
        knowledge = np.zeros((len(clips), hidden_size), dtype=np.float32)
    with whole_folder(folder, ours=bank_files) as part:
        write_bank(
            part,
            clips=len(members),
            rows=((clips.clips[index].row, vectors[place], knowledge[index]) for place, index in enumerate(members)),
            rejected=[],
            clap_dim=parts.clap.clap_dim,
            hidden_size=hidden_size,
            text_dim=parts.clap.text_dim,
            name_vectors=lambda names: parts.clap.embed_query(names).sentence,
            manifest={"identity": identity or {}, "settings": {}, "source": "clips.csv", "audio_root": None},
        )
    return AudioBank.open(folder)


@dataclass(frozen=True)
class Live:
    """The modules in training's hands as an `AudioBert`, and its figures on the benchmark."""

    parts: Parts
    model: AudioBertForMaskedLM
    encoder: KnowledgeEncoder
    bank: AudioBank
    clips: TrainingClips
    vectors: Tensor
    config: AudioBertConfig
    benchmark: Path

    @torch.no_grad()
    def encode_again(self) -> None:
        """Encode all clips with the audio encoder as it is now."""
        if self.config.audio == "none" or not self.config.model.knowledge.trained_encoder:
            return
        features, tower = self.clips.features[AUDIO_ENCODER], self.encoder.tower.eval()
        for some in in_batches(len(features), 64):
            self.vectors[some.start : some.stop] = tower.encode([features[i] for i in some]).cpu()

    @property
    def knowledge(self) -> np.ndarray:
        """Knowledge vectors `(clips, hidden_size)` float32 with the projection as it is now."""
        device = self.encoder.eval().outer.weight.device
        attributes = torch.from_numpy(self.clips.attributes)
        with torch.no_grad():
            blocks = [
                self.encoder.project(
                    self.vectors[some.start : some.stop].to(device), attributes[some.start : some.stop].to(device)
                )
                for some in in_batches(len(self.clips), 1024)
            ]
        return torch.cat(blocks).float().cpu().numpy()

    def pipeline(self) -> AudioBert:
        """Return the model as a user holds it."""
        encoder = ModelClipEncoder(self.parts.clap, self.encoder, self.bank.identity)
        bank = self.bank.with_knowledge(self.knowledge)
        return AudioBert(self.parts, self.model, encoder, [bank], self.config.model, name="in training")

    def dev_figures(self, epoch: int) -> dict[str, float]:
        """Return accuracies on dev after an epoch, where it is time to measure."""
        config = self.config
        if not config.measured or ((epoch + 1) % config.dev_every and epoch + 1 < config.epochs):
            return {}
        return {name: round(value, 4) for name, value in self.figures(("dev",))[0].items()}

    def figures(self, splits: tuple[str, ...], sound: Sound = "on") -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Measure the model on the benchmark's own terms.

        Return accuracies by task and split, `combined` over all tasks, and `both_ways` of comparisons; and the lines of
        predictions.
        """
        model = AudioBertModel(self.pipeline(), "in training", sound=sound)
        tasks = self.config.tasks
        here = [split for split in splits if all(split in available_splits(self.benchmark, task) for task in tasks)]
        figures: dict[str, float] = {}
        lines: list[dict[str, Any]] = []
        for part in make_plan(self.benchmark, tasks, here).parts if here else []:
            answered = ask(model, part)
            summary = summarise(answered, part.seen)
            figures[f"{part.task.name}.{part.split}"] = summary["correct"] / summary["n"]
            if summary.get("both_ways"):
                figures[f"{part.task.name}.{part.split}.both_ways"] = summary["both_ways"]["accuracy"]
            lines += [prediction_line("in training", self.config.seed, part.protocol, one) for one in answered]
        for split in here:
            right = [line["correct"] for line in lines if line["split"] == split]
            figures[f"combined.{split}"] = float(np.mean(right))
        return figures, lines

    def unread_figures(self) -> dict[str, float]:
        """Measure what the model makes of sounds never read about; nothing where the bank has too few kinds for it."""
        try:
            conditions = list(evaluate_unread(self.pipeline()))
        except InputError:
            return {}
        figures: dict[str, float] = {}
        for condition in conditions:
            name = f"{condition.task}.{condition.split}"
            predictions = [one.prediction for one in condition.answered]
            figures[name] = float(np.mean([one.correct for one in predictions]))
            if condition.task.endswith("naming"):
                among = [(one.rank or TOP_K + 1) <= TOP_K for one in predictions]
                figures[f"{name}.among_five"] = float(np.mean(among))
        return figures
