"""Complete the documentation site: model card, help of the commands, and a check that public names have docstrings."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe
import typer
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = "<!-- commands -->"
CARD = "src/audiobert/pretrained/mini/README.md"


def undocumented(identifier: str) -> list[str]:
    """Return the public names in and below an object of the package that have no docstring."""
    package, _, path = identifier.partition(".")
    return _undocumented(_loaded(package)[path])


@cache
def _loaded(package: str) -> Any:
    return griffe.load(package, search_paths=[str(ROOT / "src")])


def _undocumented(one: Any) -> list[str]:
    if one.is_alias:
        one = one.final_target
    missing = [] if one.has_docstring or one.is_attribute else [one.path]
    if one.is_class:
        members = (member for name, member in one.members.items() if not name.startswith("_"))
        missing += [name for member in members if not member.is_alias for name in _undocumented(member)]
    return missing


def on_files(files: Files, config: Any) -> Files:
    """Add the model card, which lies beside the weights, as a page."""
    card = (ROOT / CARD).read_text(encoding="utf-8")
    files.append(File.generated(config, "model-card.md", content=card))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point at the model card's page, write the commands' help, and check the documented names."""
    for identifier in re.findall(r"^::: (\S+)", markdown, re.MULTILINE):
        if missing := undocumented(identifier):
            raise PluginError(f"{page.file.src_uri}: no docstring: {', '.join(missing)}")
    markdown = markdown.replace(f"](../{CARD})", "](model-card.md)")
    return markdown.replace(COMMANDS, command_help()) if COMMANDS in markdown else markdown


def command_help() -> str:
    """Return the help of every command as Markdown."""
    from audiobert.cli import app

    return "\n".join(_help(typer.main.get_command(app), "audiobert"))


def _help(command: Any, name: str) -> list[str]:
    inner = getattr(command, "commands", None)
    if inner:
        return [line for word, one in inner.items() for line in _help(one, f"{name} {word}")]
    text, _, example = (command.help or "").partition("Example:")
    lines = [f"## {name}", "", " ".join(text.split()), ""]
    if example:
        lines += ["```", " ".join(example.split()), "```", ""]
    lines += ["| option | |", "| --- | --- |"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        names = ", ".join(f"`{one}`" for one in [*parameter.opts, *parameter.secondary_opts] if one.startswith("-"))
        shown = names or f"`{parameter.metavar or parameter.name.upper()}`"
        help_text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {shown} | {help_text} |")
    return [*lines, ""]
