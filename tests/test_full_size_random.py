"""AudioBERT at the width of the paper's language models, with few layers and random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel, AutoTokenizer, BertConfig, BertForMaskedLM

from audiobert.adapters import (
    LoraSettings,
    add_lora,
    copy_sharing_embeddings,
    copy_tensors,
    fold_lora,
    lora_parameters,
)
from audiobert.backbone import Identity
from audiobert.encoders.encoder import PublishedAudioEncoder
from audiobert.encoders.family import find_family
from audiobert.injection import InjectionSettings, SpanKnowledge, new_injection
from audiobert.knowledge import KnowledgeEncoder, KnowledgeSettings
from audiobert.modeling import AudioBertForMaskedLM
from audiobert.sentence import encode_texts
from auditorybench_toys import bert
from random_models import million_parameters, random_model
from tiny_models import sound

# BERT-base (the config's defaults) and BERT-large.
SIZES: dict[str, dict[str, int]] = {
    "base": {},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
LAYERS = 2
WINDOW, SHORT_WINDOW = 1024, 32  # frames of the audio encoder: AST 10-10's, and one for bfloat16 without instructions


class System:
    """The paper's AudioBERT before its first step: the plain language model, a copy with LoRA, and an AST."""

    def __init__(self, size: str, folder: Path, frames: int = SHORT_WINDOW) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(bert(folder / "bert"))
        self.plain: Any = random_model(BertForMaskedLM, BertConfig(**SIZES[size] | {"num_hidden_layers": LAYERS}))
        self.plain.requires_grad_(False)
        with_lora = copy_sharing_embeddings(self.plain)
        self.lora = add_lora(with_lora, LoraSettings())
        injection = new_injection(InjectionSettings(gate=False), self.plain.config.hidden_size)
        self.model = AudioBertForMaskedLM(with_lora, injection).eval()
        ast: Any = random_model(ASTModel, ASTConfig(num_hidden_layers=1, max_length=frames))
        family = find_family(ASTFeatureExtractor(max_length=frames), "AST")
        tower = PublishedAudioEncoder(ast, family, Identity("random", "folder:random", None))
        width = self.plain.config.hidden_size
        self.knowledge = KnowledgeEncoder(tower, width, KnowledgeSettings(attributes=False, projection="linear"))
        torch.manual_seed(1)
        nn.init.normal_(self.knowledge.outer.weight, std=0.02)  # at zero nothing flows back into the audio encoder
        self.features = [tower.features(sound(2.0, tower.features.rate_hz))]
        self.inputs = encode_texts(self.tokenizer, ["woof is the sound a [MASK] makes."], [[(0, 4)]])

    def logits(self, model: AudioBertForMaskedLM, knowledge: SpanKnowledge | None = None) -> torch.Tensor:
        return model(self.inputs.input_ids, self.inputs.attention_mask, self.inputs.masks, knowledge)

    def step(self) -> torch.Tensor:
        """Return the loss of one sentence with one clip, and leave its gradients."""
        vectors = self.knowledge.project(self.knowledge.tower.encode_batch(self.features), torch.zeros(1, 0))
        knowledge = SpanKnowledge(self.inputs.starts, vectors[None, None], torch.ones(1, 1, 1))
        loss = self.model.loss(self.logits(self.model, knowledge), torch.tensor([7]))
        loss.backward()
        return loss


@pytest.mark.parametrize(("size", "million"), [("base", 109.5), ("large", 335.2)])
def test_parameters_of_the_language_model_and_the_lora(size: str, million: float, tmp_path: Path) -> None:
    config = BertConfig(**SIZES[size])
    assert million_parameters(BertForMaskedLM, config) == pytest.approx(million, abs=0.1)
    system = System(size, tmp_path)
    query_key_value = LAYERS * 3 * 2 * config.hidden_size * 64
    assert sum(parameter.numel() for parameter in system.lora.values()) == query_key_value
    with torch.no_grad():
        assert system.logits(system.model).shape == (1, config.vocab_size)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", SIZES)
def test_gradients_reach_lora_audio_encoder_and_projection_alone(
    size: str, precision: torch.dtype, tmp_path: Path
) -> None:
    system = System(size, tmp_path, WINDOW if precision == torch.float32 else SHORT_WINDOW)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        assert torch.isfinite(system.step())
    reached = {name for name, p in system.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert len(reached) == 3 * LAYERS  # query, key and value
    assert all(".lora_B." in name for name in reached)  # A gets its first gradient once B is not zero
    trained = {name for name, p in system.model.language_model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trained)
    heard = {name for name, p in system.knowledge.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    rest = {name for name, _ in system.knowledge.named_parameters()} - heard
    assert {"outer.weight", "outer.bias", "tower.model.embeddings.patch_embeddings.projection.weight"} <= heard
    assert all(".key.bias" in name or name.endswith("k_proj.bias") for name in rest)  # softmax ignores these


def test_off_is_the_language_model_to_the_last_bit(tmp_path: Path) -> None:
    system = System("base", tmp_path)
    plain = AudioBertForMaskedLM(system.plain)
    with torch.no_grad():
        before = system.logits(plain)
        for parameter in system.lora.values():
            parameter.add_(0.01)
        assert not torch.equal(system.logits(system.model), before)
        assert torch.equal(system.logits(plain), before)
        whole = system.plain(system.inputs.input_ids, attention_mask=system.inputs.attention_mask).logits
    torch.testing.assert_close(whole[system.inputs.masks], before)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    system = System("base", tmp_path)
    path = tmp_path / "audiobert.safetensors"
    with torch.no_grad():  # as far as the folder's float16 goes
        for matrix in system.lora.values():
            matrix.copy_((0.02 * torch.randn_like(matrix)).half())
        for tensor in system.knowledge.state_dict().values():
            tensor.copy_(tensor.half())
        wanted = system.logits(system.model)
        vectors = system.knowledge.encode(system.features, [])
    knowledge = {f"knowledge.{k}": v.half().contiguous() for k, v in system.knowledge.saved_state().items()}
    matrices = {k: v.detach().half().contiguous() for k, v in lora_parameters(system.model.language_model).items()}
    save_file(matrices | knowledge, path)

    other = System("base", tmp_path / "other")
    loaded = load_file(path)
    folded = copy_sharing_embeddings(system.plain)
    fold_lora(folded, loaded, LoraSettings(), str(path))
    with torch.no_grad():
        for tensor in other.knowledge.state_dict().values():
            tensor.zero_()
        of_knowledge = {k.removeprefix("knowledge."): v for k, v in loaded.items() if k.startswith("knowledge.")}
        copy_tensors(other.knowledge.state_dict(), of_knowledge, "knowledge")
        torch.testing.assert_close(system.logits(AudioBertForMaskedLM(folded)), wanted, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(wanted, system.logits(AudioBertForMaskedLM(system.plain)), rtol=1e-3, atol=1e-2)
        assert (other.knowledge.encode(other.features, []) == vectors).all()
    assert not lora_parameters(folded)
