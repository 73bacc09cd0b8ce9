"""Features of the clips on disk, and the audio encoder's gradients from them."""

import numpy as np
import pytest
import torch
from torch import nn

from audiobert.audio import load_audio
from audiobert.encoders import load_audio_encoder
from audiobert.errors import InputError
from audiobert.features import LogMel
from audiobert.training.clips import Spectrograms, read_clips
from audiobert.training.loop import checkpoint_gradients
from tiny_models import ast
from training_toys import write_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("clips")) / "audio"


def test_features_are_made_once_and_mapped_from_disk(folder, tmp_path):
    clips, maker = read_clips(folder), LogMel(64)
    features = Spectrograms(folder, clips, tmp_path, maker)
    assert isinstance(features.frames, np.memmap)
    assert len(features) == len(clips)
    for index in (0, 7, len(clips) - 1):
        heard = maker(load_audio(folder / clips[index].path, max_seconds=maker.seconds))
        np.testing.assert_allclose(features[index], heard, atol=0.02)  # kept in float16
    made_at = features.frames_path.stat().st_mtime_ns
    again = Spectrograms(folder, clips, tmp_path, maker)
    assert again.frames_path.stat().st_mtime_ns == made_at
    assert Spectrograms(folder, clips, tmp_path, LogMel(32)).frames_path != features.frames_path


def test_another_model_hears_the_clips_at_its_own_rate(folder, tmp_path):
    features = Spectrograms(folder, read_clips(folder), tmp_path, LogMel(64))
    np.testing.assert_array_equal(features.heard_by(LogMel(64), [3])[0], features[3])
    faster = features.heard_by(LogMel(64, rate_hz=48_000), [3])[0]  # what is heard as 16 kHz lasts three times as long
    assert len(faster) > 50
    assert not np.allclose(faster[:50], features[3][:50], atol=0.1)


def test_gradient_checkpointing_changes_no_gradient(tmp_path):
    clip = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    gradients = []
    for checkpointed in (False, True):
        encoder = load_audio_encoder(str(ast(tmp_path / "ast"))).train()
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        calls = []
        layer = next(m for m in encoder.modules() if type(m).__name__ == "ASTAttention")
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        if checkpointed:
            checkpoint_gradients(encoder)
        encoder.encode_batch([clip]).square().sum().backward()
        assert len(calls) == 1 + checkpointed  # computed again on the way back
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_an_encoder_that_cannot_is_refused_in_one_line():
    with pytest.raises(InputError, match="gradient_checkpointing: false"):
        checkpoint_gradients(nn.Linear(2, 2))
