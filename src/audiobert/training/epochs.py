"""Draw the batches of each epoch of AudioBERT's training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.batches import BatchMaker
from audiobert.training.captions import Captions, ClipCaptions
from audiobert.training.draws import by_length
from audiobert.training.grounding import Grounding
from audiobert.training.lookup import Lookup
from audiobert.training.loop import RowBatches
from audiobert.training.rows import Find, TrainRows


@dataclass(frozen=True)
class Epochs:
    """All rows and as many grounding sentences as the settings say, drawn anew in each epoch.

    `find` gives the clips of the rows' spans (a control gives others); `lookup` those of grounding's. `past` epochs of
    the same seed were drawn in an earlier training.
    """

    rows: Sequence[TrainRows]
    grounding: Grounding
    captions: Captions
    clip_captions: ClipCaptions
    find: Find
    lookup: Lookup
    make_batch: BatchMaker
    config: AudioBertConfig
    past: int = 0

    def __call__(self, epoch: int) -> RowBatches:
        """Return the batches of an epoch; the same for the same seed."""
        config = self.config
        epoch += self.past
        random = np.random.default_rng((config.seed, epoch))
        examples = [one for task in self.rows for one in task.examples(random, config.rows, self.find, self.lookup)]
        examples += self.grounding.examples(random)
        examples += self.captions.examples(config.grounding.captions, random, self.lookup)
        examples += self.clip_captions.examples(config.grounding.clip_captions, random, self.lookup)
        lengths = [len(one.text) for one in examples]
        # Prompts that begin with the same instruction share its pass through a causal model.
        instructions = [one.text.partition("\n")[0] for one in examples] if self.make_batch.causal else None
        groups = by_length(examples, lengths, config.batch_size, random, jitter=0.15, kinds=instructions)
        first = (config.seed << 32) + epoch * 1_000_003
        return RowBatches(groups, lambda index, members: self.make_batch(members, first + index))
