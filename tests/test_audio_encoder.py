"""Published audio encoders and CLAPs against transformers' own way, with tiny random models of each family."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, AutoModel, AutoProcessor
from transformers import ClapModel as TransformersClap

from audiobert.audio_encoder import HubAudioEncoder, load_audio_encoder
from audiobert.backbone import load_backbone
from audiobert.clap_hub import load_clap
from audiobert.errors import ArtefactError, InputError
from audiobert.features import LogMel, make_features, settings_of
from audiobert.hub_features import maker_of
from audiobert.modeling import KnowledgeEncoder
from auditorybench_toys import bert, gpt2
from tiny_models import AUDIO_ENCODERS, ast, clap, sound

SECONDS = (0.5, 1.7, 0.5, 0.9)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HubAudioEncoder]:
    folder = tmp_path_factory.mktemp("encoders")
    return {name: load_audio_encoder(str(save(folder / name))).eval() for name, save in AUDIO_ENCODERS.items()}


@pytest.mark.parametrize("family", AUDIO_ENCODERS)
def test_a_clips_vector_does_not_depend_on_its_neighbours(family: str, encoders: dict[str, HubAudioEncoder]) -> None:
    encoder = encoders[family]
    heard = [encoder.features(sound(seconds, encoder.features.rate_hz)) for seconds in SECONDS]
    together, alone = encoder.encode(heard), torch.cat([encoder.encode([clip]) for clip in heard])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert together.shape == (4, encoder.config.hidden_size)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


@pytest.mark.parametrize("family", AUDIO_ENCODERS)
def test_gradients_reach_the_encoder(family: str, encoders: dict[str, HubAudioEncoder]) -> None:
    encoder = encoders[family]
    encoder.zero_grad()
    encoder.hear([encoder.features(sound(seconds, encoder.features.rate_hz)) for seconds in SECONDS]).sum().backward()
    reached = [name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any("conv" in name or "projection" in name for name in reached)


@pytest.mark.parametrize("family", ["hubert", "wavlm", "wav2vec2"])
def test_an_attention_mask_keeps_padding_out(family: str, encoders: dict[str, HubAudioEncoder]) -> None:
    encoder = encoders[family]
    heard = [encoder.features(sound(seconds, encoder.features.rate_hz)) for seconds in SECONDS]
    with torch.no_grad():
        torch.testing.assert_close(encoder.hear(heard), encoder.encode(heard), rtol=1e-4, atol=1e-4)


def test_whisper_hears_what_its_extractor_gives_and_pools_the_clip_alone(encoders: dict[str, HubAudioEncoder]) -> None:
    encoder: Any = encoders["whisper"]
    waveform = sound(0.8, 16_000)
    given = encoder.features.extractor(waveform, sampling_rate=16_000, return_tensors="pt")["input_features"]
    with torch.no_grad():
        hidden = encoder.model(input_features=given).last_hidden_state  # (1, 100, width), 20 ms each
    torch.testing.assert_close(encoder.encode([encoder.features(waveform)]), hidden[:, :40].mean(dim=1))


def test_ast_features_are_those_of_the_feature_extractor() -> None:
    extractor = ASTFeatureExtractor()
    maker: Any = maker_of(extractor, "AST")
    for seconds in (0.3, 3.0, 12.0):
        waveform = sound(seconds, 16_000)
        theirs = extractor(waveform, sampling_rate=16_000, return_tensors="np")["input_values"][0]
        ours = np.full_like(theirs, maker.padding)
        heard = maker(waveform)
        ours[: len(heard)] = heard
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
    np.testing.assert_allclose(ours.embed_text(texts), torch.nn.functional.normalize(wanted, dim=-1), atol=1e-6)
    waveforms = [sound(seconds, 48_000, pitch) for seconds, pitch in ((0.5, 300.0), (1.0, 900.0), (2.5, 500.0))]
    for waveform in waveforms:
        np.random.seed(0)  # the extractor draws its windows from here
        heard = waveform if fused else waveform[:48_000]  # an unfused CLAP is given the beginning, not any window
        inputs = processor.feature_extractor(heard, sampling_rate=48_000, return_tensors="pt")
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
    heard = [model.features(waveform) for waveform in waveforms]
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index]
    assert all(np.array_equal(a, model.features(b)) for a, b in zip(heard, waveforms, strict=True))
    together = model.embed_audio(heard)
    np.testing.assert_allclose(together, np.concatenate([model.embed_audio([clip]) for clip in heard]), atol=1e-6)


def test_makers_are_small_to_send_and_equal_makers_share_their_work(encoders: dict[str, HubAudioEncoder]) -> None:
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
        (load_audio_encoder, joint, InputError, "give it as clap"),
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
        load_backbone(str(folder), whole=True)


def test_a_projection_for_another_width_is_refused(tmp_path: Path) -> None:
    from audiobert.adapters import copy_tensors

    encoder = load_audio_encoder(str(ast(tmp_path / "ast")))
    trained = KnowledgeEncoder(encoder, 32, attributes=False, projection="linear")
    other = KnowledgeEncoder(encoder, 48, attributes=False, projection="linear")
    with pytest.raises(ArtefactError, match=r"outer.weight has shape \(32, 16\), the model wants \(48, 16\)"):
        copy_tensors(other.state_dict(), trained.state_dict(), "audiobert.safetensors")
