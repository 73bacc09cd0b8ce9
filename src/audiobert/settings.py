"""Read typed settings from YAML files and from `--set key=value`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from audiobert.configs import find_config
from audiobert.errors import InputError

EXTENDS = "extends"  # the key of a YAML file that names the file whose settings it changes
KeyPath = tuple[str, ...]
# What PyYAML raises on text that is no YAML: ValueError on the date 2026-13-45, AttributeError on "!!timestamp x".
NO_YAML = (yaml.YAMLError, ValueError, RecursionError, AttributeError)


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, instances do not change. A part may nest another pydantic model.

    Examples
    --------
    >>> class Training(Settings):
    ...     epochs: int = 3
    >>> Training.load(set=["epochs=5"])
    Training(epochs=5)
    >>> Training.load(set=["epoch=5"])
    Traceback (most recent call last):
    audiobert.errors.InputError: --set epoch=5: unknown key 'epoch'; did you mean epochs?
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def load(
        cls, path: str | Path | None = None, overrides: Mapping[str, Any] | None = None, set: Sequence[str] = ()
    ) -> Self:
        """Read settings from a YAML file; later sources win: defaults, `extends`, the file, `set`, `overrides`.

        Parameters
        ----------
        path
            A YAML mapping, or the name of a config that ships. With `extends: other.yaml` (relative to this file, or
            one that ships) it says only what differs from that file; nested mappings are merged, other values replace.
        overrides
            Values by key; those that are None change nothing.
        set
            `key=value` each, with dots between the keys of nested settings; the value is read as YAML.

        InputError if a file is missing or is no YAML mapping, a key is unknown, or a value does not fit.
        """
        # Nested settings change single values of the part's own default, not of the nested class's.
        values: dict[str, Any] = {
            name: field.default.model_dump()
            for name, field in cls.model_fields.items()
            if isinstance(field.default, BaseModel) and type(field.default) is field.annotation
        }
        sources: dict[KeyPath, str] = {}
        for source, mapping in _mappings(path, set, overrides or {}):
            _merge(values, mapping, sources, source)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(_explain(cls, error, sources, str(path or "the settings"))) from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key that occurs twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {repeated[0]!r} occurs twice", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def _mappings(
    path: str | Path | None, assignments: Sequence[str], overrides: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the sources of settings with their names, the weakest first."""
    for file in _extended(path):
        yield str(file), {key: value for key, value in _read(file).items() if key != EXTENDS}
    for assignment in assignments:
        yield f"--set {assignment}", _assigned(assignment)
    yield "the command line", {key: value for key, value in overrides.items() if value is not None}


def _extended(given: str | Path | None) -> list[Path]:
    """Return a file after the files that it extends."""
    chain: list[Path] = []
    path = find_config(given) if given is not None else None
    while path is not None:
        if any(path.resolve() == other.resolve() for other in chain):
            raise InputError(f"{chain[-1]}: extends {path}, which extends this file; end the circle")
        chain.append(path)
        parent = _read(path).get(EXTENDS)
        if parent is not None and not isinstance(parent, str):
            raise InputError(f"{path}: extends is {parent!r}; the name of one YAML file is wanted")
        path = find_config(parent, folder=path.parent) if parent is not None else None
    return chain[::-1]


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises
    ------
    InputError
        It cannot be read, is no YAML, or has a key twice in one mapping.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_UniqueKeys)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); a YAML file is wanted") from None
    except NO_YAML as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def _read(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path} holds no mapping of settings; lines such as 'epochs: 3' are wanted")
    return values


def _assigned(assignment: str) -> dict[str, Any]:
    """Return the nested mapping that `key=value` stands for.

    >>> _assigned("lora.rank=8")
    {'lora': {'rank': 8}}
    """
    key, equals, text = assignment.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"--set {assignment}: key=value is wanted, such as epochs=3 or lora.rank=8")
    try:
        value: Any = yaml.load(text, Loader=_UniqueKeys)
    except NO_YAML as error:
        raise InputError(f"--set {assignment}: the value is not YAML: {' '.join(str(error).split())}") from None
    for part in reversed(keys):
        value = {part: value}
    return value


def _merge(
    values: dict[str, Any], changes: Mapping[str, Any], sources: dict[KeyPath, str], source: str, at: KeyPath = ()
) -> None:
    """Change nested settings in place and note where each value comes from."""
    for key, value in changes.items():
        here = (*at, str(key))
        if isinstance(value, Mapping):
            if not isinstance(values.get(key), dict):
                values[key], sources[here] = {}, source
            _merge(values[key], value, sources, source, here)
        else:
            values[key], sources[here] = value, source


def _explain(model: type[BaseModel], error: ValidationError, sources: Mapping[KeyPath, str], otherwise: str) -> str:
    """Return one line on the first fault: where it stands, the key, and what is wanted."""
    first, *others = error.errors()
    path = tuple(str(part) for part in first["loc"])
    ends = (path[:length] for length in range(len(path), 0, -1))
    where = next((sources[end] for end in ends if end in sources), otherwise)
    key = ".".join(path)
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}; {suggestion(model, path)}{more}"
    if first["type"] == "missing":
        return f"{where}: the key {key!r} is missing{more}"
    reason = first["msg"].removeprefix("Value error, ")
    given = f"{key} is {first['input']!r}: " if path else ""
    return " ".join(f"{where}: {given}{reason}{more}".split())


def suggestion(model: type[BaseModel], path: KeyPath) -> str:
    """Return the known key that an unknown one comes nearest to, or all keys of its part, as advice."""
    part = [key for key in path[:-1] if not key.isdigit()]
    everywhere = list(_key_paths(model))
    siblings = [known for known in everywhere if known.split(".")[:-1] == part]
    wanted = ".".join(path)
    same_name = [known for known in everywhere if known.rpartition(".")[2] == path[-1]]
    near = difflib.get_close_matches(wanted, siblings, 1) or same_name[:1]
    near = near or difflib.get_close_matches(wanted, everywhere, 1)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(siblings)}"


def _key_paths(model: type[BaseModel], at: KeyPath = ()) -> Iterator[str]:
    """Yield all keys, with dots between those of nested settings."""
    for name, field in model.model_fields.items():
        yield ".".join((*at, name))
        for inner in _models_in(field.annotation):
            yield from _key_paths(inner, (*at, name))


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    """Return the settings within a type such as `Lora | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
