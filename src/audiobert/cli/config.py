"""Define `audiobert config`."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("config")(config)


def config(
    name: Annotated[str | None, typer.Argument(help="Name of a config; without one, all are listed.")] = None,
) -> None:
    """Print a config that ships with the package, to train with or to start your own from.

    Example: audiobert config paper-base > my.yaml
    """
    from audiobert.configs import config_names, find_config

    if name is None:
        print("\n".join(config_names()))
        return
    print(find_config(name).read_text(encoding="utf-8"), end="")
