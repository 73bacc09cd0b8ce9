"""Which word a sentence lacks: the words that were learnt, told from the whole sentence and spelled as a whole."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from audiobert.text_features import NGRAMS, TextFeatures, TextScorer

BLANK = "something"  # stands for the missing word in what the scorer reads
BUCKETS = 1 << 14  # that n-grams of a sentence are hashed into; the one behind the last is for padding


def blank_sentence(text: str, mask: str) -> str | None:
    """The sentence with a word for its blank; None unless it asks for one word, with one mask or several side by side.

    >>> blank_sentence("A [MASK] [MASK] hums.", "[MASK]")
    'A something hums.'
    >>> blank_sentence("A [MASK] and a [MASK].", "[MASK]") is None
    True
    """
    one = re.escape(mask)
    blanks = list(re.finditer(rf"{one}(?:\s*{one})*", text))
    if len(blanks) != 1:
        return None
    return text[: blanks[0].start()] + BLANK + text[blanks[0].end() :]


class Lexicon:
    """Words and their wordpieces, as a tokenizer spells them in the middle of a sentence.

    Parameters
    ----------
    words
        In lower case, distinct.
    """

    def __init__(self, words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        self.words = tuple(words)
        self._index = {word: index for index, word in enumerate(self.words)}
        spelled: dict[int, list[tuple[int, list[int]]]] = {}
        encoded = tokenizer([f" {word}" for word in self.words], add_special_tokens=False)["input_ids"] if words else []
        for index, pieces in enumerate(encoded):
            spelled.setdefault(len(pieces), []).append((index, pieces))
        self._spelled = {
            length: (torch.tensor([i for i, _ in group]), torch.tensor([pieces for _, pieces in group]))
            for length, group in spelled.items()
        }

    def index(self, word: str) -> int:
        """The number of a word in any letter case; that behind the last for one that is not among them."""
        return self._index.get(word.lower(), len(self.words))

    def of_length(self, pieces: int) -> tuple[Tensor, Tensor] | None:
        """Numbers `(n,)` and wordpieces `(n, pieces)` of the words of so many wordpieces; None when there are none."""
        return self._spelled.get(pieces)


class WordScorer(TextScorer):
    """How likely each word of a lexicon, or another word, is in the blank of a sentence, told twice.

    Deep: a perceptron on the sentence vector (of the backbone without any adapter); wide: linear in hashed n-grams,
    of low rank (after Joulin et al., 2017, "Bag of Tricks for Efficient Text Classification"). Each learns from its
    own loss.

    Parameters
    ----------
    words : int
        Size of the lexicon.
    """

    def __init__(
        self,
        hidden_size: int,
        words: int,
        *,
        inner_size: int = 512,
        wide_size: int = 64,
        dropout: float = 0.6,
    ) -> None:
        super().__init__(hidden_size)
        self.rarest = nn.Parameter(torch.tensor(0.0), requires_grad=False)
        self.deep = nn.Sequential(
            nn.Dropout(),
            nn.Linear(hidden_size, inner_size),
            nn.GELU(),
            nn.Dropout(),
            nn.Linear(inner_size, words + 1),
        )
        self.ngram_dropout = 0.0
        self.wide = nn.Embedding(BUCKETS + 1, wide_size, padding_idx=BUCKETS)
        nn.init.normal_(self.wide.weight, std=0.05)
        self.wide.weight.data[BUCKETS] = 0.0
        self.wide_words = nn.Linear(wide_size, words + 1)
        self.set_dropout(dropout)

    def set_dropout(self, dropout: float) -> None:
        """Dropout of the inner layer, half of it of the sentence vector, and a third of it of the n-grams."""
        first, second = (module for module in self.deep if isinstance(module, nn.Dropout))
        first.p, second.p, self.ngram_dropout = dropout / 2, dropout, dropout / 3

    def standardise(self, sentence_vectors: Tensor) -> None:
        """The same, and hold nothing to be rarer than one in so many."""
        super().standardise(sentence_vectors)
        self.rarest.data.fill_(-math.log(len(sentence_vectors)))

    def forward(self, sentences: TextFeatures) -> Tensor:
        """Logits `(sentences, 2, words + 1)`: deep and wide, the last for a word that is not in the lexicon."""
        padding = sentences.ngrams == NGRAMS
        if self.training:
            padding = padding | (torch.rand(padding.shape, device=padding.device) < self.ngram_dropout)
        ngrams = (sentences.ngrams % BUCKETS).masked_fill(padding, BUCKETS)
        summed = self.wide(ngrams).sum(dim=-2) / (~padding).sum(dim=-1, keepdim=True).clamp(min=1).sqrt()
        return torch.stack([self.deep(self.standardised(sentences.sentence_vectors)), self.wide_words(summed)], dim=-2)

    def opinions(self, sentences: TextFeatures) -> Tensor:
        """Log-probabilities `(sentences, 2, words + 1)` of deep and wide, none rarer than what they have learnt from
        could show."""
        return self(sentences).float().log_softmax(dim=-1).clamp(min=float(self.rarest))


def join_rows(
    scorer: WordScorer, lexicon: Lexicon, rows: Mapping[int, Tensor], sentences: Sequence[int], texts: TextFeatures
) -> dict[int, Tensor]:
    """Log-probabilities at the masks of rows, by their numbers, joined with what the scorer says of those among them
    that are `sentences`, which are scored by `texts`."""
    joined = dict(rows)
    if sentences:
        for row, opinions in zip(sentences, scorer.opinions(texts).cpu(), strict=True):
            joined[row] = join(joined[row], opinions, lexicon)
    return joined


def missing_word_loss(logits: Tensor, words: Tensor, smoothing: float = 0.0) -> Tensor:
    """Summed cross entropy of deep and wide logits `(sentences, 2, words + 1)` against word numbers `(sentences,)`."""
    both = words.unsqueeze(-1).expand(logits.shape[:2])
    return functional.cross_entropy(logits.flatten(0, 1), both.flatten(), reduction="sum", label_smoothing=smoothing)


def join(log_probs: Tensor, opinions: Tensor, lexicon: Lexicon) -> Tensor:
    """What the language model and the word scorer together expect at the masks of one word.

    A logarithmic opinion pool (Genest and Zidek, 1986) of three with equal weights, over the words of as many
    wordpieces as there are masks, and "another word". The language model gives a word the product of its pieces'
    probabilities; how "another word" is spelled is for the language model alone to say. What comes back is the
    distribution's marginals at each mask, so that pieces of one word speak for each other.

    Parameters
    ----------
    log_probs : Tensor
        `(masks, vocabulary)`, the language model's.
    opinions : Tensor
        `(2, words + 1)`, log-probabilities of the lexicon's words and of another one (`WordScorer.opinions`).

    Returns
    -------
    Tensor
        Log-probabilities `(masks, vocabulary)` float32.
    """
    spelled = lexicon.of_length(len(log_probs))
    if spelled is None:
        return log_probs.float()
    numbers, pieces = spelled
    masks, tiny = torch.arange(len(log_probs)).expand_as(pieces), torch.finfo(torch.float64).tiny
    alone = log_probs.double()
    words = alone[masks, pieces].sum(dim=-1).exp()  # (n,), the language model's probability of each word
    another = (1.0 - words.sum()).clamp(min=tiny)
    read = torch.cat([words, another[None]]).clamp(min=tiny).log()
    told = torch.cat([opinions[:, numbers], opinions[:, -1:]], dim=-1).double()
    pooled = torch.cat([read[None], told]).mean(dim=0).softmax(dim=0)
    # Words get their pooled share in place of their own, everything else the share of "another word".
    scale = pooled[-1] / another
    gained = (pooled[:-1] - words * scale).unsqueeze(-1).expand(pieces.shape)
    joined = (alone.exp() * scale).index_put_((masks, pieces), gained, accumulate=True)
    return joined.clamp(min=tiny).log().float()
