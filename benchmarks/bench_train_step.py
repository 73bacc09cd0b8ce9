"""A training step of AudioBERT at full size against the straightforward form of the same step, random weights.

Straightforward: every row's files are decoded and featurized anew, every row's clips go through the audio encoder by
themselves, the language model predicts at every token, all in float32. Ours: features from the memory-mapped cache,
each distinct clip of the batch once, logits at the masks alone, bfloat16. Both start from the same weights and their
losses are compared.

On a CPU a batch is a few rows, and its clips are as often shared by spans as in batches of 32 rows of AuditoryBench
(1.11 spans a clip with mini's CLAP and bank). Times are CPU time of the process, which other work on the machine
changes less than the clock. With an accelerator the batch is 32 rows, for base and large, with utilisation and peak
memory; `AUDIOBERT_PEAK_TFLOPS` says what the device could do in dense bfloat16 (default: 989, an H100 or H200).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel, BertConfig, BertForMaskedLM

from audiobert.adapters import add_lora
from audiobert.backbone import Identity, load_backbone
from audiobert.encoders.encoder import PublishedAudioEncoder
from audiobert.encoders.family import find_family
from audiobert.features import AUDIO_ENCODER
from audiobert.injection import new_injection
from audiobert.knowledge import KnowledgeEncoder
from audiobert.modeling import AudioBertForMaskedLM
from audiobert.sentence import fill_mask
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.batches import BatchMaker, Example, given_clip
from audiobert.training.clips import load_clips
from audiobert.training.loop import checkpoint_gradients, set_dropout
from audiobert.training.objective import AudioBertObjective
from audiobert.training.processes import on_cpu, processes
from audiobert.training.step import Recipe, make_optimizer, trainable, training_step

CONFIG = "paper-base"
ROWS_ON_CPU, ROWS_ON_ACCELERATOR = 3, 32
SPANS_A_CLIP = 1.11
CLIP_SECONDS, CLIP_RATE_HZ = 10.0, 44_100
PEAK_TFLOPS = float(os.environ.get("AUDIOBERT_PEAK_TFLOPS", "989"))
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
SIZES: dict[str, dict[str, int]] = {"base": {}, "large": LARGE}
REPEATS_ON_ACCELERATOR = 5


@dataclass
class Setting:
    """A model with random weights, sound files, and a batch of sentences about them."""

    objective: AudioBertObjective
    tokenizer: Any
    examples: list[Example]
    paths: list[Path]
    config: AudioBertConfig


def make_examples(tokenizer: Any, rows: int) -> list[Example]:
    """Return comparisons of two spans and cloze sentences with one, two to one, as in AuditoryBench's train split.

    Clips are shared by `SPANS_A_CLIP` spans each.
    """
    sentences = []
    for row in range(rows):
        if row % 3 == 2:
            text, answer, texts = f"Noise number {row} is the sound a [MASK] makes.", "dog", (f"Noise number {row}",)
        else:
            texts = (f"hum number {row} of a tall machine", f"ring number {row} of a small bell")
            text, answer = f"The {texts[0]} has a [MASK] pitch than the {texts[1]} in most rooms.", "higher"
        sentences.append((text, answer, [(at := text.index(span), at + len(span)) for span in texts]))
    count = round(sum(len(spans) for _, _, spans in sentences) / SPANS_A_CLIP)
    examples, number = [], 0
    for text, answer, spans in sentences:
        ids = tuple(tokenizer(answer, add_special_tokens=False)["input_ids"])
        filled, moved = fill_mask(text, spans, " ".join([tokenizer.mask_token] * len(ids)))
        numbers = range(number, number + len(spans))
        clips = tuple(given_clip(one % count, 1.0) for one in numbers)
        number += len(spans)
        examples.append(Example(filled, ids, tuple(moved), clips))
    return examples


def make_setting(folder: Path, size: dict[str, int], rows: int, *, clips_per_step: int = 0) -> Setting:
    """Return models made from their configs, sound files with their cached features, and sentences about them."""
    torch.manual_seed(0)
    tokenizer = load_backbone("mini").tokenizer  # BERT's own uncased vocabulary
    config = AudioBertConfig.load(CONFIG).model_copy(update={"clips_per_step": clips_per_step, "dropout": 0.0})
    language_model = BertForMaskedLM(BertConfig(**size)).requires_grad_(False)
    for parameter in add_lora(language_model, config.model.lora).values():
        parameter.requires_grad_(True)
    set_dropout(language_model, 0.0)
    maker = find_family(ASTFeatureExtractor(), "AST")
    tower = PublishedAudioEncoder(ASTModel(ASTConfig()), maker, Identity("random", "config", None))
    hidden_size = int(language_model.config.hidden_size)
    knowledge = KnowledgeEncoder(tower, hidden_size, config.model.knowledge)
    nn.init.normal_(knowledge.outer.weight, std=0.02)  # not zero, so that gradients reach the audio encoder
    model = AudioBertForMaskedLM(language_model, new_injection(config.model.injection, hidden_size))

    examples = make_examples(tokenizer, rows)
    count = 1 + max(int(known.rows[0]) for example in examples for known in example.clips)
    paths = write_clips(folder, count)
    clips = load_clips(folder, {AUDIO_ENCODER: maker}, folder / "cache")
    objective = AudioBertObjective(model, knowledge, clips, torch.zeros(count, tower.hidden_size), config)
    return Setting(objective, tokenizer, examples, paths, config)


def write_clips(folder: Path, count: int) -> list[Path]:
    """Write falling tones with noise as WAV files, and their manifest; return the files in its order."""
    seconds = np.arange(round(CLIP_SECONDS * CLIP_RATE_HZ)) / CLIP_RATE_HZ
    noise = np.random.default_rng(0).normal(scale=0.02, size=len(seconds))
    lines, paths = ["path,label,caption,source,fold"], []
    for number in range(count):
        path = folder / f"{number}.wav"
        if not path.exists():
            tone = 0.3 * np.sin(2 * np.pi * (200 + 30 * number) * seconds * (1 - 0.02 * seconds))
            soundfile.write(path, tone + noise, CLIP_RATE_HZ)
        lines.append(f"{number}.wav,tone,a tone,made here,0")
        paths.append(path)
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return paths


class Plain:
    """The straightforward step on the same modules."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.setting, self.device = setting, device
        self.extractor = ASTFeatureExtractor()
        self.parameters = [p for p in setting.objective.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=setting.config.learning_rate)

    def row_knowledge(self, example: Example) -> Tensor:
        """Compute knowledge vectors `(spans, hidden_size)` of one row: decode, featurize, encode."""
        knowledge = self.setting.objective.knowledge_encoder
        paths = [self.setting.paths[int(known.rows[0])] for known in example.clips]
        waveforms = [librosa.load(path, sr=self.extractor.sampling_rate)[0] for path in paths]
        inputs = self.extractor(waveforms, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        hidden = knowledge.tower.model(inputs["input_values"].to(self.device)).last_hidden_state
        return knowledge.outer(hidden.mean(dim=1))

    def __call__(self) -> float:
        """One step of the optimizer; the mean loss before it."""
        examples, language_model = self.setting.examples, self.setting.objective.model.language_model
        language_model.train(), self.setting.objective.knowledge_encoder.train()
        tokens = self.setting.tokenizer(
            [example.text for example in examples], padding=True, return_tensors="pt", return_offsets_mapping=True
        )
        offsets, ids = tokens.pop("offset_mapping"), tokens["input_ids"].to(self.device)
        embeddings = language_model.get_input_embeddings()(ids)
        labels = torch.full_like(ids, -100)
        for row, example in enumerate(examples):
            for (start, _), vector in zip(example.spans, self.row_knowledge(example), strict=True):
                first = int(((offsets[row, :, 1] > start) & (offsets[row, :, 1] > 0)).nonzero()[0])
                at = torch.zeros(1, ids.shape[1], 1, device=self.device)
                at[0, first] = 1.0
                added = torch.zeros(len(examples), 1, 1, device=self.device)
                added[row] = 1.0
                embeddings = embeddings + added * at * vector
            labels[row, ids[row] == self.setting.tokenizer.mask_token_id] = torch.tensor(
                example.answer, device=self.device
            )
        attention = tokens["attention_mask"].to(self.device)
        loss = language_model(inputs_embeds=embeddings, attention_mask=attention, labels=labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.setting.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


class Ours:
    """The training loop's own step."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        self.setting = setting
        self.recipe = Recipe.of(setting.config)
        setting.objective.to(device)
        self.optimizer = make_optimizer(trainable(setting.objective), self.recipe, ())

    def __call__(self, rows: int | None = None) -> float:
        """One step of the optimizer on all rows, or the first ones; the mean loss before it."""
        setting = self.setting
        batch = BatchMaker(setting.tokenizer, 1)(setting.examples[:rows])
        loss, terms = training_step(setting.objective, self.optimizer, [batch], self.recipe, processes())
        return loss / terms


def cpu_seconds(work: Callable[[], float]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds, and what the call returned."""
    began, began_wall = time.process_time(), time.perf_counter()
    value = work()
    return time.process_time() - began, time.perf_counter() - began_wall, value


def count_flops(step: Callable[[], float]) -> int:
    """Model FLOPs of a step, attention written out, because the counter does not know every fused kernel."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def alike(ours: float, plain: float) -> str:
    """Both losses, for the note.

    Raises
    ------
    RuntimeError
        They are further apart than bfloat16 explains: the two steps do not do the same.
    """
    if abs(ours - plain) > 0.02 * abs(plain):
        raise RuntimeError(f"the two forms have different losses: {ours:.4f} and {plain:.4f}")
    return f"loss {ours:.3f} and {plain:.3f}"


def on_the_cpu(folder: Path) -> list[dict[str, Any]]:
    """Measure one step of each form at base size on a few rows."""
    device = torch.device("cpu")
    setting = make_setting(folder, SIZES["base"], ROWS_ON_CPU)
    rows, clips = len(setting.examples), len(setting.paths)
    before = {name: p.detach().clone() for name, p in setting.objective.named_parameters() if p.requires_grad}
    ours = Ours(setting, device)
    flops = count_flops(lambda: ours(1))  # warms up, too

    def again() -> None:
        with torch.no_grad():
            for name, parameter in setting.objective.named_parameters():
                if name in before:
                    parameter.copy_(before[name])

    again()
    our_cpu, our_wall, our_loss = cpu_seconds(ours)
    again()
    plain_cpu, plain_wall, plain_loss = cpu_seconds(Plain(setting, device))
    again()
    some = max(1, clips // 3)
    setting.objective.config = setting.config.model_copy(update={"clips_per_step": some})
    some_cpu, _, _ = cpu_seconds(ours)
    spans = sum(len(example.spans) for example in setting.examples)
    note = (
        f"{rows} rows, {spans} spans, {clips} clips, {torch.get_num_threads()} threads; wall {our_wall:.0f} and"
        f" {plain_wall:.0f} s; {alike(our_loss, plain_loss)}; {flops / 1e9:.0f} GFLOP for a row with two clips"
    )
    unit = "rows/CPU-s"
    return [
        _row("train_step, BERT-base + AST-base", rows / our_cpu, rows / plain_cpu, unit, note),
        _row(
            f"the same, {some} of {clips} clips encoded anew",
            rows / some_cpu,
            rows / plain_cpu,
            unit,
            "clips_per_step: the others' features are from an earlier step; not the same sum",
        ),
    ]


def on_an_accelerator(folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Rows a second, utilisation and peak memory for base and large, with and without gradient checkpointing."""
    results = []
    for name, size in SIZES.items():
        setting = make_setting(folder, size, ROWS_ON_ACCELERATOR)
        setting.objective.to(device)
        rows = len(setting.examples)
        plain_s, plain_gib = _timed(Plain(setting, device), 1)
        for checkpointed in (False, True):
            if checkpointed:
                checkpoint_gradients(setting.objective.knowledge_encoder.tower)
            ours = Ours(setting, device)
            if not checkpointed:
                flops = count_flops(ours)
            our_s, our_gib = _timed(ours, REPEATS_ON_ACCELERATOR)
            label = f"train_step, {name}{', gradient checkpointing' if checkpointed else ''}"
            note = f"{rows} rows, {len(setting.paths)} clips, {flops / 1e12:.1f} TFLOP a step"
            results += [
                _row(label, rows / our_s, rows / plain_s, "rows/s", note),
                _row(f"{label}: memory", our_gib, plain_gib, "GiB", "peak, allocated"),
                _row(
                    f"{label}: utilisation",
                    flops / our_s / PEAK_TFLOPS / 1e12,
                    flops / plain_s / PEAK_TFLOPS / 1e12,
                    "of peak",
                    f"model FLOPs over {PEAK_TFLOPS:.0f} TFLOP/s; what is computed twice counts once",
                ),
            ]
    return results


def _timed(step: Callable[[], float], repeats: int) -> tuple[float, float]:
    """Median wall seconds after a warm-up, and peak GiB."""
    torch.accelerator.memory.reset_peak_memory_stats()
    step()
    times = []
    for _ in range(repeats):
        torch.accelerator.synchronize()
        began = time.perf_counter()
        step()
        torch.accelerator.synchronize()
        times.append(time.perf_counter() - began)
    return float(np.median(times)), torch.accelerator.memory.max_memory_allocated() / 2**30


def _row(name: str, ours: float, plain: float, unit: str, note: str) -> dict[str, Any]:
    return {"name": name, "ours": ours, "plain": plain, "ratio": ours / plain, "unit": unit, "note": note}


def run() -> list[dict[str, Any]]:
    """Measure the step on the device at hand."""
    with tempfile.TemporaryDirectory() as folder:
        if on_cpu():
            return on_the_cpu(Path(folder))
        return on_an_accelerator(Path(folder), processes().device)
