"""Audio encoders against transformers' own way, with tiny random models of each family; the registry; the tower."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, AutoModel

from audiobert.backbone import load_backbone, load_language_model
from audiobert.clap_hub import load_clap
from audiobert.encoders import AudioEncoder, AudioTower, AudioTowerConfig, load_audio_encoder
from audiobert.encoders import family as registry
from audiobert.encoders.ast import AstFamily
from audiobert.encoders.family import find_family, register
from audiobert.errors import ArtefactError, InputError
from audiobert.features import LogMel, make_features, settings_of
from audiobert.knowledge import KnowledgeEncoder, KnowledgeSettings
from auditorybench_toys import bert, gpt2
from tiny_models import AUDIO_ENCODERS, ast, clap, sound

TOWER = AudioTowerConfig(window_frames=32, max_windows=3, hidden_size=12, layers=1, heads=2)
SECONDS = (0.5, 1.7, 0.5, 0.9)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AudioEncoder]:
    folder = tmp_path_factory.mktemp("encoders")
    made: dict[str, AudioEncoder] = {
        name: load_audio_encoder(str(save(folder / name))).eval() for name, save in AUDIO_ENCODERS.items()
    }
    torch.manual_seed(0)
    return made | {"tower": AudioTower(TOWER).eval()}


def features_of(encoder: AudioEncoder, seconds: tuple[float, ...] = SECONDS) -> list[np.ndarray]:
    return [encoder.features(sound(length, encoder.features.rate_hz)) for length in seconds]


FAMILIES = [*AUDIO_ENCODERS, "tower"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clips_vector_does_not_depend_on_its_neighbours(family: str, encoders: dict[str, AudioEncoder]) -> None:
    encoder = encoders[family]
    features = features_of(encoder)
    alone = torch.cat([encoder.encode([clip]) for clip in features])
    assert alone.shape == (4, encoder.hidden_size)
    torch.testing.assert_close(encoder.encode(features), alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(encoder.encode(features, batch_size=3), alone, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_batch(features), alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(alone[0], alone[1], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_encoder(family: str, encoders: dict[str, AudioEncoder]) -> None:
    encoder = encoders[family]
    encoder.zero_grad()
    encoder.encode_batch(features_of(encoder)).sum().backward()
    reached = [name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("conv" in name or "projection" in name for name in reached)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_of_a_millisecond_and_no_clips_have_vectors_too(family: str, encoders: dict[str, AudioEncoder]) -> None:
    encoder = encoders[family]
    vectors = encoder.encode(features_of(encoder, (0.001, 0.5)))
    assert vectors.shape == (2, encoder.hidden_size)
    assert torch.isfinite(vectors).all()
    assert encoder.encode([]).shape == (0, encoder.hidden_size)


def test_of_whispers_window_the_positions_of_the_clip_are_pooled(encoders: dict[str, AudioEncoder]) -> None:
    encoder: Any = encoders["whisper"]
    waveform = sound(0.8, 16_000)
    given = encoder.features.extractor(waveform, sampling_rate=16_000, return_tensors="pt")["input_features"]
    with torch.no_grad():
        hidden = encoder.model(input_features=given).last_hidden_state  # (1, 100, width), 20 ms each
    torch.testing.assert_close(encoder.encode([encoder.features(waveform)]), hidden[:, :40].mean(dim=1))


def test_features_are_extracted_without_torch() -> None:
    """Worker processes unpickle a family and call it; torch would cost each of them seconds and memory."""
    lines = (
        "import sys, numpy, audiobert.encoders.whisper, audiobert.encoders.speech",
        "from audiobert.encoders.ast import AstFamily",
        "assert AstFamily(64, -4.3, 4.6)(numpy.ones(16_000, dtype=numpy.float32)).shape == (64, 128)",
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_new_family_is_one_registered_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    folder = ast(tmp_path / "ast")

    @register("ASTFeatureExtractor")
    class FirstPosition(AstFamily):
        def encode(self, model: Any, clips: Any) -> list[torch.Tensor]:
            return [states[:1] for states in super().encode(model, clips)]

    encoder = load_audio_encoder(str(folder))
    assert isinstance(encoder.features, FirstPosition)
    features = features_of(encoder)
    monkeypatch.undo()
    first = load_audio_encoder(str(folder), pooling="first")
    torch.testing.assert_close(encoder.encode(features), first.encode(features))


def test_an_extractor_that_no_family_takes_is_one_line_with_those_that_are_taken() -> None:
    with pytest.raises(
        InputError, match=r"someone/beats has the feature extractor object; .* AST.*, Whisper"
    ) as caught:
        find_family(object(), "someone/beats")
    assert "\n" not in str(caught.value)


def test_an_ast_of_other_mel_bins_is_refused() -> None:
    with pytest.raises(InputError, match="64 mel bins at 16000 Hz; an Audio Spectrogram Transformer with 128"):
        find_family(ASTFeatureExtractor(num_mel_bins=64), "AST")


def test_ast_features_are_those_of_the_feature_extractor() -> None:
    extractor = ASTFeatureExtractor()
    family: Any = find_family(extractor, "AST")
    for seconds in (0.3, 3.0, 12.0):
        waveform = sound(seconds, 16_000)
        theirs = extractor(waveform, sampling_rate=16_000, return_tensors="np")["input_values"][0]
        ours = np.full_like(theirs, family.padding)
        features = family(waveform)
        ours[: len(features)] = features
        # The extractor computes in float64; bins without energy differ most, by the floor of float32.
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_ast_vectors_are_the_models_own(tmp_path: Path) -> None:
    folder = ast(tmp_path / "ast")
    waveform = sound(0.4, 16_000)
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder)(
            **extractor(waveform, sampling_rate=16_000, return_tensors="pt")
        ).last_hidden_state
    for pooling, wanted in (("mean", hidden.mean(dim=1)), ("first", hidden[:, 0])):
        encoder = load_audio_encoder(str(folder), pooling=pooling)  # type: ignore[arg-type]
        torch.testing.assert_close(encoder.encode([encoder.features(waveform)]), wanted, rtol=1e-3, atol=1e-3)


def test_features_are_small_to_send_and_equal_ones_are_extracted_once(encoders: dict[str, AudioEncoder]) -> None:
    for encoder in encoders.values():
        encoder.features(sound(0.5, encoder.features.rate_hz))
        sent = pickle.dumps(encoder.features)
        assert len(sent) < 2_000
        assert pickle.loads(sent) == encoder.features
    makers = {"clap": LogMel(64), "audio_encoder": LogMel(64)}
    made = make_features(makers, {16_000: sound(1.0, 16_000)})
    assert made["clap"] is made["audio_encoder"]
    assert settings_of(makers) == {"frames": 64}
    assert settings_of({**makers, "clap": LogMel(32)}) == {"clap": {"frames": 32}, "audio_encoder": {"frames": 64}}


def test_models_of_another_kind_are_refused_in_one_line(tmp_path: Path) -> None:
    text, audio, joint = bert(tmp_path / "bert"), ast(tmp_path / "ast"), clap(tmp_path / "clap")
    cases: list[tuple[Any, Path, type[Exception], str]] = [
        (load_backbone, gpt2(tmp_path / "gpt2"), InputError, "has no mask token"),
        (load_clap, text, InputError, "model of type 'bert'; a CLAP"),
        (load_clap, audio, InputError, "a CLAP"),
        (load_audio_encoder, text, ArtefactError, "no feature extractor"),
        (load_audio_encoder, joint, InputError, "feature extractor ClapFeatureExtractor; give as audio_encoder"),
    ]
    for load, folder, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            load(str(folder))
        assert "\n" not in str(caught.value)


def test_a_truncated_shard_and_a_missing_one_are_one_line(tmp_path: Path) -> None:
    whole = clap(tmp_path / "clap", shard_size="20KB")
    for damage in ("truncated", "missing"):
        folder = tmp_path / damage
        shutil.copytree(whole, folder)
        shard = sorted(folder.glob("*.safetensors"))[1]
        shard.write_bytes(shard.read_bytes()[:-100]) if damage == "truncated" else shard.unlink()
        with pytest.raises(ArtefactError, match="cannot load") as caught:
            load_clap(str(folder))
        assert "\n" not in str(caught.value)


def test_weights_that_are_no_safetensors_are_not_opened(tmp_path: Path) -> None:
    folder = ast(tmp_path / "ast")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ArtefactError, match="no weights as safetensors"):
        load_audio_encoder(str(folder))


def test_a_model_without_its_masked_lm_head_is_refused_as_a_language_model(tmp_path: Path) -> None:
    from transformers import BertModel

    folder = bert(tmp_path / "bert")
    BertModel.from_pretrained(folder).save_pretrained(folder)
    load_backbone(str(folder))
    with pytest.raises(ArtefactError, match=r"lacks \d+ weights of a BertForMaskedLM, the first is cls"):
        load_language_model(str(folder), "masked")


def test_a_projection_for_another_width_is_refused(tmp_path: Path) -> None:
    from audiobert.adapters import copy_tensors

    encoder = load_audio_encoder(str(ast(tmp_path / "ast")))
    settings = KnowledgeSettings(attributes=False, projection="linear")
    trained = KnowledgeEncoder(encoder, 32, settings)
    other = KnowledgeEncoder(encoder, 48, settings)
    with pytest.raises(ArtefactError, match=r"outer.weight has shape \(32, 16\), the model needs \(48, 16\)"):
        copy_tensors(other.state_dict(), trained.state_dict(), "audiobert.safetensors")


@pytest.mark.parametrize(("frames", "windows"), [(5, 1), (32, 1), (38, 1), (45, 2), (64, 2), (90, 3), (500, 3)])
def test_the_tower_encodes_a_clip_window_by_window(frames: int, windows: int) -> None:
    spectrogram = np.random.default_rng(0).normal(size=(frames, 128)).astype(np.float32)
    assert AudioTower(TOWER).windows(spectrogram).shape == (windows, 32, 128)


def test_the_tower_repeats_a_short_clip() -> None:
    spectrogram = np.random.default_rng(0).normal(size=(8, 128)).astype(np.float32)
    window = AudioTower(TOWER).windows(spectrogram)[0]
    np.testing.assert_array_equal(window[:8], window[8:16])
