"""What a missing library says: advice that works wherever the package came from."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import audiobert
from audiobert import errors
from audiobert.errors import MissingExtraError


def test_the_advice_names_what_an_index_has_and_not_this_package() -> None:
    said = str(MissingExtraError("gradio", "web"))
    assert re.search(r"pip install 'gradio[^']*<7[^']*' .*'jinja2", said)
    assert "audiobert" not in said
    assert str(MissingExtraError("vllm")) == "this needs the library 'vllm': pip install 'vllm'"


def test_a_tree_that_is_not_installed_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> list[str]:
        raise PackageNotFoundError

    monkeypatch.setattr(errors, "requires", absent)
    assert str(MissingExtraError("gradio", "web")).endswith("pip install 'gradio'")


def test_every_extra_that_is_advised_installs_the_library() -> None:
    package = Path(audiobert.__file__).parent
    advised = {
        found
        for file in package.rglob("*.py")
        for found in re.findall(r'(?:MissingExtraError|needs)\("([^"]+)", "(\w+)"\)', file.read_text(encoding="utf-8"))
    }
    assert len(advised) > 8
    for library, extra in advised:
        assert f"'{library.partition('[')[0]}" in str(MissingExtraError(library, extra)).partition("pip install")[2]
