"""What several tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

UseHub = Callable[[str], None]
_REPOSITORY = Path(__file__).resolve().parents[1]

settings.register_profile("without a clock", deadline=None, database=None)  # a busy machine fails no test
settings.load_profile("without a clock")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real audio, text and benchmark; `AUDIOBERT_SHARED`, else `shared` beside the repository."""
    folder = Path(os.environ.get("AUDIOBERT_SHARED") or _REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set AUDIOBERT_SHARED to the folder with audio, text and auditorybench")
    return folder


@pytest.fixture
def use_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UseHub:
    """Take an address for that of the hub, with an empty cache."""
    from huggingface_hub import HfApi, constants

    from audiobert import hub

    def point_to(address: str) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub, "HfApi", partial(HfApi, endpoint=address))

    return point_to
