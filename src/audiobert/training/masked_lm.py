"""The plain language model of `mini`: a LoRA on all linear layers of the frozen backbone and a masked-LM head."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import send_to_device
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertForMaskedLM, PreTrainedTokenizerBase

from audiobert.adapters import ALL_LINEAR, LANGUAGE, Adapters, LoraSettings
from audiobert.artefacts import provenance, sha256_of, whole_file, write_json
from audiobert.backbone import load_backbone
from audiobert.modeling import head_parameters
from audiobert.progress import stderr
from audiobert.training.config import TrainingConfig
from audiobert.training.loop import Batches, Recipe, fit, set_dropout
from audiobert.training.processes import is_main_process
from audiobert.training.text_files import CAPTIONS, GENERAL_EVAL, GENERAL_TRAIN, read_captions, read_lines

IGNORED = -100


class MaskedLmConfig(TrainingConfig):
    """Settings of `train masked-lm`."""

    epochs: int = 3
    tokens_per_batch: int = 4096
    learning_rate: float = 1.5e-3
    mask_rate: float = 0.2
    max_tokens: int = 128
    lora_rank: int = 64
    lora_alpha: int = 64
    warmup: float = 0.03
    average_from: float = 0.9


class Lines:
    """Tokenized lines, batched by length, masked anew each epoch."""

    def __init__(self, lines: list[str], tokenizer: PreTrainedTokenizerBase, config: MaskedLmConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        encoded = tokenizer(lines, truncation=True, max_length=config.max_tokens)["input_ids"]
        self.ids = [np.asarray(ids, dtype=np.int64) for ids in encoded if len(ids) > 4]
        self.lengths = np.array([len(ids) for ids in self.ids])

    def batches(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Batches of about `tokens_per_batch` tokens, as (seed of the masking, line indices)."""
        random = np.random.default_rng((self.config.seed, epoch))
        order = np.lexsort((random.permutation(len(self.ids)), self.lengths + random.integers(0, 3, len(self.ids))))
        batches, start = [], 0
        while start < len(order):
            stop = start + max(1, self.config.tokens_per_batch // int(self.lengths[order[start]]))
            batches.append(order[start:stop])
            start = stop
        shuffled = [batches[i] for i in random.permutation(len(batches))]
        return [(epoch * 1_000_003 + i, members) for i, members in enumerate(shuffled)]

    def masked(self, seed: int, members: np.ndarray, mask_rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids (lines, tokens), attention mask, labels (`IGNORED` where not masked); 80/10/10 as in BERT."""
        random = np.random.default_rng((self.config.seed, 7, seed))
        width = int(self.lengths[members].max())
        ids = np.full((len(members), width), self.tokenizer.pad_token_id, dtype=np.int64)
        for row, member in enumerate(members):
            ids[row, : self.lengths[member]] = self.ids[member]
        attention = ids != self.tokenizer.pad_token_id
        special = np.isin(ids, self.tokenizer.all_special_ids)
        chosen = (random.random(ids.shape) < mask_rate) & ~special
        labels = np.where(chosen, ids, IGNORED)
        how = random.random(ids.shape)
        ids = np.where(chosen & (how < 0.8), self.tokenizer.mask_token_id, ids)
        replaced = chosen & (how >= 0.9)
        ids = np.where(replaced, random.integers(999, len(self.tokenizer), ids.shape), ids)
        return torch.from_numpy(ids), torch.from_numpy(attention.astype(np.int64)), torch.from_numpy(labels)


class MaskedLmObjective(nn.Module):
    """Summed cross entropy at the masked tokens; the decoder runs at those alone."""

    def __init__(self, language_model: BertForMaskedLM) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        ids, attention, labels = batch
        hidden = self.language_model.bert(input_ids=ids, attention_mask=attention).last_hidden_state
        chosen = labels != IGNORED
        logits = self.language_model.cls(hidden[chosen])  # (masked tokens, vocabulary)
        loss = nn.functional.cross_entropy(logits.float(), labels[chosen], reduction="sum")
        return loss, chosen.sum()


def train_masked_lm(data: Path, out: Path, config: MaskedLmConfig, *, resume: bool = False) -> dict[str, Any]:
    """Train LoRA and head on general text and captions of sounds; write `language_model.safetensors` and its JSON.

    Parameters
    ----------
    data : Path
        A folder with `text/general_train.txt.gz`, `text/audiocaps_captions.csv.gz` and, for measuring alone,
        `text/general_eval.txt.gz`.
    out : Path
        Checkpoints, the log and the result go here.

    Returns
    -------
    dict
        The record that is written beside the weights, with the perplexity on `general_eval.txt.gz`.
    """
    sources = [data / "text" / name for name in (GENERAL_TRAIN, CAPTIONS)]
    lines = read_lines(sources[0]) + read_captions(sources[1])
    evaluation = read_lines(data / "text" / GENERAL_EVAL)
    backbone = load_backbone("mini", attention="eager")
    torch.manual_seed(config.seed)
    model = cast(BertForMaskedLM, backbone.model).requires_grad_(False)
    adapters = Adapters(model)
    adapters.add(LANGUAGE, LoraSettings(config.lora_rank, config.lora_alpha, 0.0, ALL_LINEAR))
    adapters.set(LANGUAGE, train=LANGUAGE)
    head = head_parameters(model)
    for parameter in head.values():
        parameter.requires_grad_(True)
    set_dropout(model, 0.0)

    corpus = Lines(lines, backbone.tokenizer, config)
    held_out = Lines(evaluation, backbone.tokenizer, config)

    def batches(epoch: int) -> Batches:
        plan = corpus.batches(epoch)
        return Batches(len(plan), lambda index: corpus.masked(*plan[index], config.mask_rate))

    objective = MaskedLmObjective(model)
    log = fit(
        objective,
        batches,
        config.epochs,
        Recipe.of(config, best_by="-perplexity"),
        out,
        settings=config.model_dump(),
        resume=resume,
        description="masked-lm",
        after_epoch=lambda _: {"perplexity": perplexity(objective, held_out, limit=40)},
    )
    if not is_main_process():
        return {}
    record = dict(
        provenance(
            part="language_model",
            backbone=backbone.identity.to_json(),
            settings=config.model_dump(),
            data={path.name: sha256_of(path) for path in sources},
            lines=len(corpus.ids),
            perplexity_general_eval=round(perplexity(objective, held_out), 2),
            log=log,
        )
    )
    with whole_file(out / "language_model.safetensors") as part:
        saved_head = {name: parameter.detach().cpu().half().contiguous() for name, parameter in head.items()}
        save_file(adapters.state(LANGUAGE) | saved_head, part)
    record["sha256"] = sha256_of(out / "language_model.safetensors")
    write_json(out / "language_model.json", record)
    stderr.print(f"masked-lm: perplexity {record['perplexity_general_eval']} on general_eval; wrote {out}")
    return record


@torch.no_grad()
def perplexity(objective: MaskedLmObjective, lines: Lines, limit: int | None = None) -> float:
    """Exponential of the mean cross entropy at 15% masked tokens, with a fixed masking."""
    objective.eval()
    total, count = 0.0, 0
    batches = lines.batches(0)[:limit]
    for _, members in batches:
        loss, terms = objective(send_to_device(lines.masked(0, members, 0.15), objective.language_model.device))
        total, count = total + float(loss), count + int(terms)
    return math.exp(total / count)
