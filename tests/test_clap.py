"""CLAP: the loss and the projections that are trained here, queries of both CLAPs, and published CLAPs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, AutoTokenizer
from transformers import ClapModel as TransformersClap

from audiobert.artefacts import read_json
from audiobert.clap import MAX_QUERY_TOKENS, ClapModel, ClapProjections, contrastive_loss
from audiobert.clap_hub import Clap, load_clap
from audiobert.encoders import AudioTowerConfig
from audiobert.errors import InputError
from audiobert.model_folder import PRETRAINED
from auditorybench_toys import bert
from tiny_models import clap, sound

TOWER = AudioTowerConfig(window_frames=32, max_windows=3, hidden_size=12, layers=1, heads=2)


def test_the_loss_is_equations_1_to_3() -> None:
    torch.manual_seed(0)
    audio, text = (torch.nn.functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    temperature = torch.tensor(0.2)
    cosine = audio @ text.T / temperature
    of_audio = -torch.stack([cosine[i, i] - cosine[i].exp().sum().log() for i in range(5)]).mean()
    of_text = -torch.stack([cosine[i, i] - cosine[:, i].exp().sum().log() for i in range(5)]).mean()
    torch.testing.assert_close(contrastive_loss(audio, text, temperature), (of_audio + of_text) / 2)


def test_matched_pairs_cost_less_than_mismatched_ones() -> None:
    vectors = torch.eye(6)
    matched = contrastive_loss(vectors, vectors, torch.tensor(0.1))
    assert matched < contrastive_loss(vectors, vectors.roll(1, 0), torch.tensor(0.1))


def test_vectors_have_unit_norm_and_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    projections = ClapProjections(TOWER, text_size=10, clap_dim=6).eval()
    random = np.random.default_rng(0)
    clips = [random.normal(size=(n, 128)).astype(np.float32) for n in (20, 70, 40)]
    features = projections.audio_tower.encode(clips)
    vectors = projections.audio_vectors(features)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    alone = projections.audio_vectors(projections.audio_tower.encode(clips[1:2]))
    torch.testing.assert_close(vectors[1:2], alone, atol=1e-5, rtol=1e-4)


def test_gradients_reach_both_towers_and_the_temperature() -> None:
    projections = ClapProjections(TOWER, text_size=10, clap_dim=6)
    projections(torch.randn(4, 32, 128), torch.randn(4, 10)).backward()
    assert all(parameter.grad is not None for parameter in projections.audio_tower.ast.layers.parameters())
    assert projections.text_projection.weight.grad.abs().sum() > 0
    assert projections.log_temperature.grad is not None


def test_the_weights_that_ship_have_the_names_of_the_projections() -> None:
    record = read_json(PRETRAINED / "mini" / "clap.json")
    projections = ClapProjections(AudioTowerConfig(**record["tower"]), record["text_size"], record["clap_dim"])
    assert set(load_file(PRETRAINED / "mini" / "clap.safetensors")) == set(projections.state_dict())
    assert "audio_tower.ast.layers.0.attention.q_proj.weight" in projections.state_dict()


# --- queries ----------------------------------------------------------------------------------------------------------


def trained_clap(folder: Path) -> ClapModel:
    backbone = bert(folder / "bert")
    encoder = AutoModel.from_pretrained(backbone).eval()
    torch.manual_seed(0)
    projections = ClapProjections(TOWER, text_size=encoder.config.hidden_size, clap_dim=6)
    return ClapModel(projections, encoder, AutoTokenizer.from_pretrained(backbone))


CLAPS: dict[str, Callable[[Path], Clap]] = {
    "trained here": trained_clap,
    "published": lambda folder: load_clap(str(clap(folder / "clap"))),
}


@pytest.fixture(params=CLAPS)
def any_clap(request: pytest.FixtureRequest, tmp_path: Path) -> Clap:
    return CLAPS[request.param](tmp_path)


def text_model(model: Clap) -> torch.nn.Module:
    return model.encoder if isinstance(model, ClapModel) else model.model.text_model


def test_a_query_has_unit_vectors_of_both_spaces_from_one_pass_of_the_text_model(any_clap: Clap) -> None:
    passes: list[int] = []
    text_model(any_clap).embeddings.register_forward_hook(lambda *_: passes.append(1))
    query = any_clap.embed_query(["a cat", "the dog barks at a cat", "cat"])
    assert len(passes) == 1
    assert query.sentence.shape == (3, any_clap.text_dim)
    assert query.clap.shape == (3, any_clap.clap_dim)
    for vectors in (query.sentence, query.clap):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
        assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_a_query_does_not_depend_on_the_others(any_clap: Clap) -> None:
    texts = ["a cat", "the dog barks at a cat", "cat"]
    for together in (any_clap.embed_query(texts), any_clap.embed_query(texts, batch_size=2)):
        for row, text in enumerate(texts):
            alone = any_clap.embed_query([text])
            np.testing.assert_allclose(together.sentence[row : row + 1], alone.sentence, atol=1e-6)
            np.testing.assert_allclose(together.clap[row : row + 1], alone.clap, atol=1e-6)


def test_no_queries_have_no_vectors(any_clap: Clap) -> None:
    none = any_clap.embed_query([])
    assert none.sentence.shape == (0, any_clap.text_dim)
    assert none.clap.shape == (0, any_clap.clap_dim)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([""], "a query is empty"),
        (["a cat", " \n"], "a query is empty"),
        (["a cat", "\ud800"], "lone surrogate"),
        ([None], "of type NoneType"),
        ("a cat", "one text, 'a cat'; give a list"),
    ],
)
def test_what_cannot_be_looked_up_is_one_line(texts: Any, message: str, any_clap: Clap) -> None:
    with pytest.raises(InputError, match=message) as caught:
        any_clap.embed_query(texts)
    assert "\n" not in str(caught.value)


def test_clap_vectors_of_the_trained_clap_are_projected_means_of_the_backbone(tmp_path: Path) -> None:
    model = trained_clap(tmp_path)
    query = model.embed_query(["the dog barks at a cat"])
    tokens = model.tokenizer("the dog barks at a cat", return_tensors="pt")
    with torch.no_grad():
        mean = model.encoder(**tokens).last_hidden_state.mean(dim=1)
        projected = model.projections.text_projection(mean)
    np.testing.assert_allclose(query.sentence, torch.nn.functional.normalize(mean, dim=-1), atol=1e-6)
    np.testing.assert_allclose(query.clap, torch.nn.functional.normalize(projected, dim=-1), atol=1e-6)


def test_a_long_query_is_cut_as_the_tokenizer_would(any_clap: Clap) -> None:
    text = "the dog barks at a cat " * 40
    longest = MAX_QUERY_TOKENS if isinstance(any_clap, ClapModel) else any_clap.max_tokens
    cut = any_clap.tokenizer(text, truncation=True, max_length=longest)["input_ids"]
    seen: list[Any] = []
    text_model(any_clap).embeddings.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs.get("input_ids", next(iter(args), None))), with_kwargs=True
    )
    any_clap.embed_query([text])
    assert seen[0].tolist() == [cut]


def test_queries_leave_no_state_in_the_tokenizer_that_threads_share(any_clap: Clap) -> None:
    texts = ["cat", "the dog barks at a cat", "the dog barks at a cat " * 40, "a cat"]
    alone = {text: any_clap.embed_query([text]).clap for text in texts}
    fast: Any = any_clap.tokenizer.backend_tokenizer
    assert fast.padding is None
    assert fast.truncation is None
    with ThreadPoolExecutor(4) as threads:
        asked = [text for _ in range(10) for text in texts]
        for text, vector in zip(asked, threads.map(lambda text: any_clap.embed_query([text]).clap, asked), strict=True):
            np.testing.assert_array_equal(vector, alone[text])


# --- published CLAPs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
def test_clap_vectors_are_those_of_transformers(fused: bool, tmp_path: Path) -> None:
    folder = clap(tmp_path / "clap", fused=fused, shard_size="20KB")
    ours = load_clap(str(folder))
    theirs = TransformersClap.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    texts = ["a cat", "the dog barks at a cat"]
    tokens = processor(text=texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = theirs.get_text_features(**tokens).pooler_output
    np.testing.assert_allclose(ours.embed_query(texts).clap, torch.nn.functional.normalize(wanted, dim=-1), atol=1e-6)
    waveforms = [sound(seconds, 48_000, pitch) for seconds, pitch in ((0.5, 300.0), (1.0, 900.0), (2.5, 500.0))]
    for waveform in waveforms:
        np.random.seed(0)  # the extractor draws its windows from here
        used = waveform if fused else waveform[:48_000]  # an unfused CLAP is given the beginning, not any window
        inputs = processor.feature_extractor(used, sampling_rate=48_000, return_tensors="pt")
        inputs["is_longer"] = torch.tensor([[fused and len(waveform) > 48_000]])
        with torch.no_grad():
            wanted = theirs.get_audio_features(**inputs).pooler_output
        vector = ours.embed_audio([ours.features(waveform)])
        np.testing.assert_allclose(vector, torch.nn.functional.normalize(wanted, dim=-1), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(vector, axis=1), 1.0, rtol=1e-5)


def test_clap_does_not_depend_on_chance_or_on_neighbours(tmp_path: Path) -> None:
    model = load_clap(str(clap(tmp_path / "clap")))
    waveforms = [sound(seconds, 48_000) for seconds in (0.5, 2.5, 1.3)]
    np.random.seed(5)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    features = [model.features(waveform) for waveform in waveforms]
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index]
    assert all(np.array_equal(a, model.features(b)) for a, b in zip(features, waveforms, strict=True))
    together = model.embed_audio(features)
    np.testing.assert_allclose(together, np.concatenate([model.embed_audio([clip]) for clip in features]), atol=1e-6)


def test_features_of_clap_are_the_same_in_several_threads(tmp_path: Path) -> None:
    """The extractor draws its windows from numpy's global random state, which all threads share."""
    features = load_clap(str(clap(tmp_path / "clap"))).features
    waveforms = [sound(seconds, 48_000) for seconds in (2.5, 3.1, 4.2, 5.0)] * 6
    with ThreadPoolExecutor(4) as threads:
        for waveform, extracted in zip(waveforms, threads.map(features, waveforms), strict=True):
            np.testing.assert_array_equal(extracted, features(waveform))
