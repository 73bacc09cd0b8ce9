"""`train audiobert`: LoRA, knowledge encoder and injection on both tasks (section II-B3)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from audiobert.adapters import ALL_LINEAR, AUDIO, LANGUAGE, QUERY_KEY_VALUE, LoraSettings
from audiobert.artefacts import provenance, sha256_of, whole_file, write_json
from audiobert.audio import load_audio, measure
from audiobert.audio_encoder import AudioEncoder
from audiobert.auditorybench.data import Row, load_split
from audiobert.backbone import PRESETS, Published
from audiobert.bank import build_bank
from audiobert.bank.sources import open_source
from audiobert.clip_encoder import ModelClipEncoder
from audiobert.comparison import comparison_loss
from audiobert.inputs import Inputs, Offsets, encode_texts
from audiobert.missing_word import Lexicon, blank_sentence, join_rows, missing_word_loss
from audiobert.modeling import AudioBertForMaskedLM, Injection, InjectionSettings, KnowledgeEncoder, attribute_features
from audiobert.parts import (
    BANK_FOLDER,
    Parts,
    encoder_identity,
    load_parts,
    new_audio_encoder,
    new_knowledge_encoder,
    trained_knowledge,
    write_model_folder,
)
from audiobert.progress import stderr, track
from audiobert.text_features import ScoredTexts, TextFeatures, sentence_vectors
from audiobert.training.clips import MAX_SECONDS, Spectrograms, TrainingClip, kept_array, read_clips
from audiobert.training.comparisons import Comparison, ComparisonBatch, make_comparison_batch
from audiobert.training.config import TrainingConfig
from audiobert.training.loop import Recipe, RowBatches, checkpoint_gradients, fit
from audiobert.training.missing_words import (
    MissingWord,
    MissingWordBatch,
    MissingWords,
    answers_of,
    make_missing_word_batch,
    plain_texts,
)
from audiobert.training.processes import is_main_process, processes
from audiobert.training.questions import MASK, OPPOSITE, Question, can_swap, make_question
from audiobert.training.retrieval import Retrieved, detected_spans, digest, digest_of_weights, oracle, retrieve
from audiobert.training.scores import accuracies, score_questions

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


def read_rows(folder: Path, tasks: Sequence[str], split: str) -> list[Row]:
    """The rows of a split of several tasks; a few published sentences have two masks and are left out."""
    return [row for task in tasks for row in load_split(folder, task, split) if row.text.count(MASK) == 1]


# A question with the comparisons and the sentences without a word that it brings along.
Asked = tuple[Question, tuple[Comparison, ...], tuple[MissingWord, ...]]


class Material:
    """Rows with gold and detected spans, and the clips that CLAP retrieves for them."""

    def __init__(self, rows: list[Row], parts: Parts, detected: Sequence[Sequence[Offsets]]) -> None:
        self.rows, self.tokenizer = rows, parts.tokenizer
        self.gold = [tuple(o for o in row.span_offsets if o is not None) for row in rows]
        self.detected = [tuple(spans) for spans in detected]

    def questions(self, random: np.random.Generator, config: AudioBertConfig) -> list[Question]:
        """The questions of one epoch: gold or detected spans, comparisons either way round."""
        questions = []
        for index in self._asked(random, config):
            row, gold, detected = self.rows[index], self.gold[index], self.detected[index]
            spans = detected if detected and (not gold or random.random() < config.detected_share) else gold
            swap = random.random() < config.swap_share and can_swap(row, spans)
            if spans:
                questions.append(make_question(self.tokenizer, row, spans, swap=swap))
        return questions

    def _asked(self, random: np.random.Generator, config: AudioBertConfig) -> list[int]:
        """Which rows are asked in an epoch, each as often as its task's passes say."""
        chosen: list[int] = []
        for task in dict.fromkeys(row.task for row in self.rows):
            own = [index for index, row in enumerate(self.rows) if row.task == task]
            whole, part = divmod(config.passes.get(task, 1.0), 1.0)
            chosen += own * int(whole) + sorted(random.choice(own, size=round(part * len(own)), replace=False).tolist())
        return chosen

    def comparisons(self, random: np.random.Generator, config: AudioBertConfig, count: int) -> list[Comparison]:
        """So many comparisons by gold or detected spans, in passes over the rows in random order."""
        can = []
        for row, gold, detected in zip(self.rows, self.gold, self.detected, strict=True):
            either = [spans for spans in (gold, detected) if len(spans) == 2]
            if row.answer.lower() in OPPOSITE and either:
                higher = row.answer.lower() == "higher"
                can.append([Comparison(row.text[a:b], row.text[c:d], higher) for (a, b), (c, d) in either])
        if not can or not count:
            return []
        order = np.concatenate([random.permutation(len(can)) for _ in range(-(-count // len(can)))])[:count]
        spans = random.random(count) < config.detected_share
        return [can[i][-1 if detected else 0] for i, detected in zip(order, spans, strict=True)]

    def asked(self, spans: str = "detected") -> list[Question]:
        """The questions as a user's model is asked them: detected spans, none where none was found; or gold ones."""
        chosen = self.detected if spans == "detected" else self.gold
        return [make_question(self.tokenizer, row, own) for row, own in zip(self.rows, chosen, strict=True)]

    def swapped(self) -> list[Question]:
        """The comparisons among the rows with their gold spans exchanged and the answer turned round."""
        return [
            make_question(self.tokenizer, row, spans, swap=True)
            for row, spans in zip(self.rows, self.gold, strict=True)
            if can_swap(row, spans)
        ]

    def answers_by_span(self) -> dict[str, str]:
        """Every text that is looked up, in lower case, and the answer of a row that it stands in."""
        return {
            row.text[start:end].lower(): row.answer
            for row, *both in zip(self.rows, self.gold, self.detected, strict=True)
            for spans in both
            for start, end in spans
        }


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
            fresh = tower.hear([self.spectrograms[int(distinct[i])] for i in chosen])
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


def make_batch(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    retrieved: Retrieved,
    clips_per_span: int,
    seed: int,
    texts: ScoredTexts | None = None,
    comparisons: Sequence[Comparison] = (),
    missing: Sequence[MissingWord] = (),
) -> Batch:
    """Questions as tensors, with their clips; with `texts` also what spans and sentences are scored by."""
    inputs = encode_texts(tokenizer, [q.text for q in questions], [q.spans for q in questions])
    width = inputs.starts.shape[1]
    pairs = [retrieved.of(q, width, clips_per_span) for q in questions]
    pair = {word: int(tokenizer.convert_tokens_to_ids(word)) for word in OPPOSITE}  # type: ignore[arg-type]
    opposite = {pair[word]: pair[other] for word, other in OPPOSITE.items()}
    answers = torch.tensor([i for q in questions for i in q.answer_ids])
    opposites = torch.tensor([opposite.get(i, i) for i in answers.tolist()])
    clips = torch.from_numpy(np.stack([indices for indices, _ in pairs]))
    scores = torch.from_numpy(np.stack([scores for _, scores in pairs]))
    if (there := inputs.starts >= 0).any():
        clips[~there] = clips[there][0]  # what pads costs no clip of its own
    batch = Batch(inputs, answers, opposites, clips, scores, seed)
    if texts is not None:
        batch.words = texts.of([q.span_texts for q in questions])
        if comparisons:
            batch.comparisons = make_comparison_batch(comparisons, texts, retrieved, clips_per_span)
        if missing:
            batch.missing = make_missing_word_batch(missing, texts)
    return batch


def by_length(questions: Sequence[Question], batch_size: int, random: np.random.Generator) -> list[list[Question]]:
    """Questions in batches of about equal length, the batches in random order."""
    lengths = np.array([len(q.text) for q in questions]) * random.uniform(0.85, 1.15, len(questions))
    order = np.argsort(lengths, kind="stable")
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [[questions[i] for i in groups[g]] for g in random.permutation(len(groups))]


def set_dropout(language_model: nn.Module, hidden: float) -> None:
    """Dropout of the hidden states; none of the attention weights, which on a CPU costs a quarter of a step."""
    for name, module in language_model.named_modules():
        if isinstance(module, nn.Dropout) and "lora_" not in name:
            module.p = 0.0 if name.endswith(".self.dropout") else hidden


def measured_attributes(folder: Path, clips: list[TrainingClip], cache: Path) -> np.ndarray:
    """Attribute features `(clips, 7)` of all clips, measured once and kept in a file."""

    def measured() -> np.ndarray:
        waveforms = (load_audio(folder / clip.path, max_seconds=MAX_SECONDS) for clip in clips)
        return attribute_features([measure(w, 16_000) for w in track(waveforms, "attributes", total=len(clips))])

    return kept_array(cache / f"attributes-{sha256_of(folder / 'clips.csv')[:16]}.npy", measured)


def text_features(parts: Parts, texts: Iterable[str], cache: Path) -> ScoredTexts:
    """What every text is scored by; the sentence vectors are worked out once and kept in a file."""
    names = sorted({text.lower() for text in texts})
    encoder = parts.language_model.base_model.eval()

    def vectors() -> np.ndarray:
        chunks = [names[start : start + 2048] for start in range(0, len(names), 2048)]
        with parts.adapters.on():
            found = [sentence_vectors(encoder, parts.tokenizer, c) for c in track(chunks, "sentence vectors")]
        return torch.cat(found).numpy()

    key = digest([*parts.identity.sha256.values(), *names])
    return ScoredTexts(names, torch.from_numpy(kept_array(cache / f"sentences-{key}.npy", vectors)))


def freeze_unused(model: AudioBertForMaskedLM, config: AudioBertConfig) -> None:
    """Take the parameters that these settings leave out of the sum out of the training, too."""
    unused = {
        "score_sharpness": config.clips_per_span == 1,
        "gate_": not config.gate,
    }
    for name, parameter in model.own_parameters().items():
        if any(name.startswith(prefix) and left_out for prefix, left_out in unused.items()):
            parameter.requires_grad_(False)


def encode_clips(tower: AudioEncoder, spectrograms: Spectrograms, *, batch_size: int = 64) -> Tensor:
    """The audio encoder's features `(clips, width)` of all clips, without gradients, in the host's memory."""
    tower.eval()
    starts = range(0, len(spectrograms), batch_size)
    members = (range(start, min(start + batch_size, len(spectrograms))) for start in starts)
    return torch.cat([tower.encode([spectrograms[i] for i in indices]).cpu() for indices in members])


def train_audiobert(
    data: Path,
    out: Path,
    config: AudioBertConfig,
    *,
    parts_from: Path,
    cache: Path | None = None,
    resume: bool = False,
    bank: bool = True,
) -> dict[str, Any]:
    """Train AudioBERT; write `audiobert.safetensors` and its JSON.

    Parameters
    ----------
    data : Path
        A folder with `auditorybench/` and `audio/` (with `clips.csv`).
    parts_from : Path
        A folder with the trained language model, detector and CLAP, each in it or in a folder of its own below it.
    cache : Path, optional
        Spectrograms and what was looked up; by default a folder beside `out`.
    bank : bool
        Put a whole model with a bank together, too.

    Returns
    -------
    dict
        The record beside the weights (in the main process). `out/model` is the whole model with a bank of the clips in
        `data/audio`.
    """
    device = processes().device
    models = config.models()
    attention = None if models else "eager"  # mini is small: eager attention is faster in bfloat16 on a CPU
    parts = load_parts(parts_from, models=models, detector=config.detector, attention=attention, device=device)
    torch.manual_seed(config.seed)
    tower = new_audio_encoder(parts, pooling=config.pooling, attention=attention)
    clips = read_clips(data / "audio")
    cache = cache or out.parent / "cache"
    spectrograms = Spectrograms(data / "audio", clips, cache, tower.features)
    attributes = torch.from_numpy(measured_attributes(data / "audio", clips, cache))

    material = {
        split: Material(rows, parts, detected_spans(parts, rows, cache))
        for split in ("train", "dev", "wiki")
        for rows in [read_rows(data / "auditorybench", config.tasks, split)]
    }
    answers = {text: answer for part in material.values() for text, answer in part.answers_by_span().items()}
    allowed = np.array([config.retrieval == "all-splits" or clip.split not in EVALUATED for clip in clips])
    retrieved = retrieve(parts, spectrograms, set(answers), config.query, config.clips_per_span, cache, allowed)
    if config.audio == "random":
        retrieved = retrieved.random(config.seed, len(clips))
    elif config.audio == "shuffled":
        retrieved = retrieved.shuffled(config.seed)
    elif config.audio == "oracle":
        retrieved = oracle(retrieved, answers, clips, config.seed)

    mask = parts.tokenizer.mask_token
    lexicon = Lexicon(answers_of(material["train"].rows) if config.missing_words else (), parts.tokenizer)
    plain = plain_texts(data / "text") if lexicon.words and config.other_sentences else []
    missing = MissingWords(material["train"].rows, lexicon, plain, config.other_sentences) if lexicon.words else None
    dev_questions, wiki_questions = (material[split].asked(config.asked_spans) for split in ("dev", "wiki"))
    turned_questions = material["dev"].swapped()
    scored_texts = set(answers)
    if missing is not None:
        asked = (blank_sentence(q.text, mask) for q in (*dev_questions, *wiki_questions, *turned_questions))
        scored_texts |= missing.sentences() | {sentence for sentence in asked if sentence is not None}
    texts = text_features(parts, scored_texts, cache) if config.comparison or missing is not None else None
    parts.language_model.requires_grad_(False)
    parts.adapters.fold(LANGUAGE)
    parts.adapters.add(AUDIO, config.lora())
    parts.adapters.set(AUDIO, train=AUDIO)
    set_dropout(parts.language_model, config.dropout)
    settings = replace(config.settings(), lexicon=lexicon.words)
    model = AudioBertForMaskedLM(parts.language_model, settings)
    freeze_unused(model, config)
    encoder = new_knowledge_encoder(parts, tower, config.model_dump())
    tower.requires_grad_(config.train_audio_encoder)
    if config.gradient_checkpointing:
        checkpoint_gradients(tower)
    hears = config.audio != "none"
    features = torch.zeros(len(clips), 1)
    if hears:
        heard_by = digest_of_weights(tower)
        kept = cache / f"features-{digest([heard_by, spectrograms.frames_path.name, config.pooling])}.npy"
        encoded = kept_array(kept, lambda: encode_clips(tower.to(device), spectrograms).float().numpy())
        features = torch.from_numpy(encoded)
    if texts is not None and model.span_scorer is not None:
        higher, lower = (int(parts.tokenizer.convert_tokens_to_ids(word)) for word in OPPOSITE)  # type: ignore[arg-type]
        model.point(higher, lower)
        model.span_scorer.set_dropout(config.scorer_dropout)
        model.span_scorer.standardise(texts.vectors(sorted(material["train"].answers_by_span())))
    if missing is not None and texts is not None and model.word_scorer is not None:
        model.word_scorer.set_dropout(config.scorer_dropout)
        model.word_scorer.learn_from(texts.vectors([one.sentence for one in missing.asked]))
    objective = AudioBertObjective(model, encoder, spectrograms, attributes, features, config)

    def batches(epoch: int) -> RowBatches:
        random = np.random.default_rng((config.seed, epoch))
        groups = by_length(material["train"].questions(random, config), config.batch_size, random)
        each = config.comparisons if config.comparison else 0
        beside = material["train"].comparisons(random, config, each * sum(len(group) for group in groups))
        drawn = iter(beside)
        lacking = config.missing_words * sum(len(group) for group in groups)
        sentences = iter(missing.draw(random, lacking, config.other_share) if missing is not None else [])
        rows = [
            [(q, tuple(islice(drawn, each)), tuple(islice(sentences, config.missing_words))) for q in group]
            for group in groups
        ]
        seed = epoch * 1_000_003

        def make(i: int, members: Sequence[Asked]) -> Batch:
            questions = [question for question, _, _ in members]
            comparisons = [comparison for _, own, _ in members for comparison in own]
            words = [word for _, _, own in members for word in own]
            return make_batch(
                parts.tokenizer, questions, retrieved, config.clips_per_span, seed + i, texts, comparisons, words
            )

        return RowBatches(rows, make)

    def ask(questions: Sequence[Question]) -> Tensor:
        batch = make_batch(parts.tokenizer, questions, retrieved, config.clips_per_span, 0, texts).to(device)
        auditory = bool(questions[0].spans)
        bf16 = torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")
        with parts.adapters.on(*((AUDIO,) if auditory else ())), bf16:
            injection = objective.injection(batch) if auditory else None
            logits = model(batch.inputs.input_ids, batch.inputs.attention_mask, batch.inputs.masks, injection)
        if not auditory or model.word_scorer is None or texts is None:
            return logits
        rows = logits.float().log_softmax(dim=-1).cpu().split([len(q.answer_ids) for q in questions])
        blanks = [(row, s) for row, q in enumerate(questions) if (s := blank_sentence(q.text, mask)) is not None]
        which, sentences = [row for row, _ in blanks], texts.of_texts([sentence for _, sentence in blanks])
        return torch.cat(join_rows(model.word_scorer, lexicon, rows, which, sentences.to(device)))

    def scored(questions: Sequence[Question]) -> list[dict[str, Any]]:
        objective.to(device).eval()
        return score_questions(questions, ask, parts.tokenizer)

    def figures(epoch: int) -> dict[str, float]:
        if (epoch + 1) % config.dev_every and epoch + 1 < config.epochs:
            return {}
        if hears and processes().num_processes > 1:  # this one has heard its own share of the clips alone
            features.copy_(encode_clips(tower, spectrograms))
        return {name: round(value, 4) for name, value in accuracies(scored(dev_questions)).items()}

    log = fit(
        objective,
        batches,
        config.epochs,
        Recipe.of(config, best_by="combined.dev"),
        out,
        settings=config.model_dump(mode="json", exclude=AFTER_TRAINING),
        resume=resume,
        description=f"audiobert (audio {config.audio}, seed {config.seed})",
        groups={
            "knowledge_encoder.tower.": config.audio_encoder_rate,
            "knowledge_encoder.": config.knowledge_rate,
            "model.span_scorer.wide.": config.wide_rate,
            "model.word_scorer.wide": config.wide_words_rate,
        },
        after_epoch=figures,
        buffers={"features": features},
    )
    if not is_main_process():
        return {}
    if hears and config.train_audio_encoder:
        features.copy_(encode_clips(tower, spectrograms))
    results = scored(dev_questions) + scored(wiki_questions)
    turned = scored(turned_questions)
    final = accuracies(results)
    right = {(r["task"], r["row"]) for r in results if r["split"] == "dev" and r["correct"]}
    both = [r["correct"] and (r["task"], r["row"]) in right for r in turned]
    final["pitch.dev.both_ways"] = float(np.mean(both)) if both else 0.0
    with whole_file(out / "predictions.jsonl") as part:
        part.write_text("".join(json.dumps(result) + "\n" for result in results))
    weights = {f"lora.{key}": value for key, value in parts.adapters.state(AUDIO).items()}
    weights |= {f"model.{key}": value.detach().half().contiguous() for key, value in model.own_parameters().items()}
    knowledge = trained_knowledge(encoder, config.model_dump())
    weights |= {f"knowledge.{key}": value.detach().half().contiguous() for key, value in knowledge.items()}
    with whole_file(out / "audiobert.safetensors") as part:
        save_file(weights, part)
    record = dict(
        provenance(
            part="audiobert",
            made_with={name: record["sha256"] for name, record in parts.records.items()},
            backbone=parts.identity.to_json(),
            models={role: asdict(published) for role, published in parts.models.items()},
            settings=config.model_dump(mode="json"),
            lora=config.lora().to_json(),
            injection=settings.to_json(),
            data={p.name: sha256_of(p) for p in [*sorted((data / "auditorybench").glob("*train*")), *plain]}
            | {"clips.csv": sha256_of(data / "audio" / "clips.csv")},
            accuracy=final,
            log=log,
            sha256=sha256_of(out / "audiobert.safetensors"),
        )
    )
    write_json(out / "audiobert.json", record)
    if bank:
        write_model_folder(out / MODEL_FOLDER, parts.folders | {"audiobert": out}, parts.models)
        encoder_of_clips = ModelClipEncoder(
            parts.clap, encoder, encoder_identity(parts.records | {"audiobert": record})
        )
        kept_clips = {data / "audio" / clip.path for clip, is_allowed in zip(clips, allowed, strict=True) if is_allowed}
        source = open_source(data / "audio" / "clips.csv").only(kept_clips)
        build_bank(source, out / MODEL_FOLDER / BANK_FOLDER, encoder_of_clips, keep_audio_root=False)
    stderr.print(f"audiobert: {final}; wrote {out}")
    return record
