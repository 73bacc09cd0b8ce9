"""The paper's architectures at their full size, from their configs, with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from audiobert.audio_encoder import HubAudioEncoder
from audiobert.hub_features import ClapFeatures, maker_of
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
)

from audiobert.adapters import AUDIO, Adapters, copy_tensors
from audiobert.backbone import PRESETS, Identity
from audiobert.clap_hub import HubClap
from audiobert.features import FeatureMaker
from audiobert.inputs import Inputs, encode_texts
from audiobert.modeling import AudioBertForMaskedLM, Injection, KnowledgeEncoder
from audiobert.parts import trained_knowledge
from audiobert.training.audiobert import freeze_unused
from audiobert.training.audiobert_config import AudioBertConfig
from audiobert.training.objective import AudioBertObjective, Batch
from auditorybench_toys import bert, roberta
from tiny_models import sound

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = {"paper-base": REPOSITORY / "configs/paper-base.yaml", "paper-large": REPOSITORY / "configs/paper-large.yaml"}
SIZES = {
    "paper-base": {},
    "paper-large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096
    },
}  # fmt: skip
MILLION = 1e6


def random_weights(model: nn.Module) -> nn.Module:
    """Fill an uninitialised model quickly: matrices with a slice of one random vector, vectors as they are made."""
    noise = 0.02 * torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                flat = parameter.view(-1)
                flat.copy_(noise.repeat(-(-len(flat) // len(noise)))[: len(flat)])
            else:
                parameter.fill_(float(name.endswith("weight")))
    return model


def make(kind: type[nn.Module], config: object) -> nn.Module:
    before = torch.nn.init.normal_, torch.nn.init.trunc_normal_
    torch.nn.init.normal_ = torch.nn.init.trunc_normal_ = lambda tensor, *_, **__: tensor  # type: ignore[assignment]
    try:
        model = kind(config)
    finally:
        torch.nn.init.normal_, torch.nn.init.trunc_normal_ = before
    model.tie_weights()  # type: ignore[operator]
    return random_weights(model).eval()


@pytest.fixture(scope="module")
def features() -> FeatureMaker:
    return maker_of(ASTFeatureExtractor(), "AST 10-10")


@pytest.fixture(scope="module")
def ast() -> nn.Module:
    return make(ASTModel, ASTConfig())  # the defaults are those of the published AST 10-10


class System:
    """AudioBERT of a preset in the middle of a training."""

    def __init__(self, preset: str, ast: nn.Module, features: FeatureMaker, tokens: Path) -> None:
        self.config = AudioBertConfig.load(CONFIGS[preset])
        self.tokenizer = AutoTokenizer.from_pretrained(bert(tokens))
        language_model = make(BertForMaskedLM, BertConfig(**SIZES[preset]))
        language_model.requires_grad_(False)
        self.adapters = Adapters(language_model)
        self.inputs = encode_texts(self.tokenizer, ["woof is the sound a [MASK] makes."], [[(0, 4)]])
        with torch.no_grad():
            self.before = language_model(self.inputs.input_ids, self.inputs.attention_mask).logits
        self.adapters.add(AUDIO, self.config.lora())
        self.model = AudioBertForMaskedLM(language_model, self.config.settings())
        freeze_unused(self.model, self.config)
        identity = Identity("random", "folder:random", None)
        tower = HubAudioEncoder(ast, features, identity, self.config.pooling)  # type: ignore[arg-type]
        tower.requires_grad_(True)
        self.knowledge = KnowledgeEncoder(
            tower, language_model.config.hidden_size, attributes=False, projection=self.config.projection
        )
        nn.init.normal_(self.knowledge.outer.weight, std=0.02)  # at zero nothing flows back into the audio encoder
        self.heard = [features(sound(2.0, features.rate_hz))]

    def step(self, precision: torch.dtype) -> torch.Tensor:
        """Gradients of one step on one row with one clip."""
        self.adapters.set(AUDIO, train=AUDIO)
        answers = torch.full((int(self.inputs.masks.sum()),), 7)
        clips = torch.zeros(1, 1, 1, dtype=torch.long)
        batch = Batch(self.inputs, answers, answers, clips, torch.ones(1, 1, 1), 0)
        width = self.knowledge.tower.config.hidden_size
        objective = AudioBertObjective(
            self.model,
            self.knowledge,
            self.heard,
            torch.zeros(1, 0),
            torch.zeros(1, width),
            self.config,  # type: ignore[arg-type]
        ).train()
        with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            loss, terms = objective(batch)
        (loss / terms).backward()
        objective.eval()
        return loss


@pytest.fixture(scope="module", params=list(CONFIGS))
def system(
    request: pytest.FixtureRequest, ast: nn.Module, features: FeatureMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    made = System(request.param, ast, features, tmp_path_factory.mktemp("tokens") / "bert")
    made.name = request.param  # type: ignore[attr-defined]
    yield made
    ast.zero_grad(set_to_none=True)


def test_the_configs_name_the_presets_models() -> None:
    for preset, path in CONFIGS.items():
        named = {role: model.name for role, model in AudioBertConfig.load(path).models().items()}
        assert named == PRESETS[preset]
        assert set(named) == {"language_model", "clap", "audio_encoder"}


def test_shapes_and_sizes(system: System) -> None:
    parameters = sum(p.numel() for p in system.model.language_model.parameters()) / MILLION
    lora = sum(p.numel() for p in system.adapters.parameters(AUDIO).values()) / MILLION
    layers, width = system.model.language_model.config.num_hidden_layers, system.knowledge.hidden_size
    assert lora == layers * 3 * 2 * width * 64 / MILLION
    assert parameters - lora == pytest.approx({768: 109.5, 1024: 335.2}[width], abs=0.1)
    assert sum(p.numel() for p in system.knowledge.tower.parameters()) / MILLION == pytest.approx(86.2, abs=0.1)
    with torch.no_grad():
        assert system.model(*tokens(system.inputs)).shape == (1, 30_522)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_gradients_reach_lora_audio_encoder_and_projection_alone(system: System, precision: torch.dtype) -> None:
    for parameter in (*system.model.parameters(), *system.knowledge.parameters()):
        parameter.grad = None
    loss = system.step(precision)
    assert torch.isfinite(loss)
    reached = {
        name
        for name, parameter in system.model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert len(reached) == 3 * system.model.language_model.config.num_hidden_layers  # query, key and value
    assert all(f"lora_B.{AUDIO}" in name for name in reached)  # A gets its first gradient once B is not zero
    assert {name for name, p in system.model.named_parameters() if p.requires_grad and "lora_" not in name} == set()
    heard = {name for name, p in system.knowledge.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    silent = {name for name, _ in system.knowledge.named_parameters()} - heard
    assert {"outer.weight", "outer.bias"} <= heard
    assert "tower.model.embeddings.patch_embeddings.projection.weight" in heard
    assert all(".key.bias" in name or name.endswith("k_proj.bias") for name in silent)  # softmax is blind to these


def test_off_is_the_language_model_to_the_last_bit(system: System) -> None:
    with torch.no_grad():
        for parameter in system.adapters.parameters(AUDIO).values():
            parameter.add_(0.01)
        system.adapters.set()
        off = system.model.language_model(system.inputs.input_ids, system.inputs.attention_mask).logits
        assert torch.equal(off, system.before)
        with system.adapters.on(AUDIO):
            on = system.model.language_model(system.inputs.input_ids, system.inputs.attention_mask).logits
        assert not torch.equal(on, system.before)
        system.adapters.set()
        again = system.model.language_model(system.inputs.input_ids, system.inputs.attention_mask).logits
        assert torch.equal(again, system.before)


def test_what_is_saved_comes_back(system: System, tmp_path: Path) -> None:
    path = tmp_path / "audiobert.safetensors"
    knowledge = trained_knowledge(system.knowledge, {"train_audio_encoder": True})
    with torch.no_grad():  # as far as the folder's float16 goes
        for tensor in (*system.adapters.parameters(AUDIO).values(), *knowledge.values()):
            tensor.copy_(tensor.half())
    weights = {f"lora.{k}": v for k, v in system.adapters.state(AUDIO).items()}
    save_file(weights | {f"knowledge.{k}": v.half().contiguous() for k, v in knowledge.items()}, path)
    wanted = {k: v.clone() for k, v in system.adapters.parameters(AUDIO).items()}
    patch = system.knowledge.tower.model.embeddings.patch_embeddings.projection.weight  # type: ignore[union-attr]
    kept = patch.detach().clone()
    with torch.no_grad():
        for tensor in (*system.adapters.parameters(AUDIO).values(), *knowledge.values()):
            tensor.zero_()
    loaded = {name: tensor.float() for name, tensor in load_file(path).items()}
    lora = {k.removeprefix("lora."): v for k, v in loaded.items() if k.startswith("lora.")}
    system.adapters.load(AUDIO, lora)
    copy_tensors(
        system.knowledge.state_dict(), {k.removeprefix("knowledge."): v for k, v in loaded.items()}, "knowledge"
    )
    assert all(torch.equal(wanted[k], v) for k, v in system.adapters.parameters(AUDIO).items())
    assert torch.equal(kept, patch)


def test_clap_htsat_fused_at_its_size(tmp_path: Path) -> None:
    model = make(ClapModel, ClapConfig(audio_config={"enable_fusion": True}))
    assert sum(p.numel() for p in model.parameters()) / MILLION == pytest.approx(153.5, abs=0.5)
    tokenizer = AutoTokenizer.from_pretrained(roberta(tmp_path / "text"))
    maker = maker_of(ClapFeatureExtractor(), "CLAP")
    assert isinstance(maker, ClapFeatures)
    clap = HubClap(model, tokenizer, maker, Identity("random", "folder:random", None))  # type: ignore[arg-type]
    short, long = (maker(sound(seconds, maker.rate_hz)) for seconds in (2.0, 12.0))
    assert (short.shape, long.shape) == ((1001, 64), (4004, 64))
    vectors = clap.embed_audio([short, long])
    assert vectors.shape == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(clap.embed_text(["a dog", "a cat meowing"]), axis=1), 1.0, rtol=1e-5)


def tokens(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Injection | None]:
    return inputs.input_ids, inputs.attention_mask, inputs.masks, None
