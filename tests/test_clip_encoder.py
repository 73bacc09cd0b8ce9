"""Clips to vectors in both precisions, with randomly initialised towers of mini's size."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from audiobert.audio import SAMPLE_RATE_HZ, measure
from audiobert.clap import ClapModel, ClapProjections
from audiobert.clip_encoder import ModelClipEncoder, Precision
from audiobert.encoders import AudioTower, AudioTowerConfig
from audiobert.features import make_features
from audiobert.knowledge import KnowledgeEncoder, KnowledgeSettings


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def test_it_travels_to_other_processes_without_the_side_that_reads() -> None:
    torch.manual_seed(0)
    config = AudioTowerConfig(layers=1)
    encoder = ModelClipEncoder(
        ClapModel(ClapProjections(config, text_size=8), None, None),  # type: ignore[arg-type]
        KnowledgeEncoder(AudioTower(config), 24, KnowledgeSettings()),
        {"clap": "one"},
    )
    waveform = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    features = [make_features(encoder.makers, {SAMPLE_RATE_HZ: waveform})]
    attributes = [measure(waveform, SAMPLE_RATE_HZ, estimator="none")]
    arrived = pickle.loads(pickle.dumps(encoder))
    assert arrived.identity() == encoder.identity() and arrived.makers == encoder.makers
    for one, other in zip(arrived.encode(features, attributes), encoder.encode(features, attributes), strict=True):
        np.testing.assert_array_equal(one, other)


def test_bf16_gives_nearly_the_vectors_of_fp32_and_unit_norm() -> None:
    torch.manual_seed(0)
    config = AudioTowerConfig()
    clap = ClapModel(ClapProjections(config, text_size=8), None, None)  # type: ignore[arg-type]
    knowledge_encoder = KnowledgeEncoder(AudioTower(config), 24, KnowledgeSettings())
    torch.nn.init.normal_(knowledge_encoder.outer.weight)  # an untrained one gives zeros

    def encoder(precision: Precision) -> ModelClipEncoder:
        made = ModelClipEncoder(clap, knowledge_encoder, {})
        made.precision = precision
        return made

    random = np.random.default_rng(0)
    waveforms = [0.1 * random.standard_normal(length).astype(np.float32) for length in (8_000, 50_000, 90_000)]
    attributes = [measure(one, SAMPLE_RATE_HZ, estimator="none") for one in waveforms]
    features = [make_features(encoder("fp32").makers, {SAMPLE_RATE_HZ: one}) for one in waveforms]
    clap_exact, knowledge_exact = encoder("fp32").encode(features, attributes)
    clap_vectors, knowledge = encoder("bf16").encode(features, attributes)
    assert clap_vectors.dtype == knowledge.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(clap_vectors, axis=1), 1.0, atol=1e-6)
    assert cosines(clap_vectors, clap_exact).min() > 0.999
    assert cosines(knowledge, knowledge_exact).min() > 0.999
    assert (clap_vectors != clap_exact).any()  # it did compute in bf16
