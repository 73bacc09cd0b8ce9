"""Compute AudioBERT's training loss: cross entropy at the masks, with the clips' knowledge injected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from audiobert.features import AUDIO_ENCODER
from audiobert.injection import SpanKnowledge
from audiobert.knowledge import KnowledgeEncoder
from audiobert.modeling import AudioBertForMaskedLM
from audiobert.training.batches import Batch, TrainingNames
from audiobert.training.clips import TrainingClips

if TYPE_CHECKING:
    from audiobert.training.audiobert_config import AudioBertConfig


class AudioBertObjective(nn.Module):
    """Summed cross entropy at the masks.

    The audio encoder's vectors of all clips are cached; each step encodes some of its batch's distinct clips anew, with
    gradients, and takes the cached vectors of the rest, which are at most about an epoch old. `clips_per_step=0`
    encodes every distinct clip of the batch.

    Parameters
    ----------
    vectors : Tensor
        `(clips, width)`, the audio encoder's vectors of all clips, updated in place.
    names : TrainingNames, optional
        The clips' names; with them, what the names nearest to a query sound like is injected, too.
    """

    def __init__(
        self,
        model: AudioBertForMaskedLM,
        knowledge_encoder: KnowledgeEncoder,
        clips: TrainingClips | None,
        vectors: Tensor,
        config: AudioBertConfig,
        names: TrainingNames | None = None,
    ) -> None:
        super().__init__()
        self.model, self.knowledge_encoder, self.config = model, knowledge_encoder, config
        self.clips, self.vectors, self.names = clips, vectors, names
        self.clips_of_names = torch.from_numpy(
            (np.zeros((0, 2), np.int64) if names is None else names.of_clips)[:, 1].copy()
        )
        self.attributes = torch.from_numpy(clips.attributes) if clips is not None else torch.zeros(0, 0)

    def span_knowledge(self, batch: Batch) -> SpanKnowledge:
        """Return what is injected into a batch; no clip where training has no recordings."""
        if self.config.audio == "none":
            shape = (*batch.scores.shape[:2], 0)
            vectors = batch.scores.new_zeros(*shape, self.knowledge_encoder.hidden_size)
            return SpanKnowledge(batch.inputs.starts, vectors, batch.scores.new_zeros(shape))
        distinct = batch.clips.unique()
        needed = distinct if self.names is None else torch.cat([distinct, self.clips_of_names]).unique()
        knowledge = self.knowledge(needed, torch.searchsorted(needed, distinct), batch.seed)
        vectors = knowledge[torch.searchsorted(needed, batch.clips).to(knowledge.device)]
        if self.names is None:
            return SpanKnowledge(batch.inputs.starts, vectors, batch.scores)
        own = knowledge[torch.searchsorted(needed, self.clips_of_names).to(knowledge.device)]
        relatives = self._relatives(own, batch)
        return SpanKnowledge(batch.inputs.starts, vectors, batch.scores, relatives, batch.name_weights.sum(dim=-1))

    def knowledge(self, clips: Tensor, of_batch: Tensor, seed: int) -> Tensor:
        """Compute knowledge vectors `(clips, hidden_size)` of distinct clip numbers.

        Parameters
        ----------
        of_batch
            Places in `clips` of those that may be encoded anew.
        """
        device = self.knowledge_encoder.outer.weight.device
        vectors = self.vectors[clips].to(device)
        if self.config.model.knowledge.trained_encoder and self.training and self.clips is not None:
            count = self.config.clips_per_step or len(of_batch)
            chosen = of_batch[torch.from_numpy(np.random.default_rng(seed).permutation(len(of_batch))[:count].copy())]
            features = self.clips.features[AUDIO_ENCODER]
            fresh = self.knowledge_encoder.tower.encode_batch([features[int(clips[i])] for i in chosen])
            self.vectors[clips[chosen]] = fresh.detach().to(self.vectors)
            vectors = vectors.index_copy(0, chosen.to(device), fresh)
        return self.knowledge_encoder.project(vectors, self.attributes[clips].to(device))

    def _relatives(self, knowledge: Tensor, batch: Batch) -> Tensor:
        """Compute `(rows, spans, hidden_size)`, weighted sums of the mean knowledge of names.

        Parameters
        ----------
        knowledge
            `(pairs, hidden_size)`, of the clips in the pairs of names and clips.
        """
        assert self.names is not None
        of = torch.from_numpy(self.names.of_clips[:, 0]).to(knowledge.device)
        sums = knowledge.new_zeros(len(self.names.vectors), knowledge.shape[1]).index_add(0, of, knowledge)
        counts = of.bincount(minlength=len(sums)).clamp(min=1)
        means = (sums / counts.unsqueeze(1))[batch.names]  # (rows, spans, names, hidden_size)
        return (batch.name_weights.unsqueeze(-1) * means).sum(dim=2)

    @staticmethod
    def _pair_loss(logits: Tensor, batch: Batch) -> Tensor:
        """Compute the summed logistic loss of the right word of a comparison against the other one."""
        compared = batch.opposites >= 0
        own = logits[compared].float()
        right = own.gather(1, batch.answers[compared].unsqueeze(1))
        wrong = own.gather(1, batch.opposites[compared].unsqueeze(1))
        return functional.softplus(wrong - right).sum()

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a batch and the number of its terms."""
        inputs, answers = batch.inputs, batch.answers
        predicted = inputs.masks
        if self.config.loss_tokens == "all":
            predicted = inputs.attention_mask.bool()
            answers = inputs.input_ids.masked_scatter(inputs.masks, answers)[predicted]
        logits = self.model(inputs.input_ids, inputs.attention_mask, predicted, self.span_knowledge(batch))
        loss = self.model.loss(logits, answers, label_smoothing=self.config.label_smoothing)
        if self.config.pair_weight:
            loss = loss + self.config.pair_weight * self._pair_loss(logits, batch)
        return loss, torch.tensor(float(len(answers)), device=loss.device)
