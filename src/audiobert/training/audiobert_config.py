"""Define the settings of `train audiobert`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from audiobert.backbone import PRESETS, Dtype, Published
from audiobert.model_folder import ModelSettings
from audiobert.settings import Settings
from audiobert.training.config import TrainingConfig
from audiobert.training.grounding import GroundingSettings
from audiobert.training.rows import RowSettings

MODEL_FOLDER = "model"  # below the output folder: all parts side by side and a bank, ready for `--model`


class PublishedConfig(Settings):
    """A published model: a hub id or a folder; `revision` is a commit, tag or branch of a hub id."""

    name: str
    revision: str | None = None


class LanguageModelConfig(PublishedConfig):
    """A published language model; `bfloat16` halves its memory, in training and for answering."""

    dtype: Dtype = "float32"


class AudioBertConfig(TrainingConfig):
    """Settings of `train audiobert`.

    Attributes
    ----------
    language_model, clap, audio_encoder
        Published models (`name`, and `revision` for a hub id) in place of the trained parts of `mini`; `preset` names
        all three.
    detector
        `mini`, or the folder that `train detector` wrote; by default it is looked for with the other parts.
    tasks
        Tasks of the benchmark, by name or as paths of YAML files: their `train` rows are learnt from, their other
        splits measured.
    model
        What is trained, and how it answers; saved with the weights.
    rows, grounding
        How the benchmark's rows and the bank's own clips become sentences.
    audio
        `retrieved`; `none`: no recording at all; `random`, `shuffled`: controls that get other clips.
    evaluated_clips
        `leave-out` the clips that `clips.csv` says belong to evaluated rows (column `split`), in training and in the
        bank; `keep` takes all.
    withhold
        Leave the withheld kinds out of training (their clips, and the rows that name them), so that the task `unread`
        measures something.
    audio_encoder_rate, knowledge_rate, injection_rate
        Learning rates of the audio encoder, of the projection to knowledge vectors, and of gate and sharpness, as
        multiples of the LoRA's.
    clips_per_step
        Clips that go through the audio encoder with gradients per step; 0: all of a batch.
    loss_tokens
        `mask`: the loss is at the masks alone; `all`: at every token of the sentence, as in the published code.
    pair_weight
        Weight of a second loss of comparisons: the right word's logit against the other word's alone.
    gradient_checkpointing
        Compute inner states of the audio encoder, and of a causal language model, again on the way back instead of
        keeping them: less memory, more time.
    dev_every
        Epochs between measurements on dev; always after the last.
    measured
        Splits that are measured at the end, and the sounds never read about; none leaves all measuring, that of
        `dev_every` too, to `audiobert evaluate`.
    """

    preset: Literal["paper-base", "paper-large"] | None = None
    language_model: LanguageModelConfig | None = None
    clap: PublishedConfig | None = None
    audio_encoder: PublishedConfig | None = None
    detector: str | None = None
    tasks: tuple[str, ...] = ("animal", "pitch")
    model: ModelSettings = ModelSettings()
    rows: RowSettings = RowSettings()
    grounding: GroundingSettings = GroundingSettings()
    audio: Literal["retrieved", "none", "random", "shuffled"] = "retrieved"
    evaluated_clips: Literal["leave-out", "keep"] = "leave-out"
    withhold: bool = True
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    dropout: float = 0.1
    audio_encoder_rate: float = 0.3
    knowledge_rate: float = 1.0
    injection_rate: float = 1.0
    clips_per_step: int = 12
    gradient_checkpointing: bool = False
    loss_tokens: Literal["mask", "all"] = "mask"
    label_smoothing: float = 0.0
    pair_weight: float = Field(default=0.0, ge=0.0)
    average_from: float = 0.6
    dev_every: int = Field(default=1, ge=1)
    measured: tuple[Literal["dev", "wiki"], ...] = ("dev", "wiki")  # never test, which is measured once, apart

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if "{span}" not in self.model.retrieval.query:
            raise ValueError("model.retrieval.query must have {span} in it, where the words of the span go")
        if self.audio == "none" and self.grounding.of_clips:
            raise ValueError("audio 'none' is a training without recordings; set grounding's sentences of clips to 0")
        if self.keep == "best" and not self.measured:
            raise ValueError("keep 'best' chooses by the figures on dev; give measured: [dev]")
        if self.loss_tokens == "all" and self.pair_weight:
            raise ValueError("loss_tokens 'all' needs pair_weight: 0, which is a loss at masks alone")
        return self

    def models(self) -> dict[str, Published]:
        """Return the published models by role; none for `mini`."""
        named = {role: Published(name) for role, name in PRESETS[self.preset].items()} if self.preset else {}
        for role in ("language_model", "clap", "audio_encoder"):
            chosen: PublishedConfig | None = getattr(self, role)
            if chosen:
                dtype = chosen.dtype if isinstance(chosen, LanguageModelConfig) else "float32"
                named[role] = Published(chosen.name, chosen.revision, dtype=dtype)
        return named
