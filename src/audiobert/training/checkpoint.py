"""What a training run leaves on disk while it goes: the state to go on from, and the best epoch's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiobert.artefacts import read_json, whole_file, write_json
from audiobert.errors import ArtefactError

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state of a parameter


class Checkpoint:
    """Weights, optimizer moments and averages of one run, in one safetensors file that appears whole.

    `best_path` holds the weights of the best epoch so far.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.weights_path = folder / "checkpoint.safetensors"
        self.best_path = folder / "best.safetensors"
        self.settings_path = folder / "settings.json"
        self.settings = json.loads(json.dumps(settings))

    def begin(self, resume: bool) -> bool:
        """Whether there is a checkpoint of the same settings to go on from."""
        if resume and self.weights_path.exists():
            # What is kept is chosen after training; a setting that an older version did not have was at its default.
            before, now = read_json(self.settings_path), self.settings
            if other := [key for key in before if key in now and key != "keep" and before[key] != now[key]]:
                raise ArtefactError(
                    f"{self.settings_path} was written with other settings ({other[0]}: {before[other[0]]}, now"
                    f" {now[other[0]]}); resume with those, or give another --out"
                )
            return True
        return False

    def clear(self) -> None:
        """Forget an earlier run in the same folder."""
        self.weights_path.unlink(missing_ok=True)
        self.best_path.unlink(missing_ok=True)
        write_json(self.settings_path, self.settings)

    def save_best(self, parameters: dict[str, nn.Parameter], epoch: int, value: float) -> None:
        """Keep the weights of this epoch if its figure is higher than that of the best so far."""
        if self.best_path.exists() and value <= self.best()["value"]:
            return
        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in parameters.items()}
        with whole_file(self.best_path) as part:
            save_file(weights, part, {"epoch": str(epoch), "value": repr(value)})

    def best(self) -> dict[str, float]:
        """Epoch and figure of the best weights."""
        with safe_open(str(self.best_path), "pt") as file:
            said = file.metadata()
        return {"epoch": int(said["epoch"]), "value": float(said["value"])}

    def save(self, tensors: dict[str, Tensor], step: int) -> None:
        with whole_file(self.weights_path) as part:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, {"step": str(step)})

    def load(self) -> tuple[dict[str, Tensor], int]:
        with safe_open(str(self.weights_path), "pt") as file:
            step = int(file.metadata()["step"])
        return load_file(self.weights_path), step


def state(
    parameters: dict[str, nn.Parameter], optimizer: Any, averages: dict[str, Tensor], buffers: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Everything that a run goes on from, by name; without an optimizer, what remains of a finished one."""
    tensors: dict[str, Tensor] = {f"weight:{name}": parameter for name, parameter in parameters.items()}
    tensors |= {f"buffer:{name}": tensor for name, tensor in buffers.items()}
    tensors |= {f"average:{name}": tensor for name, tensor in averages.items()}
    for name, parameter in parameters.items():
        for moment, value in (optimizer.state.get(parameter, {}) if optimizer else {}).items():
            tensors[f"{moment}:{name}"] = torch.as_tensor(value)
    return tensors


def restore(
    checkpoint: Checkpoint,
    parameters: dict[str, nn.Parameter],
    optimizer: Any,
    averages: dict[str, Tensor],
    buffers: dict[str, Tensor],
) -> int:
    """Put a saved state back; the number of steps that it has behind it."""
    tensors, step = checkpoint.load()
    with torch.no_grad():
        for name, tensor in buffers.items():
            tensor.copy_(tensors[f"buffer:{name}"])
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight:{name}"])
            if name in averages:
                averages[name].copy_(tensors[f"average:{name}"])
            moments = {m: tensors[f"{m}:{name}"] for m in _MOMENTS if f"{m}:{name}" in tensors}
            if moments:
                optimizer.state[parameter] = {
                    m: v.to(parameter.device) if m != "step" else v for m, v in moments.items()
                }
    return step
