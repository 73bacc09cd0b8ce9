"""Keep the files of a training run: the state to resume from, the best epoch's weights, the log."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audiobert.artefacts import read_json, whole_file, write_json, write_text
from audiobert.errors import ArtefactError, InputError

STATE = "checkpoint.safetensors"
BEST = "best.safetensors"
SETTINGS = "settings.json"
LOG = "log.jsonl"


@dataclass
class Progress:
    """Place of a run: steps taken, sums over the steps of the current epoch, and the log of the finished epochs."""

    step: int = 0
    loss: float = 0.0
    terms: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)


class Checkpoint:
    """State of one run in one safetensors file that appears whole: weights, optimizer moments, averages, progress.

    A checkpoint of other settings is refused, except for those in `not_compared`, which do not change the training.
    """

    def __init__(self, folder: Path, settings: BaseModel, not_compared: Collection[str] = ()) -> None:
        self.folder, self.settings, self.not_compared = folder, settings, set(not_compared)
        self.best_path = folder / BEST

    def begin(self, *, resume: bool, overwrite: bool) -> bool:
        """Return whether there is a state to continue from; InputError if another training's weights are there."""
        there = (self.folder / STATE).exists()
        if resume and there:
            self._compare_settings()
            return True
        others = sorted(path.name for path in self.folder.glob("*.safetensors") if path.name != BEST or not resume)
        if others and not overwrite:
            advice = "give --resume to continue it, --overwrite to replace it" if there else "give --overwrite to do so"
            raise InputError(
                f"{self.folder} holds {', '.join(others)}, which a new training would replace; {advice}, or another"
                " --out"
            )
        return False

    def clear(self) -> None:
        """Remove the state of an earlier run and write the settings of this one."""
        for name in (STATE, BEST, LOG):
            (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / SETTINGS, self.settings.model_dump(mode="json"))

    def save_best(self, parameters: Mapping[str, nn.Parameter], epoch: int, value: float) -> None:
        """Keep the weights of this epoch if its figure is higher than that of the best so far."""
        if self.best_path.exists() and value <= float(_header(self.best_path)["value"]):
            return
        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in parameters.items()}
        _save(self.best_path, weights, {"epoch": epoch, "value": value})

    def best(self) -> dict[str, Tensor]:
        """Return the weights of the best epoch by name."""
        if not self.best_path.exists():
            raise ArtefactError(f"{self.best_path} is missing; set keep to average or last, or train again")
        return load_file(self.best_path)

    def save(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Write the state; it holds the log, too."""
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        _save(self.folder / STATE, kept, asdict(progress))

    def write_log(self, progress: Progress) -> None:
        """Write the log of the finished epochs, one line of JSON per epoch."""
        write_text(self.folder / LOG, "".join(json.dumps(entry) + "\n" for entry in progress.log))

    def load(self) -> tuple[dict[str, Tensor], Progress]:
        """Return the tensors and the place of the saved state."""
        path = self.folder / STATE
        progress = Progress(**_header(path))  # refuses a damaged file
        return load_file(path), progress

    def _compare_settings(self) -> None:
        """Refuse settings that differ; one that the file lacks was at its default, one that is gone is passed over."""
        path = self.folder / SETTINGS
        for key, was, now in _changes("", read_json(path), self.settings):
            if key.partition(".")[0] not in self.not_compared:
                raise ArtefactError(
                    f"{path} was written with other settings ({key}: {was}, now {now}); resume with those, or give"
                    " another --out"
                )


def _save(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors; the header is one entry, since safetensors writes several in random order."""
    with whole_file(path) as part:
        save_file(tensors, part, {"header": json.dumps(header)})


def _header(path: Path) -> dict[str, Any]:
    try:
        with safe_open(str(path), "pt") as file:
            return json.loads(file.metadata()["header"])
    except (SafetensorError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{path} is damaged or of another version ({error}); train again with --overwrite"
        ) from None


def _changes(key: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, earlier and present value where settings differ; what was not saved was at its default."""
    if isinstance(now, BaseModel) and isinstance(was, Mapping):
        defaults = type(now).model_construct()
        for name, value in now:
            earlier = was[name] if name in was else to_jsonable_python(getattr(defaults, name, None))
            yield from _changes(f"{key}.{name}" if key else name, earlier, value)
    elif was != to_jsonable_python(now):
        yield key, was, to_jsonable_python(now)


def state(
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer | None,
    averages: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return everything that a resumed run needs, by name; a finished run needs no optimizer."""
    tensors: dict[str, Tensor] = {f"weight:{name}": parameter for name, parameter in parameters.items()}
    tensors |= {f"buffer:{name}": tensor for name, tensor in buffers.items()}
    tensors |= {f"average:{name}": tensor for name, tensor in averages.items()}
    for name, parameter in parameters.items():
        for moment, value in (optimizer.state.get(parameter, {}) if optimizer else {}).items():
            tensors[f"{moment}:{name}"] = torch.as_tensor(value)
    return tensors


def restore(
    tensors: Mapping[str, Tensor],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    averages: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
) -> None:
    """Copy a saved state back."""
    kinds: dict[str, Mapping[str, Tensor]] = {"weight": parameters, "buffer": buffers, "average": averages}
    with torch.no_grad():
        for full_name, tensor in tensors.items():
            kind, _, name = full_name.partition(":")
            if kind in kinds:
                kinds[kind][name].copy_(tensor)
            else:  # a moment of AdamW; its number of steps stays on the CPU
                parameter = parameters[name]
                moment = torch.empty_like(tensor, device="cpu" if kind == "step" else parameter.device)
                optimizer.state[parameter][kind] = moment.copy_(tensor)
