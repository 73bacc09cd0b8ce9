"""Read the measured attributes that sounds are compared by, each from a YAML file with its words and sentences."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from audiobert.errors import InputError
from audiobert.settings import Settings


class Extremes(Settings):
    """Words for a single sound: `words` of one that measures much, and of one that measures little.

    Templates have `{x}` and one `[MASK]`.
    """

    words: tuple[str, str]
    templates: tuple[str, ...] = Field(min_length=1)


class Attribute(Settings):
    """One attribute.

    Attributes
    ----------
    measure
        Column of a bank's table.
    words
        What is said of a sound that measures more, and of one that measures less.
    min_ratio
        Pairs with a smaller ratio of the two measurements make no question.
    weight
        How often training draws it, relative to the other attributes.
    templates
        Sentences with `{x}`, `{y}` and one `[MASK]`.
    extremes
        How single sounds are spoken of, where they are.
    """

    name: str
    measure: str
    words: tuple[str, str]
    min_ratio: float = Field(default=1.1, gt=1.0)
    weight: float = Field(default=1.0, ge=0.0)
    templates: tuple[str, ...] = Field(min_length=1)
    extremes: Extremes | None = None


def read_attribute(path: Path) -> Attribute:
    """Read an attribute from its YAML file."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Attribute.model_validate(values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read the attribute file {path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path} is no attribute: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def builtin_attributes() -> list[Attribute]:
    """Return the attributes that ship with the package, by name."""
    folder = Path(str(files("audiobert.auditorybench.tasks"))) / "attributes"
    return [read_attribute(path) for path in sorted(folder.glob("*.yaml"))]
