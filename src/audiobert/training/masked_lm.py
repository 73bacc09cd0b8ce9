"""Train the plain language model of `mini`: a LoRA on the frozen backbone and a masked-LM head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from audiobert.adapters import LoraSettings, add_lora
from audiobert.backbone import load_backbone
from audiobert.errors import InputError
from audiobert.model_folder import write_part
from audiobert.modeling import IGNORED, head_parameters, masked_lm_head
from audiobert.progress import stderr
from audiobert.training.config import Count, Fraction, Rate, TrainingConfig
from audiobert.training.loop import Batches, Recipe, fit, set_dropout
from audiobert.training.processes import on_cpu, processes
from audiobert.training.text_files import CAPTIONS, GENERAL_EVAL, read_captions, read_general, read_lines

SHORTEST = 5  # tokens of a line, the two special ones included; below that there is nothing to predict from


class MaskedLmConfig(TrainingConfig):
    """Settings of `train masked-lm`.

    Attributes
    ----------
    tokens_per_batch
        Tokens of a batch, padding included; lines of like length stand together.
    mask_rate
        Fraction of the tokens that are predicted; of these 80% are masked, 10% replaced, 10% kept, as in BERT.
    max_tokens
        Longer lines are cut.
    leave_out
        A file of lines that are not trained on, in `text/` below the data's folder or by its path.
    """

    epochs: Count = 1
    tokens_per_batch: Count = 4096
    learning_rate: Rate = 1.5e-3
    mask_rate: Fraction = 0.2
    max_tokens: int = Field(default=128, ge=SHORTEST)
    lora: LoraSettings = LoraSettings(rank=64, alpha=64, dropout=0.0, targets="all-linear")
    leave_out: str | None = None
    warmup: Fraction = 0.03
    average_from: Fraction = 0.9


class Lines:
    """Tokenized lines in batches of about equally many tokens; lines of fewer than `SHORTEST` tokens are left out."""

    def __init__(self, lines: Sequence[str], tokenizer: PreTrainedTokenizerBase, config: MaskedLmConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        tokens = tokenizer(list(lines), truncation=True, max_length=config.max_tokens) if lines else {"input_ids": []}
        rows = [ids for ids in tokens["input_ids"] if len(ids) >= SHORTEST]
        self.lengths = np.array([len(ids) for ids in rows], dtype=np.int64)
        self.ends = np.cumsum(self.lengths)
        self.ids = np.fromiter((token for ids in rows for token in ids), dtype=np.int64, count=int(self.lengths.sum()))
        words = tokenizer.get_vocab().items()
        special = set(tokenizer.all_special_ids)
        # What a masked token may be replaced by; "[unused12]" are places that BERT's vocabulary keeps free.
        self.ordinary = np.array(sorted(i for word, i in words if i not in special and not word.startswith("[unused")))

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Return the batches of an epoch in random order, as (seed of the masking, line indices)."""
        random = np.random.default_rng((self.config.seed, epoch))
        order = np.lexsort((random.permutation(len(self)), self.lengths + random.integers(0, 3, len(self))))
        batches, start = [], 0
        while start < len(order):
            stop = start + max(1, self.config.tokens_per_batch // int(self.lengths[order[start]]))
            batches.append(order[start:stop])
            start = stop
        shuffled = [batches[i] for i in random.permutation(len(batches))]
        return [(epoch * 1_000_003 + i, members) for i, members in enumerate(shuffled)]

    def masked(self, seed: int, members: np.ndarray, mask_rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return token ids (lines, tokens), attention mask, and labels (`IGNORED` where nothing is predicted)."""
        random = np.random.default_rng((self.config.seed, 7, seed))
        lengths = self.lengths[members]
        places = np.arange(lengths.max())
        attention = places < lengths[:, None]  # (lines, tokens)
        ids = np.full(attention.shape, self.tokenizer.pad_token_id or 0, dtype=np.int64)
        ids[attention] = self.ids[((self.ends[members] - lengths)[:, None] + places)[attention]]
        chosen = (random.random(ids.shape) < mask_rate) & attention & ~np.isin(ids, self.tokenizer.all_special_ids)
        labels = np.where(chosen, ids, IGNORED)
        how = random.random(ids.shape)
        ids = np.where(chosen & (how < 0.8), self.tokenizer.mask_token_id, ids)
        ids = np.where(chosen & (how >= 0.9), random.choice(self.ordinary, ids.shape), ids)
        return torch.from_numpy(ids), torch.from_numpy(attention.astype(np.int64)), torch.from_numpy(labels)


class MaskedLmObjective(nn.Module):
    """Summed cross entropy at the masked tokens; the head runs at those alone."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.language_model = language_model
        self.head = masked_lm_head(language_model)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the number of masked tokens."""
        ids, attention, labels = batch
        hidden = self.language_model.base_model(input_ids=ids, attention_mask=attention)[0]  # (lines, tokens, width)
        chosen = labels != IGNORED
        logits = self.head(hidden[chosen])  # (masked tokens, vocabulary)
        loss = nn.functional.cross_entropy(logits.float(), labels[chosen], reduction="sum")
        return loss, chosen.sum()


def train_masked_lm(
    data: Path, out: Path, config: MaskedLmConfig, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train LoRA and head on general text and captions of sounds; write `language_model.safetensors` and its JSON.

    Parameters
    ----------
    data : Path
        A folder with `text/general_train.txt.gz`, `text/general_train2.txt.gz` (if there is one),
        `text/audiocaps_captions.csv.gz` and, for measuring alone, `text/general_eval.txt.gz`.

    Returns
    -------
    dict
        The record that is written beside the weights, with the perplexity on `general_eval.txt.gz`.
    """
    lines, sources, left_out = training_lines(data / "text", config.leave_out)
    evaluation = read_lines(data / "text" / GENERAL_EVAL)
    torch.manual_seed(config.seed)  # the backbone has no head: loading it draws one
    backbone = load_backbone("mini", attention="eager" if on_cpu() else None)
    lora = add_lora(backbone.model, config.lora)
    head = head_parameters(backbone.model)
    for parameter in head.values():
        parameter.requires_grad_(True)
    set_dropout(backbone.model, 0.0)

    corpus = Lines(lines, backbone.tokenizer, config)
    held_out = Lines(evaluation, backbone.tokenizer, config)

    def batches(epoch: int) -> Batches:
        plan = corpus.batches(epoch)
        return Batches(len(plan), lambda index: corpus.masked(*plan[index], config.mask_rate))

    objective = MaskedLmObjective(backbone.model)
    log = fit(
        objective,
        batches,
        config.epochs,
        Recipe.of(config, best_by="-perplexity"),
        out,
        settings=config,
        resume=resume,
        overwrite=overwrite,
        description="masked-lm",
        after_epoch=lambda _: {"perplexity": perplexity(objective, held_out, limit=40)},
    )
    if not processes().is_main_process:
        return {}
    record = write_part(
        out,
        "language_model",
        lora | head,
        sources,
        backbone=backbone.identity.to_json(),
        lora=config.lora.model_dump(mode="json"),
        settings=config.model_dump(mode="json"),
        lines=len(corpus),
        lines_left_out=left_out,
        perplexity_general_eval=round(perplexity(objective, held_out), 2),
        log=log,
    )
    stderr.print(f"masked-lm: perplexity {record['perplexity_general_eval']} on general_eval; wrote {out}")
    return record


def training_lines(text: Path, leave_out: str | None) -> tuple[list[str], list[Path], int]:
    """Return the lines to train on, the files that they are from, and how many of their lines were left out.

    InputError if a file is missing, or none of the lines to be left out is there.
    """
    general, files = read_general(text)
    lines, sources = general + read_captions(text / CAPTIONS), [*files, text / CAPTIONS]
    if leave_out is None:
        return lines, sources, 0
    path = text / leave_out if (text / leave_out).exists() else Path(leave_out)
    unwanted = set(read_lines(path))
    kept = [line for line in lines if line not in unwanted]
    if len(kept) == len(lines):
        raise InputError(
            f"leave_out is {leave_out!r}, but none of its lines is in the text; one line per line of text is wanted"
        )
    return kept, [*sources, path], len(lines) - len(kept)


@torch.no_grad()
def perplexity(objective: MaskedLmObjective, lines: Lines, limit: int | None = None) -> float:
    """Compute the exponential of the mean cross entropy at 15% masked tokens, with a fixed masking."""
    objective.eval()
    total, count = 0.0, 0
    batches = lines.batches(0)[:limit]
    for _, members in batches:
        loss, terms = objective(send_to_device(lines.masked(0, members, 0.15), objective.language_model.device))
        total, count = total + float(loss), count + int(terms)
    return math.exp(total / max(count, 1))
