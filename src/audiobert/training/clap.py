"""Train CLAP: the audio tower and both projections, on clips with captions (equations (1) to (3))."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from audiobert.auditorybench.data import load_split, split_path
from audiobert.auditorybench.kinds import withheld_clips
from audiobert.backbone import load_backbone
from audiobert.bank.names import plain_name
from audiobert.clap import ClapProjections, mean_pooled
from audiobert.encoders import AudioTowerConfig
from audiobert.encoders.tower import normalise
from audiobert.features import CLAP
from audiobert.model_folder import write_part
from audiobert.progress import stderr
from audiobert.training.calibration import fit_calibration
from audiobert.training.clap_spans import align_spans, span_hits, spans_by_label
from audiobert.training.clips import TrainingClips, in_batches, load_clips
from audiobert.training.config import TrainingConfig
from audiobert.training.loop import Batches, Recipe, fit
from audiobert.training.processes import processes
from audiobert.training.text_files import CAPTIONS, read_captions

SPLITS = ("train", "dev", "wiki")  # of the animal rows: the first is learnt from, the others are measured on
TEMPLATES = ("{caption}", "{caption}", "{label}", "the sound of a {label}", "{label} sound")


class ClapConfig(TrainingConfig):
    """Settings of `train clap`.

    Attributes
    ----------
    span_steps, spans, span_rate, span_temperature, span_anchor
        How the benchmark's spans are drawn to clips in the end (`audiobert.training.clap_spans`): steps (with none they
        are not), spans per step, learning rate, what cosines are divided by, and the weight of the mean cosine distance
        of the anchors from where they were.
    anchor_captions
        How many captions of `text/` are held where they were in the meantime, beside the clips' own texts.
    """

    steps: int = 2400
    pairs: int = 48
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    clap_dim: int = 256
    window_frames: int = 256
    hidden_size: int = 192
    layers: int = 4
    heads: int = 3
    patch_size: int = 16
    dropout: float = 0.1
    gain: float = 0.4
    noise: float = 0.1
    time_masks: int = 2
    frequency_masks: int = 2
    mix: float = 0.3
    average_from: float = 0.75
    test_every: int = 400
    span_steps: int = Field(default=1500, ge=0)
    spans: int = Field(default=48, ge=1)
    span_rate: float = 3e-3
    span_temperature: float = Field(default=0.05, gt=0.0)
    span_anchor: float = Field(default=60.0, ge=0.0)
    anchor_captions: int = Field(default=4000, ge=0)

    def tower(self) -> AudioTowerConfig:
        """Return the settings of the audio tower."""
        return AudioTowerConfig(
            window_frames=self.window_frames,
            hidden_size=self.hidden_size,
            layers=self.layers,
            heads=self.heads,
            patch_size=self.patch_size,
        )


class Pairs:
    """Batches of one clip per class, so that no other text of a batch fits a clip as well as its own."""

    def __init__(
        self,
        clips: TrainingClips,
        chosen: np.ndarray,
        sentence_vectors: dict[str, Tensor],
        config: ClapConfig,
    ) -> None:
        self.clips, self.spectrograms, self.config = clips.clips, clips.features[CLAP], config
        self.sentence_vectors = sentence_vectors
        self.by_label: dict[str, list[int]] = {}
        for index in np.flatnonzero(chosen):
            self.by_label.setdefault(self.clips[index].label, []).append(int(index))
        self.labels = sorted(self.by_label)
        # Between one vote per class and one per clip: rare classes are drawn more often than they occur, but less often
        # than the common ones, of which there is more to learn.
        weights = np.array([len(self.by_label[label]) for label in self.labels]) ** 0.5
        self.weights = weights / weights.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return normalised windows `(pairs, window_frames, 128)` and sentence vectors `(pairs, text_size)`."""
        random = np.random.default_rng((self.config.seed, step))
        count = min(self.config.pairs, len(self.labels))
        labels = random.choice(len(self.labels), size=count, replace=False, p=self.weights)
        windows, vectors = [], []
        for label in labels:
            members = self.by_label[self.labels[label]]
            clip = self.clips[index := members[random.integers(len(members))]]
            window = self._window(index, random)
            if random.random() < self.config.mix:  # the same class again, more quietly, in the background
                other = self._window(members[random.integers(len(members))], random)
                window = np.logaddexp(window, other - random.uniform(0.5, 3.0))
            windows.append(self._augment(window, random))
            template = TEMPLATES[random.integers(len(TEMPLATES))]
            vectors.append(self.sentence_vectors[template.format(caption=clip.name, label=clip.label)])
        return torch.from_numpy(np.stack(windows)).float(), torch.stack(vectors)

    def _window(self, index: int, random: np.random.Generator) -> np.ndarray:
        spectrogram, size = self.spectrograms[index], self.config.window_frames
        if len(spectrogram) <= size:
            spectrogram = np.resize(spectrogram, (size, spectrogram.shape[1]))
            return np.roll(spectrogram, random.integers(size), axis=0)
        start = random.integers(len(spectrogram) - size + 1)
        return spectrogram[start : start + size]

    def _augment(self, window: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Normalise a window, change its gain, and mask times and frequencies as SpecAugment does."""
        window = normalise(window) + random.normal(0.0, self.config.gain)
        for axis, masks, widest in ((0, self.config.time_masks, 48), (1, self.config.frequency_masks, 24)):
            for _ in range(masks):
                width = random.integers(widest)
                start = random.integers(window.shape[axis] - width)
                np.moveaxis(window, axis, 0)[start : start + width] = 0.0
        return window


class ClapObjective(nn.Module):
    """The loss of a batch as a sum over its pairs; in training with noise on the windows."""

    def __init__(self, projections: ClapProjections, noise: float) -> None:
        super().__init__()
        self.projections, self.noise = projections, noise

    def forward(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and the number of its pairs."""
        windows, sentence_vectors = batch
        if self.training:
            windows = windows + self.noise * torch.randn_like(windows)
        pairs = torch.tensor(float(len(windows)), device=windows.device)
        return self.projections(windows, sentence_vectors) * pairs, pairs


def ranking_metrics(
    audio_vectors: np.ndarray, labels: list[str], caption_vectors: dict[str, np.ndarray]
) -> dict[str, float]:
    """Compute text-to-audio retrieval and zero-shot accuracy on clips that training left out.

    Each class name is a query for the clips of its class: R@k is the share of classes with a right clip among the k
    nearest, `mAP` the mean over classes of the average precision, and `zero_shot` the share of clips whose nearest
    caption is their own class's. `chance_*` is the expectation for a random order.
    """
    classes = sorted(set(labels))
    truth = np.array([[label == name for label in labels] for name in classes])  # (classes, clips)
    texts = np.stack([caption_vectors[name] for name in classes])
    scores = texts @ audio_vectors.T  # (classes, clips)
    ranked = np.take_along_axis(truth, np.argsort(-scores, axis=1), axis=1)
    positions = np.arange(1, ranked.shape[1] + 1)
    precision = np.cumsum(ranked, axis=1) / positions
    counts = ranked.sum(axis=1)
    total = ranked.shape[1]
    missed = np.prod([np.maximum(total - counts - i, 0) / (total - i) for i in range(min(5, total))], axis=0)
    return {
        "R@1": float(ranked[:, 0].mean()),
        "R@5": float(ranked[:, :5].any(axis=1).mean()),
        "mAP": float(((precision * ranked).sum(axis=1) / counts).mean()),
        "zero_shot": float((truth.argmax(axis=0) == scores.argmax(axis=0)).mean()),
        "chance_R@1": float((counts / total).mean()),
        "chance_R@5": float((1 - missed).mean()),
        "chance_mAP": float((counts / total).mean()),
        "chance_zero_shot": 1 / len(classes),
        "classes": float(len(classes)),
        "clips": float(total),
    }


def sentence_vectors_of(encoder: Any, tokenizer: Any, texts: list[str], *, batch_size: int = 256) -> dict[str, Tensor]:
    """Compute the backbone's sentence vectors of texts, by text, each `(text_size,)` on the CPU."""
    ordered = sorted(set(texts), key=len)
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for some in in_batches(len(ordered), batch_size):
            batch = ordered[some.start : some.stop]
            found |= dict(zip(batch, mean_pooled(encoder, tokenizer, batch).float().cpu(), strict=True))
    return found


@torch.no_grad()
def clap_vectors(projections: ClapProjections, clips: TrainingClips) -> Tensor:
    """Compute CLAP vectors `(clips, clap_dim)` of all clips, in the host's memory."""
    projections.eval()
    features, device = clips.features[CLAP], projections.text_projection.weight.device
    tower = projections.audio_tower
    return torch.cat(
        [
            projections.audio_vectors(tower.encode([features[i] for i in some]).to(device)).float().cpu()
            for some in in_batches(len(clips), 64)
        ]
    )


@torch.no_grad()
def measure_clap(
    projections: ClapProjections,
    audio_vectors: Tensor,
    clips: TrainingClips,
    groups: dict[str, np.ndarray],
    sentence_vectors: dict[str, Tensor],
) -> dict[str, dict[str, float]]:
    """Compute `ranking_metrics` per group of clips, `(clips,)` bool each; groups without clips are left out."""
    device = projections.text_projection.weight.device
    names = {clip.label: sentence_vectors[clip.name][None].to(device) for clip in clips.clips}
    captions = {label: projections.text_vectors(vector)[0].cpu().numpy() for label, vector in names.items()}
    return {
        name: ranking_metrics(audio_vectors[members].numpy(), [clips.labels[i] for i in members], captions)
        for name, chosen in groups.items()
        if len(members := np.flatnonzero(chosen))
    }


def other_captions(folder: Path, count: int) -> list[str]:
    """Return that many captions of AudioCaps' train part, the same ones in every run."""
    if not count:
        return []
    found = sorted(set(read_captions(folder / CAPTIONS)))
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:count]]


def train_clap(
    data: Path, out: Path, config: ClapConfig, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train CLAP on clips, then its text side on spans; write `clap.safetensors` with its JSON.

    Clips are those of `data/audio`, spans those of `data/auditorybench`.

    Clips of withheld kinds are never trained on.

    Returns
    -------
    dict
        The record beside the weights, with retrieval and zero-shot figures on held-out recordings and withheld kinds.
    """
    torch.manual_seed(config.seed)
    backbone = load_backbone("mini", attention="eager")
    encoder = backbone.model.eval().base_model.to(processes().device)
    projections = ClapProjections(config.tower(), encoder.config.hidden_size, config.clap_dim, config.dropout)
    clips = load_clips(data / "audio", {CLAP: projections.audio_tower.features}, out.parent / "cache")
    labels = clips.labels
    rows = {split: load_split(data / "auditorybench", "animal", split) for split in SPLITS if config.span_steps}
    spans = {split: spans_by_label(rows[split], set(labels)) for split in rows}
    captions = sorted({t.format(caption=c.name, label=c.label) for c in clips.clips for t in TEMPLATES})
    others = other_captions(data / "text", config.anchor_captions) if config.span_steps else []
    texts = [*captions, *others, *(plain_name(label) for label in labels if label)]
    texts += [name for clip in clips.clips for name in (clip.name, plain_name(clip.name))]
    texts += [text for split in spans.values() for own in split.values() for text in own]
    sentence_vectors = sentence_vectors_of(encoder, backbone.tokenizer, texts)
    withheld, kept = withheld_clips(labels), clips.held_out
    test = kept & ~withheld
    pairs = Pairs(clips, ~kept & ~withheld, sentence_vectors, config)
    groups = {
        "all": test,
        "ESC-10": test & np.array([(clip.row.get("source") == "ESC-10") for clip in clips.clips]),
        "withheld": withheld,
    }
    epochs = max(1, config.steps // config.test_every)

    def batches(epoch: int) -> Batches:
        return Batches(config.test_every, lambda index: pairs.batch(epoch * config.test_every + index))

    def figures(_: int) -> dict[str, float]:
        measured = measure_clap(projections, clap_vectors(projections, clips), clips, groups, sentence_vectors)
        chosen = {key: round(measured["all"][key], 4) for key in ("R@1", "R@5", "mAP", "zero_shot")}
        return chosen | {"withheld_R@1": round(measured.get("withheld", {}).get("R@1", 0.0), 4)}

    log = fit(
        ClapObjective(projections, config.noise),
        batches,
        epochs,
        Recipe.of(config, best_by="mAP"),
        out,
        settings=config,
        resume=resume,
        overwrite=overwrite,
        description="clap",
        after_epoch=figures,
    )
    if not processes().is_main_process:
        return {}
    audio_vectors = clap_vectors(projections, clips)
    heard = np.flatnonzero(~kept & ~withheld).tolist()
    align_spans(
        projections.cpu(),
        spans.get(SPLITS[0], {}),
        audio_vectors[heard],
        [labels[i] for i in heard],
        sentence_vectors,
        [group for group in (captions, others) if group],
        config,
    )
    hits = {split: span_hits(projections, own, audio_vectors, labels, sentence_vectors) for split, own in spans.items()}
    sources = [data / "audio" / "clips.csv"]
    if rows:
        sources.append(split_path(data / "auditorybench", "animal", "train"))
    if others:
        sources.append(data / "text" / CAPTIONS)
    record = write_part(
        out,
        "clap",
        projections.state_dict(),
        sources,
        backbone=backbone.identity.to_json(),
        settings=config.model_dump(),
        tower=asdict(config.tower()),
        text_size=encoder.config.hidden_size,
        clap_dim=config.clap_dim,
        clips_trained_on=len(heard),
        spans=hits,
        held_out=measure_clap(projections, audio_vectors, clips, groups, sentence_vectors),
        calibration=fit_calibration(projections, audio_vectors, clips, sentence_vectors, kept | withheld),
        log=log,
    )
    stderr.print(f"clap: held-out {record['held_out']['all']}; wrote {out}")
    return record
