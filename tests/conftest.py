"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real audio, text and benchmark; `AUDIOBERT_SHARED`, else `shared` beside the repository."""
    folder = Path(os.environ.get("AUDIOBERT_SHARED") or _REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set AUDIOBERT_SHARED to the folder with audio, text and auditorybench")
    return folder
