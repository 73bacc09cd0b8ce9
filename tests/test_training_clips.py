"""Features of the clips on disk, and the audio encoder's gradients from them."""

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from audiobert.audio import load_audio
from audiobert.encoders import load_audio_encoder
from audiobert.errors import InputError
from audiobert.features import AUDIO_ENCODER, CLAP, LogMel
from audiobert.training.clips import load_clips
from audiobert.training.loop import checkpoint_gradients
from tiny_models import ast, sound
from training_toys import LABELS, write_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("clips")) / "audio"


def test_features_are_made_once_and_mapped_from_disk(folder, tmp_path):
    maker = LogMel(64)
    clips = load_clips(folder, {CLAP: maker, AUDIO_ENCODER: LogMel(32)}, tmp_path)
    features = clips.features[CLAP]
    assert isinstance(features.frames, np.memmap)
    assert len(features) == len(clips) == 18
    for index in (0, 7, len(clips) - 1):
        expected = maker(load_audio(folder / clips.clips[index].row["path"], max_seconds=maker.seconds))
        np.testing.assert_allclose(features[index], expected, atol=0.02)  # kept in float16
    assert len(clips.features[AUDIO_ENCODER][0]) == 32
    made_at = features.path.stat().st_mtime_ns
    again = load_clips(folder, {CLAP: maker, AUDIO_ENCODER: LogMel(32)}, tmp_path)
    assert again.features[CLAP].path.stat().st_mtime_ns == made_at
    assert load_clips(folder, {CLAP: LogMel(32)}, tmp_path).features[CLAP].path != features.path


def test_models_with_equal_features_share_a_file(folder, tmp_path):
    clips = load_clips(folder, {CLAP: LogMel(64), AUDIO_ENCODER: LogMel(64)}, tmp_path)
    assert clips.features[CLAP].path == clips.features[AUDIO_ENCODER].path
    assert len(list(tmp_path.glob("*.npy"))) == 2  # features and lengths


def test_clips_are_measured_as_in_a_bank(folder, tmp_path):
    clips = load_clips(folder, {CLAP: LogMel(64)}, tmp_path)
    measured = {label: [] for label in LABELS}
    for clip in clips.clips:
        measured[clip.label].append(clip.row["pitch_hz"])
    assert {label: np.median(values) for label, values in measured.items()} == pytest.approx(LABELS, rel=0.02)
    assert clips.attributes.shape[0] == 18


def test_one_recording_of_six_of_each_label_is_held_out(folder, tmp_path):
    clips = load_clips(folder, {CLAP: LogMel(64)}, tmp_path)
    kept_apart = [clip.label for clip, out in zip(clips.clips, clips.held_out, strict=True) if out]
    assert sorted(kept_apart) == sorted(LABELS)


def test_clips_that_cannot_be_decoded_are_left_out_and_no_clip_at_all_is_one_line(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    (tmp_path / "clips.csv").write_text("path,label\nbroken.wav,dog\n")
    with pytest.raises(InputError, match="names no clip that can be decoded"):
        load_clips(tmp_path, {CLAP: LogMel(64)}, tmp_path / "cache")
    soundfile.write(tmp_path / "tone.wav", sound(0.5, 16_000), 16_000)
    (tmp_path / "clips.csv").write_text("path,label\nbroken.wav,dog\ntone.wav,dog\n")
    assert len(load_clips(tmp_path, {CLAP: LogMel(64)}, tmp_path / "cache")) == 1
    (tmp_path / "clips.csv").unlink()
    with pytest.raises(InputError, match=r"clips\.csv does not exist"):
        load_clips(tmp_path, {CLAP: LogMel(64)}, tmp_path / "cache")


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
