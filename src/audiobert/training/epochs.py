"""What is asked when: the batches of each epoch of AudioBERT's training, and questions as a batch of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.comparisons import Comparison
from audiobert.training.draws import by_length
from audiobert.training.loop import RowBatches
from audiobert.training.material import Material
from audiobert.training.missing_words import MissingWord, MissingWords
from audiobert.training.objective import Batch, BatchMaker
from audiobert.training.questions import Question

# A question with the comparisons and the sentences without a word that it brings along.
Asked = tuple[Question, tuple[Comparison, ...], tuple[MissingWord, ...]]


@dataclass(frozen=True)
class Epochs:
    """The rows of train, asked anew in each epoch."""

    material: Material
    missing: MissingWords | None
    make_batch: BatchMaker
    config: AudioBertConfig

    def __call__(self, epoch: int) -> RowBatches:
        """The batches of an epoch; the same for the same seed."""
        config = self.config
        random = np.random.default_rng((config.seed, epoch))
        questions = self.material.questions(random, config)
        groups = by_length(questions, [len(q.text) for q in questions], config.batch_size, random, jitter=0.15)
        each = config.comparisons if config.comparison else 0
        comparisons = iter(self.material.comparisons(random, config, each * len(questions)))
        lacking = config.missing_words * len(questions)
        sentences = iter(self.missing.draw(random, lacking, config.other_share) if self.missing is not None else [])
        rows = [
            [(q, tuple(islice(comparisons, each)), tuple(islice(sentences, config.missing_words))) for q in group]
            for group in groups
        ]
        seed = epoch * 1_000_003

        def make(index: int, members: Sequence[Asked]) -> Batch:
            return self.make_batch(
                [question for question, _, _ in members],
                seed + index,
                comparisons=[comparison for _, own, _ in members for comparison in own],
                missing=[word for _, _, own in members for word in own],
            )

        return RowBatches(rows, make)
