"""Small models, tokenizers and benchmark folders that the tests of the benchmark make on the spot."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

ANIMALS = ["cat", "dog", "cow", "river otter", "guinea pig", "alpaca", "bird", "owl"]
SOUNDS = ["meow", "woof", "moo", "squeak", "wheek", "hum", "chirp", "hoot"]
INSTRUMENTS = ["piccolo", "double bass", "flute", "tuba", "acoustic guitar", "bell"]
TRAIN = [
    (animal, sound, f"{sound.capitalize()} is the sound a [MASK] makes.")
    for animal, sound in zip(ANIMALS, SOUNDS, strict=True)
]
TRAIN += [
    ("bird", "chirp", "A [MASK] makes a chirp in the morning."),
    ("bird", "song", "The song of a [MASK] is a joy."),
]
DEV = [
    ("cat", "purr", "A [MASK] makes a purr."),
    ("river otter", "squeak", "The sound of a [MASK] is a squeak."),
    ("dog", "woof", "Woof is the sound a [MASK] makes."),
    ("Guinea pig", "wheek", "wheek is the sound a [MASK] makes."),
    ("bird", "chirp", "[MASK] can chirp."),
    ("zebra", "bark", "A [MASK] makes a bark."),
]
PITCH = [
    (
        "The sound of a piccolo has a [MASK] pitch than an acoustic guitar.",
        "higher",
        "sound of a piccolo",
        "acoustic guitar",
    ),
    ("A tuba typically has a [MASK] pitch than the sound of a flute.", "lower", "tuba", "sound of a flute"),
    ("The sound of a bell has a [MASK] pitch than a double bass.", "higher", "sound of a bell", "double bass"),
    ("The sound of double bass is [MASK] than the sound of bell", "lower", "double bass", "bell"),
    ("A piccolo has a [MASK] pitch than a tuba.", "higher", "piccolo", "tuba"),
]
CORPUS = [text.replace("[MASK]", word) for word, _, text in TRAIN + DEV]
CORPUS += [text.replace("[MASK]", word) for text, _, _, _ in PITCH for word in ("higher", "lower", "Higher")]
CORPUS += [f"The {word} and the {word.capitalize()}." for word in ANIMALS + INSTRUMENTS]


def _write(path: Path, header: list[str], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def make_benchmark(folder: Path) -> Path:
    """A benchmark folder in the flat layout with train, dev and wiki."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "animal_sound_recognition_train.csv", ["animal", "span", "sentence"], TRAIN)
    for split in ("dev", "wiki"):
        _write(folder / f"animal_sound_recognition_{split}.csv", ["animal", "description", "sentence"], DEV)
    for split in ("train", "dev", "wiki"):
        _write(folder / f"sound_pitch_comparsion_{split}.csv", ["sentence", "answer", "span1", "span2"], PITCH)
    return folder


def _save(folder: Path, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    return folder


def bert(folder: Path, *, whole: tuple[str, ...] = ("higher", "lower")) -> Path:
    """An uncased WordPiece BERT; words in `whole` are one piece, others are cut where training left them."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    vocabulary = tokenizer.get_vocab()
    for word in ("it", "x", *whole):
        vocabulary.setdefault(word, len(vocabulary))
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.decoder = decoders.WordPiece()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    return _save(folder, BertForMaskedLM(config), fast)


def _byte_level(prefix_space: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _train_byte_level(tokenizer: Tokenizer, special: list[str | AddedToken], size: int = 400) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)


def roberta(folder: Path) -> Path:
    """A cased byte-level RoBERTa, whose mask swallows the space before it."""
    tokenizer = _byte_level()
    _train_byte_level(tokenizer, ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        unk_token="<unk>", pad_token="<pad>", mask_token=AddedToken("<mask>", lstrip=True, special=True),
        model_max_length=62,
    )  # fmt: skip
    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    return _save(folder, RobertaForMaskedLM(config), fast)


def modernbert(folder: Path) -> Path:
    """A ModernBERT with a byte-level tokenizer and `[MASK]`."""
    tokenizer = _byte_level()
    mask = AddedToken("[MASK]", lstrip=True, special=True)
    _train_byte_level(tokenizer, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", mask])
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token=AddedToken("[MASK]", lstrip=True, special=True), model_max_length=64,
    )  # fmt: skip
    torch.manual_seed(2)
    config = ModernBertConfig(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=64, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
        initializer_range=0.5, attn_implementation="sdpa", reference_compile=False,
    )  # fmt: skip
    return _save(folder, ModernBertForMaskedLM(config), fast)


def deberta(folder: Path) -> Path:
    """A DeBERTa-v3 with a unigram tokenizer that marks spaces with a low line."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=special, unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    ends = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip
    torch.manual_seed(3)
    config = DebertaV2Config(
        vocab_size=len(fast), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16,
        share_att_key=True, norm_rel_ebd="layer_norm", initializer_range=0.5, type_vocab_size=0,
    )  # fmt: skip
    return _save(folder, DebertaV2ForMaskedLM(config), fast)


def gpt2(folder: Path) -> Path:
    """A causal byte-level GPT-2."""
    tokenizer = _byte_level()
    _train_byte_level(tokenizer, ["<|endoftext|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    torch.manual_seed(4)
    config = GPT2Config(
        vocab_size=len(fast), n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=0, eos_token_id=0,
        initializer_range=0.4,
    )  # fmt: skip
    return _save(folder, GPT2LMHeadModel(config), fast)
