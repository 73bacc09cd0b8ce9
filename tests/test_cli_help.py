"""Help of the commands: what each does, and an example that a user may copy."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from audiobert.cli import app, run
from audiobert.model_folder import model_folder

# Those whose example needs no more than the shipped model and a bank called my-bank, and takes a moment.
CHEAP = {
    "fill-mask", "spans", "search", "config", "bank info", "bank verify", "bank export", "construct schema", ""
}  # fmt: skip


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all commands and groups with their names."""
    yield name, command
    for inner_name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {inner_name}".strip())


ALL = dict(commands(typer.main.get_command(app)))
LEAVES = [name for name, command in ALL.items() if not hasattr(command, "commands")]


def example(name: str) -> list[str]:
    """Return the arguments of a command's example, without `audiobert` and what follows `>`."""
    found = re.search(r"Example: audiobert (.*)", ALL[name].help or "")
    assert found, f"{name} has no example"
    return shlex.split(found[1].partition(" > ")[0])


def parse(arguments: list[str]) -> None:
    """Parse the arguments of a command as typer does, without running it."""
    command: Any = ALL[""]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    command.make_context("audiobert", arguments)


@pytest.mark.parametrize("name", ALL)
def test_help_begins_with_what_the_command_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = (ALL[name].help or "").split()[0]
    assert first[0].isupper()
    assert first not in ("A", "An", "The", "All", "What", "How", "This", "Command", "Returns")
    assert not first.endswith(("ing", "s,", "tion"))
    assert run([*name.split(), "--help"]) == 0
    assert "Usage: audiobert" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*LEAVES, ""])
def test_every_example_has_a_form_that_the_command_takes(name: str) -> None:
    arguments = example(name)
    assert " ".join(arguments).startswith(name)
    parse(arguments)


@pytest.mark.parametrize("name", sorted(CHEAP))
def test_examples_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder("mini") / "bank", tmp_path / "my-bank")
    assert run(example(name)) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fill-maks"], "Did you mean 'fill-mask'? See 'audiobert --help'."),
        (["train", "detectr"], "Did you mean 'detector'? See 'audiobert train --help'."),
        (["evaluate"], "See 'audiobert evaluate --help'."),
        (["evaluate", "control:majority", "--format", "cvs"], "'cvs' is not one of"),
        (["bank", "build", "--out"], "See 'audiobert bank build --help'."),
        (["spans", " "], "text 1 is empty"),
    ],
)
def test_bad_usage_points_at_the_help_of_the_command(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
