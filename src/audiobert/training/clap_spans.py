"""Align CLAP's text side with the benchmark's spans, so that "a deep bellow" retrieves clips of a cow.

Captions say "a cow mooing"; spans describe a sound and leave the animal out. Where the answer of a train row is an
animal that there are clips of, its spans are drawn to those clips. The text projection alone is trained. It is held
where it had put the clips' own texts and captions of other sounds, so that a search by such texts finds the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from audiobert.auditorybench.data import Row
from audiobert.clap import ClapProjections
from audiobert.progress import track
from audiobert.training.clips import label_of

if TYPE_CHECKING:
    from audiobert.training.clap import ClapConfig

ANCHORS = 128  # drawn of each group a step


def spans_by_label(rows: Sequence[Row], labels: set[str]) -> dict[str, list[str]]:
    """Return the spans, in lower case, of the rows whose answer is one of the labels of clips."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if label := label_of(row.answer, labels):
            spans = [row.text[start:end].lower() for start, end in (o for o in row.span_offsets if o is not None)]
            found.setdefault(label, []).extend(spans)
    return {label: spans for label, spans in sorted(found.items()) if spans}


def alignment_loss(
    text_vectors: Tensor, audio_vectors: Tensor, same: Tensor, counts: Tensor, temperature: float
) -> Tensor:
    """Compute the mean negative log-probability of each text's own class among the clips, classes weighing the same.

    Parameters
    ----------
    text_vectors, audio_vectors : Tensor
        `(texts, clap_dim)` and `(clips, clap_dim)`, unit norm.
    same : Tensor
        `(texts, clips)` bool, which clips are of a text's class.
    counts : Tensor
        `(clips,)`, how many clips each clip's class has.
    """
    logits = text_vectors @ audio_vectors.T / temperature - counts.log()
    own = logits.masked_fill(~same, -torch.inf)
    return (logits.logsumexp(dim=1) - own.logsumexp(dim=1)).mean()


def align_spans(
    projections: ClapProjections,
    spans: dict[str, list[str]],
    audio_vectors: Tensor,
    labels: Sequence[str],
    sentence_vectors: dict[str, Tensor],
    anchors: Sequence[Sequence[str]],
    config: ClapConfig,
) -> None:
    """Train the text projection on spans and the clips of their classes.

    Parameters
    ----------
    spans
        By label; labels without a clip are passed over. A label is drawn as often as the square root of its spans says.
    audio_vectors : Tensor
        `(clips, clap_dim)`, of the clips that training uses, and `labels` their labels.
    sentence_vectors
        Of every span and anchor.
    anchors
        Texts that are to stay where they are, in groups that weigh the same.
    """
    classes = sorted(set(labels))
    drawn_from = [label for label in sorted(spans) if label in classes]
    if not drawn_from or not config.span_steps:
        return
    random = np.random.default_rng(config.seed)
    of_clip = torch.tensor([classes.index(label) for label in labels])
    counts = torch.bincount(of_clip)[of_clip].float()
    shares = np.array([len(spans[label]) for label in drawn_from]) ** 0.5
    held = [torch.stack([sentence_vectors[text] for text in group]) for group in anchors]
    with torch.no_grad():
        before = [projections.text_vectors(group) for group in held]
    weight = projections.text_projection.weight
    optimizer = torch.optim.AdamW([weight], lr=config.span_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=config.span_steps)
    for _ in track(range(config.span_steps), "spans"):
        chosen = random.choice(len(drawn_from), size=config.spans, p=shares / shares.sum())
        among = [spans[drawn_from[i]] for i in chosen]
        texts = torch.stack([sentence_vectors[own[random.integers(len(own))]] for own in among])
        asked = torch.tensor([classes.index(drawn_from[i]) for i in chosen])
        found = projections.text_vectors(texts)
        same = of_clip == asked.unsqueeze(1)
        loss = alignment_loss(found, audio_vectors, same, counts, config.span_temperature)
        moved = torch.zeros(())
        for group, there in zip(held, before, strict=True):
            some = torch.from_numpy(random.integers(len(group), size=ANCHORS))
            now = projections.text_vectors(group[some])
            moved = moved + (1.0 - (now * there[some]).sum(dim=-1).mean()) / len(held)
        optimizer.zero_grad()
        (loss + config.span_anchor * moved).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def span_hits(
    projections: ClapProjections,
    spans: dict[str, list[str]],
    audio_vectors: Tensor,
    labels: Sequence[str],
    sentence_vectors: dict[str, Tensor],
    clips: int = 4,
) -> dict[str, float]:
    """Return the share of spans whose nearest clip, or one of the nearest few, is of the animal of their row."""
    asked = [(label, text) for label, texts in spans.items() for text in texts]
    if not asked:
        return {}
    texts = projections.text_vectors(torch.stack([sentence_vectors[text] for _, text in asked]))
    nearest = (texts @ audio_vectors.T).topk(min(clips, len(labels)), dim=1).indices.tolist()
    right = np.array([[labels[i] == label for i in row] for row, (label, _) in zip(nearest, asked, strict=True)])
    return {"R@1": float(right[:, 0].mean()), f"R@{clips}": float(right.any(axis=1).mean()), "spans": float(len(asked))}
