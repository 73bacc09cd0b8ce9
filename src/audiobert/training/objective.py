"""What AudioBERT is trained for: a batch of questions as tensors, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from audiobert.comparison import comparison_loss
from audiobert.inputs import Inputs, encode_texts
from audiobert.missing_word import missing_word_loss
from audiobert.modeling import AudioBertForMaskedLM, Injection, KnowledgeEncoder
from audiobert.text_features import ScoredTexts, TextFeatures
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.clips import Spectrograms
from audiobert.training.comparisons import Comparison, ComparisonBatch, make_comparison_batch
from audiobert.training.missing_words import MissingWord, MissingWordBatch, make_missing_word_batch
from audiobert.training.questions import OPPOSITE, Question
from audiobert.training.retrieval import Retrieved


@dataclass
class Batch:
    """Inputs with the answers' ids at the masks and those of their opposites, each `(masks,)`, and the retrieved clips
    `(rows, spans, clips)`; what has no opposite is its own."""

    inputs: Inputs
    answers: Tensor
    opposites: Tensor
    clips: Tensor
    scores: Tensor
    seed: int
    words: TextFeatures | None = None
    comparisons: ComparisonBatch | None = None
    missing: MissingWordBatch | None = None

    def to(self, device: torch.device | str) -> Batch:
        """What the model computes with; the clips' numbers stay where the clips are."""
        moved = {name: getattr(self, name).to(device) for name in ("answers", "opposites", "scores")}
        for name in ("words", "comparisons", "missing"):
            if (own := getattr(self, name)) is not None:
                moved[name] = own.to(device)
        return replace(self, inputs=self.inputs.to(device), **moved)


@dataclass(frozen=True)
class BatchMaker:
    """Questions as tensors, with the clips that were retrieved for their spans; with `texts` also what spans and
    sentences are scored by."""

    tokenizer: PreTrainedTokenizerBase
    retrieved: Retrieved
    clips_per_span: int
    texts: ScoredTexts | None = None

    def __call__(
        self,
        questions: Sequence[Question],
        seed: int = 0,
        comparisons: Sequence[Comparison] = (),
        missing: Sequence[MissingWord] = (),
    ) -> Batch:
        inputs = encode_texts(self.tokenizer, [q.text for q in questions], [q.spans for q in questions])
        width = inputs.starts.shape[1]
        pairs = [self.retrieved.of(q, width, self.clips_per_span) for q in questions]
        pair = {word: int(self.tokenizer.convert_tokens_to_ids(word)) for word in OPPOSITE}  # type: ignore[arg-type]
        opposite = {pair[word]: pair[other] for word, other in OPPOSITE.items()}
        answers = torch.tensor([i for q in questions for i in q.answer_ids])
        opposites = torch.tensor([opposite.get(i, i) for i in answers.tolist()])
        clips = torch.from_numpy(np.stack([indices for indices, _ in pairs]))
        scores = torch.from_numpy(np.stack([scores for _, scores in pairs]))
        if (there := inputs.starts >= 0).any():
            clips[~there] = clips[there][0]  # what pads costs no clip of its own
        batch = Batch(inputs, answers, opposites, clips, scores, seed)
        if self.texts is not None:
            batch.words = self.texts.of([q.span_texts for q in questions])
            if comparisons:
                batch.comparisons = make_comparison_batch(comparisons, self.texts, self.retrieved, self.clips_per_span)
            if missing:
                batch.missing = make_missing_word_batch(missing, self.texts)
        return batch


class AudioBertObjective(nn.Module):
    """Summed cross entropy at the masks, and the span scorer's and the word scorer's of what comes along for them.

    The audio encoder's features of all clips are cached; each step encodes some of its batch's distinct clips anew,
    with gradients, and the rest takes the cached features, which are at most about an epoch old. `clips_per_step=0`
    encodes every distinct clip of the batch.
    """

    def __init__(
        self,
        model: AudioBertForMaskedLM,
        knowledge_encoder: KnowledgeEncoder,
        spectrograms: Spectrograms | None,
        attributes: Tensor,
        features: Tensor,
        config: AudioBertConfig,
    ) -> None:
        super().__init__()
        self.model, self.knowledge_encoder, self.config = model, knowledge_encoder, config
        self.spectrograms = spectrograms
        self.attributes, self.features = attributes, features
        self.prior = nn.Parameter(torch.zeros(2), requires_grad=config.comparison)

    def knowledge(self, clips: Tensor, seed: int) -> Tensor:
        """Knowledge vectors `(rows, spans, clips, hidden_size)` of clip indices."""
        device = self.knowledge_encoder.outer.weight.device
        distinct, where = clips.unique(return_inverse=True)
        features = self.features[distinct].to(device)
        if self.config.train_audio_encoder and self.training and self.spectrograms is not None:
            count = self.config.clips_per_step or len(distinct)
            chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(distinct))[:count].copy())
            tower = self.knowledge_encoder.tower
            fresh = tower.encode_batch([self.spectrograms[int(distinct[i])] for i in chosen])
            self.features[distinct[chosen]] = fresh.detach().to(self.features)
            features = features.index_copy(0, chosen.to(device), fresh)
        return self.knowledge_encoder.project(features, self.attributes[distinct].to(device))[where.to(device)]

    def injection(self, batch: Batch) -> Injection:
        """What goes into the batch's sentences."""
        if self.config.audio == "none":
            return Injection(batch.inputs.starts, batch.inputs.ends, words=batch.words)
        knowledge = self.knowledge(batch.clips, batch.seed)
        if self.training and self.config.knowledge_dropout:
            heard = torch.rand(*batch.clips.shape[:2], 1, 1, device=knowledge.device) >= self.config.knowledge_dropout
            knowledge = knowledge * heard
        return Injection(batch.inputs.starts, batch.inputs.ends, knowledge, batch.scores, batch.words)

    def comparison_loss(self, batch: ComparisonBatch, seed: int) -> Tensor:
        """Summed loss of the span scorer."""
        knowledge = None
        if self.config.audio != "none" and self.config.comparison_hears:
            heard = Injection(batch.clips, batch.clips, self.knowledge(batch.clips, seed), batch.scores)
            knowledge = self.model.pooled_knowledge(heard)
        scores = self.model.span_scores(batch.words, knowledge).float()
        return comparison_loss(scores[:, 0], scores[:, 1], self.prior, batch.higher, self.config.answer_noise)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs = batch.inputs
        predicted, answers, opposites = inputs.masks, batch.answers, batch.opposites
        if self.config.loss_tokens == "all":
            predicted = inputs.attention_mask.bool()
            answers = opposites = inputs.input_ids.masked_scatter(inputs.masks, batch.answers)[predicted]
        logits = self.model(inputs.input_ids, inputs.attention_mask, predicted, self.injection(batch)).float()
        smoothing, noise = self.config.label_smoothing, self.config.answer_noise
        loss = functional.cross_entropy(logits, answers, reduction="sum", label_smoothing=smoothing)
        if noise:
            opposite = functional.cross_entropy(logits, opposites, reduction="sum", label_smoothing=smoothing)
            loss = torch.lerp(loss, opposite, noise)
        if batch.comparisons is not None:
            loss = loss + self.comparison_loss(batch.comparisons, batch.seed) / self.config.comparisons
        if batch.missing is not None and self.model.word_scorer is not None:
            scores = self.model.word_scorer(batch.missing.sentences).float()
            told = missing_word_loss(scores, batch.missing.words, self.config.word_smoothing)
            loss = loss + told / self.config.missing_words
        return loss, torch.tensor(float(len(answers)), device=loss.device)
