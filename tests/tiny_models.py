"""Tiny audio models and CLAPs of each family with random weights, saved as a hub would hand them over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    AutoTokenizer,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from auditorybench_toys import bert, roberta

SPEECH = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": (8, 8),
    "conv_kernel": (10, 8), "conv_stride": (10, 16), "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2, "vocab_size": 12,
}  # fmt: skip


def ast(folder: Path, frames: int = 64) -> Path:
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, max_length=frames
    )
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=frames).save_pretrained(folder)
    return folder


def whisper(folder: Path) -> Path:
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=80, max_source_positions=100, vocab_size=20,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)
    return folder


def _speech(model: torch.nn.Module, folder: Path, *, masked: bool) -> Path:
    model.save_pretrained(folder)  # type: ignore[operator]
    Wav2Vec2FeatureExtractor(return_attention_mask=masked).save_pretrained(folder)
    return folder


def wav2vec2(folder: Path) -> Path:
    """As wav2vec2-base: group norm, trained without an attention mask."""
    torch.manual_seed(0)
    return _speech(Wav2Vec2Model(Wav2Vec2Config(**SPEECH)), folder, masked=False)


def hubert(folder: Path) -> Path:
    """As hubert-large: layer norm, with an attention mask."""
    torch.manual_seed(0)
    config = HubertConfig(**SPEECH, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
    return _speech(HubertModel(config), folder, masked=True)


def wavlm(folder: Path) -> Path:
    torch.manual_seed(0)
    return _speech(WavLMModel(WavLMConfig(**SPEECH, feat_extract_norm="layer")), folder, masked=True)


def data2vec_audio(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Data2VecAudioConfig(**{**SPEECH, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3})
    return _speech(Data2VecAudioModel(config), folder, masked=True)


AUDIO_ENCODERS: dict[str, Callable[[Path], Path]] = {
    "ast": ast, "whisper": whisper, "wav2vec2": wav2vec2, "hubert": hubert, "wavlm": wavlm,
    "data2vec-audio": data2vec_audio,
}  # fmt: skip


def clap(folder: Path, *, fused: bool = True, shard_size: str = "50GB") -> Path:
    """A CLAP whose window is one second; with a small `shard_size` its weights lie in several files."""
    tokenizer = AutoTokenizer.from_pretrained(roberta(folder.parent / f"{folder.name}-text"))
    torch.manual_seed(0)
    config = ClapConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 24, "max_position_embeddings": 66, "projection_dim": 12,
        },
        audio_config={
            "depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 8, "spec_size": 128,
            "num_mel_bins": 64, "window_size": 4, "hidden_size": 16, "projection_dim": 12, "enable_fusion": fused,
            "projection_hidden_size": 16,
        },
        projection_dim=12,
    )  # fmt: skip
    model = ClapModel(config)
    with torch.no_grad():  # nothing is the same for all sounds
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=shard_size)
    extractor = ClapFeatureExtractor(max_length_s=1, truncation="fusion" if fused else "rand_trunc")
    ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def sound(seconds: float, rate_hz: int, frequency_hz: float = 440.0) -> np.ndarray:
    """A falling tone with some noise, `(samples,)` float32."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).normal(size=len(time))
    tone = np.sin(2 * np.pi * frequency_hz * time * (1 - 0.1 * time))
    return (0.4 * tone + 0.02 * noise).astype(np.float32)


def distilbert(folder: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(bert(folder.parent / f"{folder.name}-tokens"))
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=16, n_layers=1, n_heads=2, hidden_dim=24, max_position_embeddings=64
    )
    DistilBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
