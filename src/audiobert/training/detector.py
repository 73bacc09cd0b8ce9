"""`train detector`: a token classifier with cross entropy (section II-B1), a LoRA on a backbone or all of a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from audiobert.adapters import ALL_LINEAR, DETECTOR, Adapters, LoraSettings
from audiobert.artefacts import provenance, sha256_of, whole_file, write_json
from audiobert.auditorybench.data import Row, available_splits, load_split
from audiobert.backbone import load_backbone
from audiobert.detector import SpanDetector
from audiobert.progress import stderr
from audiobert.spans import token_labels
from audiobert.training.config import TrainingConfig
from audiobert.training.draws import by_length
from audiobert.training.loop import Recipe, RowBatches, fit, set_dropout
from audiobert.training.processes import is_main_process
from audiobert.training.text_files import GENERAL_EVAL, GENERAL_TRAIN, read_lines

TASKS = ("animal", "pitch")
IGNORED = -100
MASK = "[MASK]"
Example = tuple[str, list[tuple[int, int]]]  # a text and its spans


class DetectorConfig(TrainingConfig):
    """Settings of `train detector`.

    Attributes
    ----------
    language_model, revision
        What the detector stands on: `mini`, a folder or a hub id (with a commit, tag or branch).
    tune
        `lora` trains an adapter on the backbone, which must be the language model's; `all` fine-tunes the whole
        encoder, as the paper does, and the detector then has a model of its own.
    dropout
        Of the encoder while it trains.
    negatives
        Sentences of plain text in an epoch (none in the paper); with 0 no text is read.
    mask_share
        Share of them in which a word is masked.
    answer_share
        Share of the rows whose mask is filled with the answer.
    """

    language_model: str = "mini"
    revision: str | None = None
    tune: Literal["lora", "all"] = "lora"
    dropout: float = 0.0
    epochs: int = 3
    batch_size: int = 64
    learning_rate: float = 1e-3
    lora_rank: int = 16
    lora_alpha: int = 32
    negatives: int = 12_000
    mask_share: float = 0.5
    answer_share: float = 0.3
    max_tokens: int = 96
    average_from: float = 0.6
    tasks: tuple[str, ...] = TASKS


def align(rows: list[Row]) -> tuple[list[Example], int]:
    """Rows as texts with character spans, and how many rows had to be left out because no span could be aligned."""
    examples = []
    for row in rows:
        offsets = [offset for offset in row.span_offsets if offset is not None]
        if offsets and len(offsets) == len(row.span_offsets):
            examples.append((row.text, offsets))
    return examples, len(rows) - len(examples)


def fill_mask_with(text: str, spans: list[tuple[int, int]], answer: str) -> Example:
    """The text with its mask replaced by the answer, spans moved along."""
    at = text.index(MASK)
    shift = len(answer) - len(MASK)
    moved = [(start + shift * (start > at), end + shift * (end > at)) for start, end in spans]
    return text.replace(MASK, answer, 1), moved


def mask_a_word(line: str, random: np.random.Generator) -> str:
    """A line of plain text with one of its words replaced by the mask, so that a mask alone does not mean sound."""
    words = line.split(" ")
    candidates = [i for i, word in enumerate(words) if word.strip(".,;:!?'\"").isalpha()]
    if not candidates:
        return line
    chosen = candidates[random.integers(len(candidates))]
    bare = words[chosen].strip(".,;:!?'\"")
    words[chosen] = words[chosen].replace(bare, MASK, 1)
    return " ".join(words)


class Sentences:
    """The sentences of an epoch: all rows, and as many plain lines anew each time."""

    def __init__(
        self,
        rows: list[tuple[str, list[tuple[int, int]], str]],
        plain: list[str],
        tokenizer: PreTrainedTokenizerBase,
        config: DetectorConfig,
    ) -> None:
        self.rows, self.plain, self.tokenizer, self.config = rows, plain, tokenizer, config

    def batches(self, epoch: int) -> RowBatches:
        """Token ids, attention mask and labels (0, 1, `IGNORED`), each `(texts, tokens)`, of batches of like length."""
        random = np.random.default_rng((self.config.seed, epoch))
        examples: list[Example] = []
        for text, spans, answer in self.rows:
            filled = random.random() < self.config.answer_share
            examples.append(fill_mask_with(text, spans, answer) if filled else (text, spans))
        count = min(self.config.negatives, len(self.plain))
        for index in random.choice(max(1, len(self.plain)), size=count, replace=False):
            line = self.plain[index]
            examples.append((mask_a_word(line, random) if random.random() < self.config.mask_share else line, []))
        lengths = [len(text) for text, _ in examples]
        groups = by_length(examples, lengths, self.config.batch_size, random, jitter=0.1)
        return RowBatches(groups, lambda _, members: self._batch(members))

    def _batch(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
        tokens = self.tokenizer(
            [text for text, _ in examples],
            padding=True,
            truncation=True,
            max_length=self.config.max_tokens,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        labels = np.stack(
            [token_labels(tokens["offset_mapping"][i].tolist(), spans) for i, (_, spans) in enumerate(examples)]
        )
        special = (tokens["offset_mapping"][..., 1] == 0).numpy()
        return tokens["input_ids"], tokens["attention_mask"], torch.from_numpy(np.where(special, IGNORED, labels))


class DetectorObjective(nn.Module):
    """Summed cross entropy over the tokens."""

    def __init__(self, encoder: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        ids, attention, labels = batch
        logits = self.head(self.encoder(input_ids=ids, attention_mask=attention).last_hidden_state)
        loss = nn.functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss, (labels != IGNORED).sum()


def span_scores(detector: SpanDetector, examples: list[Example]) -> dict[str, float]:
    """The paper's weighted token F1 (Table II), and the F1 of whole spans, of a detector on sentences with spans.

    Token F1 is the mean of both labels' F1, weighted by how often each label occurs, over the wordpieces of all
    sentences; a predicted span counts for exact F1 when both its ends are those of a span of the row.
    """
    found = detector.detect([text for text, _ in examples])
    counts = np.zeros((2, 2))  # (truth, prediction)
    right = predicted = wanted = 0
    for (text, spans), predictions in zip(examples, found, strict=True):
        offsets = detector.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        ends = [(span.start, span.end) for span in predictions]
        np.add.at(counts, (token_labels(offsets, spans), token_labels(offsets, ends)), 1)
        right += len(set(ends) & set(map(tuple, spans)))
        predicted, wanted = predicted + len(ends), wanted + len(spans)
    f1 = [2 * counts[k, k] / max(1.0, counts[k].sum() + counts[:, k].sum()) for k in (0, 1)]
    support = counts.sum(axis=1) / counts.sum()
    return {
        "token_f1": float(f1[0] * support[0] + f1[1] * support[1]),
        "span_f1": float(f1[1]),
        "exact_f1": 2 * right / max(1, predicted + wanted),
        "sentences": float(len(examples)),
    }


def false_alarms(detector: SpanDetector, lines: list[str]) -> float:
    """Share of sentences of plain text in which the detector finds a span."""
    return sum(bool(spans) for spans in detector.detect(lines)) / len(lines)


def train_detector(data: Path, out: Path, config: DetectorConfig, *, resume: bool = False) -> dict[str, Any]:
    """Train the span detector; write `detector.safetensors` and its JSON.

    Parameters
    ----------
    data : Path
        A folder with `auditorybench/` (train for training, dev and wiki for measuring, test too where it is there),
        `text/general_train.txt.gz` for sentences without spans, and `text/general_eval.txt.gz` for the rate of false
        alarms, which is not measured without it.
    """
    benchmark = data / "auditorybench"
    rows, aligned = [], {}
    for task in config.tasks:
        train_rows = load_split(benchmark, task, "train")
        answers = {row.text: row.answer for row in train_rows}
        examples, left_out = align(train_rows)
        aligned[task] = {"aligned": len(examples), "left_out": left_out}
        rows += [(text, spans, answers[text]) for text, spans in examples]
    backbone = load_backbone(config.language_model, revision=config.revision, attention="eager")
    torch.manual_seed(config.seed)
    encoder = cast(PreTrainedModel, backbone.model.base_model)
    lora = LoraSettings(config.lora_rank, config.lora_alpha, 0.0, ALL_LINEAR) if config.tune == "lora" else None
    adapters = Adapters(encoder)
    if lora:
        backbone.model.requires_grad_(False)
        adapters.add(DETECTOR, lora)
        adapters.set(DETECTOR, train=DETECTOR)
    set_dropout(encoder, config.dropout)
    head = nn.Linear(encoder.config.hidden_size, 2)
    plain_path, alarms_path = (data / "text" / name for name in (GENERAL_TRAIN, GENERAL_EVAL))
    plain = read_lines(plain_path) if config.negatives else []
    sentences = Sentences(rows, plain, backbone.tokenizer, config)
    detector = SpanDetector(encoder, head, backbone.tokenizer, lambda: adapters.on(DETECTOR) if lora else nullcontext())
    there = [set(available_splits(benchmark, task)) for task in TASKS]
    splits = [split for split in ("dev", "wiki", "test") if split != "test" or all(split in of for of in there)]
    measured = {(task, split): align(load_split(benchmark, task, split))[0] for task in TASKS for split in splits}

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
        settings=config.model_dump(mode="json"),
        resume=resume,
        description="detector",
        after_epoch=figures,
    )
    if not is_main_process():
        return {}
    encoder.eval()
    scores = {f"{task}.{split}": span_scores(detector, examples) for (task, split), examples in measured.items()}
    for split in splits:
        scores[f"combined.{split}"] = span_scores(detector, measured["animal", split] + measured["pitch", split])
    alarms = false_alarms(detector, read_lines(alarms_path)) if alarms_path.exists() else None
    if lora:
        weights = {f"encoder.{key.removeprefix('encoder.')}": value for key, value in adapters.state(DETECTOR).items()}
    else:
        weights = {f"encoder.{key}": value.detach().half().contiguous() for key, value in encoder.state_dict().items()}
    weights |= {f"head.{key}": value.detach().half() for key, value in head.state_dict().items()}
    with whole_file(out / "detector.safetensors") as part:
        save_file(weights, part)
    record = dict(
        provenance(
            part="detector",
            backbone=backbone.identity.to_json(),
            settings=config.model_dump(mode="json"),
            lora=lora.to_json() if lora else None,
            data={
                path.name: sha256_of(path)
                for path in [*sorted(benchmark.glob("*train*")), *([plain_path] if config.negatives else [])]
            },
            train_rows=aligned,
            scores=scores,
            false_alarms_general_eval=alarms,
            log=log,
            sha256=sha256_of(out / "detector.safetensors"),
        )
    )
    write_json(out / "detector.json", record)
    heard = "not measured" if alarms is None else f"{alarms:.2%} of general_eval"
    stderr.print(f"detector: {scores}, false alarms {heard}; wrote {out}")
    return record
