"""Check that the models which made a bank's vectors are the ones at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from audiobert.errors import ArtefactError

if TYPE_CHECKING:
    from audiobert.bank.audio_bank import AudioBank

TEXT_ENCODER = "text_encoder"
"""Role of the model that makes name vectors; a bank without name vectors has none."""


def check_identity(bank: AudioBank, encoder_identity: Mapping[str, Any]) -> None:
    """Refuse a bank whose vectors were made by other models than the ones at hand.

    A bank that has no text encoder holds no name vectors, so that any text encoder fits it.
    """
    wanted = {role: value for role, value in encoder_identity.items() if role in bank.identity or role != TEXT_ENCODER}
    made_by, at_hand = _flat(bank.identity), _flat(wanted)
    if made_by == at_hand:
        return
    names = [name for name in {**made_by, **at_hand} if made_by.get(name) != at_hand.get(name)]
    theirs = ", ".join(f"{name} {_short(made_by.get(name))}" for name in names)
    ours = ", ".join(f"{name} {_short(at_hand.get(name))}" for name in names)
    raise ArtefactError(
        f"the bank {bank.folder} was made by {theirs}; the model at hand has {ours}; "
        "give a bank of this model, or build one with 'audiobert bank build'"
    )


def _flat(identity: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in identity.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
