import numpy as np
import pytest
import torch

from audiobert.clap import AudioTower, AudioTowerConfig, ClapProjections, contrastive_loss

TOWER = AudioTowerConfig(window_frames=32, max_windows=3, hidden_size=12, layers=1, heads=2)


def test_the_loss_is_equations_1_to_3():
    torch.manual_seed(0)
    audio, text = (torch.nn.functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    temperature = torch.tensor(0.2)
    cosine = audio @ text.T / temperature
    of_audio = -torch.stack([cosine[i, i] - cosine[i].exp().sum().log() for i in range(5)]).mean()
    of_text = -torch.stack([cosine[i, i] - cosine[:, i].exp().sum().log() for i in range(5)]).mean()
    torch.testing.assert_close(contrastive_loss(audio, text, temperature), (of_audio + of_text) / 2)


def test_matched_pairs_cost_less_than_mismatched_ones():
    vectors = torch.eye(6)
    matched = contrastive_loss(vectors, vectors, torch.tensor(0.1))
    assert matched < contrastive_loss(vectors, vectors.roll(1, 0), torch.tensor(0.1))


@pytest.mark.parametrize(("frames", "windows"), [(5, 1), (32, 1), (38, 1), (45, 2), (64, 2), (90, 3), (500, 3)])
def test_a_clip_is_heard_window_by_window(frames, windows):
    spectrogram = np.random.default_rng(0).normal(size=(frames, 128)).astype(np.float32)
    assert AudioTower(TOWER).windows(spectrogram).shape == (windows, 32, 128)


def test_a_short_clip_is_repeated():
    spectrogram = np.random.default_rng(0).normal(size=(8, 128)).astype(np.float32)
    window = AudioTower(TOWER).windows(spectrogram)[0]
    np.testing.assert_array_equal(window[:8], window[8:16])


def test_vectors_have_unit_norm_and_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    projections = ClapProjections(TOWER, text_size=10, clap_dim=6).eval()
    random = np.random.default_rng(0)
    clips = [random.normal(size=(n, 128)).astype(np.float32) for n in (20, 70, 40)]
    features = projections.audio_tower.encode(clips)
    vectors = projections.audio_vectors(features)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(3))
    alone = projections.audio_vectors(projections.audio_tower.encode(clips[1:2]))
    torch.testing.assert_close(vectors[1:2], alone, atol=1e-5, rtol=1e-4)


def test_gradients_reach_both_towers_and_the_temperature():
    projections = ClapProjections(TOWER, text_size=10, clap_dim=6)
    projections(torch.randn(4, 32, 128), torch.randn(4, 10)).backward()
    assert all(parameter.grad is not None for parameter in projections.audio_tower.ast.layers.parameters())
    assert projections.text_projection.weight.grad.abs().sum() > 0
    assert projections.log_temperature.grad is not None
