"""Audio encoders and CLAP at the width of the published models, with few layers and random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    AutoTokenizer,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from audiobert.backbone import Identity
from audiobert.clap_hub import ClapFeatures, HubClap
from audiobert.encoders.encoder import PublishedAudioEncoder
from audiobert.encoders.family import find_family
from auditorybench_toys import roberta
from random_models import million_parameters, random_model
from tiny_models import sound

IDENTITY = Identity("random", "folder:random", None)


@dataclass(frozen=True)
class Published:
    """A published model with one layer, its feature extractor, and the positions that it has for two seconds."""

    model: type[nn.Module]
    config: Any
    extractor: Any
    width: int
    positions: int

    def load(self) -> PublishedAudioEncoder:
        model: Any = random_model(self.model, self.config)
        encoder = model.get_encoder() if self.config.is_encoder_decoder else model
        return PublishedAudioEncoder(encoder, find_family(self.extractor, self.model.__name__), IDENTITY)


def whisper(seconds: int) -> Published:
    config = WhisperConfig(
        d_model=768, encoder_layers=1, decoder_layers=1, encoder_attention_heads=12, encoder_ffn_dim=3072,
        max_source_positions=50 * seconds, vocab_size=4, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=0,
    )  # fmt: skip
    return Published(WhisperModel, config, WhisperFeatureExtractor(chunk_length=seconds), 768, 100)


def ast(frames: int) -> Published:
    config = ASTConfig(num_hidden_layers=1, max_length=frames)
    return Published(ASTModel, config, ASTFeatureExtractor(max_length=frames), 768, 2 + 12 * ((frames - 16) // 10 + 1))


WAV2VEC2 = Published(Wav2Vec2Model, Wav2Vec2Config(num_hidden_layers=1), Wav2Vec2FeatureExtractor(), 768, 99)
HUBERT_LARGE = HubertConfig(
    hidden_size=1024, num_hidden_layers=1, num_attention_heads=16, intermediate_size=4096, feat_extract_norm="layer",
    do_stable_layer_norm=True, conv_bias=True,
)  # fmt: skip
HUBERT = Published(HubertModel, HUBERT_LARGE, Wav2Vec2FeatureExtractor(return_attention_mask=True), 1024, 99)
FAMILIES = {"ast": ast(1024), "whisper": whisper(30), "wav2vec2": WAV2VEC2, "hubert": HUBERT}
SHORT_WINDOWS = {"ast": ast(32), "whisper": whisper(1)}


@pytest.mark.parametrize("name", FAMILIES)
def test_an_encoder_of_real_width_encodes_its_whole_window(name: str) -> None:
    published = FAMILIES[name]
    encoder = published.load()
    family: Any = encoder.features
    clips = [family(sound(seconds, family.rate_hz)) for seconds in (2.0, 0.7)]
    with torch.no_grad():
        states = family.encode(encoder.model, clips)
    assert states[0].shape == (published.positions, published.width)
    vectors = encoder.encode(clips)
    assert vectors.shape == (2, encoder.hidden_size) == (2, published.width)
    torch.testing.assert_close(vectors[0], states[0].mean(dim=0), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_gives_float32_vectors_of_the_same_direction(name: str) -> None:
    """The windows are short: without bfloat16 instructions, a layer takes some ten seconds for Whisper's 30."""
    encoder = (FAMILIES | SHORT_WINDOWS)[name].load()
    clips = [encoder.features(sound(0.1, encoder.features.rate_hz))]
    exact = encoder.encode(clips)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder.encode(clips)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert functional.cosine_similarity(exact, rounded).min() > 0.99


def test_a_step_reaches_all_of_an_ast_but_what_softmax_ignores() -> None:
    encoder = ast(1024).load()
    vector = encoder.encode_batch([encoder.features(sound(2.0, 16_000))])
    (vector @ torch.linspace(-1.0, 1.0, vector.shape[1])).sum().backward()  # a LayerNorm's output has a fixed sum
    reached = {name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    ignored = {name for name, _ in encoder.named_parameters()} - reached
    assert "model.embeddings.patch_embeddings.projection.weight" in reached
    assert all(".key.bias" in name or name.endswith("k_proj.bias") for name in ignored), ignored


def test_published_models_have_their_published_sizes() -> None:
    clap = ClapConfig(audio_config={"enable_fusion": True})
    assert million_parameters(ASTModel, ASTConfig()) == pytest.approx(86.2, abs=0.1)
    assert million_parameters(ClapModel, clap) == pytest.approx(153.5, abs=0.5)


def test_clap_htsat_fused_embeds_texts_and_clips_of_any_length(tmp_path: Path) -> None:
    config = ClapConfig(
        audio_config={"enable_fusion": True, "depths": [1, 1, 1, 1]}, text_config={"num_hidden_layers": 1}
    )
    model: Any = random_model(ClapModel, config)
    features = ClapFeatures.of(ClapFeatureExtractor(), "CLAP")
    clap = HubClap(model, AutoTokenizer.from_pretrained(roberta(tmp_path / "text")), features, IDENTITY)
    short, long = (features(sound(seconds, features.rate_hz)) for seconds in (2.0, 12.0))
    assert (short.shape, long.shape) == ((1001, 64), (4004, 64))
    vectors = clap.embed_audio([short, long])
    assert vectors.shape == (2, clap.clap_dim) == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4
    query = clap.embed_query(["a dog", "a cat meowing"])
    np.testing.assert_allclose(np.linalg.norm(query.clap, axis=1), 1.0, rtol=1e-5)
    assert query.sentence.shape == (2, clap.text_dim) == (2, 512)
