"""Settings of `train audiobert`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from audiobert.adapters import ALL_LINEAR, QUERY_KEY_VALUE, LoraSettings
from audiobert.backbone import PRESETS, Published
from audiobert.modeling import InjectionSettings
from audiobert.training.config import TrainingConfig

TASKS = ("animal", "pitch")
EVALUATED = ("dev", "test", "wiki")  # splits of the benchmark that are asked about
AFTER_TRAINING = {"asked_spans"}  # settings of what is asked of the trained model
MODEL_FOLDER = "model"  # below the output folder: all parts side by side and a bank, ready for `--model`


class PublishedConfig(BaseModel):
    """A published model: a hub id or a folder; `revision` is a commit, tag or branch of a hub id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    revision: str | None = None


class AudioBertConfig(TrainingConfig):
    """Settings of `train audiobert`.

    Attributes
    ----------
    swap_share
        Share of the comparisons that are asked the other way round, with the opposite answer.
    answer_noise
        Share of a comparison's target that the opposite word gets: one published answer in eight is wrong (Table I's
        human evaluation), and a model that need not be certain of them learns less by heart.
    passes
        How often the rows of a task are asked in an epoch, where not once: 0.1 asks a tenth of them, anew each time.
    comparison_hears
        See `InjectionSettings`.
    scorer_dropout
        Dropout of the inner layers of span scorer and word scorer, half of it of their inputs, and a third of it of a
        sentence's n-grams.
    audio_encoder_rate, knowledge_rate, wide_rate, wide_words_rate
        Learning rates of the audio encoder, of what makes knowledge vectors of its features, and of the span scorer's
        and the word scorer's wide scores, as multiples of the others'.
    knowledge_length
        Length that no knowledge vector reaches, in mean lengths of a word embedding; by default any.
    knowledge_dropout
        Share of the spans that are asked about in training as if nothing had been retrieved for them.
    comparisons
        How many comparisons each asked sentence brings along for the span scorer to learn from, where `comparison` is
        on.
    missing_words
        How many sentences each asked one brings along for the word scorer to learn from; with 0 there is none.
    other_share, other_sentences
        Share of those that lack any other word, and how many of these are taken of the comparisons and of each plain
        text in `text/`; with 0, of none.
    word_smoothing
        Label smoothing of the word scorer's loss.
    dev_every
        After how many epochs dev is looked at; always after the last.
    language_model, clap, audio_encoder
        Published models (`name`, and `revision` for a hub id) in place of the trained parts of `mini`; `preset` names
        all three.
    detector
        `mini`, or the folder that `train detector` wrote; by default it is looked for with the other parts.
    pooling, projection
        How the audio encoder's states become one vector, and that a knowledge vector.
    loss_tokens
        `mask`: the loss is at the masks alone; `all`: at every token of the sentence, as in the published code.
    retrieval
        `leak-free` leaves out the clips that `clips.csv` says belong to evaluated rows (column `split`: dev, test or
        wiki), in training and in the bank; `all-splits` takes all.
    gradient_checkpointing
        Compute the audio encoder's inner states again on the way back instead of keeping them: less memory, more time.
    """

    preset: Literal["paper-base", "paper-large"] | None = None
    language_model: PublishedConfig | None = None
    clap: PublishedConfig | None = None
    audio_encoder: PublishedConfig | None = None
    detector: str | None = None
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.1
    lora_rank: int = 64
    lora_alpha: int = 128
    lora_dropout: float = 0.01
    lora_targets: Literal["query-key-value", "all-linear"] = "query-key-value"
    injection: Literal["add", "replace"] = "add"
    audio: Literal["retrieved", "none", "random", "shuffled", "oracle"] = "retrieved"
    clips_per_span: int = 4
    gate: bool = True
    attributes: bool = True
    comparison: bool = True
    query: str = "{span}"
    retrieval: Literal["leak-free", "all-splits"] = "leak-free"
    pooling: Literal["mean", "first"] = "mean"
    projection: Literal["mlp", "linear"] = "mlp"
    loss_tokens: Literal["mask", "all"] = "mask"
    train_audio_encoder: bool = True
    audio_encoder_rate: float = 0.3
    knowledge_rate: float = 1.0
    gradient_checkpointing: bool = False
    clips_per_step: int = 12
    swap_share: float = 0.5
    detected_share: float = 0.5
    asked_spans: Literal["detected", "gold"] = "detected"
    label_smoothing: float = 0.0
    answer_noise: float = 0.0
    passes: dict[str, float] = Field(default_factory=dict)
    comparison_hears: bool = False
    comparisons: int = Field(default=6, ge=1)
    scorer_dropout: float = Field(default=0.6, ge=0.0, lt=1.0)
    knowledge_length: float | None = Field(default=None, gt=0.0)
    knowledge_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    wide_rate: float = 30.0
    missing_words: int = Field(default=6, ge=0)
    other_share: float = Field(default=0.15, ge=0.0, lt=1.0)
    other_sentences: int = Field(default=4000, ge=0)
    word_smoothing: float = Field(default=0.05, ge=0.0, lt=1.0)
    wide_words_rate: float = 10.0
    average_from: float = 0.6
    dev_every: int = Field(default=1, ge=1)
    tasks: tuple[str, ...] = TASKS

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.loss_tokens == "all" and (self.comparison or self.answer_noise or self.missing_words):
            raise ValueError(
                "loss_tokens 'all' wants comparison: false, missing_words: 0 and answer_noise: 0, which speak of masks"
                " alone"
            )
        if "{span}" not in self.query:
            raise ValueError("query must have {span} in it, where the words of the span go")
        return self

    def models(self) -> dict[str, Published]:
        """The published models by role; none for `mini`."""
        named = {role: Published(name) for role, name in PRESETS[self.preset].items()} if self.preset else {}
        for role in ("language_model", "clap", "audio_encoder"):
            chosen: PublishedConfig | None = getattr(self, role)
            if chosen:
                named[role] = Published(chosen.name, chosen.revision)
        return named

    def lora(self) -> LoraSettings:
        targets = ALL_LINEAR if self.lora_targets == "all-linear" else QUERY_KEY_VALUE
        return LoraSettings(self.lora_rank, self.lora_alpha, self.lora_dropout, targets)

    def settings(self) -> InjectionSettings:
        return InjectionSettings(
            self.injection, self.clips_per_span, self.gate, self.attributes, self.comparison, self.comparison_hears
        )
