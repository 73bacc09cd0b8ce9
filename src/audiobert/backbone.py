"""Load transformers models by name (`mini`, `smollm2`, a hub id, a folder), with their tokenizers and checksums."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from audiobert.artefacts import sha256_of
from audiobert.errors import ArtefactError, InputError
from audiobert.hub import HubAccess, fetch, first_line
from audiobert.packaged import PACKAGED, find_packaged

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Files that are fetched of a model: weights as safetensors, tokenizer, settings; no code, no pickles.
TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
MODEL_FILES = ("*.safetensors", *TOKENIZER_FILES)

# Weights that some checkpoints lack and nothing here reads.
UNUSED_WEIGHTS = ("pooler.dense.weight", "pooler.dense.bias", "masked_spec_embed")

Kind = Literal["masked", "causal"]
Dtype = Literal["float32", "bfloat16"]
_AUTO_CLASS: dict[Kind, Any] = {"masked": AutoModelForMaskedLM, "causal": AutoModelForCausalLM}
# What the names of architectures contain, by kind.
_ARCHITECTURES: dict[Kind, tuple[str, ...]] = {
    "masked": ("MaskedLM", "ForPreTraining"),
    "causal": ("CausalLM", "LMHeadModel", "ConditionalGeneration"),
}

# Sets of published models by role. `mini` is not among them: it is made of trained parts.
PRESETS: dict[str, dict[str, str]] = {
    "paper-base": {
        "language_model": "google-bert/bert-base-uncased",
        "clap": "laion/clap-htsat-fused",
        "audio_encoder": "MIT/ast-finetuned-audioset-10-10-0.4593",
    },
    "paper-large": {
        "language_model": "google-bert/bert-large-uncased",
        "clap": "laion/clap-htsat-fused",
        "audio_encoder": "MIT/ast-finetuned-audioset-10-10-0.4593",
    },
}


@dataclass(frozen=True)
class Identity:
    """Identify a loaded model, to load it again and to refuse another.

    `origin` is where it was found (`package:…`, `hub:…` or `folder:…`), `revision` the hub's commit, and `sha256` maps
    each weights file to its checksum.
    """

    name: str
    origin: str
    revision: str | None
    sha256: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Published:
    """Name a published model (hub id or folder), of which only weights with these checksums are accepted, if any."""

    name: str
    revision: str | None = None
    sha256: dict[str, str] | None = None
    dtype: Dtype = "float32"

    @classmethod
    def of(cls, identity: Identity, dtype: Dtype = "float32") -> Published:
        """Return the name under which a loaded model is loaded again."""
        folder = identity.origin.startswith("folder:") and identity.name not in PACKAGED
        name = str(Path(identity.name).expanduser().resolve()) if folder else identity.name
        return cls(name, identity.revision, identity.sha256, dtype)

    def check(self, identity: Identity) -> None:
        """Raise ArtefactError if a loaded model has weights with other checksums."""
        if self.sha256 is not None and self.sha256 != identity.sha256:
            raise ArtefactError(
                f"{self.name} has weights with the SHA-256 {identity.sha256}, but {self.sha256} were trained on;"
                " restore those, or train again"
            )


@dataclass(frozen=True)
class Backbone:
    """Hold a language model, its tokenizer and its identity."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: Identity

    def describe(self) -> dict[str, Any]:
        """Return identity, type and device as JSON values."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {**self.identity.to_json(), "dtype": dtype, "device": str(self.model.device)}


def load_backbone(
    name: str = "mini",
    *,
    revision: str | None = None,
    attention: str | None = None,
    hub: HubAccess | None = None,
) -> Backbone:
    """Load a masked language model by name; its head may be missing, as that of `mini`, which a trained part brings."""
    return load_language_model(name, "masked", revision=revision, attention=attention, whole=False, hub=hub)


def load_language_model(
    name: str,
    kind: Kind | None = None,
    *,
    revision: str | None = None,
    attention: str | None = None,
    whole: bool = True,
    device: torch.device | None = None,
    dtype: Dtype | None = None,
    hub: HubAccess | None = None,
) -> Backbone:
    """Load a masked or causal language model by name; for its errors see also `find_model`.

    Parameters
    ----------
    kind : str, optional
        By default what the model's config says.
    attention : str, optional
        transformers' attention implementation; by default the fastest that the model has. `eager` trains about twice
        as fast in bfloat16 on a CPU.
    whole : bool
        Require every weight, the head included.
    dtype : str, optional
        By default `float32`, but `bfloat16` where `device` is a CUDA device that supports it.
    """
    folder, origin, commit = find_model(name, revision, hub=hub)
    checksums = weights_checksums(folder)
    kind = kind or language_model_kind(folder, name) or "masked"
    tokenizer = load_tokenizer(folder, name)
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise InputError(f"{name} has no mask token; a masked language model (BERT, RoBERTa, ModernBERT ...) is wanted")
    on_cuda = device is not None and device.type == "cuda"
    fast = on_cuda and torch.cuda.is_bf16_supported()
    chosen = getattr(torch, dtype or ("bfloat16" if fast else "float32"))
    model = load_weights(_AUTO_CLASS[kind], folder, name, whole=whole, dtype=chosen, attn_implementation=attention)
    return Backbone(model.to(device) if device else model, tokenizer, Identity(name, origin, commit, checksums))


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the given device, or by default the accelerator if there is one, else the CPU; InputError if not there."""
    if device is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = first_line(error)
        raise InputError(f"no device '{device}' here ({reason}): give cpu, or leave the device out") from None
    return chosen


def find_model(
    name: str, revision: str | None = None, *, files: Sequence[str] = MODEL_FILES, hub: HubAccess | None = None
) -> tuple[Path, str, str | None]:
    """Return folder, origin and commit of a model: `mini`, `smollm2`, a folder, or a hub id.

    Of the hub, files that match the patterns are fetched, or read from the local cache when offline. ArtefactError if
    there is no such model or revision, RemoteError if the hub cannot be reached or refuses.
    """
    if name in PACKAGED:
        return find_packaged(name, files, revision, hub)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, f"folder:{folder.name}", None
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ArtefactError(f"{name} is not a folder; give a folder with a saved model, a hub id, or 'mini'")
    snapshot = fetch(name, files, revision, hub)
    return snapshot, f"hub:{name}", snapshot.name


def weights_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each weights file of a folder, by name."""
    gguf = gguf_of(folder)
    return {path.name: sha256_of(path) for path in ([gguf] if gguf else sorted(folder.glob("*.safetensors")))}


def gguf_of(folder: Path) -> Path | None:
    """Return the GGUF file of a folder that has no weights as safetensors, or None; InputError if it cannot be read."""
    found = [] if any(folder.glob("*.safetensors")) else sorted(folder.glob("*.gguf"))
    if len(found) > 1:
        raise InputError(f"{folder} has {len(found)} GGUF files; give a folder with the one to load")
    if found and not find_spec("gguf"):
        raise InputError(f"{found[0]} is a GGUF file, which the package gguf reads: pip install gguf")
    return found[0] if found else None


def _gguf_option(folder: Path) -> dict[str, str]:
    """Return what `from_pretrained` wants to know of a folder whose weights are a GGUF file."""
    gguf = gguf_of(folder)
    return {"gguf_file": gguf.name} if gguf else {}


def read_config(folder: Path, name: str) -> PretrainedConfig:
    """Read the config of a model folder; ArtefactError if transformers knows no such model."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, **_gguf_option(folder))
    except Exception as error:
        raise ArtefactError(f"cannot read the config.json of {name} in {folder}: {first_line(error)}") from error


def model_type(folder: Path, name: str) -> str:
    """Return the type of a model folder in transformers' words (`bert`, `clap`, ...); see `read_config`."""
    return str(read_config(folder, name).model_type)


def language_model_kind(folder: Path, name: str) -> Kind | None:
    """Return the kind of a language model by the architecture in its config, or None; see `read_config`."""
    if gguf_of(folder):
        return "causal"
    names = " ".join(read_config(folder, name).architectures or [])
    return next((kind for kind, parts in _ARCHITECTURES.items() if any(part in names for part in parts)), None)


def load_extractor(auto_class: Any, folder: Path, name: str) -> Any:
    """Load a tokenizer or a feature extractor from a folder, without remote code; ArtefactError if there is none."""
    options = _gguf_option(folder)
    try:
        with _quiet_transformers():
            return auto_class.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:
        what = "feature extractor" if "Feature" in auto_class.__name__ else "tokenizer"
        raise ArtefactError(f"{name} has no {what} that can be loaded: {first_line(error)}") from error


def load_weights(
    auto_class: Any, folder: Path, name: str, *, whole: bool = False, dtype: torch.dtype = torch.float32, **options: Any
) -> Any:
    """Load a model class from a folder, from safetensors or one GGUF file, without remote code.

    ArtefactError if the folder is damaged, has no weights of these forms, holds another model, or lacks some of the
    weights of a `whole` one. The options go to `from_pretrained`.
    """
    gguf = _gguf_option(folder)
    if not gguf and not any(folder.glob("*.safetensors")):
        raise ArtefactError(
            f"{name} has no weights as safetensors in {folder}; give a revision that has them, or load it with"
            " transformers and save_pretrained it into a folder"
        )
    try:
        # A bar that transformers draws of every GGUF file goes to the standard error, whatever is set.
        with _quiet_transformers(), redirect_stderr(io.StringIO()) if gguf else nullcontext():
            model, report = auto_class.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=dtype,
                output_loading_info=True,
                **options,
                **gguf,
            )
    except Exception as error:  # transformers and safetensors raise many kinds: each is a damaged or unfit folder
        raise ArtefactError(f"cannot load {name} from {folder}: {first_line(error)}") from error
    absent = sorted(key for key in report["missing_keys"] if not key.endswith(UNUSED_WEIGHTS))
    if whole and absent:
        raise ArtefactError(
            f"{name} lacks {len(absent)} weights of a {type(model).__name__}, the first is {absent[0]}; give a model"
            " that was trained as one"
        )
    return model


def load_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder; ArtefactError if there is none, InputError if it is not a fast one."""
    tokenizer = load_extractor(AutoTokenizer, folder, name)
    if not tokenizer.is_fast:
        raise InputError(f"{name} has no fast tokenizer; spans need its character offsets")
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):  # transformers makes an empty one of no files
        raise ArtefactError(f"{name} has no tokenizer in {folder}; put its tokenizer.json there")
    return tokenizer


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' messages and progress bars, and restore them: errors of loading are raised here."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
