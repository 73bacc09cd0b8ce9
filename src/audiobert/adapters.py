"""Add LoRA to a backbone for training, and fold saved ones into copies of the weights for answering.

Answering uses no adapter at all. Each role (plain language model, language model with sound, detector, text encoder)
has its own weights with its LoRA folded in, and shares the embeddings. So "off" is another set of weights, threads
share no switch, and a LoRA costs no products.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from audiobert.errors import ArtefactError, InputError
from audiobert.settings import Settings

Model = TypeVar("Model", bound=PreTrainedModel)

# Module names of layers, as regular expressions that peft matches against the whole dotted name: those of BERT, RoBERTa
# and ELECTRA, then DeBERTa-v2, DistilBERT, ModernBERT (one matrix for all three); of causal models those of Llama,
# Gemma, Qwen and Mistral, Phi-3, GPT-2, and GPT-NeoX, Falcon and BLOOM.
_ATTENTION = r"(query|key|value)(_proj)?|[qkv]_lin|Wqkv|[qkv]_proj|qkv_proj|c_attn|query_key_value"
_DENSE = r"dense\w*|out_lin|lin[12]|W[io]|o_proj|(gate|up|down|gate_up)_proj|c_proj|c_fc"
_TARGETS = {
    "all-linear": rf".*\.(layers?|h)\.\d+\..*({_ATTENTION}|{_DENSE})",
    "query-key-value": rf".*\.(layers?|h)\.\d+\..*({_ATTENTION})",
}
_NAME = "lora"


class LoraSettings(Settings):
    """Rank, scale (`alpha / rank`), dropout and target layers of an adapter; the defaults are the paper's."""

    rank: int = 64
    alpha: float = 128
    dropout: float = 0.01
    targets: Literal["query-key-value", "all-linear"] = "query-key-value"


def add_lora(model: nn.Module, settings: LoraSettings) -> dict[str, nn.Parameter]:
    """Add a new LoRA (B is zero: it changes nothing until it is trained) and freeze everything else.

    Return its matrices by name, as they are saved; InputError if the model has no layers that the targets match.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=_TARGETS[settings.targets],
        bias="none",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2 stores (in, out)
    )
    try:
        inject_adapter_in_model(config, model, adapter_name=_NAME)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise InputError(
            f"{type(model).__name__} has no layers that match {_TARGETS[settings.targets]}; a LoRA goes onto BERT,"
            " RoBERTa, DeBERTa-v2, DistilBERT, ModernBERT, Llama, Gemma, Qwen, Mistral, GPT-2 or a model whose layers"
            " are named like theirs"
        ) from None
    parameters = lora_parameters(model)
    for parameter in parameters.values():  # AdamW's small steps get lost in bfloat16
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return parameters


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the matrices of the added LoRA by module name, without peft's own part of it."""
    marker = f".{_NAME}.weight"
    return {
        name.replace(marker, ".weight"): parameter
        for name, parameter in model.named_parameters()
        if "lora_" in name and name.endswith(marker)
    }


def fold_lora(model: nn.Module, matrices: Mapping[str, Tensor], settings: LoraSettings, what: str) -> None:
    """Add a saved LoRA to the weights: W + alpha / rank * B A.

    Parameters
    ----------
    matrices : mapping
        `MODULE.lora_A.weight (rank, in)` and `MODULE.lora_B.weight (out, rank)`, as `lora_parameters` names them.
        ArtefactError if they do not fit the model.
    """
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name in (key.removesuffix(".lora_A.weight") for key in matrices if key.endswith(".lora_A.weight")):
            layer, low = modules.get(name), matrices[f"{name}.lora_A.weight"]
            high = matrices.get(f"{name}.lora_B.weight")
            if not isinstance(layer, nn.Linear | Conv1D) or high is None:
                raise ArtefactError(
                    f"{what}: the model has no linear layer {name}; load it with the backbone it was trained on"
                )
            weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight  # (out, in)
            if (high.shape[0], low.shape[1]) != tuple(weight.shape) or high.shape[1] != low.shape[0]:
                raise ArtefactError(
                    f"{what}: {name} has matrices {tuple(high.shape)} and {tuple(low.shape)}, the layer"
                    f" {tuple(weight.shape)}; load it with the backbone it was trained on"
                )
            change = settings.alpha / settings.rank * (high.float() @ low.float())
            change = change.T if isinstance(layer, Conv1D) else change
            layer.weight = nn.Parameter(layer.weight + change.to(layer.weight), requires_grad=False)


def copy_sharing_embeddings(model: Model) -> Model:
    """Copy a model but for its word embeddings (and a head that is tied to them), which both then share."""
    shared = model.get_input_embeddings().parameters()  # type: ignore[union-attr]
    return copy.deepcopy(model, {id(parameter): parameter for parameter in shared})


def order_by_column(model: nn.Module) -> None:
    """Store the weights of the linear layers in column-major order, with the same values and shapes.

    Products with a few rows, such as the tokens of one sentence, then take about a third less time on a CPU. A layer
    that shares its weights with an embedding keeps its order, because an embedding reads whole rows.
    """
    shared = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and id(layer.weight) not in shared:
            layer.weight.data = layer.weight.data.t().contiguous().t()


def copy_tensors(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy tensors by name into parameters of the same shapes."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name not in tensors:
                raise ArtefactError(f"{what} lacks the tensor {name}; the file is of another version or damaged")
            if tensors[name].shape != parameter.shape:
                raise ArtefactError(
                    f"{what}: {name} has shape {tuple(tensors[name].shape)}, the model needs {tuple(parameter.shape)}"
                )
            parameter.copy_(tensors[name])
