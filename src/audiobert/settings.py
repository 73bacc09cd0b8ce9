"""Settings: typed, frozen, nested by the part that owns them; read from YAML and from records."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of all settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
