"""Find the configs that ship with the package by name: `audiobert config paper-base` prints one."""

from __future__ import annotations

import difflib
from pathlib import Path

from audiobert.errors import InputError

FOLDER = Path(__file__).parent


def config_names() -> list[str]:
    """Return the names of the configs that ship.

    >>> "paper-base" in config_names() and "mini/detector" in config_names()
    True
    """
    return sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))


def find_config(given: str | Path, *, folder: Path = Path()) -> Path:
    """Return the file of a config: a YAML file (relative to `folder`), or one that ships, by its name.

    Raises
    ------
    InputError
        There is neither.
    """
    file, names = folder / given, config_names()
    name = Path(given).as_posix().removesuffix(".yaml")
    if name in names and not file.is_file():
        return FOLDER / f"{name}.yaml"
    if file.exists() and not file.is_dir():
        return file
    near = difflib.get_close_matches(name.removeprefix("configs/"), names, 1, cutoff=0.7)
    known = f"did you mean {near[0]}?" if near else f"these ship: {', '.join(names)}"
    raise InputError(f"no config {file}: give a YAML file or the name of a config that ships; {known}")
