"""`train audiobert`: LoRA, knowledge encoder and injection on both tasks (section II-B3)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from audiobert.adapters import AUDIO, LANGUAGE
from audiobert.artefacts import provenance, sha256_of, whole_file, write_json
from audiobert.bank import build_bank
from audiobert.bank.sources import open_source
from audiobert.clip_encoder import ModelClipEncoder
from audiobert.missing_word import Lexicon, blank_sentence
from audiobert.modeling import AudioBertForMaskedLM, KnowledgeEncoder
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
from audiobert.text_features import ScoredTexts, sentence_vectors
from audiobert.training.audiobert_config import AFTER_TRAINING, EVALUATED, MODEL_FOLDER, AudioBertConfig
from audiobert.training.clips import Spectrograms, encode_clips, kept_array, measured_attributes, read_clips
from audiobert.training.epochs import Epochs
from audiobert.training.loop import ParameterGroup, Recipe, checkpoint_gradients, fit
from audiobert.training.material import Material, read_rows
from audiobert.training.missing_words import MissingWords, answers_of, plain_texts
from audiobert.training.objective import AudioBertObjective, BatchMaker
from audiobert.training.processes import is_main_process, processes
from audiobert.training.questions import OPPOSITE, Question
from audiobert.training.retrieval import Oracle, detected_spans, digest, digest_of_weights, retrieve
from audiobert.training.scores import Asker, accuracies, both_ways, score_questions


def set_hidden_dropout(language_model: nn.Module, hidden: float) -> None:
    """Dropout of the hidden states; none of the attention weights, which on a CPU costs a quarter of a step."""
    for name, module in language_model.named_modules():
        if isinstance(module, nn.Dropout) and "lora_" not in name:
            module.p = 0.0 if name.endswith(".self.dropout") else hidden


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


def new_model(parts: Parts, config: AudioBertConfig, lexicon: Lexicon) -> AudioBertForMaskedLM:
    """The language model with a new LoRA and what injects, compares and joins beside it."""
    parts.language_model.requires_grad_(False)
    parts.adapters.fold(LANGUAGE)
    parts.adapters.add(AUDIO, config.lora())
    parts.adapters.set(AUDIO, train=AUDIO)
    set_hidden_dropout(parts.language_model, config.dropout)
    model = AudioBertForMaskedLM(parts.language_model, replace(config.settings(), lexicon=lexicon.words))
    freeze_unused(model, config)
    return model


def prepare_scorers(
    model: AudioBertForMaskedLM, parts: Parts, config: AudioBertConfig, spans: Tensor, sentences: Tensor
) -> None:
    """Standardise the span scorer and the word scorer over the sentence vectors `(texts, hidden_size)` of the spans and
    sentences that they learn from, and point the comparison at its two words."""
    if model.span_scorer is not None:
        higher, lower = (int(parts.tokenizer.convert_tokens_to_ids(word)) for word in OPPOSITE)  # type: ignore[arg-type]
        model.point(higher, lower)
        model.span_scorer.set_dropout(config.scorer_dropout)
        model.span_scorer.standardise(spans)
    if model.word_scorer is not None:
        model.word_scorer.set_dropout(config.scorer_dropout)
        model.word_scorer.standardise(sentences)


def train_audiobert(
    data: Path,
    out: Path,
    config: AudioBertConfig,
    *,
    parts_from: Path,
    cache: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
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
    models = config.models()
    attention = None if models else "eager"  # mini is small: eager attention is faster in bfloat16 on a CPU
    device = processes().device
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
    span_texts = set[str]().union(*(part.span_texts() for part in material.values()))
    allowed = np.array([config.retrieval == "all-splits" or clip.split not in EVALUATED for clip in clips])
    retrieved = retrieve(parts, spectrograms, span_texts, config.query, config.clips_per_span, cache, allowed)
    if config.audio == "random":
        retrieved = retrieved.random(config.seed, len(clips))
    elif config.audio == "shuffled":
        retrieved = retrieved.shuffled(config.seed)
    elif config.audio == "oracle":
        rows = [row for part in material.values() for row in part.rows]
        retrieved = Oracle(retrieved, rows, clips, allowed, config.seed)

    train = material["train"]
    lexicon = Lexicon(answers_of(train.rows) if config.missing_words else (), parts.tokenizer)
    plain = plain_texts(data / "text") if lexicon.words and config.other_sentences else []
    missing = MissingWords(train.rows, lexicon, plain, config.other_sentences) if lexicon.words else None
    dev, wiki = (material[split].asked(config.asked_spans) for split in ("dev", "wiki"))
    dev_turned = material["dev"].swapped()
    scored_texts = span_texts
    if missing is not None:
        scored_texts = (
            scored_texts | missing.sentences() | blanked([*dev, *wiki, *dev_turned], parts.tokenizer.mask_token)
        )
    texts = text_features(parts, scored_texts, cache) if config.comparison or missing is not None else None

    model = new_model(parts, config, lexicon)
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
    if texts is not None:
        spans = texts.vectors(sorted(train.span_texts()))
        sentences = texts.vectors([one.sentence for one in missing.asked] if missing is not None else [])
        prepare_scorers(model, parts, config, spans, sentences)
    objective = AudioBertObjective(model, encoder, spectrograms, attributes, features, config)
    make_batch = BatchMaker(parts.tokenizer, retrieved, config.clips_per_span, texts)
    ask = Asker(objective, parts, make_batch, lexicon)

    def figures(epoch: int) -> dict[str, float]:
        if (epoch + 1) % config.dev_every and epoch + 1 < config.epochs:
            return {}
        if hears and processes().num_processes > 1:  # this one has heard its own share of the clips alone
            features.copy_(encode_clips(tower, spectrograms))
        found = accuracies(score_questions(dev, ask, parts.tokenizer))
        return {name: round(value, 4) for name, value in found.items()}

    log = fit(
        objective,
        Epochs(train, missing, make_batch, config),
        config.epochs,
        Recipe.of(config, best_by="combined.dev"),
        out,
        settings=config,
        not_compared=AFTER_TRAINING,
        resume=resume,
        overwrite=overwrite,
        description=f"audiobert (audio {config.audio}, seed {config.seed})",
        groups=parameter_groups(model, encoder, config),
        after_epoch=figures,
        buffers={"features": features},
    )
    if not is_main_process():
        return {}
    if hears and config.train_audio_encoder:
        features.copy_(encode_clips(tower, spectrograms))
    results = score_questions(dev, ask, parts.tokenizer) + score_questions(wiki, ask, parts.tokenizer)
    turned = score_questions(dev_turned, ask, parts.tokenizer)
    final = accuracies(results) | {"pitch.dev.both_ways": both_ways(results, turned)}
    with whole_file(out / "predictions.jsonl") as part:
        part.write_text("".join(json.dumps(result) + "\n" for result in results))
    sources = [*sorted((data / "auditorybench").glob("*train*")), *plain, data / "audio" / "clips.csv"]
    record = write_weights(out, parts, model, encoder, config, sources, {"accuracy": final, "log": log})
    if bank:
        kept_clips = {data / "audio" / clip.path for clip, is_allowed in zip(clips, allowed, strict=True) if is_allowed}
        write_model(out, parts, encoder, record, data / "audio" / "clips.csv", kept_clips)
    stderr.print(f"audiobert: {final}; wrote {out}")
    return record


def parameter_groups(
    model: AudioBertForMaskedLM, encoder: KnowledgeEncoder, config: AudioBertConfig
) -> list[ParameterGroup]:
    """Return the parts that learn at another rate than the LoRA."""
    tower = list(encoder.tower.parameters())
    own = [parameter for name, parameter in encoder.named_parameters() if not name.startswith("tower.")]
    groups = [ParameterGroup(tower, config.audio_encoder_rate), ParameterGroup(own, config.knowledge_rate)]
    for scorer, rate in ((model.span_scorer, config.wide_rate), (model.word_scorer, config.wide_words_rate)):
        wide = [parameter for name, parameter in scorer.named_parameters() if "wide" in name] if scorer else []
        groups.append(ParameterGroup(wide, rate))
    return groups


def blanked(questions: Sequence[Question], mask: str) -> set[str]:
    """What the word scorer reads of questions."""
    sentences = (blank_sentence(question.text, mask) for question in questions)
    return {sentence for sentence in sentences if sentence is not None}


def write_weights(
    out: Path,
    parts: Parts,
    model: AudioBertForMaskedLM,
    encoder: KnowledgeEncoder,
    config: AudioBertConfig,
    sources: Sequence[Path],
    figures: dict[str, Any],
) -> dict[str, Any]:
    """Write `audiobert.safetensors` and the record beside it, with the sources' checksums; returns the record."""
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
            injection=model.settings.to_json(),
            data={path.name: sha256_of(path) for path in sources},
            **figures,
            sha256=sha256_of(out / "audiobert.safetensors"),
        )
    )
    write_json(out / "audiobert.json", record)
    return record


def write_model(
    out: Path, parts: Parts, encoder: KnowledgeEncoder, record: dict[str, Any], manifest: Path, clips: set[Path]
) -> None:
    """Put the whole model together in `out/model`, with a bank of those clips of a manifest."""
    write_model_folder(out / MODEL_FOLDER, parts.folders | {"audiobert": out}, parts.models)
    identity = encoder_identity(parts.records | {"audiobert": record})
    encoder_of_clips = ModelClipEncoder(parts.clap, encoder, identity)
    source = open_source(manifest).only(clips)
    build_bank(source, out / MODEL_FOLDER / BANK_FOLDER, encoder_of_clips, keep_audio_root=False)
