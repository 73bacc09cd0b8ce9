"""From a folder or hub id to a model of transformers, with what it is; no remote code, no pickles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audiobert.artefacts import read_json, sha256_of
from audiobert.errors import InputError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Kind = Literal["masked", "causal"]
# What a file of weights is looked for by; others are never opened.
_WEIGHTS = "*.safetensors"


def pick_device(device: str | None) -> str:
    """The device that is asked for, else a GPU when there is one.

    Raises
    ------
    InputError
        When the device is not there.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"no device '{device}' here ({str(error).splitlines()[0]}): give --device cpu") from None
    return device


def read_config(name: str) -> PretrainedConfig:
    """The model's config, from a folder or the hub.

    Raises
    ------
    InputError
        When there is no such model, or its config is of no kind that transformers knows.
    """
    from huggingface_hub.utils import logging
    from transformers import AutoConfig

    logging.set_verbosity_error()  # its retries are no news to a user; the error below says it all
    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"no model '{name}' ({reason}): wanted 'mini', a preset, a folder, a hub id, control:majority or "
            "control:bag-of-words"
        ) from None


def kind_of(config: PretrainedConfig) -> Kind | None:
    """Whether a model is masked or causal, by the architecture that its config names."""
    names = " ".join(config.architectures or [])
    if "MaskedLM" in names or "ForPreTraining" in names:
        return "masked"
    if any(word in names for word in ("CausalLM", "LMHeadModel", "ConditionalGeneration")):
        return "causal"
    return None


def load_pretrained(
    name: str, kind: Kind, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """Load a model and its tokenizer: float32 on a CPU, bfloat16 on a GPU.

    Raises
    ------
    InputError
        When the model, its weights (as safetensors) or its tokenizer cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    factory: Any = AutoModelForMaskedLM if kind == "masked" else AutoModelForCausalLM
    dtype = torch.bfloat16 if device.startswith("cuda") and torch.cuda.is_bf16_supported() else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = factory.from_pretrained(name, dtype=dtype, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"cannot load the {kind} language model '{name}': {reason}") from None
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of '{name}' has no fast form, which is needed to know where a word stands")
    artefacts: dict[str, Any] = {"name": name, "dtype": str(dtype).removeprefix("torch."), "device": device}
    revision = getattr(model.config, "_commit_hash", None)
    if revision:
        artefacts["revision"] = revision
    if Path(name).is_dir():
        artefacts["sha256"] = {path.name: sha256_of(path) for path in sorted(Path(name).glob(_WEIGHTS))}
    return model.to(device), tokenizer, artefacts


def is_audiobert_folder(folder: Path) -> bool:
    """Whether a folder holds an AudioBERT, whose `config.json` says so, and not a plain language model."""
    config = folder / "config.json"
    if not config.is_file():
        return False
    content = read_json(config)
    return isinstance(content, dict) and content.get("format") == "audiobert"


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer by itself; `mini` is the tokenizer of the mini preset's language model.

    Raises
    ------
    InputError
        When there is no such tokenizer.
    """
    if name == "mini":
        from audiobert.backbone import load_backbone

        return load_backbone("mini").tokenizer
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"no tokenizer '{name}' ({reason}): give 'mini', a folder or a hub id") from None
