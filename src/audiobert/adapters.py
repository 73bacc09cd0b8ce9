"""LoRA adapters on one shared backbone: inject, switch, save, load. A user's are never merged, so off means off."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from audiobert.errors import ArtefactError, InputError

LANGUAGE = "language"  # with the masked-LM head it makes the plain language model of `mini`
AUDIO = "audio"  # on only where a span was found
DETECTOR = "detector"

# Module names of layers, as regular expressions that peft matches against the whole dotted name: those of BERT, RoBERTa
# and ELECTRA, then DeBERTa-v2, DistilBERT, ModernBERT (one matrix for all three).
_ATTENTION = r"(query|key|value)(_proj)?|[qkv]_lin|Wqkv"
ALL_LINEAR = rf".*\.layers?\.\d+\..*({_ATTENTION}|dense|out_lin|lin[12]|W[io])"
QUERY_KEY_VALUE = rf".*\.layers?\.\d+\..*({_ATTENTION})"


@dataclass(frozen=True)
class LoraSettings:
    """Rank, scale (`alpha / rank`), dropout and target modules of an adapter; the defaults are the paper's."""

    rank: int = 64
    alpha: int = 128
    dropout: float = 0.01
    targets: str = QUERY_KEY_VALUE

    def to_json(self) -> dict[str, object]:
        return asdict(self)


class Adapters:
    """The adapters of one backbone and the switch that says which are on.

    The switch belongs to the backbone, which several rooms share; `on` holds a lock while its block runs, so that
    threads take turns and none computes with another's adapters.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._lock = threading.RLock()
        self._layers: list[Any] = []
        self._on: tuple[str, ...] = ()

    def add(self, name: str, settings: LoraSettings) -> None:
        """Inject a new adapter (B is zero: it changes nothing until it is trained); all adapters are off after."""
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=settings.targets,
            bias="none",
        )
        wanted = {key: parameter.requires_grad for key, parameter in self.model.named_parameters()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are the point
            try:
                inject_adapter_in_model(config, self.model, adapter_name=name)
            except ValueError as error:
                if "arget modules" not in str(error):
                    raise
                raise InputError(
                    f"{type(self.model).__name__} has no layers that match {settings.targets}; a LoRA goes onto BERT,"
                    " RoBERTa, DeBERTa-v2, DistilBERT, ModernBERT or a model whose layers are named like theirs"
                ) from None
        for key, parameter in self.model.named_parameters():
            parameter.requires_grad_(wanted.get(key.replace(".base_layer.", "."), False))
        self._layers = [module for module in self.model.modules() if isinstance(module, LoraLayer)]
        self.set()

    def set(self, *names: str, train: str | None = None) -> None:
        """Switch exactly these adapters on; `train` names the one whose weights receive gradients."""
        # Not through peft's set_adapter: it walks over all adapters of all layers to set requires_grad, which takes
        # milliseconds a switch and would end the training of an adapter that is switched off for a moment.
        for layer in self._layers:
            layer._active_adapter = list(names)
        self._on = names
        if train is not None:
            for parameter in self.parameters(train).values():
                parameter.requires_grad_(True)

    @contextmanager
    def on(self, *names: str) -> Iterator[None]:
        """Run a block with exactly these adapters on; what was on before is on again after it."""
        with self._lock:
            before = self._on
            if before != names:
                self.set(*names)
            try:
                yield
            finally:
                if before != names:
                    self.set(*before)

    def fold(self, name: str) -> None:
        """Add an adapter into the backbone's weights for good and forget it.

        For a training process alone: what stays on in every step need not be multiplied in every step.
        """
        with torch.no_grad():
            for layer in self._layers:
                if name in layer.lora_A:
                    layer.get_base_layer().weight += layer.get_delta_weight(name)
                    layer.delete_adapter(name)
        self.set(*(kept for kept in self._on if kept != name))

    def parameters(self, name: str) -> dict[str, nn.Parameter]:
        """LoRA matrices of one adapter, by module name without peft's prefixes."""
        marker = f".{name}.weight"
        return {
            key.replace(marker, ".weight"): parameter
            for key, parameter in self.model.named_parameters()
            if "lora_" in key and key.endswith(marker)
        }

    def state(self, name: str) -> dict[str, Tensor]:
        """The weights of one adapter as float16 tensors, ready to be saved."""
        return {key: value.detach().cpu().half().contiguous() for key, value in self.parameters(name).items()}

    def load(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Copy saved weights into an adapter.

        Raises
        ------
        ArtefactError
            Names or shapes differ from those of the adapter.
        """
        parameters = self.parameters(name)
        if missing := parameters.keys() ^ tensors.keys():
            raise ArtefactError(
                f"the saved adapter '{name}' does not fit this backbone: {len(missing)} matrices differ, the first is"
                f" {min(missing)}; load it with the backbone it was trained on"
            )
        copy_tensors(parameters, tensors, f"adapter '{name}'")


def copy_tensors(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy tensors by name into parameters of the same shapes.

    Raises
    ------
    ArtefactError
        A tensor is missing or has another shape.
    """
    with torch.no_grad():
        for key, parameter in parameters.items():
            if key not in tensors:
                raise ArtefactError(f"{what} lacks the tensor {key}; the file is of another version or damaged")
            if tensors[key].shape != parameter.shape:
                raise ArtefactError(
                    f"{what}: {key} has shape {tuple(tensors[key].shape)}, the model wants {tuple(parameter.shape)}"
                )
            parameter.copy_(tensors[key])
