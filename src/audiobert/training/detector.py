"""Train the span detector: a token classifier with cross entropy (section II-B1), by LoRA or as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from audiobert.adapters import LoraSettings, add_lora, lora_parameters
from audiobert.auditorybench.data import Row, available_splits, load_split
from audiobert.backbone import load_backbone
from audiobert.detector import SpanDetector, keep_first_layers
from audiobert.model_folder import prefixed, write_part
from audiobert.modeling import IGNORED
from audiobert.progress import stderr
from audiobert.sentence import MASK, Offsets, fill_mask, token_labels
from audiobert.training.carriers import Carriers, Marked, by_sounds
from audiobert.training.config import Count, Fraction, Rate, TrainingConfig
from audiobert.training.draws import by_length
from audiobert.training.loop import Recipe, RowBatches, fit, set_dropout
from audiobert.training.processes import on_cpu, processes
from audiobert.training.sound_words import find_sound_words
from audiobert.training.text_files import (
    CAPTIONS,
    GENERAL_EVAL,
    SOUND_LINES,
    read_captions,
    read_general,
    read_lines,
)

TASKS = ("animal", "pitch")
Example = tuple[str, list[Offsets]]  # a text and its spans


class DetectorConfig(TrainingConfig):
    """Settings of `train detector`.

    Attributes
    ----------
    language_model, revision
        The model that the detector is trained on: `mini`, a folder or a hub id (with a commit, tag or branch).
    tune
        `lora` trains an adapter on the backbone, which must be the language model's; `all` fine-tunes the whole
        encoder, as the paper does, and the detector then has a model of its own.
    layers
        Use the first layers of the encoder only: fewer are faster.
    dropout
        Of the encoder while it trains.
    negatives
        Sentences of plain text per epoch (none in the paper); lines that mention a sound are not among them.
    carriers
        Sentences per epoch made from captions and plain text: sounds mentioned in passing, comparisons, namings.
    mask_share
        Fraction of the plain sentences in which a word is masked.
    answer_share
        Fraction of the rows whose mask is filled with the answer.
    peak
        Probability that at least one word of a span must reach when the detector is used.
    """

    language_model: str = "mini"
    revision: str | None = None
    tune: Literal["lora", "all"] = "lora"
    layers: int | None = Field(default=None, ge=1)
    dropout: Fraction = 0.0
    epochs: Count = 3
    batch_size: Count = 64
    learning_rate: Rate = 1e-3
    lora: LoraSettings = LoraSettings(rank=16, alpha=32, dropout=0.0, targets="all-linear")
    negatives: int = Field(default=12_000, ge=0)
    carriers: int = Field(default=8_000, ge=0)
    mask_share: Fraction = 0.5
    answer_share: Fraction = 0.3
    peak: Fraction = 0.0
    max_tokens: int = Field(default=96, ge=8)
    average_from: Fraction = 0.6
    tasks: tuple[str, ...] = TASKS


def align(rows: Sequence[Row]) -> list[tuple[Row, list[Offsets]]]:
    """Return the rows whose spans can all be aligned, with the spans' character offsets."""
    return [
        (row, [offset for offset in row.span_offsets if offset is not None])
        for row in rows
        if row.span_offsets and None not in row.span_offsets
    ]


def examples_of(rows: Sequence[Row]) -> list[Example]:
    """Return the texts of the rows that can be aligned, with their spans."""
    return [(row.text, offsets) for row, offsets in align(rows)]


def mask_a_word(line: str, random: np.random.Generator) -> str:
    """Replace one word of a line of plain text by the mask, so that a mask alone does not mean sound."""
    words = line.split(" ")
    candidates = [i for i, word in enumerate(words) if word.strip(".,;:!?'\"").isalpha()]
    if not candidates:
        return line
    chosen = candidates[random.integers(len(candidates))]
    bare = words[chosen].strip(".,;:!?'\"")
    words[chosen] = words[chosen].replace(bare, MASK, 1)
    return " ".join(words)


@dataclass(frozen=True)
class Sentences:
    """The sentences of an epoch: all rows with their spans, and plain lines and made sentences anew each time."""

    rows: Sequence[tuple[Row, list[Offsets]]]
    plain: Sequence[str]
    carriers: Carriers | None
    tokenizer: PreTrainedTokenizerBase
    config: DetectorConfig

    def examples(self, random: np.random.Generator) -> list[Marked]:
        """Return the sentences of one epoch, masks spelled `[MASK]`."""
        config, examples = self.config, []
        for row, spans in self.rows:
            filled = random.random() < config.answer_share
            text, moved = fill_mask(row.text, spans, row.answer) if filled else (row.text, spans)
            examples.append(Marked(text, tuple(moved)))
        count = min(config.negatives, len(self.plain))
        for index in random.choice(max(1, len(self.plain)), size=count, replace=False):
            line = self.plain[index]
            examples.append(Marked(mask_a_word(line, random) if random.random() < config.mask_share else line))
        if self.carriers is not None:
            examples += [self.carriers(random) for _ in range(config.carriers)]
        return examples

    def batches(self, epoch: int) -> RowBatches:
        """Return the batches of an epoch, each as token ids, attention mask and labels `(texts, tokens)`."""
        random = np.random.default_rng((self.config.seed, epoch))
        examples = self.examples(random)
        groups = by_length(examples, [len(one.text) for one in examples], self.config.batch_size, random, jitter=0.1)
        return RowBatches(groups, lambda _, members: self.batch(members))

    def batch(self, examples: Sequence[Marked]) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch as tensors, masks as the tokenizer spells them."""
        examples = [with_mask(one, str(self.tokenizer.mask_token)) for one in examples]
        tokens = self.tokenizer(
            [one.text for one in examples],
            padding=True,
            truncation=True,
            max_length=self.config.max_tokens,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = [row.tolist() for row in tokens["offset_mapping"]]
        labels = np.stack([token_labels(row, one.spans) for row, one in zip(offsets, examples, strict=True)])
        unknown = np.stack([token_labels(row, one.unknown) for row, one in zip(offsets, examples, strict=True)])
        ignored = (tokens["offset_mapping"][..., 1] == 0).numpy() | ((unknown == 1) & (labels == 0))
        return tokens["input_ids"], tokens["attention_mask"], torch.from_numpy(np.where(ignored, IGNORED, labels))


def with_mask(example: Marked, mask_token: str) -> Marked:
    """Spell the masks of a sentence as a tokenizer does and move the spans along."""
    while mask_token != MASK and MASK in example.text:
        text, spans = fill_mask(example.text, example.spans, mask_token)
        _, unknown = fill_mask(example.text, example.unknown, mask_token)
        example = replace(example, text=text, spans=tuple(spans), unknown=tuple(unknown))
    return example


class DetectorObjective(nn.Module):
    """Summed cross entropy over the tokens."""

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and the number of its tokens."""
        ids, attention, labels = batch
        logits = self.head(self.encoder(input_ids=ids, attention_mask=attention).last_hidden_state)
        loss = nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss, (labels != IGNORED).sum()


def span_scores(detector: SpanDetector, examples: list[Example]) -> dict[str, float]:
    """Compute the paper's weighted token F1 (Table II), and the F1 of whole spans, of a detector on sentences.

    Token F1 is the mean of both labels' F1, weighted by how often each label occurs, over the wordpieces of all
    sentences; a predicted span counts for exact F1 when both its ends are those of a span of the row.
    """
    mask_token = str(detector.tokenizer.mask_token)
    own = [with_mask(Marked(text, tuple(spans)), mask_token) for text, spans in examples]
    found = detector.detect([one.text for one in own])
    counts = np.zeros((2, 2))  # (truth, prediction)
    right = predicted = wanted = 0
    for one, predictions in zip(own, found, strict=True):
        offsets = detector.tokenizer(one.text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        ends = [(span.start, span.end) for span in predictions]
        np.add.at(counts, (token_labels(offsets, one.spans), token_labels(offsets, ends)), 1)
        right += len(set(ends) & set(one.spans))
        predicted, wanted = predicted + len(ends), wanted + len(one.spans)
    f1 = [2 * counts[k, k] / max(1.0, counts[k].sum() + counts[:, k].sum()) for k in (0, 1)]
    support = counts.sum(axis=1) / counts.sum()
    return {
        "token_f1": float(f1[0] * support[0] + f1[1] * support[1]),
        "span_f1": float(f1[1]),
        "exact_f1": 2 * right / max(1, predicted + wanted),
        "sentences": float(len(examples)),
    }


def false_alarms(detector: SpanDetector, lines: list[str]) -> float:
    """Compute the fraction of sentences of plain text in which the detector finds a span."""
    return sum(bool(spans) for spans in detector.detect(lines)) / max(1, len(lines))


def training_sentences(
    data: Path, config: DetectorConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[Sentences, dict[str, dict[str, int]], list[Path]]:
    """Return the sentences, how many rows of each task could be aligned, and the files that all are from."""
    benchmark, text = data / "auditorybench", data / "text"
    sources = sorted(benchmark.glob("*train*"))
    rows, counts = [], {}
    for task in config.tasks:
        train_rows = load_split(benchmark, task, "train")
        aligned = align(train_rows)
        counts[task] = {"aligned": len(aligned), "left_out": len(train_rows) - len(aligned)}
        rows += aligned
    if not config.negatives and not config.carriers:
        return Sentences(rows, [], None, tokenizer, config), counts, sources
    lines, files = read_general(text)
    captions = read_captions(text / CAPTIONS)
    glosses = read_lines(text / SOUND_LINES) if (text / SOUND_LINES).exists() else []
    words = find_sound_words(captions, lines, glosses)
    plain, told = by_sounds(lines, words)
    spans = sorted({row.text[start:end] for row, offsets in rows for start, end in offsets})
    carriers = Carriers(words, captions, plain, told, spans) if config.carriers else None
    sources += [*files, text / CAPTIONS, *([text / SOUND_LINES] if glosses else [])]
    return Sentences(rows, plain, carriers, tokenizer, config), counts, sources


def train_detector(
    data: Path, out: Path, config: DetectorConfig, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train the span detector; write `detector.safetensors` and its JSON.

    Parameters
    ----------
    data : Path
        A folder with `auditorybench/` (train for training, dev and wiki for measuring, test too where it is there). If
        `negatives` or `carriers` is not 0, `text/` must hold general English and captions. The rate of false alarms is
        measured where `text/general_eval.txt.gz` exists.
    """
    benchmark = data / "auditorybench"
    backbone = load_backbone(config.language_model, revision=config.revision, attention="eager" if on_cpu() else None)
    sentences, aligned, sources = training_sentences(data, config, backbone.tokenizer)
    torch.manual_seed(config.seed)
    encoder = cast(PreTrainedModel, backbone.model.base_model)
    keep_first_layers(encoder, config.layers)
    if config.tune == "lora":
        add_lora(encoder, config.lora)
    set_dropout(encoder, config.dropout)
    head = nn.Linear(encoder.config.hidden_size, 2)
    detector = SpanDetector(encoder, head, backbone.tokenizer, peak=config.peak)
    there = [set(available_splits(benchmark, task)) for task in TASKS]
    splits = [split for split in ("dev", "wiki", "test") if split != "test" or all(split in of for of in there)]
    measured = {(task, split): examples_of(load_split(benchmark, task, split)) for task in TASKS for split in splits}

    def figures(_: int) -> dict[str, float]:
        encoder.eval()
        combined = measured["animal", "dev"] + measured["pitch", "dev"]
        return {key: round(value, 4) for key, value in span_scores(detector, combined).items() if key != "sentences"}

    log = fit(
        DetectorObjective(encoder, head),
        sentences.batches,
        config.epochs,
        Recipe.of(config, best_by="token_f1"),
        out,
        settings=config,
        resume=resume,
        overwrite=overwrite,
        description="detector",
        after_epoch=figures,
    )
    if not processes().is_main_process:
        return {}
    encoder.eval()
    scores = {f"{task}.{split}": span_scores(detector, examples) for (task, split), examples in measured.items()}
    for split in splits:
        scores[f"combined.{split}"] = span_scores(detector, measured["animal", split] + measured["pitch", split])
    alarms_path = data / "text" / GENERAL_EVAL
    alarms = false_alarms(detector, read_lines(alarms_path)) if alarms_path.exists() else None
    own = lora_parameters(encoder) if config.tune == "lora" else encoder.state_dict()
    record = write_part(
        out,
        "detector",
        prefixed(own, "encoder.") | prefixed(head.state_dict(), "head."),
        sources,
        backbone=backbone.identity.to_json(),
        settings=config.model_dump(mode="json"),
        lora=config.lora.model_dump(mode="json") if config.tune == "lora" else None,
        peak=config.peak,
        train_rows=aligned,
        scores=scores,
        false_alarms_general_eval=alarms,
        log=log,
    )
    measured_alarms = "not measured" if alarms is None else f"{alarms:.2%} of general_eval"
    stderr.print(f"detector: {scores}, false alarms {measured_alarms}; wrote {out}")
    return record
